//! The image a machine mounts.

use std::fs;

use anyhow::{Result, ensure};

use super::sid::Tools;
use super::{REF, World, repo_arg};
use crate::row::{Row, Side};

const NAME: &str = ".ostree.cfs for the reference host";

/// Both write the image of the same commit in the same bare-user repository, without knowing any file's digest.
///
/// Debian 12 and 13 build libostree without composefs, so the peer is sid's, in a chroot.
pub fn image(world: &World<'_>) -> Result<Row> {
    // Beside the build's other output, where the heavy tests look for it too.
    let target = world.output.parent().unwrap_or(&world.output);
    let tools = match Tools::find(&target.join("heavy/sid")) {
        Ok(tools) => tools,
        Err(error) => {
            let why = format!("sid's ostree, which knows composefs, could not be installed into a chroot: {error}");
            return Ok(Row::not_yet(NAME, why));
        }
    };
    let dir = tools.tmp().join("slipway-bench");
    sys::file::remove_tree(&dir)?;
    fs::create_dir(&dir)?;
    let (repo, ours, theirs) = (dir.join("repo"), dir.join("ours.cfs"), dir.join("theirs.cfs"));
    world.fresh(&repo, "bare-user")?;
    world.peer("pull-local", &repo).arg(&world.repo).arg(REF).run()?;
    sys::file::sync_fs(&repo)?;
    let known = repo.join("extensions/slipway/verity");
    let without = |remove: &[&std::path::Path]| remove.iter().try_for_each(|path| Ok(sys::file::remove(path)?));
    let make = || world.ours("checkout", &repo).arg("--composefs").arg(REF).arg(&ours);
    let stock = tools.ostree().arg("checkout").arg(repo_arg(&tools.name(&repo))).args(["--composefs", REF]);
    let sides = [
        ("slipway", Side::new(|| without(&[&ours, &known]), make())),
        ("ostree (sid)", Side::new(|| without(&[&theirs]), stock.arg(tools.name(&theirs)))),
        ("slipway, once more", Side::new(|| without(&[&ours]), make())),
    ];
    let row = world.row(NAME, &sides)?;
    let image = fs::read(&ours)?;
    ensure!(image == fs::read(&theirs)?, "the two images of one commit differ");
    sys::file::remove_tree(&dir)?;
    Ok(row
        .fact("bytes of the image, equal", image.len() as f64)
        .limited_by_cores("reading and hashing every file")
        .faster(2.0))
}
