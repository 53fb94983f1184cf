//! What a directory looked like when it was imported last: a file that has not changed since need not be read again.
//!
//! ```text
//! extensions/slipway/stat/<16 digits>     one file for each source directory
//!   magic "SLIPSTA1"
//!   96 bytes a file: device, inode, size, mtime, ctime (s, ns), identity (16), checksum of the object (32)
//!   SHA-256 of all that
//! ```
//! The change time is what is trusted: the kernel sets it at every change of content, owner, mode or attributes, and no
//! program can set it back. A file whose change time is younger than two seconds when it is looked at is not recorded:
//! it may change once more without a visible difference. What a memory mapping writes after the kernel last noticed is
//! not seen; who writes so into a tree that is being imported does not use the cache.
//!
//! A cache: losing it costs time. Whoever can write to it can write to the repository.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sha2::{Digest as _, Sha256};

use super::lock;
use crate::object::FileMeta;
use crate::{Checksum, Error, Repo};

const MAGIC: &[u8; 8] = b"SLIPSTA1";
const RECORD: usize = 96;
/// Nanoseconds that a file must have been left alone.
const QUIET: i128 = 2_000_000_000;
/// No source directory has so many files that its record is larger.
const MAX: u64 = 4 << 30;

/// Everything about a file that changes when the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Seen {
    pub(super) fn of(stat: &fs::Metadata) -> Self {
        Seen {
            device: stat.dev(),
            inode: stat.ino(),
            size: stat.size(),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            ctime: (stat.ctime(), stat.ctime_nsec()),
        }
    }

    pub(super) fn inode(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

struct Known {
    seen: Seen,
    identity: [u8; 16],
    checksum: Checksum,
}

/// The record of one source directory.
pub(super) struct Cache {
    path: PathBuf,
    old: HashMap<(u64, u64), Known>,
    new: Mutex<Vec<u8>>,
    /// Change times before this are old enough.
    before: i128,
}

/// What the file will be committed as, besides its content. Attributes that the import does not change are covered by
/// the change time.
pub(super) fn identity(meta: &FileMeta, modified: bool) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update([u8::from(modified)]);
    hasher.update(meta.filez_header());
    let mut identity = [0; 16];
    identity.copy_from_slice(&hasher.finalize()[..16]);
    identity
}

impl Cache {
    /// Opens the record of `root`; an empty one if there is none, or it is damaged.
    pub(super) fn open(repo: &Repo, root: &Path) -> Result<Cache, Error> {
        let io = |e| Error::io(format!("looking at {}", root.display()), e);
        let real = fs::canonicalize(root).map_err(io)?;
        let name = Checksum::of(real.as_os_str().as_encoded_bytes()).to_hex();
        let path = repo.path().join("extensions/slipway/stat").join(&name[..16]);
        let old = read(&path).unwrap_or_default();
        let now = i128::try_from(sys::clock::since_epoch().as_nanos()).unwrap_or(i128::MAX);
        Ok(Cache { path, old, new: Mutex::new(MAGIC.to_vec()), before: now - QUIET })
    }

    /// The object that the file became last time, if it is the same file and would become the same object.
    pub(super) fn get(&self, seen: &Seen, identity: &[u8; 16]) -> Option<Checksum> {
        let known = self.old.get(&(seen.device, seen.inode))?;
        (known.seen == *seen && known.identity == *identity).then_some(known.checksum)
    }

    /// Records what a file became.
    pub(super) fn put(&self, seen: &Seen, identity: &[u8; 16], checksum: &Checksum) {
        if i128::from(seen.ctime.0) * 1_000_000_000 + i128::from(seen.ctime.1) >= self.before {
            return;
        }
        let mut new = lock(&self.new);
        for number in [seen.device, seen.inode, seen.size] {
            new.extend_from_slice(&number.to_le_bytes());
        }
        for time in [seen.mtime, seen.ctime] {
            new.extend_from_slice(&time.0.to_le_bytes());
            new.extend_from_slice(&(time.1 as u32).to_le_bytes());
        }
        new.extend_from_slice(identity);
        new.extend_from_slice(&checksum.0);
    }

    /// Replaces the record by what was seen this time. Not synced: a torn one is noticed and dropped.
    pub(super) fn save(self) -> Result<(), Error> {
        let io = |e| Error::io(format!("writing {}", self.path.display()), e);
        let mut bytes = self.new.into_inner().unwrap_or_default();
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        let Some(dir) = self.path.parent() else { return Ok(()) };
        fs::create_dir_all(dir).map_err(io)?;
        let temporary = self.path.with_extension(format!("{}.new", std::process::id()));
        let write = || {
            fs::File::create(&temporary)?.write_all(&bytes)?;
            fs::rename(&temporary, &self.path)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&temporary);
            io(e)
        })
    }
}

fn read(path: &Path) -> io::Result<HashMap<(u64, u64), Known>> {
    if fs::metadata(path)?.len() > MAX {
        return Ok(HashMap::new());
    }
    Ok(decode(&fs::read(path)?).unwrap_or_default())
}

fn decode(bytes: &[u8]) -> Option<HashMap<(u64, u64), Known>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Sha256::digest(body)[..] != *sum {
        return None;
    }
    let records = body.strip_prefix(MAGIC)?;
    let mut known = HashMap::with_capacity(records.len() / RECORD);
    for record in records.chunks_exact(RECORD) {
        let long = |at: usize| record[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let time = |at: usize| {
            let nanoseconds = record[at + 8..at + 12].try_into().map(u32::from_le_bytes).ok()?;
            Some((long(at)? as i64, i64::from(nanoseconds)))
        };
        let seen = Seen { device: long(0)?, inode: long(8)?, size: long(16)?, mtime: time(24)?, ctime: time(36)? };
        let identity = record[48..64].try_into().ok()?;
        let checksum = Checksum::from_bytes(&record[64..])?;
        known.insert((seen.device, seen.inode), Known { seen, identity, checksum });
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    fn file(dir: &Path, name: &str, age: u64) -> Seen {
        let path = dir.join(name);
        fs::write(&path, name).unwrap();
        let mut seen = Seen::of(&fs::metadata(&path).unwrap());
        seen.ctime.0 -= age as i64;
        seen
    }

    #[test]
    fn only_what_was_left_alone_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let (old, young) = (file(dir.path(), "old", 100), file(dir.path(), "young", 0));
        let cache = Cache::open(&repo, dir.path()).unwrap();
        let identity = identity(&FileMeta::regular(0o644, 3), false);
        for seen in [&old, &young] {
            assert_eq!(cache.get(seen, &identity), None);
            cache.put(seen, &identity, &Checksum::of(b"x"));
        }
        let path = cache.path.clone();
        cache.save().unwrap();
        let cache = Cache::open(&repo, dir.path()).unwrap();
        assert_eq!(cache.get(&old, &identity), Some(Checksum::of(b"x")));
        assert_eq!(cache.get(&young, &identity), None);
        // A different owner, or any difference in what the kernel says, is another file.
        let other = super::identity(&FileMeta { uid: 1, ..FileMeta::regular(0o644, 3) }, false);
        assert_eq!(cache.get(&old, &other), None);
        for change in [
            Seen { size: old.size + 1, ..old },
            Seen { ctime: (old.ctime.0, old.ctime.1 ^ 1), ..old },
            Seen { mtime: (old.mtime.0 + 1, old.mtime.1), ..old },
            Seen { device: old.device + 1, ..old },
        ] {
            assert_eq!(cache.get(&change, &identity), None);
        }
        // Damaged, it is as if it were not there.
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(Cache::open(&repo, dir.path()).unwrap().old.is_empty());
    }
}
