//! A tree becomes a directory: for looking, for building on, for comparing with. Machines do not need it; they mount.
//!
//! ```text
//! directories, parents first (0700) -> files on every core -> owners, xattrs, modes of directories, children first
//! file    where the repository keeps it as it is to be: a hard link; else a copy
//! ```

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode as Bits, Timespec, Timestamps, XattrFlags};

use crate::import::{lock, threads};
use crate::object::{DirMeta, DirTree, FileMeta, ObjectType};
use crate::{Checksum, Entry, Error, Mode, Repo, local};

/// What happens where there is something already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Union {
    /// The target must not exist.
    #[default]
    Refuse,
    /// Directories are joined, files replaced.
    Replace,
    /// Directories are joined, files stay.
    Add,
    /// Directories are joined; a file that is there must be the same.
    Identical,
}

/// How a file comes to its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// A hard link where that is possible, else a copy.
    #[default]
    Link,
    /// A hard link; where that is not possible the checkout fails.
    LinkOnly,
    /// A copy, always.
    Copy,
}

/// How a tree is written out.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Leave owners and xattrs alone and drop set-user-id bits: what an ordinary user can do.
    pub user: bool,
    /// Files that are there.
    pub union: Union,
    /// Links or copies.
    pub place: Place,
    /// Copy empty files, whatever `place` says.
    pub copy_empty: bool,
    /// Directories lose the bits outside of 0775.
    pub plain_dirs: bool,
    /// Files called `.wh.NAME` delete NAME, and are not written; `.wh..wh..opq` deletes what its directory held.
    pub whiteouts: bool,
    /// Files called `.ostree-wh.NAME` become what overlayfs takes for the absence of NAME: a character device 0:0.
    pub passthrough_whiteouts: bool,
    /// Paths to leave out; `/` is the top of what is written. A directory ends in a slash and goes with all below it.
    pub skip: Option<&'a HashSet<String>>,
    /// Threads; 0 uses every core.
    pub threads: usize,
}

/// Begins the name of a file that deletes another.
const WHITEOUT: &str = ".wh.";

/// The name of a file whose directory hides what was there.
const OPAQUE: &str = ".wh..wh..opq";

/// Begins the name of a file that stands for an overlayfs whiteout.
const PASSTHROUGH: &str = ".ostree-wh.";

/// Writes the directory `path` of a commit to `target`. If `path` is a file, `target` becomes a directory that holds it.
pub fn checkout(repo: &Repo, commit: &Checksum, path: &str, target: &Path, options: &Options<'_>) -> Result<(), Error> {
    let entry = repo.lookup(commit, path)?;
    let mut plan = Plan { repo, target, options, dirs: Vec::new(), files: Vec::new() };
    match entry {
        None => return Err(Error::invalid(format!("commit {commit} has no {path}"))),
        Some(Entry::File { checksum }) => {
            if plan.create_dir(target)? {
                let private = fs::Permissions::from_mode(0o700);
                fs::set_permissions(target, private).map_err(|e| failed(target, e))?;
            }
            let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
            plan.files.push((target.join(name), checksum));
        }
        Some(Entry::Dir { tree, meta }) => plan.tree(&tree, &meta)?,
    }
    let Plan { dirs, files, .. } = plan;
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads(options.threads) {
            scope.spawn(|| {
                while let Some((path, checksum)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = place(repo, checksum, path, options) {
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

struct Plan<'a> {
    repo: &'a Repo,
    target: &'a Path,
    options: &'a Options<'a>,
    /// Directories that were made, parents first.
    dirs: Vec<(PathBuf, DirMeta)>,
    files: Vec<(PathBuf, Checksum)>,
}

impl Plan<'_> {
    /// Makes a directory; returns whether it was not there.
    fn create_dir(&self, path: &Path) -> Result<bool, Error> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.options.union != Union::Refuse => {
                let there = fs::symlink_metadata(path).map_err(|e| failed(path, e))?;
                if there.is_dir() { Ok(false) } else { Err(failed(path, e)) }
            }
            Err(e) => Err(failed(path, e)),
        }
    }

    fn tree(&mut self, tree: &Checksum, meta: &Checksum) -> Result<(), Error> {
        let (repo, target, options) = (self.repo, self.target, self.options);
        let skipped = |path: &str| {
            let Some(skip) = options.skip else { return false };
            path.match_indices('/').skip(1).any(|(at, _)| skip.contains(&path[..=at])) || skip.contains(path)
        };
        repo.walk_tree(tree, meta, &mut |path, entry| {
            let left_out = match entry {
                Entry::Dir { .. } => skipped(&format!("{path}/")),
                Entry::File { .. } => skipped(path),
            };
            if left_out {
                return Ok(());
            }
            let name = path.rsplit('/').next().unwrap_or_default();
            let place = target.join(&path[1..]);
            match entry {
                Entry::Dir { tree, meta } => {
                    let opaque = |tree: DirTree| tree.files.iter().any(|file| file.0 == OPAQUE);
                    if options.whiteouts && opaque(repo.load_dirtree(&tree)?) {
                        remove(&place)?;
                    }
                    if self.create_dir(&place)? {
                        self.dirs.push((place, repo.load_dirmeta(&meta)?));
                    }
                }
                Entry::File { .. } if options.whiteouts && name.starts_with(WHITEOUT) => {
                    // What an opaque directory hides is gone already.
                    if name != OPAQUE {
                        remove(&place.with_file_name(&name[WHITEOUT.len()..]))?;
                    }
                }
                Entry::File { checksum } => self.files.push((place, checksum)),
            }
            Ok(())
        })
    }
}

/// Deletes a file, or a directory with all that is in it; what is not there is fine.
fn remove(path: &Path) -> Result<(), Error> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|there| there.is_dir());
    let removed = if is_dir { sys::file::remove_tree(path) } else { sys::file::remove(path) };
    removed.map_err(|e| Error::io(format!("deleting {}", path.display()), e))
}

