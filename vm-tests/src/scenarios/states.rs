//! The states that scenarios start from.

use anyhow::{Context, Result};
use sys::Cmd;

use crate::artifacts::Artifacts;
use crate::guest::{Guest, patience};

/// The image's first boot, up and, where it is well, blessed. What is not well is for scenarios to say.
pub fn booted(guest: &Guest) -> Result<()> {
    guest.wait_ready(patience())?;
    // The bless may come a little after the last unit.
    guest.exec("for i in $(seq 60); do ls /efi/loader/entries | grep -q '+' || break; sleep 1; done")?;
    Ok(())
}

/// A machine that somebody has used, then upgraded:
///
/// - user `alice` with a home and a file; `/etc/motd` and `/etc/operator.conf` written, `/etc/issue` removed
/// - container `keeper` on the image `busybox:1`, with a file of its own
/// - the Quadlet unit `job`, written and nothing more: the next boot has to start it
/// - then `host upgrade` and a restart through it
pub fn upgraded(guest: &Guest, artifacts: &Artifacts) -> Result<()> {
    busybox_image(guest)?;
    quadlet_job(guest)?;
    guest.shell(
        "set -e
         useradd -m alice && echo mine > /home/alice/file && chown alice: /home/alice/file
         echo 'changed by the operator' > /etc/motd
         echo 'made by the operator' > /etc/operator.conf
         rm /etc/issue
         podman create -q --name keeper --network none busybox:1 /bin/busybox sh -c 'cat /kept || echo first > /kept'
         podman start -a keeper",
    )?;
    guest.host_ok("upgrade")?;
    guest.staged(&artifacts.v2)?;
    guest.restart_by("host reboot", patience())?;
    booted(guest)?;
    guest.on(&artifacts.v2)?;
    Ok(())
}

/// Writes a Quadlet unit for a container that runs until it is told to end; does not start it.
pub fn quadlet_job(guest: &Guest) -> Result<()> {
    guest.push(
        b"[Container]\nImage=localhost/busybox:1\nNetwork=none\nExec=/bin/busybox sh -c \"trap 'exit 0' TERM; while :; do \
          /bin/busybox sleep 1; done\"\n[Install]\nWantedBy=multi-user.target\n",
        "/etc/containers/systemd/job.container",
        0o644,
    )?;
    Ok(())
}

/// Wants that unit to be up, and its container with it.
pub fn quadlet_job_runs(guest: &Guest) -> Result<()> {
    guest.shell("systemctl is-active job.service && podman ps --format '{{.Names}}' | grep -x systemd-job")?;
    Ok(())
}

/// Puts the image `busybox:1` into the machine, without a registry.
pub fn busybox_image(guest: &Guest) -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("bin"))?;
    std::fs::copy("/bin/busybox", dir.path().join("bin/busybox"))
        .context("copying busybox (package busybox-static)")?;
    let tar = Cmd::new("tar").arg("-C").arg(dir.path()).args(["--owner=0", "--group=0", "-cf", "-", "bin"]).run()?;
    guest.push(&tar.stdout, "/var/tmp/busybox.tar", 0o600)?;
    guest.shell("podman import -q /var/tmp/busybox.tar localhost/busybox:1 && rm /var/tmp/busybox.tar")?;
    Ok(())
}
