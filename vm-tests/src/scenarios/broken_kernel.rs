//! A version 2 whose kernel does not get up.
//!
//! Both versions have the same kernel, so it is the new entry's arguments that break it: a drop-in for the service that
//! writes the entry at shutdown changes the entry right afterwards, as a bad build would have written it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::guest::{Guest, patience};
use crate::world::State;

/// Adds kernel arguments to version 2's entry, and leaves it `tries` tries.
pub fn break_entry(guest: &Guest, commit: &str, arguments: &str, tries: u32) -> Result<()> {
    let script = format!(
        "#!/bin/sh\nset -e\ncd /efi/loader/entries\nfor old in slipway-*-{short}.*+*.conf; do\n\
         new=$(echo \"$old\" | sed 's/+.*/+{tries}.conf/')\n\
         sed 's|^options |options {arguments} |' \"$old\" > /run/entry\n\
         rm \"$old\"\ncp /run/entry \"$new\"\ndone\nsync -f .\n",
        short = &commit[..12]
    );
    guest.push(script.as_bytes(), "/etc/break-entry", 0o755)?;
    guest
        .push(
            b"[Service]\nExecStop=/etc/break-entry\n",
            "/etc/systemd/system/slipway-finalize.service.d/break.conf",
            0o644,
        )
        .or_else(|_| {
            guest.shell("mkdir -p /etc/systemd/system/slipway-finalize.service.d")?;
            guest.push(
                b"[Service]\nExecStop=/etc/break-entry\n",
                "/etc/systemd/system/slipway-finalize.service.d/break.conf",
                0o644,
            )
        })?;
    guest.shell("systemctl daemon-reload")?;
    Ok(())
}

/// Upgrades into an entry that cannot boot, and wants to be back on version 1 without help.
pub fn falls_back(context: &Context<'_>, arguments: &str, tries: u32, within: Duration) -> Result<()> {
    let artifacts = context.artifacts();
    let server = context.updates()?;
    let guest = context.resume(State::Booted, &server)?;
    guest.host_ok("upgrade")?;
    break_entry(&guest, &artifacts.v2, arguments, tries)?;
    let before = guest.wait_boot(patience())?;
    guest.restart_by("host reboot", within)?;
    guest.next_boot(&before, within)?;
    guest.on(&artifacts.v1)?;
    let entries = guest.shell("ls /efi/loader/entries")?;
    ensure!(guest.serial_log().contains("Linux version") || !entries.is_empty(), "no boot was tried");
    // It has learnt: that commit is not staged again by itself.
    let status = guest.status()?;
    let state = status["deployments"].as_array().into_iter().flatten().find(|d| d["commit"] == artifacts.v2.as_str());
    ensure!(state.is_none_or(|d| d["state"] == "bad"), "version 2 is not marked bad: {status:#}");
    let again = guest.host("upgrade")?;
    ensure!(again.code == 3, "`host upgrade` to a bad version ended with {}: {}", again.code, again.errors());
    guest.nothing_staged()
}

pub fn run(context: &Context<'_>) -> Result<()> {
    falls_back(context, "rdinit=/nowhere init=/nowhere", 2, patience() * 2)
}

/// The kernel stops in a loop before the initramfs: only the hardware watchdog can help, and only where its driver got
/// that far. PID 1 stops feeding it.
pub fn hung(context: &Context<'_>) -> Result<()> {
    // Processors in real-time loops, PID 1 starved: see the watchdog in the entry's arguments.
    falls_back(context, "systemd.unit=hang.target systemd.run=\\\"kill -STOP 1\\\"", 1, patience() * 2)
}

/// A unit of the initramfs never ends: its timeout has to.
pub fn hung_initramfs(context: &Context<'_>) -> Result<()> {
    falls_back(context, "rd.break=pre-mount rd.lvm.lv=host/nowhere", 1, patience() * 2)
}
