//! Updates in the stock tools' format.

use anyhow::Result;

use super::World;
use crate::row::Row;

const NAME: &str = "point-release pair in stock's static-delta format";

/// Both generate a delta between the demo's two versions; the stock client applies ours.
pub fn stock_format(world: &World) -> Result<Row> {
    if !world.has_verb("static-delta")? {
        return Ok(Row::not_yet(NAME, "`slipway repo static-delta` does not exist"));
    }
    Ok(Row::not_yet(NAME, "no pair of point releases is composed for it"))
}
