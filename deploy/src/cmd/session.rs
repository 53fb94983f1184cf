//! One command on one machine: the lock, the writable root file system, the snapshot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use deploy::machine::LoadError;
use deploy::paths::Paths;
use deploy::plan::{Plan, Refusal};
use deploy::{Machine, execute, json, status};
use store::sign::{Keyring, PublicKey};
use store::{Repo, Verity};
use sys::{Lock, LockError, Refused};

/// What a command may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look.
    Read,
    /// Change something; another command at work is a refusal.
    Change,
    /// Change something at shutdown or boot: another command at work is waited for.
    ChangeWait,
}

/// A command at work.
pub struct Session {
    /// Where things lie.
    pub paths: Paths,
    /// The machine's repository.
    pub repo: Repo,
    /// The snapshot that plans are made from.
    pub machine: Machine,
    _lock: Option<Lock>,
}

/// The `/` that a command works on.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The machine's own `/`, or a directory laid out like one.
    pub fn new(path: impl Into<PathBuf>) -> Root {
        Root(path.into())
    }

    /// Whether it is the machine's own.
    pub fn real(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Its paths.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.0)
    }
}

impl Session {
    /// Begins a command. `verb` is what others are told while it works.
    pub fn open(root: &Root, verb: &str, access: Access) -> anyhow::Result<Session> {
        let paths = root.paths();
        Machine::booted(&paths).map_err(not_a_host)?;
        let mut lock = None;
        if access != Access::Read {
            if root.real() && !rustix::process::geteuid().is_root() {
                return Err(Refused::with_hint(
                    format!("`host {verb}` changes the machine and needs root"),
                    format!("run `sudo host {verb}`; `host status` works for everybody"),
                )
                .into());
            }
            lock = Some(take_lock(&paths.lock(), verb, access)?);
            if root.real() {
                if !mounted(&paths.esp())? {
                    return Err(Refused::with_hint(
                        "the EFI system partition is not mounted at /efi",
                        "`systemctl status efi.mount` tells why; nothing was changed",
                    )
                    .into());
                }
                writable_sysroot().context("making /sysroot writable for this command")?;
            }
        }
        let repo = Repo::open(&paths.repo())?;
        let machine = match Machine::load(&paths) {
            // The ESP is root's alone.
            Err(error) if root.real() && !rustix::process::geteuid().is_root() => {
                let error = anyhow::Error::new(error);
                let hint = format!("run `sudo host {verb}`; `host status` works for everybody");
                return Err(Refused::with_hint(format!("`host {verb}` needs root: {error:#}"), hint).into());
            }
            other => other.map_err(not_a_host)?,
        };
        Ok(Session { paths, repo, machine, _lock: lock })
    }

    /// Takes a new snapshot after something was changed.
    pub fn reload(&mut self) -> anyhow::Result<()> {
        self.machine = Machine::load(&self.paths)?;
        Ok(())
    }

    /// Whether files must have fs-verity: wherever this machine's own deployment has it.
    pub fn verity(&self) -> Verity {
        match self.machine.booted.level.as_str() {
            "unverified" => Verity::IfSupported,
            _ => Verity::Require,
        }
    }

    /// Carries a plan out, and tells ordinary users how things stand then.
    pub fn execute(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let context = execute::Context {
            paths: &self.paths,
            os: self.machine.os.clone(),
            repo: &self.repo,
            verity: self.verity(),
        };
        let done = execute::run(plan, &context);
        // Even a plan that stopped half-way changed what is true.
        self.reload()?;
        self.publish()?;
        Ok(done?)
    }

    /// Writes `/run/slipway/status.json`.
    pub fn publish(&self) -> anyhow::Result<()> {
        Ok(json::write(&self.paths.status(), &status::json(&self.machine))?)
    }

    /// The keys of the running tree. Keys in `/etc` are not asked: the initramfs does not know them.
    pub fn keyring(&self) -> anyhow::Result<Keyring> {
        keyring(&self.paths)
    }
}

/// The keys of the tree that runs at `paths`.
fn keyring(paths: &Paths) -> anyhow::Result<Keyring> {
    let share = paths.root().join("usr/share/ostree");
    let mut ring = Keyring::default();
    for (dir, revoked) in [("trusted.ed25519.d", false), ("revoked.ed25519.d", true)] {
        let dir = share.join(dir);
        let listing = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.with_context(|| format!("reading {}", dir.display()))?,
        };
        for file in listing {
            let path = file?.path();
            if revoked {
                for key in key_lines(&path)? {
                    ring.revoke(key);
                }
            } else {
                ring.add_file(&path)?;
            }
        }
    }
    Ok(ring)
}

fn key_lines(path: &Path) -> anyhow::Result<Vec<PublicKey>> {
    let mut ring = Keyring::default();
    ring.add_file(path)?;
    Ok(ring.keys().cloned().collect())
}

fn not_a_host(error: LoadError) -> anyhow::Error {
    match error {
        LoadError::NotAHost(_) => Refused::with_hint(
            error.to_string(),
            "`host` works on machines that run a Slipway image; on a build machine use `slipway`",
        )
        .into(),
        other => other.into(),
    }
}

/// Turns a planner's "no" into the program's.
pub fn refused(refusal: Refusal) -> anyhow::Error {
    Refused { reason: refusal.to_string(), hint: refusal.hint() }.into()
}

fn take_lock(path: &Path, verb: &str, access: Access) -> anyhow::Result<Lock> {
    let lock = match Lock::try_exclusive(path) {
        Err(LockError::Held(_)) if access == Access::ChangeWait => {
            tracing::info!("waiting for {}", holder(path));
            Lock::exclusive(path)?
        }
        Err(LockError::Held(_)) => {
            return Err(Refused::with_hint(
                format!("another command is changing this machine: {}", holder(path)),
                "wait until it is done, then try again; nothing was changed",
            )
            .into());
        }
        other => other?,
    };
    std::fs::write(path, format!("host {verb}, process {}\n", std::process::id()))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(lock)
}

fn mounted(path: &Path) -> anyhow::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).with_context(|| format!("reading {}", p.display()));
    Ok(device(path)? != device(Path::new("/"))?)
}

fn holder(path: &Path) -> String {
    // Between taking the lock and writing the line there is a moment without a name.
    for _ in 0..10 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if !text.trim().is_empty() {
            return text.trim().to_owned();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    "host, process unknown".to_owned()
}

/// `/sysroot` is mounted read-only for everybody. This process gets a mount namespace of its own, in which it is not.
#[allow(unsafe_code, reason = "unshare is unsafe only for what it may do to other threads' descriptors")]
fn writable_sysroot() -> std::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount_change, mount_remount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: only a mount namespace is unshared, no descriptor table, and no other thread runs yet.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)?;
    mount_remount("/sysroot", MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV, c"")?;
    Ok(())
}
