//! Superblock, group descriptors, journal superblock and the inode that reserves room for more descriptors.

use super::Params;
use super::geometry::{Allocator, BLOCK, DESCRIPTOR, FIRST_INODE, GROUP, Geometry, INODE};
use super::inode::Inode;
use crate::crc::crc32c_raw;

const JOURNAL_INODE: u32 = 8;

/// What the superblock says beyond the geometry.
pub(super) struct Totals {
    pub free_blocks: u64,
    pub free_inodes: u64,
}

/// The seed of all checksums but the superblock's. It is stored, so the UUID may change later.
pub(super) fn checksum_seed(params: &Params) -> u32 {
    crc32c_raw(u32::MAX, &params.uuid)
}

/// The superblock (1024 bytes) for a copy in `group`.
pub(super) fn superblock(params: &Params, g: &Geometry, totals: &Totals, journal: &Inode, group: u64) -> Vec<u8> {
    let mut sb = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
    let time = (params.time as u32).to_le_bytes();
    let time_high = [(params.time >> 32) as u8];
    let u16le = |v: u64| (v as u16).to_le_bytes();
    let u32le = |v: u64| (v as u32).to_le_bytes();
    put(0, &u32le(g.inodes_per_group * g.groups));
    put(4, &u32le(g.blocks));
    put(12, &u32le(totals.free_blocks));
    put(16, &u32le(totals.free_inodes));
    put(24, &u32le(2)); // log2(block size) - 10
    put(28, &u32le(2)); // clusters are blocks
    put(32, &u32le(GROUP));
    put(36, &u32le(GROUP));
    put(40, &u32le(g.inodes_per_group));
    put(48, &time); // last write
    put(54, &u16le(0xFFFF)); // never checked for its number of mounts
    put(56, &u16le(0xEF53));
    put(58, &u16le(1)); // clean
    put(60, &u16le(2)); // on errors: read-only
    put(64, &time); // last check
    put(76, &u32le(1)); // revision
    put(84, &u32le(u64::from(FIRST_INODE)));
    put(88, &u16le(INODE));
    put(90, &u16le(group));
    // has_journal, ext_attr, resize_inode, dir_index
    let resize = if g.reserved_descriptor_blocks > 0 { 0x10 } else { 0 };
    put(92, &u32le(0x4 | 0x8 | resize | 0x20));
    // filetype, extents, 64bit, flex_bg, metadata_csum_seed
    put(96, &u32le(0x2 | 0x40 | 0x80 | 0x200 | 0x2000));
    // sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum, verity
    put(100, &u32le(0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400 | 0x8000));
    put(104, &params.uuid);
    let label = params.label.as_bytes();
    put(120, &label[..label.len().min(16)]);
    put(206, &u16le(g.reserved_descriptor_blocks));
    put(224, &u32le(u64::from(JOURNAL_INODE)));
    put(236, &params.hash_seed);
    put(252, &[1]); // directory hash: half MD4
    put(253, &[1]); // the next field holds a copy of the journal's inode
    put(254, &u16le(DESCRIPTOR));
    put(256, &u32le(0xC)); // mount with user_xattr and acl
    put(264, &time); // made
    put(268, &journal.body);
    put(328, &u32le(journal.size >> 32));
    put(332, &u32le(journal.size));
    put(336, &u32le(g.blocks >> 32));
    put(344, &u32le(totals.free_blocks >> 32));
    put(348, &u16le(32));
    put(350, &u16le(32));
    put(352, &u32le(1)); // directory hashes are over signed characters
    put(372, &[4]); // log2(groups that keep their tables together)
    put(373, &[1]); // checksums are CRC-32C
    for at in [0x274, 0x276, 0x277] {
        put(at, &time_high); // high bytes of: last write, made, last check
    }
    put(0x270, &u32le(u64::from(checksum_seed(params))));
    let sum = crc32c_raw(u32::MAX, &sb[..1020]);
    sb[1020..].copy_from_slice(&sum.to_le_bytes());
    sb
}

/// What one group has in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupUse {
    pub inodes: u64,
    pub directories: u64,
}

