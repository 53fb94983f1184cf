//! Pulling over HTTP from Debian's nginx on loopback.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sys::Cmd;

use super::{REF, World};
use crate::row::{Row, Side};

/// Everything, to a bare-user repository that has nothing.
pub fn full(world: &World<'_>) -> Result<Row> {
    let nginx = Nginx::start(&world.repo, &world.output)?;
    let remote = |path: &Path| -> Result<()> {
        world.fresh(path, "bare-user")?;
        let add = world.peer("remote", path).args(["add", "--no-gpg-verify", "origin"]);
        add.arg(&nginx.url).run()?;
        Ok(())
    };
    let (ours, peer) = (world.scratch("ours"), world.scratch("peer"));
    let sides = [
        ("slipway", Side::new(|| remote(&ours), world.ours("pull", &ours).args(["origin", REF]))),
        ("ostree pull", Side::new(|| remote(&peer), world.peer("pull", &peer).args(["origin", REF]))),
        ("floor", world.floor(true)?),
    ];
    let row = world.row("full pull over loopback HTTP from nginx", &sides)?;
    let what = "what the file system does for each new file, then by inflating; nginx runs on the same cores";
    Ok(row.limited_by_floor(what).faster(1.8).near_floor(1.4))
}

/// nginx, with the repository as its root.
struct Nginx {
    config: PathBuf,
    url: String,
}

impl Nginx {
    fn start(repo: &Path, output: &Path) -> Result<Nginx> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = output.join("nginx.conf");
        let text = format!(
            "user root;\nworker_processes auto;\npid {pid};\nerror_log {log};\nevents {{ worker_connections 512; }}\n\
             http {{\n  access_log off;\n  sendfile on;\n  keepalive_requests 1000000;\n  \
             server {{ listen {address}; root {root}; }}\n}}\n",
            pid = output.join("nginx.pid").display(),
            log = output.join("nginx.log").display(),
            root = repo.display(),
        );
        fs::write(&config, text)?;
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
