//! Names of commits.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Repo;
use crate::{Checksum, Error, ObjectType};

/// Whether `name` may be the name of a ref: it becomes a path, so it must not leave `refs/heads`.
pub fn valid_ref(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    name.len() <= 512 && name.split('/').all(part)
}

/// Whether `id` may be the name of a collection: parts like those of a host name, turned round.
pub fn valid_collection(id: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    id.len() <= 255 && id.contains('.') && id.split('.').all(part)
}

impl Repo {
    /// The commit that `rev` names: a ref, `REMOTE:REF`, a checksum or the unique beginning of one; each `^` at the end
    /// goes to the parent.
    pub fn resolve(&self, rev: &str) -> Result<Checksum, Error> {
        if let Some(child) = rev.strip_suffix('^') {
            let commit = self.load_commit(&self.resolve(child)?)?;
            return commit.parent.ok_or_else(|| self.not_found(rev));
        }
        if let Ok(checksum) = rev.parse() {
            return Ok(checksum);
        }
        if let Some(checksum) = self.read_ref(rev)? {
            return Ok(checksum);
        }
        if !rev.contains(':') {
            // As last seen at whichever remote has it.
            for remote in names(&self.path.join("refs/remotes"))? {
                if let Some(checksum) = self.read_ref(&format!("{remote}:{rev}"))? {
                    return Ok(checksum);
                }
            }
        }
        self.resolve_prefix(rev)
    }

    fn not_found(&self, rev: &str) -> Error {
        Error::NotFound(rev.to_owned(), self.path.clone())
    }

    /// The commit a ref points to. `REMOTE:REF` is the ref as last seen at a remote.
    pub fn read_ref(&self, name: &str) -> Result<Option<Checksum>, Error> {
        let path = self.ref_path(name)?;
        let text = match fs::read_to_string(&path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Ok(None),
            text => text.map_err(|e| Error::io(format!("reading {}", path.display()), e))?,
        };
        let checksum = text.trim_end().parse();
        checksum.map(Some).map_err(|e| Error::invalid(format!("{}: {e}", path.display())))
    }

    fn ref_path(&self, name: &str) -> Result<PathBuf, Error> {
        let bad = || Error::RefName(name.to_owned());
        match name.split_once(':') {
            None if valid_ref(name) => Ok(self.path.join("refs/heads").join(name)),
            Some((remote, name)) if valid_ref(name) && valid_ref(remote) && !remote.contains('/') => {
                Ok(self.path.join("refs/remotes").join(remote).join(name))
            }
            _ => Err(bad()),
        }
    }

