//! Checking a repository.

use anyhow::Result;

use super::World;
use crate::row::{Row, Side};

/// The published archive repository, by both.
pub fn archive(world: &World<'_>) -> Result<Row> {
    let sides = [
        ("slipway", Side::plain(world.ours("fsck", &world.repo))),
        ("ostree fsck", Side::plain(world.peer("fsck", &world.repo).arg("--quiet"))),
    ];
    Ok(world.row("fsck", &sides)?.limited_by_cores("inflating and hashing").faster(3.0))
}
