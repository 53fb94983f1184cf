//! What the scenarios boot: the things that `make demo` made from real packages.
//!
//! ```text
//! DIR/repo/            published: version 1 and 2, the ref on 2
//! DIR/host.qcow2       (or host.raw) version 1; its machines get updates from http://10.0.2.100
//! DIR/signing.key      the key that both are signed with, and that machines trust
//! DIR/result.json      commits: {"1": …, "2": …}
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where the update server answers inside a machine.
pub const UPDATES: &str = "10.0.2.100:80";
/// The ref that the demo composes.
pub const REF: &str = "slipway/trixie/amd64/container-host";
/// What version 2 says in `/etc/issue.net`, which no machine has a reason to change: the tree's new file must arrive.
pub const ISSUE_NET_2: &str = include_str!("../../treefiles/test-overlay/issue.net");

/// The demo's results.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// The published repository.
    pub repo: PathBuf,
    /// The image of version 1.
    pub image: PathBuf,
    /// The secret key.
    pub key: PathBuf,
    /// Commit of version 1, which the image holds.
    pub v1: String,
    /// Commit of version 2.
    pub v2: String,
}

impl Artifacts {
    /// Finds them in `dir`.
    pub fn load(dir: &Path) -> Result<Artifacts> {
        let result = dir.join("result.json");
        let bytes = std::fs::read(&result)
            .with_context(|| format!("reading {}; the scenarios boot what `make demo` makes", result.display()))?;
        let json: serde_json::Value = serde_json::from_slice(&bytes).context("reading result.json")?;
        let commit = |version: &str| -> Result<String> {
            let commit = json["commits"][version].as_str();
            Ok(commit.with_context(|| format!("result.json names no commit of version {version}"))?.to_owned())
        };
        let images = [dir.join("host.qcow2"), dir.join("host.raw")];
        let image = images.iter().find(|p| p.exists());
        let image = image.with_context(|| format!("there is no host.qcow2 or host.raw in {}", dir.display()))?;
        let artifacts = Artifacts {
            repo: dir.join("repo"),
            image: image.canonicalize()?,
            key: dir.join("signing.key"),
            v1: commit("1")?,
            v2: commit("2")?,
        };
        for path in [&artifacts.repo, &artifacts.key] {
            ensure!(path.exists(), "there is no {}", path.display());
        }
        Ok(artifacts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_artifacts_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = || format!("{:#}", Artifacts::load(dir.path()).unwrap_err());
        assert!(error().contains("make demo"), "{}", error());
        std::fs::write(dir.path().join("result.json"), "{\"commits\": {\"1\": \"aa\"}}").unwrap();
        assert!(error().contains("host.raw"), "{}", error());
        std::fs::write(dir.path().join("host.raw"), "").unwrap();
        assert!(error().contains("version 2"), "{}", error());
        std::fs::write(dir.path().join("result.json"), "{\"commits\": {\"1\": \"aa\", \"2\": \"bb\"}}").unwrap();
        assert!(error().contains("repo"), "{}", error());
        std::fs::create_dir(dir.path().join("repo")).unwrap();
        std::fs::write(dir.path().join("signing.key"), "").unwrap();
        assert_eq!(Artifacts::load(dir.path()).unwrap().v2, "bb");
    }
}
