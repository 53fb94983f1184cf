//! Applying a delta: its parts become objects, each verified before it is visible.
//!
//! ```text
//! part n + 1   checksum, unpack        one thread, ahead
//! part n       recipes -> objects      every core; a recipe whose source is made by this part waits for it
//! ```
//! Memory: a window of the decoder, two unpacked parts (in files where they are large), and a few buffers for each
//! thread; no file is held whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use super::blob::Hashing;
use super::ops::{Operations, Recipe, Step};
use super::part::{Payload, unpack};
use super::patch::Assembled;
use super::superblock::Superblock;
use super::{DeltaError, DeltaName};
use crate::import::{lock, threads};
use crate::object::{Commit, DirMeta, DirTree};
use crate::repo::{Content, Objects, Staging, Verity};
use crate::sign::Verifies;
use crate::value::{Dict, Malformed};
use crate::{Checksum, Error, ObjectType, Repo};

/// A superblock in a file is not larger; its parts may lie in it.
const MAX_SUPERBLOCK: u64 = 2 << 30;
/// Pending bytes at which objects are made durable.
const BATCH: u64 = 64 << 20;
/// A part never unpacks to more than this, whatever its superblock says.
const MAX_PAYLOAD: u64 = 16 << 30;

/// How a delta is applied.
#[derive(Clone, Copy, Default)]
pub struct ApplyOptions<'a> {
    /// Accept only a superblock that one of these keys signed.
    pub keyring: Option<&'a dyn Verifies>,
    /// fs-verity on file objects.
    pub verity: Verity,
    /// Threads; 0 uses every core.
    pub threads: usize,
}

/// What applying a delta did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Parts that were used. One whose objects are all here is not looked at.
    pub parts: u64,
    /// Objects that were made.
    pub objects: u64,
    /// Bytes of the parts' files.
    pub bytes: u64,
}

/// Where the files of parts come from: `None` when the part cannot be had.
pub(crate) type OpenPart<'a> = &'a (dyn Fn(usize) -> io::Result<Box<dyn Read + Send + 'a>> + Sync);

/// Reads the superblock of a delta: the file itself, or `superblock` in a directory.
pub fn read_superblock(path: &Path) -> Result<Superblock, DeltaError> {
    let path = if path.is_dir() { path.join("superblock") } else { path.to_owned() };
    let io = |e| Error::io(format!("reading {}", path.display()), e);
    let mut bytes = Vec::new();
    File::open(&path).map_err(io)?.take(MAX_SUPERBLOCK + 1).read_to_end(&mut bytes).map_err(io)?;
    let malformed = |source| DeltaError::Malformed { what: path.display().to_string(), source };
    if bytes.len() as u64 > MAX_SUPERBLOCK {
        return Err(malformed(Malformed(format!("more than {MAX_SUPERBLOCK} bytes"))));
    }
    Superblock::decode(bytes).map_err(malformed)
}

/// Applies a delta from a directory, or from a file with its parts beside it or in it. The commit becomes visible last,
/// when all its objects are there. No ref is changed.
pub fn apply_offline(repo: &Repo, path: &Path, options: &ApplyOptions<'_>) -> Result<Applied, DeltaError> {
    let superblock = read_superblock(path)?;
    if let Some(keyring) = options.keyring {
        superblock.verify(keyring)?;
    }
    let dir = if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(Path::new(".")).to_owned() };
    let open =
        |index: usize| -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(File::open(dir.join(index.to_string()))?)) };
    apply(repo, &superblock, &open, options)
}

/// Applies a delta whose parts come from `open`, and makes its commit visible.
pub(crate) fn apply(
    repo: &Repo,
    superblock: &Superblock,
    open: OpenPart<'_>,
    options: &ApplyOptions<'_>,
) -> Result<Applied, DeltaError> {
    let to = superblock.name.to;
    check_source(repo, &superblock.name)?;
    if repo.has(ObjectType::Commit, &to) && !repo.is_partial(&to) {
        return Ok(Applied::default());
    }
    if !superblock.fallbacks.is_empty() {
        let missing = superblock.fallbacks.iter().filter(|f| !repo.has(f.kind, &f.checksum)).count();
        if missing > 0 {
            return Err(DeltaError::Fallbacks(missing));
        }
    }
    let partial = repo.partial_path(&to);
    let state = |e| Error::io(format!("writing {}", partial.display()), e);
    std::fs::create_dir_all(repo.path().join("state")).map_err(state)?;
    std::fs::write(&partial, "").map_err(state)?;
    let staging = repo.stage_with(options.verity)?;
    let result = apply_parts(&staging, superblock, open, threads(options.threads), &|_| ());
    // What was made is valid and stays, whatever happened to the rest.
    staging.flush()?;
    let applied = result?;
    check_complete(repo, &superblock.commit)?;
    if let Some(detached) = &superblock.detached {
        repo.write_detached(&to, detached)?;
    }
    staging.write_metadata(ObjectType::Commit, &superblock.commit.bytes)?;
    staging.flush()?;
    sys::file::remove(&partial).map_err(state)?;
    Ok(applied)
}

