//! Every machine begins as the same image; two of their disks meet in one machine.

use anyhow::{Result, ensure};
use vm::{Disk, Writes};

use crate::context::Context;
use crate::guest::{Guest, patience};
use crate::world::State;

pub fn run(context: &Context<'_>) -> Result<()> {
    let server = context.updates()?;
    let dir = context.machine_dir();
    let mut builder = context.world.builder("two-clones", &server)?;
    // The first disk has had its first boot and has ids of its own; the second still has the image's.
    let other = |serial: &str, path| Disk { path, serial: serial.to_owned(), writes: Writes::Overlay, size: None };
    builder = builder
        .disk(other("root", context.world.disk_of(State::Booted)?))
        .disk(other("clone", context.artifacts().image.clone()))
        .dir(&dir);
    let guest = Guest(builder.start()?);
    guest.wait_ready(patience())?;
    guest.healthy()?;
    guest.on(&context.artifacts().v1)?;
    // It runs from the first disk, all of it.
    let disks = guest.shell(
        "for at in /sysroot /efi /var/lib/containers; do \
           lsblk -nrso TYPE,SERIAL $(findmnt -vno SOURCE $at) | awk '$1 == \"disk\" { print $2 }'; done | sort -u",
    )?;
    ensure!(disks == "root", "the machine runs from {disks}");
    // And the other one can be told from it: no two partitions, volumes or file systems share an id.
    // A device that several others lie on is listed once for each of them.
    let ids = guest.shell(
        "lsblk -nro NAME,PARTUUID,UUID | sort -u | cut -d' ' -f2- | tr ' ' '\\n' | sed '/^$/d' | sort | uniq -d",
    )?;
    ensure!(ids.is_empty(), "these ids are there twice: {ids}");
    Ok(())
}
