//! Puts the files of packages into a root, as `dpkg --unpack` does.
//!
//! First everything is decided, in the order of the packages (who owns a path, what is diverted, what is a configuration
//! file), then directories and links are made, then all cores copy contents from the cache. Every name is looked up
//! below the root's descriptor with `openat2(RESOLVE_IN_ROOT)`: a symbolic link in a package, whatever it says, never leads out.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::deb::{Data, Deb};
use super::dpkg::{Diversions, StatOverrides, Users};
use super::filter::Filter;
use super::tar::{Entry, Kind};

/// Why files could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Two packages ship the same path, and neither replaces the other.
    #[error("{new} and {old} both ship /{path}, and neither declares that it replaces the other")]
    Conflict {
        /// The path.
        path: String,
        /// The package that had it.
        old: String,
        /// The package that wants it.
        new: String,
    },
    /// A path is a directory for one package and something else for another.
    #[error("{package} ships /{path}, which is {there} already")]
    Kind {
        /// The package.
        package: String,
        /// The path.
        path: String,
        /// What lies there.
        there: &'static str,
    },
    /// The file system refused.
    #[error("{package}: /{path}: {what}")]
    Io {
        /// The package.
        package: String,
        /// The path in the root.
        path: String,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A package to place.
pub struct Item<'a> {
    /// Its number in the set.
    pub number: usize,
    /// What it says about itself.
    pub deb: &'a Deb,
    /// Its files.
    pub data: &'a Data,
}

/// A root, and who owns what in it.
pub struct Placer {
    root: OwnedFd,
    filter: Filter,
    /// Path (as the package names it) → number of the package.
    owners: HashMap<String, usize>,
    /// Directories, which have no single owner.
    dirs: HashSet<String>,
}

/// How configuration files are placed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Conffiles {
    /// Beside their place, as `.dpkg-new`: `dpkg --configure` moves them.
    Beside,
    /// Both in their place and beside it: for programs of the essential set, which run before anything is configured.
    /// dpkg finds the same content twice and asks nothing.
    Both,
}

/// What placing changed in the records.
#[derive(Debug, Default)]
pub struct Placed {
    /// For each package: the paths it has now, in the order of the archive, with leading slash; the root is `/.`.
    pub lists: HashMap<usize, Vec<String>>,
    /// (package, path) pairs that another package took over.
    pub taken: Vec<(usize, String)>,
}

struct Op<'a> {
    package: &'a str,
    data: &'a Data,
    entry: &'a Entry,
    /// Where it goes; `entry.path` unless diverted or a configuration file.
    target: String,
}

