//! The first boot of the shipped image.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::guest::{patience, summary};
use crate::world::State;

pub fn run(context: &Context<'_>) -> Result<()> {
    let server = context.updates()?;
    let guest = context.resume(State::Booted, &server)?;
    guest.healthy()?;
    guest.blessed()?;
    let status = guest.on(&context.artifacts().v1)?;
    ensure!(status["booted"]["signer"].is_string(), "no signer:\n{}", summary(&status));

    // Every read of the system is verified by the kernel, and nobody can write to it.
    let root = guest.shell("findmnt -no FSTYPE,OPTIONS /")?;
    ensure!(root.starts_with("overlay") && root.contains("verity=require"), "the root is {root}");
    for path in ["/usr/x", "/x", "/sysroot/x"] {
        let output = guest.exec(&format!("touch {path}"))?;
        ensure!(output.code != 0 && output.errors().contains("Read-only"), "{path} can be written");
    }
    guest.shell("touch /etc/x /var/x && rm /etc/x /var/x && test -u /usr/bin/passwd")?;

    // Nothing of the machine's identity is in the image.
    let id = guest.shell("cat /etc/machine-id")?;
    ensure!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "machine-id is {id:?}");
    guest.shell("test -s /etc/ssh/ssh_host_ed25519_key.pub")?;
    guest.shell("test ! -e /usr/etc/ssh/ssh_host_ed25519_key && test ! -s /usr/etc/machine-id")?;

    // No password, no key: the console has to say that there is no way in.
    // The machine may have been saved before its getty had asked the terminal for its size: a fresh one shows it now.
    guest.shell("systemctl restart serial-getty@ttyS0.service")?;
    let deadline = Instant::now() + patience();
    let told = |console: String| vm::plain(console.as_bytes()).to_lowercase().contains("nobody can log in");
    while !told(guest.serial_log()) {
        ensure!(Instant::now() < deadline, "the console does not say that nobody can log in");
        std::thread::sleep(Duration::from_millis(500));
    }
    let roots = guest.shell("getent shadow root | cut -d: -f2")?;
    ensure!(matches!(roots.as_str(), "*" | "!" | "!*" | "!locked"), "root has a password: {roots}");

    // The file systems are mounted from this disk, with the ESP in place.
    guest.shell("mountpoint -q /efi && mountpoint -q /var/lib/containers && mountpoint -q /sysroot")?;
    // What the tree says about itself is what was composed.
    let packages =
        guest.shell("dpkg-query --admindir=/usr/lib/sysimage/dpkg -W -f '${db:Status-Abbrev}\n' | sort | uniq -c")?;
    ensure!(packages.lines().count() == 1 && packages.contains("ii"), "packages are not all installed: {packages}");
    Ok(())
}
