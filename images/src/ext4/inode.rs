//! Inodes, extent trees and extended attributes.

use std::collections::BTreeMap;

use super::Error;
use super::geometry::{BLOCK, INODE, Run};
use crate::crc::crc32c_raw;

pub(super) const EXTENTS: u32 = 0x8_0000;
pub(super) const VERITY: u32 = 0x10_0000;
/// Longest run one extent can describe.
const EXTENT_MAX: u64 = 32768;
const EXTENTS_IN_INODE: usize = 4;
const EXTENTS_IN_BLOCK: usize = 340;
/// Where in-inode attributes begin: after the fields and 32 bytes of newer ones.
const XATTR_START: usize = 160;
const XATTR_MAGIC: u32 = 0xEA02_0000;

/// An inode as it will be written.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub size: u64,
    pub flags: u32,
    /// 4096-byte blocks in all: data, extent tree, attributes.
    pub blocks: u64,
    /// Extent tree, indirect blocks or the target of a short link.
    pub body: [u8; 60],
    pub xattrs: Vec<u8>,
    pub xattr_block: u64,
}

impl Default for Inode {
    fn default() -> Self {
        Inode {
            mode: 0,
            uid: 0,
            gid: 0,
            links: 1,
            size: 0,
            flags: 0,
            blocks: 0,
            body: [0; 60],
            xattrs: Vec::new(),
            xattr_block: 0,
        }
    }
}

impl Inode {
    pub fn encode(&self, number: u32, seed: u32, time: u64) -> [u8; INODE as usize] {
        let mut raw = [0; INODE as usize];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        let sectors = self.blocks * 8;
        let seconds = (time as u32).to_le_bytes();
        let era = ((time >> 32) as u32 & 3).to_le_bytes();
        put(0, &self.mode.to_le_bytes());
        put(2, &(self.uid as u16).to_le_bytes());
        put(4, &(self.size as u32).to_le_bytes());
        put(8, &seconds);
        put(12, &seconds);
        put(16, &seconds);
        put(24, &(self.gid as u16).to_le_bytes());
        put(26, &(if self.links > 65000 { 1 } else { self.links as u16 }).to_le_bytes());
        put(28, &(sectors as u32).to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(40, &self.body);
        put(104, &(self.xattr_block as u32).to_le_bytes());
        put(108, &((self.size >> 32) as u32).to_le_bytes());
        put(116, &((sectors >> 32) as u16).to_le_bytes());
        put(118, &((self.xattr_block >> 32) as u16).to_le_bytes());
        put(120, &((self.uid >> 16) as u16).to_le_bytes());
        put(122, &((self.gid >> 16) as u16).to_le_bytes());
        put(128, &32u16.to_le_bytes());
        put(132, &era);
        put(136, &era);
        put(140, &era);
        put(144, &seconds);
        put(148, &era);
        put(XATTR_START, &self.xattrs);
        let sum = crc32c_raw(own_seed(seed, number), &raw);
        raw[124..126].copy_from_slice(&(sum as u16).to_le_bytes());
        raw[130..132].copy_from_slice(&((sum >> 16) as u16).to_le_bytes());
        raw
    }
}

/// Seed for everything that belongs to one inode (its generation is 0).
pub(super) fn own_seed(seed: u32, number: u32) -> u32 {
    crc32c_raw(crc32c_raw(seed, &number.to_le_bytes()), &0u32.to_le_bytes())
}

/// A part of a file: `len` blocks from block `logical` on, at `start` of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub logical: u64,
    pub start: u64,
    pub len: u64,
}

/// Extents for runs that lie one after the other in the file.
pub(super) fn extents(mut logical: u64, runs: &[Run]) -> Vec<Extent> {
    let mut extents = Vec::new();
    for run in runs {
        let (mut start, mut left) = (run.start, run.len);
        while left > 0 {
            let len = left.min(EXTENT_MAX);
            extents.push(Extent { logical, start, len });
            (logical, start, left) = (logical + len, start + len, left - len);
        }
    }
    extents
}

/// Bytes and the block they go to.
pub(super) type Placed = (u64, Vec<u8>);

/// How many blocks the tree for this many extents needs outside the inode.
pub(super) fn tree_blocks(extents: usize) -> u64 {
    if extents <= EXTENTS_IN_INODE { 0 } else { extents.div_ceil(EXTENTS_IN_BLOCK) as u64 }
}

/// The extent tree: the part in the inode, and the blocks given for the rest.
pub(super) fn tree(extents: &[Extent], blocks: &[Run], own_seed: u32) -> Result<([u8; 60], Vec<Placed>), Error> {
    let mut body = [0; 60];
    if extents.len() <= EXTENTS_IN_INODE {
        write_leaf(&mut body, extents, EXTENTS_IN_INODE as u16);
        return Ok((body, Vec::new()));
    }
    let numbers: Vec<u64> = blocks.iter().flat_map(|r| r.start..r.start + r.len).collect();
    if numbers.len() > EXTENTS_IN_INODE {
        return Err(Error::Fragmented { extents: extents.len() });
    }
    let mut leaves = Vec::new();
    header(&mut body, numbers.len() as u16, EXTENTS_IN_INODE as u16, 1);
    for (i, (chunk, number)) in extents.chunks(EXTENTS_IN_BLOCK).zip(&numbers).enumerate() {
        let at = 12 + 12 * i;
        body[at..at + 4].copy_from_slice(&(chunk[0].logical as u32).to_le_bytes());
        body[at + 4..at + 8].copy_from_slice(&(*number as u32).to_le_bytes());
        body[at + 8..at + 10].copy_from_slice(&((number >> 32) as u16).to_le_bytes());
        let mut leaf = vec![0; BLOCK as usize];
        write_leaf(&mut leaf, chunk, EXTENTS_IN_BLOCK as u16);
        let sum = crc32c_raw(own_seed, &leaf[..4092]);
        leaf[4092..].copy_from_slice(&sum.to_le_bytes());
        leaves.push((*number, leaf));
    }
    Ok((body, leaves))
}

