//! Bytes that are read at any place: in memory where they are few, in an unlinked file where they are many.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode as Bits, OFlags};
use sha2::{Digest as _, Sha256};

use crate::Checksum;

/// What is kept in memory of one thing.
pub(super) const IN_MEMORY: u64 = 16 << 20;

/// Bytes that do not change.
pub(super) enum Blob {
    Memory(Vec<u8>),
    File(File, u64),
}

pub(super) fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Blob {
    pub fn len(&self) -> u64 {
        match self {
            Blob::Memory(bytes) => bytes.len() as u64,
            Blob::File(_, len) => *len,
        }
    }

    /// Whether `offset..offset + len` lies inside.
    pub fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len())
    }

    /// Fills `buffer` from `offset`.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if !self.holds(offset, buffer.len() as u64) {
            return Err(invalid(format!("{} bytes at {offset} are not in {} bytes", buffer.len(), self.len())));
        }
        match self {
            Blob::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_| invalid("offset"))?;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            Blob::File(file, _) => file.read_exact_at(buffer, offset),
        }
    }

    /// A piece of it, in memory. The caller bounds `len`.
    pub fn piece(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        if !self.holds(offset, len) {
            return Err(invalid(format!("{len} bytes at {offset} are not in {} bytes", self.len())));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| invalid("too large"))?];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Reads all of `reader`, at most `limit` bytes. What is more than a little goes to a file in `tmp` without a name.
    pub fn read(reader: &mut dyn Read, limit: u64, tmp: &Path) -> io::Result<Blob> {
        let mut memory = Vec::new();
        reader.take(IN_MEMORY.min(limit) + 1).read_to_end(&mut memory)?;
        if memory.len() as u64 > limit {
            return Err(too_large(limit));
        }
        if memory.len() as u64 <= IN_MEMORY {
            return Ok(Blob::Memory(memory));
        }
        let mut file = unnamed(tmp)?;
        file.write_all(&memory)?;
        let head = memory.len() as u64;
        drop(memory);
        let rest = io::copy(&mut reader.take(limit - head + 1), &mut file)?;
        if head + rest > limit {
            return Err(too_large(limit));
        }
        Ok(Blob::File(file, head + rest))
    }
}

fn too_large(limit: u64) -> io::Error {
    invalid(format!("it holds more than {limit} bytes"))
}

/// A file in `dir` that has no name and goes when it is closed.
pub(super) fn unnamed(dir: &Path) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
    if let Ok(fd) = rustix::fs::open(dir, flags, Bits::from_raw_mode(0o600)) {
        return Ok(File::from(fd));
    }
    // Not every file system can make one that never had a name.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let path = dir.join(format!("slipway-delta-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Hashes what passes.
pub(super) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> Self {
        Hashing { inner, hasher: Sha256::new() }
    }

    pub fn finish(self) -> Checksum {
        Checksum(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
