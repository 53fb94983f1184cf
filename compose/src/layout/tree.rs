//! A tree under a directory: every path is relative to it, and no symlink in the tree leads out of it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::Error;

/// The most symlinks one path may go through, as in the kernel.
const MAX_LINKS: usize = 40;

/// A root directory in the making.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

/// One name found by [`Tree::walk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Path relative to the tree's root, without a leading slash.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file.
    pub size: u64,
}

/// What a name in a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symlink and its target.
    Link(String),
    /// A device, FIFO or socket.
    Special,
}

impl Tree {
    /// The tree under `root`.
    pub fn new(root: &Path) -> Self {
        Tree { root: root.to_owned() }
    }

    /// Where the tree is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The place of `path` as the build machine sees it: symlinks of the directories above the last name are followed
    /// inside the tree, the last name is not followed. A path that does not exist yet is fine.
    pub fn at(&self, path: &str) -> PathBuf {
        let mut real = PathBuf::new();
        let mut todo: Vec<std::ffi::OsString> = names(Path::new(path));
        todo.reverse();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            let followed = if todo.is_empty() { None } else { fs::read_link(self.root.join(&next)).ok() };
            match followed {
                Some(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        real = PathBuf::new();
                    }
                    todo.extend(names(&target).into_iter().rev());
                }
                _ => real = next,
            }
        }
        self.root.join(real)
    }

    /// Whether there is something at `path` (a dangling symlink counts).
    pub fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    /// Whether there is a directory at `path`, not through a symlink.
    pub fn is_dir(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok_and(|m| m.is_dir())
    }

    /// The text of a file; `None` where there is none.
    pub fn read(&self, path: &str) -> Result<Option<String>, Error> {
        match fs::read(self.at(path)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("reading", path, e)),
        }
    }

    /// Writes a file with exactly `mode`, and the directories above it.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        self.parents(path)?;
        let place = self.at(path);
        let write = || {
            // An existing symlink or hard link must not carry the bytes elsewhere.
            sys::file::remove(&place)?;
            fs::write(&place, bytes.as_ref())?;
            fs::set_permissions(&place, fs::Permissions::from_mode(mode))
        };
        write().map_err(|e| Error::io("writing", path, e))
    }

    /// Changes the text of a file in place (mode and owner stay); `change` returns `None` to leave it alone.
    /// Returns whether it changed.
    pub fn edit(&self, path: &str, change: impl FnOnce(&str) -> Option<String>) -> Result<bool, Error> {
        let Some(old) = self.read(path)? else { return Ok(false) };
        match change(&old) {
            Some(new) if new != old => {
                fs::write(self.at(path), new).map_err(|e| Error::io("writing", path, e))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Makes a symlink, in place of whatever file or symlink was there.
    pub fn link(&self, path: &str, target: &str) -> Result<(), Error> {
        self.parents(path)?;
        let place = self.at(path);
        sys::file::remove(&place).and_then(|()| symlink(target, &place)).map_err(|e| Error::io("linking", path, e))
    }

    /// Makes a directory and those above it; an existing one keeps its mode.
    pub fn mkdir(&self, path: &str, mode: u32) -> Result<(), Error> {
        if self.is_dir(path) {
            return Ok(());
        }
        self.parents(path)?;
        let place = self.at(path);
        let make = || {
            fs::create_dir(&place)?;
            fs::set_permissions(&place, fs::Permissions::from_mode(mode))
        };
        make().map_err(|e| Error::io("creating", path, e))
    }

    fn parents(&self, path: &str) -> Result<(), Error> {
        let mut above = String::new();
        let all: Vec<_> = path.split('/').filter(|n| !n.is_empty()).collect();
        for name in &all[..all.len().saturating_sub(1)] {
            above.push_str(name);
            let place = self.at(&format!("{above}/."));
            if !place.is_dir() {
                fs::create_dir(&place)
                    .and_then(|()| fs::set_permissions(&place, fs::Permissions::from_mode(0o755)))
                    .map_err(|e| Error::io("creating", &above, e))?;
            }
            above.push('/');
        }
        Ok(())
    }

    /// Removes a file, symlink or whole directory; nothing there is fine. Returns whether something was there.
    pub fn remove(&self, path: &str) -> Result<bool, Error> {
        let place = self.at(path);
        let remove = || match fs::symlink_metadata(&place) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&place).map(|()| true),
            Ok(_) => fs::remove_file(&place).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        };
        remove().map_err(|e| Error::io("removing", path, e))
    }

    /// Empties a directory.
    pub fn empty(&self, path: &str) -> Result<(), Error> {
        for name in self.list(path)? {
            self.remove(&format!("{path}/{name}"))?;
        }
        Ok(())
    }

    /// Moves a name; the directories above the new one are made.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.parents(to)?;
        fs::rename(self.at(from), self.at(to)).map_err(|e| Error::io("moving", from, e))
    }

    /// Moves what is in directory `from` into `to`, merging directories; what `to` has already wins over files of `from`.
    pub fn merge(&self, from: &str, to: &str) -> Result<(), Error> {
        self.mkdir(to, self.mode(from).unwrap_or(0o755))?;
        for name in self.list(from)? {
            let (old, new) = (format!("{from}/{name}"), format!("{to}/{name}"));
            if self.is_dir(&old) && self.is_dir(&new) {
                self.merge(&old, &new)?;
            } else if !self.has(&new) {
                self.rename(&old, &new)?;
            }
        }
        self.remove(from)?;
        Ok(())
    }

    /// Sets permission bits.
    pub fn chmod(&self, path: &str, mode: u32) -> Result<(), Error> {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).map_err(|e| Error::io("changing", path, e))
    }

    /// Permission bits of what is at `path`.
    pub fn mode(&self, path: &str) -> Option<u32> {
        fs::symlink_metadata(self.at(path)).ok().map(|m| m.mode() & 0o7777)
    }

    /// Sorted names in a directory; none where there is no directory.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(self.at(path)) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(e) => return Err(Error::io("listing", path, e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| Error::io("listing", path, e))?.file_name();
            names.push(name.into_string().map_err(|name| Error::Name(path.to_owned(), name))?);
        }
        names.sort();
        Ok(names)
    }

    /// Everything below a directory, parents before children, sorted by path; symlinks are not followed.
    pub fn walk(&self, path: &str) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        self.walk_into(path, &mut found)?;
        Ok(found)
    }

    fn walk_into(&self, dir: &str, found: &mut Vec<Found>) -> Result<(), Error> {
        for name in self.list(dir)? {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let place = self.root.join(&path);
            let meta = fs::symlink_metadata(&place).map_err(|e| Error::io("reading", &path, e))?;
            let kind = if meta.is_dir() {
                Kind::Dir
            } else if meta.is_file() {
                Kind::File
            } else if meta.is_symlink() {
                let target = fs::read_link(&place).map_err(|e| Error::io("reading", &path, e))?;
                Kind::Link(target.to_string_lossy().into_owned())
            } else {
                Kind::Special
            };
            let descend = kind == Kind::Dir;
            found.push(Found {
                path: path.clone(),
                kind,
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                size: meta.len(),
            });
            if descend {
                self.walk_into(&path, found)?;
            }
        }
        Ok(())
    }
}

