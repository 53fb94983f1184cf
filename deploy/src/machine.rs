//! What the machine looks like now. Read once by each command, never written to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bootloader::{BootVariables, Counter, Esp, EspError, Found};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Checksum;

use crate::DeploymentId;
use crate::firstboot;
use crate::json::{self, JsonError};
use crate::paths::Paths;
use crate::state::{BadMarks, FinalizeResult, State, StateFile};
use crate::treeinfo::{Remote, TreeInfo};

/// `/run/slipway/booted.json`: what prepare-root mounted, and how sure it is of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    /// The stateroot.
    pub os: String,
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its commit.
    pub commit: Checksum,
    /// The digest of its image.
    #[serde(default)]
    pub digest: Option<String>,
    /// `verified`: signature → digest → every read. `verity`: digest → every read. `unverified`: neither.
    pub level: String,
    /// The level the tree insists on.
    #[serde(default)]
    pub required: Option<String>,
    /// The trusted key that signed it, base64.
    #[serde(default)]
    pub signer: Option<String>,
    /// Fields of later versions, and `format`.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// One deployment: its directory, its state, its entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Which.
    pub id: DeploymentId,
    /// What is remembered of it. `state` is corrected by what is on the ESP: a staged one with an entry is on trial.
    pub state: StateFile,
    /// Its entry files, the one the loader takes first.
    pub entries: Vec<Found>,
}

impl Deployment {
    /// The counter of the entry that the loader takes.
    pub fn counter(&self) -> Option<Counter> {
        self.entries.first().and_then(|f| f.name.as_ref()).and_then(|n| n.counter)
    }

    /// Whether the loader would boot it before those that are out of tries.
    pub fn bootable(&self) -> bool {
        !self.entries.is_empty() && !self.exhausted()
    }

    /// Whether it has an entry, and none of its entries has tries left.
    pub fn exhausted(&self) -> bool {
        !self.entries.is_empty()
            && self.entries.iter().all(|f| f.name.as_ref().is_some_and(bootloader::EntryName::exhausted))
    }

    /// The greatest generation number it is known by.
    pub fn generation(&self) -> u64 {
        self.entries.iter().filter_map(|f| f.entry.generation()).max().unwrap_or(self.state.generation)
    }

    /// Version, or the beginning of the commit.
    pub fn label(&self) -> String {
        self.state.version.clone().unwrap_or_else(|| self.id.short())
    }
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Space {
    /// Bytes that may be written.
    pub free: u64,
    /// Its size.
    pub total: u64,
}

/// A snapshot of everything that the planners look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The stateroot.
    pub os: String,
    /// What runs now.
    pub booted: Booted,
    /// All complete deployments: in the loader's order, then those without an entry, newest first.
    pub deployments: Vec<Deployment>,
    /// Entries of ours that belong to no deployment.
    pub stray_entries: Vec<String>,
    /// Directories and files of deployments that are not complete.
    pub leftovers: Vec<String>,
    /// Kernel directories on the ESP and their size; 0 when incomplete.
    pub kernels: BTreeMap<String, u64>,
    /// What the loader reported.
    pub boot: BootVariables,
    /// Where updates come from.
    pub remote: Remote,
    /// Commits that failed here.
    pub bad: BadMarks,
    /// Room in the root file system.
    pub root_space: Space,
    /// Room on the ESP.
    pub esp_space: Space,
    /// What the first boot was told, once it is complete.
    pub first_boot: Option<firstboot::Record>,
    /// Things that are not as they should be.
    pub problems: Vec<String>,
}

