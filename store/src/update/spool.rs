//! Parts of an update while they are fetched: what an interrupted or killed pull leaves for the next one.
//!
//! ```text
//! tmp/update-ID-N    the first bytes of part N; ID is the checksum of the update's head and table, N a number
//!   locked while somebody writes it          removed when the objects made from it are durable
//! ```
//! A pull goes on at the byte where the last one stopped, in the middle of a part, too. What lies here is believed no
//! more than what a server sends: a part that turns out damaged is fetched once more, from its beginning.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode as Bits, OFlags};

use super::base::nameless;
use crate::{Checksum, Error, Repo};

/// What nobody came back for goes after so many seconds.
const AGE: u64 = 7 * 24 * 3600;
/// What the names begin with.
const NAME: &str = "update-";

/// The parts of one update.
pub(crate) struct Spool<'r> {
    repo: &'r Repo,
    /// What the names of its parts begin with; `None` where nothing is to be kept.
    prefix: Option<String>,
}

/// A part that is open for reading and writing.
pub(crate) struct Spooled {
    pub file: File,
    /// Bytes that were there.
    pub had: u64,
    /// Its name, if it has one.
    pub path: Option<PathBuf>,
}

fn tmp(repo: &Repo) -> PathBuf {
    repo.path().join("tmp")
}

impl<'r> Spool<'r> {
    /// The parts of the update that begins with these bytes. What others left and nobody wants any more is removed.
    pub fn kept(repo: &'r Repo, head: &[u8]) -> Spool<'r> {
        let old = sys::clock::now().saturating_sub(AGE);
        remove(&tmp(repo), NAME, |meta| {
            let changed = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            changed.is_some_and(|changed| changed.as_secs() < old)
        });
        Spool { repo, prefix: Some(format!("{NAME}{}-", &Checksum::of(head).to_hex()[..32])) }
    }

    /// Parts that are gone when they are closed: the update itself lies on this machine.
    pub fn passing(repo: &'r Repo) -> Spool<'r> {
        Spool { repo, prefix: None }
    }

    fn path(&self, number: usize) -> Option<PathBuf> {
        self.prefix.as_ref().map(|prefix| tmp(self.repo).join(format!("{prefix}{number}")))
    }

    /// Bytes of a part that are here, `stored` at most.
    pub fn here(&self, number: usize, stored: u64) -> u64 {
        let meta = self.path(number).and_then(|path| fs::symlink_metadata(path).ok());
        meta.map_or(0, |meta| if meta.len() <= stored { meta.len() } else { 0 })
    }

    /// Opens a part of `stored` bytes to go on with it. Where another process has it, that is a file of our own.
    pub fn open(&self, number: usize, stored: u64) -> Result<Spooled, Error> {
        if let Some(path) = self.path(number) {
            let io = |e: io::Error| Error::io(format!("opening {}", path.display()), e);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let fd = rustix::fs::open(&path, flags, Bits::from_raw_mode(0o600)).map_err(|e| io(e.into()))?;
            let file = File::from(fd);
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let mut had = file.metadata().map_err(io)?.len();
                if had > stored {
                    file.set_len(0).map_err(io)?;
                    had = 0;
                }
                return Ok(Spooled { file, had, path: Some(path) });
            }
        }
        Ok(Spooled { file: nameless(self.repo)?, had: 0, path: None })
    }

    /// Removes everything of this update.
    pub fn forget(&self) {
        if let Some(prefix) = &self.prefix {
            remove(&tmp(self.repo), prefix, |_| true);
        }
    }
}

/// Removes files by what their names begin with, as far as nobody has them locked. What cannot be removed costs space
/// until the next time.
fn remove(tmp: &Path, prefix: &str, gone: impl Fn(&fs::Metadata) -> bool) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if !ours || !entry.metadata().is_ok_and(|meta| meta.is_file() && gone(&meta)) {
            continue;
        }
        let free = File::open(entry.path())
            .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if free {
            let _ = fs::remove_file(entry.path());
        }
    }
}
