//! Where the fixed parts of an ext4 file system lie.
//!
//! ```text
//! group 0, 1, 3ⁿ, 5ⁿ, 7ⁿ   superblock | descriptors | blocks reserved for more descriptors
//! group 0, 16, 32 …        block bitmaps of 16 groups | inode bitmaps | inode tables
//! ```

use std::ops::Range;

use super::Error;

pub(super) const BLOCK: u64 = 4096;
pub(super) const GROUP: u64 = 32768;
pub(super) const INODE: u64 = 256;
const INODES_PER_BLOCK: u64 = BLOCK / INODE;
pub(super) const DESCRIPTOR: u64 = 64;
/// Groups that keep their bitmaps and tables together.
pub(super) const FLEX: u64 = 16;
/// First inode of ordinary files; lower ones have fixed meanings.
pub(super) const FIRST_INODE: u32 = 11;
/// A last group smaller than this is left out: it could not hold its own metadata with anything left over.
const SMALLEST_GROUP: u64 = 4096;

/// Sizes from which every fixed position follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub blocks: u64,
    pub groups: u64,
    pub inodes_per_group: u64,
    pub descriptor_blocks: u64,
    pub reserved_descriptor_blocks: u64,
}

impl Geometry {
    /// The geometry for `bytes` of space and at least `inodes` files.
    pub fn new(bytes: u64, inodes: u64) -> Result<Self, Error> {
        let mut blocks = bytes / BLOCK;
        let rest = blocks % GROUP;
        if rest < SMALLEST_GROUP {
            blocks -= rest;
        }
        let groups = blocks.div_ceil(GROUP);
        if groups == 0 || blocks > 1 << 40 {
            return Err(Error::Size { bytes });
        }
        // One inode for 16 KiB as mke2fs has it; more where the first deployment alone would use a quarter of them.
        let wanted = (inodes * 4).div_ceil(groups).next_multiple_of(INODES_PER_BLOCK * 8);
        let inodes_per_group = wanted.clamp(8192, 16384);
        if inodes + u64::from(FIRST_INODE) > inodes_per_group * groups {
            return Err(Error::Inodes { wanted: inodes, have: inodes_per_group * groups });
        }
        let descriptors_per_block = BLOCK / DESCRIPTOR;
        let descriptor_blocks = groups.div_ceil(descriptors_per_block);
        // Room to grow a thousandfold while mounted, up to what one indirect block can name.
        let grown = (blocks * 1024).min(u64::from(u32::MAX)).div_ceil(GROUP).div_ceil(descriptors_per_block);
        let reserved_descriptor_blocks =
            grown.saturating_sub(descriptor_blocks).min(1024 - descriptor_blocks.min(1024));
        Ok(Geometry { blocks, groups, inodes_per_group, descriptor_blocks, reserved_descriptor_blocks })
    }

    pub fn table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// Groups other than 0 that hold copies of superblock and descriptors, ascending.
    pub fn backups(&self) -> Vec<u64> {
        (1..self.groups).filter(|g| has_super(*g)).collect()
    }

    fn super_blocks(&self, group: u64) -> u64 {
        if has_super(group) { 1 + self.descriptor_blocks + self.reserved_descriptor_blocks } else { 0 }
    }

    fn flex(&self, group: u64) -> (u64, u64, u64) {
        let head = group / FLEX * FLEX;
        let count = FLEX.min(self.groups - head);
        (head * GROUP + self.super_blocks(head), count, group - head)
    }

    pub fn block_bitmap(&self, group: u64) -> u64 {
        let (base, _, index) = self.flex(group);
        base + index
    }

    pub fn inode_bitmap(&self, group: u64) -> u64 {
        let (base, count, index) = self.flex(group);
        base + count + index
    }

    pub fn inode_table(&self, group: u64) -> u64 {
        let (base, count, index) = self.flex(group);
        base + 2 * count + index * self.table_blocks()
    }

