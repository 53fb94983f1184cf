//! Where the files of a batch lie until it is flushed, and how they get their names.
//!
//! ```text
//! tmp/slipway-PID-N/      locked by its writer; one without a living writer is a leftover and goes
//!   0/0, 1/1 … 0/8 …      objects being written, in several directories: threads that create files in one wait for it
//!   ab/cdef….EXT          the same, where the repository had no object yet
//! flush():  syncfs  ->  rename each to objects/ab/cdef….EXT  ->  fsync of the directories, or syncfs where they are many
//!                       or all of ab at once, where objects has no ab and nobody is writing
//! ```
//! A killed writer leaves nothing visible; a name that is visible has its whole content, also after a power cut.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode as Bits, OFlags, RenameFlags};
use rustix::io::Errno;

use super::stage::Staging;
use crate::object::ObjectType;
use crate::{Checksum, Error};

/// Directories that a batch is spread over at first,
const FEW_SHARDS: u64 = 8;
/// and from this file on, when those are so full that looking for a free place in them takes long:
const MANY_FILES: u64 = 512;
const SHARDS: u64 = 64;
/// With so many directories to sync, syncing the file system once more is cheaper.
const FEW_DIRS: usize = 8;
/// What is smaller waits for the end of the batch, together with its whole directory: a rename from one directory to
/// another waits for every other on the file system, and there are thousands of small files.
const SMALL: u64 = 128 << 10;
/// Unless all that is small is more than this.
const MOST_SMALL: u64 = 80 << 20;

/// What the threads of a batch share.
#[derive(Default)]
pub(super) struct State {
    pub claimed: HashSet<(ObjectType, Checksum)>,
    /// Here, but to be replaced.
    pub damaged: HashSet<Checksum>,
    ready: Vec<Ready>,
    /// Since the last flush of any kind.
    pub bytes: u64,
    /// Since the beginning.
    written: u64,
    /// Files begun since the beginning.
    begun: u64,
    /// Files that are being written, and flushes that are going on.
    busy: u64,
}

/// A complete file.
struct Ready {
    /// Its name in the staging directory,
    name: String,
    /// and below objects/.
    target: String,
    bytes: u64,
}

/// A file in the staging directory that is removed unless it becomes an object.
pub(super) struct Temp<'s, 'r> {
    staging: &'s Staging<'r>,
    pub name: String,
    pub file: File,
    kept: bool,
}

impl Drop for Temp<'_, '_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = rustix::fs::unlinkat(&self.staging.fd, &self.name, rustix::fs::AtFlags::empty());
        }
        self.staging.lock().busy -= 1;
    }
}

/// A flush that is going on.
struct Flushing<'s, 'r>(&'s Staging<'r>);

impl Drop for Flushing<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
    }
}

impl<'r> Staging<'r> {
    /// Begins a file that will be `target` below objects/, where that is known already.
    pub(super) fn temp(&self, target: Option<&str>) -> io::Result<Temp<'_, 'r>> {
        {
            let mut state = self.lock();
            state.begun += 1;
            state.busy += 1;
        }
        let opened = match target {
            Some(target) if self.fresh => self.open_in(&target[..2], target.to_owned()),
            _ => self.open_numbered(),
        };
        match opened {
            Ok((name, file)) => Ok(Temp { staging: self, name, file, kept: false }),
            Err(error) => {
                self.lock().busy -= 1;
                Err(error)
            }
        }
    }

