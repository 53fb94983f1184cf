//! `bench compose`: a compose against mmdebstrap, of the same packages, which both have on the disk.
//!
//! A compose does more: it lays the tree out, makes the initramfs and commits. That is not taken out of its time.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sys::Cmd;

use crate::row::{Row, Side};
use crate::store::{REF, repo_arg};
use crate::used::Used;

/// Composes what the demo's first treefile says.
pub fn rows(slipway: &Path, artifacts: &Path, output: &Path, runs: usize, used: &Used) -> Result<Vec<Row>> {
    let treefile = artifacts.join("v1.yaml");
    ensure!(treefile.exists(), "run `make demo` first: its treefile is composed");
    let target = artifacts.parent().context("the directory above the demo's")?;
    let (packages, cache) = (target.join("deb"), target.join("cache"));
    let scratch = output.join("compose");
    sys::file::remove_tree(&scratch)?;
    fs::create_dir_all(&scratch)?;
    let (repo, root) = (scratch.join("repo"), scratch.join("root"));
    let compose = Cmd::new(slipway)
        .arg("compose")
        .arg(&treefile)
        .arg("--repo")
        .arg(&repo)
        .arg("--cachedir")
        .arg(&cache)
        .arg("--workdir")
        .arg(scratch.join("work"))
        .arg("--local-packages")
        .arg(&packages);
    // The first one fetches what is missing, and its tree tells which packages there are.
    compose.run().context("the first compose")?;
    let names = installed(slipway, &repo)?;
    let archive = scratch.join("archive");
    repository(&names, &[cache.join("debs"), packages], &archive)?;
    let mmdebstrap = Cmd::new("mmdebstrap")
        .env("TMPDIR", &scratch)
        .arg("--variant=essential")
        .args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"])
        .arg(format!("--include={}", names.iter().cloned().collect::<Vec<_>>().join(",")))
        .arg("trixie")
        .arg(&root)
        .arg(format!("deb [trusted=yes] copy://{} ./", archive.display()));
    let without = |path: &Path| -> Result<()> {
        used.take(path)?;
        Ok(sys::file::sync_fs(&scratch)?)
    };
    let sides =
        [("slipway", Side::new(|| without(&repo), compose)), ("mmdebstrap", Side::new(|| without(&root), mmdebstrap))];
    let row = Row::measure("compose of the reference host", runs, output, &sides)?;
    sys::file::remove_tree(&scratch)?;
    Ok(vec![row.fact("packages", names.len() as f64).faster(1.0)])
}

fn fields<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// `NAME=VERSION` of every package in the tree.
fn installed(slipway: &Path, repo: &Path) -> Result<BTreeSet<String>> {
    let cat = Cmd::new(slipway).args(["repo", "cat"]).arg(repo_arg(repo));
    let status = cat.args([REF, "/usr/lib/sysimage/dpkg/status"]).run()?.text();
    let names: BTreeSet<String> =
        fields(&status, "Package").zip(fields(&status, "Version")).map(|(n, v)| format!("{n}={v}")).collect();
    ensure!(!names.is_empty(), "the tree's list of packages is empty");
    Ok(names)
}

/// A repository of exactly these packages, for apt.
fn repository(names: &BTreeSet<String>, places: &[PathBuf], archive: &Path) -> Result<()> {
    fs::create_dir(archive)?;
    let (mut index, mut found) = (String::new(), BTreeSet::new());
    for place in places {
        for entry in fs::read_dir(place).with_context(|| format!("reading {}", place.display()))? {
            let deb = entry?.path();
            if deb.extension().is_none_or(|e| e != "deb") {
                continue;
            }
            let control = Cmd::new("dpkg-deb").arg("--field").arg(&deb).run()?.text();
            let first = |name| fields(&control, name).next().unwrap_or_default();
            let name = format!("{}={}", first("Package"), first("Version"));
            if !names.contains(&name) || !found.insert(name) {
                continue;
            }
            let sum = Cmd::new("sha256sum").arg(&deb).run()?.text();
            let sum = sum.split(' ').next().unwrap_or_default();
            fs::copy(&deb, archive.join(format!("{sum}.deb")))?;
            let size = deb.metadata()?.len();
            let _ = write!(index, "{control}\nFilename: ./{sum}.deb\nSize: {size}\nSHA256: {sum}\n\n");
        }
    }
    let missing: Vec<_> = names.difference(&found).collect();
    ensure!(missing.is_empty(), "packages of the tree that are not in the cache: {missing:?}");
    fs::write(archive.join("Packages"), &index)?;
    let sum = Cmd::new("sha256sum").arg(archive.join("Packages")).run()?.text();
    let release = format!(
        "Suite: trixie\nCodename: trixie\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: amd64 all\nSHA256:\n {} {} Packages\n",
        sum.split(' ').next().unwrap_or_default(),
        index.len()
    );
    fs::write(archive.join("Release"), release)?;
    Ok(())
}
