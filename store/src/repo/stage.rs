//! Writing objects: a batch is written where nobody looks, synced as a whole, then renamed into place (see `batch`).

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode as Bits, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use sha2::{Digest as _, Sha256};

use super::batch::{State, Temp};
use super::deflate::{deflate, inflate_into};
use super::pieces::{Helpers, deflate_pieces};
use super::read::{self, OSTREE_META};
use super::settings::Reserve;
use super::{Mode, Repo, RepoLock, bare};
use crate::object::{FileMeta, ObjectType, path_with_extension};
use crate::verity;
use crate::{Checksum, Error};

/// Files up to this size are compressed in memory, in one go; larger ones stream, in pieces.
pub(crate) const IN_MEMORY: u64 = 64 << 20;
/// A `.filez` smaller than this is inflated in memory, in one go,
const WHOLE: u64 = 4 << 20;
/// if its content is not larger than this: so much memory each thread of a pull takes at most.
const INFLATED: u64 = 16 << 20;
/// Memory in which larger ones are inflated in one go, which is twice as fast as in a stream; all threads share it, and
/// who finds none left streams.
const SHARED: u64 = 96 << 20;
/// No file of a tree is larger, unless a signed commit says so.
const MAX_FILE: u64 = 64 << 30;

thread_local! {
    /// What a thread reads a `.filez` into, and inflates it into: memory that is taken once is not paid for at every file.
    static RAW: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static CONTENT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger one is not kept.
const KEPT: usize = 1 << 20;

/// Keeps a buffer for the next file.
fn keep_buffer(place: &'static std::thread::LocalKey<Cell<Vec<u8>>>, buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT {
        place.set(buffer);
    }
}

/// Whether file objects get fs-verity, so that the kernel checks every read of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verity {
    /// No.
    #[default]
    Off,
    /// Where the file system can.
    IfSupported,
    /// A file system that cannot is an error.
    Require,
}

fn enable_verity(file: &File, wanted: Verity) -> io::Result<()> {
    use rustix::io::Errno;
    match verity::enable(file) {
        Err(e) if wanted == Verity::IfSupported => match Errno::from_io_error(&e) {
            Some(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => Ok(()),
            _ => Err(e),
        },
        result => result,
    }
}

/// The content of a file that is to become an object.
pub enum Content<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// A reader of exactly as many bytes as the metadata says.
    Stream(&'a mut dyn Read),
}

/// Why a `.filez` was not added.
#[derive(Debug)]
pub(crate) enum FilezError {
    /// It could not be read, or is damaged.
    Stream(io::Error),
    /// It is another object, or could not be written here.
    Store(Error),
}

/// An error of this machine in the middle of a stream from another one.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Local(io::Error);

fn local(error: io::Error) -> io::Error {
    io::Error::other(Local(error))
}

struct LocalWriter<'a>(&'a File);

impl Write for LocalWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(local)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(local)
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "bytes after the end of the file")
}

