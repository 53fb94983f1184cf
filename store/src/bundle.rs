//! A commit in one file, for machines without a network.
//!
//! ```text
//! a tar archive of the smallest repository that has the commit:
//!   config
//!   objects/AB/CDEF….commit  ….commitmeta       what it says, and its signatures
//!   updates/TO/FROM.update  (or empty.update)   everything it needs that FROM has not
//!   refs/heads/REF
//! ```
//! A machine unpacks it and pulls from it as from any other repository, so every check of a pull is made: the file
//! itself is believed in nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Component, Path};

use crate::object::ObjectType;
use crate::update::{self, UpdateError};
use crate::{Checksum, Error, Mode, Repo, valid_ref};

/// Why a bundle was not made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The repository, or the file.
    #[error(transparent)]
    Store(#[from] Error),
    /// The content.
    #[error("making the update that the bundle holds")]
    Update(#[from] UpdateError),
    /// A file that updates cannot hold.
    #[error("the tree has {0} files that are too large for a bundle; carry a repository on a disk instead")]
    TooLarge(u64),
}

/// Writes the bundle of a commit, to be known as `name`, for machines that have `from` (or nothing). The update is made
/// below `scratch`. Returns the size of the file.
pub fn write(
    repo: &Repo,
    from: Option<&Checksum>,
    commit: &Checksum,
    name: &str,
    scratch: &Path,
    file: &Path,
) -> Result<u64, BundleError> {
    if !valid_ref(name) {
        return Err(Error::RefName(name.to_owned()).into());
    }
    let io = |e| Error::io(format!("writing {}", file.display()), e);
    let small = Repo::create(&scratch.join("bundle"), Mode::Archive)?.without_fsync();
    let update = small.path().join(update::path(from, commit));
    fs::create_dir_all(update.parent().unwrap_or(scratch)).map_err(io)?;
    let mut out = io::BufWriter::with_capacity(1 << 20, File::create(&update).map_err(io)?);
    let report = update::generate(repo, from, commit, &update::Options::default(), &mut out)?;
    out.flush().map_err(io)?;
    if report.left_out > 0 {
        return Err(BundleError::TooLarge(report.left_out));
    }
    let staging = small.stage()?;
    staging.write_metadata(ObjectType::Commit, &repo.load_commit(commit)?.bytes)?;
    staging.flush()?;
    if let Some(detached) = repo.load_detached(commit)? {
        small.write_detached(commit, &detached)?;
    }
    small.set_ref(name, commit)?;

    // Beside its place, then renamed: a half-written bundle has no name.
    let new = file.with_extension("new");
    let pack = || -> io::Result<u64> {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, File::create(&new)?));
        for path in files(small.path(), Path::new(""))? {
            let mut content = File::open(small.path().join(&path))?;
            let mut header = tar::Header::new_ustar();
            header.set_size(content.metadata()?.len());
            header.set_mode(0o644);
            tar.append_data(&mut header, &path, &mut content)?;
        }
        let out = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        out.sync_all()?;
        fs::rename(&new, file)?;
        Ok(out.metadata()?.len())
    };
    let packed = pack().map_err(|e| {
        let _ = fs::remove_file(&new);
        BundleError::from(io(e))
    });
    let _ = fs::remove_dir_all(small.path());
    packed
}

