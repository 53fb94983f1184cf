//! The tree for real machines, composed, then booted and used by hand through `slipway vm`, as its developer would.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sys::Cmd;

use crate::context::Context;

const REF: &str = "slipway/trixie/amd64/container-host-metal";

/// A machine of `slipway vm`, removed whatever happens.
struct Named {
    slipway: PathBuf,
    name: String,
}

impl Named {
    fn verb(&self, verb: &str) -> Cmd {
        Cmd::new(&self.slipway).args(["vm", verb])
    }

    fn exec(&self, line: &str) -> Result<String> {
        Ok(self.verb("exec").arg(&self.name).args(["--", "sh", "-c", line]).run()?.text())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.verb("rm").args(["--force", &self.name]).output();
    }
}

pub fn run(context: &Context<'_>) -> Result<()> {
    let slipway = context.world.slipway.clone();
    let bin = slipway.parent().context("where slipway lies")?;
    let repo = context.dir.join("repo-metal");
    compose(context, &slipway, &bin.with_file_name("deb"), &repo)?;

    let machine = Named { slipway, name: format!("metal-{}", std::process::id()) };
    let extra = context.dir.join("extra.raw");
    std::fs::File::create(&extra)?.set_len(64 << 20)?;
    let (name, files) = (context.dir.join("hostname"), context.dir.join("tmpfiles"));
    std::fs::write(&name, "metal-box\n")?;
    std::fs::write(&files, "f /etc/word 0644 root root - from-outside\n")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let boot = || -> Result<()> {
        machine
            .verb("run")
            .args([REF, "--detach", "--keep", "--memory", "3072", "--timeout", "900", "--repo"])
            .arg(&repo)
            .args(["--name", &machine.name, "--console"])
            .arg(context.dir.join("console.log"))
            .arg("--disk")
            .arg(&extra)
            .arg("--credential")
            .arg(format!("firstboot.hostname={}", name.display()))
            .arg("--credential")
            .arg(format!("tmpfiles.extra={}", files.display()))
            .args(["--forward", &format!("{port}:22")])
            .run()?;
        Ok(())
    };

    boot()?;
    let kernel = machine.exec("uname -r")?;
    ensure!(!kernel.contains("cloud"), "the kernel is {kernel}");
    let state = machine.exec("systemctl is-system-running; systemctl --failed --no-legend --plain")?;
    ensure!(state == "running", "systemd says {state}");
    ensure!(machine.exec("host status")?.contains("verified"), "the boot is not verified");
    ensure!(machine.exec("lsblk -dno SERIAL")?.lines().any(|l| l.trim() == "extra"), "the second disk is missing");
    ensure!(machine.exec("hostname; cat /etc/word")? == "metal-box\nfrom-outside", "the credentials did not arrive");
    ensure!(machine.exec("nproc")? == "2", "not two processors");
    let code = machine.verb("exec").arg(&machine.name).args(["--", "sh", "-c", "exit 7"]).output()?.code;
    ensure!(code == 7, "an exit code of 7 came out as {code}");
    // Over the network: with the key that was made for this machine, and through the forwarded port.
    let over_ssh = machine.verb("ssh").arg(&machine.name).args(["--", "uname", "-r"]).run()?.text();
    ensure!(over_ssh == kernel, "over SSH the kernel is {over_ssh}");
    ensure!(banner(port)?.starts_with("SSH-2.0"), "the forwarded port does not lead to sshd");
    let listed = machine.verb("list").run()?.text();
    ensure!(listed.contains(&machine.name), "not among the machines:\n{listed}");
    ensure!(machine.verb("logs").arg(&machine.name).run()?.text().contains("Linux version"), "no console log");

    machine.exec("echo still here > /var/lib/kept")?;
    machine.verb("stop").arg(&machine.name).run()?;
    boot()?;
    ensure!(machine.exec("cat /var/lib/kept")? == "still here", "--keep has kept nothing");
    machine.verb("stop").arg(&machine.name).run()?;
    machine.verb("rm").arg(&machine.name).run()?;
    let listed = machine.verb("list").run()?.text();
    ensure!(!listed.contains(&machine.name), "still among the machines:\n{listed}");
    Ok(())
}

/// Composes `treefiles/metal.yaml` with the demo's key into `repo`.
fn compose(context: &Context<'_>, slipway: &Path, packages: &Path, repo: &Path) -> Result<()> {
    let treefiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../treefiles").canonicalize()?;
    let artifacts = context.artifacts();
    let treefile = context.dir.join("metal.yaml");
    let text = format!(
        "include: {}\nremotes:\n  default:\n    url: http://10.0.2.100:80\n    ref: {REF}\n    keys: [{}]\n",
        treefiles.join("metal.yaml").display(),
        artifacts.key.with_extension("key.pub").display(),
    );
    std::fs::write(&treefile, text)?;
    let work = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { Path::new("/dev/shm") } else { &context.dir })?;
    Cmd::new(slipway)
        .arg("compose")
        .arg(&treefile)
        .arg("--repo")
        .arg(repo)
        .arg("--cachedir")
        .arg(context.dir.join("../../../cache"))
        .arg("--workdir")
        .arg(work.path())
        .arg("--local-packages")
        .arg(packages)
        .arg("--sign-key")
        .arg(&artifacts.key)
        .run()?;
    Ok(())
}

/// What the server behind a port of this machine says first.
fn banner(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut bytes = [0; 64];
    let n = stream.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..n]).into_owned())
}
