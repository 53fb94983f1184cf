//! Where credentials come from.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FirstBootError, Record};

/// Of systemd's PID 1.
const SYSTEM: &str = "run/credentials/@system";
/// Of the image.
const ESP: &str = "efi/slipway/credentials";
/// No credential is larger than systemd allows.
const LARGEST: u64 = 1 << 20;

/// Where a credential came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The machine's firmware or hypervisor, through PID 1.
    System,
    /// A file on the ESP.
    Esp,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::System => "system",
            Source::Esp => "ESP",
        })
    }
}

/// A credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Where it came from.
    pub source: Source,
    /// Its content.
    pub value: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({:?}, {} bytes)", self.source, self.value.len())
    }
}

/// All credentials, by name.
pub fn read(root: &Path) -> Result<BTreeMap<String, Credential>, FirstBootError> {
    let mut found = BTreeMap::new();
    // The later one replaces the earlier.
    for (source, dir) in [(Source::Esp, ESP), (Source::System, SYSTEM)] {
        let dir = root.join(dir);
        let error = |e| FirstBootError::Read(dir.clone(), e);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(error(e)),
        };
        for entry in entries {
            let entry = entry.map_err(error)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = entry.metadata().map_err(error)?;
            if !metadata.is_file() || metadata.len() > LARGEST || name.starts_with('.') {
                continue;
            }
            let value = fs::read(entry.path()).map_err(|e| FirstBootError::Read(entry.path(), e))?;
            found.insert(name, Credential { source, value });
        }
    }
    Ok(found)
}

/// Removes the files on the ESP that the record knows: applied or ignored, they have had their time.
pub fn forget(root: &Path, record: &Record) -> Result<(), FirstBootError> {
    let dir = root.join(ESP);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(FirstBootError::Read(dir, e)),
    };
    let mut removed = false;
    for entry in entries {
        let entry = entry.map_err(|e| FirstBootError::Read(dir.clone(), e))?;
        let known = |name: &str| record.applied.iter().chain(&record.ignored).any(|e| e.name == name);
        if entry.file_name().to_str().is_some_and(known) {
            let path = entry.path();
            sys::file::remove(&path).map_err(|e| FirstBootError::Read(path, e))?;
            removed = true;
        } else {
            tracing::warn!(
                "{} came after the first boot and is not applied; remove it, or write the image again",
                entry.path().display()
            );
        }
    }
    if removed {
        // Fails where something is left in it, and that is right.
        let _ = fs::remove_dir(&dir);
        sys::file::sync_fs(&root.join("efi")).map_err(|e| FirstBootError::Read(root.join("efi"), e))?;
    }
    Ok(())
}
