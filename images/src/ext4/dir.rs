//! Directory blocks: records packed in the order given, a checksum at the end of each block.

use super::geometry::BLOCK;
use crate::crc::crc32c_raw;

/// Bytes of a block that hold records; a fake record with the checksum follows.
const ROOM: usize = BLOCK as usize - 12;

/// One name.
pub(super) struct Record<'a> {
    pub inode: u32,
    /// 1 file, 2 directory, 7 symbolic link.
    pub kind: u8,
    pub name: &'a [u8],
}

fn len(name: &[u8]) -> usize {
    (8 + name.len()).next_multiple_of(4)
}

/// How many blocks these names need.
pub(super) fn blocks<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut blocks, mut filled) = (1, 0);
    for name in names {
        if filled + len(name) > ROOM {
            blocks += 1;
            filled = 0;
        }
        filled += len(name);
    }
    blocks
}

/// The blocks of a directory, at least `minimum` of them.
pub(super) fn encode(records: &[Record<'_>], minimum: u64, own_seed: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block = Vec::with_capacity(BLOCK as usize);
    let mut last = 0;
    for record in records {
        if block.len() + len(record.name) > ROOM {
            finish(&mut out, &mut block, last, own_seed);
        }
        last = block.len();
        block.extend_from_slice(&record.inode.to_le_bytes());
        block.extend_from_slice(&(len(record.name) as u16).to_le_bytes());
        block.push(record.name.len() as u8);
        block.push(record.kind);
        block.extend_from_slice(record.name);
        block.resize(last + len(record.name), 0);
    }
    finish(&mut out, &mut block, last, own_seed);
    while (out.len() as u64) < minimum * BLOCK {
        finish(&mut out, &mut block, 0, own_seed);
    }
    out
}

/// The last record of a block reaches to the checksum; a block without records is one unused record.
fn finish(out: &mut Vec<u8>, block: &mut Vec<u8>, last: usize, own_seed: u32) {
    let start = if block.is_empty() { 0 } else { last };
    block.resize(ROOM, 0);
    block[start + 4..start + 6].copy_from_slice(&((ROOM - start) as u16).to_le_bytes());
    let sum = crc32c_raw(own_seed, block);
    block.extend_from_slice(&[0, 0, 0, 0, 12, 0, 0, 0xDE]);
    block.extend_from_slice(&sum.to_le_bytes());
    out.append(block);
}
