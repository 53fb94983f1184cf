//! Forms that wait for their part lie in a file; memory is shared out among those who make them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Condvar, Mutex};

use super::diff::Piece;
use super::encode::Form;
use crate::delta::blob::unnamed;
use crate::import::lock;
use crate::object::FileMeta;
use crate::{Checksum, Error};

/// Which form it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    Copies,
    Patch,
}

/// A form that was put away.
pub(super) struct Spooled {
    pub form: Kind,
    source: Option<Checksum>,
    pieces: Vec<Piece>,
    offset: u64,
    len: usize,
    pub estimate: u64,
}

impl Spooled {
    /// Whether nothing smaller than the file itself was found.
    pub fn whole(&self) -> bool {
        self.form == Kind::Whole
    }

    /// Bytes of data in the part.
    pub fn data(&self, meta: &FileMeta) -> u64 {
        if self.whole() { meta.size } else { self.len as u64 }
    }
}

pub(super) struct Spool {
    file: Mutex<(File, u64)>,
    read: File,
}

fn io(e: std::io::Error) -> Error {
    Error::io("writing what becomes a delta to a temporary file", e)
}

impl Spool {
    pub fn new(tmp: &Path) -> Result<Self, Error> {
        let file = unnamed(tmp).map_err(io)?;
        let read = file.try_clone().map_err(io)?;
        Ok(Spool { file: Mutex::new((file, 0)), read })
    }

    pub fn store(&self, form: Form, estimate: u64) -> Result<Spooled, Error> {
        let (form, source, pieces, bytes) = match form {
            Form::Whole => (Kind::Whole, None, Vec::new(), Vec::new()),
            Form::Copies { source, pieces, bytes } => (Kind::Copies, source, pieces, bytes),
            Form::Patch { source, patch } => (Kind::Patch, Some(source), Vec::new(), patch),
        };
        let mut file = lock(&self.file);
        let offset = file.1;
        file.0.write_all(&bytes).map_err(io)?;
        file.1 += bytes.len() as u64;
        Ok(Spooled { form, source, pieces, offset, len: bytes.len(), estimate })
    }

    pub fn load(&self, spooled: &Spooled) -> Result<Form, Error> {
        let mut bytes = vec![0; spooled.len];
        self.read.read_exact_at(&mut bytes, spooled.offset).map_err(io)?;
        Ok(match (spooled.form, spooled.source) {
            (Kind::Copies, source) => Form::Copies { source, pieces: spooled.pieces.clone(), bytes },
            (Kind::Patch, Some(source)) => Form::Patch { source, patch: bytes },
            (Kind::Whole | Kind::Patch, _) => Form::Whole,
        })
    }
}

/// Memory that several threads share. One that wants more than there is waits until it is alone.
pub(super) struct Budget {
    left: Mutex<(u64, u64)>,
    changed: Condvar,
}

pub(super) struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Budget { left: Mutex::new((bytes, bytes)), changed: Condvar::new() }
    }

    pub fn take(&self, bytes: u64) -> Share<'_> {
        let mut left = lock(&self.left);
        let bytes = bytes.min(left.1);
        while left.0 < bytes {
            left = self.changed.wait(left).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        left.0 -= bytes;
        Share { budget: self, bytes }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        lock(&self.budget.left).0 += self.bytes;
        self.budget.changed.notify_all();
    }
}
