//! The partition table.
//!
//! ```text
//!  LBA 1        header: CRC of itself, disk GUID, where the entries are, CRC of the entries
//!  LBA 2..33    entries: 128 bytes each: type, GUID, first and last LBA, attributes, name
//!  LBA 34..65   free in our images: a second place for the entries while the first is rewritten
//!  last LBAs    the backup: entries, then header
//! ```

use super::{Disk, Guid, IdsError, SECTOR, crc, unexpected};

/// Partition type "EFI system".
pub const ESP: Guid =
    Guid([0xc1, 0x2a, 0x73, 0x28, 0xf8, 0x1f, 0x11, 0xd2, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);
/// Partition type "Linux LVM".
pub const LVM: Guid =
    Guid([0xe6, 0xd6, 0xd3, 0x79, 0xf5, 0x07, 0x44, 0xc2, 0xa2, 0x3c, 0x23, 0x8f, 0x2a, 0x3d, 0xf9, 0x28]);
/// Attribute of the LVM partition: the ids on this disk are those of the image it was written from. Bits 48 to 63
/// belong to the partition type, and this type defines none.
pub const IMAGE_IDS: u64 = 1 << 48;

const ENTRY: usize = 128;
const ENTRIES: usize = 128;
/// The second place for the entries.
const SPARE: u64 = 34;
const ENTRY_SECTORS: u64 = (ENTRY * ENTRIES) as u64 / SECTOR;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its type.
    pub kind: Guid,
    /// Its own id.
    pub guid: Guid,
    /// First LBA.
    pub first: u64,
    /// Last LBA.
    pub last: u64,
    /// Attribute bits.
    pub attributes: u64,
}

impl Entry {
    /// Its length.
    pub fn sectors(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A header and its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    header: [u8; SECTOR as usize],
    entries: Vec<u8>,
}

impl Table {
    /// Reads and checks the table whose header lies at `offset`.
    pub fn read(disk: &dyn Disk, offset: u64) -> Result<Table, IdsError> {
        let bad = |why: &str| unexpected("the partition table", offset, why);
        let mut header = [0; SECTOR as usize];
        disk.read(offset, &mut header)?;
        if &header[..8] != b"EFI PART" {
            return Err(bad("is missing"));
        }
        let size = u32_at(&header, 12) as usize;
        if !(92..=SECTOR as usize).contains(&size) {
            return Err(bad("has a header of an impossible size"));
        }
        if header_crc(&header, size) != u32_at(&header, 16) {
            return Err(bad("has a wrong checksum"));
        }
        if u64_at(&header, 24) * SECTOR != offset {
            return Err(bad("says that it lies elsewhere"));
        }
        if u32_at(&header, 80) as usize != ENTRIES || u32_at(&header, 84) as usize != ENTRY {
            return Err(bad("does not have 128 entries of 128 bytes"));
        }
        let at = u64_at(&header, 72).checked_mul(SECTOR).filter(|at| *at < disk.size());
        let mut entries = vec![0; ENTRIES * ENTRY];
        disk.read(at.ok_or_else(|| bad("has its entries outside the disk"))?, &mut entries)?;
        if crc::gpt(&entries) != u32_at(&header, 88) {
            return Err(bad("has entries with a wrong checksum"));
        }
        let table = Table { header, entries };
        let sectors = disk.size() / SECTOR;
        if table.entries().any(|e| e.first > e.last || e.last >= sectors) {
            return Err(bad("has a partition that does not fit on the disk"));
        }
        Ok(table)
    }

    /// The partitions.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.numbered().map(|(_, entry)| entry)
    }

    /// The partitions with their numbers, as the kernel counts them.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, Entry)> {
        let used = (1..).zip(self.entries.chunks_exact(ENTRY)).filter(|(_, raw)| raw[..16] != [0; 16]);
        used.map(|(number, raw)| {
            let entry = Entry {
                kind: guid_at(raw, 0),
                guid: guid_at(raw, 16),
                first: u64_at(raw, 32),
                last: u64_at(raw, 40),
                attributes: u64_at(raw, 48),
            };
            (number, entry)
        })
    }

    /// The LVM partition that carries the image's mark, as long as it does.
    pub fn marked(&self) -> Option<Entry> {
        self.entries().find(|e| e.kind == LVM && e.attributes & IMAGE_IDS != 0)
    }

    /// The same table with other ids and without the image's mark.
    pub fn with_ids(&self, disk: Guid, guids: &[Guid]) -> Table {
        let mut table = self.clone();
        table.header[56..72].copy_from_slice(&disk.to_gpt());
        let used = table.entries.chunks_exact_mut(ENTRY).filter(|raw| raw[..16] != [0; 16]);
        for (raw, guid) in used.zip(guids) {
            raw[16..32].copy_from_slice(&guid.to_gpt());
            if guid_at(raw, 0) == LVM {
                let attributes = u64_at(raw, 48) & !IMAGE_IDS;
                raw[48..56].copy_from_slice(&attributes.to_le_bytes());
            }
        }
        table
    }

    /// Writes the backup and then the primary table, so that a valid primary table is there at every moment.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), IdsError> {
        let backup = u64_at(&self.header, 32);
        let entries_at = u64_at(&self.header, 72);
        let lowest = self.entries().map(|e| e.first).min().unwrap_or(u64::MAX).min(u64_at(&self.header, 40));
        if lowest < 2 + ENTRY_SECTORS {
            return Err(unexpected("the partition table", SECTOR, "leaves no room for its entries"));
        }
        if backup > 1 + ENTRY_SECTORS && backup < disk.size() / SECTOR {
            disk.write((backup - ENTRY_SECTORS) * SECTOR, &self.entries)?;
            disk.write(backup * SECTOR, &self.header_for(backup, 1, backup - ENTRY_SECTORS))?;
            disk.sync()?;
        }
        // Where a power cut hit the last switch, the spare place is the one in use, and the usual one is free.
        if entries_at != SPARE && lowest >= SPARE + ENTRY_SECTORS {
            self.switch(disk, backup, SPARE)?;
        }
        self.switch(disk, backup, 2)
    }

    /// Writes the entries to a place that the header does not point to, then the header.
    fn switch(&self, disk: &dyn Disk, backup: u64, entries_at: u64) -> Result<(), IdsError> {
        disk.write(entries_at * SECTOR, &self.entries)?;
        disk.sync()?;
        disk.write(SECTOR, &self.header_for(1, backup, entries_at))?;
        Ok(disk.sync()?)
    }

    fn header_for(&self, here: u64, other: u64, entries_at: u64) -> [u8; SECTOR as usize] {
        let mut header = self.header;
        header[24..32].copy_from_slice(&here.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[72..80].copy_from_slice(&entries_at.to_le_bytes());
        header[88..92].copy_from_slice(&crc::gpt(&self.entries).to_le_bytes());
        let size = u32_at(&header, 12) as usize;
        let crc = header_crc(&header, size);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// The checksum of a header, counted with its own field as zero.
fn header_crc(header: &[u8], size: usize) -> u32 {
    let mut bytes = header[..size].to_vec();
    bytes[16..20].fill(0);
    crc::gpt(&bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    let mut raw = [0; 16];
    raw.copy_from_slice(&bytes[at..at + 16]);
    Guid::from_gpt(&raw)
}
