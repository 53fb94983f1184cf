//! Machines that have a name and outlive the process that started them.
//!
//! ```text
//! RUN/NAME/machine.json    who runs where; RUN = $XDG_RUNTIME_DIR/slipway-vm, /run/slipway-vm for root
//! RUN/NAME/*.sock          QEMU's sockets (their path has to be short)
//! STATE/NAME/…             disks, variables, keys, logs; STATE = /var/lib/slipway/vm for root, else below $XDG_STATE_HOME
//! ```
//! A machine that is off keeps STATE/NAME if it was made with `--keep`; an ephemeral one leaves nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::accel::Choice;
use crate::error::{Error, Result, io};
use crate::machine::Machine;
use crate::process::{Process, start_time};

/// Where machines are recorded and kept.
#[derive(Clone, Debug)]
pub struct Registry {
    run: PathBuf,
    state: PathBuf,
}

/// A machine that somebody started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Version of this record.
    pub format: String,
    /// Its name.
    pub name: String,
    /// The image it was started from.
    pub image: PathBuf,
    /// QEMU's process.
    pub pid: u32,
    /// When that process started, in clock ticks since boot.
    pub started: u64,
    /// Seconds since 1970.
    pub since: u64,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// The accelerator.
    pub accelerator: Choice,
    /// The port on this machine that leads to the guest's SSH server.
    pub ssh_port: Option<u16>,
    /// The other forwards, as `HOST:GUEST`.
    pub forwards: Vec<String>,
    /// Whether its disks are kept when it goes off.
    pub keep: bool,
    /// Its disks, keys and logs.
    pub dir: PathBuf,
    /// Its sockets.
    pub sockets: PathBuf,
    /// Whether it runs; computed when listed.
    #[serde(default)]
    pub running: bool,
}

impl Registry {
    /// The registry of the user who runs this.
    pub fn of_user() -> Result<Registry> {
        let root = rustix::process::geteuid().is_root();
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let run = match variable("XDG_RUNTIME_DIR") {
            Some(dir) => dir,
            None if root => PathBuf::from("/run"),
            None => std::env::temp_dir().join(format!("slipway-{}", rustix::process::geteuid().as_raw())),
        };
        let state = match (variable("XDG_STATE_HOME"), variable("HOME")) {
            (Some(dir), _) => dir.join("slipway/vm"),
            (None, _) if root => PathBuf::from("/var/lib/slipway/vm"),
            (None, Some(home)) => home.join(".local/state/slipway/vm"),
            (None, None) => return Err(Error::Config("neither HOME nor XDG_STATE_HOME is set".to_owned())),
        };
        Ok(Registry { run: run.join("slipway-vm"), state })
    }

    /// A registry in a directory of its own.
    pub fn at(dir: &Path) -> Registry {
        Registry { run: dir.join("run"), state: dir.join("state") }
    }

