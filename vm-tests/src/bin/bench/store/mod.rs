//! `bench store`: each row of the store's table, on the composed reference host.

mod commit;
mod composefs;
mod delta;
mod fsck;
mod pair;
mod pull;
/// The stock tool with composefs; the store's tests compare images with it.
#[path = "../../../../../store/tests/common/sid.rs"]
mod sid;
mod unpacked;
mod update;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sys::Cmd;

use crate::row::{Row, Side};
use crate::used::Used;

/// The ref that the demo publishes.
pub const REF: &str = "slipway/trixie/amd64/container-host";

/// What the rows share.
pub struct World<'a> {
    /// Our binary.
    pub slipway: PathBuf,
    /// The demo's published repository; never changed.
    pub repo: PathBuf,
    /// The reference host's tree, checked out from it.
    pub tree: PathBuf,
    /// Scratch.
    pub output: PathBuf,
    /// How often each side runs.
    pub runs: usize,
    used: &'a Used,
}

impl<'a> World<'a> {
    fn new(slipway: &Path, repo: &Path, output: &Path, runs: usize, used: &'a Used) -> Result<World<'a>> {
        let tree = output.join("tree");
        if !tree.exists() {
            let half = output.join("tree.new");
            sys::file::remove_tree(&half)?;
            Cmd::new("ostree").arg("checkout").arg(repo_arg(repo)).arg(REF).arg(&half).run()?;
            std::fs::rename(&half, &tree)?;
        }
        // Everything that is read lies in the page cache from the first run on.
        for dir in [&tree, repo] {
            Cmd::new(std::env::current_exe()?).arg("floor").arg(dir).run()?;
        }
        let (slipway, repo, output) = (slipway.to_owned(), repo.to_owned(), output.to_owned());
        Ok(World { slipway, repo, tree, output, runs, used })
    }

    /// A scratch repository of ours, or of the peer's.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    /// `slipway repo VERB --repo=REPO`.
    pub fn ours(&self, verb: &str, repo: &Path) -> Cmd {
        Cmd::new(&self.slipway).args(["repo", verb]).arg(repo_arg(repo))
    }

    /// `ostree VERB --repo=REPO`.
    pub fn peer(&self, verb: &str, repo: &Path) -> Cmd {
        Cmd::new("ostree").arg(verb).arg(repo_arg(repo))
    }

    /// An empty repository in place of the one that is there.
    pub fn fresh(&self, path: &Path, mode: &str) -> Result<()> {
        self.used.take(path)?;
        self.peer("init", path).arg(format!("--mode={mode}")).run()?;
        // What an earlier run left to be written must not be paid by this one.
        sys::file::sync_fs(path)?;
        Ok(())
    }

    /// The floor, reading alone or writing as well.
    pub fn floor(&self, writes: bool) -> Result<Side<'_>> {
        let cmd = Cmd::new(std::env::current_exe()?).arg("floor").arg(&self.tree);
        let out = self.output.join("floor");
        if !writes {
            return Ok(Side::plain(cmd));
        }
        let prepare = {
            let out = out.clone();
            move || {
                self.used.take(&out)?;
                std::fs::create_dir(&out)?;
                Ok(sys::file::sync_fs(&out)?)
            }
        };
        Ok(Side::new(prepare, cmd.arg(out)))
    }

    /// Measures a row.
    pub fn row(&self, name: &str, sides: &[(&str, Side<'_>)]) -> Result<Row> {
        Row::measure(name, self.runs, &self.output, sides)
    }
}

/// `--repo=PATH`.
pub fn repo_arg(path: &Path) -> String {
    format!("--repo={}", path.display())
}

/// Bytes of all files below `dir` whose names end so.
pub fn bytes_of(dir: &Path, ends: &str) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sum += bytes_of(&entry.path(), ends)?;
        } else if entry.file_name().to_string_lossy().ends_with(ends) {
            sum += entry.metadata()?.len();
        }
    }
    Ok(sum)
}

type Measure = fn(&World<'_>) -> Result<Row>;

/// Every row, by the name it can be asked for.
const ROWS: &[(&str, Measure)] = &[
    ("commit", commit::cold),
    ("recommit", commit::again),
    ("recommit-cached", commit::again_cached),
    ("bare-user", commit::bare_user),
    ("pull", pull::full),
    ("update", update::point_release),
    ("delta", delta::stock_format),
    ("delta-kernel", delta::stock_format_with_kernel),
    ("fsck", fsck::archive),
    ("composefs", composefs::image),
];

/// Measures the rows asked for; all where none is.
pub fn rows(slipway: &Path, repo: &Path, output: &Path, runs: usize, used: &Used, only: &[String]) -> Result<Vec<Row>> {
    if let Some(unknown) = only.iter().find(|name| ROWS.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("no row {unknown}; there are {}", known.join(", "));
    }
    let world = World::new(slipway, repo, output, runs, used)?;
    let wanted = ROWS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name));
    let rows = wanted.map(|(name, measure)| measure(&world).with_context(|| format!("row {name}"))).collect();
    for scratch in ["ours", "peer", "floor"] {
        world.used.take(&world.scratch(scratch))?;
    }
    rows
}
