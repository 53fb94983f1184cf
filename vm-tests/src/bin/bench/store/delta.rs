//! Updates in the stock tools' format.
//!
//! ```text
//! pair/delta-ours/    both commits, the objects hard links to the pair's; our delta in deltas/
//! pair/delta-peer/    the same for the stock tool
//! ours/               has the old commit; the stock client applies our delta to it
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sys::Cmd;

use super::pair::Pair;
use super::unpacked::{Kernel, Unpacked};
use super::{World, bytes_of};
use crate::row::{Check, Row, Side};

const NAME: &str = "point-release pair in stock's static-delta format";
const WITH_KERNEL: &str = "the same with the kernel image unpacked too";

/// Between two commits with modules and initramfs unpacked.
pub fn stock_format(world: &World<'_>) -> Result<Row> {
    measure(world, NAME, Kernel::Packed)
}

/// With nothing compressed in them at all: the kernel image is four fifths of the other delta, whoever makes it.
pub fn stock_format_with_kernel(world: &World<'_>) -> Result<Row> {
    measure(world, WITH_KERNEL, Kernel::Plain)
}

/// Both generate a delta; the stock client applies ours.
fn measure(world: &World<'_>, name: &str, kernel: Kernel) -> Result<Row> {
    let pair = Unpacked::of(world, &Pair::of(world)?, kernel)?;
    let (ours, peer) = (linked(world, &pair, "delta-ours")?, linked(world, &pair, "delta-peer")?);
    let generate = |cmd: Cmd| {
        let ends = [format!("--from={}", pair.old), format!("--to={}", pair.new)];
        cmd.arg("generate").args(ends).arg("--min-fallback-size=0")
    };
    let without = |repo: &Path| Ok(sys::file::remove_tree(&repo.join("deltas"))?);
    let machine = world.scratch("ours");
    let fresh = || {
        world.fresh(&machine, "bare-user")?;
        world.peer("pull-local", &machine).arg(&pair.repo).arg(&pair.old).run()?;
        Ok(())
    };
    // There is one delta in the repository, so these stars stand for its name.
    let apply = format!("exec {} \"$0\"/deltas/*/*", world.peer("static-delta", &machine).arg("apply-offline").line());
    let apply = Cmd::new("sh").args(["-euc", &apply]).arg(&ours);
    let sides = [
        ("slipway", Side::new(|| without(&ours), generate(world.ours("static-delta", &ours)))),
        ("ostree static-delta", Side::new(|| without(&peer), generate(world.peer("static-delta", &peer)))),
        ("ostree, applying ours", Side::new(fresh, apply)),
    ];
    // Stock's takes minutes.
    let row = Row::measure(name, world.runs.min(3), &world.output, &sides)?;
    world.peer("fsck", &machine).arg("--quiet").run()?;
    let list =
        |repo: &Path| Ok::<_, anyhow::Error>(world.peer("ls", repo).args(["-R", "-C"]).arg(&pair.new).run()?.text());
    ensure!(list(&machine)? == list(&pair.repo)?, "what the stock client made of our delta is another tree");

    let (a, b) = (bytes_of(&ours.join("deltas"), "")? as f64, bytes_of(&peer.join("deltas"), "")? as f64);
    Ok(row
        .fact("bytes", a)
        .fact("bytes of stock's", b)
        .limited_by_cores("bsdiff and LZMA")
        .check(Check::at_most("of stock's bytes", a / b, 0.8))
        .faster(4.0))
}

/// A repository beside the pair's with the same objects.
fn linked(world: &World<'_>, pair: &Unpacked, name: &str) -> Result<PathBuf> {
    let repo = pair.repo.with_file_name(name);
    sys::file::remove_tree(&repo)?;
    world.peer("init", &repo).arg("--mode=bare-user").run()?;
    Cmd::new("cp").args(["-alT"]).arg(pair.repo.join("objects")).arg(repo.join("objects")).run()?;
    Ok(repo)
}