/// A `.filez` may not declare more than the commit says, nor more than any file is.
fn check_declared(meta: &FileMeta, size: Option<u64>) -> io::Result<()> {
    let why = match size {
        // The stock tools record the length of a link's target; it has no content to be bounded.
        _ if meta.symlink.is_some() => return Ok(()),
        Some(size) if size != meta.size => format!("it declares {} bytes, the commit says {size}", meta.size),
        None if meta.size > MAX_FILE => format!("it declares {} bytes", meta.size),
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// A batch of objects. Dropping it without `flush` forgets what was not flushed.
pub struct Staging<'r> {
    pub(super) repo: &'r Repo,
    pub(super) dir: PathBuf,
    pub(super) fd: OwnedFd,
    _own: OwnedFd,
    _shared: RepoLock,
    /// Bytes that may be written before the file system is too full.
    pub(super) room: u64,
    verity: Verity,
    pub(super) state: Mutex<State>,
    pub(super) next: AtomicU64,
    /// A bit for each directory that was made.
    pub(super) shards: AtomicU64,
    /// There was no object when the batch began.
    pub(super) fresh: bool,
    /// What is left of `SHARED`.
    memory: AtomicU64,
    /// Who compresses pieces of large files besides the thread that reads them.
    helpers: Helpers,
}

impl Repo {
    /// Begins a batch of objects.
    pub fn stage(&self) -> Result<Staging<'_>, Error> {
        self.stage_with(Verity::Off)
    }

    /// Begins a batch of objects; file objects get fs-verity as `verity` says (bare-user repositories only).
    pub fn stage_with(&self, verity: Verity) -> Result<Staging<'_>, Error> {
        if self.mode == Mode::Bare && !rustix::process::geteuid().is_root() {
            return Err(Error::invalid("only root can write to a repository of mode bare: it keeps true owners"));
        }
        let shared = self.lock_shared()?;
        let tmp = self.path.join("tmp");
        let io = |e: io::Error| Error::io(format!("writing below {}", tmp.display()), e);
        fs::create_dir_all(&tmp).map_err(io)?;
        remove_leftovers(&tmp).map_err(io)?;
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tmp.join(format!("slipway-{}-{count}", std::process::id()));
        fs::create_dir(&dir).map_err(io)?;
        let open =
            || rustix::fs::open(&dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Bits::empty()).map_err(io::Error::from);
        let (fd, own) = (open().map_err(io)?, open().map_err(io)?);
        rustix::fs::flock(&own, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|e| io(e.into()))?;
        let (state, next, shards) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        let room = self.room(&fd).map_err(io)?;
        let objects = self.path.join("objects");
        let fresh = fs::read_dir(&objects).map_err(|e| Error::io(format!("reading {}", objects.display()), e))?;
        let fresh = fresh.take(1).count() == 0;
        Ok(Staging {
            repo: self,
            dir,
            fd,
            _own: own,
            _shared: shared,
            room,
            verity,
            state,
            next,
            shards,
            fresh,
            memory: AtomicU64::new(SHARED),
            helpers: Helpers::new(crate::import::threads(0) - 1),
        })
    }

    /// Bytes that the file system can take until only the configured reserve is left.
    fn room(&self, fd: &OwnedFd) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(fd)?;
        let reserve = match self.settings.reserve {
            Reserve::Bytes(bytes) => bytes,
            Reserve::Percent(percent) => (stat.f_blocks / 100).saturating_mul(percent).saturating_mul(stat.f_frsize),
        };
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(reserve))
    }

    pub(super) fn reserve(&self) -> String {
        match self.settings.reserve {
            Reserve::Bytes(bytes) => format!("min-free-space-size={}MB", bytes >> 20),
            Reserve::Percent(percent) => format!("min-free-space-percent={percent}"),
        }
    }
}

/// Removes staging directories whose writers are gone.
fn remove_leftovers(tmp: &std::path::Path) -> io::Result<()> {
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("slipway-") {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Created and not yet locked by its writer: that takes microseconds, leftovers are older.
            let fresh = file.metadata()?.modified()?.elapsed().is_ok_and(|age| age.as_secs() < 10);
            if !fresh {
                sys::file::remove_tree(&entry.path())?;
            }
        }
    }
    Ok(())
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        let _ = sys::file::remove_tree(&self.dir);
    }
}

impl<'r> Staging<'r> {
    /// The repository.
    pub fn repo(&self) -> &'r Repo {
        self.repo
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere cannot leave the sets half changed.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the object is in the repository or in this batch.
    pub fn has(&self, kind: ObjectType, checksum: &Checksum) -> bool {
        self.lock().claimed.contains(&(kind, *checksum)) || self.repo.has(kind, checksum)
    }

    /// True for the one caller that has to write the object.
    fn claim(&self, kind: ObjectType, checksum: &Checksum) -> bool {
        // Nothing that is there can go while the batch holds its lock. What another writer adds to a repository that was
        // empty is written once more, which is cheaper than to look for each object.
        let exists = !self.fresh && self.repo.has(kind, checksum);
        let mut state = self.lock();
        (!exists || state.damaged.contains(checksum)) && state.claimed.insert((kind, *checksum))
    }

