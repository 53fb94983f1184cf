//! Content and metadata reach the disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use store::verity::Hasher;

use super::geometry::BLOCK;
use super::{Error, FileSlot, Plan};

/// Where content comes from. Asked from several threads at once.
pub trait Content: Sync {
    /// Opens content number `index`.
    fn open(&self, index: usize) -> io::Result<Box<dyn Read + Send + '_>>;
    /// A name for messages.
    fn name(&self, index: usize) -> String;
    /// Told of the fs-verity digest of content that is sealed; an error ends the work.
    fn sealed(&self, index: usize, digest: &[u8; 32]) -> io::Result<()> {
        let _ = (index, digest);
        Ok(())
    }
    /// Told of progress, in bytes of content.
    fn progress(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// A part of a file that holds the file system; it must read as zeros (a fresh sparse file does).
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The file.
    pub file: &'a File,
    /// Where the file system begins.
    pub offset: u64,
}

impl Target<'_> {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.offset + at)
    }
}

const CHUNK: usize = 1 << 20;

impl Plan {
    /// Writes everything. Each content is read once; its Merkle tree is computed on the way.
    pub fn write(&self, target: Target<'_>, content: &dyn Content) -> Result<(), Error> {
        for (block, bytes) in &self.metadata {
            if bytes.iter().any(|b| *b != 0) {
                target.write(block * BLOCK, bytes)?;
            }
        }
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut buffer = vec![0; CHUNK];
                    while let Some(slot) = self.files().get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = write_file(target, slot, content, &mut buffer) {
                            // Everyone stops at the next file.
                            next.store(self.files().len(), Ordering::Relaxed);
                            if let Ok(mut failure) = failure.lock() {
                                failure.get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
    }
}

fn write_file(target: Target<'_>, slot: &FileSlot, content: &dyn Content, buffer: &mut [u8]) -> Result<(), Error> {
    let read_error = |source| Error::Read { what: content.name(slot.content), source };
    let changed = |found| Error::Changed { what: content.name(slot.content), planned: slot.size, found };
    let mut hasher = slot.verity.then(Hasher::with_tree);
    let mut done = 0;
    if slot.size > 0 {
        let mut reader = content.open(slot.content).map_err(read_error)?;
        for (start, len) in &slot.data {
            let len = (*len).min(slot.size - done);
            let mut at = 0;
            while at < len {
                let want = (len - at).min(buffer.len() as u64) as usize;
                let piece = &mut buffer[..want];
                let got = fill(&mut *reader, piece).map_err(read_error)?;
                if got < want {
                    return Err(changed(done + got as u64));
                }
                if let Some(hasher) = &mut hasher {
                    hasher.update(piece);
                }
                // Zeros stay holes.
                if piece.iter().any(|b| *b != 0) {
                    target.write(start + at, piece)?;
                }
                at += want as u64;
                done += want as u64;
            }
        }
        if fill(&mut *reader, &mut buffer[..1]).map_err(read_error)? > 0 {
            return Err(changed(done + 1));
        }
    }
    if let Some(hasher) = hasher {
        let merkle = hasher.finish_tree();
        content.sealed(slot.content, &merkle.digest).map_err(read_error)?;
        let past = merkle.past_end();
        let mut rest = past.bytes.as_slice();
        for (start, len) in &slot.merkle {
            let (piece, after) = rest.split_at((*len as usize).min(rest.len()));
            target.write(*start, piece)?;
            rest = after;
        }
    }
    content.progress(slot.size);
    Ok(())
}

/// Reads until the buffer is full or the stream ends.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match reader.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}
