//! Our own `.deb`s as a repository that apt can resolve from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sys::Cmd;

use super::apt::{Apt, LOCAL_ORIGIN};
use super::{PackagesError, deb_path, deb822};

/// Puts the `.deb`s named by `paths` (files, or directories of them) into the cache, and their index into apt's
/// local repository.
pub fn write(apt: &Apt, cachedir: &Path, paths: &[PathBuf]) -> Result<(), PackagesError> {
    let mut stanzas = BTreeMap::new();
    for deb in files(paths)? {
        let problem = |reason: String| PackagesError::Local { path: deb.clone(), reason };
        let content = fs::read(&deb).map_err(|e| problem(e.to_string()))?;
        let control = Cmd::new("dpkg-deb").arg("-f").arg(&deb).output()?;
        if control.code != 0 {
            return Err(problem(String::from_utf8_lossy(&control.stderr).trim_end().to_owned()));
        }
        let control = control.text();
        let parsed = deb822::stanzas(&control);
        let name = parsed.first().and_then(|s| s.get("Package")).unwrap_or_default().to_owned();
        let version = parsed.first().and_then(|s| s.get("Version")).unwrap_or_default().to_owned();
        if name.is_empty() || version.is_empty() {
            return Err(problem("its control file has no Package or Version".to_owned()));
        }
        let sha256 = hex::encode(Sha256::digest(&content));
        let cached = deb_path(cachedir, &sha256);
        if fs::metadata(&cached).is_ok_and(|m| m.len() == content.len() as u64) {
            // There already, under the digest of its content.
        } else {
            sys::file::replace(&cached, &content, 0o644).map_err(|e| PackagesError::Io(cached.clone(), e))?;
        }
        let stanza = format!("{control}\nFilename: ./{sha256}.deb\nSize: {}\nSHA256: {sha256}\n", content.len());
        if stanzas.insert((name.clone(), version.clone()), stanza).is_some() {
            return Err(problem(format!("{name} {version} is given twice")));
        }
    }
    let packages: Vec<String> = stanzas.into_values().collect();
    let packages = packages.join("\n");
    let release = format!(
        "Origin: {LOCAL_ORIGIN}\nLabel: {LOCAL_ORIGIN}\nSuite: local\nDate: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n {} {} Packages\n",
        hex::encode(Sha256::digest(&packages)),
        packages.len()
    );
    let dir = apt.local();
    let io = |e| PackagesError::Io(dir.clone(), e);
    fs::create_dir_all(&dir).map_err(io)?;
    fs::write(dir.join("Packages"), packages).map_err(io)?;
    fs::write(dir.join("Release"), release).map_err(io)
}

/// Every `.deb`, sorted by name.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, PackagesError> {
    let mut found = Vec::new();
    for path in paths {
        let problem = |reason: String| PackagesError::Local { path: path.clone(), reason };
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let before = found.len();
        for entry in path.read_dir().map_err(|e| problem(e.to_string()))? {
            let entry = entry.map_err(|e| problem(e.to_string()))?.path();
            if entry.extension().is_some_and(|e| e == "deb") {
                found.push(entry);
            }
        }
        if found.len() == before {
            return Err(problem("there is no .deb in it".to_owned()));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}
