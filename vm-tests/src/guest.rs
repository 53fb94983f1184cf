//! A machine with the questions that scenarios ask.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sys::Output;
use vm::{Machine, Request};

/// How long a boot may take, and a command that moves a tree: generous, for emulation on a busy machine.
/// `SLIPWAY_TIMEOUT_FACTOR` stretches both.
pub fn patience() -> Duration {
    let factor = std::env::var("SLIPWAY_TIMEOUT_FACTOR").ok().and_then(|f| f.parse::<f64>().ok());
    Duration::from_secs(420).mul_f64(factor.filter(|f| *f >= 1.0 && *f <= 100.0).unwrap_or(1.0))
}

/// A machine that runs a Slipway host.
#[derive(Debug)]
pub struct Guest(pub Machine);

impl Deref for Guest {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.0
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.0
    }
}

impl Guest {
    /// Runs `host` with these arguments; any exit code.
    pub fn host(&self, args: &str) -> Result<Output> {
        let script = format!("host {args}");
        Ok(self.request(Request { script: &script, input: b"", timeout: patience() })?)
    }

    /// Runs `host` and wants success.
    pub fn host_ok(&self, args: &str) -> Result<String> {
        Ok(self.shell_within(&format!("host {args}"), patience())?)
    }

    /// Runs `host` and wants it to end with `code`; returns what it said.
    pub fn host_fails(&self, args: &str, code: i32) -> Result<String> {
        let output = self.host(args)?;
        let text = format!("{}\n{}", output.text(), output.errors());
        ensure!(output.code == code, "`host {args}` ended with {}, not {code}: {}", output.code, text.trim());
        Ok(text)
    }

    /// `host status --json`.
    pub fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.host_ok("status --json")?).context("reading host status --json")
    }

    /// Wants `commit` to be booted, and verified.
    pub fn on(&self, commit: &str) -> Result<Value> {
        let status = self.status()?;
        let booted = status["booted"]["commit"].as_str().unwrap_or("nothing");
        ensure!(booted == commit, "{booted} is booted, not {commit}:\n{}", summary(&status));
        ensure!(status["booted"]["level"] == "verified", "the boot is not verified:\n{}", summary(&status));
        Ok(status)
    }

    /// Wants nothing to be staged.
    pub fn nothing_staged(&self) -> Result<()> {
        let status = self.status()?;
        ensure!(status["staged"].is_null(), "something is staged:\n{}", summary(&status));
        Ok(())
    }

    /// Wants `commit` to be staged.
    pub fn staged(&self, commit: &str) -> Result<()> {
        let status = self.status()?;
        ensure!(status["staged"]["commit"] == commit, "{commit} is not staged:\n{}", summary(&status));
        Ok(())
    }

    /// Wants the boot to have come up with every unit well.
    pub fn healthy(&self) -> Result<()> {
        let state = self.wait_ready(patience())?;
        if state != "running" {
            let failed = self.shell(
                "systemctl --failed --no-legend --plain; systemctl list-jobs --no-legend
                 for unit in $(systemctl --failed --no-legend --plain | cut -d ' ' -f 1); do
                     journalctl -b -u \"$unit\" --no-pager -o short-monotonic | tail -n 30
                 done",
            )?;
            bail!("systemd says {state}: {failed}");
        }
        Ok(())
    }

    /// Waits until the booted entry has lost its counter: the boot was blessed.
    pub fn blessed(&self) -> Result<()> {
        self.shell_within(
            "for i in $(seq 300); do \
               ls /efi/loader/entries | grep -q '+' || exit 0; sleep 1; \
             done; ls /efi/loader/entries; exit 1",
            patience(),
        )?;
        Ok(())
    }

    /// Restarts through `script` and waits until the next boot is well.
    pub fn restart(&self, script: &str) -> Result<()> {
        self.restart_by(script, patience())?;
        self.healthy()
    }

    /// Restarts through `script` and waits until a boot from `commit` is up, however many others come before it.
    pub fn restart_onto(&self, script: &str, commit: &str) -> Result<()> {
        let within = patience() * 2;
        let start = Instant::now();
        let left = || within.saturating_sub(start.elapsed());
        let mut boot = self.restart_by(script, within)?;
        // A boot that is about to be given up may answer, hang, or go away in the middle of the question.
        while !self.boots(commit) {
            boot = self.wait_other_boot(Some(&boot), left())?;
        }
        self.wait_ready(left())?;
        Ok(())
    }

    fn boots(&self, commit: &str) -> bool {
        let script = "cat /run/slipway/booted.json";
        let answer = self.request(Request { script, input: b"", timeout: Duration::from_secs(60) });
        answer.is_ok_and(|output| output.text().contains(commit))
    }
}

/// One line for each deployment, for messages.
pub fn summary(status: &Value) -> String {
    let mut text = String::new();
    for deployment in status["deployments"].as_array().into_iter().flatten() {
        let field = |name: &str| match &deployment[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (id, state, tries, why) = (field("id"), field("state"), field("tries"), field("reason"));
        let finalize = &deployment["finalize"]["error"];
        text += &format!("{id} {state} booted={} tries={tries} reason={why} finalize={finalize}\n", field("booted"));
    }
    text
}
