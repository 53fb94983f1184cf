//! `slipway serve` for the length of a scenario.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use sys::Cmd;

/// A server that ends when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// `HOST:PORT`.
    pub address: String,
}

impl Server {
    /// Serves `dir` on a free port of loopback; `options` go to `slipway serve` as they are.
    pub fn start(slipway: &Path, dir: &Path, log: &Path, options: &[&str]) -> Result<Server> {
        Self::start_at("127.0.0.1:0", slipway, dir, log, options)
    }

    /// Serves `dir` at an address.
    pub fn start_at(listen: &str, slipway: &Path, dir: &Path, log: &Path, options: &[&str]) -> Result<Server> {
        // A runner that is killed must not leave servers behind.
        let cmd = Cmd::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(slipway)
            .arg("serve")
            .arg(dir)
            .args(["--listen", listen, "--log"])
            .arg(log)
            .args(options);
        let mut command = cmd.to_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("starting `{}`", cmd.line()))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let mut server = Server { child, address: String::new() };
        match line.trim().strip_prefix("http://") {
            Some(address) => server.address = address.trim_end_matches('/').to_owned(),
            None => bail!("`{}` did not say where it listens", cmd.line()),
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself (`--fail-after`).
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
