//! `slipway-fresh-ids`: started by systemd in the initramfs before dracut looks for volume groups.
//!
//! Finds the disk that was booted, gives it ids of its own where it still has those of its image, and leaves the files
//! that make everything after it use this disk and no other.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::ids::find::{self, Found};
use crate::ids::{self, Outcome, gpt};

/// How long a disk may take to appear once udev has nothing left to do, and in all. Drivers load while this runs; a
/// disk that takes longer is left to dracut's own waiting, and gets its ids at a later boot.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_IN_ALL: Duration = Duration::from_secs(60);

/// udev keeps this file while it has events to handle.
const QUEUE: &str = "run/udev/queue";

/// Does all of it on the machine whose root is `root`; `say` gets the lines for the console.
pub fn run(root: &Path, volume: &str, say: &mut dyn FnMut(&str)) -> Result<(), ids::IdsError> {
    let start = Instant::now();
    let mut idle = start;
    let found = loop {
        // The variables may appear later than the first disk: their file system is a module.
        let esp = find::booted_esp(root);
        if let Some(found) = find::booted_disk(root, esp)? {
            break found;
        }
        // Drivers that are still to be loaded are among its events.
        if root.join(QUEUE).exists() {
            idle = Instant::now();
        }
        if idle.elapsed() > PATIENCE || start.elapsed() > PATIENCE_IN_ALL {
            let seen = esp.map_or_else(|| "the boot loader named none".to_owned(), |e| format!("ESP {e}"));
            say(&format!("the booted disk was not found ({seen}); its ids are left as they are"));
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    };
    let found = settle(root, volume, found, say)?;
    for (path, text) in find::follow_up(&found) {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

/// Gives the disk ids of its own if it has none yet; returns the disk with the ids it has then.
fn settle(root: &Path, volume: &str, found: Found, say: &mut dyn FnMut(&str)) -> Result<Found, ids::IdsError> {
    let path = root.join("dev").join(&found.name);
    // Closing a disk that was open for writing makes udev take its partitions away for a moment and bring them back,
    // so a disk that needs nothing is only read.
    let marked = gpt::Table::read(&find::Device::open(&path, false)?, ids::SECTOR)?.marked();
    if marked.is_none() {
        return Ok(found);
    }
    let disk = find::Device::open(&path, true)?;
    let fresh = match ids::refresh(&disk, volume, &mut random)? {
        Outcome::Settled => return Ok(found),
        Outcome::Fresh(fresh) => fresh,
    };
    say(&format!("/dev/{}: disk {}, volume group {}, file system {}", found.name, fresh.disk, fresh.vg, fresh.root));
    let table = gpt::Table::read(&disk, ids::SECTOR)?;
    // Closed before udev is told: it does not look at a disk that somebody holds the lock of.
    drop(disk);
    announce(root, &found.name);
    // Closing a disk that was written to makes udev read its partitions again; LVM must not be in the middle of that.
    let start = Instant::now();
    thread::sleep(Duration::from_millis(200));
    while root.join(QUEUE).exists() && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(find::examine(&found.name, &table, fresh.esp).unwrap_or(found))
}

/// Makes udev look again at the disk and its partitions. That may be under way already, because the disk was closed:
/// then a partition is missing for a moment, and what brings it back is an event of its own.
fn announce(root: &Path, name: &str) {
    let disk = root.join("sys/class/block").join(name);
    for entry in fs::read_dir(&disk).into_iter().flatten().flatten() {
        if entry.path().join("partition").exists() {
            let _gone = fs::write(entry.path().join("uevent"), "change");
        }
    }
    let _gone = fs::write(disk.join("uevent"), "change");
}

/// 32 random bytes. At this time of a first boot the kernel's pool may not be ready; it is as soon as this returns.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        if let Ok(n) = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            filled += n;
        }
    }
    bytes
}
