//! Reading a file object to its end, and comparing its checksum.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::deflate::inflate_into;
use super::read::read_filez_header;
use super::{Mode, Repo};
use crate::object::{FileMeta, ObjectType};
use crate::{Checksum, Error};

/// Objects are read and inflated as a whole up to this size; beyond it they stream.
const WHOLE: u64 = 64 << 20;
/// What streams is read in pieces of this size.
const PIECE: usize = 256 << 10;

thread_local! {
    /// The object as stored, and its content.
    static BUFFERS: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Repo {
    /// Reads a file object to its end and compares its checksum.
    pub fn verify_file(&self, checksum: &Checksum) -> Result<FileMeta, Error> {
        let kind = ObjectType::File;
        let (meta, found) = match self.mode {
            Mode::Archive => {
                let file = self.open_raw(kind, checksum)?;
                match hash_filez(&file).map_err(|e| self.object_error(kind, checksum, e))? {
                    Some(hashed) => hashed,
                    None => self.hash_stream(checksum)?,
                }
            }
            Mode::BareUser | Mode::Bare | Mode::BareUserOnly => self.hash_stream(checksum)?,
        };
        if found != *checksum {
            return Err(Error::Mismatch { kind, expected: *checksum, found });
        }
        Ok(meta)
    }

    fn hash_stream(&self, checksum: &Checksum) -> Result<(FileMeta, Checksum), Error> {
        let mut object = self.open_file(checksum)?;
        let mut hasher = object.meta.hasher();
        hash_all(&mut object.content, &mut hasher).map_err(|e| self.object_error(ObjectType::File, checksum, e))?;
        Ok((object.meta, Checksum(hasher.finalize().into())))
    }
}

/// Feeds a hasher in pieces that are worth a system call.
pub(crate) fn hash_all(reader: &mut dyn Read, hasher: &mut Sha256) -> io::Result<u64> {
    BUFFERS.with_borrow_mut(|(buffer, _)| {
        if buffer.len() < PIECE {
            buffer.resize(PIECE, 0);
        }
        let mut total = 0;
        loop {
            match reader.read(&mut buffer[..PIECE]) {
                Ok(0) => return Ok(total),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    total += count as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    })
}

/// The checksum of a `.filez` that fits into memory; `None` for a larger one.
fn hash_filez(file: &File) -> io::Result<Option<(FileMeta, Checksum)>> {
    let stored = file.metadata()?.len();
    if stored > WHOLE {
        return Ok(None);
    }
    BUFFERS.with_borrow_mut(|(raw, content)| {
        raw.clear();
        // One more: a file that grows meanwhile is read to its end without a second allocation.
        raw.reserve(usize::try_from(stored).unwrap_or(0) + 1);
        let mut file = file;
        file.read_to_end(raw)?;
        let mut body = raw.as_slice();
        let meta = read_filez_header(&mut body)?;
        let mut hasher = meta.hasher();
        if meta.symlink.is_some() {
            if !body.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than its header says"));
            }
        } else if meta.size > WHOLE {
            return Ok(None);
        } else {
            hasher.update(inflate_into(body, meta.size, content)?);
        }
        Ok(Some((meta, Checksum(hasher.finalize().into()))))
    })
}