/// All group descriptors, and the inode bitmaps they vouch for.
pub(super) fn descriptors(
    seed: u32,
    g: &Geometry,
    allocator: &Allocator,
    uses: &[GroupUse],
) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut table = Vec::with_capacity((g.descriptor_blocks * BLOCK) as usize);
    let mut bitmaps = Vec::new();
    for group in 0..g.groups {
        let used = uses[group as usize];
        let blocks = allocator.bitmap(group);
        let free = GROUP - blocks.iter().map(|b| u64::from(b.count_ones())).sum::<u64>();
        let inodes = inode_bitmap(g, used.inodes);
        let block_sum = crc32c_raw(seed, blocks);
        let inode_sum = crc32c_raw(seed, &inodes[..(g.inodes_per_group / 8) as usize]);
        let mut d = [0u8; DESCRIPTOR as usize];
        let mut both = |low: usize, high: usize, value: u64| {
            // Places of blocks are 32 + 32 bits, counts 16 + 16.
            if low < 12 {
                d[low..low + 4].copy_from_slice(&(value as u32).to_le_bytes());
                d[high..high + 4].copy_from_slice(&((value >> 32) as u32).to_le_bytes());
            } else {
                d[low..low + 2].copy_from_slice(&(value as u16).to_le_bytes());
                d[high..high + 2].copy_from_slice(&((value >> 16) as u16).to_le_bytes());
            }
        };
        both(0, 32, g.block_bitmap(group));
        both(4, 36, g.inode_bitmap(group));
        both(8, 40, g.inode_table(group));
        both(12, 44, free);
        both(14, 46, g.inodes_per_group - used.inodes);
        both(16, 48, used.directories);
        both(24, 56, u64::from(block_sum));
        both(26, 58, u64::from(inode_sum));
        both(28, 50, g.inodes_per_group - used.inodes);
        d[18] = 4; // the inode table is zeroed
        let sum = crc32c_raw(crc32c_raw(seed, &(group as u32).to_le_bytes()), &d);
        d[30..32].copy_from_slice(&(sum as u16).to_le_bytes());
        table.extend_from_slice(&d);
        bitmaps.push(inodes);
    }
    table.resize((g.descriptor_blocks * BLOCK) as usize, 0);
    (table, bitmaps)
}

fn inode_bitmap(g: &Geometry, used: u64) -> Vec<u8> {
    let mut bits = vec![0u8; BLOCK as usize];
    for bit in (0..used).chain(g.inodes_per_group..BLOCK * 8) {
        bits[(bit / 8) as usize] |= 1 << (bit % 8);
    }
    bits
}

/// First block of an empty journal. The kernel adds checksums to it at the first mount.
pub(super) fn journal_superblock(blocks: u64, uuid: &[u8; 16]) -> Vec<u8> {
    let mut out = vec![0; 1024];
    let mut put = |at: usize, value: u32| out[at..at + 4].copy_from_slice(&value.to_be_bytes());
    put(0, 0xC03B_3998);
    put(4, 4); // superblock, version 2
    put(12, BLOCK as u32);
    put(16, blocks as u32);
    put(20, 1); // first block of the log
    put(24, 1); // first transaction
    put(64, 1); // users
    out[48..64].copy_from_slice(uuid);
    out
}

/// The resize inode: a file whose blocks are the ones kept free after each copy of the descriptors, so that the table
/// can grow while the file system is mounted. Returns the inode and the blocks that hold its tree.
pub(super) fn resize_inode(g: &Geometry, double_indirect: u64) -> (Inode, Vec<(u64, Vec<u8>)>) {
    let reserved = g.reserved_descriptor_blocks;
    let backups = g.backups();
    let mut blocks = Vec::new();
    let mut root = vec![0; BLOCK as usize];
    for i in 0..reserved {
        let place = 1 + g.descriptor_blocks + i;
        let slot = (((g.descriptor_blocks + i) % 1024) * 4) as usize;
        root[slot..slot + 4].copy_from_slice(&(place as u32).to_le_bytes());
        // The block itself lists its copies in the other groups.
        let mut block = vec![0; BLOCK as usize];
        for (n, group) in backups.iter().enumerate() {
            block[n * 4..n * 4 + 4].copy_from_slice(&((place + group * GROUP) as u32).to_le_bytes());
        }
        blocks.push((place, block));
    }
    blocks.push((double_indirect, root));
    let mut body = [0; 60];
    body[52..56].copy_from_slice(&(double_indirect as u32).to_le_bytes());
    let inode = Inode {
        mode: 0o100600,
        links: 1,
        size: (1024 * 1024 + 1024 + 12) * BLOCK,
        blocks: 1 + reserved * (1 + backups.len() as u64),
        body,
        ..Inode::default()
    };
    (inode, blocks)
}
