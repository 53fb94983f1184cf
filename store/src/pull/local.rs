//! From a repository on this machine, whatever the two modes.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{OnProgress, Outcome, PullError, Rules, Source, Transport};
use crate::commit::Size;
use crate::import::threads;
use crate::object::{ObjectType, path_with_extension};
use crate::repo::{Content, FilezError, Staging, Verity};
use crate::sign::Keyring;
use crate::{Checksum, Error, Mode, Repo};

/// How a commit is copied between repositories.
#[derive(Clone, Copy, Default)]
pub struct LocalOptions<'a> {
    /// Accept only a commit signed by one of these keys.
    pub keyring: Option<&'a Keyring>,
    /// fs-verity on file objects.
    pub verity: Verity,
    /// Threads; 0 uses every core.
    pub threads: usize,
    /// Told how far it is.
    pub progress: Option<OnProgress<'a>>,
}

/// Copies a commit and everything it needs from one repository to another. No ref is changed.
pub fn local(source: &Repo, target: &Repo, commit: &Checksum) -> Result<Outcome, PullError> {
    local_with(source, target, commit, &LocalOptions::default())
}

/// The same, with options.
pub fn local_with(
    source: &Repo,
    target: &Repo,
    commit: &Checksum,
    options: &LocalOptions<'_>,
) -> Result<Outcome, PullError> {
    let rules = Rules {
        keyring: options.keyring,
        verity: options.verity,
        threads: threads(options.threads),
        progress: options.progress,
    };
    let source = Local(source);
    let verified = super::fetch_commit(&source, commit, &rules)?;
    super::fetch_objects(&source, target, &verified, &rules)
}

struct Local<'a>(&'a Repo);

impl Source for Local<'_> {
    fn address(&self, kind: ObjectType, checksum: &Checksum) -> String {
        format!("{}/objects/{}", self.0.path().display(), self.0.loose_path(kind, checksum))
    }

    fn metadata(&self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError> {
        Ok(self.0.load_metadata(kind, checksum)?)
    }

    fn detached(&self, commit: &Checksum) -> Result<Option<Vec<u8>>, PullError> {
        let path = self.0.path().join("objects").join(path_with_extension(commit, "commitmeta"));
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(PullError::Fetch {
                what: "detached metadata".into(),
                from: path.display().to_string(),
                source: Transport::Io(e),
            }),
        }
    }

    fn file(
        &self,
        checksum: &Checksum,
        size: Option<&Size>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError> {
        let from = || self.address(ObjectType::File, checksum);
        let mismatch = |error| match error {
            Error::Mismatch { kind, expected, found } => PullError::Mismatch { kind, expected, found, from: from() },
            other => PullError::Store(other),
        };
        let reported = AtomicU64::new(0);
        if self.0.mode() == Mode::Archive {
            let file = self.0.open_raw(ObjectType::File, checksum)?;
            let mut raw = Counting { inner: file, count, reported: &reported, total: 0 };
            let result = staging.write_filez(checksum, &mut raw, size.map(|s| s.unpacked));
            return result.map(|_| raw.total).map_err(|error| match error {
                FilezError::Store(error) => mismatch(error),
                FilezError::Stream(error) => {
                    let (what, source) = (format!("file {checksum}"), Transport::Io(error));
                    PullError::Fetch { what, from: from(), source }
                }
            });
        }
        let mut object = self.0.open_file(checksum)?;
        let mut content = Counting { inner: &mut object.content, count, reported: &reported, total: 0 };
        staging.write_known(&object.meta, checksum, Content::Stream(&mut content)).map_err(mismatch)?;
        Ok(content.total)
    }
}

/// Tells about bytes as they pass. Those of an attempt that failed are not told again by the next.
pub(super) struct Counting<'a, R> {
    pub inner: R,
    pub count: &'a (dyn Fn(u64) + Sync),
    pub reported: &'a AtomicU64,
    pub total: u64,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.total += read as u64;
        let before = self.reported.fetch_max(self.total, Ordering::Relaxed);
        if self.total > before {
            (self.count)(self.total - before);
        }
        Ok(read)
    }
}
