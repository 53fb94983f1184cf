//! fs-verity digests of file objects, remembered by object, so that an image of a tree needs no file content.
//!
//! ```text
//! extensions/slipway/verity     64 bytes a record: checksum of the object, digest of its content
//! ```
//! A cache: losing it costs time. A wrong digest cannot open anything, since the kernel compares it with the file's own.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;

use crate::repo::FileObject;
use crate::{Checksum, Error, Mode, ObjectType, Repo, verity};

const RECORD: usize = 64;

/// The digests that are known, and those found since.
#[derive(Debug)]
pub struct Digests {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Checksum, [u8; 32]>,
    unsaved: Vec<u8>,
}

impl Repo {
    /// The remembered fs-verity digests of this repository's file objects.
    pub fn digests(&self) -> Result<Digests, Error> {
        let path = self.path().join("extensions/slipway/verity");
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(|e| Error::io(format!("reading {}", path.display()), e))?,
        };
        let mut known = HashMap::with_capacity(bytes.len() / RECORD);
        for record in bytes.chunks_exact(RECORD) {
            if let (Some(name), Ok(digest)) = (Checksum::from_bytes(&record[..32]), record[32..].try_into()) {
                // A power cut may leave zeros at the end; they are no record.
                if name.0 != [0; 32] {
                    known.insert(name, digest);
                }
            }
        }
        Ok(Digests { path, state: Mutex::new(State { known, unsaved: Vec::new() }) })
    }
}

impl Digests {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest of a file object's content, if it is known.
    pub fn get(&self, file: &Checksum) -> Option<[u8; 32]> {
        self.lock().known.get(file).copied()
    }

    /// Remembers a digest.
    pub fn insert(&self, file: &Checksum, digest: [u8; 32]) {
        let mut state = self.lock();
        if state.known.insert(*file, digest) != Some(digest) {
            state.unsaved.extend_from_slice(&file.0);
            state.unsaved.extend_from_slice(&digest);
        }
    }

    /// The digest of a file object's content, computed where it is not known.
    pub fn of(&self, repo: &Repo, file: &Checksum) -> Result<[u8; 32], Error> {
        match self.get(file) {
            Some(digest) => Ok(digest),
            None => self.of_object(repo, file, repo.open_file(file)?),
        }
    }

    /// The same, of a file object that is open.
    pub(crate) fn of_object(&self, repo: &Repo, file: &Checksum, object: FileObject) -> Result<[u8; 32], Error> {
        if let Some(digest) = self.get(file) {
            return Ok(digest);
        }
        // On a machine the kernel knows: no content is read. In an archive the file is compressed.
        if repo.mode() == Mode::BareUser {
            if let Ok(digest) = verity::measure(&repo.open_raw(ObjectType::File, file)?) {
                self.insert(file, digest);
                return Ok(digest);
            }
        }
        let digest = verity::digest_of(object.content).map_err(|e| Error::io(format!("reading file {file}"), e))?;
        self.insert(file, digest);
        Ok(digest)
    }

    /// Writes what was found since the last time.
    pub fn save(&self) -> Result<(), Error> {
        let unsaved = std::mem::take(&mut self.lock().unsaved);
        if unsaved.is_empty() {
            return Ok(());
        }
        self.append(&unsaved).map_err(|e| Error::io(format!("writing {}", self.path.display()), e))
    }

    fn append(&self, records: &[u8]) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file: File = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        // A torn record at the end, from a power cut, would shift all that follow.
        let end = file.metadata()?.len() / RECORD as u64 * RECORD as u64;
        file.seek(SeekFrom::Start(end))?;
        file.write_all(records)
    }
}

/// Passes a stream on and computes its fs-verity digest on the way.
pub(crate) struct Digesting<R> {
    inner: R,
    pub(crate) hasher: verity::Hasher,
}

impl<R> Digesting<R> {
    pub(crate) fn new(inner: R) -> Self {
        Digesting { inner, hasher: verity::Hasher::new() }
    }
}

impl<R: io::Read> io::Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;
    use std::io::Read as _;

    #[test]
    fn digests_are_remembered_and_a_torn_record_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let digests = repo.digests().unwrap();
        let (one, two) = (Checksum::of(b"1"), Checksum::of(b"2"));
        digests.insert(&one, [1; 32]);
        digests.save().unwrap();
        let mut file = OpenOptions::new().append(true).open(&digests.path).unwrap();
        file.write_all(&[7; 10]).unwrap();
        digests.insert(&two, [2; 32]);
        digests.save().unwrap();
        let again = repo.digests().unwrap();
        assert_eq!((again.get(&one), again.get(&two)), (Some([1; 32]), Some([2; 32])));
        let mut bytes = Vec::new();
        File::open(&again.path).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 128);
    }
}
