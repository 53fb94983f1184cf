//! Where things lie on a machine, below a root that tests replace.
//!
//! ```text
//! /sysroot/ostree/repo                                      bare-user repository
//! /sysroot/ostree/deploy/<os>/deploy/<commit>.<n>/          .ostree.cfs, etc/
//! /sysroot/ostree/deploy/<os>/deploy/<commit>.<n>.origin    [origin] refspec
//! /sysroot/ostree/deploy/<os>/deploy/<commit>.<n>.state.json
//! /sysroot/ostree/deploy/<os>/bad.json                      commits that failed, kept after their deployment is gone
//! /sysroot/ostree/deploy/<os>/var
//! /efi                                                      the ESP
//! /run/slipway/{booted.json,status.json,host.lock}
//! ```

use std::path::{Path, PathBuf};

use crate::DeploymentId;

/// Paths below one root.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Paths of the machine whose `/` is at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Paths {
        Paths { root: root.into() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The physical root file system.
    pub fn sysroot(&self) -> PathBuf {
        self.root.join("sysroot")
    }

    /// The repository.
    pub fn repo(&self) -> PathBuf {
        self.root.join("sysroot/ostree/repo")
    }

    /// What belongs to one operating system.
    pub fn stateroot(&self, os: &str) -> PathBuf {
        self.root.join("sysroot/ostree/deploy").join(os)
    }

    /// All deployments of one operating system.
    pub fn deployments(&self, os: &str) -> PathBuf {
        self.stateroot(os).join("deploy")
    }

    /// One deployment's directory.
    pub fn deployment(&self, os: &str, id: &DeploymentId) -> PathBuf {
        self.deployments(os).join(id.to_string())
    }

    /// One deployment's state file.
    pub fn state(&self, os: &str, id: &DeploymentId) -> PathBuf {
        self.deployments(os).join(format!("{id}.state.json"))
    }

    /// One deployment's origin file.
    pub fn origin(&self, os: &str, id: &DeploymentId) -> PathBuf {
        self.deployments(os).join(format!("{id}.origin"))
    }

    /// Commits that failed here.
    pub fn bad_marks(&self, os: &str) -> PathBuf {
        self.stateroot(os).join("bad.json")
    }

    /// The mounted ESP.
    pub fn esp(&self) -> PathBuf {
        self.root.join("efi")
    }

    /// The live `/etc`.
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// The booted tree's default `/etc`.
    pub fn usr_etc(&self) -> PathBuf {
        self.root.join("usr/etc")
    }

    /// Run-time files.
    pub fn run(&self) -> PathBuf {
        self.root.join("run/slipway")
    }

    /// What prepare-root saw.
    pub fn booted(&self) -> PathBuf {
        self.root.join("run/slipway/booted.json")
    }

    /// What ordinary users may read.
    pub fn status(&self) -> PathBuf {
        self.root.join("run/slipway/status.json")
    }

    /// What a finalize that could not even begin left for the next boot. `/var` is writable without our help.
    pub fn finalize_failure(&self) -> PathBuf {
        self.root.join("var/lib/slipway/finalize-failure.txt")
    }

    /// Who changes the machine now.
    pub fn lock(&self) -> PathBuf {
        self.root.join("run/slipway/host.lock")
    }

    /// What the booted tree says about itself.
    pub fn tree_json(&self) -> PathBuf {
        self.root.join("usr/lib/slipway/tree.json")
    }

    /// The operator's own update remote.
    pub fn remote_json(&self) -> PathBuf {
        self.root.join("etc/slipway/remote.json")
    }
}