    fn open(&self, name: &str) -> rustix::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Bits::from_raw_mode(0o644)).map(File::from)
    }

    fn open_in(&self, dir: &str, name: String) -> io::Result<(String, File)> {
        let file = match self.open(&name) {
            Err(Errno::NOENT) => {
                self.make(dir)?;
                self.open(&name)?
            }
            result => result?,
        };
        Ok((name, file))
    }

    fn make(&self, dir: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.fd, dir, Bits::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn open_numbered(&self) -> io::Result<(String, File)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let shard = number % if number < MANY_FILES { FEW_SHARDS } else { SHARDS };
        let first = number == shard || (shard >= FEW_SHARDS && number == MANY_FILES + shard);
        if first {
            self.make(&shard.to_string())?;
            self.shards.fetch_or(1 << shard, Ordering::Release);
        }
        // The thread that makes this directory may not have come to it yet; the top will do as well.
        let made = self.shards.load(Ordering::Acquire) & (1 << shard) != 0;
        let name = if made { format!("{shard}/{number}") } else { format!("t{number}") };
        let file = self.open(&name)?;
        Ok((name, file))
    }

    /// Gives a complete file its place in the batch.
    pub(super) fn keep(&self, mut temp: Temp<'_, 'r>, target: String, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state.written + bytes > self.room {
            drop(state);
            let why = format!("too little room: {} of the repository's config would be broken", self.repo.reserve());
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        temp.kept = true;
        state.ready.push(Ready { name: std::mem::take(&mut temp.name), target, bytes });
        state.bytes += bytes;
        state.written += bytes;
        drop(state);
        Ok(())
    }

    /// Bytes written since the last flush of any kind.
    pub fn pending_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Makes everything written so far visible, durably. More may be written after it.
    pub fn flush(&self) -> Result<(), Error> {
        let (ready, begun, _flushing) = {
            let mut state = self.lock();
            state.bytes = 0;
            let begun = (self.fresh && state.busy == 0).then_some(state.begun);
            state.busy += 1;
            (std::mem::take(&mut state.ready), begun, Flushing(self))
        };
        self.link(&ready, begun)
    }

    /// Makes the larger part of what was written so far visible, durably: for a batch that is not at its end. Small
    /// files, if they are not too much themselves, wait.
    pub fn flush_large(&self) -> Result<(), Error> {
        let (ready, _flushing) = {
            let mut state = self.lock();
            let ready = std::mem::take(&mut state.ready);
            let small: u64 = ready.iter().map(|file| file.bytes).filter(|bytes| *bytes < SMALL).sum();
            let wait = self.fresh && small <= MOST_SMALL;
            let (later, now) = ready.into_iter().partition(|file| wait && file.bytes < SMALL);
            state.ready = later;
            state.bytes = 0;
            state.busy += 1;
            (now, Flushing(self))
        };
        self.link(&ready, None)
    }

    /// `begun` is how many files had been begun, where every one of them was complete.
    fn link(&self, ready: &[Ready], begun: Option<u64>) -> Result<(), Error> {
        let link = || {
            if ready.is_empty() {
                return Ok(());
            }
            let fsync = self.repo.settings.fsync;
            if fsync {
                rustix::fs::syncfs(&self.fd)?;
            }
            let quiet = begun.and_then(|begun| self.quiet(begun));
            self.rename(ready, quiet.is_some(), fsync)
        };
        link().map_err(|e| Error::io(format!("writing objects to {}", self.repo.path.display()), e))
    }

    /// If no file was begun since then, none can be as long as what is returned is not dropped: a directory then holds
    /// nothing but complete objects that are synced.
    fn quiet(&self, begun: u64) -> Option<MutexGuard<'_, State>> {
        let state = self.lock();
        // The flush itself is the one that is busy.
        (state.begun == begun && state.busy == 1).then_some(state)
    }

    fn rename(&self, ready: &[Ready], whole: bool, fsync: bool) -> io::Result<()> {
        let mut dirs: BTreeMap<&str, Vec<&Ready>> = BTreeMap::new();
        for object in ready {
            dirs.entry(&object.target[..2]).or_default().push(object);
        }
        let each = fsync && dirs.len() <= FEW_DIRS;
        let dirs: Vec<_> = dirs.into_iter().collect();
        let next = AtomicUsize::new(0);
        // Renames wait for one another only within a directory, and here each has one thread.
        let work = || -> io::Result<()> {
            while let Some((dir, objects)) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.rename_dir(dir, objects, whole, each)?;
            }
            Ok(())
        };
        let threads = if dirs.len() <= FEW_DIRS { 1 } else { crate::import::threads(0) };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a thread died"))))
        })?;
        if fsync && !each {
            rustix::fs::syncfs(&self.fd)?;
        } else if fsync {
            rustix::fs::fsync(self.repo.objects_dir().as_fd())?;
        }
        Ok(())
    }

    /// Gives objects their names in `objects/DIR`.
    fn rename_dir(&self, dir: &str, objects: &[&Ready], whole: bool, fsync: bool) -> io::Result<()> {
        let top = self.repo.objects_dir();
        // A file that was begun without knowing its name lies elsewhere.
        let together = whole && objects.iter().all(|object| object.name == object.target);
        let moved = together && {
            match rustix::fs::renameat_with(&self.fd, dir, top, dir, RenameFlags::NOREPLACE) {
                Ok(()) => true,
                // Another writer was quicker, or the file system cannot do that.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::INVAL | Errno::NOSYS) => false,
                Err(error) => return Err(error.into()),
            }
        };
        if !moved {
            match rustix::fs::mkdirat(top, dir, Bits::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            for Ready { name, target, .. } in objects {
                rustix::fs::renameat(&self.fd, name, top, target)?;
            }
        }
        if fsync {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::fsync(rustix::fs::openat(top, dir, flags, Bits::empty())?)?;
        }
        Ok(())
    }
}