impl Placer {
    /// Opens a root.
    pub fn new(root: &Path, filter: Filter) -> io::Result<Self> {
        let root = fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Placer { root, filter, owners: HashMap::new(), dirs: HashSet::new() })
    }

    /// Decides and places. `all` gives every package of the set by number, for `Replaces`.
    pub fn place(
        &mut self,
        items: &[Item],
        conffiles: Conffiles,
        all: &[Deb],
        diversions: &Diversions,
        overrides: &StatOverrides,
        users: &Users,
    ) -> Result<Placed, PlaceError> {
        let mut placed = Placed::default();
        let (mut shape, mut files, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            let package = item.deb.control.name.as_str();
            let mut list = Vec::new();
            for entry in &item.data.entries {
                let is_conffile = item.deb.is_conffile(&entry.path);
                let diverted = diversions.target(&entry.path, package);
                let target = diverted.unwrap_or(&entry.path);
                if !self.claim(entry, target, item, all, &mut placed)? {
                    continue;
                }
                list.push(if entry.path.is_empty() { "/.".to_owned() } else { format!("/{}", entry.path) });
                if self.filter.skips(entry) {
                    continue;
                }
                let op = |target: String| Op { package, data: item.data, entry, target };
                let beside = is_conffile.then(|| format!("{target}.dpkg-new"));
                let in_place = (!is_conffile || conffiles == Conffiles::Both).then(|| target.to_owned());
                for target in beside.into_iter().chain(in_place) {
                    match &entry.kind {
                        Kind::Dir | Kind::Symlink(_) => shape.push(op(target)),
                        Kind::File { .. } => files.push(op(target)),
                        Kind::Hardlink(to) => {
                            let is_conffile = item.deb.is_conffile(to);
                            let to = diversions.target(to, package).unwrap_or(to);
                            // Hard links follow their target to the name it is placed under.
                            let to = if is_conffile { format!("{to}.dpkg-new") } else { to.to_owned() };
                            links.push((op(target), to));
                        }
                    }
                }
            }
            placed.lists.insert(item.number, list);
        }
        let mut worker = Worker { root: &self.root, overrides, users, parent: None };
        for op in &shape {
            worker.shape(op)?;
        }
        // A file that another package of this batch took over is not in `owners` under its first owner any more, so each
        // target occurs once and the copies may run in any order.
        self.copy(&files, overrides, users)?;
        for (op, to) in &links {
            worker.hardlink(op, to)?;
        }
        Ok(placed)
    }

    /// Whether one of the diversions is about a path that was placed.
    pub fn touched_by(&self, diversions: &Diversions) -> bool {
        diversions.paths().any(|path| self.owners.contains_key(path) || self.dirs.contains(path))
    }

    /// Records who owns a path; `false` where the package that has it keeps it.
    fn claim(
        &mut self,
        entry: &Entry,
        target: &str,
        item: &Item,
        all: &[Deb],
        placed: &mut Placed,
    ) -> Result<bool, PlaceError> {
        let new = &item.deb.control;
        if entry.kind == Kind::Dir {
            self.dirs.insert(target.to_owned());
            return Ok(true);
        }
        let Some(old) = self.owners.insert(target.to_owned(), item.number).filter(|old| *old != item.number) else {
            return Ok(true);
        };
        let other = &all[old].control;
        // Instances of one package for several architectures share what is the same in each.
        if other.name == new.name && other.multi_arch_same && new.multi_arch_same {
            return Ok(true);
        }
        if other.matched_by(&new.replaces) {
            placed.taken.push((old, format!("/{}", entry.path)));
            return Ok(true);
        }
        if new.matched_by(&other.replaces) {
            self.owners.insert(target.to_owned(), old);
            return Ok(false);
        }
        // Several packages may ship one and the same symbolic link to a directory.
        if matches!(entry.kind, Kind::Symlink(_)) && self.dirs.contains(target) {
            return Ok(true);
        }
        Err(PlaceError::Conflict { path: entry.path.clone(), old: other.name.clone(), new: new.name.clone() })
    }

    /// Copies contents on all cores.
    fn copy(&self, files: &[Op], overrides: &StatOverrides, users: &Users) -> Result<(), PlaceError> {
        // The last of several operations on one target wins; the others are dropped.
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (i, op) in files.iter().enumerate() {
            last.insert(&op.target, i);
        }
        // Neighbours in the archive lie in the same directory: hand them out in runs.
        const RUN: usize = 32;
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let work = || {
            let mut worker = Worker { root: &self.root, overrides, users, parent: None };
            loop {
                let start = next.fetch_add(RUN, Ordering::Relaxed);
                if start >= files.len() {
                    return Ok(());
                }
                for (i, op) in files.iter().enumerate().skip(start).take(RUN) {
                    if last[op.target.as_str()] == i {
                        worker.file(op)?;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let results = handles.into_iter().map(|h| h.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            results.collect::<Result<Vec<()>, _>>().map(|_| ())
        })
    }
}

/// One thread's view of the root: keeps the last parent directory open.
struct Worker<'a> {
    root: &'a OwnedFd,
    overrides: &'a StatOverrides,
    users: &'a Users,
    parent: Option<(String, OwnedFd)>,
}

impl Worker<'_> {
    fn error<'o>(op: &'o Op, what: &'static str) -> impl Fn(Errno) -> PlaceError + 'o {
        move |e| PlaceError::Io {
            package: op.package.to_owned(),
            path: op.target.clone(),
            what,
            source: io::Error::from(e),
        }
    }

    /// The directory a target lies in, and the last part of its name.
    fn parent<'o>(&mut self, op: &Op, target: &'o str) -> Result<(&OwnedFd, &'o str), PlaceError> {
        let (dir, name) = target.rsplit_once('/').unwrap_or(("", target));
        if self.parent.as_ref().is_none_or(|(open, _)| open != dir) {
            let fd = match open_dir(self.root, dir) {
                // A package that lists a file but not its directory: dpkg-deb does not build such, other tools do.
                Err(Errno::NOENT) => make_dirs(self.root, dir).and_then(|()| open_dir(self.root, dir)),
                other => other,
            };
            let fd = fd.map_err(Self::error(op, "opening its directory"))?;
            self.parent = Some((dir.to_owned(), fd));
        }
        match &self.parent {
            Some((_, fd)) => Ok((fd, name)),
            None => Err(Self::error(op, "opening its directory")(Errno::NOENT)),
        }
    }

    fn owner(&self, op: &Op) -> (u32, u32, u32) {
        // Keyed by where the file ends up, not by its name before it is configured.
        let target = op.target.strip_suffix(".dpkg-new").unwrap_or(&op.target);
        self.overrides.of(target).unwrap_or_else(|| {
            let entry = op.entry;
            (self.users.uid(&entry.user, entry.uid), self.users.gid(&entry.group, entry.gid), entry.mode)
        })
    }

    /// A directory or a symbolic link.
    fn shape(&mut self, op: &Op) -> Result<(), PlaceError> {
        let (uid, gid, mode) = self.owner(op);
        let owner = (Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)));
        if op.target.is_empty() {
            // The root itself: its mode is that of the first package that names it.
            fs::chmodat(self.root, c".", Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(Self::error(op, "setting its mode"))?;
            return fs::chownat(self.root, c".", owner.0, owner.1, AtFlags::empty())
                .map_err(Self::error(op, "setting its owner"));
        }
        let root = self.root;
        let (parent, name) = self.parent(op, &op.target)?;
        match &op.entry.kind {
            Kind::Symlink(target) => {
                let there = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
                match there.map(|s| fs::FileType::from_raw_mode(s.st_mode)) {
                    // As dpkg: a real directory stays where a package wants a link.
                    Ok(fs::FileType::Directory) => return Ok(()),
                    Ok(_) => {
                        // A link that leads to the same directory stays as well.
                        let old = fs::readlinkat(parent, name, Vec::new()).ok();
                        if old.is_some_and(|old| old.as_bytes() == target.as_bytes()) {
                            return Ok(());
                        }
                        fs::unlinkat(parent, name, AtFlags::empty()).map_err(Self::error(op, "replacing it"))?;
                    }
                    Err(_) => {}
                }
                fs::symlinkat(target.as_str(), parent, name).map_err(Self::error(op, "making the link"))?;
                fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(Self::error(op, "setting its owner"))?;
                let _ = fs::utimensat(parent, name, &times(op.entry.mtime), AtFlags::SYMLINK_NOFOLLOW);
                Ok(())
            }
            _ => match fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => {
                    fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(Self::error(op, "setting its owner"))?;
                    fs::chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
                        .map_err(Self::error(op, "setting its mode"))
                }
                // As dpkg: a directory, or a link to one, stays as it is.
                Err(Errno::EXIST) if open_dir(root, &op.target).is_ok() => Ok(()),
                Err(Errno::EXIST) => Err(PlaceError::Kind {
                    package: op.package.to_owned(),
                    path: op.target.clone(),
                    there: "no directory",
                }),
                Err(e) => Err(Self::error(op, "making the directory")(e)),
            },
        }
    }

    fn remove_old(parent: &OwnedFd, name: &str, op: &Op) -> Result<(), PlaceError> {
        match fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                Err(PlaceError::Kind { package: op.package.to_owned(), path: op.target.clone(), there: "a directory" })
            }
            Err(e) => Err(Self::error(op, "replacing it")(e)),
        }
    }

    fn file(&mut self, op: &Op) -> Result<(), PlaceError> {
        let (uid, gid, mode) = self.owner(op);
        let Kind::File { offset, size } = op.entry.kind else { return Ok(()) };
        let (parent, name) = self.parent(op, &op.target)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let file = match create() {
            Err(Errno::EXIST) => {
                Self::remove_old(parent, name, op)?;
                create()
            }
            other => other,
        };
        let file = file.map_err(Self::error(op, "making the file"))?;
        copy_range(&op.data.file, offset, size, &file).map_err(Self::error(op, "copying its content"))?;
        // The owner first: changing it takes setuid away.
        fs::fchown(&file, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)))
            .map_err(Self::error(op, "setting its owner"))?;
        fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(Self::error(op, "setting its mode"))?;
        fs::futimens(&file, &times(op.entry.mtime)).map_err(Self::error(op, "setting its time"))
    }

    fn hardlink(&mut self, op: &Op, to: &str) -> Result<(), PlaceError> {
        let (dir, old) = to.rsplit_once('/').unwrap_or(("", to));
        let dir = open_dir(self.root, dir).map_err(Self::error(op, "opening the directory of its target"))?;
        let (parent, name) = self.parent(op, &op.target)?;
        Self::remove_old(parent, name, op)?;
        fs::linkat(&dir, old, parent, name, AtFlags::empty()).map_err(Self::error(op, "making the hard link"))
    }
}

