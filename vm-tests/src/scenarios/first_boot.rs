//! A first boot that is told who it is: by whoever starts the machine (SMBIOS), and by whoever wrote its disk.
//!
//! ```text
//! slipway image --credential …              the ESP: a network with a device for it, a unit with a drop-in, a file,
//!                                            and a host name that SMBIOS overrides
//!               --remote-url … --remote-ref …    updates from elsewhere, by the keys of the tree all the same
//! the machine's SMBIOS strings               a host name, a password, an SSH key
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sys::Cmd;
use vm::{Forward, Request};

use crate::artifacts::UPDATES;
use crate::context::Context;
use crate::guest::{Guest, patience};
use crate::repository::Repository;

/// Files on the ESP. The unit writes down what only its drop-in knows; nothing else starts it.
const ON_ESP: &[(&str, &str)] = &[
    ("system.hostname", "overridden\n"),
    ("network.netdev.50-beacon", "[NetDev]\nName=beacon0\nKind=dummy\n"),
    ("network.network.50-beacon", "[Match]\nName=beacon0\n[Network]\nAddress=192.0.2.7/24\n"),
    ("tmpfiles.extra", "f /etc/beacon.conf 0640 root root - bright\n"),
    (
        "systemd.extra-unit.beacon.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo $COLOUR >> /var/lib/beacon'\n\
         [Install]\nWantedBy=multi-user.target\n",
    ),
    ("systemd.unit-dropin.beacon.service", "[Service]\nEnvironment=COLOUR=green\n"),
];

/// Below the update server's root, where the tree's own URL has no repository.
const ELSEWHERE: &str = "harbour";
/// A ref that the tree does not follow by itself.
const OTHER_REF: &str = "harbour/container-host";

/// The image of version 1 with everything that `slipway image` can tell a machine.
fn image(context: &Context<'_>, dir: &Path) -> Result<PathBuf> {
    let artifacts = context.artifacts();
    let (image, credentials) = (dir.join("image.qcow2"), dir.join("on-esp"));
    std::fs::create_dir_all(&credentials)?;
    let mut cmd = Cmd::new(&context.world.slipway).args(["image", &artifacts.v1, "--repo"]).arg(&artifacts.repo);
    cmd = cmd.arg("--output").arg(&image);
    cmd = cmd.args(["--remote-url", &url(), "--remote-ref", OTHER_REF]);
    for (name, value) in ON_ESP {
        let file = credentials.join(name);
        std::fs::write(&file, value)?;
        cmd = cmd.arg("--credential").arg(format!("{name}={}", file.display()));
    }
    cmd.run()?;
    Ok(image)
}

fn url() -> String {
    format!("http://{UPDATES}/{ELSEWHERE}")
}

pub fn run(context: &Context<'_>) -> Result<()> {
    let served = context.dir.join("repo-served");
    std::fs::create_dir_all(&served)?;
    let repo = Repository::copy(&context.artifacts().repo, &served.join(ELSEWHERE))?;
    let server = context.serve(&served, &[])?;
    let dir = context.machine_dir();
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut builder = context.world.builder("first-boot", &server)?;
    builder = builder
        .boot_disk(image(context, &dir)?)
        .dir(&dir)
        .ssh_key()
        .forward(Forward { host: port, guest: 22 })
        .credential("system.hostname", "lighthouse")
        .credential(
            "passwd.hashed-password.root",
            "$6$slipway$GIzdgr4aU4uCxUZgEmQCJ1JYE5VqnIRP9qUvmBY4x0p8PpBZT4BL0cnXSnh8hyQPA2Rg3zZCqTp4ZqTp7m2u1/",
        );
    let guest = Guest(builder.start()?);
    guest.wait_ready(patience())?;
    guest.healthy()?;
    from_smbios(&guest)?;
    from_esp(&guest)?;
    told(&guest)?;
    updates_from_elsewhere(context, &guest, &repo)?;

    // The key lets in over the network.
    let ssh = Cmd::new("ssh")
        .arg("-i")
        .arg(dir.join("ssh-key"))
        .args(["-p", &port.to_string(), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "root@127.0.0.1", "hostname"]);
    ensure!(ssh.run()?.text() == "lighthouse", "ssh leads somewhere else");

    // Applied once: a change stays through the next boot, and so does what was left alone.
    guest.shell("hostnamectl set-hostname changed 2>/dev/null || echo changed > /etc/hostname")?;
    guest.shell("echo dim > /etc/beacon.conf")?;
    guest.reboot(patience())?;
    guest.wait_ready(patience())?;
    let script = "cat /etc/hostname /etc/beacon.conf /var/lib/beacon; systemctl is-active beacon.service";
    let after = guest.request(Request { script, input: b"", timeout: patience() })?.text();
    ensure!(
        after == "changed\ndim\ngreen\ngreen\nactive",
        "the second boot applied credentials again, or lost what they gave: {after}"
    );
    from_elsewhere(&guest)
}

