//! The image a machine mounts.

use anyhow::Result;

use super::World;
use crate::row::Row;

/// Needs a libostree built with composefs, which Debian 12 and 13 do not have.
pub fn image(_: &World<'_>) -> Result<Row> {
    Ok(Row::not_yet(".ostree.cfs for the reference host", "the installed ostree is built without composefs"))
}
