//! GUID partition tables.
//!
//! ```text
//! LBA 0        protective MBR
//! LBA 1        header            LBA 2…33   128 entries
//! LBA 34…2047  unused: the first boot writes a changed table through it, so that one sector decides which is valid
//! …            partitions, at multiples of 1 MiB
//! last 33      entries again, then the backup header
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::crc::crc32;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
const ENTRIES: usize = 128;
const ENTRY: usize = 128;
const TABLE_SECTORS: u64 = (ENTRIES * ENTRY) as u64 / SECTOR;
const FIRST_USABLE: u64 = 2048;

/// Type of an EFI system partition.
pub const ESP: [u8; 16] = guid(0xC12A_7328, 0xF81F, 0x11D2, 0xBA4B, 0x00A0_C93E_C93B);
/// Type of the partition GRUB's core image lies in on BIOS machines.
pub const BIOS_BOOT: [u8; 16] = guid(0x2168_6148, 0x6449, 0x6E6F, 0x744E, 0x6565_6445_4649);
/// Type of an LVM physical volume.
pub const LVM: [u8; 16] = guid(0xE6D6_D379, 0xF507, 0x44C2, 0xA23C, 0x238F_2A3D_F928);

/// Attribute of the LVM partition of a fresh image: the identifiers on this disk are the image's own and are to be
/// replaced at the first boot.
pub const FRESH: u64 = 1 << 48;

/// A GUID as GPT stores it: three numbers little-endian, the rest as written.
const fn guid(a: u32, b: u16, c: u16, d: u16, e: u64) -> [u8; 16] {
    let (a, b, c, d, e) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes(), e.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], e[2], e[3], e[4], e[5], e[6], e[7]]
}

/// A UUID in network order as GPT stores it.
pub fn mixed_endian(uuid: [u8; 16]) -> [u8; 16] {
    let mut out = uuid;
    out[..4].reverse();
    out[4..6].reverse();
    out[6..8].reverse();
    out
}

/// One partition; offsets and lengths in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub kind: [u8; 16],
    /// Its own identifier, as stored.
    pub id: [u8; 16],
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// Its name, at most 36 characters.
    pub name: &'static str,
}

/// Bytes at the end of a disk that the backup table takes.
pub const BACKUP: u64 = (TABLE_SECTORS + 1) * SECTOR;

/// Writes both tables to a disk of `size` bytes.
pub fn write(disk: &File, size: u64, id: [u8; 16], partitions: &[Partition]) -> io::Result<()> {
    let sectors = size / SECTOR;
    let mut table = vec![0; ENTRIES * ENTRY];
    for (entry, p) in table.chunks_mut(ENTRY).zip(partitions) {
        entry[0..16].copy_from_slice(&p.kind);
        entry[16..32].copy_from_slice(&p.id);
        entry[32..40].copy_from_slice(&(p.offset / SECTOR).to_le_bytes());
        entry[40..48].copy_from_slice(&((p.offset + p.len) / SECTOR - 1).to_le_bytes());
        entry[48..56].copy_from_slice(&p.attributes.to_le_bytes());
        for (slot, unit) in entry[56..].chunks_mut(2).zip(p.name.encode_utf16()) {
            slot.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let backup_table = sectors - 1 - TABLE_SECTORS;
    let header = |own: u64, other: u64, table_at: u64| {
        let mut h = vec![0; 92];
        h[0..8].copy_from_slice(b"EFI PART");
        h[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        h[12..16].copy_from_slice(&92u32.to_le_bytes());
        h[24..32].copy_from_slice(&own.to_le_bytes());
        h[32..40].copy_from_slice(&other.to_le_bytes());
        h[40..48].copy_from_slice(&FIRST_USABLE.to_le_bytes());
        h[48..56].copy_from_slice(&(backup_table - 1).to_le_bytes());
        h[56..72].copy_from_slice(&id);
        h[72..80].copy_from_slice(&table_at.to_le_bytes());
        h[80..84].copy_from_slice(&(ENTRIES as u32).to_le_bytes());
        h[84..88].copy_from_slice(&(ENTRY as u32).to_le_bytes());
        h[88..92].copy_from_slice(&crc32(&table).to_le_bytes());
        let sum = crc32(&h);
        h[16..20].copy_from_slice(&sum.to_le_bytes());
        h
    };
    disk.write_all_at(&protective_mbr(sectors), 0)?;
    disk.write_all_at(&header(1, sectors - 1, 2), SECTOR)?;
    disk.write_all_at(&table, 2 * SECTOR)?;
    disk.write_all_at(&table, backup_table * SECTOR)?;
    disk.write_all_at(&header(sectors - 1, 1, backup_table), (sectors - 1) * SECTOR)
}

fn protective_mbr(sectors: u64) -> [u8; 512] {
    let mut mbr = [0; 512];
    let len = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF]);
    mbr[454..458].copy_from_slice(&1u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&len.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xAA]);
    mbr
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::Cmd;

    #[test]
    fn sgdisk_finds_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let disk = File::create(&path).unwrap();
        let size = 64 << 20;
        disk.set_len(size).unwrap();
        let part =
            |kind, n: u8, offset, len, attributes, name| Partition { kind, id: [n; 16], offset, len, attributes, name };
        let partitions = [
            part(ESP, 1, 1 << 20, 16 << 20, 0, "slipway-esp"),
            part(BIOS_BOOT, 2, 17 << 20, 1 << 20, 0, "slipway-bios"),
            part(LVM, 3, 18 << 20, 45 << 20, FRESH, "slipway-pv"),
        ];
        write(&disk, size, [9; 16], &partitions).unwrap();
        let verify = Cmd::new("sgdisk").arg("-v").arg(&path).run().unwrap().text();
        assert!(verify.contains("No problems found"), "{verify}");
        let info = Cmd::new("sgdisk").arg("-i3").arg(&path).run().unwrap().text();
        assert!(
            info.contains("Linux LVM") && info.contains("slipway-pv") && info.contains("0001000000000000"),
            "{info}"
        );
        let info = Cmd::new("sgdisk").args(["-i1", "-i2"]).arg(&path).run().unwrap().text();
        assert!(info.contains("EFI system partition") && info.contains("BIOS boot partition"), "{info}");
    }
}
