//! What one scenario has.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::artifacts::Artifacts;
use crate::guest::Guest;
use crate::repository::Repository;
use crate::server::Server;
use crate::world::{State, World};

/// One scenario's directory, and the way to machines and servers.
#[derive(Debug)]
pub struct Context<'w> {
    /// What all scenarios share.
    pub world: &'w World,
    /// Logs of machines and servers; what a machine wrote to its disks is removed when the scenario has passed.
    pub dir: PathBuf,
    name: &'static str,
    count: Cell<u32>,
}

impl<'w> Context<'w> {
    /// An empty directory for the scenario `name`.
    pub fn new(world: &'w World, name: &'static str) -> Result<Context<'w>> {
        let dir = world.dir.join(name);
        sys::file::remove_tree(&dir)?;
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Context { world, dir, name, count: Cell::new(0) })
    }

    /// What is booted.
    pub fn artifacts(&self) -> &Artifacts {
        &self.world.artifacts
    }

    fn next(&self, what: &str) -> PathBuf {
        self.count.set(self.count.get() + 1);
        self.dir.join(format!("{what}-{}", self.count.get()))
    }

    /// Serves the published repository.
    pub fn updates(&self) -> Result<Server> {
        self.serve(&self.artifacts().repo, &[])
    }

    /// Serves any directory.
    pub fn serve(&self, dir: &Path, options: &[&str]) -> Result<Server> {
        Server::start(&self.world.slipway, dir, &self.next("serve").with_extension("log"), options)
    }

    /// Serves the published repository where `gone` did, which has ended: for the machine it is the same server.
    pub fn updates_instead_of(&self, gone: Server) -> Result<Server> {
        let (address, log) = (gone.address.clone(), self.next("serve").with_extension("log"));
        drop(gone);
        Server::start_at(&address, &self.world.slipway, &self.artifacts().repo, &log, &[])
    }

    /// A copy of the published repository.
    pub fn repository(&self) -> Result<Repository> {
        Repository::copy(&self.artifacts().repo, &self.next("repo"))
    }

    /// A machine that goes on from `state`.
    pub fn resume(&self, state: State, server: &Server) -> Result<Guest> {
        self.world.resume(state, self.name, &self.next("machine"), server)
    }

    /// A machine that boots the image for the first time.
    pub fn cold(&self, server: &Server) -> Result<Guest> {
        self.world.cold(self.name, &self.next("machine"), server)
    }

    /// A directory for a machine that the scenario builds itself.
    pub fn machine_dir(&self) -> PathBuf {
        self.next("machine")
    }

    /// Removes what is large: overlays, copies of the repository.
    pub fn tidy(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with("repo-") {
                let _ = sys::file::remove_tree(&path);
            }
            for file in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                if file.path().extension().is_some_and(|e| e == "qcow2" || e == "raw") {
                    let _ = sys::file::remove(&file.path());
                }
            }
        }
    }
}
