//! A staged version whose signature disappears before it boots.

use anyhow::{Result, ensure};

use super::broken_kernel::break_entry;
use crate::context::Context;
use crate::world::State;

pub fn run(context: &Context<'_>) -> Result<()> {
    let artifacts = context.artifacts();
    let server = context.updates()?;
    let guest = context.resume(State::Booted, &server)?;
    guest.host_ok("upgrade")?;
    // One try is enough to see it refused.
    break_entry(&guest, &artifacts.v2, "", 1)?;
    let meta = format!("ostree/repo/objects/{}/{}.commitmeta", &artifacts.v2[..2], &artifacts.v2[2..]);
    guest.shell(&format!(
        "unshare -m sh -ec 'mount -o remount,rw /sysroot; test -s /sysroot/{meta}; rm /sysroot/{meta}; sync -f /sysroot'"
    ))?;
    guest.restart_onto("host reboot", &artifacts.v1)?;
    guest.on(&artifacts.v1)?;
    let log = guest.serial_log().to_lowercase();
    ensure!(log.contains("signature") || log.contains("not signed"), "the console does not say why it was refused");
    Ok(())
}
