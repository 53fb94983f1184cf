//! A tree becomes a directory: for looking, for building on, for comparing with. Machines do not need it; they mount.
//!
//! ```text
//! directories, parents first (0700) -> files on every core -> owners, xattrs, modes of directories, children first
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD, Mode as Bits, Timespec, Timestamps, XattrFlags};

use crate::import::{lock, threads};
use crate::object::{DirMeta, FileMeta};
use crate::{Checksum, Entry, Error, Repo};

/// How a tree is written out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Leave owners and xattrs alone and drop set-user-id bits: what an ordinary user can do.
    pub user: bool,
    /// Threads; 0 uses every core.
    pub threads: usize,
}

/// Writes the directory `path` of a commit to `target`, which must not exist.
pub fn checkout(repo: &Repo, commit: &Checksum, path: &str, target: &Path, options: &Options) -> Result<(), Error> {
    let Some(Entry::Dir { tree, meta }) = repo.lookup(commit, path)? else {
        return Err(Error::invalid(format!("{path} is no directory of commit {commit}")));
    };
    let mut dirs: Vec<(PathBuf, DirMeta)> = Vec::new();
    let mut files: Vec<(PathBuf, Checksum)> = Vec::new();
    repo.walk_tree(&tree, &meta, &mut |path, entry| {
        let path = target.join(&path[1..]);
        match entry {
            Entry::Dir { meta, .. } => {
                fs::create_dir(&path).map_err(|e| failed(&path, e))?;
                dirs.push((path, repo.load_dirmeta(&meta)?));
            }
            Entry::File { checksum } => files.push((path, checksum)),
        }
        Ok(())
    })?;
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads(options.threads) {
            scope.spawn(|| {
                while let Some((path, checksum)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = file(repo, checksum, path, options) {
                        next.store(files.len(), Ordering::Relaxed);
                        lock(&failure).get_or_insert(error);
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    for (path, meta) in dirs.iter().rev() {
        directory(path, meta, options).map_err(|e| failed(path, e))?;
    }
    Ok(())
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(format!("writing {}", path.display()), error)
}

/// Every file of a tree is as old as every other.
fn times() -> Timestamps {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    Timestamps { last_access: zero, last_modification: zero }
}

fn file(repo: &Repo, checksum: &Checksum, path: &Path, options: &Options) -> Result<(), Error> {
    let mut object = repo.open_file(checksum)?;
    let meta = object.meta.clone();
    let mut write = || -> io::Result<()> {
        if let Some(target) = &meta.symlink {
            symlink(target, path)?;
            return link_metadata(path, &meta, options);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        io::copy(&mut object.content, &mut file)?;
        file_metadata(&file, &meta, options)
    };
    write().map_err(|e| failed(path, e))
}

fn link_metadata(path: &Path, meta: &FileMeta, options: &Options) -> io::Result<()> {
    if !options.user {
        std::os::unix::fs::lchown(path, Some(meta.uid), Some(meta.gid))?;
        for (name, value) in &meta.xattrs {
            rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty())?;
        }
    }
    Ok(rustix::fs::utimensat(CWD, path, &times(), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn file_metadata(file: &File, meta: &FileMeta, options: &Options) -> io::Result<()> {
    let mut mode = meta.mode & 0o7777;
    if options.user {
        mode &= 0o777;
    } else {
        // The owner first: changing it clears set-user-id bits and file capabilities.
        std::os::unix::fs::fchown(file, Some(meta.uid), Some(meta.gid))?;
        for (name, value) in &meta.xattrs {
            rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())?;
        }
    }
    rustix::fs::fchmod(file, Bits::from_raw_mode(mode))?;
    Ok(rustix::fs::futimens(file, &times())?)
}

fn directory(path: &Path, meta: &DirMeta, options: &Options) -> io::Result<()> {
    let dir = File::open(path)?;
    let mut mode = meta.mode & 0o7777;
    if options.user {
        mode = (mode & 0o777) | 0o700;
    } else {
        std::os::unix::fs::fchown(&dir, Some(meta.uid), Some(meta.gid))?;
        for (name, value) in &meta.xattrs {
            rustix::fs::fsetxattr(&dir, name.as_slice(), value, XattrFlags::empty())?;
        }
    }
    rustix::fs::fchmod(&dir, Bits::from_raw_mode(mode))?;
    Ok(rustix::fs::futimens(&dir, &times())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;
    use crate::commit::Builder;
    use crate::import::{self, Node};
    use crate::object::S_IFDIR;
    use std::collections::BTreeMap;

    #[test]
    fn what_was_imported_comes_back() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let meta = DirMeta { mode: S_IFDIR | 0o750, ..DirMeta::root(0) };
        let bin = Node::Dir(
            meta,
            BTreeMap::from([
                ("a".into(), Node::File(FileMeta::regular(0o555, 0), b"content".to_vec())),
                ("l".into(), Node::File(FileMeta::link("a"), Vec::new())),
            ]),
        );
        let tree = Node::Dir(DirMeta::root(0o755), BTreeMap::from([("bin".into(), bin)]));
        let tree = import::tree(&repo, &tree).unwrap();
        let commit = Builder::new(tree.root_tree, tree.root_meta, 0).write(&repo).unwrap();
        let target = dir.path().join("out");
        let options = Options { user: true, threads: 2 };
        checkout(&repo, &commit, "/", &target, &options).unwrap();
        let mine: import::Modify<'_> = &|_, a| (a.uid, a.gid) = (0, 0);
        let again =
            import::directory(&repo, &target, &import::Options { modify: Some(mine), ..Default::default() }).unwrap();
        assert_eq!((again.root_tree, again.root_meta), (tree.root_tree, tree.root_meta));
        assert!(checkout(&repo, &commit, "/", &target, &options).is_err(), "the target exists");
        checkout(&repo, &commit, "/bin", &dir.path().join("bin"), &options).unwrap();
        assert_eq!(fs::read(dir.path().join("bin/l")).unwrap(), b"content");
    }
}