    /// Every range of blocks that no file may use, ascending.
    pub fn fixed(&self) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        for group in 0..self.groups {
            let start = group * GROUP;
            let mut end = start + self.super_blocks(group);
            if group % FLEX == 0 {
                let count = FLEX.min(self.groups - group);
                end += count * (2 + self.table_blocks());
            }
            if end > start {
                ranges.push(start..end);
            }
        }
        ranges
    }
}

/// The groups that keep a superblock under `sparse_super`.
pub(super) fn has_super(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut n = base;
        while n < group {
            n *= base;
        }
        n == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub start: u64,
    pub len: u64,
}

/// Hands out blocks from the front, around the fixed parts, and remembers what is used.
pub(super) struct Allocator {
    free: Vec<Range<u64>>,
    used: Vec<u8>,
    next: usize,
    /// Blocks still free.
    pub left: u64,
}

impl Allocator {
    pub fn new(geometry: &Geometry) -> Self {
        let mut used = vec![0u8; (geometry.groups * GROUP / 8) as usize];
        let mut free = Vec::new();
        let mut at = 0;
        for range in geometry.fixed() {
            mark(&mut used, &range);
            if at < range.start {
                free.push(at..range.start);
            }
            at = range.end;
        }
        if at < geometry.blocks {
            free.push(at..geometry.blocks);
        }
        mark(&mut used, &(geometry.blocks..geometry.groups * GROUP));
        let left = free.iter().map(|r| r.end - r.start).sum();
        Allocator { free, used, next: 0, left }
    }

    /// Takes `count` blocks: one run, or several where fixed parts lie between.
    pub fn take(&mut self, mut count: u64) -> Result<Vec<Run>, Error> {
        let mut runs = Vec::new();
        while count > 0 {
            let Some(range) = self.free.get_mut(self.next) else { return Err(Error::Full) };
            let len = count.min(range.end - range.start);
            if len == 0 {
                self.next += 1;
                continue;
            }
            let run = Run { start: range.start, len };
            range.start += len;
            count -= len;
            self.left -= len;
            mark(&mut self.used, &(run.start..run.start + len));
            runs.push(run);
        }
        Ok(runs)
    }

    /// Takes `count` blocks that must be one run; space before it stays free.
    pub fn take_run(&mut self, count: u64) -> Result<Run, Error> {
        let last = self.free.iter_mut().rev().find(|r| r.end - r.start >= count).ok_or(Error::Full)?;
        let run = Run { start: last.end - count, len: count };
        last.end -= count;
        self.left -= count;
        mark(&mut self.used, &(run.start..run.start + count));
        Ok(run)
    }

    /// The block bitmap of a group.
    pub fn bitmap(&self, group: u64) -> &[u8] {
        let at = (group * BLOCK) as usize;
        &self.used[at..at + BLOCK as usize]
    }
}

fn mark(bits: &mut [u8], range: &Range<u64>) {
    for block in range.clone() {
        bits[(block / 8) as usize] |= 1 << (block % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_are_sparse() {
        let groups: Vec<u64> = (0..130).filter(|g| has_super(*g)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn four_gib() {
        let g = Geometry::new(4 << 30, 12_000).unwrap();
        assert_eq!((g.blocks, g.groups, g.inodes_per_group, g.descriptor_blocks), (1 << 20, 32, 8192, 1));
        assert_eq!(g.reserved_descriptor_blocks, 511);
        let fixed = g.fixed();
        assert!(fixed.windows(2).all(|w| w[0].end <= w[1].start));
    }

    #[test]
    fn runs_go_around_fixed_parts() {
        let g = Geometry::new(1 << 30, 100).unwrap();
        let mut a = Allocator::new(&g);
        let all = a.left;
        let runs = a.take(all).unwrap();
        assert_eq!(a.left, 0);
        assert!(runs.len() > 1);
        for run in runs {
            assert!(g.fixed().iter().all(|f| run.start + run.len <= f.start || f.end <= run.start));
        }
        assert!(matches!(a.take(1), Err(Error::Full)));
    }
}
