//! The first boot: what the machine is told by credentials, applied once.
//!
//! ```text
//!  /run/credentials/@system/NAME      from SMBIOS, by PID 1       ─┐
//!  /efi/slipway/credentials/NAME      `slipway image --credential` ┴─> plan -> apply -> /var/lib/slipway/firstboot.json
//!
//!  ssh.authorized_keys.root           keys that may log in as root
//!  passwd.hashed-password.root        root's password, as crypt(5) hashes it
//!  firstboot.hostname, system.hostname
//!  network.{network,netdev,link}.NAME files for systemd-networkd and udev
//!  slipway.remote-url, slipway.remote-ref   where updates come from
//!  tmpfiles.extra                     files, as tmpfiles.d(5) lines
//!  systemd.extra-unit.NAME, systemd.unit-dropin.NAME
//! ```
//!
//! The names are systemd's own where it has one. Where a credential is in both places, SMBIOS wins: whoever starts the
//! machine is nearer to it than whoever wrote its disk. Units and tmpfiles lines from SMBIOS are left to systemd, which
//! applies them at each boot. After a first boot the files on the ESP are removed: nobody should find a password hash
//! there later.
//!
//! There is no default password, and what nobody can enter says so on its console.

mod apply;
mod plan;
mod source;
mod way_in;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::json::{self, JsonError};

pub use apply::ApplyError;
pub use plan::{Action, Plan, Secret};
pub use source::{Credential, Source};
pub use way_in::WayIn;

/// The record of the first boot.
const RECORD: &str = "var/lib/slipway/firstboot.json";

/// What the first boot was told and what became of it. Never contains a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this file's form.
    pub format: String,
    /// When, in seconds since 1970.
    pub time: u64,
    /// Credentials that were applied.
    pub applied: Vec<Entry>,
    /// Credentials that were not, and why.
    pub ignored: Vec<Entry>,
    /// What a newer program wrote.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where it came from.
    pub source: Source,
    /// What was done, or why nothing was.
    pub what: String,
}

/// Why the first boot is not complete.
#[derive(Debug, thiserror::Error)]
pub enum FirstBootError {
    /// The record cannot be read or written.
    #[error(transparent)]
    Record(#[from] JsonError),
    /// Something cannot be read.
    #[error("reading {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// Something was not done; it is tried again at the next boot.
    #[error("applying the credential {0}")]
    Apply(String, #[source] ApplyError),
}

impl Record {
    /// The record of the machine at `root`; `None` before its first boot is complete.
    pub fn load(root: &Path) -> Result<Option<Record>, JsonError> {
        json::read(&root.join(RECORD))
    }
}

/// What a boot found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// This was the first boot.
    pub first: bool,
    /// Its record.
    pub record: Record,
    /// How somebody can enter the machine.
    pub way_in: WayIn,
}

/// Applies credentials if that has not been done, and looks whether somebody can log in. Runs at each boot.
pub fn run(root: &Path, time: u64) -> Result<Outcome, FirstBootError> {
    let old = Record::load(root)?;
    let first = old.is_none();
    let record = match old {
        Some(record) => record,
        None => {
            let credentials = source::read(root)?;
            let plan = plan::plan(&credentials);
            let record = Record {
                format: json::FORMAT.to_owned(),
                time,
                applied: plan.applied(),
                ignored: plan.ignored.clone(),
                unknown: BTreeMap::new(),
            };
            apply::run(root, &plan)?;
            let path = root.join(RECORD);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|e| FirstBootError::Read(parent.to_owned(), e))?;
            }
            json::write(&path, &record)?;
            record
        }
    };
    // Only now that the record is durable; and again after a power cut in between.
    source::forget(root, &record)?;
    let way_in = way_in::look(root);
    way_in::announce(root, &way_in).map_err(|e| FirstBootError::Read(root.join(way_in::ISSUE), e))?;
    Ok(Outcome { first, record, way_in })
}

/// The record as lines for a person (`host status --verbose`).
pub fn text(record: &Record) -> String {
    let line = |mark: &str, e: &Entry| format!("  {mark} {} ({}): {}\n", e.name, e.source, e.what);
    let mut text = String::from("first boot\n");
    if record.applied.is_empty() && record.ignored.is_empty() {
        text.push_str("  no credentials\n");
    }
    record.applied.iter().for_each(|e| text.push_str(&line("applied", e)));
    record.ignored.iter().for_each(|e| text.push_str(&line("ignored", e)));
    text
}

#[cfg(test)]
mod tests;
