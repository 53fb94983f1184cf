//! `flock` guards: released when dropped, or by the kernel when the process dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Holding it means that no other process holds the same lock file exclusively.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("{0} is locked by another process")]
    Held(PathBuf),
    /// The file cannot be opened or locked.
    #[error("locking {0}")]
    Io(PathBuf, #[source] io::Error),
}

impl Lock {
    /// Takes the exclusive lock or says at once that it is held.
    pub fn try_exclusive(path: &Path) -> Result<Lock, LockError> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Waits for the exclusive lock.
    pub fn exclusive(path: &Path) -> Result<Lock, LockError> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Waits for a shared lock.
    pub fn shared(path: &Path) -> Result<Lock, LockError> {
        Self::take(path, FlockOperation::LockShared)
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Lock, LockError> {
        let io = |e: io::Error| LockError::Io(path.to_owned(), e);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match flock(&file, operation) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(path.to_owned())),
            Err(e) => Err(io(e.into())),
        }
    }
}
