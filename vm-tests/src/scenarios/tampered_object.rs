//! Somebody changes a file of the system behind its back.

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::world::State;

/// Any file that nothing needs and that is longer than an EROFS inode.
const VICTIM: &str = "/usr/bin/wall";

pub fn run(context: &Context<'_>) -> Result<()> {
    let server = context.updates()?;
    let guest = context.resume(State::Booted, &server)?;
    let clean = guest.host("fsck")?;
    ensure!(clean.code == 0, "host fsck on a clean machine: {} {}", clean.text(), clean.errors());

    // The object behind the file, its first block, and a flipped bit in it: on the disk, past the file system.
    let sum = guest.shell(&format!("sha256sum < {VICTIM}"))?;
    let object = guest.shell(&format!(
        "size=$(stat -c %s {VICTIM})
         find /sysroot/ostree/repo/objects -name '*.file' -size ${{size}}c -print0 | xargs -0 sha256sum \
           | grep -F '{}' | head -n1 | cut -c67-",
        sum.split_whitespace().next().context("no checksum")?
    ))?;
    ensure!(object.ends_with(".file"), "{VICTIM} has no object: {object}");
    guest.shell(&format!(
        "block=$(debugfs -R 'blocks {}' /dev/host/root 2>/dev/null | cut -d' ' -f1)
         test \"$block\" -gt 0
         at=$((block * 4096 + 100))
         old=$(dd if=/dev/host/root bs=1 skip=$at count=1 status=none | od -An -tu1)
         printf \"$(printf '\\\\x%02x' $((old ^ 1)))\" | dd of=/dev/host/root bs=1 seek=$at conv=notrunc,fsync status=none
         echo 3 > /proc/sys/vm/drop_caches",
        object.trim_start_matches("/sysroot")
    ))?;

    let read = guest.exec(&format!("cat {VICTIM} > /dev/null"))?;
    ensure!(read.code != 0 && read.errors().contains("Input/output error"), "reading it: {read:?}");
    let kernel = guest.shell("dmesg | grep -i fs-verity | tail -n 3")?;
    ensure!(kernel.contains("CORRUPTED"), "the kernel said {kernel}");
    let checksum = object.rsplit("objects/").next().unwrap_or_default().replace('/', "").replace(".file", "");
    let report = guest.host_fails("fsck", 1)?;
    ensure!(report.contains(&checksum[..12]) || report.contains(VICTIM), "host fsck does not name it: {report}");
    // Everything else goes on.
    guest.shell("cat /usr/bin/mountpoint /etc/os-release > /dev/null")?;
    Ok(())
}