fn from_smbios(guest: &Guest) -> Result<()> {
    ensure!(guest.shell("hostname")? == "lighthouse", "the machine is called {}", guest.shell("hostname")?);
    let hash = guest.shell("getent shadow root | cut -d: -f2")?;
    ensure!(hash.starts_with("$6$slipway$"), "root's password is {hash}");
    ensure!(
        !guest.serial_log().to_lowercase().contains("nobody can log in"),
        "the console says that nobody can log in"
    );
    Ok(())
}

fn from_esp(guest: &Guest) -> Result<()> {
    let address = guest.shell("ip -4 -o address show dev beacon0")?;
    ensure!(address.contains("192.0.2.7/24"), "the network from the ESP gave {address}");
    let file = guest.shell("stat -c '%a %U' /etc/beacon.conf && cat /etc/beacon.conf")?;
    ensure!(file == "640 root\nbright", "tmpfiles.extra made {file}");
    let unit = guest.shell("systemctl is-active beacon.service && cat /var/lib/beacon")?;
    ensure!(unit == "active\ngreen", "the unit and its drop-in gave {unit}");
    // Nobody finds a secret there later.
    let left =
        guest.shell("mountpoint -q /efi && ls -d /efi/slipway/credentials /efi/slipway/credentials/* 2>&1 || true")?;
    ensure!(left.lines().all(|l| l.contains("No such file")), "left on the ESP: {left}");
    Ok(())
}

/// `host status -v` says what was done, and where it came from; values it keeps to itself.
fn told(guest: &Guest) -> Result<()> {
    let status = guest.host_ok("status -v")?;
    let given = ["system.hostname", "passwd.hashed-password.root", "ssh.authorized_keys.root"];
    // A host name is in both places: SMBIOS wins.
    let all = given.iter().map(|name| (*name, false)).chain(ON_ESP.iter().skip(1).map(|(name, _)| (*name, true)));
    for (name, esp) in all {
        let line = status.lines().find(|l| l.trim_start().starts_with(&format!("applied {name} (")));
        ensure!(
            line.is_some_and(|l| l.contains("(ESP)") == esp),
            "host status -v does not say that {name} was applied, or from where: {status}"
        );
    }
    for secret in ["$6$slipway$", "COLOUR", "192.0.2.7", "bright"] {
        ensure!(!status.contains(secret), "host status -v shows {secret}: {status}");
    }
    from_elsewhere(guest)
}

/// The address and ref of the image are in effect.
fn from_elsewhere(guest: &Guest) -> Result<()> {
    let remote = guest.status()?["remote"].clone();
    ensure!(
        remote["url"] == url().as_str() && remote["ref"] == OTHER_REF && remote["overridden"] == true,
        "updates come from {remote}"
    );
    Ok(())
}

/// There, only what the tree's own key has signed counts: neither address nor ref bring keys with them.
fn updates_from_elsewhere(context: &Context<'_>, guest: &Guest, repo: &Repository) -> Result<()> {
    let artifacts = context.artifacts();
    let offered = repo.commit_as(OTHER_REF, &artifacts.v2)?;
    repo.sign_by_a_stranger(&context.world.slipway, &offered)?;
    let said = guest.host_fails("upgrade", 3)?;
    ensure!(
        said.contains("signed by a key of the running tree"),
        "why a stranger's update is refused is not said: {said}"
    );
    guest.nothing_staged()?;
    repo.sign(&context.world.slipway, &offered, &artifacts.key)?;
    let offer: serde_json::Value = serde_json::from_str(&guest.host_ok("upgrade --check --json")?)?;
    ensure!(offer["commit"] == offered.as_str() && offer["new"] == true, "what is offered elsewhere is {offer}");
    Ok(())
}
