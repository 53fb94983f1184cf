//! A directory becomes a tree of objects; so does a tar stream, or a tree in memory.
//!
//! ```text
//! scan     one thread: names, kinds, owners; refuses what a tree cannot hold
//! files    every core, largest first: read once -> checksum and fs-verity digest; known? skip : compress, write
//! trees    one thread, leaves first: dirtree, dirmeta
//! flush    sync, rename: only now is anything visible
//!
//! cache    what has not changed since the last time   memory   a tree in memory   tar   a tar stream
//! ```

mod cache;
mod memory;
mod tar;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use sha2::Digest as _;

use crate::digests::{Digesting, Digests};
use crate::object::{DirMeta, DirTree, FileMeta, ObjectType, Xattrs};
use crate::repo::{Content, IN_MEMORY, Staging, file_xattrs, hash_all, link_xattrs};
use crate::{Checksum, Error, Repo, verity};

pub use memory::{Node, tree};
pub use tar::{Base, Rename, TarOptions, tar};

use cache::{Cache, Seen};

/// What of a file's metadata an import may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode, with its type bits; those stay whatever they are set to.
    pub mode: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// Decides about a path (`/usr/bin/true`; the root is `/`).
pub type Filter<'a> = &'a (dyn Fn(&str) -> bool + Sync);
/// Changes the metadata of a path.
pub type Modify<'a> = &'a (dyn Fn(&str, &mut Attributes) + Sync);

/// How a directory is imported.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Paths to leave out, with everything below them.
    pub skip: Option<Filter<'a>>,
    /// Changes owner, mode or xattrs of a path.
    pub modify: Option<Modify<'a>>,
    /// Compute fs-verity digests in the same read and remember them in the repository.
    pub verity: bool,
    /// Do not read again what has not changed since the last import of this directory; see the module `cache`.
    pub cache: bool,
    /// Files that are hard links to objects of this repository (a checkout) are known by that, and not read.
    pub links: bool,
    /// Threads; 0 uses every core.
    pub threads: usize,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of content that were read.
    pub bytes: u64,
    /// File objects that were not in the repository.
    pub new_files: u64,
    /// Their content.
    pub new_bytes: u64,
}

/// A tree that is in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Dirtree of the root.
    pub root_tree: Checksum,
    /// Dirmeta of the root.
    pub root_meta: Checksum,
    /// How much there was to do.
    pub stats: Stats,
}

/// Imports the directory `root` into `repo`.
pub fn directory(repo: &Repo, root: &Path, options: &Options<'_>) -> Result<Imported, Error> {
    let digests = options.verity.then(|| repo.digests()).transpose()?;
    let staging = repo.stage()?;
    let mut scan = Scan { root, options, files: Vec::new(), seen: HashMap::new(), stats: Stats::default() };
    // Opened before the scan: what changes after it is younger than the limit.
    let cache = options.cache.then(|| Cache::open(repo, root)).transpose()?;
    let dir = scan.dir("/")?;
    let Scan { files, mut stats, .. } = scan;
    let links = if options.links && options.modify.is_none() { repo.object_inodes()? } else { HashMap::new() };
    let (digests_used, cache_used) = (digests.as_ref(), cache.as_ref());
    let job = Job { root, options, staging: &staging, digests: digests_used, cache: cache_used, links, files: &files };
    let sums = job.run(&mut stats)?;
    let (root_tree, root_meta) = write_dir(&staging, &dir, &sums)?;
    staging.flush()?;
    if let Some(digests) = digests {
        digests.save()?;
    }
    if let Some(cache) = cache {
        cache.save()?;
    }
    Ok(Imported { root_tree, root_meta, stats })
}

struct ScannedDir {
    meta: DirMeta,
    /// Name and index into the list of files.
    files: Vec<(String, usize)>,
    dirs: Vec<(String, ScannedDir)>,
}

struct ScannedFile {
    path: String,
    meta: FileMeta,
    seen: Seen,
}

struct Scan<'a> {
    root: &'a Path,
    options: &'a Options<'a>,
    files: Vec<ScannedFile>,
    /// Further names of one inode are not read again.
    seen: HashMap<(u64, u64), usize>,
    stats: Stats,
}

fn failed(path: &str, error: io::Error) -> Error {
    Error::io(format!("importing {path}"), error)
}

