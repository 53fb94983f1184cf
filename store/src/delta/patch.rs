//! Making a file of its recipe: pieces of the part, pieces of other files, or a bsdiff patch, as one stream.
//!
//! ```text
//! patch   { control: 3 x i64, sign and magnitude, little-endian: n, m, seek
//!           n bytes that are added to those of the old file; m bytes that are new; then seek in the old file }*
//! ```

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

use super::blob::{Blob, invalid};
use super::ops::Step;
use super::part::Payload;
use crate::object::ObjectType;
use crate::{Checksum, Error, Mode, Repo};

/// Bytes that are handled at once.
const CHUNK: usize = 128 << 10;

/// Opens the content of a regular file object for reading at any place. An archive's is unpacked into `tmp`.
pub(super) fn open_source(repo: &Repo, checksum: &Checksum, tmp: &Path) -> Result<Blob, Error> {
    let mut object = repo.open_file(checksum)?;
    let io = |e| Error::io(format!("reading file {checksum}, which a delta is based on"), e);
    if object.meta.symlink.is_some() {
        return Err(Error::invalid(format!("a delta is based on {checksum}, which is a symbolic link")));
    }
    if repo.mode() == Mode::Archive {
        return Blob::read(&mut object.content, object.meta.size, tmp).map_err(io);
    }
    Ok(Blob::File(repo.open_raw(ObjectType::File, checksum)?, object.meta.size))
}

/// The content of a file as its recipe makes it.
pub(super) struct Assembled<'a> {
    repo: &'a Repo,
    payload: &'a Payload,
    tmp: &'a Path,
    size: u64,
    steps: std::slice::Iter<'a, Step>,
    sources: HashMap<Checksum, Blob>,
    now: Now,
}

enum Now {
    Nothing,
    Piece { source: Option<Checksum>, offset: u64, left: u64 },
    Patch(Checksum, Patching),
}

impl<'a> Assembled<'a> {
    pub fn new(repo: &'a Repo, payload: &'a Payload, tmp: &'a Path, size: u64, steps: &'a [Step]) -> Self {
        Assembled { repo, payload, tmp, size, steps: steps.iter(), sources: HashMap::new(), now: Now::Nothing }
    }

    fn source(&mut self, checksum: &Checksum) -> io::Result<()> {
        if !self.sources.contains_key(checksum) {
            // Most files are made of one; a few open ones are enough.
            if self.sources.len() >= 16 {
                self.sources.clear();
            }
            let blob = open_source(self.repo, checksum, self.tmp).map_err(io::Error::other)?;
            self.sources.insert(*checksum, blob);
        }
        Ok(())
    }

    /// Prepares the next piece; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(step) = self.steps.next() else { return Ok(false) };
        self.now = match *step {
            Step::Data { offset, len } => Now::Piece { source: None, offset, left: len },
            Step::Copy { source, offset, len } => {
                self.source(&source)?;
                if !self.sources.get(&source).is_some_and(|blob| blob.holds(offset, len)) {
                    return Err(invalid(format!("{len} bytes at {offset} are not in file {source}")));
                }
                Now::Piece { source: Some(source), offset, left: len }
            }
            Step::Patch { source, offset, len } => {
                self.source(&source)?;
                Now::Patch(source, Patching::new(offset, len, self.size))
            }
        };
        Ok(true)
    }
}

impl Read for Assembled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.now {
                Now::Nothing => 0,
                Now::Piece { source, offset, left } => {
                    let count = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let buffer = &mut buffer[..count];
                    match source {
                        None => self.payload.read_data(buffer, *offset)?,
                        Some(source) => match self.sources.get(source) {
                            Some(blob) => blob.read_exact_at(buffer, *offset)?,
                            None => return Err(invalid("a source went away")),
                        },
                    }
                    *offset += count as u64;
                    *left -= count as u64;
                    count
                }
                Now::Patch(source, patching) => match self.sources.get(source) {
                    Some(old) => patching.read(buffer, self.payload, old)?,
                    None => return Err(invalid("a source went away")),
                },
            };
            if count > 0 || !self.advance()? {
                return Ok(count);
            }
        }
    }
}

/// A patch that is being applied.
struct Patching {
    /// Where the patch goes on, and where it ends.
    at: u64,
    end: u64,
    /// Bytes of the file that are still to be made.
    left: u64,
    /// Place in the old file; it may be outside, then nothing is added.
    old: i64,
    add: u64,
    extra: u64,
    seek: i64,
}

impl Patching {
    fn new(offset: u64, len: u64, size: u64) -> Self {
        Patching { at: offset, end: offset + len, left: size, old: 0, add: 0, extra: 0, seek: 0 }
    }

    fn take(&mut self, buffer: &mut [u8], payload: &Payload) -> io::Result<()> {
        if buffer.len() as u64 > self.end - self.at {
            return Err(invalid("a patch ends early"));
        }
        payload.read_data(buffer, self.at)?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    /// Reads a control: what comes next.
    fn control(&mut self, payload: &Payload) -> io::Result<()> {
        let mut bytes = [0; 24];
        self.take(&mut bytes, payload)?;
        let number = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
            let word = u64::from_le_bytes(word);
            let magnitude = (word & !(1 << 63)) as i64;
            if word >> 63 == 1 { -magnitude } else { magnitude }
        };
        let fits = |number: i64, left: u64| u64::try_from(number).ok().filter(|number| *number <= left);
        self.add = fits(number(0), self.left).ok_or_else(|| invalid("a patch makes more than the file"))?;
        self.extra =
            fits(number(1), self.left - self.add).ok_or_else(|| invalid("a patch makes more than the file"))?;
        self.seek = number(2);
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], payload: &Payload, old: &Blob) -> io::Result<usize> {
        while self.left > 0 && self.add == 0 && self.extra == 0 {
            self.control(payload)?;
            if self.add == 0 && self.extra == 0 {
                self.finish_control()?;
            }
        }
        if self.left == 0 {
            return Ok(0);
        }
        let count = if self.add > 0 { self.add } else { self.extra };
        let count = buffer.len().min(CHUNK).min(usize::try_from(count).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..count];
        self.take(buffer, payload)?;
        if self.add > 0 {
            add_old(buffer, old, self.old)?;
            self.old = self.old.checked_add(count as i64).ok_or_else(seek_error)?;
            self.add -= count as u64;
        } else {
            self.extra -= count as u64;
        }
        self.left -= count as u64;
        if self.add == 0 && self.extra == 0 {
            self.finish_control()?;
        }
        Ok(count)
    }

    fn finish_control(&mut self) -> io::Result<()> {
        self.old = self.old.checked_add(self.seek).ok_or_else(seek_error)?;
        self.seek = 0;
        Ok(())
    }
}

fn seek_error() -> io::Error {
    invalid("a patch seeks too far")
}

/// Adds the bytes of the old file at `at` to `buffer`; what is outside of the file adds nothing.
fn add_old(buffer: &mut [u8], old: &Blob, at: i64) -> io::Result<()> {
    let len = i64::try_from(old.len()).map_err(|_| seek_error())?;
    let start = at.clamp(0, len);
    let end = at.saturating_add(buffer.len() as i64).clamp(0, len);
    if start >= end {
        return Ok(());
    }
    let skip = (start - at) as usize;
    let mut bytes = vec![0; (end - start) as usize];
    old.read_exact_at(&mut bytes, start as u64)?;
    for (out, byte) in buffer[skip..].iter_mut().zip(bytes) {
        *out = out.wrapping_add(byte);
    }
    Ok(())
}
