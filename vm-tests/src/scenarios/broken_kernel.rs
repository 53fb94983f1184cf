//! A version 2 whose kernel does not get up.
//!
//! Both versions have the same kernel, so it is the new entry's arguments that break it: a drop-in for the service that
//! writes the entry at shutdown changes the entry right afterwards, as a bad build would have written it.

use anyhow::{Result, ensure};
use base64::Engine;

use crate::context::Context;
use crate::guest::{Guest, summary};
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
    let dir = "/etc/systemd/system/slipway-finalize.service.d";
    guest.shell(&format!("mkdir -p {dir}"))?;
    guest.push(b"[Service]\nExecStop=/etc/break-entry\n", &format!("{dir}/break.conf"), 0o644)?;
    guest.shell("systemctl daemon-reload")?;
    Ok(())
}

/// Upgrades into an entry that cannot boot, and wants to be back on version 1 without help.
fn falls_back(
    context: &Context<'_>,
    arguments: &str,
    tries: u32,
    prepare: impl FnOnce(&Guest) -> Result<()>,
) -> Result<()> {
    let artifacts = context.artifacts();
    let server = context.updates()?;
    let guest = context.resume(State::Booted, &server)?;
    prepare(&guest)?;
    guest.host_ok("upgrade")?;
    break_entry(&guest, &artifacts.v2, arguments, tries)?;
    guest.restart_onto("host reboot", &artifacts.v1)?;
    guest.on(&artifacts.v1)?;
    // The broken entry was really tried, as often as it had tries.
    let boots = guest.serial_log().matches(&format!("slipway.deployment=slipway/{}", artifacts.v2)).count();
    ensure!(boots >= tries as usize, "version 2 was tried {boots} times, not {tries}");
    // It has learnt: that commit is not staged again by itself.
    let status = guest.status()?;
    let state = status["deployments"].as_array().into_iter().flatten().find(|d| d["commit"] == artifacts.v2.as_str());
    ensure!(state.is_none_or(|d| d["state"] == "bad"), "version 2 is not marked bad:\n{}", summary(&status));
    let again = guest.host("upgrade")?;
    ensure!(again.code == 3, "`host upgrade` to a bad version ended with {}: {}", again.code, again.errors());
    guest.nothing_staged()
}

pub fn run(context: &Context<'_>) -> Result<()> {
    falls_back(context, "rdinit=/nowhere", 2, |_| Ok(()))
}

/// Every processor in a loop that the kernel never interrupts for ordinary tasks, PID 1 among them: nobody feeds the
/// watchdog. The unit comes into version 2 with the rest of `/etc`.
pub fn hung(context: &Context<'_>) -> Result<()> {
    let unit = "[Unit]\nConditionKernelCommandLine=slipway.hang\nDefaultDependencies=no\nAfter=local-fs.target\n\
                [Service]\nCPUSchedulingPolicy=fifo\nCPUSchedulingPriority=99\nExecStart=/bin/sh -c 'sysctl -q \
                kernel.sched_rt_runtime_us=-1; mount -t debugfs none /sys/kernel/debug; \
                for f in /sys/kernel/debug/sched/fair_server/cpu*/runtime; do echo 0 > $f; done; \
                for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait'\n";
    let prepare = |guest: &Guest| {
        guest.push(unit.as_bytes(), "/etc/systemd/system/hang.service", 0o644)?;
        let wants = "/etc/systemd/system/sysinit.target.wants";
        guest.shell(&format!("mkdir -p {wants} && ln -s ../hang.service {wants}/hang.service"))?;
        Ok(())
    };
    falls_back(context, "slipway.hang", 1, prepare)
}

/// The root's volume is not there.
pub fn missing_root(context: &Context<'_>) -> Result<()> {
    falls_back(context, "rd.lvm.lv=host/nowhere", 1, |_| Ok(()))
}

/// The program that mounts the root never ends: its unit's timeout has to.
pub fn hung_initramfs(context: &Context<'_>) -> Result<()> {
    let dropin = "[Service]\nExecStartPre=/bin/sh -c 'while :; do :; done'\n";
    let dropin = base64::engine::general_purpose::STANDARD.encode(dropin);
    let name = "systemd.unit-dropin.slipway-prepare-root.service";
    falls_back(context, &format!("systemd.set_credential_binary={name}:{dropin}"), 1, |_| Ok(()))
}
