//! Operations: a program that makes the objects of a part, one after the other.
//!
//! ```text
//! S  metadata: len off         an object whose bytes are data
//!    file: mode xattrs len off the same; a symbolic link's data are its target
//! o  mode xattrs len           begins a regular file
//! r  off                       reads from now on from the file object whose checksum lies at off
//! R                            reads again from the data
//! w  len off                   appends from what is read
//! B  off len                   appends the whole file: a bsdiff patch, applied to what is read
//! c                            ends the file
//! ```
//! Operands are numbers of 7 bits a byte, the lowest first. Nothing is done here: operations become recipes, whose
//! every reference into the part was checked.

use std::io;

use super::blob::invalid;
use super::part::Payload;
use crate::object::{FileMeta, S_IFLNK, S_IFMT, S_IFREG};
use crate::{Checksum, ObjectType};

/// Pieces of one file: a part that wants more wants our memory.
const MAX_STEPS: usize = 1 << 20;
/// Longest target of a symbolic link, as the kernel has it.
const MAX_TARGET: u64 = 4096;

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// From the data.
    Data { offset: u64, len: u64 },
    /// From another file.
    Copy { source: Checksum, offset: u64, len: u64 },
    /// All of it: a patch in the data over another file.
    Patch { source: Checksum, offset: u64, len: u64 },
}

/// How an object is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    /// Its bytes are data.
    Metadata { offset: u64, len: u64 },
    /// A file of these pieces.
    File { meta: FileMeta, steps: Vec<Step> },
}

/// How often each operation occurs, in the order in which the stock tools count them: S o w r R c B.
pub type Counts = [u64; 7];

/// Goes through the operations of a part.
pub(super) struct Operations<'a> {
    payload: &'a Payload,
    objects: &'a [(ObjectType, Checksum)],
    at: usize,
    object: usize,
    counts: Counts,
}

impl<'a> Operations<'a> {
    pub fn new(payload: &'a Payload, objects: &'a [(ObjectType, Checksum)]) -> Self {
        Operations { payload, objects, at: 0, object: 0, counts: Counts::default() }
    }

