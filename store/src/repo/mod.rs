//! A repository on disk.
//!
//! ```text
//! config                    [core] repo_version=1, mode=archive-z2 | bare-user | bare | bare-user-only
//! objects/ab/cdef….*        see `object`; created last by `create`: where it exists the repository is complete
//! refs/heads/REF            64 digits and a newline
//! refs/remotes/REMOTE/REF   the same, as last seen at REMOTE
//! state/CHECKSUM.commitpartial   the commit is here, some of its objects may not be
//! tmp/slipway-*/            objects of a batch that is being written; nothing reads them
//! .lock                     record lock: shared by writers, exclusive for those who delete objects
//! ```

mod bare;
mod batch;
mod deflate;
mod pieces;
mod read;
mod refs;
mod settings;
mod stage;
mod verify;
mod walk;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as Bits, OFlags};

use crate::Error;

pub use read::FileObject;
pub(crate) use read::{file_xattrs, filez_meta, link_xattrs};
pub use refs::{valid_collection, valid_ref};
use settings::Settings;
pub(crate) use stage::FilezError;
pub(crate) use stage::IN_MEMORY;
pub use stage::{Content, Staging, Verity};
pub(crate) use verify::hash_all;
pub use walk::{Entry, Objects};

/// How a repository keeps file objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Compressed, owner and mode in a header: what HTTP servers serve.
    Archive,
    /// Plain files of one owner; the true owner, mode and xattrs in the xattr `user.ostreemeta`: what machines keep.
    BareUser,
    /// Plain files that are what they say: owner, mode, xattrs. Only root can write one.
    Bare,
    /// Plain files of root without xattrs, and with no bits outside of 0775: what any user can keep. Others are refused.
    BareUserOnly,
}

impl Mode {
    /// The word in the file `config`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Archive => "archive-z2",
            Mode::BareUser => "bare-user",
            Mode::Bare => "bare",
            Mode::BareUserOnly => "bare-user-only",
        }
    }
}

/// An OSTree repository.
#[derive(Debug)]
pub struct Repo {
    path: PathBuf,
    mode: Mode,
    objects: OwnedFd,
    settings: Settings,
}

impl Repo {
    /// Creates a repository, or opens the one of the same mode that is there.
    pub fn create(path: &Path, mode: Mode) -> Result<Repo, Error> {
        if path.join("objects").is_dir() {
            let repo = Repo::open(path)?;
            if repo.mode != mode {
                let why = format!("it exists with mode {}, not {}", repo.mode.name(), mode.name());
                return Err(Error::NotARepo(path.to_owned(), why));
            }
            return Ok(repo);
        }
        let io = |what: &Path| {
            let what = format!("creating {}", what.display());
            move |e| Error::io(what, e)
        };
        for dir in ["", "tmp", "extensions", "state", "refs", "refs/heads", "refs/mirrors", "refs/remotes"] {
            let dir = path.join(dir);
            fs::create_dir_all(&dir).map_err(io(&dir))?;
        }
        let config = path.join("config");
        let text = format!("[core]\nrepo_version=1\nmode={}\n", mode.name());
        sys::file::replace(&config, text.as_bytes(), 0o644).map_err(io(&config))?;
        let objects = path.join("objects");
        fs::create_dir(&objects).map_err(io(&objects))?;
        sys::file::sync_dir(path).map_err(io(path))?;
        Repo::open(path)
    }

    /// Opens a repository.
    pub fn open(path: &Path) -> Result<Repo, Error> {
        let not = |why: String| Error::NotARepo(path.to_owned(), why);
        let config = match fs::read_to_string(path.join("config")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not("it has no file config".into())),
            config => config.map_err(|e| Error::io(format!("reading {}", path.join("config").display()), e))?,
        };
        if let Some(version) = key_of(&config, "core", "repo_version").filter(|v| *v != "1") {
            return Err(not(format!("repo_version={version}")));
        }
        let mode = match key_of(&config, "core", "mode").unwrap_or("bare") {
            "archive" | "archive-z2" => Mode::Archive,
            "bare-user" => Mode::BareUser,
            "bare" => Mode::Bare,
            "bare-user-only" => Mode::BareUserOnly,
            other => return Err(not(format!("mode={other}"))),
        };
        let objects =
            rustix::fs::open(path.join("objects"), OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Bits::empty())
                .map_err(|e| not(format!("objects: {}", io::Error::from(e))))?;
        let settings = Settings::parse(&config).map_err(not)?;
        Ok(Repo { path: path.to_owned(), mode, objects, settings })
    }

    /// A value of the file `config`: `[section] key=value`.
    pub fn config_value(&self, section: &str, key: &str) -> Result<Option<String>, Error> {
        let path = self.path.join("config");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
        Ok(key_of(&text, section, key).map(str::to_owned))
    }

    /// How file objects are kept.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Trades durability for speed: batches are no longer synced (scratch repositories, tests).
    pub fn without_fsync(mut self) -> Self {
        self.settings.fsync = false;
        self
    }

    /// Waits until no one deletes objects, and keeps it so.
    pub fn lock_shared(&self) -> Result<RepoLock, Error> {
        self.lock(false)
    }

    /// Waits until no one writes objects, and keeps it so.
    pub fn lock_exclusive(&self) -> Result<RepoLock, Error> {
        self.lock(true)
    }

    /// As libostree: a record lock on `.lock`, for as long as the configuration says.
    fn lock(&self, exclusive: bool) -> Result<RepoLock, Error> {
        if !self.settings.locking {
            return Ok(RepoLock { _lock: None });
        }
        let lock = sys::Lock::record(&self.path.join(".lock"), exclusive, self.settings.lock_timeout);
        let lock = lock.map_err(|e| Error::io("locking the repository", io::Error::other(e)))?;
        Ok(RepoLock { _lock: Some(lock) })
    }
}

/// A lock on a repository, held until it is dropped.
#[derive(Debug)]
pub struct RepoLock {
    _lock: Option<sys::Lock>,
}

/// The value of `key` in `[section]` of a key file.
fn key_of<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut inside = false;
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = name == section;
        } else if inside && !line.starts_with('#') {
            if let Some((name, value)) = line.split_once('=') {
                if name.trim() == key {
                    found = Some(value.trim());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_created_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        assert_eq!(Repo::create(&path, Mode::Archive).unwrap().mode(), Mode::Archive);
        assert_eq!(Repo::create(&path, Mode::Archive).unwrap().mode(), Mode::Archive);
        let error = Repo::create(&path, Mode::BareUser).unwrap_err().to_string();
        assert!(error.contains("archive-z2, not bare-user"), "{error}");
        assert!(matches!(Repo::open(dir.path()), Err(Error::NotARepo(..))));
    }

    #[test]
    fn unknown_kinds_of_repositories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("objects")).unwrap();
        for config in ["[core]\nrepo_version=2\nmode=bare\n", "[core]\nrepo_version=1\nmode=bare-split-xattrs\n"] {
            fs::write(dir.path().join("config"), config).unwrap();
            assert!(matches!(Repo::open(dir.path()), Err(Error::NotARepo(..))));
        }
    }
}
