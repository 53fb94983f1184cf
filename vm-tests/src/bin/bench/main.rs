//! `make bench`: each hot path against the tool a user would otherwise pick, in the same run, on the demo's tree.
//!
//! Writes `target/bench/<group>.json` and prints the same as a table.

mod measure;
mod row;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use sys::{Cmd, Exit};

use row::{Plan, Row, Side};

/// Measures hot paths against the tools a user would otherwise pick.
#[derive(Debug, Parser)]
struct Args {
    /// Which group: `store` or `compose`; all without one.
    group: Option<String>,
    /// How often each side runs.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// The `slipway` binary (a release build).
    #[arg(long, default_value = "target/release/slipway")]
    slipway: PathBuf,
    /// The demo's artifacts, whose repository is measured.
    #[arg(long, default_value = "target/demo")]
    artifacts: PathBuf,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

const REF: &str = "slipway/trixie/amd64/container-host";

fn main() -> ExitCode {
    sys::main_exit("bench", run(&Args::parse()))
}

fn run(args: &Args) -> Result<Exit> {
    fs::create_dir_all(&args.output)?;
    let output = args.output.canonicalize()?;
    let slipway = args.slipway.canonicalize().context("build first: cargo build --release")?;
    let repo = args.artifacts.join("repo").canonicalize().context("run `make demo` first: its tree is measured")?;
    match args.group.as_deref() {
        None | Some("store") => store(&slipway, &repo, &output, args.runs)?,
        Some(other) => anyhow::bail!("no group {other}"),
    }
    Ok(Exit::Done)
}

fn save(output: &Path, group: &str, rows: &[Row]) -> Result<()> {
    row::print(rows);
    sys::file::replace(&output.join(format!("{group}.json")), &serde_json::to_vec_pretty(rows)?, 0o644)?;
    Ok(())
}

fn store(slipway: &Path, repo: &Path, output: &Path, runs: usize) -> Result<()> {
    let tree = output.join("tree");
    if !tree.exists() {
        Cmd::new("ostree").arg("checkout").arg(format!("--repo={}", repo.display())).arg(REF).arg(&tree).run()?;
    }
    let ours = output.join("ours");
    let peer = output.join("peer");
    let fresh = |path: &Path, mode: &str| -> Result<()> {
        sys::file::remove_tree(path)?;
        Cmd::new("ostree").arg("init").arg(format!("--repo={}", path.display())).arg(format!("--mode={mode}")).run()?;
        // What an earlier run left to be written must not be paid by this one.
        sys::file::sync_fs(path)?;
        Ok(())
    };
    let commit_ours = Cmd::new(slipway).args(["repo", "commit", "--repo"]).arg(&ours).args(["-b", "bench"]).arg(&tree);
    let commit_peer = Cmd::new("ostree")
        .arg("commit")
        .arg(format!("--repo={}", peer.display()))
        .args(["-b", "bench"])
        .arg(format!("--tree=dir={}", tree.display()));
    let touch = |n: &str| fs::write(tree.join("usr/share/bench-changed"), n).context("changing one file");
    let mut rows = Vec::new();
    let mut add = |plan: Plan| -> Result<()> {
        eprintln!("bench: {}", plan.name);
        rows.push(plan.measure(output)?);
        Ok(())
    };
    add(Plan {
        name: "commit to archive, cold",
        peer_name: "ostree commit",
        reach: 5.0,
        runs,
        ours: Side { prepare: Box::new(|| fresh(&ours, "archive")), cmd: commit_ours.clone() },
        peer: Side { prepare: Box::new(|| fresh(&peer, "archive")), cmd: commit_peer.clone() },
    })?;
    let serial = std::cell::Cell::new(0u32);
    let change = || {
        serial.set(serial.get() + 1);
        touch(&serial.get().to_string())
    };
    add(Plan {
        name: "commit to archive again, one file changed",
        peer_name: "ostree commit",
        reach: 20.0,
        runs,
        ours: Side { prepare: Box::new(change), cmd: commit_ours.clone() },
        peer: Side { prepare: Box::new(change), cmd: commit_peer.clone() },
    })?;
    add(Plan {
        name: "fsck of the archive repository",
        peer_name: "ostree fsck",
        reach: 3.0,
        runs,
        ours: Side { prepare: Box::new(|| Ok(())), cmd: Cmd::new(slipway).args(["repo", "fsck", "--repo"]).arg(&ours) },
        peer: Side {
            prepare: Box::new(|| Ok(())),
            cmd: Cmd::new("ostree").args(["fsck", "--quiet"]).arg(format!("--repo={}", peer.display())),
        },
    })?;
    add(Plan {
        name: "commit to bare-user, cold",
        peer_name: "ostree commit",
        reach: 1.3,
        runs,
        ours: Side { prepare: Box::new(|| fresh(&ours, "bare-user")), cmd: commit_ours.clone() },
        peer: Side { prepare: Box::new(|| fresh(&peer, "bare-user")), cmd: commit_peer.clone() },
    })?;
    let nginx = Nginx::start(repo, output)?;
    let remote = |path: &Path| -> Result<()> {
        fresh(path, "bare-user")?;
        Cmd::new("ostree")
            .args(["remote", "add", "--no-gpg-verify", "origin"])
            .arg(&nginx.url)
            .arg(format!("--repo={}", path.display()))
            .run()?;
        Ok(())
    };
    add(Plan {
        name: "full pull over HTTP from nginx to bare-user",
        peer_name: "ostree pull",
        reach: 1.8,
        runs,
        ours: Side {
            prepare: Box::new(|| remote(&ours)),
            cmd: Cmd::new(slipway).args(["repo", "pull", "--repo"]).arg(&ours).args(["origin", REF]),
        },
        peer: Side {
            prepare: Box::new(|| remote(&peer)),
            cmd: Cmd::new("ostree").arg("pull").arg(format!("--repo={}", peer.display())).args(["origin", REF]),
        },
    })?;
    for path in [&ours, &peer] {
        sys::file::remove_tree(path)?;
    }
    save(output, "store", &rows)
}

/// Debian's nginx on loopback, with the repository as its root.
struct Nginx {
    config: PathBuf,
    url: String,
}

impl Nginx {
    fn start(repo: &Path, output: &Path) -> Result<Nginx> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = output.join("nginx.conf");
        fs::write(
            &config,
            format!(
                "user root;\nworker_processes auto;\npid {pid};\nerror_log {log};\nevents {{ worker_connections 512; }}\nhttp {{\n  access_log off;\n  \
                 sendfile on;\n  keepalive_requests 1000000;\n  server {{ listen {address}; root {root}; }}\n}}\n",
                pid = output.join("nginx.pid").display(),
                log = output.join("nginx.log").display(),
                root = repo.display(),
            ),
        )?;
        Cmd::new("nginx").arg("-c").arg(&config).run()?;
        let nginx = Nginx { config, url: format!("http://{address}") };
        ensure!(output.join("nginx.pid").exists(), "nginx did not start");
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Nothing else to do if it is gone.
        let _ = Cmd::new("nginx").arg("-c").arg(&self.config).args(["-s", "stop"]).output();
    }
}