    /// Where a machine's sockets lie.
    pub fn sockets(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// Where a machine's files lie.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// Refuses names that are no file names, or that are taken by a running machine.
    pub fn check_name(&self, name: &str) -> Result<()> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if name.is_empty() || name.len() > 40 || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(Error::Config(format!(
                "{name:?} cannot be a machine's name: letters, digits, dots, dashes and underscores, at most 40"
            )));
        }
        match self.read(name)? {
            Some(entry) if entry.running => Err(Error::Config(format!(
                "a machine called {name} is running (process {}): choose another --name, or end it with: slipway vm stop {name}",
                entry.pid
            ))),
            _ => Ok(()),
        }
    }

    /// A name that is free: the image's, with a number where that is taken.
    pub fn free_name(&self, image: &Path) -> Result<String> {
        let stem = image.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let mut base: String =
            stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).take(24).collect();
        if base.trim_matches('-').is_empty() {
            base = "vm".to_owned();
        }
        for number in 1.. {
            let name = if number == 1 { base.clone() } else { format!("{base}-{number}") };
            if self.read(&name)?.is_none() && !self.dir(&name).exists() {
                return Ok(name);
            }
        }
        Ok(base)
    }

    /// Records a machine that has just been started.
    pub fn record(&self, machine: &Machine, mut entry: Entry) -> Result<Entry> {
        entry.pid = machine.pid().unwrap_or(0);
        entry.started = start_time(entry.pid).unwrap_or(0);
        entry.running = true;
        let file = self.sockets(&entry.name).join("machine.json");
        let bytes = serde_json::to_vec_pretty(&entry).map_err(|e| Error::Config(e.to_string()))?;
        sys::file::replace(&file, &bytes, 0o600).map_err(io("writing", &file))?;
        Ok(entry)
    }

    fn read(&self, name: &str) -> Result<Option<Entry>> {
        let file = self.sockets(name).join("machine.json");
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("reading", &file)(e)),
        };
        let mut entry: Entry = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Config(format!("{} is damaged ({e}); remove it", file.display())))?;
        entry.running = start_time(entry.pid) == Some(entry.started);
        Ok(Some(entry))
    }

    /// All machines, by name: those that run and those that were kept.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let names = match std::fs::read_dir(&self.run) {
            Ok(names) => names,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(entries),
            Err(e) => return Err(io("reading", &self.run)(e)),
        };
        for name in names.flatten() {
            let name = name.file_name().to_string_lossy().into_owned();
            if let Some(entry) = self.read(&name)? {
                if entry.running || entry.keep {
                    entries.push(entry);
                } else {
                    // An ephemeral machine that has ended by itself.
                    self.forget(&entry)?;
                }
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Finds a machine: by name, or the only one that runs.
    pub fn find(&self, name: Option<&str>) -> Result<Entry> {
        let mut entries = self.list()?;
        if name.is_none() {
            entries.retain(|e| e.running);
        }
        let known = match entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ") {
            names if names.is_empty() => "; there are none (slipway vm list)".to_owned(),
            names => format!("; there are: {names}"),
        };
        match name {
            Some(name) => entries
                .into_iter()
                .find(|e| e.name == name)
                .ok_or_else(|| Error::Unknown { name: name.to_owned(), known }),
            None if entries.len() == 1 => Ok(entries.remove(0)),
            None => Err(Error::Config(format!("say which machine{known}"))),
        }
    }

    /// Joins a running machine.
    pub fn join(&self, entry: &Entry) -> Result<Machine> {
        if !entry.running {
            return Err(Error::Config(format!("the machine {} is off", entry.name)));
        }
        let process = Process::Other { pid: entry.pid, started: entry.started };
        Machine::join(&entry.name, &entry.dir, &entry.sockets, process, entry.accelerator.clone())
    }

    /// Removes every trace of a machine that does not run.
    pub fn forget(&self, entry: &Entry) -> Result<()> {
        for dir in [self.sockets(&entry.name), self.dir(&entry.name)] {
            sys::file::remove_tree(&dir).map_err(io("removing", &dir))?;
        }
        Ok(())
    }

    /// Ends a running machine at once.
    pub fn kill(&self, entry: &Entry) {
        Process::Other { pid: entry.pid, started: entry.started }.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accel;

    fn entry(registry: &Registry, name: &str, pid: u32, keep: bool) -> Entry {
        let entry = Entry {
            format: "1.0".into(),
            name: name.into(),
            image: "/images/host.raw".into(),
            pid,
            started: start_time(pid).unwrap_or(0),
            since: 0,
            memory: 2048,
            cpus: 2,
            accelerator: Choice { accel: Accel::Tcg, why: "test".into() },
            ssh_port: None,
            forwards: vec![],
            keep,
            dir: registry.dir(name),
            sockets: registry.sockets(name),
            running: false,
        };
        std::fs::create_dir_all(&entry.sockets).unwrap();
        std::fs::create_dir_all(&entry.dir).unwrap();
        std::fs::write(entry.sockets.join("machine.json"), serde_json::to_vec(&entry).unwrap()).unwrap();
        entry
    }

    #[test]
    fn an_ephemeral_machine_that_ended_is_forgotten_and_a_kept_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        entry(&registry, "alive", std::process::id(), false);
        let gone = entry(&registry, "gone", u32::MAX / 2, false);
        entry(&registry, "kept", u32::MAX / 2, true);
        let names: Vec<_> = registry.list().unwrap().into_iter().map(|e| (e.name, e.running)).collect();
        assert_eq!(names, [("alive".to_owned(), true), ("kept".to_owned(), false)]);
        assert!(!gone.dir.exists());
        assert_eq!(registry.find(None).unwrap().name, "alive");
        let error = registry.find(Some("allve")).unwrap_err().to_string();
        assert_eq!(error, "no machine is called \"allve\"; there are: alive, kept");
    }

    #[test]
    fn names_are_file_names_and_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        entry(&registry, "host", std::process::id(), false);
        for bad in ["", "..", "a/b", ".hidden", "host", "x".repeat(41).as_str()] {
            assert!(registry.check_name(bad).is_err(), "{bad}");
        }
        registry.check_name("host-2").unwrap();
        assert_eq!(registry.free_name(Path::new("/images/host.raw")).unwrap(), "host-2");
    }

    #[test]
    fn a_damaged_record_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        std::fs::create_dir_all(registry.sockets("x")).unwrap();
        std::fs::write(registry.sockets("x").join("machine.json"), "{").unwrap();
        assert!(registry.list().unwrap_err().to_string().contains("x/machine.json is damaged"));
    }
}