impl Scan<'_> {
    fn real(&self, path: &str) -> std::path::PathBuf {
        self.root.join(&path[1..])
    }

    fn attributes(&self, path: &str, attributes: Attributes) -> Attributes {
        let Some(modify) = self.options.modify else { return attributes };
        let kind = attributes.mode & crate::object::S_IFMT;
        let mut changed = attributes;
        modify(path, &mut changed);
        changed.mode = kind | (changed.mode & 0o7777);
        changed.xattrs.sort();
        changed
    }

    fn dir(&mut self, path: &str) -> Result<ScannedDir, Error> {
        let io = |e| failed(path, e);
        let real = self.real(path);
        let handle = File::open(&real).map_err(io)?;
        let stat = handle.metadata().map_err(io)?;
        let xattrs = file_xattrs(&handle).map_err(io)?;
        let attributes =
            self.attributes(path, Attributes { uid: stat.uid(), gid: stat.gid(), mode: stat.mode(), xattrs });
        let Attributes { uid, gid, mode, xattrs } = attributes;
        let mut scanned = ScannedDir { meta: DirMeta { uid, gid, mode, xattrs }, files: Vec::new(), dirs: Vec::new() };
        self.stats.dirs += 1;
        for entry in fs::read_dir(&real).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().into_string().map_err(|name| {
                Error::invalid(format!("importing {path}: the name {name:?} is not UTF-8, so no tree can hold it"))
            })?;
            let child = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
            if self.options.skip.is_some_and(|skip| skip(&child)) {
                continue;
            }
            let io = |e| failed(&child, e);
            let stat = entry.metadata().map_err(io)?;
            let kind = stat.file_type();
            if kind.is_dir() {
                scanned.dirs.push((name, self.dir(&child)?));
            } else if kind.is_file() || kind.is_symlink() {
                scanned.files.push((name, self.file(child, &stat)?));
            } else {
                let what = match kind {
                    k if k.is_block_device() || k.is_char_device() => "a device",
                    k if k.is_fifo() => "a named pipe",
                    _ => "a socket",
                };
                return Err(Error::invalid(format!("importing {child}: it is {what}; leave it out of the tree")));
            }
        }
        Ok(scanned)
    }

    fn file(&mut self, path: String, stat: &fs::Metadata) -> Result<usize, Error> {
        let key = (stat.dev(), stat.ino());
        // With `modify` two names of one inode may become two objects.
        if stat.nlink() > 1 && self.options.modify.is_none() {
            if let Some(index) = self.seen.get(&key) {
                return Ok(*index);
            }
            self.seen.insert(key, self.files.len());
        }
        let (mut symlink, mut xattrs) = (None, Xattrs::new());
        if stat.file_type().is_symlink() {
            let real = self.real(&path);
            let target = fs::read_link(&real).map_err(|e| failed(&path, e))?;
            let target = target.into_os_string().into_string();
            symlink = Some(target.map_err(|_| Error::invalid(format!("importing {path}: its target is not UTF-8")))?);
            xattrs = link_xattrs(&real).map_err(|e| failed(&path, e))?;
            self.stats.symlinks += 1;
        } else {
            self.stats.files += 1;
        }
        let size = if symlink.is_some() { 0 } else { stat.len() };
        // Xattrs of regular files are read with their content, on all cores.
        let meta = FileMeta { uid: stat.uid(), gid: stat.gid(), mode: stat.mode(), symlink, xattrs, size };
        self.files.push(ScannedFile { path, meta, seen: Seen::of(stat) });
        Ok(self.files.len() - 1)
    }
}

struct Job<'a> {
    root: &'a Path,
    options: &'a Options<'a>,
    staging: &'a Staging<'a>,
    digests: Option<&'a Digests>,
    cache: Option<&'a Cache>,
    /// Device and inode of every file object.
    links: HashMap<(u64, u64), Checksum>,
    files: &'a [ScannedFile],
}

