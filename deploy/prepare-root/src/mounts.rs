//! The mounts of a deployment, in order.
//!
//! ```text
//!  /dev/GROUP/VOLUME --ext4, read-only--> /sysroot.tmp                        nothing is written before the check is over
//!    .../COMMIT.N/.ostree.cfs --erofs--> /run/slipway/lower                   names, owners, modes
//!    ostree/repo/objects ---------------\
//!    /run/slipway/lower ------------------overlay verity=require--> /sysroot  contents, each read checked by the kernel
//!  remount /sysroot.tmp read-write
//!    /sysroot.tmp          --bind, ro--> /sysroot/sysroot
//!    .../COMMIT.N/etc      --bind, rw--> /sysroot/etc
//!    ostree/deploy/OS/var  --bind, rw--> /sysroot/var
//!  detach /sysroot.tmp and /run/slipway/lower: the overlay keeps its own references
//! ```
//!
//! The plan is data; [`run`] chooses nothing. `mount --move` is not used: systemd makes `/` shared, and a move out of a
//! shared parent is refused. `nosuid` on the ext4 mount does not reach the overlay, so setuid programs in `/usr` work
//! although their objects lie on a `nosuid` mount.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind, mount_remount, move_mount, unmount,
};

use crate::cmdline::Deployment;

/// Where the system's file system is mounted until the deployment stands.
pub const PHYSICAL: &str = "/sysroot.tmp";
/// Where the new root is built; systemd switches to it.
pub const TARGET: &str = "/sysroot";
/// Where the image of names is mounted for a moment.
pub const LOWER: &str = "/run/slipway/lower";

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a directory, parents too.
    Dir(String),
    /// A new file system on `target`.
    Mount {
        /// Its type.
        kind: &'static str,
        /// Options of the file system: key and value, or key alone.
        options: Vec<(&'static str, Option<String>)>,
        /// The superblock itself is read-only.
        read_only: bool,
        /// Flags of the mount.
        flags: Flags,
        /// The directory.
        target: String,
    },
    /// Make the superblock of the file system at this path writable.
    Writable(String),
    /// Show `source` at `target` too.
    Bind {
        /// The directory.
        source: String,
        /// Where to show it.
        target: String,
        /// Flags of the new mount.
        flags: Flags,
    },
    /// Detach the mount, whatever uses it, and remove its directory.
    Detach(String),
}

/// Flags of a mount. Every mount is `nodev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// Nothing can be written through this mount.
    pub read_only: bool,
    /// No setuid, no capabilities.
    pub nosuid: bool,
}

const READ_ONLY: Flags = Flags { read_only: true, nosuid: false };
const DATA: Flags = Flags { read_only: false, nosuid: true };
const DATA_READ_ONLY: Flags = Flags { read_only: true, nosuid: true };

/// The first half: the system's file system, read-only, so that the deployment can be examined.
pub fn physical(volume: &str) -> Vec<Step> {
    vec![
        Step::Dir(PHYSICAL.to_owned()),
        Step::Mount {
            kind: "ext4",
            options: vec![("source", Some(format!("/dev/{volume}")))],
            read_only: true,
            flags: DATA_READ_ONLY,
            target: PHYSICAL.to_owned(),
        },
    ]
}

/// The second half: the deployment whose image has this fs-verity digest.
pub fn deployment(deployment: &Deployment, digest: &str) -> Vec<Step> {
    let dir = format!("{PHYSICAL}/{}", deployment.dir());
    let text = |s: &str| Some(s.to_owned());
    vec![
        Step::Dir(LOWER.to_owned()),
        Step::Mount {
            kind: "erofs",
            options: vec![("source", Some(format!("{dir}/.ostree.cfs")))],
            read_only: true,
            flags: READ_ONLY,
            target: LOWER.to_owned(),
        },
        Step::Mount {
            kind: "overlay",
            options: vec![
                ("source", Some(format!("composefs:{digest}"))),
                // Debian's overlay module has both switched off by default.
                ("metacopy", text("on")),
                ("redirect_dir", text("on")),
                ("verity", text("require")),
                ("lowerdir+", text(LOWER)),
                ("datadir+", Some(format!("{PHYSICAL}/ostree/repo/objects"))),
            ],
            read_only: true,
            flags: READ_ONLY,
            target: TARGET.to_owned(),
        },
        // Only now: a refused deployment leaves the disk as it was.
        Step::Writable(PHYSICAL.to_owned()),
        Step::Bind { source: PHYSICAL.to_owned(), target: format!("{TARGET}/sysroot"), flags: DATA_READ_ONLY },
        Step::Bind { source: format!("{dir}/etc"), target: format!("{TARGET}/etc"), flags: DATA },
        Step::Bind { source: format!("{PHYSICAL}/{}", deployment.var()), target: format!("{TARGET}/var"), flags: DATA },
        Step::Detach(LOWER.to_owned()),
        Step::Detach(PHYSICAL.to_owned()),
    ]
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Dir(path) => write!(f, "mkdir {path}"),
            Step::Mount { kind, options, read_only, flags, target } => {
                write!(f, "mount {kind} ({}", if *read_only { "ro" } else { "rw" })?;
                for (key, value) in options {
                    match value {
                        Some(value) => write!(f, " {key}={value}")?,
                        None => write!(f, " {key}")?,
                    }
                }
                write!(f, ") {target} {flags}")
            }
            Step::Writable(path) => write!(f, "remount {path} rw"),
            Step::Bind { source, target, flags } => write!(f, "bind {source} {target} {flags}"),
            Step::Detach(path) => write!(f, "detach {path}"),
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.read_only { "ro,nodev" } else { "rw,nodev" })?;
        if self.nosuid { f.write_str(",nosuid") } else { Ok(()) }
    }
}

