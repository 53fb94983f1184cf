//! A first boot that is told who it is.

use anyhow::{Result, ensure};
use vm::{Forward, Request};

use crate::context::Context;
use crate::guest::{Guest, patience};

pub fn run(context: &Context<'_>) -> Result<()> {
    let server = context.updates()?;
    let dir = context.machine_dir();
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut builder = context.world.builder("first-boot", &server)?;
    builder = builder
        .boot_disk(&context.artifacts().image)
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
    ensure!(guest.shell("hostname")? == "lighthouse", "the machine is called {}", guest.shell("hostname")?);
    let hash = guest.shell("getent shadow root | cut -d: -f2")?;
    ensure!(hash.starts_with("$6$slipway$"), "root's password is {hash}");
    ensure!(
        !guest.serial_log().to_lowercase().contains("nobody can log in"),
        "the console says that nobody can log in"
    );
    let status = guest.host_ok("status -v")?;
    ensure!(
        status.contains("hostname") && status.contains("ssh"),
        "host status -v does not say what was applied: {status}"
    );

    // The key lets in over the network.
    let ssh = sys::Cmd::new("ssh")
        .arg("-i")
        .arg(dir.join("ssh-key"))
        .args(["-p", &port.to_string(), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "root@127.0.0.1", "hostname"]);
    ensure!(ssh.run()?.text() == "lighthouse", "ssh leads somewhere else");

    // Applied once: a change stays through the next boot.
    guest.shell("hostnamectl set-hostname changed 2>/dev/null || echo changed > /etc/hostname")?;
    guest.reboot(patience())?;
    guest.wait_ready(patience())?;
    let script = "cat /etc/hostname";
    let name = guest.request(Request { script, input: b"", timeout: patience() })?.text();
    ensure!(name == "changed", "the second boot applied the credential again: {name}");
    Ok(())
}
