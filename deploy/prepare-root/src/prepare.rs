//! Examine, judge, mount, record.
//!
//! The system's file system is mounted read-only first; the evidence is read from it, and only a deployment that passes
//! makes it writable. Nothing here waits: systemd starts the program once dracut has activated the volume.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use store::sign::Keyring;
use store::value::Value;
use store::{Checksum, Commit};

use crate::cmdline::{CmdlineError, Deployment, Request};
use crate::level::{self, Evidence, Level, Refusal, Verdict};
use crate::mounts::{self, StepError};
use crate::record::{self, Booted};

/// The commit's metadata key with the digest of its image.
const DIGEST_KEY: &str = "ostree.composefs.digest.v0";
/// What the tree requires, as it was when the initramfs was made.
const TREE: &str = "usr/lib/slipway/tree.json";

/// Why the deployment did not become the root.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The command line makes no sense.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// Something cannot be read.
    #[error("reading {0}")]
    Read(PathBuf, #[source] io::Error),
    /// The tree's own file in the initramfs is not understood.
    #[error("/{TREE} in the initramfs is not understood: {0}; compose the tree again")]
    Tree(String),
    /// The volume is not there.
    #[error(
        "there is no /dev/{0}: the volume group was not found or not activated; check that all its disks are attached"
    )]
    NoVolume(String),
    /// The deployment is not there.
    #[error("deployment {0} is not on this disk; boot another entry")]
    NoDeployment(String),
    /// The commit object cannot be read as one.
    #[error("the commit object of deployment {0} is not understood: {1}; boot another entry")]
    Commit(String, String),
    /// It does not pass.
    #[error("deployment {0} is refused: {1}; boot another entry, or write the image again")]
    Refused(String, #[source] Refusal),
    /// A mount did not work.
    #[error("mounting deployment {0}")]
    Mount(String, #[source] StepError),
    /// The record was not written.
    #[error("writing {}", record::PATH)]
    Record(#[source] io::Error),
}

/// Mounts what the kernel's command line names; `say` gets the lines for the console.
pub fn run(say: &mut dyn FnMut(&str)) -> Result<Booted, PrepareError> {
    let cmdline = read(Path::new("/proc/cmdline"))?;
    let request = Request::parse(&String::from_utf8_lossy(&cmdline))?;
    let initramfs = Path::new("/");
    let required = required(initramfs)?;
    if !Path::new("/dev").join(&request.volume).exists() {
        return Err(PrepareError::NoVolume(request.volume));
    }
    let name = &request.deployment;
    let failed = |e| PrepareError::Mount(name.to_string(), e);

    mounts::run(&mounts::physical(&request.volume)).map_err(failed)?;
    let verdict = examine(name, Path::new(mounts::PHYSICAL), initramfs, required)?;
    mounts::run(&mounts::deployment(name, &verdict.digest)).map_err(failed)?;

    let booted = Booted::new(name, required, &verdict);
    fs::write(record::PATH, booted.render()).map_err(PrepareError::Record)?;
    match (&verdict.signer, &verdict.unsigned) {
        (Some(key), _) => say(&format!("{name}: {}, signed with {key}", verdict.level)),
        (None, why) => say(&format!("{name}: {}, unsigned ({})", verdict.level, why.as_deref().unwrap_or("?"))),
    }
    Ok(booted)
}

/// What the tree in this initramfs requires.
pub fn required(initramfs: &Path) -> Result<Level, PrepareError> {
    let path = initramfs.join(TREE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(PrepareError::Read(path, e)),
    };
    level::required(bytes.as_deref()).map_err(PrepareError::Tree)
}

/// Reads the evidence for a deployment from the file system below `physical`, with the keys of `initramfs`, and judges it.
pub fn examine(name: &Deployment, physical: &Path, initramfs: &Path, required: Level) -> Result<Verdict, PrepareError> {
    let image = physical.join(name.dir()).join(".ostree.cfs");
    let image = match File::open(&image) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(PrepareError::NoDeployment(name.to_string())),
        Err(e) => return Err(PrepareError::Read(image, e)),
    };
    let commit_path = object(physical, &name.commit, "commit");
    let bytes = match fs::read(&commit_path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(PrepareError::NoDeployment(name.to_string())),
        Err(e) => return Err(PrepareError::Read(commit_path, e)),
    };
    let found = Checksum::of(&bytes);
    // A damaged object is not worth parsing: the verdict is the same whatever it contains.
    let wanted = if found == name.commit {
        let commit = Commit::decode(&bytes).map_err(|e| PrepareError::Commit(name.to_string(), e.to_string()))?;
        match commit.metadata.get(DIGEST_KEY) {
            Some(Value::Bytes(bytes)) => <[u8; 32]>::try_from(bytes.as_slice()).ok(),
            _ => None,
        }
    } else {
        None
    };
    let evidence = Evidence {
        commit: found,
        wanted,
        measured: store::verity::measure(&image).map_err(|e| e.to_string()),
        signer: signer(&bytes, &object(physical, &name.commit, "commitmeta"), initramfs),
    };
    level::decide(&name.commit, required, &evidence).map_err(|refusal| PrepareError::Refused(name.to_string(), refusal))
}

/// The key that signed these bytes, or why no signature counts. The signatures lie beside the commit, the keys do not.
fn signer(commit: &[u8], detached: &Path, initramfs: &Path) -> Result<String, String> {
    let detached = match fs::read(detached) {
        Ok(bytes) => store::value::decode_dict(&bytes).map_err(|e| e.to_string())?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err("it carries no signature".to_owned()),
        Err(e) => return Err(format!("its signatures cannot be read: {e}")),
    };
    let keyring = Keyring::load(initramfs).map_err(|e| format!("the keys cannot be read: {e}"))?;
    keyring.verify(commit, &detached).map(|key| key.to_string()).map_err(|e| e.to_string())
}

fn object(physical: &Path, checksum: &Checksum, suffix: &str) -> PathBuf {
    let hex = checksum.to_string();
    physical.join("ostree/repo/objects").join(&hex[..2]).join(format!("{}.{suffix}", &hex[2..]))
}

fn read(path: &Path) -> Result<Vec<u8>, PrepareError> {
    fs::read(path).map_err(|e| PrepareError::Read(path.to_owned(), e))
}
