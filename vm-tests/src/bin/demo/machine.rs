//! The demo's machine, driven through `slipway vm` as a user would.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sys::Cmd;

use crate::story::Story;

/// A machine by name.
pub struct Machine {
    slipway: PathBuf,
    dir: PathBuf,
    name: String,
}

impl Machine {
    /// A machine that is not running yet.
    pub fn new(slipway: &Path, dir: &Path, name: &str) -> Machine {
        Machine { slipway: slipway.to_owned(), dir: dir.to_owned(), name: format!("{name}-{}", std::process::id()) }
    }

    fn vm(&self, verb: &str) -> Cmd {
        Cmd::new(&self.slipway).args(["vm", verb])
    }

    /// Boots `image` and waits until it answers. `forwards`: address in the machine, address on this side.
    pub fn run(&self, story: &mut Story, image: &Path, forwards: &[(&str, &str)]) -> Result<()> {
        let mut cmd = self.vm("run").arg(image).args(["--name", &self.name, "--detach", "--console"]);
        cmd = cmd.arg(self.dir.join("console.log"));
        for (guest, here) in forwards {
            cmd = cmd.arg("--guest-forward").arg(format!("{guest}={here}"));
        }
        story.run(cmd)?;
        Ok(())
    }

    fn exec(&self, command: &[&str]) -> Cmd {
        self.vm("exec").args([self.name.as_str(), "--"]).args(command)
    }

    /// Runs a shell line in the machine; its exit code must be 0.
    pub fn shell(&self, story: &mut Story, line: &str) -> Result<String> {
        story.run(self.exec(&["sh", "-c", line]))
    }

    /// Runs `host`.
    pub fn host(&self, story: &mut Story, args: &[&str]) -> Result<String> {
        story.run(self.exec(&[&["host"], args].concat()))
    }

    /// Runs `host … --json`.
    pub fn host_json(&self, story: &mut Story, args: &[&str]) -> Result<serde_json::Value> {
        let text = story.run(self.exec(&[&["host"], args, &["--json"]].concat()))?;
        serde_json::from_str(&text).context("host --json")
    }

    /// Runs a `host` verb that ends in a reboot, and waits for the next boot.
    pub fn reboot(&self, story: &mut Story, args: &[&str]) -> Result<()> {
        let before = self.boot_id(story)?;
        // The channel may close before the exit code comes back.
        story.run_any(self.exec(&[&["host"], args].concat()))?;
        story.run(self.vm("wait").args([self.name.as_str(), "--not-boot", &before]))?;
        let after = self.boot_id(story)?;
        ensure!(before != after, "the machine did not reboot");
        Ok(())
    }

    fn boot_id(&self, story: &mut Story) -> Result<String> {
        self.shell(story, "cat /proc/sys/kernel/random/boot_id")
    }

    /// Powers it off in an orderly way and removes it.
    pub fn stop(&self, story: &mut Story) -> Result<String> {
        story.run(self.vm("stop").arg(&self.name))?;
        Ok("clean".into())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Also after a failure; a machine that is gone already is what we want.
        let _ = self.vm("rm").args(["--force", &self.name]).output();
    }
}
