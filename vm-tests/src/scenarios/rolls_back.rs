//! The way back.

use anyhow::{Result, ensure};

use super::states::quadlet_job_runs;
use crate::artifacts::ISSUE_NET_2;
use crate::context::Context;
use crate::guest::summary;
use crate::world::State;

pub fn run(context: &Context<'_>) -> Result<()> {
    let artifacts = context.artifacts();
    let server = context.updates()?;
    let guest = context.resume(State::Upgraded, &server)?;
    let id = guest.shell("cat /etc/machine-id")?;
    guest.shell("echo later > /var/lib/later")?;
    guest.restart("host rollback --reboot")?;
    let status = guest.on(&artifacts.v1)?;
    ensure!(status["rollback"]["commit"] == artifacts.v2.as_str(), "version 2 is gone:\n{}", summary(&status));
    // Version 1's tree and its /etc; /var is shared.
    ensure!(guest.exec("command -v tree")?.code != 0, "version 2's package is still there");
    let issue = guest.shell("cmp /etc/issue.net /usr/etc/issue.net && cat /etc/issue.net")?;
    ensure!(
        issue.contains("Debian") && issue != ISSUE_NET_2.trim_end(),
        "version 1's /etc/issue.net is not back: {issue}"
    );
    quadlet_job_runs(&guest)?;
    guest.shell("id alice && test -e /var/lib/later && podman container exists keeper")?;
    ensure!(guest.shell("cat /etc/motd")? == "changed by the operator", "the change in /etc is lost");
    ensure!(guest.shell("cat /etc/machine-id")? == id, "the machine-id has changed");
    Ok(())
}
