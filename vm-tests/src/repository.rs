//! Copies of the published repository, to be damaged.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sys::Cmd;

/// A copy that shares unchanged files with the original.
#[derive(Debug)]
pub struct Repository {
    /// Where it lies.
    pub path: PathBuf,
}

impl Repository {
    /// Copies `from` by hard links: a file is only ever replaced here, never written in place.
    pub fn copy(from: &Path, to: &Path) -> Result<Repository> {
        sys::file::remove_tree(to)?;
        Cmd::new("cp").args(["-al", "--"]).arg(from).arg(to).run().context("copying the repository")?;
        Ok(Repository { path: to.to_owned() })
    }

    /// Leaves nothing to pull but objects, one by one: no update from version to version, no static delta.
    pub fn objects_only(self) -> Result<Repository> {
        for shorter in ["updates", "deltas", "delta-indexes"] {
            sys::file::remove_tree(&self.path.join(shorter))?;
        }
        Ok(self)
    }

    fn object(&self, checksum: &str, kind: &str) -> Result<PathBuf> {
        ensure!(checksum.len() == 64 && checksum.is_ascii(), "{checksum:?} is not a checksum");
        Ok(self.path.join("objects").join(&checksum[..2]).join(format!("{}.{kind}", &checksum[2..])))
    }

    /// Takes a commit's signatures away.
    pub fn unsign(&self, commit: &str) -> Result<()> {
        let file = self.object(commit, "commitmeta")?;
        ensure!(file.exists(), "{commit} is not signed to begin with");
        std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    }

    /// Signs a commit with a key that no tree trusts, made for it and left as `stranger.key` beside the repository.
    pub fn sign_by_a_stranger(&self, slipway: &Path, commit: &str) -> Result<()> {
        let key = self.path.with_file_name("stranger.key");
        if !key.exists() {
            Cmd::new(slipway).args(["key", "new"]).arg(&key).run()?;
        }
        self.sign(slipway, commit, &key)
    }

    /// Adds a signature to a commit.
    pub fn sign(&self, slipway: &Path, commit: &str, key: &Path) -> Result<()> {
        Cmd::new(slipway).args(["sign", commit, "--repo"]).arg(&self.path).arg("--key").arg(key).run()?;
        Ok(())
    }

    /// The detached metadata of a commit: its signatures.
    pub fn signatures(&self, commit: &str) -> Result<Vec<u8>> {
        let file = self.object(commit, "commitmeta")?;
        std::fs::read(&file).with_context(|| format!("reading {}", file.display()))
    }

    /// Publishes the tree of `commit` under another ref, as a commit of its own that nobody has signed.
    pub fn commit_as(&self, name: &str, commit: &str) -> Result<String> {
        let tree = format!("--tree=ref={commit}");
        let cmd = Cmd::new("ostree").arg(format!("--repo={}", self.path.display())).args(["commit", "--branch", name]);
        Ok(cmd.args([tree.as_str(), "--add-metadata-string=version=elsewhere"]).run()?.text())
    }

    /// The file objects of the second commit that the first one lacks.
    pub fn new_objects(&self, old: &str, new: &str) -> Result<Vec<PathBuf>> {
        let list = |commit: &str| -> Result<std::collections::BTreeSet<String>> {
            let repo = format!("--repo={}", self.path.display());
            let output = Cmd::new("ostree").args([repo.as_str(), "ls", "-RC", commit]).run()?;
            // "-00644 0 0   1234 CHECKSUM /path"; directories have two checksums.
            let files = output.text().lines().filter(|l| !l.starts_with('d')).filter_map(checksum_of).collect();
            Ok(files)
        };
        let old = list(old)?;
        list(new)?.difference(&old).map(|checksum| self.object(checksum, "filez")).collect()
    }

    /// Replaces a file by what `change` makes of its content.
    pub fn replace(&self, file: &Path, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<()> {
        let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        sys::file::replace(file, &change(bytes), 0o644).with_context(|| format!("replacing {}", file.display()))
    }

    /// The largest of `files`.
    pub fn largest(files: &[PathBuf]) -> Result<PathBuf> {
        let size = |path: &&PathBuf| std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
        match files.iter().max_by_key(size) {
            Some(path) => Ok(path.clone()),
            None => bail!("both versions have the same files"),
        }
    }
}

fn checksum_of(line: &str) -> Option<String> {
    line.split_whitespace()
        .find(|word| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_copy_leaves_the_original_alone() {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("repo");
        let commit = "ab".repeat(32);
        std::fs::create_dir_all(original.join("objects/ab")).unwrap();
        let meta = original.join(format!("objects/ab/{}.commitmeta", &commit[2..]));
        let object = original.join(format!("objects/ab/{}.filez", &commit[2..]));
        std::fs::write(&meta, "signature").unwrap();
        std::fs::write(&object, "content").unwrap();
        let copy = Repository::copy(&original, &dir.path().join("copy")).unwrap();
        copy.unsign(&commit).unwrap();
        assert!(copy.unsign(&commit).is_err());
        copy.replace(&copy.object(&commit, "filez").unwrap(), |bytes| bytes[..3].to_vec()).unwrap();
        assert_eq!(std::fs::read(&object).unwrap(), b"content");
        assert_eq!(std::fs::read(copy.object(&commit, "filez").unwrap()).unwrap(), b"con");
        assert!(meta.exists());
    }

    #[test]
    fn checksums_are_found_in_a_listing() {
        let sum = "0123456789abcdef".repeat(4);
        assert_eq!(checksum_of(&format!("-00644 0 0   1234 {sum} /usr/bin/x")), Some(sum));
        assert_eq!(checksum_of("-00644 0 0 1234 /usr/bin/x"), None);
    }
}
