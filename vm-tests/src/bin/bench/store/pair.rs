//! A point release: the reference host from trixie alone, and with trixie's updates, a new kernel among them.
//!
//! ```text
//! pair/build/     both commits, as a build keeps them
//! pair/stock/     both as Debian ships them: the initramfs is what dracut makes there when nobody tells it how
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sys::Cmd;

use super::{World, repo_arg};

/// The two versions.
pub struct Pair {
    /// Both, as a build keeps them.
    pub build: PathBuf,
    /// Both as Debian ships them, in a repository for the stock tool.
    pub archive: PathBuf,
    /// The two commits in it.
    pub stock: [String; 2],
    /// The commit from trixie alone.
    pub old: String,
    /// The commit with the updates.
    pub new: String,
}

impl Pair {
    /// Composes both versions where an earlier run has not.
    pub fn of(world: &World<'_>) -> Result<Pair> {
        let dir = world.output.join("pair");
        let path = |name: &str| dir.join(name);
        let (build, archive) = (path("build"), path("stock"));
        if !path("new").exists() {
            sys::file::remove_tree(&dir)?;
            std::fs::create_dir_all(&dir)?;
            let target = world.repo.ancestors().nth(2).context("the directory above the demo's")?;
            let treefiles = target.parent().context("the directory of the sources")?.join("treefiles");
            for (name, repos) in [("old", "repos:\n  - name: debian\n    suites: trixie\n"), ("new", "")] {
                let treefile = path("host.yaml");
                let text = format!("include: {}/container-host.yaml\n{repos}", treefiles.display());
                std::fs::write(&treefile, text)?;
                let compose = Cmd::new(&world.slipway).arg("compose").arg(&treefile).arg("--repo").arg(&build);
                let compose = compose.arg("--cachedir").arg(target.join("cache")).arg("--workdir").arg(path("work"));
                let commit = compose.arg("--local-packages").arg(target.join("deb")).run()?.text();
                std::fs::write(path(name), &commit)?;
            }
        }
        let read = |name: &str| -> Result<String> { Ok(std::fs::read_to_string(path(name))?.trim().to_owned()) };
        let (old, new) = (read("old")?, read("new")?);
        if !path("new-stock").exists() {
            sys::file::remove_tree(&archive)?;
            world.peer("init", &archive).arg("--mode=archive").run()?;
            for (name, commit) in [("old", &old), ("new", &new)] {
                let tree = path("tree");
                sys::file::remove_tree(&tree)?;
                world.peer("checkout", &build).arg("-U").arg(commit).arg(&tree).run()?;
                debian_initramfs(&tree)?;
                let shipped = world.peer("commit", &archive).arg("-b").arg(name).arg(&tree).run()?.text();
                sys::file::remove_tree(&tree)?;
                std::fs::write(path(&format!("{name}-stock")), &shipped)?;
            }
        }
        Ok(Pair { build, archive, stock: [read("old-stock")?, read("new-stock")?], old, new })
    }

    /// Stock's delta, made anew.
    pub fn stock_delta(&self, world: &World<'_>) -> Cmd {
        let generate = world.peer("static-delta", &self.archive).arg("generate");
        generate.arg(format!("--from={}", self.stock[0])).arg(format!("--to={}", self.stock[1]))
    }

    /// Bytes that a stock client fetches: parts, and the objects that are left to be fetched on their own.
    pub fn stock_bytes(&self) -> Result<(u64, u64)> {
        let deltas = self.archive.join("deltas");
        let parts = super::bytes_of(&deltas, "")?;
        let name = format!("{}-{}", self.stock[0], self.stock[1]);
        let show = Cmd::new("ostree").arg("static-delta").arg(repo_arg(&self.archive)).arg("show").arg(name).run()?;
        let number = |line: &str| line.split('(').next()?.rsplit(':').next()?.trim().split(' ').next()?.parse().ok();
        let text = show.text();
        let fallback = text.lines().find(|line| line.starts_with("Total Fallback Size")).and_then(number);
        Ok((parts, fallback.context("stock says no Total Fallback Size")?))
    }
}

/// Has the tree's dracut make the initramfs of each kernel as Debian's kernel packages do, for any machine. Files of the
/// tree may be shared with a repository.
fn debian_initramfs(tree: &Path) -> Result<()> {
    for kernel in std::fs::read_dir(tree.join("usr/lib/modules"))? {
        let kernel = kernel?.file_name();
        let image = Path::new("/usr/lib/modules").join(&kernel).join("initramfs.img");
        std::fs::remove_file(tree.join(image.strip_prefix("/")?))?;
        let sandbox = Cmd::new("bwrap").arg("--bind").arg(tree).arg("/");
        let sandbox = sandbox.arg("--bind").arg(tree.join("usr/etc")).arg("/etc");
        let mounts = "--proc /proc --dev /dev --tmpfs /tmp --tmpfs /var/tmp --tmpfs /run --unshare-net --unshare-pid";
        let sandbox = sandbox.args(mounts.split(' ')).args(["--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin"]);
        sandbox.args(["dracut", "--force", "--no-hostonly", "--omit", "slipway"]).arg(&image).arg(&kernel).run()?;
    }
    // The place that the sandbox made for it.
    std::fs::remove_dir(tree.join("etc"))?;
    Ok(())
}
