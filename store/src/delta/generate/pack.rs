//! Objects and their forms become the file of a part.

use std::collections::HashMap;

use super::Options;
use super::diff::Piece;
use super::encode::{Form, content};
use crate::delta::ops::put;
use crate::delta::part::{Owner, Tables, pack};
use crate::delta::superblock::Part;
use crate::object::{FileMeta, Xattrs};
use crate::{Checksum, Error, ObjectType, Repo};

/// An object of a part.
pub(super) struct Item<'a> {
    pub kind: ObjectType,
    pub checksum: Checksum,
    /// Of a file.
    pub meta: Option<&'a FileMeta>,
    pub form: Form,
}

/// A part under construction.
#[derive(Default)]
pub(super) struct PartBuilder {
    tables: Tables,
    modes: HashMap<Owner, u64>,
    xattrs: HashMap<Xattrs, u64>,
    /// Where the checksums of sources lie.
    sources: HashMap<Checksum, u64>,
    data: Vec<u8>,
    objects: Vec<(ObjectType, Checksum)>,
    unpacked: u64,
}

impl PartBuilder {
    fn data(&mut self, bytes: &[u8]) -> u64 {
        let offset = self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        offset
    }

    fn owner(&mut self, meta: &FileMeta) -> [u64; 2] {
        let owner = (meta.uid, meta.gid, meta.mode);
        let tables = &mut self.tables;
        let mode = *self.modes.entry(owner).or_insert_with(|| {
            tables.modes.push(owner);
            tables.modes.len() as u64 - 1
        });
        let xattrs = *self.xattrs.entry(meta.xattrs.clone()).or_insert_with(|| {
            tables.xattrs.push(meta.xattrs.clone());
            tables.xattrs.len() as u64 - 1
        });
        [mode, xattrs]
    }

    fn source(&mut self, source: &Checksum) -> u64 {
        if let Some(offset) = self.sources.get(source) {
            return *offset;
        }
        let offset = self.data(&source.0);
        self.sources.insert(*source, offset);
        offset
    }

    fn put(&mut self, operation: u8, operands: &[u64]) {
        put(&mut self.tables.operations, operation, operands);
    }

    /// Appends an object.
    pub fn add(&mut self, repo: &Repo, item: Item<'_>) -> Result<(), Error> {
        self.objects.push((item.kind, item.checksum));
        let Some(meta) = item.meta else {
            let bytes = repo.load_metadata(item.kind, &item.checksum)?;
            let (len, offset) = (bytes.len() as u64, self.data(&bytes));
            self.unpacked += len;
            self.put(b'S', &[len, offset]);
            return Ok(());
        };
        let [mode, xattrs] = self.owner(meta);
        self.unpacked += meta.size;
        match item.form {
            Form::Whole => {
                let bytes = match &meta.symlink {
                    Some(target) => target.clone().into_bytes(),
                    None => content(repo, &item.checksum)?,
                };
                let (len, offset) = (bytes.len() as u64, self.data(&bytes));
                self.put(b'S', &[mode, xattrs, len, offset]);
            }
            Form::Patch { source, patch } => {
                let source = self.source(&source);
                let (len, offset) = (patch.len() as u64, self.data(&patch));
                self.put(b'r', &[source]);
                self.put(b'o', &[mode, xattrs, meta.size]);
                self.put(b'B', &[offset, len]);
                self.put(b'c', &[]);
                self.put(b'R', &[]);
            }
            Form::Copies { source, pieces, bytes } => {
                let source = source.map(|source| self.source(&source));
                let mut offset = self.data(&bytes);
                self.put(b'o', &[mode, xattrs, meta.size]);
                let mut reading = None;
                for piece in pieces {
                    let (wanted, at, len) = match piece {
                        Piece::Copy { old, len } => (source, old as u64, len),
                        Piece::Whole { object, len } => (Some(self.source(&object)), 0, len),
                        Piece::Bytes { len, .. } => {
                            offset += len as u64;
                            (None, offset - len as u64, len)
                        }
                    };
                    if wanted != reading {
                        match wanted {
                            Some(wanted) => self.put(b'r', &[wanted]),
                            None => self.put(b'R', &[]),
                        }
                        reading = wanted;
                    }
                    self.put(b'w', &[len as u64, at]);
                }
                self.put(b'c', &[]);
            }
        }
        Ok(())
    }

    /// Writes the file to `out`; `hard` says that it will hardly shrink. What the superblock says about it.
    pub fn finish(self, options: &Options<'_>, hard: bool, out: impl std::io::Write) -> std::io::Result<Part> {
        let payload = self.tables.encode(&self.data);
        drop(self.data);
        let mut out = Counting { out, hasher: sha2::Digest::new(), size: 0 };
        // What does not shrink by itself may still repeat what is far away; that is found quickly or not at all.
        let preset = if hard { options.preset.min(1) } else { options.preset };
        pack(&payload, preset, options.window, &mut out)?;
        let (checksum, size) = (Checksum(sha2::Digest::finalize(out.hasher).into()), out.size);
        Ok(Part { checksum, size, unpacked: self.unpacked, objects: self.objects })
    }
}

struct Counting<W> {
    out: W,
    hasher: sha2::Sha256,
    size: u64,
}

impl<W: std::io::Write> std::io::Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        sha2::Digest::update(&mut self.hasher, &bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
