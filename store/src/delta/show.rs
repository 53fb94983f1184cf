//! What a part holds, for people.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::apply::payload_limit;
use super::ops::{Counts, Operations};
use super::part::{Payload, unpack};
use super::{DeltaError, Superblock};
use crate::{Checksum, ObjectType};

/// What was counted in a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartFacts {
    /// Owners and modes.
    pub modes: u64,
    /// Sets of xattrs.
    pub xattrs: u64,
    /// Bytes of data.
    pub data: u64,
    /// Bytes of operations.
    pub operations: u64,
    /// Operations by kind: whole object, open, write, set source, unset source, close, patch.
    pub counts: Counts,
}

/// Reads the file of a part whose objects are known and checks every operation; nothing is applied. `limit` bounds what
/// it may unpack to; what is much lies in `tmp` meanwhile.
pub fn check_part(
    file: &mut dyn Read,
    objects: &[(ObjectType, Checksum)],
    limit: u64,
    tmp: &Path,
) -> io::Result<PartFacts> {
    let payload = Payload::open(unpack(file, limit, tmp)?)?;
    let mut operations = Operations::new(&payload, objects);
    while operations.next()?.is_some() {}
    Ok(PartFacts {
        modes: payload.modes.len() as u64,
        xattrs: payload.xattrs.len() as u64,
        data: payload.data_len(),
        operations: payload.operations.len() as u64,
        counts: operations.counts(),
    })
}

/// Reads a part of a delta in `dir`, or in its superblock, and checks it.
pub fn part_facts(superblock: &Superblock, dir: &Path, index: usize, tmp: &Path) -> Result<PartFacts, DeltaError> {
    let error = |source| DeltaError::Part { name: Box::new(superblock.name), index, source };
    let Some(part) = superblock.parts.get(index) else {
        return Err(error(io::Error::new(io::ErrorKind::NotFound, "there is no such part")));
    };
    let read = || {
        let mut file: Box<dyn Read> = match superblock.inline_part(index) {
            Some(bytes) => Box::new(bytes),
            None => Box::new(File::open(dir.join(index.to_string()))?),
        };
        check_part(&mut file, &part.objects, payload_limit(part.unpacked), tmp)
    };
    read().map_err(error)
}
