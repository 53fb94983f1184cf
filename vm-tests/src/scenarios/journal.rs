//! What a clean power-off leaves on the disk.

use anyhow::{Context as _, Result, ensure};
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
    let disk = guest.overlay("root");
    let raw = context.dir.join("superblock.raw");
    let kib = (ROOT >> 10) + 1;
    Cmd::new("qemu-img")
        .args(["dd", "-f", "qcow2", "-O", "raw", "bs=1024", "count=1", &format!("skip={kib}")])
        .arg(format!("if={}", disk.display()))
        .arg(format!("of={}", raw.display()))
        .run()
        .context("reading the superblock")?;
    let bytes = std::fs::read(&raw)?;
    let bytes = bytes.get(..1024).context("the superblock is short")?;
    ensure!(bytes[0x38..0x3a] == [0x53, 0xef], "there is no ext4 file system at {ROOT}");
    let incompat = u32::from_le_bytes([bytes[0x60], bytes[0x61], bytes[0x62], bytes[0x63]]);
    // INCOMPAT_RECOVER: the journal holds transactions.
    ensure!(incompat & 0x4 == 0, "the journal needs recovery after a clean power-off");
    Ok(())
}