/// The commit that a delta starts from must be here, whole.
pub(crate) fn check_source(repo: &Repo, name: &DeltaName) -> Result<(), DeltaError> {
    match name.from {
        Some(from) if !repo.has(ObjectType::Commit, &from) || repo.is_partial(&from) => Err(DeltaError::NoSource(from)),
        _ => Ok(()),
    }
}

/// A delta that leaves something out must not leave a commit with holes.
fn check_complete(repo: &Repo, commit: &Commit) -> Result<(), DeltaError> {
    let mut objects = Objects::default();
    repo.reach(&commit.root_tree, &commit.root_meta, &mut objects)?;
    let lacks = |kind, all: &std::collections::HashSet<Checksum>| all.iter().find(|c| !repo.has(kind, c)).copied();
    for (kind, all) in [(ObjectType::DirMeta, &objects.dirmetas), (ObjectType::File, &objects.files)] {
        if let Some(checksum) = lacks(kind, all) {
            return Err(Error::Missing { kind, checksum }.into());
        }
    }
    Ok(())
}

impl Superblock {
    /// Checks that a key that counts signed it.
    pub fn verify(&self, keyring: &dyn Verifies) -> Result<(), DeltaError> {
        let none = Dict::new();
        let verified = keyring.check(self.signed_bytes(), self.signatures.as_ref().unwrap_or(&none));
        verified.map_err(|source| DeltaError::Untrusted { name: Box::new(self.name), source })
    }
}

/// What a part may unpack to: its objects, and as much again for patches, which add little to what they make.
pub(super) fn payload_limit(unpacked: u64) -> u64 {
    unpacked.saturating_mul(2).saturating_add(64 << 20).min(MAX_PAYLOAD)
}

/// Makes the objects of all parts. They become durable now and then, and by the caller's last flush. `count` is told
/// about the bytes of parts as they come.
pub(crate) fn apply_parts(
    staging: &Staging<'_>,
    superblock: &Superblock,
    open: OpenPart<'_>,
    threads: usize,
    count: &(dyn Fn(u64) + Sync),
) -> Result<Applied, DeltaError> {
    let tmp = staging.repo().path().join("tmp");
    let (send, receive) = sync_channel::<(usize, Result<Payload, DeltaError>)>(0);
    let mut applied = Applied::default();
    std::thread::scope(|scope| {
        scope.spawn({
            let tmp = &tmp;
            move || {
                for (index, part) in superblock.parts.iter().enumerate() {
                    if part.objects.iter().all(|(kind, checksum)| staging.has(*kind, checksum)) {
                        continue;
                    }
                    let payload = open_part(superblock, index, open, tmp, count);
                    let failed = payload.is_err();
                    if send.send((index, payload)).is_err() || failed {
                        return;
                    }
                }
            }
        });
        for (index, payload) in receive {
            let payload = payload?;
            let part = &superblock.parts[index];
            let run = Run { staging, payload: &payload, tmp: &tmp, to: superblock.name.to };
            let made = run.part(&part.objects, threads);
            applied.objects += made.map_err(|e| e.of_part(superblock.name, index))?;
            applied.parts += 1;
            applied.bytes += part.size;
            if staging.pending_bytes() > BATCH {
                staging.flush()?;
            }
        }
        Ok(applied)
    })
}

fn open_part(
    superblock: &Superblock,
    index: usize,
    open: OpenPart<'_>,
    tmp: &Path,
    count: &(dyn Fn(u64) + Sync),
) -> Result<Payload, DeltaError> {
    let part = &superblock.parts[index];
    let error = |source| DeltaError::Part { name: Box::new(superblock.name), index, source };
    let limit = payload_limit(part.unpacked);
    if let Some(mut bytes) = superblock.inline_part(index) {
        // What checked the superblock has checked this too.
        return unpack(&mut bytes, limit, tmp).and_then(Payload::open).map_err(error);
    }
    // A server that sends without end is cut off at what the superblock says.
    let file = open(index).map_err(error)?;
    let mut file = Hashing::new(Counted { inner: file.take(part.size.saturating_add(1)), count });
    let blob = unpack(&mut file, limit, tmp);
    // What follows the payload belongs to the checksum; and a part that is another one is called that.
    let drained = io::copy(&mut file, &mut io::sink());
    let found = file.finish();
    if drained.is_ok() && found != part.checksum {
        return Err(DeltaError::PartMismatch {
            name: Box::new(superblock.name),
            index,
            expected: part.checksum,
            found,
        });
    }
    blob.and_then(Payload::open).map_err(error)
}