/// Opens a directory of the root, following links inside the root only.
fn open_dir(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            // Another thread renamed something below the root while the kernel looked.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn make_dirs(root: &OwnedFd, path: &str) -> Result<(), Errno> {
    let mut end = 0;
    loop {
        end = path[end..].find('/').map_or(path.len(), |next| end + next);
        let (dir, name) = path[..end].rsplit_once('/').unwrap_or(("", &path[..end]));
        match fs::mkdirat(open_dir(root, dir)?, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        if end == path.len() {
            return Ok(());
        }
        end += 1;
    }
}

fn copy_range(from: &File, offset: u64, size: u64, to: impl AsFd) -> Result<(), Errno> {
    let (mut at, end) = (offset, offset + size);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(from, Some(&mut at), &to, None, want) {
            Ok(0) => return Err(Errno::IO),
            Ok(_) => {}
            // Another file system, or one that cannot: by hand.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, at, end, to);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, mut at: u64, end: u64, to: impl AsFd) -> Result<(), Errno> {
    let mut buffer = vec![0; 256 << 10];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = rustix::io::pread(from, &mut buffer[..want], at)?;
        if count == 0 {
            return Err(Errno::IO);
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let written = rustix::io::write(&to, rest)?;
            rest = &rest[written..];
        }
        at += count as u64;
    }
    Ok(())
}

fn times(mtime: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
