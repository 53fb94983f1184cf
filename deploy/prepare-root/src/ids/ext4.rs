//! The UUID of an ext4 file system, in its superblock and the superblock's backups.
//!
//! With `metadata_csum_seed` no other structure depends on the UUID: the seed of all checksums stays what it was.

use super::{Disk, Guid, IdsError, unexpected};

/// Offset of the primary superblock.
const PRIMARY: u64 = 1024;
const LENGTH: usize = 1024;

/// All superblocks of a file system.
#[derive(Clone, Debug)]
pub struct Superblocks {
    blocks: Vec<(u64, Vec<u8>)>,
}

impl Superblocks {
    /// Reads and checks those of the file system at `start`.
    pub fn read(disk: &dyn Disk, start: u64) -> Result<Superblocks, IdsError> {
        let bad = |why: &str| unexpected("the ext4 superblock", start + PRIMARY, why);
        let primary = superblock(disk, start + PRIMARY)?.ok_or_else(|| bad("is missing or has a wrong checksum"))?;
        let incompat = u32_at(&primary, 0x60);
        if incompat & 0x2000 == 0 {
            return Err(bad("lacks the feature metadata_csum_seed, so its UUID cannot be changed alone"));
        }
        let block_size = 1024u64 << u32_at(&primary, 0x18).min(6);
        let first_data = u64::from(u32_at(&primary, 0x14));
        let per_group = u64::from(u32_at(&primary, 0x20));
        if per_group == 0 {
            return Err(bad("has no blocks in a group"));
        }
        let high = if incompat & 0x80 != 0 { u64::from(u32_at(&primary, 0x150)) } else { 0 };
        let count = high << 32 | u64::from(u32_at(&primary, 0x4));
        let groups = count.saturating_sub(first_data).div_ceil(per_group);
        let sparse = u32_at(&primary, 0x64) & 1 != 0;
        let mut blocks = Vec::new();
        for group in (1..groups.min(1 << 20)).filter(|g| !sparse || has_backup(*g)) {
            let at = start + (group * per_group + first_data) * block_size;
            // A backup that is damaged already is e2fsck's business.
            if let Some(block) = superblock(disk, at)? {
                blocks.push((at, block));
            }
        }
        blocks.push((start + PRIMARY, primary));
        Ok(Superblocks { blocks })
    }

    /// Writes them with another UUID, the primary one last.
    pub fn write(&self, disk: &dyn Disk, uuid: Guid) -> Result<(), IdsError> {
        for (at, block) in &self.blocks {
            let mut block = block.clone();
            block[0x68..0x78].copy_from_slice(&uuid.0);
            let crc = super::crc::ext4(&block[..0x3fc]);
            block[0x3fc..].copy_from_slice(&crc.to_le_bytes());
            disk.write(*at, &block)?;
        }
        Ok(())
    }
}

/// The superblock at this offset, where there is a valid one.
fn superblock(disk: &dyn Disk, at: u64) -> Result<Option<Vec<u8>>, IdsError> {
    let mut block = vec![0; LENGTH];
    disk.read(at, &mut block)?;
    let valid = block[0x38..0x3a] == [0x53, 0xef] && super::crc::ext4(&block[..0x3fc]) == u32_at(&block, 0x3fc);
    Ok(valid.then_some(block))
}

/// With `sparse_super`: group 1 and the powers of 3, 5 and 7.
fn has_backup(group: u64) -> bool {
    let power = |base: u64| {
        let mut n = group;
        while n % base == 0 {
            n /= base;
        }
        n == 1
    };
    group == 1 || power(3) || power(5) || power(7)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    #[test]
    fn groups_with_a_backup() {
        let groups: Vec<u64> = (1..130).filter(|g| super::has_backup(*g)).collect();
        assert_eq!(groups, [1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }
}
