//! Committing a directory.

use std::cell::Cell;
use std::fs;

use anyhow::{Context as _, Result};
use sys::Cmd;

use super::{World, bytes_of};
use crate::row::{Check, Row, Side};

/// `--tree=dir=…` is an option that both have.
fn commit(world: &World<'_>, cmd: Cmd) -> Cmd {
    cmd.args(["-b", "bench"]).arg(format!("--tree=dir={}", world.tree.display()))
}

/// To an archive repository that has nothing.
pub fn cold(world: &World<'_>) -> Result<Row> {
    let (ours, peer) = (world.scratch("ours"), world.scratch("peer"));
    let sides = [
        ("slipway", Side::new(|| world.fresh(&ours, "archive"), commit(world, world.ours("commit", &ours)))),
        ("ostree commit", Side::new(|| world.fresh(&peer, "archive"), commit(world, world.peer("commit", &peer)))),
        ("floor (read, hash)", world.floor(false)?),
    ];
    let row = world.row("commit a directory to archive, cold", &sides)?;
    let (a, b) = (bytes_of(&ours.join("objects"), ".filez")? as f64, bytes_of(&peer.join("objects"), ".filez")? as f64);
    let row = row.fact("bytes of .filez", a).fact("bytes of .filez of ostree", b);
    let row = row.limited_by_cores("compressing");
    Ok(row.faster(5.0).check(Check::at_most("bytes of .filez", a / b, 1.02)))
}

fn change(world: &World<'_>, serial: &Cell<u32>) -> Result<()> {
    serial.set(serial.get() + 1);
    fs::write(world.tree.join("usr/share/bench-changed"), serial.get().to_string()).context("changing one file")
}

fn repeated(world: &World<'_>, name: &str, option: &[&str]) -> Result<Row> {
    let (ours, peer) = (world.scratch("ours"), world.scratch("peer"));
    let our_commit = commit(world, world.ours("commit", &ours)).args(option);
    for (repo, cmd) in [(&ours, our_commit.clone()), (&peer, commit(world, world.peer("commit", &peer)))] {
        world.fresh(repo, "archive")?;
        cmd.run()?;
    }
    let serial = Cell::new(0);
    let sides = [
        ("slipway", Side::new(|| change(world, &serial), our_commit)),
        ("ostree commit", Side::new(|| change(world, &serial), commit(world, world.peer("commit", &peer)))),
        ("floor (read, hash)", world.floor(false)?),
    ];
    world.row(name, &sides)
}

/// Once more, with one file changed.
pub fn again(world: &World<'_>) -> Result<Row> {
    let row = repeated(world, "commit it again, one file changed", &[])?;
    Ok(row.limited_by_floor("reading and hashing every file").faster(20.0))
}

/// Once more, where the commit before remembered what it saw.
pub fn again_cached(world: &World<'_>) -> Result<Row> {
    let name = "commit it again, one file changed, with a stat cache";
    let help = Cmd::new(&world.slipway).args(["repo", "commit", "--help"]).run()?.text();
    if !help.contains("--stat-cache") {
        return Ok(Row::not_yet(name, "`slipway repo commit` has no --stat-cache"));
    }
    let row = repeated(world, name, &["--stat-cache"])?;
    Ok(row.limited_by_cores("asking the kernel about each file, on one core").faster(60.0))
}

/// To a bare-user repository that has nothing.
pub fn bare_user(world: &World<'_>) -> Result<Row> {
    let (ours, peer) = (world.scratch("ours"), world.scratch("peer"));
    let sides = [
        ("slipway", Side::new(|| world.fresh(&ours, "bare-user"), commit(world, world.ours("commit", &ours)))),
        ("ostree commit", Side::new(|| world.fresh(&peer, "bare-user"), commit(world, world.peer("commit", &peer)))),
        ("floor", world.floor(true)?),
    ];
    let row = world.row("commit to bare-user, cold", &sides)?;
    Ok(row.limited_by_floor("what the file system does for each new file").faster(1.3).near_floor(1.3))
}
