//! Fresh ids for a disk that was written from an image.
//!
//! Images are identical, so without this the disks of two machines could not be told apart, and not be used in one
//! machine. The image marks itself (a bit in the GPT); the first boot gives every id a new value before LVM looks at
//! the disk, and takes the mark away with the last write:
//!
//! ```text
//!  ext4      uuid: backups, then primary superblock       one sector each; checksums do not depend on the uuid
//!  FAT       serial number: backup, then boot sector      (metadata_csum_seed)
//!  LVM       text with new ids in a free part of the ring | sync | its header | label
//!  GPT       backup table | entries beside the old ones | sync | header (one sector: the switch) | entries in the
//!            usual place | sync | header
//! ```
//!
//! A power cut leaves the mark, and the next boot does all of it again with other values; every state on the way is a
//! table that firmware and kernel accept. The one state LVM would refuse (label and text disagree) lies between two
//! writes that are repeated before LVM runs.

use std::fmt;
use std::io;

pub mod ext4;
pub mod fat;
pub mod find;
pub mod gpt;
pub mod lvm;

mod crc;

/// Bytes in a sector of the images.
pub const SECTOR: u64 = 512;

/// A disk, as far as this module needs one. Writes may reach the medium in any order until [`Disk::sync`] returns.
pub trait Disk {
    /// Fills the buffer from this offset.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all bytes at this offset.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;
    /// Its size in bytes.
    fn size(&self) -> u64;
}

/// Why the ids were left alone.
#[derive(Debug, thiserror::Error)]
pub enum IdsError {
    /// The disk does not do what it is told.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A structure is not as the image wrote it.
    #[error("{what} at byte {offset} of the disk {why}")]
    Unexpected {
        /// The structure.
        what: &'static str,
        /// Where it was looked for.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
}

fn unexpected(what: &'static str, offset: u64, why: impl Into<String>) -> IdsError {
    IdsError::Unexpected { what, offset, why: why.into() }
}

/// What was found and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The disk has ids of its own.
    Settled,
    /// It has now.
    Fresh(Ids),
}

/// The ids of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// GUID of the disk.
    pub disk: Guid,
    /// GUID of the ESP's partition.
    pub esp: Option<Guid>,
    /// UUID of the physical volume, as LVM prints it.
    pub pv: String,
    /// UUID of the volume group.
    pub vg: String,
    /// UUID of the system's file system.
    pub root: Guid,
}

/// A UUID. In a GPT its first three fields are stored in little-endian order; ext4 stores it as it is printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A random one (version 4).
    pub fn random(mut bytes: [u8; 16]) -> Guid {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }

    /// From a GPT.
    pub fn from_gpt(b: &[u8; 16]) -> Guid {
        let mut o = *b;
        o[0..4].reverse();
        o[4..6].reverse();
        o[6..8].reverse();
        Guid(o)
    }

    /// For a GPT.
    pub fn to_gpt(self) -> [u8; 16] {
        Guid::from_gpt(&self.0).0
    }

    /// Reads the printed form, in either case.
    pub fn parse(text: &str) -> Option<Guid> {
        let fits = text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| match i {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_hexdigit(),
            });
        if !fits {
            return None;
        }
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Guid(bytes))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Gives a marked disk new ids, made from `random`; `volume` is the logical volume with the system's file system.
pub fn refresh(disk: &dyn Disk, volume: &str, random: &mut dyn FnMut() -> [u8; 32]) -> Result<Outcome, IdsError> {
    let table = gpt::Table::read(disk, SECTOR)?;
    let Some(pv) = table.marked() else { return Ok(Outcome::Settled) };
    let esp = table.entries().find(|e| e.kind == gpt::ESP);

    // Everything is read and understood before anything is written.
    let volumes = lvm::Volumes::read(disk, pv.first * SECTOR, pv.sectors() * SECTOR)?;
    let start = volumes.start_of(volume)?;
    let file_system = ext4::Superblocks::read(disk, start)?;
    let serial = match &esp {
        Some(esp) => Some(fat::BootSectors::read(disk, esp.first * SECTOR)?),
        None => None,
    };
    let mut guid = || {
        let bytes = random();
        let mut half = [0; 16];
        half.copy_from_slice(&bytes[..16]);
        Guid::random(half)
    };

    let root = guid();
    let disk_guid = guid();
    let entries: Vec<Guid> = table.entries().map(|_| guid()).collect();
    let fresh = volumes.with_fresh_ids(random)?;

    file_system.write(disk, root)?;
    if let Some(serial) = serial {
        let bytes = random();
        serial.write(disk, [bytes[0], bytes[1], bytes[2], bytes[3]])?;
    }
    fresh.write(disk)?;
    disk.sync()?;
    let table = table.with_ids(disk_guid, &entries);
    table.write(disk)?;

    let esp = table.entries().find(|e| e.kind == gpt::ESP).map(|e| e.guid);
    Ok(Outcome::Fresh(Ids { disk: disk_guid, esp, pv: fresh.pv(), vg: fresh.vg(), root }))
}
