//! Lock guards: released when dropped, or by the kernel when the process dies.
//!
//! ```text
//! Lock             flock; nobody but Slipway takes these
//! Lock::record     fcntl record lock of an open file description: what libostree takes on a repository. The two kinds
//!                  do not see each other, so a file is locked with one or the other
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

    /// Takes a record lock on the whole file; waits for at most `limit`, for ever without one.
    pub fn record(path: &Path, exclusive: bool, limit: Option<Duration>) -> Result<Lock, LockError> {
        let io = |e: io::Error| LockError::Io(path.to_owned(), e);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let Some(limit) = limit else {
            return record_lock(&file, exclusive, true).map(|()| Lock { _file: file }).map_err(io);
        };
        let mut left = limit;
        loop {
            match record_lock(&file, exclusive, false) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) || e.raw_os_error() == Some(libc::EACCES) => {}
                Err(e) => return Err(io(e)),
            }
            if left.is_zero() {
                return Err(LockError::Held(path.to_owned()));
            }
            let pause = left.min(Duration::from_millis(20));
            std::thread::sleep(pause);
            left -= pause;
        }
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

#[allow(unsafe_code, reason = "no safe wrapper knows the locks of open file descriptions")]
fn record_lock(file: &File, exclusive: bool, wait: bool) -> io::Result<()> {
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    let (l_type, l_whence) = (kind as libc::c_short, libc::SEEK_SET as libc::c_short);
    let whole = libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 };
    let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
    loop {
        // SAFETY: the descriptor is open, and the kernel only reads the structure, which outlives the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, &whole) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_locks_are_shared_or_exclusive_also_within_a_process() {
        let dir = std::env::temp_dir().join(format!("slipway-lock-{}", std::process::id()));
        let now = Some(Duration::ZERO);
        let one = Lock::record(&dir, false, now).unwrap();
        let two = Lock::record(&dir, false, now).unwrap();
        assert!(matches!(Lock::record(&dir, true, now), Err(LockError::Held(_))));
        drop((one, two));
        let _all = Lock::record(&dir, true, now).unwrap();
        assert!(matches!(Lock::record(&dir, false, Some(Duration::from_millis(30))), Err(LockError::Held(_))));
        std::fs::remove_file(&dir).unwrap();
    }
}
