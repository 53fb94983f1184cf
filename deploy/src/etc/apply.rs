//! Writes a merged `/etc`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use store::{DirMeta, FileMeta, Xattrs};

use super::accounts::{ACCOUNT_FILES, Family, merge_accounts};
use super::merge::{Merge, Source};
use super::snapshot::read_xattrs;
use crate::tree::{Item, Tree, TreeError};

/// The three sides.
pub struct Sources<'a> {
    /// The booted tree's `/usr/etc`.
    pub old: &'a Path,
    /// The live `/etc`.
    pub live: &'a Path,
    /// The new tree.
    pub new: &'a Tree<'a>,
}

/// Why the merged `/etc` was not written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Something about the new tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Something about a file.
    #[error("writing /etc/{0} of the new deployment")]
    Io(PathBuf, #[source] io::Error),
    /// The tree changed under us.
    #[error("/etc/{0} of the new tree is gone")]
    Gone(PathBuf),
}

/// Writes the merge into the new directory `to`. Returns what was decided about accounts.
pub fn write(merge: &Merge, sources: &Sources<'_>, to: &Path) -> Result<Vec<String>, ApplyError> {
    let (accounts, notes) = accounts(sources)?;
    // Directory modes come last: one without write permission would stop an ordinary user's tests.
    let mut dirs = Vec::new();
    for (path, source) in &merge.result {
        let io = |e| ApplyError::Io(path.clone(), e);
        let target = if path.as_os_str().is_empty() { to.to_owned() } else { to.join(path) };
        match source {
            Source::New | Source::MergedNew => match new_item(sources.new, path)? {
                New::Dir(meta) => {
                    fs::create_dir(&target).map_err(io)?;
                    dirs.push((target, path, meta.uid, meta.gid, meta.mode & 0o7777, meta.xattrs));
                }
                New::File(meta, mut content) => {
                    let merged = account_text(&accounts, path, *source);
                    write_new(&target, &meta, &mut *content, merged).map_err(io)?;
                }
            },
            Source::Live | Source::MergedLive => {
                let merged = account_text(&accounts, path, *source);
                let from = sources.live.join(path);
                match copy_live(&from, &target, merged) {
                    Ok(Some((meta, xattrs))) => {
                        dirs.push((target, path, meta.uid(), meta.gid(), meta.mode() & 0o7777, xattrs));
                    }
                    Ok(None) => {}
                    // It vanished after it was listed: as good as removed.
                    Err(e) if e.kind() == io::ErrorKind::NotFound && !from.exists() => {}
                    Err(e) => return Err(io(e)),
                }
            }
        }
    }
    for (target, path, uid, gid, mode, xattrs) in dirs.into_iter().rev() {
        give(&target, uid, gid, &xattrs)
            .and_then(|()| fs::set_permissions(&target, Permissions::from_mode(mode)))
            .map_err(|e| ApplyError::Io(path.clone(), e))?;
    }
    Ok(notes)
}

/// What would be decided about accounts.
pub fn account_notes(sources: &Sources<'_>) -> Result<Vec<String>, ApplyError> {
    Ok(accounts(sources)?.1)
}

enum New {
    Dir(DirMeta),
    File(FileMeta, Box<dyn Read + Send>),
}

fn new_item(tree: &Tree<'_>, path: &Path) -> Result<New, ApplyError> {
    let gone = || ApplyError::Gone(path.to_owned());
    let name = Path::new("usr/etc").join(path);
    let name = name.to_str().ok_or_else(gone)?;
    match tree.lookup(name)?.ok_or_else(gone)? {
        Item::Dir(..) => Ok(New::Dir(tree.dir_meta(name)?.ok_or_else(gone)?)),
        Item::File(checksum) => {
            let (meta, content) = tree.open_file(&checksum)?;
            Ok(New::File(meta, content))
        }
    }
}

fn accounts(sources: &Sources<'_>) -> Result<(Family, Vec<String>), ApplyError> {
    let read = |dir: &Path| -> Result<Family, ApplyError> {
        let mut family = Family::new();
        for name in ACCOUNT_FILES {
            match fs::read(dir.join(name)) {
                Ok(bytes) => {
                    family.insert(name.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(ApplyError::Io(name.into(), e)),
            }
        }
        Ok(family)
    };
    let mut new = Family::new();
    for name in ACCOUNT_FILES {
        if let Some(bytes) = sources.new.read(&format!("usr/etc/{name}"))? {
            new.insert(name.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(merge_accounts(&read(sources.old)?, &read(sources.live)?, &new))
}

fn account_text<'a>(accounts: &'a Family, path: &Path, source: Source) -> Option<&'a str> {
    match source {
        Source::MergedLive | Source::MergedNew => accounts.get(path.to_str()?).map(String::as_str),
        Source::New | Source::Live => None,
    }
}

fn create(path: &Path) -> io::Result<File> {
    // Nobody reads a shadow file before it has its mode.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_new(target: &Path, meta: &FileMeta, content: &mut dyn Read, merged: Option<&str>) -> io::Result<()> {
    if let Some(link) = &meta.symlink {
        symlink(link, target)?;
        return give(target, meta.uid, meta.gid, &Xattrs::new());
    }
    let mut file = create(target)?;
    match merged {
        Some(text) => file.write_all(text.as_bytes())?,
        None => {
            io::copy(content, &mut file)?;
        }
    }
    give(target, meta.uid, meta.gid, &meta.xattrs)?;
    file.set_permissions(Permissions::from_mode(meta.mode & 0o7777))
}

/// Copies one path, not what is below it. A directory's metadata comes back, to be set when it is full.
fn copy_live(from: &Path, target: &Path, merged: Option<&str>) -> io::Result<Option<(fs::Metadata, Xattrs)>> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_dir() {
        fs::create_dir(target)?;
        return Ok(Some((meta, read_xattrs(from)?)));
    }
    if meta.is_symlink() {
        symlink(fs::read_link(from)?, target)?;
        give(target, meta.uid(), meta.gid(), &Xattrs::new())?;
        return Ok(None);
    }
    let mut file = create(target)?;
    match merged {
        Some(text) => file.write_all(text.as_bytes())?,
        None => {
            io::copy(&mut File::open(from)?, &mut file)?;
            if let Ok(time) = meta.modified() {
                file.set_modified(time)?;
            }
        }
    }
    give(target, meta.uid(), meta.gid(), &read_xattrs(from)?)?;
    file.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))?;
    Ok(None)
}

/// Sets owner and attributes. An ordinary user, who only ever does this in tests, cannot give files away.
fn give(path: &Path, uid: u32, gid: u32, xattrs: &Xattrs) -> io::Result<()> {
    let root = rustix::process::geteuid().is_root();
    match std::os::unix::fs::lchown(path, Some(uid), Some(gid)) {
        Err(e) if root || e.kind() != io::ErrorKind::PermissionDenied => return Err(e),
        _ => {}
    }
    for (name, value) in xattrs {
        let name = std::ffi::OsStr::from_bytes(name);
        match rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()) {
            Err(e) if root => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}
