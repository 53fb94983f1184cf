//! After the upgrade: what is new is there, and what belongs to the machine has stayed.

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
    guest.healthy()?;
    guest.blessed()?;
    let status = guest.on(&artifacts.v2)?;
    ensure!(status["rollback"]["commit"] == artifacts.v1.as_str(), "no way back to version 1:\n{}", summary(&status));

    // The new tree: a package, a user with a fixed id, a directory that is his.
    guest.shell("tree --version && id slipway-test && test \"$(stat -c %U /var/lib/slipway-test)\" = slipway-test")?;
    ensure!(guest.shell("cat /etc/issue.net")? == ISSUE_NET_2.trim_end(), "the tree's new file has not come into /etc");
    // The machine's own: a user made on version 1, his file; what was written, changed and removed in /etc.
    guest.shell("id alice && test \"$(cat /home/alice/file)\" = mine")?;
    ensure!(guest.shell("stat -c %U /home/alice/file")? == "alice", "the file belongs to somebody else");
    ensure!(guest.shell("cat /etc/motd")? == "changed by the operator", "the change in /etc is lost");
    ensure!(guest.shell("cat /etc/operator.conf")? == "made by the operator", "the file in /etc is lost");
    ensure!(guest.exec("test ! -e /etc/issue")?.code == 0, "a file that was removed from /etc is back");
    // The container, with what it had written.
    ensure!(guest.shell("podman start -a keeper")? == "first", "the container's file is lost");
    // The Quadlet unit that lay in /etc: nobody but the boot has started it.
    quadlet_job_runs(&guest)?;
    // One identity through both versions.
    guest.shell("test -s /etc/machine-id && test -s /etc/ssh/ssh_host_ed25519_key")?;
    // Nothing more to get.
    let again = guest.host("upgrade")?;
    ensure!(again.code == 0 || again.code == 77, "a second upgrade ended with {}: {}", again.code, again.errors());
    guest.nothing_staged()
}