    /// The operations gone through so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let Some(byte) = self.payload.operations.get(self.at) else { return Err(invalid("a number ends early")) };
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(invalid("a number is too large"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(invalid("a number is too long"))
    }

    fn span(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.payload.holds(offset, len) {
            return Ok(());
        }
        Err(invalid(format!("{len} bytes at {offset} are outside its {} bytes of data", self.payload.data_len())))
    }

    /// Owner, mode and xattrs by their numbers; the target and size are the caller's.
    fn meta(&mut self) -> io::Result<FileMeta> {
        let (mode, xattrs) = (self.number()?, self.number()?);
        let find = |index: u64| usize::try_from(index).ok();
        let modes = find(mode).and_then(|index| self.payload.modes.get(index));
        let &(uid, gid, mode) = modes.ok_or_else(|| invalid(format!("there is no mode {mode}")))?;
        let sets = find(xattrs).and_then(|index| self.payload.xattrs.get(index));
        let xattrs = sets.ok_or_else(|| invalid(format!("there is no set of xattrs {xattrs}")))?.clone();
        Ok(FileMeta { uid, gid, mode, symlink: None, xattrs, size: 0 })
    }

    fn target(&self, offset: u64, len: u64) -> io::Result<String> {
        if len == 0 || len > MAX_TARGET {
            return Err(invalid(format!("a symbolic link's target of {len} bytes")));
        }
        let mut target = vec![0; len as usize];
        self.payload.read_data(&mut target, offset)?;
        let target = String::from_utf8(target).map_err(|_| invalid("a symbolic link's target is not UTF-8"))?;
        if target.contains('\0') {
            return Err(invalid("a symbolic link's target holds a NUL"));
        }
        Ok(target)
    }

    /// The next object and how to make it.
    pub fn next(&mut self) -> io::Result<Option<(ObjectType, Checksum, Recipe)>> {
        let mut open: Option<(FileMeta, Vec<Step>, u64)> = None;
        let mut source = None;
        while let Some(&operation) = self.payload.operations.get(self.at) {
            self.at += 1;
            let index = b"SowrRcB".iter().position(|o| *o == operation);
            let index = index.ok_or_else(|| invalid(format!("unknown operation {operation:#04x}")))?;
            self.counts[index] += 1;
            match (operation, &mut open) {
                (b'S', None) => return self.whole().map(Some),
                (b'o', slot @ None) => {
                    let mut meta = self.meta()?;
                    if self.current()?.0 != ObjectType::File || meta.mode & S_IFMT != S_IFREG {
                        return Err(invalid("operation 'o' for what is no regular file"));
                    }
                    meta.size = self.number()?;
                    *slot = Some((meta, Vec::new(), 0));
                }
                (b'r', _) => {
                    let offset = self.number()?;
                    self.span(offset, 32)?;
                    let mut bytes = [0; 32];
                    self.payload.read_data(&mut bytes, offset)?;
                    source = Some(Checksum(bytes));
                }
                (b'R', _) => source = None,
                (b'w', Some((meta, steps, made))) => {
                    let (len, offset) = (self.number()?, self.number()?);
                    *made = made.checked_add(len).filter(|made| *made <= meta.size).ok_or_else(too_much)?;
                    if steps.len() >= MAX_STEPS {
                        return Err(invalid(format!("a file of more than {MAX_STEPS} pieces")));
                    }
                    steps.push(match source {
                        Some(source) => Step::Copy { source, offset, len },
                        None => {
                            self.span(offset, len)?;
                            Step::Data { offset, len }
                        }
                    });
                }
                (b'B', Some((meta, steps, made))) => {
                    let (offset, len) = (self.number()?, self.number()?);
                    self.span(offset, len)?;
                    if *made != 0 {
                        return Err(too_much());
                    }
                    *made = meta.size;
                    let source = source.ok_or_else(|| invalid("operation 'B' without a file to patch"))?;
                    steps.push(Step::Patch { source, offset, len });
                }
                (b'c', Some((meta, _, made))) => {
                    if *made != meta.size {
                        return Err(invalid(format!("a file of {} bytes gets {made}", meta.size)));
                    }
                    let (kind, checksum) = self.current()?;
                    self.object += 1;
                    let Some((meta, steps, _)) = open.take() else { return Err(invalid("operation 'c'")) };
                    return Ok(Some((kind, checksum, Recipe::File { meta, steps })));
                }
                _ => return Err(invalid(format!("operation {:?} out of place", char::from(operation)))),
            }
        }
        if open.is_some() {
            return Err(invalid("its operations end inside a file"));
        }
        match self.objects.len() - self.object {
            0 => Ok(None),
            missing => Err(invalid(format!("its operations leave out {missing} of its objects"))),
        }
    }

    fn current(&self) -> io::Result<(ObjectType, Checksum)> {
        let object = self.objects.get(self.object).copied();
        object.ok_or_else(|| invalid("its operations make more objects than it has"))
    }

    fn whole(&mut self) -> io::Result<(ObjectType, Checksum, Recipe)> {
        let (kind, checksum) = self.current()?;
        self.object += 1;
        if kind != ObjectType::File {
            let (len, offset) = (self.number()?, self.number()?);
            self.span(offset, len)?;
            return Ok((kind, checksum, Recipe::Metadata { offset, len }));
        }
        let mut meta = self.meta()?;
        let (len, offset) = (self.number()?, self.number()?);
        self.span(offset, len)?;
        let mut steps = Vec::new();
        match meta.mode & S_IFMT {
            S_IFLNK => meta.symlink = Some(self.target(offset, len)?),
            S_IFREG => {
                meta.size = len;
                steps.push(Step::Data { offset, len });
            }
            _ => return Err(invalid(format!("{:o} is not the mode of a file", meta.mode))),
        }
        Ok((kind, checksum, Recipe::File { meta, steps }))
    }
}

fn too_much() -> io::Error {
    invalid("a file gets more bytes than it has")
}

/// Appends a number.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends an operation and its operands.
pub(super) fn put(out: &mut Vec<u8>, operation: u8, operands: &[u64]) {
    out.push(operation);
    for operand in operands {
        put_number(out, *operand);
    }
}
