//! Updates in our own format.

use anyhow::{Result, ensure};

use super::pair::Pair;
use super::{World, repo_arg};
use crate::row::{Check, Row, Side};

const NAME: &str = "point-release pull, our format";
/// MiB that applying may take in all.
const APPLY: f64 = 192.0;

/// The reference host from trixie alone to the one with its updates: both generate, ours is applied.
pub fn point_release(world: &World<'_>) -> Result<Row> {
    let pair = Pair::of(world)?;
    let update = world.output.join("pair/update");
    let machine = world.scratch("ours");
    let generate = world.ours("update", &pair.build).arg("generate").arg(&pair.new).arg("--from").arg(&pair.old);
    let apply = world.ours("update", &machine).arg("apply").arg(&update);
    let fresh = || {
        world.fresh(&machine, "bare-user")?;
        world.peer("pull-local", &machine).arg(&pair.build).arg(&pair.old).run()?;
        Ok(sys::file::sync_fs(&machine)?)
    };
    let sides = [
        ("slipway", Side::plain(generate.arg("-o").arg(&update))),
        (
            "ostree static-delta",
            Side::new(|| Ok(sys::file::remove_tree(&pair.archive.join("deltas"))?), pair.stock_delta(world)),
        ),
        ("slipway, applying", Side::new(fresh, apply)),
    ];
    // Stock's takes minutes.
    let row = Row::measure(NAME, world.runs.min(3), &world.output, &sides)?;
    world.peer("fsck", &machine).arg("--quiet").run()?;
    let listed = world.peer("ls", &machine).args(["-R", "-C"]).arg(&pair.new).run()?.text();
    let wanted = world.peer("ls", &pair.build).args(["-R", "-C"]).arg(&pair.new).run()?.text();
    ensure!(listed == wanted, "what was applied to {} is another tree", repo_arg(&machine));

    let bytes = std::fs::metadata(&update)?.len() as f64;
    let (parts, fallback) = pair.stock_bytes()?;
    let stock = (parts + fallback) as f64;
    let [ours, theirs, applying] = [0, 1, 2].map(|side| row.side(side).peak_mib);
    Ok(row
        .fact("bytes", bytes)
        .fact("bytes of stock's parts", parts as f64)
        .fact("bytes of stock's fallbacks", fallback as f64)
        .limited_by_cores("matching and compressing what differs")
        .check(Check::at_most("of stock's bytes", bytes / stock, 0.25))
        .faster(2.0)
        .check(Check::at_most("of stock's memory", ours / theirs, 1.0))
        .check(Check::at_most("of 192 MiB, applying", applying / APPLY, 1.0)))
}
