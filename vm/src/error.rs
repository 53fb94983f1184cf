//! Why a machine could not be built, started or driven.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of this crate. Where a machine was running, the text ends with the last lines of its serial console.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU is not installed.
    #[error("{0} is not installed; on Debian: apt-get install qemu-system-x86 qemu-utils ovmf")]
    QemuMissing(&'static str),
    /// QEMU is too old to emulate a Debian 13 kernel.
    #[error(
        "QEMU {found} cannot boot a Debian 13 kernel without KVM; install 8 or newer \
         (on Debian 12: apt-get install -t bookworm-backports qemu-system-x86 qemu-utils)"
    )]
    QemuOld {
        /// The version that is installed.
        found: String,
    },
    /// No UEFI firmware.
    #[error("no UEFI firmware found (looked for {looked_for}); on Debian: apt-get install ovmf")]
    Firmware {
        /// The files that were looked for.
        looked_for: String,
    },
    /// The machine's description makes no sense.
    #[error("{0}")]
    Config(String),
    /// A file of the machine cannot be read or written.
    #[error("{what} {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A helper program failed.
    #[error("preparing the machine's disks")]
    Cmd(#[from] sys::CmdError),
    /// QEMU ended.
    #[error("the machine ended while {during} ({how}){tail}")]
    Exited {
        /// What was being waited for.
        during: String,
        /// Exit status and the end of QEMU's own output.
        how: String,
        /// The end of the serial log.
        tail: Tail,
    },
    /// Something did not happen in time.
    #[error("no {what} after {} s{tail}", after.as_secs())]
    Timeout {
        /// What was being waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// The end of the serial log.
        tail: Tail,
    },
    /// The guest restarted under a command.
    #[error("the guest restarted while `{0}` was running")]
    Rebooted(String),
    /// The command channel broke.
    #[error("the command channel: {0}")]
    Channel(String),
    /// A checked command failed in the guest.
    #[error("in the guest, `{script}` ended with {code}{output}")]
    Failed {
        /// The command's first line.
        script: String,
        /// Its exit code.
        code: i32,
        /// The end of what it wrote.
        output: Tail,
    },
    /// QEMU's control socket answered with an error.
    #[error("QEMU refused {command}: {why}")]
    Qmp {
        /// The command.
        command: String,
        /// Its answer.
        why: String,
    },
    /// No machine has this name.
    #[error("no machine is called {name:?}{known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
}

/// The last lines of a text, shown below an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail(pub String);

impl Tail {
    /// The last `lines` lines of `text`, without terminal control sequences.
    pub fn of(text: &[u8], lines: usize) -> Tail {
        let text = crate::serial::plain(text);
        let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        Tail(all[all.len().saturating_sub(lines)..].join("\n"))
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in self.0.lines() {
            write!(f, "\n  | {line}")?;
        }
        Ok(())
    }
}

/// Shorthand for the commonest error.
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;