fn names(path: &Path) -> Vec<std::ffi::OsString> {
    let keep = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(keep).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A temporary tree; a line is `path`, `path/` (directory), `path -> target` or `path: text`.
    pub(crate) fn fake(lines: &[&str]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        for line in lines {
            if let Some((path, target)) = line.split_once(" -> ") {
                tree.link(path, target).unwrap();
            } else if let Some((path, text)) = line.split_once(": ") {
                tree.write(path, format!("{text}\n"), 0o644).unwrap();
            } else if let Some(path) = line.strip_suffix('/') {
                tree.mkdir(path, 0o755).unwrap();
            } else {
                tree.write(line, "", 0o644).unwrap();
            }
        }
        (dir, tree)
    }

    #[test]
    fn absolute_link_to_the_build_machine_stays_inside() {
        let (dir, tree) = fake(&["usr/lib/", "lib -> /usr/lib", "out -> ../../../etc"]);
        assert_eq!(tree.at("lib/x"), dir.path().join("usr/lib/x"));
        assert_eq!(tree.at("out/passwd"), dir.path().join("etc/passwd"));
        assert_eq!(tree.at("../../etc/passwd"), dir.path().join("etc/passwd"));
        tree.write("lib/systemd/x", "1", 0o644).unwrap();
        assert!(dir.path().join("usr/lib/systemd/x").is_file());
    }

    #[test]
    fn link_loop_ends() {
        let (_dir, tree) = fake(&["a -> b", "b -> a"]);
        let _ = tree.at("a/x");
    }

    #[test]
    fn write_replaces_a_link_instead_of_following_it() {
        let (dir, tree) = fake(&["etc/target: old", "etc/link -> target"]);
        tree.write("etc/link", "new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("etc/target")).unwrap(), "old\n");
        assert_eq!(tree.mode("etc/link"), Some(0o600));
    }

    #[test]
    fn merge_joins_directories() {
        let (_dir, tree) = fake(&["a/x/1: from a", "a/x/2", "b/x/1: from b"]);
        tree.merge("a", "b").unwrap();
        assert_eq!(tree.list("b/x").unwrap(), ["1", "2"]);
        assert_eq!(tree.read("b/x/1").unwrap().unwrap(), "from b\n");
        assert!(!tree.has("a"));
    }
}