struct Counted<'a, R> {
    inner: R,
    count: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.count)(read as u64);
        Ok(read)
    }
}

/// Why a part did not become objects.
enum RunError {
    Operations(io::Error),
    Store(DeltaError),
}

impl RunError {
    fn of_part(self, name: DeltaName, index: usize) -> DeltaError {
        match self {
            RunError::Operations(source) => DeltaError::Part { name: Box::new(name), index, source },
            RunError::Store(error) => error,
        }
    }
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        RunError::Store(error.into())
    }
}

type Object = (ObjectType, Checksum, Recipe);

struct Run<'a> {
    staging: &'a Staging<'a>,
    payload: &'a Payload,
    tmp: &'a Path,
    to: Checksum,
}

impl Run<'_> {
    fn part(&self, objects: &[(ObjectType, Checksum)], threads: usize) -> Result<u64, RunError> {
        let operations = Mutex::new(Operations::new(self.payload, objects));
        let waiting: Mutex<Vec<Object>> = Mutex::default();
        let failure: Mutex<Option<RunError>> = Mutex::default();
        let made = AtomicU64::new(0);
        let work = || {
            while lock(&failure).is_none() {
                let next = lock(&operations).next();
                let result = match next {
                    Ok(None) => return,
                    Err(error) => Err(RunError::Operations(error)),
                    Ok(Some(object)) if !self.sources_here(&object.2) => {
                        lock(&waiting).push(object);
                        Ok(false)
                    }
                    Ok(Some(object)) => self.object(&object),
                };
                match result {
                    Ok(new) => drop(made.fetch_add(u64::from(new), Ordering::Relaxed)),
                    Err(error) => drop(lock(&failure).get_or_insert(error)),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(objects.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = lock(&failure).take() {
            return Err(error);
        }
        let waiting = std::mem::take(&mut *lock(&waiting));
        for object in waiting {
            if !self.sources_here(&object.2) {
                self.staging.flush()?;
            }
            made.fetch_add(u64::from(self.object(&object)?), Ordering::Relaxed);
        }
        Ok(made.into_inner())
    }

    fn sources_here(&self, recipe: &Recipe) -> bool {
        let Recipe::File { steps, .. } = recipe else { return true };
        steps.iter().all(|step| match step {
            Step::Data { .. } => true,
            Step::Copy { source, .. } | Step::Patch { source, .. } => self.staging.repo().has(ObjectType::File, source),
        })
    }

    /// Makes one object; false if it was there.
    fn object(&self, (kind, checksum, recipe): &Object) -> Result<bool, RunError> {
        match recipe {
            Recipe::Metadata { offset, len } => self.metadata(*kind, checksum, *offset, *len),
            Recipe::File { meta, steps } => {
                let repo = self.staging.repo();
                if self.staging.has(*kind, checksum) {
                    return Ok(false);
                }
                let mut content = Assembled::new(repo, self.payload, self.tmp, meta.size, steps);
                Ok(self.staging.write_known(meta, checksum, Content::Stream(&mut content))?)
            }
        }
    }

    fn metadata(&self, kind: ObjectType, checksum: &Checksum, offset: u64, len: u64) -> Result<bool, RunError> {
        if len > crate::object::MAX_METADATA {
            return Err(RunError::Operations(super::blob::invalid(format!("{kind} {checksum} of {len} bytes"))));
        }
        if self.staging.has(kind, checksum) {
            return Ok(false);
        }
        let mut bytes = vec![0; len as usize];
        self.payload.read_data(&mut bytes, offset).map_err(RunError::Operations)?;
        let found = Checksum::of(&bytes);
        if found != *checksum {
            return Err(Error::Mismatch { kind, expected: *checksum, found }.into());
        }
        let valid = match kind {
            ObjectType::DirTree => DirTree::decode(&bytes).map(|_| ()),
            ObjectType::DirMeta => DirMeta::decode(&bytes).map(|_| ()),
            // It becomes visible last; any other would be a commit without a tree.
            ObjectType::Commit if *checksum == self.to => return Ok(false),
            ObjectType::Commit => Err(Malformed("a commit that the delta does not lead to".into())),
            ObjectType::File => Err(Malformed("a file as metadata".into())),
        };
        valid.map_err(|source| Error::Malformed { kind, checksum: *checksum, source })?;
        self.staging.write_metadata(kind, &bytes)?;
        Ok(true)
    }
}