impl Job<'_> {
    /// Imports every file; the checksums come back in the order of `files`.
    fn run(&self, stats: &mut Stats) -> Result<Vec<Checksum>, Error> {
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        // A large file begun last would leave all cores but one idle.
        order.sort_by_key(|index| std::cmp::Reverse(self.files[*index].meta.size));
        let sums: Mutex<Vec<Option<Checksum>>> = Mutex::new(vec![None; self.files.len()]);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (bytes, new_files, new_bytes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let work = || {
            let mut buffer = Vec::new();
            let mut done = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                match self.file(&self.files[index], &mut buffer) {
                    Ok((checksum, size, new)) => {
                        bytes.fetch_add(size, Ordering::Relaxed);
                        if new {
                            new_files.fetch_add(1, Ordering::Relaxed);
                            new_bytes.fetch_add(size, Ordering::Relaxed);
                        }
                        done.push((index, checksum));
                    }
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        lock(&failure).get_or_insert(error);
                    }
                }
            }
            let mut sums = lock(&sums);
            for (index, checksum) in done {
                sums[index] = Some(checksum);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads(self.options.threads) {
                scope.spawn(work);
            }
        });
        if let Some(error) = lock(&failure).take() {
            return Err(error);
        }
        stats.bytes = bytes.into_inner();
        stats.new_files = new_files.into_inner();
        stats.new_bytes = new_bytes.into_inner();
        let sums = sums.into_inner().unwrap_or_default();
        sums.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| Error::invalid("an import thread died"))
    }

    fn changed(&self, path: &str, meta: &FileMeta, xattrs: Xattrs, size: u64) -> FileMeta {
        let mut attributes = Attributes { uid: meta.uid, gid: meta.gid, mode: meta.mode, xattrs };
        if let Some(modify) = self.options.modify {
            modify(path, &mut attributes);
            attributes.xattrs.sort();
        }
        FileMeta {
            uid: attributes.uid,
            gid: attributes.gid,
            mode: (meta.mode & crate::object::S_IFMT) | (attributes.mode & 0o7777),
            symlink: meta.symlink.clone(),
            xattrs: attributes.xattrs,
            size,
        }
    }

    /// Imports one file: name, bytes read, whether it was new.
    fn file(&self, file: &ScannedFile, buffer: &mut Vec<u8>) -> Result<(Checksum, u64, bool), Error> {
        let path = &file.path;
        if file.meta.symlink.is_some() {
            let meta = self.changed(path, &file.meta, file.meta.xattrs.clone(), 0);
            let (checksum, new) = self.staging.write_bytes(&meta, &[])?;
            return Ok((checksum, 0, new));
        }
        if let Some(checksum) = self.links.get(&file.seen.inode()) {
            return Ok((*checksum, 0, false));
        }
        // What it becomes if it has no attributes of its own; if it has and they are changed, it must be read.
        let modified = self.options.modify.is_some();
        let identity = self
            .cache
            .map(|_| cache::identity(&self.changed(path, &file.meta, Xattrs::new(), file.meta.size), modified));
        let known = self.cache.zip(identity).and_then(|(cache, identity)| cache.get(&file.seen, &identity));
        if let Some(checksum) = known {
            let digest = self.digests.is_none_or(|d| file.meta.size == 0 || d.get(&checksum).is_some());
            if digest && self.staging.has(ObjectType::File, &checksum) {
                self.remember(file, identity, &checksum);
                return Ok((checksum, 0, false));
            }
        }
        let io = |e| failed(path, e);
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut real =
            fs::OpenOptions::new().read(true).custom_flags(nofollow).open(self.root.join(&path[1..])).map_err(io)?;
        let xattrs = file_xattrs(&real).map_err(io)?;
        let size = real.metadata().map_err(io)?.len();
        let identity = identity.filter(|_| !modified || xattrs.is_empty());
        if size > IN_MEMORY {
            let meta = self.changed(path, &file.meta, xattrs, size);
            let (checksum, new) = self.large(path, &meta, &mut real)?;
            self.remember(file, identity, &checksum);
            return Ok((checksum, size, new));
        }
        buffer.clear();
        buffer.reserve(usize::try_from(size).unwrap_or(0) + 1);
        real.read_to_end(buffer).map_err(io)?;
        let meta = self.changed(path, &file.meta, xattrs, buffer.len() as u64);
        let (checksum, new) = self.staging.write_bytes(&meta, buffer)?;
        if let Some(digests) = self.digests {
            if !buffer.is_empty() && digests.get(&checksum).is_none() {
                digests.insert(&checksum, verity::digest(buffer));
            }
        }
        self.remember(file, identity, &checksum);
        Ok((checksum, buffer.len() as u64, new))
    }

    fn remember(&self, file: &ScannedFile, identity: Option<[u8; 16]>, checksum: &Checksum) {
        if let Some((cache, identity)) = self.cache.zip(identity) {
            cache.put(&file.seen, &identity, checksum);
        }
    }

    /// Too large for memory: read once to know its name, and again only if it is new.
    fn large(&self, path: &str, meta: &FileMeta, real: &mut File) -> Result<(Checksum, bool), Error> {
        let io = |e| failed(path, e);
        let mut hasher = meta.hasher();
        if let Some(digests) = self.digests {
            let mut reader = Digesting::new(&mut *real);
            hash_all(&mut reader, &mut hasher).map_err(io)?;
            let digest = reader.hasher.finish();
            let checksum = Checksum(hasher.finalize_reset().into());
            digests.insert(&checksum, digest);
            real.rewind().map_err(io)?;
            let new = self.staging.write_known(meta, &checksum, Content::Stream(real))?;
            return Ok((checksum, new));
        }
        hash_all(real, &mut hasher).map_err(io)?;
        let checksum = Checksum(hasher.finalize().into());
        real.rewind().map_err(io)?;
        Ok((checksum, self.staging.write_known(meta, &checksum, Content::Stream(real))?))
    }
}

