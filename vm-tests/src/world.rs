//! The machines that scenarios start from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use vm::{Builder, GuestForward, Network};

use crate::artifacts::{Artifacts, UPDATES};
use crate::guest::Guest;
use crate::scenarios::states;
use crate::server::Server;

/// Where a scenario's machine begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Version 1, up and blessed.
    Booted,
    /// Version 2, reached by `host upgrade` from [`State::Booted`]; see [`states::upgraded`] for what was added before.
    Upgraded,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Booted => "booted",
            State::Upgraded => "upgraded",
        }
    }
}

/// A machine that stands still, to be continued any number of times.
#[derive(Clone, Debug)]
pub struct Saved {
    dir: PathBuf,
    memory: PathBuf,
}

/// Everything that scenarios share.
#[derive(Debug)]
pub struct World {
    /// What is booted.
    pub artifacts: Artifacts,
    /// The `slipway` binary.
    pub slipway: PathBuf,
    /// Where machines and logs lie.
    pub dir: PathBuf,
    /// Takes states that an earlier run left, if they were made from the same commits.
    pub reuse: bool,
    /// A state that failed to come about fails each scenario that needs it, with the same words, at once.
    states: RefCell<BTreeMap<State, Result<Saved, String>>>,
}

impl World {
    /// A world whose files lie in `dir`.
    pub fn new(artifacts: Artifacts, slipway: PathBuf, dir: PathBuf) -> World {
        World { artifacts, slipway, dir, reuse: false, states: RefCell::default() }
    }

    /// The machine that every scenario uses. Its devices have to stay the same for a state to be continued; where its
    /// forward leads need not.
    pub fn builder(&self, name: &str, server: &Server) -> Result<Builder> {
        let forward = GuestForward::tcp(UPDATES.parse()?, &self.slipway, &server.address);
        let network = Network { guest_forwards: vec![forward], ..Network::default() };
        Ok(Builder::new(name).network(network).command_timeout(crate::guest::patience()))
    }

    /// Boots the image for the first time.
    pub fn cold(&self, name: &str, dir: &Path, server: &Server) -> Result<Guest> {
        Ok(Guest(self.builder(name, server)?.boot_disk(&self.artifacts.image).dir(dir).start()?))
    }

    /// Continues a state; its machine writes to overlays of its own in `dir`.
    pub fn resume(&self, state: State, name: &str, dir: &Path, server: &Server) -> Result<Guest> {
        let saved = self.saved(state)?;
        let builder = self.builder(name, server)?;
        let builder = builder.boot_disk(saved.dir.join("root.qcow2")).vars(saved.dir.join("vars.qcow2"));
        Ok(Guest(builder.dir(dir).resume(&saved.memory).start()?))
    }

    /// The disk of a machine in this state, as it is on the disk: what memory holds is missing.
    pub fn disk_of(&self, state: State) -> Result<PathBuf> {
        Ok(self.saved(state)?.dir.join("root.qcow2"))
    }

    fn saved(&self, state: State) -> Result<Saved> {
        if let Some(known) = self.states.borrow().get(&state) {
            return known.clone().map_err(|why| anyhow!("the state it starts from failed: {why}"));
        }
        let dir = self.dir.join(format!("state-{}", state.name()));
        eprintln!("  (bringing about the state {:?})", state.name());
        let mut result = self.bring_about(state, &dir).map_err(|e| format!("{e:#}"));
        if result.is_err() && emulator_lost_a_timer(&dir) {
            eprintln!("  (again: the emulator lost a processor's timer, as {}.lost/serial.log shows)", dir.display());
            set_aside(&dir);
            result = self.bring_about(state, &dir).map_err(|e| format!("{e:#}"));
        }
        self.states.borrow_mut().insert(state, result.clone());
        result.map_err(|why| anyhow!("the state it starts from failed: {why}"))
    }

    fn bring_about(&self, state: State, dir: &Path) -> Result<Saved> {
        let (memory, made_from) = (dir.join("memory"), dir.join("commits"));
        let commits = format!("{} {}\n", self.artifacts.v1, self.artifacts.v2);
        if self.reuse && std::fs::read_to_string(&made_from).is_ok_and(|text| text == commits) {
            return Ok(Saved { dir: dir.to_owned(), memory });
        }
        sys::file::remove_tree(dir)?;
        std::fs::create_dir_all(dir)?;
        let server = Server::start(&self.slipway, &self.artifacts.repo, &dir.join("serve.log"), &[])?;
        let guest = match state {
            State::Booted => {
                let guest = self.cold(state.name(), dir, &server)?;
                states::booted(&guest)?;
                guest
            }
            State::Upgraded => {
                let guest = self.resume(State::Booted, state.name(), dir, &server)?;
                states::upgraded(&guest, &self.artifacts)?;
                guest
            }
        };
        guest.0.suspend(&memory)?;
        std::fs::write(&made_from, commits)?;
        Ok(Saved { dir: dir.to_owned(), memory })
    }
}

/// Whether a machine whose logs lie in `dir` or just below it failed through no fault of its own: under emulation, QEMU
/// now and then starts a second processor whose timer never fires, and every wait of the kernel then takes 20 seconds.
/// The kernel names it.
pub fn emulator_lost_a_timer(dir: &Path) -> bool {
    const SIGN: &[u8] = b"Possible timer handling issue on cpu=";
    let below = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = |path: &Path| {
        path.extension().is_some_and(|e| e == "log")
            && std::fs::read(path).is_ok_and(|text| text.windows(SIGN.len()).any(|window| window == SIGN))
    };
    below(dir).any(|path| found(&path) || (path.is_dir() && below(&path).any(|path| found(&path))))
}

/// Keeps the logs of a try that did not count.
pub fn set_aside(dir: &Path) {
    let aside = dir.with_extension("lost");
    let _ = sys::file::remove_tree(&aside);
    let _ = std::fs::rename(dir, &aside);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_timer_is_read_from_the_console_of_any_machine() {
        let dir = tempfile::tempdir().unwrap();
        let machine = dir.path().join("machine-1");
        std::fs::create_dir(&machine).unwrap();
        std::fs::write(machine.join("serial.log"), "Kernel panic - not syncing").unwrap();
        assert!(!emulator_lost_a_timer(dir.path()));
        std::fs::write(machine.join("serial.log"), "rcu: \tPossible timer handling issue on cpu=1 timer-softirq=3")
            .unwrap();
        assert!(emulator_lost_a_timer(dir.path()) && emulator_lost_a_timer(&machine));
    }
}
