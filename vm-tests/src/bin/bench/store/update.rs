//! Updates in our own format.

use anyhow::Result;

use super::World;
use crate::row::Row;

/// The reference host from trixie alone to the one with its updates.
pub fn point_release(_: &World) -> Result<Row> {
    Ok(Row::not_yet("point-release pull, our format", "no pair of point releases is composed for it"))
}
