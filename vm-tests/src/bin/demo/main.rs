//! `make demo`: the main job, end to end, on real input, told on one screen.
//!
//! ```text
//! key → compose 1 → publish → image → boot → status → podman, docker → compose 2 → upgrade over HTTP → reboot
//!     → what must be kept is kept → rollback --reboot → back on 1
//! ```
//! It drives the programs a user has: `slipway` here, `host` in the machine. Artifacts lie under `target/demo/`.

mod machine;
mod registry;
mod story;
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use sys::{Cmd, Exit};

use machine::Machine;
use story::Story;
use vm_tests::artifacts::{ISSUE_NET_2, REF, UPDATES};
use vm_tests::server::Server;

/// Tells the main job of Slipway, end to end.
#[derive(Debug, Parser)]
struct Args {
    /// Where the artifacts go.
    #[arg(long, default_value = "target/demo")]
    dir: PathBuf,
    /// The `slipway` binary.
    #[arg(long, default_value = "target/debug/slipway")]
    slipway: PathBuf,
    /// The directory with the agent's Debian package.
    #[arg(long, default_value = "target/deb")]
    packages: PathBuf,
    /// Downloads and unpacked packages are kept here between runs.
    #[arg(long, default_value = "target/cache")]
    cache: PathBuf,
    /// The source tree (treefiles).
    #[arg(long, default_value = ".")]
    source: PathBuf,
}

/// The address, inside the machine, behind which the registry answers.
const REGISTRY: &str = "10.0.2.101:5000";

fn main() -> ExitCode {
    sys::main_exit("demo", run(Args::parse()))
}