    fn resolve_prefix(&self, prefix: &str) -> Result<Checksum, Error> {
        if prefix.len() < 4
            || prefix.len() > 63
            || !prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(self.not_found(prefix));
        }
        let mut found = None;
        for commit in self.list(ObjectType::Commit, &prefix[..2])? {
            if commit.to_hex().starts_with(prefix) {
                if found.is_some() {
                    return Err(Error::Ambiguous(prefix.to_owned()));
                }
                found = Some(commit);
            }
        }
        found.ok_or_else(|| self.not_found(prefix))
    }

    /// The local refs.
    pub fn refs(&self) -> Result<BTreeMap<String, Checksum>, Error> {
        self.refs_below("refs/heads", "")
    }

    /// The refs last seen at remotes, as `REMOTE:REF`.
    pub fn remote_refs(&self) -> Result<BTreeMap<String, Checksum>, Error> {
        let mut all = BTreeMap::new();
        let dir = self.path.join("refs/remotes");
        for remote in names(&dir)? {
            all.extend(self.refs_below(&format!("refs/remotes/{remote}"), &format!("{remote}:"))?);
        }
        Ok(all)
    }

    /// All refs, local and remote, with what they point to.
    pub fn ref_targets(&self) -> Result<Vec<(String, Checksum)>, Error> {
        Ok(self.refs()?.into_iter().chain(self.remote_refs()?).collect())
    }

    /// Everything that keeps a commit here: local refs, those of remotes, and those mirrored of other collections, which
    /// are called `(COLLECTION, REF)`.
    pub fn ref_roots(&self) -> Result<Vec<(String, Checksum)>, Error> {
        let mut roots = self.ref_targets()?;
        let mirrored = self.mirror_refs()?.into_iter().map(|((id, name), commit)| (format!("({id}, {name})"), commit));
        roots.extend(mirrored);
        Ok(roots)
    }

    fn refs_below(&self, below: &str, prefix: &str) -> Result<BTreeMap<String, Checksum>, Error> {
        let mut refs = BTreeMap::new();
        for name in self.names_below(below)? {
            let name = format!("{prefix}{name}");
            if let Some(checksum) = self.read_ref(&name)? {
                refs.insert(name, checksum);
            }
        }
        Ok(refs)
    }

    /// The names of files below a directory of refs.
    fn names_below(&self, below: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut todo = vec![String::new()];
        while let Some(dir) = todo.pop() {
            for name in names(&self.path.join(below).join(&dir))? {
                let name = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                // Leftovers of an interrupted replacement begin with a dot and are no refs.
                if !valid_ref(&name) {
                    continue;
                }
                if self.path.join(below).join(&name).is_dir() {
                    todo.push(name);
                } else {
                    found.push(name);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Refs by the beginning of their names, in whole parts: `os` has `os/stable` below it and not `osx`. A ref of just
    /// that name stands alone. `REMOTE:` has all of a remote. Without a prefix: every ref there is. `cut` leaves the
    /// prefix away.
    pub fn refs_with_prefix(&self, prefix: Option<&str>, cut: bool) -> Result<BTreeMap<String, Checksum>, Error> {
        let Some(prefix) = prefix else { return Ok(self.ref_targets()?.into_iter().collect()) };
        let (remote, below) = match prefix.split_once(':') {
            Some((remote, below)) if below.is_empty() || below == "." => (format!("{remote}:"), ""),
            Some((remote, below)) => (format!("{remote}:"), below),
            None => (String::new(), prefix),
        };
        if !below.is_empty() && !valid_ref(below) {
            return Err(Error::RefName(prefix.to_owned()));
        }
        let all = if remote.is_empty() { self.refs()? } else { self.remote_refs()? };
        let mut found = BTreeMap::new();
        for (name, commit) in all {
            let Some(rest) = name.strip_prefix(&remote).and_then(|name| name.strip_prefix(below)) else { continue };
            match rest.strip_prefix('/') {
                _ if rest.is_empty() || below.is_empty() => found.insert(name, commit),
                Some(rest) if cut => found.insert(format!("{remote}{rest}"), commit),
                Some(_) => found.insert(name, commit),
                None => None,
            };
        }
        Ok(found)
    }

    /// The refs that stand for other refs, with the names of those.
    pub fn aliases(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut aliases = BTreeMap::new();
        for name in self.refs()?.into_keys() {
            if let Ok(target) = fs::read_link(self.path.join("refs/heads").join(&name)) {
                let target = target.to_string_lossy().into_owned();
                aliases.insert(name, target.trim_start_matches("../").to_owned());
            }
        }
        Ok(aliases)
    }

    /// Lets a ref stand for another one, at once.
    pub fn set_alias(&self, name: &str, target: &str) -> Result<(), Error> {
        let path = self.ref_path(name)?;
        if name.contains(':') || !valid_ref(target) {
            return Err(Error::RefName(format!("{name} -> {target}")));
        }
        let io = |e| Error::io(format!("writing ref {name}"), e);
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(io)?;
        let text = format!("{}{target}", "../".repeat(name.matches('/').count()));
        let new = dir.join(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
        sys::file::remove(&new).map_err(io)?;
        std::os::unix::fs::symlink(text, &new).map_err(io)?;
        fs::rename(&new, &path).map_err(io)?;
        sys::file::sync_dir(dir).map_err(io)
    }

    /// Refs by collection: the repository's own, those it mirrors, and those of remotes that say which collection they
    /// are.
    pub fn collection_refs(&self) -> Result<BTreeMap<(String, String), Checksum>, Error> {
        let config = self.config()?;
        let mut found = BTreeMap::new();
        if let Some(id) = config.get("core", "collection-id") {
            found.extend(self.refs()?.into_iter().map(|(name, commit)| ((id.clone(), name), commit)));
        }
        for (name, commit) in self.remote_refs()? {
            let Some((remote, name)) = name.split_once(':') else { continue };
            if let Some(id) = config.get(&format!("remote \"{remote}\""), "collection-id") {
                found.insert((id, name.to_owned()), commit);
            }
        }
        for ((id, name), commit) in self.mirror_refs()? {
            found.insert((id, name), commit);
        }
        Ok(found)
    }

    /// The refs of other collections that this repository mirrors.
    pub fn mirror_refs(&self) -> Result<BTreeMap<(String, String), Checksum>, Error> {
        let mut found = BTreeMap::new();
        for id in names(&self.path.join("refs/mirrors"))?.into_iter().filter(|id| valid_collection(id)) {
            let below = format!("refs/mirrors/{id}");
            for name in self.names_below(&below)? {
                let path = self.path.join(&below).join(&name);
                let text =
                    fs::read_to_string(&path).map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
                let commit = text.trim_end().parse();
                let commit = commit.map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
                found.insert((id.clone(), name), commit);
            }
        }
        Ok(found)
    }

    /// Points a mirrored ref of another collection at a commit, durably and at once.
    pub fn set_mirror_ref(&self, id: &str, name: &str, commit: &Checksum) -> Result<(), Error> {
        if !valid_collection(id) || !valid_ref(name) {
            return Err(Error::RefName(format!("({id}, {name})")));
        }
        let path = self.path.join("refs/mirrors").join(id).join(name);
        let io = |e| Error::io(format!("writing ref ({id}, {name})"), e);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
        sys::file::replace(&path, format!("{commit}\n").as_bytes(), 0o644).map_err(io)
    }

    /// Removes a mirrored ref of another collection; a missing one is fine.
    pub fn delete_mirror_ref(&self, id: &str, name: &str) -> Result<(), Error> {
        if !valid_collection(id) || !valid_ref(name) {
            return Err(Error::RefName(format!("({id}, {name})")));
        }
        let path = self.path.join("refs/mirrors").join(id).join(name);
        sys::file::remove(&path).map_err(|e| Error::io(format!("deleting ref ({id}, {name})"), e))
    }

    /// Every commit that is here, sorted.
    pub fn commits(&self) -> Result<Vec<Checksum>, Error> {
        let mut commits = Vec::new();
        for dir in 0..=255u8 {
            commits.extend(self.list(ObjectType::Commit, &format!("{dir:02x}"))?);
        }
        commits.sort();
        Ok(commits)
    }

    /// Points a ref (or `REMOTE:REF`) at a commit, durably and at once.
    pub fn set_ref(&self, name: &str, commit: &Checksum) -> Result<(), Error> {
        let path = self.ref_path(name)?;
        let io = |e| Error::io(format!("writing ref {name}"), e);
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(io)?;
        sys::file::replace(&path, format!("{commit}\n").as_bytes(), 0o644).map_err(io)
    }

    /// Removes a ref (or `REMOTE:REF`); a missing one is fine.
    pub fn delete_ref(&self, name: &str) -> Result<(), Error> {
        sys::file::remove(&self.ref_path(name)?).map_err(|e| Error::io(format!("deleting ref {name}"), e))
    }
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let io = |e| Error::io(format!("reading {}", dir.display()), e);
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    #[test]
    fn ref_names_cannot_leave_their_directory() {
        for good in ["a", "slipway/13/x86_64/host", "debian-13.1_x", "_a/b.c"] {
            assert!(valid_ref(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".a", "a/.b", "-a", "a b", "a:b", "a\nb", "é"] {
            assert!(!valid_ref(bad), "{bad}");
        }
    }

    #[test]
    fn refs_are_set_listed_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let (one, two) = (Checksum::of(b"1"), Checksum::of(b"2"));
        repo.set_ref("os/stable", &one).unwrap();
        repo.set_ref("default:os/stable", &two).unwrap();
        assert_eq!(repo.refs().unwrap(), BTreeMap::from([("os/stable".into(), one)]));
        assert_eq!(repo.remote_refs().unwrap(), BTreeMap::from([("default:os/stable".into(), two)]));
        assert_eq!(repo.resolve("os/stable").unwrap(), one);
        assert_eq!(repo.resolve("default:os/stable").unwrap(), two);
        assert!(matches!(repo.set_ref("../escape", &one), Err(Error::RefName(_))));
        assert!(matches!(repo.resolve("os"), Err(Error::NotFound(..))));
        repo.delete_ref("os/stable").unwrap();
        repo.delete_ref("os/stable").unwrap();
        assert!(repo.refs().unwrap().is_empty());
    }
}
