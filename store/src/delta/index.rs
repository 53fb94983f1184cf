//! Which deltas there are: in the repository, in its indexes, and for its summary.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use super::name::{from_index, index_path};
use super::{DeltaError, DeltaName};
use crate::summary::STATIC_DELTAS;
use crate::value::{Dict, Value, encode_dict};
use crate::{Checksum, Error, Repo};

/// Names below a directory that need not be there.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let io = |e| Error::io(format!("reading {}", dir.display()), e);
    let entries = match fs::read_dir(dir) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(io)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// The deltas of a repository, sorted by name.
pub fn list(repo: &Repo) -> Result<Vec<DeltaName>, Error> {
    let mut deltas = BTreeSet::new();
    let top = repo.path().join("deltas");
    for first in names(&top)? {
        for rest in names(&top.join(&first))? {
            if let Some(name) = DeltaName::from_dir(&first, &rest) {
                if exists(repo, &name) {
                    deltas.insert(name);
                }
            }
        }
    }
    Ok(deltas.into_iter().collect())
}

/// Whether a delta is there.
pub fn exists(repo: &Repo, name: &DeltaName) -> bool {
    repo.path().join(name.superblock()).exists()
}

/// Deletes a delta. The superblock goes first: a client sees all of it or nothing.
pub fn delete(repo: &Repo, name: &DeltaName) -> Result<(), DeltaError> {
    let dir = repo.path().join(name.dir());
    if !dir.exists() {
        return Err(DeltaError::NotFound(*name));
    }
    let io = |e| Error::io(format!("deleting {}", dir.display()), e);
    sys::file::remove(&dir.join("superblock")).map_err(io)?;
    sys::file::remove_tree(&dir).map_err(io)?;
    if let Some(parent) = dir.parent() {
        // Other deltas may lie in it.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// The SHA-256 of a delta's superblock.
fn digest(repo: &Repo, name: &DeltaName) -> Result<Value, Error> {
    let path = repo.path().join(name.superblock());
    let bytes = fs::read(&path).map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
    Ok(Value::Bytes(Checksum::of(&bytes).0.to_vec()))
}

/// All deltas with the checksums of their superblocks, as the summary holds them.
pub fn for_summary(repo: &Repo) -> Result<Dict, Error> {
    list(repo)?.iter().map(|name| Ok((name.to_string(), digest(repo, name)?))).collect()
}

/// The commits that have an index, sorted.
pub fn indexes(repo: &Repo) -> Result<Vec<Checksum>, Error> {
    let mut found = BTreeSet::new();
    let top = repo.path().join("delta-indexes");
    for first in names(&top)? {
        found.extend(names(&top.join(&first))?.iter().filter_map(|file| from_index(&first, file)));
    }
    Ok(found.into_iter().collect())
}

/// Writes the indexes anew, all or that of one commit; one without deltas goes. Equal ones are not touched.
pub fn reindex(repo: &Repo, only: Option<&Checksum>) -> Result<(), Error> {
    let _shared = repo.lock_shared()?;
    let mut wanted: BTreeMap<Checksum, Dict> = match only {
        Some(only) => BTreeMap::from([(*only, Dict::new())]),
        None => indexes(repo)?.into_iter().map(|to| (to, Dict::new())).collect(),
    };
    for name in list(repo)? {
        if only.is_none_or(|only| *only == name.to) {
            wanted.entry(name.to).or_default().insert(name.to_string(), digest(repo, &name)?);
        }
    }
    for (to, deltas) in wanted {
        let path = repo.path().join(index_path(&to));
        let io = |e| Error::io(format!("writing {}", path.display()), e);
        if deltas.is_empty() {
            sys::file::remove(&path).map_err(io)?;
            continue;
        }
        let bytes = encode_dict(&Dict::from([(STATIC_DELTAS.to_owned(), Value::Dict(deltas))]));
        if fs::read(&path).is_ok_and(|old| old == bytes) {
            continue;
        }
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
        sys::file::replace(&path, &bytes, 0o644).map_err(io)?;
    }
    Ok(())
}