fn header(out: &mut [u8], entries: u16, max: u16, depth: u16) {
    out[0..2].copy_from_slice(&0xF30Au16.to_le_bytes());
    out[2..4].copy_from_slice(&entries.to_le_bytes());
    out[4..6].copy_from_slice(&max.to_le_bytes());
    out[6..8].copy_from_slice(&depth.to_le_bytes());
}

fn write_leaf(out: &mut [u8], extents: &[Extent], max: u16) {
    header(out, extents.len() as u16, max, 0);
    for (i, e) in extents.iter().enumerate() {
        let at = 12 + 12 * i;
        out[at..at + 4].copy_from_slice(&(e.logical as u32).to_le_bytes());
        // 32768 is written as 0x8000: a full extent; larger values would mean "not initialised".
        out[at + 4..at + 6].copy_from_slice(&(e.len as u16).to_le_bytes());
        out[at + 6..at + 8].copy_from_slice(&((e.start >> 32) as u16).to_le_bytes());
        out[at + 8..at + 12].copy_from_slice(&(e.start as u32).to_le_bytes());
    }
}

struct Xattr<'a> {
    index: u8,
    name: &'a [u8],
    value: &'a [u8],
}

impl Xattr<'_> {
    fn entry_len(&self) -> usize {
        16 + self.name.len().next_multiple_of(4)
    }

    fn len(&self) -> usize {
        self.entry_len() + self.value.len().next_multiple_of(4)
    }

    fn hash(&self) -> u32 {
        let mut hash = self.name.iter().fold(0u32, |h, c| h.rotate_left(5) ^ u32::from(*c));
        for word in self.value.chunks(4) {
            let mut padded = [0; 4];
            padded[..word.len()].copy_from_slice(word);
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(padded);
        }
        hash
    }
}

/// Attributes as an inode stores them, and those that did not fit as a block (whose checksum needs its number).
#[derive(Clone, Debug, Default)]
pub(super) struct Xattrs {
    pub in_inode: Vec<u8>,
    pub block: Option<Vec<u8>>,
}

/// Packs attributes: into the inode while they fit, into one block what is left.
pub(super) fn pack_xattrs(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Xattrs, Error> {
    let mut list = Vec::new();
    for (key, value) in xattrs {
        let prefixes: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
        let split = prefixes.iter().find_map(|(p, i)| key.strip_prefix(*p).map(|name| (*i, name)));
        let Some((index, name)) = split.filter(|(_, name)| !name.is_empty() && key.len() <= 255) else {
            return Err(Error::Xattr { name: String::from_utf8_lossy(key).into_owned() });
        };
        list.push(Xattr { index, name, value });
    }
    let room = INODE as usize - XATTR_START - 4;
    let (mut inside, mut outside, mut filled) = (Vec::new(), Vec::new(), 4);
    for xattr in list {
        if filled + xattr.len() <= room {
            filled += xattr.len();
            inside.push(xattr);
        } else {
            outside.push(xattr);
        }
    }
    let mut packed = Xattrs::default();
    if !inside.is_empty() {
        let mut area = vec![0; room];
        entries(&mut area, 0, &inside);
        packed.in_inode = [&XATTR_MAGIC.to_le_bytes(), area.as_slice()].concat();
    }
    if !outside.is_empty() {
        let size: usize = outside.iter().map(Xattr::len).sum();
        if 32 + 4 + size > BLOCK as usize {
            return Err(Error::XattrsTooLarge { size });
        }
        outside.sort_by_key(|x| (x.index, x.name.len(), x.name));
        let mut block = vec![0; BLOCK as usize];
        entries(&mut block, 32, &outside);
        let hash = outside.iter().fold(0u32, |h, x| h.rotate_left(16) ^ x.hash());
        block[0..4].copy_from_slice(&XATTR_MAGIC.to_le_bytes());
        block[4..8].copy_from_slice(&1u32.to_le_bytes());
        block[8..12].copy_from_slice(&1u32.to_le_bytes());
        block[12..16].copy_from_slice(&hash.to_le_bytes());
        packed.block = Some(block);
    }
    Ok(packed)
}

/// Entries grow from the front, values from the end; offsets of values count from the start of `area`.
fn entries(area: &mut [u8], start: usize, list: &[Xattr<'_>]) {
    let (mut at, mut end) = (start, area.len());
    for xattr in list {
        end -= xattr.value.len().next_multiple_of(4);
        area[end..end + xattr.value.len()].copy_from_slice(xattr.value);
        let offset = if xattr.value.is_empty() { 0 } else { end as u16 };
        area[at] = xattr.name.len() as u8;
        area[at + 1] = xattr.index;
        area[at + 2..at + 4].copy_from_slice(&offset.to_le_bytes());
        area[at + 8..at + 12].copy_from_slice(&(xattr.value.len() as u32).to_le_bytes());
        area[at + 12..at + 16].copy_from_slice(&xattr.hash().to_le_bytes());
        area[at + 16..at + 16 + xattr.name.len()].copy_from_slice(xattr.name);
        at += xattr.entry_len();
    }
}

/// Completes an attribute block once its place is known.
pub(super) fn seal_xattr_block(block: &mut [u8], number: u64, seed: u32) {
    let sum = crc32c_raw(crc32c_raw(seed, &number.to_le_bytes()), block);
    block[16..20].copy_from_slice(&sum.to_le_bytes());
}
