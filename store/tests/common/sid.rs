//! An `ostree` with composefs: the machine's own, or Debian sid's in a chroot. The bench of the store uses it too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sys::Cmd;

/// The machine's own Debian mirror.
pub fn mirror() -> io::Result<String> {
    let mut text = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    for entry in fs::read_dir("/etc/apt/sources.list.d")? {
        text += "\n";
        text += &fs::read_to_string(entry?.path()).unwrap_or_default();
    }
    let found = text.split_whitespace().find(|w| w.starts_with("http") && w.trim_end_matches('/').ends_with("/debian"));
    found.map(str::to_owned).ok_or_else(|| io::Error::other("no Debian mirror in /etc/apt"))
}

/// Where new enough tools are.
pub struct Tools {
    /// The machine itself without one.
    pub chroot: Option<PathBuf>,
}

impl Tools {
    /// Looks for them on the machine, then in `chroot`, which is made if it is not there (network, root).
    pub fn find(chroot: &Path) -> io::Result<Tools> {
        let own = Cmd::new("ostree").arg("--version").output().map(|o| o.text()).unwrap_or_default();
        if own.contains("- composefs") {
            return Ok(Tools { chroot: None });
        }
        let chroot = std::env::var_os("SLIPWAY_OSTREE_CHROOT").map_or(chroot.to_owned(), PathBuf::from);
        if !chroot.join("usr/bin/ostree").exists() {
            // One that is half made, by a run that was killed, cannot be completed.
            sys::file::remove_tree(&chroot)?;
            fs::create_dir_all(chroot.parent().unwrap_or(Path::new("/")))?;
            let include = "--include=ostree,composefs";
            let old = "--aptopt=Acquire::Check-Valid-Until \"false\"";
            let make = Cmd::new("mmdebstrap").args(["--variant=apt", include, old, "sid"]).arg(&chroot).arg(mirror()?);
            make.run().map_err(io::Error::other)?;
        }
        Ok(Tools { chroot: Some(chroot.canonicalize()?) })
    }

    /// The directory for what is temporary that the tools can see.
    pub fn tmp(&self) -> PathBuf {
        self.chroot.as_ref().map_or_else(std::env::temp_dir, |chroot| chroot.join("tmp"))
    }

    /// What the tools call a path.
    pub fn name(&self, path: &Path) -> PathBuf {
        let inside = self.chroot.as_ref().and_then(|chroot| path.strip_prefix(chroot).ok());
        inside.map_or_else(|| path.to_owned(), |inside| Path::new("/").join(inside))
    }

    /// `ostree`, without arguments.
    pub fn ostree(&self) -> Cmd {
        match &self.chroot {
            None => Cmd::new("ostree"),
            // ostree links temporary files by /proc/self/fd.
            Some(chroot) => Cmd::new("unshare")
                .args(["-m", "sh", "-ec", "mount --bind /proc \"$0/proc\"; exec chroot \"$0\" ostree \"$@\""])
                .arg(chroot),
        }
    }
}