fn write_dir(staging: &Staging<'_>, dir: &ScannedDir, sums: &[Checksum]) -> Result<(Checksum, Checksum), Error> {
    let mut tree = DirTree::default();
    for (name, index) in &dir.files {
        tree.files.push((name.clone(), sums[*index]));
    }
    for (name, child) in &dir.dirs {
        let (child_tree, child_meta) = write_dir(staging, child, sums)?;
        tree.dirs.push((name.clone(), child_tree, child_meta));
    }
    let meta = staging.write_metadata(ObjectType::DirMeta, &dir.meta.encode())?;
    Ok((staging.write_metadata(ObjectType::DirTree, &tree.encode())?, meta))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How many threads to run where 0 means one for each core.
pub(crate) fn threads(wanted: usize) -> usize {
    if wanted > 0 { wanted } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn sample(dir: &Path) {
        fs::create_dir_all(dir.join("usr/bin")).unwrap();
        fs::write(dir.join("usr/bin/hello"), "hello\n").unwrap();
        fs::set_permissions(dir.join("usr/bin/hello"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(dir.join("usr/bin/hello"), dir.join("usr/bin/hallo")).unwrap();
        symlink("hello", dir.join("usr/bin/hi")).unwrap();
        fs::write(dir.join("usr/empty"), "").unwrap();
    }

    fn entry(repo: &Repo, tree: &Imported, path: &str) -> Option<crate::Entry> {
        let mut found = None;
        repo.walk_tree(&tree.root_tree, &tree.root_meta, &mut |p, entry| {
            found = if p == path { Some(entry) } else { found };
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn both_modes_and_any_number_of_threads_agree() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        sample(&dir.path().join("root"));
        let mut results = Vec::new();
        for (name, mode, threads) in [("a", Mode::Archive, 1), ("b", Mode::BareUser, 3)] {
            let repo = Repo::create(&dir.path().join(name), mode).unwrap();
            let options = Options { threads, verity: true, ..Options::default() };
            let first = directory(&repo, &dir.path().join("root"), &options).unwrap();
            let again = directory(&repo, &dir.path().join("root"), &options).unwrap();
            assert_eq!((first.stats.files, first.stats.symlinks, first.stats.dirs), (2, 1, 3));
            assert_eq!((first.stats.new_files, again.stats.new_files), (3, 0));
            assert!(fs::read_dir(repo.path().join("tmp")).unwrap().next().is_none());
            let mut paths = Vec::new();
            repo.walk_tree(&first.root_tree, &first.root_meta, &mut |path, entry| {
                if let crate::Entry::File { checksum } = entry {
                    let meta = repo.verify_file(&checksum)?;
                    paths.push((path.to_owned(), meta.mode, meta.symlink));
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(paths[0], ("/usr/empty".to_owned(), 0o100_644, None));
            assert_eq!(paths[2], ("/usr/bin/hello".to_owned(), 0o104_755, None));
            assert_eq!(paths[3], ("/usr/bin/hi".to_owned(), 0o120_777, Some("hello".to_owned())));
            results.push((first.root_tree, first.root_meta));
        }
        assert_eq!(results[0], results[1]);
    }

    #[test]
    fn a_cache_changes_nothing_but_what_is_read() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = dir.path().join("root");
        sample(&root);
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let options = Options { cache: true, ..Options::default() };
        let first = directory(&repo, &root, &options).unwrap();
        assert_eq!(first.stats.bytes, 6);
        // Too young to be remembered.
        assert_eq!(directory(&repo, &root, &options).unwrap().stats.bytes, 6);
        std::thread::sleep(std::time::Duration::from_millis(2100));
        directory(&repo, &root, &options).unwrap();
        let cached = directory(&repo, &root, &options).unwrap();
        assert_eq!((cached.stats.bytes, cached.root_tree), (0, first.root_tree));
        // Same size and time of modification, other content: the change time tells.
        let path = root.join("usr/bin/hello");
        let times = fs::FileTimes::new().set_modified(fs::metadata(&path).unwrap().modified().unwrap());
        fs::write(&path, "HELLO\n").unwrap();
        File::options().append(true).open(&path).unwrap().set_times(times).unwrap();
        let changed = directory(&repo, &root, &options).unwrap();
        let plain = directory(&repo, &root, &Options::default()).unwrap();
        assert_ne!(changed.root_tree, first.root_tree);
        assert_eq!(changed.root_tree, plain.root_tree);
        // Other owners, same files: what was remembered does not fit.
        let modify: Modify<'_> = &|_, attributes| attributes.uid = 7;
        let one =
            directory(&repo, &root, &Options { modify: Some(modify), cache: true, ..Options::default() }).unwrap();
        let two = directory(&repo, &root, &Options { modify: Some(modify), ..Options::default() }).unwrap();
        assert_eq!(one.root_tree, two.root_tree);
    }

    #[test]
    fn hard_links_to_objects_are_known() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = dir.path().join("root");
        sample(&root);
        let repo = Repo::create(&dir.path().join("repo"), Mode::BareUser).unwrap();
        let first = directory(&repo, &root, &Options::default()).unwrap();
        let Some(crate::Entry::File { checksum }) = entry(&repo, &first, "/usr/bin/hello") else { panic!("no file") };
        for name in ["hello", "hallo"] {
            fs::remove_file(root.join("usr/bin").join(name)).unwrap();
            let object = repo.path().join("objects").join(repo.loose_path(ObjectType::File, &checksum));
            fs::hard_link(object, root.join("usr/bin").join(name)).unwrap();
        }
        let again = directory(&repo, &root, &Options { links: true, ..Options::default() }).unwrap();
        assert_eq!((again.stats.bytes, again.root_tree), (0, first.root_tree));
    }

    #[test]
    fn what_a_tree_cannot_hold_is_refused_with_its_path() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = dir.path().join("root");
        sample(&root);
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("usr/socket")).unwrap();
        let error = directory(&repo, &root, &Options::default()).unwrap_err().to_string();
        assert!(error.contains("/usr/socket: it is a socket"), "{error}");
        let skip: Filter<'_> = &|path| path == "/usr/socket";
        directory(&repo, &root, &Options { skip: Some(skip), ..Options::default() }).unwrap();
    }

    #[test]
    fn owners_and_modes_can_be_changed() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        sample(&dir.path().join("root"));
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let modify: Modify<'_> = &|path, attributes| {
            attributes.uid = 7;
            if path == "/usr/bin/hello" {
                attributes.mode = 0o600;
            }
        };
        let options = Options { modify: Some(modify), ..Options::default() };
        let tree = directory(&repo, &dir.path().join("root"), &options).unwrap();
        let mut modes = BTreeMap::new();
        repo.walk_tree(&tree.root_tree, &tree.root_meta, &mut |path, entry| {
            if let crate::Entry::File { checksum } = entry {
                let meta = repo.load_file_meta(&checksum)?;
                assert_eq!(meta.uid, 7);
                modes.insert(path.to_owned(), meta.mode);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((modes["/usr/bin/hello"], modes["/usr/bin/hallo"]), (0o100_600, 0o104_755));
    }
}