/// The files of the small repository that belong into the bundle, sorted.
fn files(root: &Path, below: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(files(root, &path)?);
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a bundle may hold a file of that name: nothing else is unpacked.
fn wanted(path: &Path) -> bool {
    let parts: Option<Vec<&str>> =
        path.components().map(|part| if let Component::Normal(part) = part { part.to_str() } else { None }).collect();
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    match parts.as_deref() {
        Some(["config"]) => true,
        Some(["objects", dir, name]) => {
            let (digits, extension) = name.split_once('.').unwrap_or((name, ""));
            dir.len() == 2 && hex(dir) && digits.len() == 62 && hex(digits) && extension.starts_with("commit")
        }
        Some(["updates", to, name]) => {
            let from = name.strip_suffix(".update").unwrap_or("/");
            to.len() == 64 && hex(to) && (from == "empty" || (from.len() == 64 && hex(from)))
        }
        Some(["refs", "heads", rest @ ..]) => !rest.is_empty() && valid_ref(&rest.join("/")),
        _ => false,
    }
}

/// Unpacks a bundle into the directory `into`, which is made: a repository to pull from. Only files that a bundle may
/// hold are written, each under a name that cannot leave the directory.
pub fn unpack(file: &Path, into: &Path) -> Result<(), Error> {
    let io = |e| Error::io(format!("reading {}", file.display()), e);
    let size = fs::metadata(file).map_err(io)?.len();
    fs::create_dir_all(into.join("objects")).map_err(io)?;
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(1 << 20, File::open(file).map_err(io)?));
    for entry in archive.entries().map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path().map_err(io)?.into_owned();
        let regular = entry.header().entry_type() == tar::EntryType::Regular;
        if !regular || !wanted(&path) {
            return Err(Error::invalid(format!("{} is no bundle: it holds {}", file.display(), path.display())));
        }
        let target = into.join(&path);
        fs::create_dir_all(target.parent().unwrap_or(into)).map_err(io)?;
        let mut out = File::options().write(true).create_new(true).open(&target).map_err(io)?;
        // A header cannot ask for more than the file has.
        io::copy(&mut entry.take(size), &mut out).map_err(io)?;
    }
    if into.join("config").is_file() {
        return Ok(());
    }
    Err(Error::invalid(format!("{} is no bundle: it is empty, or something else", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Builder;
    use crate::import::{self, Node};
    use crate::object::FileMeta;
    use crate::pull::{self, Options};
    use crate::sign::{Keyring, SecretKey, sign_commit};
    use crate::{DirMeta, fsck};
    use std::collections::BTreeMap;

    fn commit(repo: &Repo, text: &str, time: u64) -> Checksum {
        let node = |text: &str| Node::File(FileMeta::regular(0o644, 0), text.repeat(500).into_bytes());
        let files = BTreeMap::from([("same".into(), node("same")), ("f".into(), node(text))]);
        let tree = import::tree(repo, &Node::Dir(DirMeta::root(0o755), files)).unwrap();
        let commit = Builder::new(tree.root_tree, tree.root_meta, time).bind("os/x").write(repo).unwrap();
        sign_commit(repo, &commit, &SecretKey::from_seed(&[1; 32])).unwrap();
        commit
    }

    #[test]
    fn a_machine_takes_from_a_bundle_what_it_takes_from_a_server() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let build = Repo::create(&dir.path().join("build"), Mode::BareUser).unwrap();
        let (one, two) = (commit(&build, "one", 100), commit(&build, "two", 200));
        let machine = Repo::create(&dir.path().join("machine"), Mode::BareUser).unwrap();
        pull::local(&build, &machine, &one).unwrap();
        machine.set_ref("default:os/x", &one).unwrap();

        let bundle = dir.path().join("os.bundle");
        let size = write(&build, Some(&one), &two, "os/x", dir.path(), &bundle).unwrap();
        assert_eq!(size, fs::metadata(&bundle).unwrap().len());
        unpack(&bundle, &dir.path().join("open")).unwrap();
        let take = |key: u8, machine: &Repo| {
            let keyring = Keyring::of([SecretKey::from_seed(&[key; 32]).public()]);
            let url = format!("file://{}", dir.path().join("open").display());
            let mut options = Options::new(url, "os/x", Some(keyring));
            options.remote = Some("default".to_owned());
            pull::http(&options, machine).map(|outcome| outcome.commit)
        };
        assert!(take(2, &machine).unwrap_err().to_string().contains("trusted"));
        assert!(!machine.has(ObjectType::Commit, &two));
        assert_eq!(take(1, &machine).unwrap(), two);
        assert_eq!(fsck::fsck(&machine, &fsck::Options::default()).unwrap().problems, []);

        // One that has not the commit it starts from gets nothing half.
        let empty = Repo::create(&dir.path().join("empty"), Mode::BareUser).unwrap();
        assert!(take(1, &empty).is_err());
        assert_eq!(empty.read_ref("default:os/x").unwrap(), None);
    }

    #[test]
    fn what_is_no_bundle_writes_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bad");
        for name in
            ["../escape", "/etc/passwd", "objects/../../x", "hooks/x", "refs/heads/../x", "objects/ab/short.commit"]
        {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(1);
            // The library would not write such names.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            tar.append(&header, &b"x"[..]).unwrap();
            fs::write(&bundle, tar.into_inner().unwrap()).unwrap();
            let into = dir.path().join("into");
            assert!(unpack(&bundle, &into).is_err(), "{name}");
            assert!(!dir.path().join("escape").exists() && !dir.path().join("x").exists());
            let _ = fs::remove_dir_all(into);
        }
        fs::write(&bundle, "text").unwrap();
        assert!(unpack(&bundle, &dir.path().join("into")).is_err());
    }
}