/// The step that did not work.
#[derive(Debug, thiserror::Error)]
#[error("{step}{}", log_text(.log))]
pub struct StepError {
    /// The step.
    pub step: String,
    /// What the kernel said about it.
    pub log: String,
    /// The cause.
    #[source]
    pub source: io::Error,
}

fn log_text(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" (the kernel says: {log})") }
}

/// Does the steps in order; stops at the first that fails.
pub fn run(steps: &[Step]) -> Result<(), StepError> {
    for step in steps {
        let mut log = String::new();
        do_step(step, &mut log).map_err(|source| StepError { step: step.to_string(), log, source })?;
    }
    Ok(())
}

fn do_step(step: &Step, log: &mut String) -> io::Result<()> {
    match step {
        Step::Dir(path) => fs::create_dir_all(path),
        Step::Mount { kind, options, read_only, flags, target } => {
            new_mount(kind, options, *read_only, *flags, target, log)
        }
        Step::Writable(path) => {
            Ok(mount_remount(path.as_str(), MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME, c"")?)
        }
        Step::Bind { source, target, flags } => {
            mount_bind(source.as_str(), target.as_str())?;
            let mut change = MountFlags::BIND | MountFlags::NODEV | MountFlags::NOATIME;
            if flags.read_only {
                change |= MountFlags::RDONLY;
            }
            if flags.nosuid {
                change |= MountFlags::NOSUID;
            }
            Ok(mount_remount(target.as_str(), change, c"")?)
        }
        Step::Detach(path) => {
            unmount(path.as_str(), UnmountFlags::DETACH)?;
            // An empty directory in the initramfs hurts nobody.
            let _ = fs::remove_dir(path);
            Ok(())
        }
    }
}

/// `fsopen` and its kin load the file system's module by themselves and, unlike `mount`, say what they did not like.
fn new_mount(
    kind: &str,
    options: &[(&'static str, Option<String>)],
    read_only: bool,
    flags: Flags,
    target: &str,
    log: &mut String,
) -> io::Result<()> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let made = (|| {
        for (key, value) in options {
            match value {
                Some(value) => fsconfig_set_string(context.as_fd(), *key, value.as_str())?,
                None => fsconfig_set_flag(context.as_fd(), *key)?,
            }
        }
        if read_only {
            fsconfig_set_flag(context.as_fd(), "ro")?;
        }
        fsconfig_create(context.as_fd())?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOATIME;
        if flags.read_only {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        if flags.nosuid {
            attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID;
        }
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(mount.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    })();
    if made.is_err() {
        *log = kernel_log(&context);
    }
    Ok(made?)
}

/// The messages a file system left in its context.
fn kernel_log(context: &OwnedFd) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0u8; 4096];
    // Each read returns one message; ENODATA ends them.
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 || lines.len() == 16 {
            break;
        }
        lines.push(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned());
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(steps: &[Step]) -> String {
        steps.iter().map(|s| format!("{s}\n")).collect()
    }

    #[test]
    fn the_plan_of_a_deployment() {
        let c = "0123456789abcdef".repeat(4);
        let name = Deployment::parse(&format!("slipway/{c}.2")).unwrap();
        let d = format!("/sysroot.tmp/ostree/deploy/slipway/deploy/{c}.2");
        assert_eq!(
            text(&physical("host/root")),
            "mkdir /sysroot.tmp\nmount ext4 (ro source=/dev/host/root) /sysroot.tmp ro,nodev,nosuid\n"
        );
        assert_eq!(
            text(&deployment(&name, "d1ge57")),
            format!(
                "mkdir /run/slipway/lower
mount erofs (ro source={d}/.ostree.cfs) /run/slipway/lower ro,nodev
mount overlay (ro source=composefs:d1ge57 metacopy=on redirect_dir=on verity=require lowerdir+=/run/slipway/lower \
                 datadir+=/sysroot.tmp/ostree/repo/objects) /sysroot ro,nodev
remount /sysroot.tmp rw
bind /sysroot.tmp /sysroot/sysroot ro,nodev,nosuid
bind {d}/etc /sysroot/etc rw,nodev,nosuid
bind /sysroot.tmp/ostree/deploy/slipway/var /sysroot/var rw,nodev,nosuid
detach /run/slipway/lower
detach /sysroot.tmp
"
            )
        );
    }

    #[test]
    fn a_step_that_fails_names_itself() {
        let error = run(&[Step::Detach("/nonexistent/slipway".to_owned())]).unwrap_err();
        assert_eq!(error.to_string(), "detach /nonexistent/slipway");
    }
}
