//! Does what a first boot's plan says. Every action may be repeated.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sys::Cmd;

use super::plan::{Action, Plan};
use super::{FirstBootError, Secret};

/// Where root's keys lie; `/root` is a link to the directory above.
const ROOT_SSH: &str = "var/roothome/.ssh";
const REMOTE: &str = "etc/slipway/remote.json";

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A file cannot be written.
    #[error("writing {0}")]
    Write(PathBuf, #[source] io::Error),
    /// A program failed.
    #[error(transparent)]
    Cmd(#[from] sys::CmdError),
    /// The file to be changed is not understood.
    #[error(transparent)]
    Json(#[from] crate::json::JsonError),
    /// The kernel refused.
    #[error("setting the host's name")]
    Hostname(#[source] io::Error),
}

/// Does all of it; stops at the first action that fails.
pub fn run(root: &Path, plan: &Plan) -> Result<(), FirstBootError> {
    let live = root == Path::new("/");
    let mut units = Vec::new();
    for (entry, action) in &plan.actions {
        tracing::info!("{} ({}): {}", entry.name, entry.source, entry.what);
        apply(root, live, action, &mut units).map_err(|e| FirstBootError::Apply(entry.name.clone(), e))?;
    }
    if live && !units.is_empty() {
        let failed = |e: sys::CmdError| FirstBootError::Apply("systemd.extra-unit".to_owned(), e.into());
        Cmd::new("systemctl").arg("daemon-reload").run().map_err(failed)?;
        for unit in units {
            Cmd::new("systemctl").args(["enable", &unit]).run().map_err(failed)?;
            // The boot goes on while it starts; whether it comes up is its own affair.
            Cmd::new("systemctl").args(["--no-block", "start", &unit]).run().map_err(failed)?;
        }
    }
    Ok(())
}

fn apply(root: &Path, live: bool, action: &Action, units: &mut Vec<String>) -> Result<(), ApplyError> {
    match action {
        Action::RootKeys(keys) => root_keys(root, keys),
        Action::RootPassword(hash) => root_password(root, hash),
        Action::Hostname(name) => {
            write(root, "etc/hostname", format!("{name}\n").as_bytes(), 0o644)?;
            if live {
                rustix::system::sethostname(name.as_bytes()).map_err(|e| ApplyError::Hostname(e.into()))?;
            }
            Ok(())
        }
        Action::File { path, content, mode } => {
            write(root, path, content.0.as_bytes(), *mode)?;
            if live && *mode == 0o640 {
                Cmd::new("chgrp").args(["systemd-network", &format!("/{path}")]).run()?;
            }
            Ok(())
        }
        Action::Tmpfiles(lines) => {
            // Through standard input: the lines may hold secrets.
            let cmd = Cmd::new("systemd-tmpfiles").arg("--create").arg(format!("--root={}", root.display())).arg("-");
            cmd.stdin(lines.0.as_bytes()).run()?;
            Ok(())
        }
        Action::Unit { name, content } => {
            write(root, &format!("etc/systemd/system/{name}"), content.0.as_bytes(), 0o644)?;
            if content.0.lines().any(|l| l.trim() == "[Install]") {
                units.push(name.clone());
            }
            Ok(())
        }
        Action::Systemd => Ok(()),
        Action::Remote { url, reference } => remote(root, url.as_deref(), reference.as_deref()),
    }
}

fn write(root: &Path, path: &str, bytes: &[u8], mode: u32) -> Result<(), ApplyError> {
    let path = root.join(path);
    let error = |e| ApplyError::Write(path.clone(), e);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(error)?;
    }
    sys::file::replace(&path, bytes, mode).map_err(error)
}

/// Adds keys that are not there yet.
fn root_keys(root: &Path, keys: &[String]) -> Result<(), ApplyError> {
    let dir = root.join(ROOT_SSH);
    let error = |e| ApplyError::Write(dir.clone(), e);
    // sshd refuses keys in a directory that others may write to.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(error)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(error)?;
    let path = dir.join("authorized_keys");
    let mut text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(ApplyError::Write(path, e)),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for key in keys {
        if !text.lines().any(|line| line.trim() == key) {
            text.push_str(key);
            text.push('\n');
        }
    }
    sys::file::replace(&path, text.as_bytes(), 0o600).map_err(|e| ApplyError::Write(path, e))
}

/// Replaces the second field of root's line in `/etc/shadow`, under the lock that all programs take for it.
fn root_password(root: &Path, hash: &Secret) -> Result<(), ApplyError> {
    let path = root.join("etc/shadow");
    let error = |e| ApplyError::Write(path.clone(), e);
    let lock = root.join("etc/.pwd.lock");
    let _lock = sys::Lock::exclusive(&lock).map_err(|e| error(io::Error::other(e)))?;
    let text = fs::read_to_string(&path).map_err(error)?;
    let mode = fs::metadata(&path).map_err(error)?.permissions().mode() & 0o7777;
    let mut found = false;
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            if fields.len() < 2 || fields[0] != "root" {
                return line.to_owned();
            }
            found = true;
            fields[1] = &hash.0;
            fields.join(":")
        })
        .collect();
    if !found {
        lines.insert(0, format!("root:{}:20000::::::", hash.0));
    }
    let owner = fs::metadata(&path).map_err(error)?;
    sys::file::replace(&path, (lines.join("\n") + "\n").as_bytes(), mode).map_err(error)?;
    // The group `shadow` reads it.
    chown(&path, Some(owner.uid()), Some(owner.gid())).map_err(error)
}

/// Changes what is given and keeps the rest.
fn remote(root: &Path, url: Option<&str>, reference: Option<&str>) -> Result<(), ApplyError> {
    let path = root.join(REMOTE);
    let mut remote: Value = crate::json::read(&path)?.unwrap_or_else(|| json!({"format": crate::json::FORMAT}));
    for (key, value) in [("url", url), ("ref", reference)] {
        if let Some(value) = value {
            remote[key] = json!(value);
        }
    }
    let mut text = remote.to_string();
    text.push('\n');
    // A URL with a password is not for everybody.
    let mode = if text.contains('@') { 0o600 } else { 0o644 };
    write(root, REMOTE, text.as_bytes(), mode)
}