fn run(args: Args) -> Result<Exit> {
    let dir = &args.dir;
    sys::file::remove_tree(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let slipway = args.slipway.canonicalize().context("build first: cargo build --workspace")?;
    let source = args.source.canonicalize()?;
    let build = dir.join("build-repo");
    let repo = dir.join("repo");
    let work = scratch(&dir);
    let key = dir.join("signing.key");
    let mut story = Story::begin(&dir, &source)?;
    if let Err(why) = &story.git_commit {
        eprintln!("result.json names no git commit: {why}");
    }
    eprintln!("Slipway: compose, boot, upgrade, roll back. Everything is recorded in {}", story.path("transcript.txt"));

    story.step("make a signing key", |story| {
        story.run(Cmd::new(&slipway).args(["key", "new"]).arg(&key))?;
        fs::write(dir.join("v1.yaml"), treefile(&source, "container-host.yaml"))?;
        fs::write(dir.join("v2.yaml"), treefile(&source, "test-overlay.yaml"))?;
        Ok("signing.key.pub goes into the tree and its initramfs".into())
    })?;

    let compose = |story: &mut Story, name: &str, treefile: &str| -> Result<String> {
        let text = story.run(
            Cmd::new(&slipway)
                .arg("compose")
                .arg(dir.join(treefile))
                .arg("--repo")
                .arg(&build)
                .arg("--cachedir")
                .arg(&args.cache)
                .arg("--workdir")
                .arg(work.path())
                .arg("--local-packages")
                .arg(&args.packages)
                .arg("--sign-key")
                .arg(&key)
                .arg("--json"),
        )?;
        let result: serde_json::Value = serde_json::from_str(&text).context("compose --json")?;
        let commit = result["commit"].as_str().context("compose --json has no commit")?.to_owned();
        let version = result["version"].as_str().unwrap_or("?").to_owned();
        story.commits.insert(name.to_owned(), commit.clone());
        Ok(format!("version {version}, commit {}", &commit[..12]))
    };
    let publish = |story: &mut Story| -> Result<String> {
        story.run(Cmd::new(&slipway).args(["publish", REF]).arg("--repo").arg(&build).arg(&repo))?;
        Ok(format!("{} in the directory repo", size_of(&repo)?))
    };

    story.step("compose version 1", |story| compose(story, "1", "v1.yaml"))?;
    story.step("publish", publish)?;
    let image = dir.join("host.raw");
    story.step("disk image", |story| {
        for (format, file) in [("raw", "host.raw"), ("qcow2", "host.qcow2")] {
            story.run(
                Cmd::new(&slipway)
                    .args(["image", REF, "--format", format, "--repo"])
                    .arg(&build)
                    .arg("-o")
                    .arg(dir.join(file)),
            )?;
        }
        Ok(format!("host.raw ({} on disk) and host.qcow2", size_of(&image)?))
    })?;

    let updates = story.step_with("an update server", |_| {
        let server = Server::start(&slipway, &repo, &dir.join("serve.log"), &[])?;
        let address = server.address.clone();
        Ok((server, format!("the directory repo, on {address}")))
    })?;
    let containers = story.step_with("a registry with an image", |story| {
        let registry = registry::registry(&dir.join("registry"))?;
        registry::push_image(story, &registry.address, &dir.join("registry"))?;
        Ok((registry, "demo:1, on loopback".into()))
    })?;

    let forwards = [(UPDATES, updates.address.as_str()), (REGISTRY, containers.address.as_str())];
    let machine = Machine::new(&slipway, &dir, "demo");
    story.step("boot it through UEFI", |story| {
        machine.run(story, &dir.join("host.qcow2"), &forwards)?;
        machine.shell(story, "uname -sr")
    })?;
    story.step("host status", |story| {
        let status = machine.host_json(story, &["status"])?;
        machine.host(story, &["status", "-v"])?;
        ensure!(status["booted"]["commit"] == story.commits["1"].as_str(), "another commit is booted: {status:#}");
        ensure!(status["booted"]["level"] == "verified", "the boot is not verified: {status:#}");
        let failed = machine.shell(story, "systemctl --failed --no-legend --plain")?;
        ensure!(failed.is_empty(), "units failed: {failed}");
        Ok("version 1, signature and every file verified; no failed unit".into())
    })?;
    story.step("podman run", |story| {
        machine.shell(story, &format!("podman pull -q --tls-verify=false {REGISTRY}/demo:1"))?;
        let hello = machine.shell(story, &format!("podman run --rm {REGISTRY}/demo:1"))?;
        ensure!(hello.starts_with("hello from "), "unexpected: {hello}");
        machine.shell(
            story,
            &format!(
                "podman create --name web {REGISTRY}/demo:1 /bin/busybox httpd -f -p 80 -h /www && podman start web"
            ),
        )?;
        let pool = machine.shell(story, "findmnt -no SOURCE,FSTYPE /var/lib/containers")?;
        ensure!(pool.contains("/dev/mapper/host-"), "containers are not on the thin pool: {pool}");
        Ok(format!("on {pool}"))
    })?;
    story.step("docker run", |story| {
        let hello = machine.shell(story, &format!("docker run --rm {REGISTRY}/demo:1"))?;
        ensure!(hello.contains("hello from "), "unexpected: {hello}");
        Ok("same engine, same image".into())
    })?;
    story.step("change /etc, add a user", |story| {
        machine.shell(story, "echo 'changed by the operator' > /etc/motd && useradd -m alice && id -u alice")
    })?;

    story.step("compose version 2", |story| compose(story, "2", "v2.yaml"))?;
    story.step("publish", publish)?;
    story.step("host upgrade", |story| {
        machine.host(story, &["upgrade"])?;
        let status = machine.host_json(story, &["status"])?;
        ensure!(status["staged"]["commit"] == story.commits["2"].as_str(), "version 2 is not staged: {status:#}");
        Ok("fetched over HTTP, staged".into())
    })?;
    story.step("reboot into version 2", |story| {
        machine.reboot(story, &["reboot"])?;
        let status = machine.host_json(story, &["status"])?;
        ensure!(status["booted"]["commit"] == story.commits["2"].as_str(), "not on version 2: {status:#}");
        ensure!(status["booted"]["level"] == "verified", "the boot is not verified: {status:#}");
        machine.shell(story, "tree --version")?;
        let issue = machine.shell(story, "cat /etc/issue.net")?;
        ensure!(issue == ISSUE_NET_2.trim_end(), "the tree's new /etc/issue.net has not arrived: {issue}");
        let motd = machine.shell(story, "cat /etc/motd")?;
        ensure!(motd == "changed by the operator", "the change in /etc is lost: {motd}");
        machine.shell(story, "id alice")?;
        machine.shell(story, "podman container exists web")?;
        machine.shell(story, "podman start web")?;
        Ok("its package and its /etc are there; so are container, local change in /etc and user".into())
    })?;
    story.step("host rollback --reboot", |story| {
        machine.reboot(story, &["rollback", "--reboot"])?;
        let status = machine.host_json(story, &["status"])?;
        machine.host(story, &["status"])?;
        ensure!(status["booted"]["commit"] == story.commits["1"].as_str(), "not back on version 1: {status:#}");
        ensure!(status["booted"]["level"] == "verified", "the boot is not verified: {status:#}");
        machine.shell(story, "! command -v tree")?;
        machine.shell(story, "cmp /etc/issue.net /usr/etc/issue.net && grep Debian /etc/issue.net")?;
        let motd = machine.shell(story, "cat /etc/motd")?;
        ensure!(motd == "changed by the operator", "the change in /etc is lost: {motd}");
        machine.shell(story, "podman container exists web")?;
        Ok("back on version 1, verified; what belongs to the machine has stayed".into())
    })?;
    story.step("power off", |story| machine.stop(story))?;

    println!("transcript: {}", story.path("transcript.txt"));
    println!("log in by hand: {} vm run {}", shown(&slipway), story.path("host.qcow2"));
    Ok(Exit::Done)
}

/// A treefile that adds to a shipped one where this demo's machines get their updates.
fn treefile(source: &Path, parent: &str) -> String {
    format!(
        "include: {}\nremotes:\n  default:\n    url: http://{UPDATES}\n    ref: {REF}\n    keys: [signing.key.pub]\n",
        source.join("treefiles").join(parent).display()
    )
}

/// Where trees are put together: in memory where there is plenty, because hundreds of megabytes of small files are
/// written once and removed again.
fn scratch(dir: &Path) -> Scratch {
    let memory = Path::new("/dev/shm");
    let free = free_bytes(memory);
    let base = if free > 6 << 30 { memory } else { dir };
    Scratch(base.join(format!("slipway-demo-{}", std::process::id())))
}

/// Bytes that can be written below `path`; 0 where nobody can tell.
fn free_bytes(path: &Path) -> u64 {
    let text = Cmd::new("df").args(["--output=avail", "-B1"]).arg(path).run().map(|o| o.text()).unwrap_or_default();
    text.lines().last().and_then(|l| l.trim().parse().ok()).unwrap_or(0)
}

/// A directory that goes with the demo.
struct Scratch(PathBuf);

impl Scratch {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the way of nobody.
        let _ = sys::file::remove_tree(&self.0);
    }
}

/// Disk space taken, as a person reads it.
fn size_of(path: &Path) -> Result<String> {
    let text = Cmd::new("du").args(["-sh"]).arg(path).run()?.text();
    Ok(text.split_whitespace().next().unwrap_or("?").to_owned())
}

/// A path relative to the current directory where that is shorter.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

impl Story {
    fn path(&self, name: &str) -> String {
        shown(&self.dir.join(name))
    }
}
