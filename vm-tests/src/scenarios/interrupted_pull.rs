//! Pulls that do not reach their end.

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::guest::patience;
use crate::world::State;

pub fn server_gone(context: &Context<'_>) -> Result<()> {
    let artifacts = context.artifacts();
    let repo = context.repository()?.objects_only()?;
    let server = context.serve(&repo.path, &["--fail-after", "12"])?;
    let guest = context.resume(State::Booted, &server)?;
    let output = guest.host("upgrade")?;
    ensure!(output.code == 1, "`host upgrade` ended with {}: {}", output.code, output.errors());
    guest.nothing_staged()?;
    // What arrived stays; a pull that is started again takes the rest.
    let _server = context.updates_instead_of(server)?;
    guest.host_ok("upgrade")?;
    guest.staged(&artifacts.v2)
}

pub fn power_cut(context: &Context<'_>) -> Result<()> {
    let artifacts = context.artifacts();
    let repo = context.repository()?.objects_only()?;
    let server = context.serve(&repo.path, &["--throttle", "200k"])?;
    let mut guest = context.resume(State::Booted, &server)?;
    guest.shell("systemd-run -q --unit=upgrade host upgrade; sleep 4; systemctl is-active upgrade")?;
    guest.kill();
    guest.power_on()?;
    guest.wait_boot(patience())?;
    guest.healthy()?;
    guest.on(&artifacts.v1)?;
    guest.nothing_staged()?;
    guest.host_ok("fsck")?;
    guest.host_ok("upgrade")?;
    guest.staged(&artifacts.v2)
}