    /// The object that is there is damaged: what is added under its name takes its place.
    pub(crate) fn replace(&self, checksum: &Checksum) {
        self.lock().damaged.insert(*checksum);
    }

    fn error(&self, kind: ObjectType, checksum: &Checksum, error: io::Error) -> Error {
        Error::io(format!("writing {kind} {checksum} to {}", self.repo.path.display()), error)
    }

    /// Adds a metadata object and returns its name.
    pub fn write_metadata(&self, kind: ObjectType, bytes: &[u8]) -> Result<Checksum, Error> {
        let checksum = Checksum::of(bytes);
        if self.claim(kind, &checksum) {
            let write = || {
                let target = path_with_extension(&checksum, kind.extension());
                let mut temp = self.temp(Some(&target))?;
                temp.file.write_all(bytes)?;
                readable(&temp.file)?;
                self.keep(temp, target, bytes.len() as u64)
            };
            write().map_err(|e| self.error(kind, &checksum, e))?;
        }
        Ok(checksum)
    }

    /// Adds a file whose content is in memory. It is hashed first: what is there already is neither compressed nor
    /// written. Returns its name, and whether it was new.
    pub fn write_bytes(&self, meta: &FileMeta, content: &[u8]) -> Result<(Checksum, bool), Error> {
        let mut hasher = meta.hasher();
        hasher.update(content);
        let checksum = Checksum(hasher.finalize().into());
        let new = self.claim(ObjectType::File, &checksum);
        if new {
            let write = || {
                let temp = self.temp(Some(&self.repo.loose_path(ObjectType::File, &checksum)))?;
                let stored = match (&meta.symlink, self.repo.mode) {
                    (None, Mode::Archive) => self.compress(&temp.file, &meta.filez_header(), content)?,
                    (Some(_), Mode::Archive) => write_all(&temp.file, &meta.filez_header())?,
                    (Some(target), _) => write_all(&temp.file, &crate::gv::nul(target))?,
                    (None, _) => write_all(&temp.file, content)?,
                };
                self.finish_file(temp, meta, &checksum, stored)
            };
            write().map_err(|e| self.error(ObjectType::File, &checksum, e))?;
        }
        Ok((checksum, new))
    }

    /// Adds a file whose name is known; the content is verified while it streams. Returns whether it was new.
    pub fn write_known(&self, meta: &FileMeta, checksum: &Checksum, content: Content<'_>) -> Result<bool, Error> {
        let new = self.claim(ObjectType::File, checksum);
        if new {
            self.write_claimed(meta, checksum, content).inspect_err(|_| {
                // Somebody may try again, from another source.
                self.lock().claimed.remove(&(ObjectType::File, *checksum));
            })?;
        }
        Ok(new)
    }

    /// Adds a file whose name is known only when its content has been read: too large to be in memory. Returns its
    /// name, and whether it was new.
    pub fn write_stream(&self, meta: &FileMeta, content: &mut dyn Read) -> Result<(Checksum, bool), Error> {
        let io = |e| Error::io(format!("writing a file of {} bytes to {}", meta.size, self.repo.path.display()), e);
        let content = Content::Stream(content);
        let result = match self.repo.mode {
            Mode::Archive => self.write_archive(meta, content, None),
            Mode::BareUser | Mode::Bare | Mode::BareUserOnly => self.write_plain(meta, content, None),
        };
        let (temp, hasher, stored) = result.map_err(io)?;
        let checksum = Checksum(hasher.finalize().into());
        let new = self.claim(ObjectType::File, &checksum);
        if new {
            self.finish_file(temp, meta, &checksum, stored).map_err(io)?;
        }
        Ok((checksum, new))
    }

