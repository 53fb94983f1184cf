//! From a repository on this machine, whatever the two modes.

use std::io::{Read, Seek as _, SeekFrom};

use super::ways::{Allowed, Files, Opened};
use super::{Accept, Lane, OnProgress, Outcome, PullError, Rules, Select, Session, Source, Transport};
use crate::import::threads;
use crate::object::{ObjectType, path_with_extension};
use crate::repo::{Content, FilezError, Staging, Verity};
use crate::sign::Keyring;
use crate::sign::trust::Trust;
use crate::{Checksum, Error, Mode, Repo};

/// How a commit is copied between repositories.
#[derive(Clone, Copy)]
pub struct LocalOptions<'a> {
    /// Accept only a commit signed by one of these keys.
    pub keyring: Option<&'a Keyring>,
    /// More rules, all of which must hold.
    pub trust: Option<&'a Trust>,
    /// What of the commit is wanted, and how many before it; without this all of it, and none.
    pub select: Option<&'a Select>,
    /// fs-verity on file objects.
    pub verity: Verity,
    /// Threads; 0 uses every core.
    pub threads: usize,
    /// Told how far it is.
    pub progress: Option<OnProgress<'a>>,
    /// Objects of a local repository are quicker to copy than to make from differences, so these are not looked for.
    pub ways: Allowed,
}

impl Default for LocalOptions<'_> {
    fn default() -> Self {
        LocalOptions {
            keyring: None,
            trust: None,
            select: None,
            verity: Verity::Off,
            threads: 0,
            progress: None,
            ways: Allowed::OBJECTS,
        }
    }
}

/// Copies a commit and everything it needs from one repository to another. No ref is changed: who is going to point one
/// at it holds `target.lock_shared()` until that is done, so that no prune comes in between.
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
    let whole = Select::default();
    let rules = Rules {
        keyring: options.keyring,
        verity: options.verity,
        threads: threads(options.threads),
        progress: options.progress,
        ways: options.ways,
        trust: options.trust,
        select: options.select.unwrap_or(&whole),
    };
    let session = Session { source: &Local(Handle::Borrowed(source)), caches: &[], repo: target, rules };
    let verified = session.commit(commit)?;
    let mut outcome = session.fetch(&verified, None)?;
    session.history(&verified, &mut outcome)?;
    Ok(outcome)
}

/// A repository on this machine as a source.
pub(super) struct Local<'a>(Handle<'a>);

enum Handle<'a> {
    Borrowed(&'a Repo),
    Owned(Repo),
}

impl std::ops::Deref for Handle<'_> {
    type Target = Repo;

    fn deref(&self) -> &Repo {
        match self {
            Handle::Borrowed(repo) => repo,
            Handle::Owned(repo) => repo,
        }
    }
}

impl Local<'static> {
    /// Opens a repository.
    pub fn open(path: &std::path::Path) -> Result<Self, PullError> {
        Ok(Local(Handle::Owned(Repo::open(path)?)))
    }
}

impl<'a> Local<'a> {
    /// A repository that is open already.
    pub fn of(repo: &'a Repo) -> Self {
        Local(Handle::Borrowed(repo))
    }

    /// Whether an object is there, damaged or not.
    pub fn has(&self, kind: ObjectType, checksum: &Checksum) -> bool {
        self.0.has(kind, checksum)
    }
}

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
        accept: Accept<'_>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError> {
        let from = || self.address(ObjectType::File, checksum);
        let mismatch = |error| match error {
            Error::Mismatch { kind, expected, found } => PullError::Mismatch { kind, expected, found, from: from() },
            other => PullError::Store(other),
        };
        if self.0.mode() == Mode::Archive {
            let file = self.0.open_raw(ObjectType::File, checksum)?;
            let mut raw = Counting::new(file, count);
            let mut looked = accept.look(checksum, &mut raw)?;
            let result = staging.write_filez(checksum, &mut looked, accept.size.map(|s| s.unpacked));
            drop(looked);
            return result.map(|_| raw.total).map_err(|error| match error {
                FilezError::Store(error) => mismatch(error),
                FilezError::Stream(error) => {
                    let (what, source) = (format!("file {checksum}"), Transport::Io(error));
                    PullError::Fetch { what, from: from(), source }
                }
            });
        }
        let mut object = self.0.open_file(checksum)?;
        accept.check(checksum, &object.meta)?;
        let mut content = Counting::new(&mut object.content, count);
        staging.write_known(&object.meta, checksum, Content::Stream(&mut content)).map_err(mismatch)?;
        Ok(content.total)
    }

    fn files(&self) -> &dyn Files {
        self
    }

    fn lane(&self) -> Box<dyn Lane + '_> {
        Box::new(self)
    }
}

/// Nothing is far away here.
impl Lane for &Local<'_> {
    fn ahead(&mut self, _: ObjectType, _: &Checksum) {}

    fn metadata(&mut self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError> {
        Source::metadata(*self, kind, checksum)
    }

    fn file(
        &mut self,
        checksum: &Checksum,
        accept: Accept<'_>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError> {
        Source::file(*self, checksum, accept, staging, count)
    }
}

impl Local<'_> {
    /// A file below the top, or `None` where there is none.
    fn at(&self, path: &str) -> Result<Option<std::fs::File>, PullError> {
        match std::fs::File::open(self.0.path().join(path)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.fetch(path, Transport::Io(e))),
        }
    }

    fn fetch(&self, path: &str, source: Transport) -> PullError {
        PullError::Fetch { what: path.to_owned(), from: self.locate(path), source }
    }
}

impl Files for Local<'_> {
    fn locate(&self, path: &str) -> String {
        self.0.path().join(path).display().to_string()
    }

    fn small(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, PullError> {
        let Some(file) = self.at(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| self.fetch(path, Transport::Io(e)))?;
        if bytes.len() as u64 > limit { Err(self.fetch(path, Transport::TooLarge(limit))) } else { Ok(Some(bytes)) }
    }

    fn open(&self, path: &str, from: u64, length: Option<u64>) -> Result<Option<Opened<'_>>, PullError> {
        let Some(mut file) = self.at(path)? else { return Ok(None) };
        let io = |e| self.fetch(path, Transport::Io(e));
        let size = file.metadata().map_err(io)?.len();
        file.seek(SeekFrom::Start(from)).map_err(io)?;
        let reader = file.take(length.unwrap_or(u64::MAX));
        Ok(Some(Opened { size: Some(size), reader: Box::new(reader) }))
    }
}

/// Tells about bytes as they pass.
pub(super) struct Counting<'a, R> {
    inner: R,
    count: &'a (dyn Fn(u64) + Sync),
    pub total: u64,
}

impl<'a, R> Counting<'a, R> {
    pub fn new(inner: R, count: &'a (dyn Fn(u64) + Sync)) -> Self {
        Counting { inner, count, total: 0 }
    }
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.total += read as u64;
        (self.count)(read as u64);
        Ok(read)
    }
}
