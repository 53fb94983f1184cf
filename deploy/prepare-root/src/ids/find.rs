//! Which disk was booted.
//!
//! The boot loader leaves the GUID of its partition in the EFI variable `LoaderDevicePartUUID`. Where two disks carry it
//! (two copies of one image, neither booted before) the one the kernel found first is taken, as most firmware does.
//! Everything else, the ESP to be mounted and the devices LVM may use, follows this choice, so that the two are never
//! mixed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Disk, Guid, IdsError, SECTOR, gpt};

/// The boot loader's variable.
const VARIABLE: &str = "sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// A block device, or a file that stands for one.
#[derive(Debug)]
pub struct Device {
    file: File,
    size: u64,
}

impl Device {
    /// Opens it; `write` asks for more than reading, and takes udev's lock so that it does not probe a half-written disk.
    pub fn open(path: &Path, write: bool) -> io::Result<Device> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        if write {
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        }
        let size = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
        Ok(Device { file, size })
    }
}

impl Disk for Device {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// A disk that has the partitions of one of our images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `vda`.
    pub name: String,
    /// GUID of its ESP.
    pub esp: Guid,
    /// Device name of its LVM partition (`vda3`).
    pub pv: String,
    /// GUID of its LVM partition.
    pub pv_guid: Guid,
}

/// The ESP the boot loader was started from. `None` without EFI, or with a loader that does not say.
pub fn booted_esp(root: &Path) -> Option<Guid> {
    let bytes = fs::read(root.join(VARIABLE)).ok()?;
    // Four bytes of attributes, then UTF-16.
    let units = bytes.get(4..)?.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let text: String = char::decode_utf16(units).filter_map(Result::ok).take_while(|c| *c != '\0').collect();
    Guid::parse(&text)
}

/// The disk that was booted, among those below `root`/sys/class/block.
pub fn booted_disk(root: &Path, esp: Option<Guid>) -> Result<Option<Found>, IdsError> {
    let mut disks: Vec<(u32, u32, String)> = Vec::new();
    for entry in fs::read_dir(root.join("sys/class/block"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Whole, real disks: partitions have a file of that name, device-mapper and loop devices have no `device`.
        if entry.path().join("partition").exists() || !entry.path().join("device").exists() {
            continue;
        }
        // The kernel makes the directory before the files in it: without this one the disk is there the next time.
        let Ok(number) = fs::read_to_string(entry.path().join("dev")) else { continue };
        let Some((major, minor)) = number.trim().split_once(':') else { continue };
        if let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) {
            disks.push((major, minor, name));
        }
    }
    disks.sort();
    let mut candidates = Vec::new();
    for (_, _, name) in disks {
        // A drive without a medium, a disk that does not answer: not ours.
        let Ok(disk) = Device::open(&root.join("dev").join(&name), false) else { continue };
        let Ok(table) = gpt::Table::read(&disk, SECTOR) else { continue };
        if let Some(found) = examine(&name, &table, esp) {
            candidates.push(found);
        }
    }
    // Without the loader's word, only a lone candidate is certain.
    if esp.is_none() && candidates.len() > 1 {
        return Ok(None);
    }
    Ok(candidates.into_iter().next())
}

/// A disk with an ESP (this one, if it is known) and an LVM partition.
pub fn examine(name: &str, table: &gpt::Table, esp: Option<Guid>) -> Option<Found> {
    let mut own_esp = None;
    let mut pv = None;
    for (number, entry) in table.numbered() {
        if entry.kind == gpt::ESP && esp.is_none_or(|e| e == entry.guid) {
            own_esp.get_or_insert(entry.guid);
        } else if entry.kind == gpt::LVM {
            pv.get_or_insert((number, entry.guid));
        }
    }
    let (number, pv_guid) = pv?;
    // Names that end in a digit get a `p` before the partition's number.
    let separator = if name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    Some(Found { name: name.to_owned(), esp: own_esp?, pv: format!("{name}{separator}{number}"), pv_guid })
}

/// The files that make everything else follow the choice of the disk.
///
/// In the initramfs LVM must not see a second disk with a volume group of the same name. In the main system `efi.mount`
/// must take this disk's ESP, not just any partition of that name, and udev must not have LVM activate the volumes of
/// another machine's disk: the flag is the one `69-lvm.rules` heeds. The operator still sees that disk and may use it.
pub fn follow_up(found: &Found) -> Vec<(PathBuf, String)> {
    vec![
        (
            PathBuf::from("etc/lvm/lvmlocal.conf"),
            format!("devices {{\n\tglobal_filter = [ \"a|^/dev/{}$|\", \"r|.*|\" ]\n}}\n", found.pv),
        ),
        (
            PathBuf::from("run/systemd/system/efi.mount.d/50-booted-disk.conf"),
            format!("[Mount]\nWhat=\nWhat=/dev/disk/by-partuuid/{}\n", found.esp),
        ),
        (
            PathBuf::from("run/udev/rules.d/68-slipway-booted-disk.rules"),
            format!(
                "ACTION!=\"remove\", SUBSYSTEM==\"block\", ENV{{ID_FS_TYPE}}==\"LVM2_member\", \
                 ENV{{ID_PART_ENTRY_NAME}}==\"slipway-pv\", ENV{{ID_PART_ENTRY_UUID}}!=\"{}\", \
                 ENV{{DM_UDEV_DISABLE_OTHER_RULES_FLAG}}=\"1\"\n",
                found.pv_guid
            ),
        ),
    ]
}
