//! A staged version whose signature, before it boots, disappears or gives way to a stranger's.

use anyhow::{Result, ensure};

use super::broken_kernel::break_entry;
use crate::context::Context;
use crate::guest::Guest;
use crate::world::State;

pub fn run(context: &Context<'_>) -> Result<()> {
    refused(context, "it carries no signature", |_, meta| Ok(format!("rm {meta}")))
}

/// The content is whole and a signature is there: only whose it is can tell.
pub fn wrong_key(context: &Context<'_>) -> Result<()> {
    refused(context, "is valid and by a trusted key", |guest, meta| {
        let repo = context.repository()?;
        let v2 = &context.artifacts().v2;
        repo.unsign(v2)?;
        repo.sign_by_a_stranger(&context.world.slipway, v2)?;
        guest.push(&repo.signatures(v2)?, "/var/tmp/commitmeta", 0o644)?;
        // A file of its own: the old one must not be found behind another name.
        Ok(format!("rm {meta}; cp /var/tmp/commitmeta {meta}"))
    })
}

/// Stages version 2, does to its signatures what `change` says, and wants its boot refused for the reason `why`.
fn refused(context: &Context<'_>, why: &str, change: impl FnOnce(&Guest, &str) -> Result<String>) -> Result<()> {
    let artifacts = context.artifacts();
    let server = context.updates()?;
    let guest = context.resume(State::Booted, &server)?;
    guest.host_ok("upgrade")?;
    // One try is enough to see it refused.
    break_entry(&guest, &artifacts.v2, "", 1)?;
    let meta = format!("/sysroot/ostree/repo/objects/{}/{}.commitmeta", &artifacts.v2[..2], &artifacts.v2[2..]);
    let script = change(&guest, &meta)?;
    guest.shell(&format!(
        "unshare -m sh -ec 'mount -o remount,rw /sysroot; test -s {meta}; {script}; sync -f /sysroot'"
    ))?;
    guest.restart_onto("host reboot", &artifacts.v1)?;
    guest.on(&artifacts.v1)?;
    // It was tried, and the console says why it went no further.
    let log = guest.serial_log();
    let tried = log.contains(&format!("slipway.deployment=slipway/{}", artifacts.v2));
    ensure!(tried, "version 2 was never tried");
    ensure!(log.contains(why), "the console does not say why version 2 was refused ({why})");
    Ok(())
}
