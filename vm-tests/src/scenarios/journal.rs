//! What a clean power-off leaves on the disk.

use std::path::Path;

use anyhow::{Result, ensure};
use sys::Cmd;

use crate::context::Context;
use crate::guest::patience;
use crate::world::State;

/// Where the root file system begins: partition 3, then the first extent of the volume group.
const ROOT: u64 = (1026 + 1) << 20;

pub fn run(context: &Context<'_>) -> Result<()> {
    let server = context.updates()?;
    let mut guest = context.resume(State::Booted, &server)?;
    // Something to write, so that there is a journal to empty.
    guest.shell("for i in $(seq 200); do echo $i > /var/tmp/file-$i; done; rm /var/tmp/file-1*; sync")?;
    guest.power_off(patience())?;
    let bytes = superblock(&guest.overlay("root"))?;
    ensure!(bytes[0x38..0x3a] == [0x53, 0xef], "there is no ext4 file system at {ROOT}");
    let incompat = u32::from_le_bytes([bytes[0x60], bytes[0x61], bytes[0x62], bytes[0x63]]);
    // INCOMPAT_RECOVER: the journal holds transactions.
    ensure!(incompat & 0x4 == 0, "the journal needs recovery after a clean power-off");
    Ok(())
}

/// The first half of the superblock, 1024 bytes into the file system.
fn superblock(disk: &Path) -> Result<Vec<u8>> {
    let read = format!("read -v {} 512", ROOT + 1024);
    let output = Cmd::new("qemu-io").args(["-r", "-f", "qcow2", "-c", &read]).arg(disk).run()?;
    let bytes = from_dump(&output.text());
    ensure!(bytes.len() == 512, "the superblock is short: {} bytes", bytes.len());
    Ok(bytes)
}

/// `OFFSET:  16 pairs of digits  text`, as `qemu-io` prints it.
fn from_dump(text: &str) -> Vec<u8> {
    let line = |line: &str| -> Option<Vec<u8>> {
        let (offset, rest) = line.split_once(":  ")?;
        u64::from_str_radix(offset, 16).ok()?;
        rest.split(' ').take(16).map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
    };
    text.lines().filter_map(line).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("disk.raw");
        let file = std::fs::File::create(&raw).unwrap();
        file.set_len(ROOT + 4096).unwrap();
        let bytes: Vec<u8> = (0..=255).chain(0..=255).collect();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, ROOT + 1024).unwrap();
        let disk = dir.path().join("disk.qcow2");
        vm::overlay(&raw, &disk, None).unwrap();
        assert_eq!(superblock(&disk).unwrap(), bytes);
    }
}