/// Writes one file, minding what is there.
fn place(repo: &Repo, checksum: &Checksum, path: &Path, options: &Options<'_>) -> Result<(), Error> {
    let there = fs::symlink_metadata(path).ok();
    let Some(there) = there else { return write(repo, checksum, path, options) };
    match options.union {
        Union::Add => Ok(()),
        Union::Refuse => Err(failed(path, io::ErrorKind::AlreadyExists.into())),
        Union::Identical => {
            let same = same(repo, checksum, path, options)?;
            if same { Ok(()) } else { Err(failed(path, io::Error::other("another file is there"))) }
        }
        Union::Replace if there.is_dir() => Err(failed(path, io::ErrorKind::IsADirectory.into())),
        Union::Replace => {
            // Never a moment without the file.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let new = path.with_file_name(format!(".{name}.{}", &checksum.to_hex()[..16]));
            write(repo, checksum, &new, options)?;
            fs::rename(&new, path).map_err(|e| failed(path, e))?;
            // Two names of one inode are not renamed over each other.
            sys::file::remove(&new).map_err(|e| failed(&new, e))
        }
    }
}

/// Whether what is at `path` is what would be written there.
fn same(repo: &Repo, checksum: &Checksum, path: &Path, options: &Options<'_>) -> Result<bool, Error> {
    if !options.user {
        return Ok(local::checksum(path, &local::Options::default())? == *checksum);
    }
    let stored = repo.load_file_meta(checksum)?;
    let mode = if stored.symlink.is_some() { stored.mode } else { stored.mode & !0o7000 };
    let meta = FileMeta { uid: 0, gid: 0, mode, xattrs: Vec::new(), ..stored };
    let mut hasher = meta.hasher();
    io::copy(&mut repo.open_file(checksum)?.content, &mut hasher).map_err(|e| failed(path, e))?;
    let expected = Checksum(sha2::Digest::finalize(hasher).into());
    let here = local::Options { ignore_xattrs: true, uid: Some(0), gid: Some(0) };
    Ok(local::checksum(path, &here)? == expected)
}

fn write(repo: &Repo, checksum: &Checksum, path: &Path, options: &Options<'_>) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(name) = name.strip_prefix(PASSTHROUGH).filter(|_| options.passthrough_whiteouts) {
        let path = path.with_file_name(name);
        return whiteout(&repo.load_file_meta(checksum)?, &path, options).map_err(|e| failed(&path, e));
    }
    if options.place != Place::Copy && link(repo, checksum, path, options)? {
        return Ok(());
    }
    file(repo, checksum, path, options)
}

/// Makes a hard link to the object, if the repository keeps the file as it is to be.
fn link(repo: &Repo, checksum: &Checksum, path: &Path, options: &Options<'_>) -> Result<bool, Error> {
    let fits = match repo.mode() {
        Mode::Bare => !options.user,
        Mode::BareUser => options.user,
        Mode::BareUserOnly => true,
        Mode::Archive => false,
    };
    let meta = repo.load_file_meta(checksum)?;
    if (meta.symlink.is_some() && repo.mode() != Mode::Bare) || (options.copy_empty && meta.size == 0) {
        return Ok(false);
    }
    let object = repo.path().join("objects").join(repo.loose_path(ObjectType::File, checksum));
    match fits.then(|| fs::hard_link(object, path)) {
        Some(Ok(())) => Ok(true),
        Some(Err(e)) if e.kind() == io::ErrorKind::AlreadyExists => Err(failed(path, e)),
        _ if options.place == Place::Link => Ok(false),
        Some(Err(e)) => Err(failed(path, e)),
        None => Err(Error::invalid(format!(
            "a repository of mode {} has no files to make hard links to{}",
            repo.mode().name(),
            if options.user { " in user mode" } else { "" },
        ))),
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(format!("writing {}", path.display()), error)
}

/// Every file of a tree is as old as every other.
fn times() -> Timestamps {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    Timestamps { last_access: zero, last_modification: zero }
}

fn file(repo: &Repo, checksum: &Checksum, path: &Path, options: &Options<'_>) -> Result<(), Error> {
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

/// A character device 0:0 with the owner, mode and xattrs of a file.
fn whiteout(meta: &FileMeta, path: &Path, options: &Options<'_>) -> io::Result<()> {
    let bits = Bits::from_raw_mode(meta.mode & 0o777);
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, bits, 0)?;
    if !options.user {
        std::os::unix::fs::lchown(path, Some(meta.uid), Some(meta.gid))?;
        for (name, value) in &meta.xattrs {
            rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty())?;
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode & 0o777))?;
    Ok(rustix::fs::utimensat(CWD, path, &times(), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn link_metadata(path: &Path, meta: &FileMeta, options: &Options<'_>) -> io::Result<()> {
    if !options.user {
        std::os::unix::fs::lchown(path, Some(meta.uid), Some(meta.gid))?;
        for (name, value) in &meta.xattrs {
            rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty())?;
        }
    }
    Ok(rustix::fs::utimensat(CWD, path, &times(), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn file_metadata(file: &File, meta: &FileMeta, options: &Options<'_>) -> io::Result<()> {
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

fn directory(path: &Path, meta: &DirMeta, options: &Options<'_>) -> io::Result<()> {
    let dir = File::open(path)?;
    let mut mode = meta.mode & 0o7777;
    if options.plain_dirs {
        mode &= 0o775;
    }
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
        let options = Options { user: true, threads: 2, ..Options::default() };
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
