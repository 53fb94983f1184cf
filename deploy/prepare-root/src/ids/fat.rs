//! The serial number of a FAT32 file system: four bytes in the boot sector and in its backup.

use super::{Disk, IdsError, SECTOR, unexpected};

/// The boot sectors of a file system.
#[derive(Clone, Debug)]
pub struct BootSectors {
    sectors: Vec<(u64, [u8; SECTOR as usize])>,
}

impl BootSectors {
    /// Reads and checks those of the file system at `start`.
    pub fn read(disk: &dyn Disk, start: u64) -> Result<BootSectors, IdsError> {
        let bad = |why: &str| unexpected("the FAT boot sector", start, why);
        let mut first = [0; SECTOR as usize];
        disk.read(start, &mut first)?;
        if first[510..] != [0x55, 0xaa] || &first[0x52..0x5a] != b"FAT32   " || first[0x42] != 0x29 {
            return Err(bad("is not one of FAT32"));
        }
        let mut sectors = Vec::new();
        let backup = u64::from(u16::from_le_bytes([first[0x32], first[0x33]]));
        if backup != 0 && backup != 0xffff {
            let at = start + backup * SECTOR;
            let mut second = [0; SECTOR as usize];
            disk.read(at, &mut second)?;
            if second[510..] == [0x55, 0xaa] && &second[0x52..0x5a] == b"FAT32   " {
                sectors.push((at, second));
            }
        }
        sectors.push((start, first));
        Ok(BootSectors { sectors })
    }

    /// Writes them with another serial number, the backup first.
    pub fn write(&self, disk: &dyn Disk, serial: [u8; 4]) -> Result<(), IdsError> {
        for (at, sector) in &self.sectors {
            let mut sector = *sector;
            sector[0x43..0x47].copy_from_slice(&serial);
            disk.write(*at, &sector)?;
        }
        Ok(())
    }
}