/// Why the machine could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was not booted from a deployment.
    #[error("this machine was not booted from a Slipway deployment (no {0})")]
    NotAHost(PathBuf),
    /// A state file.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The ESP.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The file system.
    #[error("reading {0}")]
    Io(PathBuf, #[source] io::Error),
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> LoadError {
    let path = path.to_owned();
    move |e| LoadError::Io(path, e)
}

impl Machine {
    /// Reads the machine whose `/` is at the root of `paths`.
    pub fn load(paths: &Paths) -> Result<Machine, LoadError> {
        let booted = Self::booted(paths)?;
        let os = booted.os.clone();
        let tree: TreeInfo = json::read(&paths.tree_json())?.unwrap_or_default();
        let esp = Esp::new(paths.esp());
        let entries = esp.entries()?;
        let mut machine = Machine {
            remote: Remote::load(paths, &tree)?,
            bad: json::read(&paths.bad_marks(&os))?.unwrap_or_default(),
            boot: BootVariables::load(paths.root()).map_err(io(&paths.root().join("sys/firmware/efi/efivars")))?,
            root_space: space(&paths.sysroot())?,
            esp_space: space(&paths.esp())?,
            os,
            booted,
            deployments: Vec::new(),
            stray_entries: Vec::new(),
            leftovers: Vec::new(),
            kernels: BTreeMap::new(),
            first_boot: None,
            problems: Vec::new(),
        };
        match firstboot::Record::load(paths.root()) {
            Ok(record) => machine.first_boot = record,
            Err(error) => machine.problems.push(format!("{:#}", anyhow::Error::new(error))),
        }
        if let Ok(text) = std::fs::read_to_string(paths.finalize_failure()) {
            machine.problems.push(format!("the last shutdown could not switch: {}", text.trim()));
        }
        for sum in esp.kernels()? {
            let size = if esp.has_kernel(&sum) { esp.kernel_size(&sum) } else { 0 };
            machine.kernels.insert(sum, size);
        }
        machine.read_deployments(paths)?;
        machine.attach(entries);
        machine.order();
        Ok(machine)
    }

    /// Reads only what runs now.
    pub fn booted(paths: &Paths) -> Result<Booted, LoadError> {
        json::read(&paths.booted())?.ok_or_else(|| LoadError::NotAHost(paths.booted()))
    }

    fn read_deployments(&mut self, paths: &Paths) -> Result<(), LoadError> {
        let dir = paths.deployments(&self.os);
        let (mut dirs, mut states, mut others) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for item in std::fs::read_dir(&dir).map_err(io(&dir))? {
            let item = item.map_err(io(&dir))?;
            let name = item.file_name().to_string_lossy().into_owned();
            let is_dir = item.file_type().map_err(io(&dir))?.is_dir();
            match (is_dir, name.parse::<DeploymentId>(), name.strip_suffix(".state.json").map(str::parse)) {
                (true, Ok(id), _) => {
                    dirs.insert(id);
                }
                (false, _, Some(Ok(id))) => {
                    states.insert(id);
                }
                _ => others.push(name),
            }
        }
        for id in dirs.union(&states) {
            let path = paths.state(&self.os, id);
            let booted = *id == self.booted.deployment;
            let state = match json::read::<StateFile>(&path) {
                Ok(Some(state)) if dirs.contains(id) => state,
                Ok(_) if booted => self.remembered(),
                Ok(_) => {
                    self.leftovers.push(id.to_string());
                    continue;
                }
                Err(e) => {
                    self.problems.push(format!("{:#}", anyhow::Error::new(e)));
                    if !booted {
                        continue;
                    }
                    self.remembered()
                }
            };
            self.deployments.push(Deployment { id: *id, state, entries: Vec::new() });
        }
        for name in others {
            let known = name.strip_suffix(".origin").and_then(|n| n.parse::<DeploymentId>().ok());
            if !known.is_some_and(|id| self.deployments.iter().any(|d| d.id == id)) {
                self.leftovers.push(name);
            }
        }
        self.leftovers.sort();
        if !self.deployments.iter().any(|d| d.id == self.booted.deployment) {
            self.problems
                .push(format!("the booted deployment {} is gone from the disk", self.booted.deployment.short()));
        }
        Ok(())
    }

    /// The booted deployment works, whatever became of its state file.
    fn remembered(&self) -> StateFile {
        StateFile {
            format: json::FORMAT.to_owned(),
            state: State::Good,
            pinned: false,
            version: None,
            ref_name: None,
            url: None,
            signer: self.booted.signer.clone(),
            title: String::new(),
            bootcsum: String::new(),
            kargs: Vec::new(),
            generation: 0,
            digest: self.booted.digest.clone(),
            timestamp: 0,
            hold: false,
            reason: None,
            finalize: None,
            rest: BTreeMap::new(),
        }
    }

    fn attach(&mut self, entries: Vec<Found>) {
        for found in entries {
            let Some(name) = found.name.clone().filter(|n| n.os == self.os) else { continue };
            // Twelve digits name the commit in the file name; the options name all of them.
            let owner = self.deployments.iter_mut().find(|d| {
                d.id.entry_name(&name.os).id() == name.id()
                    && found.entry.deployment().is_none_or(|text| text == format!("{}/{}", name.os, d.id))
            });
            match owner {
                Some(deployment) => deployment.entries.push(found),
                None => self.stray_entries.push(found.file),
            }
        }
        for deployment in &mut self.deployments {
            let Some(first) = deployment.entries.first() else { continue };
            if deployment.state.state == State::Staged {
                // Power went after the switch, before it was written down.
                deployment.state.state = State::Trial;
                deployment.state.finalize = deployment.state.finalize.take().map(|mut record| {
                    record.result = FinalizeResult::Done;
                    record
                });
            }
            if deployment.state.bootcsum.is_empty() {
                deployment.state.bootcsum = first.entry.bootcsum().unwrap_or_default().to_owned();
            }
        }
    }

    fn order(&mut self) {
        let mut ranked: Vec<Found> = self.deployments.iter().filter_map(|d| d.entries.first().cloned()).collect();
        ranked.sort_by(|a, b| a.file.cmp(&b.file));
        bootloader::sort(&mut ranked);
        let rank = |d: &Deployment| {
            let file = d.entries.first().map(|f| f.file.clone());
            file.and_then(|file| ranked.iter().position(|f| f.file == file)).unwrap_or(usize::MAX)
        };
        self.deployments.sort_by_key(|d| (rank(d), std::cmp::Reverse(d.state.generation), d.id));
    }

    /// The deployment that runs now.
    pub fn booted_deployment(&self) -> Option<&Deployment> {
        self.get(&self.booted.deployment)
    }

    /// One deployment.
    pub fn get(&self, id: &DeploymentId) -> Option<&Deployment> {
        self.deployments.iter().find(|d| d.id == *id)
    }

    /// The one that the loader takes next.
    pub fn default(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|d| !d.entries.is_empty())
    }

    /// The one that the next clean shutdown switches to, unless it is held back.
    pub fn staged(&self) -> Option<&Deployment> {
        // There are two only after a crash between staging one and removing the one before, which is held then.
        self.all_staged().min_by_key(|d| d.state.hold)
    }

    /// All that are staged.
    pub fn all_staged(&self) -> impl Iterator<Item = &Deployment> {
        self.deployments.iter().filter(|d| d.state.state == State::Staged)
    }

    /// Where `host rollback` goes: back to the running one when another boots next, else to the best other one that is
    /// known to be good.
    pub fn rollback(&self) -> Option<&Deployment> {
        let booted = self.booted.deployment;
        match self.default() {
            Some(default) if default.id != booted && default.bootable() => self.get(&booted),
            _ => self
                .deployments
                .iter()
                .filter(|d| d.id != booted && d.state.state == State::Good && !d.exhausted())
                .max_by_key(|d| d.generation()),
        }
    }

    /// A generation number greater than any in use.
    pub fn next_generation(&self) -> u64 {
        self.deployments.iter().map(|d| d.generation().max(d.state.generation)).max().unwrap_or(0) + 1
    }

    /// A serial number that no deployment of this commit has, complete or not.
    pub fn next_serial(&self, commit: &Checksum) -> u32 {
        let left = self.leftovers.iter().filter_map(|name| {
            let name = name.strip_suffix(".origin").or(name.strip_suffix(".state.json")).unwrap_or(name);
            name.parse::<DeploymentId>().ok()
        });
        let taken: BTreeSet<u32> = self
            .deployments
            .iter()
            .map(|d| d.id)
            .chain(left)
            .filter(|id| id.commit == *commit)
            .map(|id| id.serial)
            .collect();
        (0..).find(|n| !taken.contains(n)).unwrap_or(0)
    }
}

fn space(path: &Path) -> Result<Space, LoadError> {
    let stat = rustix::fs::statvfs(path).map_err(|e| LoadError::Io(path.to_owned(), e.into()))?;
    Ok(Space { free: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
}
