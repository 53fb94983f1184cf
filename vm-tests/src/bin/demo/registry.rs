//! A real registry on loopback (Debian's `docker-registry`) with one small image in it, made from Debian's busybox.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sys::Cmd;

use crate::story::Story;

/// The registry; it ends with the demo.
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may be gone already; either way nothing is left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a registry that keeps its data in `dir`.
pub fn registry(dir: &Path) -> Result<Registry> {
    fs::create_dir_all(dir)?;
    // The port is free now; nobody else on this machine is expected to take it within the next second.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let config = dir.join("config.yml");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            dir.join("data").display()
        ),
    )?;
    let cmd = Cmd::new("docker-registry").arg("serve").arg(&config);
    let log = fs::File::create(dir.join("registry.log"))?;
    let child = cmd
        .to_command()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting `{}`", cmd.line()))?;
    let mut server = Registry { child, address };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&server.address).is_err() {
        if let Some(status) = server.child.try_wait()? {
            bail!("`{}` ended with {status}; see {}", cmd.line(), dir.join("registry.log").display());
        }
        if Instant::now() > deadline {
            bail!("`{}` does not listen on {}", cmd.line(), server.address);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(server)
}

/// Makes the image `demo:1` (busybox and a page) and pushes it.
pub fn push_image(story: &mut Story, registry: &str, dir: &Path) -> Result<String> {
    let root = dir.join("root");
    fs::create_dir_all(root.join("bin"))?;
    fs::create_dir_all(root.join("www"))?;
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("copying busybox (package busybox-static)")?;
    fs::write(root.join("www/index.html"), "hello from a container\n")?;
    story.run(Cmd::new("ln").args(["-sf", "busybox"]).arg(root.join("bin/sh")))?;
    story.run(
        Cmd::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-cf"])
            .arg(dir.join("layer.tar"))
            .arg("-C")
            .arg(&root)
            .args(["bin", "www"]),
    )?;
    let sum = story.run(Cmd::new("sha256sum").arg(dir.join("layer.tar")))?;
    let diff_id = format!("sha256:{}", sum.split_whitespace().next().unwrap_or_default());
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/busybox", "sh", "-c", "echo hello from $HOSTNAME"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}, "history": [],
    });
    fs::write(dir.join("config.json"), serde_json::to_vec(&config)?)?;
    let manifest = json!([{"Config": "config.json", "RepoTags": ["demo:1"], "Layers": ["layer.tar"]}]);
    fs::write(dir.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    let archive = dir.join("demo.tar");
    story.run(Cmd::new("tar").arg("-cf").arg(&archive).arg("-C").arg(dir).args([
        "manifest.json",
        "config.json",
        "layer.tar",
    ]))?;
    // skopeo reads a signature policy by default; ours is a scratch registry on loopback.
    story.run(
        Cmd::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("docker-archive:{}:demo:1", archive.display()))
            .arg(format!("docker://{registry}/demo:1")),
    )?;
    Ok(format!("{registry}/demo:1"))
}