    fn write_claimed(&self, meta: &FileMeta, checksum: &Checksum, content: Content<'_>) -> Result<(), Error> {
        let target = self.repo.loose_path(ObjectType::File, checksum);
        let result = match self.repo.mode {
            Mode::Archive => self.write_archive(meta, content, Some(&target)),
            Mode::BareUser | Mode::Bare | Mode::BareUserOnly => self.write_plain(meta, content, Some(&target)),
        };
        let io = |e| self.error(ObjectType::File, checksum, e);
        let (temp, hasher, stored) = result.map_err(io)?;
        let found = Checksum(hasher.finalize().into());
        if found != *checksum {
            return Err(Error::Mismatch { kind: ObjectType::File, expected: *checksum, found });
        }
        self.finish_file(temp, meta, checksum, stored).map_err(io)
    }

    fn finish_file(&self, mut temp: Temp<'_, 'r>, meta: &FileMeta, sum: &Checksum, stored: u64) -> io::Result<()> {
        let target = self.repo.loose_path(ObjectType::File, sum);
        if self.repo.mode == Mode::Archive {
            readable(&temp.file)?;
            return self.keep(temp, target, stored);
        }
        if self.repo.mode == Mode::Bare {
            match &meta.symlink {
                Some(to) => bare::link(&self.dir, &self.fd, &temp.name, to, meta)?,
                None => bare::seal(&temp.file, meta)?,
            }
            return self.keep(temp, target, stored);
        }
        if self.repo.mode == Mode::BareUserOnly {
            bare::check_user_only(meta)?;
            match &meta.symlink {
                Some(to) => bare::link_plain(&self.fd, &temp.name, to)?,
                None => bare::seal_plain(&temp.file, meta.mode)?,
            }
            return self.keep(temp, target, stored);
        }
        rustix::fs::fsetxattr(&temp.file, OSTREE_META, &meta.encode_bare_user(), XattrFlags::empty())?;
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: omit, last_modification: Timespec { tv_sec: 0, tv_nsec: 0 } };
        rustix::fs::futimens(&temp.file, &times)?;
        let mode = if meta.symlink.is_some() { 0o644 } else { (meta.mode & 0o775) | 0o400 };
        rustix::fs::fchmod(&temp.file, Bits::from_raw_mode(mode))?;
        if self.verity != Verity::Off {
            // The kernel refuses while anybody could still write to the file.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            temp.file = File::from(rustix::fs::openat(&self.fd, &temp.name, flags, Bits::empty())?);
            enable_verity(&temp.file, self.verity)?;
        }
        self.keep(temp, target, stored)
    }

    /// Header and deflate stream of a `.filez`.
    fn write_archive(
        &self,
        meta: &FileMeta,
        content: Content<'_>,
        target: Option<&str>,
    ) -> io::Result<(Temp<'_, 'r>, Sha256, u64)> {
        let mut temp = self.temp(target)?;
        let mut hasher = meta.hasher();
        let bytes = meta.filez_header();
        if meta.symlink.is_some() {
            temp.file.write_all(&bytes)?;
            return Ok((temp, hasher, bytes.len() as u64));
        }
        let mut whole = Vec::new();
        let content = match content {
            Content::Stream(reader) if meta.size > IN_MEMORY => {
                temp.file.write_all(&bytes)?;
                let mut content = read::Exact::new(reader, meta.size);
                let level = self.repo.settings.zlib_level;
                let mut seen = |bytes: &[u8]| hasher.update(bytes);
                deflate_pieces(&mut content, level, &self.helpers, &mut seen, &mut &temp.file)?;
                let stored = temp.file.stream_position()?;
                return Ok((temp, hasher, stored));
            }
            Content::Stream(reader) => {
                read::Exact::new(reader, meta.size).read_to_end(&mut whole)?;
                &whole
            }
            Content::Bytes(bytes) => bytes,
        };
        hasher.update(content);
        let stored = self.compress(&temp.file, &bytes, content)?;
        Ok((temp, hasher, stored))
    }

    /// Header and compressed content; returns the bytes that were written.
    fn compress(&self, mut file: &File, header: &[u8], content: &[u8]) -> io::Result<u64> {
        deflate(header, content, self.repo.settings.zlib_level, |bytes| {
            file.write_all(bytes)?;
            Ok(bytes.len() as u64)
        })
    }

    /// The content as it is; of a link, its target.
    fn write_plain(
        &self,
        meta: &FileMeta,
        content: Content<'_>,
        target: Option<&str>,
    ) -> io::Result<(Temp<'_, 'r>, Sha256, u64)> {
        let mut temp = self.temp(target)?;
        let mut hasher = meta.hasher();
        if let Some(target) = &meta.symlink {
            temp.file.write_all(&crate::gv::nul(target))?;
        } else {
            match content {
                Content::Bytes(bytes) => {
                    hasher.update(bytes);
                    temp.file.write_all(bytes)?;
                }
                Content::Stream(reader) => copy_hashing(reader, meta.size, &mut hasher, &mut temp.file)?,
            }
        }
        Ok((temp, hasher, meta.size))
    }

    /// Adds a metadata object over the one that is there, which is damaged or missing.
    pub(crate) fn replace_metadata(&self, kind: ObjectType, checksum: &Checksum, bytes: &[u8]) -> Result<(), Error> {
        if self.lock().claimed.insert((kind, *checksum)) {
            let write = || {
                let target = path_with_extension(checksum, kind.extension());
                let mut temp = self.temp(Some(&target))?;
                temp.file.write_all(bytes)?;
                readable(&temp.file)?;
                self.keep(temp, target, bytes.len() as u64)
            };
            write().map_err(|e| self.error(kind, checksum, e))?;
        }
        Ok(())
    }

    /// Adds a file object that arrives as a `.filez`, verified while it streams: header, declared size and checksum.
    /// An archive repository keeps the bytes as they came; nothing is compressed again. `size` is what a signed commit
    /// says about the content. Returns the bytes it took, or `None` if the object was there.
    pub(crate) fn write_filez(
        &self,
        checksum: &Checksum,
        raw: &mut dyn Read,
        size: Option<u64>,
    ) -> Result<Option<u64>, FilezError> {
        if !self.claim(ObjectType::File, checksum) {
            return Ok(None);
        }
        let result = self.write_filez_claimed(checksum, raw, size);
        if result.is_err() {
            // Somebody may try again, from another source.
            self.lock().claimed.remove(&(ObjectType::File, *checksum));
        }
        result.map(Some)
    }

    fn write_filez_claimed(
        &self,
        checksum: &Checksum,
        raw: &mut dyn Read,
        size: Option<u64>,
    ) -> Result<u64, FilezError> {
        let mut head = RAW.take();
        head.clear();
        raw.take(WHOLE).read_to_end(&mut head).map_err(FilezError::Stream)?;
        let mut rest = head.as_slice();
        let meta = read::read_filez_header(&mut rest).map_err(FilezError::Stream)?;
        let body = head.len() - rest.len();
        check_declared(&meta, size).map_err(FilezError::Stream)?;
        let small = (head.len() as u64) < WHOLE && meta.size <= INFLATED;
        // Deflate makes no file larger than this; what comes after it is not read.
        let most = meta.size.saturating_add(meta.size / 1000 + (64 << 10));
        let reserved = if small { None } else { self.reserve(meta.size.saturating_add(most)) };
        if reserved.is_some() && head.len() as u64 == WHOLE {
            head.reserve_exact(most.saturating_sub(WHOLE) as usize);
            raw.take(most.saturating_sub(WHOLE)).read_to_end(&mut head).map_err(FilezError::Stream)?;
        }
        let complete = (head.len() as u64) < WHOLE || (reserved.is_some() && (head.len() as u64) < most);
        let store = |e| FilezError::Store(self.error(ObjectType::File, checksum, e));
        let temp = self.temp(Some(&self.repo.loose_path(ObjectType::File, checksum))).map_err(store)?;
        let (hasher, stored) = if complete && (small || reserved.is_some()) {
            self.filez_whole(&meta, &head, &head[body..], &temp.file)
        } else {
            let mut raw = io::Cursor::new(&head).chain(raw);
            self.filez_stream(&meta, &mut raw, &temp.file)
        }
        .map_err(|e| match e.downcast::<Local>() {
            Ok(Local(error)) => store(error),
            Err(error) => FilezError::Stream(error),
        })?;
        let found = Checksum(hasher.finalize().into());
        if found != *checksum {
            let kind = ObjectType::File;
            return Err(FilezError::Store(Error::Mismatch { kind, expected: *checksum, found }));
        }
        self.finish_file(temp, &meta, checksum, stored).map_err(store)?;
        keep_buffer(&RAW, head);
        Ok(stored)
    }

    /// Takes memory out of what the threads share, until what is returned is dropped.
    fn reserve(&self, bytes: u64) -> Option<Reserved<'_>> {
        let left = |free: u64| free.checked_sub(bytes);
        let taken = self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok();
        taken.then(|| Reserved { memory: &self.memory, bytes })
    }

    fn filez_whole(&self, meta: &FileMeta, raw: &[u8], body: &[u8], mut file: &File) -> io::Result<(Sha256, u64)> {
        let mut hasher = meta.hasher();
        let mut buffer = CONTENT.take();
        let target;
        let content = match &meta.symlink {
            Some(_) if !body.is_empty() => return Err(too_long()),
            Some(to) => {
                target = crate::gv::nul(to);
                &target
            }
            None => {
                let content = inflate_into(body, meta.size, &mut buffer)?;
                hasher.update(content);
                content
            }
        };
        let bytes = if self.repo.mode == Mode::Archive { raw } else { content };
        file.write_all(bytes).map_err(local)?;
        let stored = bytes.len() as u64;
        keep_buffer(&CONTENT, buffer);
        Ok((hasher, stored))
    }

    fn filez_stream(&self, meta: &FileMeta, raw: &mut dyn Read, file: &File) -> io::Result<(Sha256, u64)> {
        let archive = self.repo.mode == Mode::Archive;
        let out = archive.then_some(file);
        let mut reader = BufReader::with_capacity(64 << 10, Tee { raw, out, count: 0 });
        read::read_filez_header(&mut reader)?;
        let mut hasher = meta.hasher();
        let content = &mut flate2::bufread::DeflateDecoder::new(&mut reader);
        // The tee does not use the file in a bare-user repository, so it can take the content.
        let mut sink = io::sink();
        let mut plain = LocalWriter(file);
        copy_hashing(content, meta.size, &mut hasher, if archive { &mut sink } else { &mut plain })?;
        if reader.read(&mut [0])? != 0 {
            return Err(too_long());
        }
        Ok((hasher, if archive { reader.get_ref().count } else { meta.size }))
    }
}

fn write_all(mut file: &File, bytes: &[u8]) -> io::Result<u64> {
    file.write_all(bytes)?;
    Ok(bytes.len() as u64)
}

/// Memory that was taken out of what threads share.
struct Reserved<'a> {
    memory: &'a AtomicU64,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.memory.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Mode 0644: the umask has no say in a repository.
fn readable(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Bits::from_raw_mode(0o644))?)
}

/// Copies what it reads to a file, if there is one.
struct Tee<'a> {
    raw: &'a mut dyn Read,
    out: Option<&'a File>,
    count: u64,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(buffer)?;
        if let Some(mut out) = self.out {
            out.write_all(&buffer[..count]).map_err(local)?;
        }
        self.count += count as u64;
        Ok(count)
    }
}

fn copy_hashing(reader: &mut dyn Read, size: u64, hasher: &mut Sha256, out: &mut dyn Write) -> io::Result<()> {
    let mut reader = read::Exact::new(reader, size);
    let mut buffer = vec![0; usize::try_from(size.clamp(4 << 10, 256 << 10)).unwrap_or(256 << 10)];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..count]);
        out.write_all(&buffer[..count])?;
    }
}
