//! Applying an update: objects appear in the batch one by one, each under the checksum of what it holds.
//!
//! ```text
//! table, catalogue -> is this the commit that is wanted? -> its tree, from old and new directories: what may be made
//! parts of stage 0, then of stage 1:   all there already: skipped, not even fetched
//!     fetched into a file (see `spool`) -> each file: patch -> packed again -> object, checked
//!     a file that does not come out right is left out; a part that is damaged ends the update
//! ```
//! Interrupted, the next pull goes on at the byte where this one stopped: what was made stays, and so does what was
//! fetched and not used yet.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::UpdateError;
use super::base::Base;
use super::elf;
use super::generate::old_dirtrees;
use super::spool::{Spool, Spooled};
use super::streams::{Corrupt, Streams};
use super::wire::{Catalogue, FileEntry, HEAD, MAX_CATALOGUE, Part, Table, bad};
use crate::import::lock;
use crate::object::{Commit, DirTree};
use crate::pull::ways::{Arrived, Context, Files};
use crate::pull::{PullError, Transport};
use crate::repo::{Content, Staging, Verity};
use crate::sign::{Keyring, PublicKey};
use crate::{Checksum, DirMeta, Error, FileMeta, ObjectType, Objects, Repo};

/// Pending bytes at which objects are made durable: what a killed update loses at most.
const BATCH: u64 = 64 << 20;
/// Bytes of an update that are asked for first.
const PROBE: u64 = 8 << 10;
/// Commits that a remote is asked for updates from.
const MAX_BASES: usize = 4;
/// Two threads keep within the memory that is promised.
const THREADS: usize = 2;

/// Where the bytes of an update come from.
pub trait Input: Sync {
    /// The bytes from `from` on, `length` of them.
    fn open(&self, from: u64, length: u64) -> Result<Box<dyn Read + Send + '_>, UpdateError>;
    /// Whether what was read is worth keeping for the next time.
    fn keeps(&self) -> bool;
    /// So many bytes will be read.
    fn expect(&self, bytes: u64);
    /// So many have been.
    fn arrived(&self, bytes: u64);
    /// An object is in the batch.
    fn wrote(&self);
}

/// What an update brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// Objects that were made.
    pub made: u64,
    /// Objects that could not be made here.
    pub left: u64,
    /// Bytes that were read.
    pub read: u64,
}

/// The part of an update that says what is in it.
struct Opened<'r> {
    table: Table,
    catalogue: Catalogue,
    spool: Spool<'r>,
    /// Bytes that were read for it.
    read: u64,
}

fn io_error(what: &str) -> impl Fn(io::Error) -> UpdateError + '_ {
    move |source| match source.downcast::<Corrupt>() {
        Ok(corrupt) => UpdateError::Malformed(corrupt.to_string()),
        Err(source) => UpdateError::Io { what: what.to_owned(), source },
    }
}

/// Reads exactly so many bytes, in memory.
fn exactly(reader: &mut dyn Read, count: usize) -> Result<Vec<u8>, UpdateError> {
    let mut bytes = Vec::new();
    reader.take(count as u64).read_to_end(&mut bytes).map_err(io_error("reading the update"))?;
    if bytes.len() == count { Ok(bytes) } else { bad("it ends too early") }
}

/// The table, and the bytes it was read from.
fn read_table(input: &dyn Input) -> Result<(Table, Vec<u8>), UpdateError> {
    let mut reader = input.open(0, HEAD as u64)?;
    let mut bytes = exactly(&mut reader, HEAD)?;
    drop(reader);
    let size = Table::table_size(&bytes)?;
    bytes.extend_from_slice(&exactly(&mut input.open(HEAD as u64, size as u64)?, size)?);
    Ok((Table::decode(&bytes)?, bytes))
}

/// Copies what is not here yet of a part from the input to its file; returns the bytes that were read, too.
fn fetch(spool: &Spool<'_>, input: &dyn Input, number: usize, part: &Part) -> Result<(Spooled, u64), UpdateError> {
    let mut spooled = spool.open(number, part.stored())?;
    let file = &mut spooled.file;
    file.seek(SeekFrom::Start(spooled.had)).map_err(|e| Error::io("writing a part of the update", e))?;
    let wanted = part.stored() - spooled.had;
    if wanted == 0 {
        return Ok((spooled, 0));
    }
    let mut reader = input.open(part.offset + spooled.had, wanted)?;
    let (mut buffer, mut left) = (vec![0; 64 << 10], wanted);
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = reader.read(&mut buffer[..wanted]).map_err(UpdateError::Lost)?;
        if count == 0 {
            return bad("it ends too early");
        }
        file.write_all(&buffer[..count]).map_err(|e| Error::io("writing a part of the update", e))?;
        input.arrived(count as u64);
        left -= count as u64;
    }
    drop(reader);
    Ok((spooled, wanted))
}

/// Does something with a part. One that another pull began and that turns out wrong is fetched once more, as a whole.
fn with_part<T>(
    spool: &Spool<'_>,
    input: &dyn Input,
    number: usize,
    part: &Part,
    mut work: impl FnMut(&File) -> Result<(T, bool), UpdateError>,
) -> Result<(T, u64, Option<PathBuf>), UpdateError> {
    let (spooled, read) = fetch(spool, input, number, part)?;
    let result = work(&spooled.file);
    let doubtful = matches!(result, Err(UpdateError::Malformed(_)) | Ok((_, false)));
    if spooled.had == 0 || !doubtful {
        return Ok((result?.0, read, spooled.path));
    }
    tracing::debug!(number, "what was here of a part is of no use");
    if let Some(path) = &spooled.path {
        let gone = std::fs::remove_file(path);
        gone.map_err(|e| Error::io(format!("removing {}", path.display()), e))?;
    }
    drop(spooled);
    let (spooled, again) = fetch(spool, input, number, part)?;
    Ok((work(&spooled.file)?.0, read + again, spooled.path))
}

/// A stretch of a file that others read as well.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn streams<'a>(file: &'a File, part: &Part) -> Result<Streams<'a>, UpdateError> {
    let mut at = 0;
    let sections = part.streams.map(|left| {
        let section: Box<dyn Read + Send + 'a> = Box::new(Section { file, at, left });
        at += left;
        section
    });
    Streams::open(sections).map_err(io_error("reading the update"))
}

fn read_catalogue(
    repo: &Repo,
    input: &dyn Input,
    spool: &Spool<'_>,
    table: &Table,
) -> Result<(Catalogue, u64), UpdateError> {
    let part = &table.parts[0];
    if part.content > MAX_CATALOGUE {
        return bad("a list of contents of more than 32 MiB");
    }
    let old = match &table.from {
        None => Vec::new(),
        Some(from) => {
            if !repo.has(ObjectType::Commit, from) || repo.is_partial(from) {
                return Err(UpdateError::Base(*from));
            }
            let mut objects = Objects::default();
            let commit = repo.load_commit(from)?;
            repo.reach(&commit.root_tree, &commit.root_meta, &mut objects)?;
            old_dirtrees(repo, &objects.dirtrees.into_iter().collect())?
        }
    };
    let base = Base::of_bytes(repo, old);
    let (catalogue, read, _) = with_part(spool, input, 0, part, |file| {
        let mut streams = streams(file, part)?;
        let mut bytes = Vec::new();
        streams.next(Some(&base), part.content).read_to_end(&mut bytes).map_err(io_error("reading the update"))?;
        let catalogue = Catalogue::decode(&bytes, table.parts.len() - 1)?;
        if Checksum::of(&catalogue.commit) != table.to {
            return bad("the commit in it is another one than it says");
        }
        Ok((catalogue, true))
    })?;
    Ok((catalogue, read))
}

fn open<'r>(repo: &'r Repo, input: &dyn Input) -> Result<Opened<'r>, UpdateError> {
    let (table, head) = read_table(input)?;
    let spool = if input.keeps() { Spool::kept(repo, &head) } else { Spool::passing(repo) };
    let result = read_catalogue(repo, input, &spool, &table);
    let (catalogue, read) = result.inspect_err(|error| forget(&spool, error))?;
    Ok(Opened { table, catalogue, spool, read: read + head.len() as u64 })
}

/// Only a lost connection leaves something that is worth keeping.
fn forget(spool: &Spool<'_>, error: &UpdateError) {
    if !matches!(error, UpdateError::Lost(_)) {
        spool.forget();
    }
}

/// The new tree, as far as old and new directories tell.
struct Wanted {
    files: Vec<Checksum>,
    /// Directory objects that are new here.
    metadata: Vec<(ObjectType, Vec<u8>)>,
}

fn wanted(repo: &Repo, commit: &Commit, catalogue: &Catalogue) -> Result<Wanted, UpdateError> {
    let by_name = |list: &[Vec<u8>]| list.iter().map(|bytes| (Checksum::of(bytes), bytes.clone())).collect();
    let trees: HashMap<Checksum, Vec<u8>> = by_name(&catalogue.dirtrees);
    let metas: HashMap<Checksum, Vec<u8>> = by_name(&catalogue.dirmetas);
    let mut metadata = Vec::new();
    let mut bytes_of =
        |kind, checksum: &Checksum, list: &HashMap<Checksum, Vec<u8>>| match repo.load_metadata(kind, checksum) {
            Ok(bytes) => Ok(bytes),
            Err(Error::Missing { .. } | Error::Mismatch { .. }) => {
                let Some(bytes) = list.get(checksum) else { return bad(format!("{kind} {checksum} is not in it")) };
                metadata.push((kind, bytes.clone()));
                Ok(bytes.clone())
            }
            Err(error) => Err(error.into()),
        };
    let (mut files, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut todo = vec![(commit.root_tree, commit.root_meta)];
    while let Some((tree, meta)) = todo.pop() {
        if seen.insert(meta) {
            let bytes = bytes_of(ObjectType::DirMeta, &meta, &metas)?;
            DirMeta::decode(&bytes).map_err(|e| UpdateError::Malformed(format!("dirmeta {meta}: {e}")))?;
        }
        if seen.insert(tree) {
            let bytes = bytes_of(ObjectType::DirTree, &tree, &trees)?;
            let decoded =
                DirTree::decode(&bytes).map_err(|e| UpdateError::Malformed(format!("dirtree {tree}: {e}")))?;
            files.extend(decoded.files.iter().map(|file| file.1));
            todo.extend(decoded.dirs.iter().map(|dir| (dir.1, dir.2)));
        }
    }
    Ok(Wanted { files: files.into_iter().collect(), metadata })
}

fn files_of(repo: &Repo, commit: Option<&Checksum>) -> Result<Vec<Checksum>, Error> {
    let Some(commit) = commit else { return Ok(Vec::new()) };
    let commit = repo.load_commit(commit)?;
    let mut objects = Objects::default();
    repo.reach(&commit.root_tree, &commit.root_meta, &mut objects)?;
    Ok(objects.files.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

struct Job<'a> {
    staging: &'a Staging<'a>,
    input: &'a dyn Input,
    catalogue: &'a Catalogue,
    olds: Vec<Checksum>,
    news: Vec<Checksum>,
    spool: &'a Spool<'a>,
    made: AtomicU64,
    left: AtomicU64,
    read: AtomicU64,
    /// Parts whose objects are in the batch: their files go when it is durable.
    done: Mutex<Vec<PathBuf>>,
    flushing: Mutex<()>,
}

/// Puts the objects that an update holds into a batch; `commit` is the commit that is wanted, and believed.
pub fn apply(input: &dyn Input, staging: &Staging<'_>, commit: &Commit) -> Result<Applied, UpdateError> {
    let opened = open(staging.repo(), input)?;
    let applied = apply_opened(input, staging, commit, &opened);
    match &applied {
        Ok(_) => opened.spool.forget(),
        Err(error) => forget(&opened.spool, error),
    }
    applied
}

fn apply_opened(
    input: &dyn Input,
    staging: &Staging<'_>,
    commit: &Commit,
    Opened { table, catalogue, spool, read: opened }: &Opened<'_>,
) -> Result<Applied, UpdateError> {
    let repo = staging.repo();
    if table.to != commit.checksum() {
        return bad("it leads to another commit");
    }
    let wanted = wanted(repo, commit, catalogue)?;
    let olds = files_of(repo, table.from.as_ref())?;
    let zero = || AtomicU64::new(0);
    let job = Job {
        staging,
        input,
        catalogue,
        olds,
        news: wanted.files,
        spool,
        made: zero(),
        left: zero(),
        read: zero(),
        done: Mutex::default(),
        flushing: Mutex::default(),
    };
    let mut parts = Vec::new();
    let mut needed = 0u64;
    for (number, (part, files)) in table.parts.iter().skip(1).zip(&catalogue.parts).enumerate() {
        let missing = job.missing(files)?;
        needed = needed.saturating_add(missing);
        if missing > 0 || files.iter().any(|file| !job.there(file)) {
            parts.push((number + 1, part, files));
        }
    }
    let fetched = |(number, part, _): &(usize, &Part, _)| part.stored() - spool.here(*number, part.stored());
    let expected = parts.iter().map(fetched).sum();
    check_space(repo, needed.saturating_add(expected))?;
    for (kind, bytes) in &wanted.metadata {
        staging.write_metadata(*kind, bytes)?;
        input.wrote();
        job.made.fetch_add(1, Ordering::Relaxed);
    }
    input.expect(expected);
    for stage in [0, 1] {
        let parts: Vec<_> = parts.iter().filter(|(_, part, _)| part.stage == stage).copied().collect();
        let result = job.stage(&parts);
        // The next stage reads what this one made; of one that was interrupted it stays what was made.
        job.flush()?;
        result?;
    }
    let read = job.read.into_inner() + opened;
    Ok(Applied { made: job.made.into_inner(), left: job.left.into_inner(), read })
}

/// An update that announces more than there is room for is not begun.
fn check_space(repo: &Repo, needed: u64) -> Result<(), UpdateError> {
    let stat = rustix::fs::statvfs(repo.path())
        .map_err(|e| Error::io(format!("asking for the space in {}", repo.path().display()), e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed > free { bad(format!("it would take {needed} bytes, {free} are free")) } else { Ok(()) }
}

impl Job<'_> {
    fn target(&self, file: &FileEntry) -> Option<&Checksum> {
        self.news.get(usize::try_from(file.index).ok()?)
    }

    fn there(&self, file: &FileEntry) -> bool {
        self.target(file).is_some_and(|target| self.staging.has(ObjectType::File, target))
    }

    /// Bytes of the files of a part that are not here. Refuses what points outside the trees.
    fn missing(&self, files: &[FileEntry]) -> Result<u64, UpdateError> {
        let mut bytes = 0u64;
        for file in files {
            let sources = file.sources.iter().all(|source| {
                let list = if source.new { &self.news } else { &self.olds };
                source.index < list.len() as u64
            });
            if self.target(file).is_none() || !sources || file.header >= self.catalogue.headers.len() as u64 {
                return bad("it names a file that is in neither tree");
            }
            if !self.there(file) {
                bytes = bytes.saturating_add(file.size);
            }
        }
        Ok(bytes)
    }

    fn stage(&self, parts: &[(usize, &Part, &Vec<FileEntry>)]) -> Result<(), UpdateError> {
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let worker = || {
            while let Some((number, part, files)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                if lock(&failure).is_some() {
                    return;
                }
                if let Err(error) = self.part(*number, part, files) {
                    lock(&failure).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..THREADS.min(parts.len()) {
                scope.spawn(worker);
            }
            worker();
        });
        lock(&failure).take().map_or(Ok(()), Err)
    }

    /// Makes everything that is in the batch durable; the parts it was made from are not needed any more.
    fn flush(&self) -> Result<(), Error> {
        let done = std::mem::take(&mut *lock(&self.done));
        self.staging.flush()?;
        for path in done {
            sys::file::remove(&path).map_err(|e| Error::io(format!("removing {}", path.display()), e))?;
        }
        Ok(())
    }

    fn part(&self, number: usize, part: &Part, files: &[FileEntry]) -> Result<(), UpdateError> {
        let (left, read, path) = with_part(self.spool, self.input, number, part, |stored| {
            let mut streams = streams(stored, part)?;
            let mut left = 0;
            for file in files {
                if self.there(file) {
                    streams.next(None, file.content).finish().map_err(io_error("reading the update"))?;
                } else if !self.file(file, &mut streams)? {
                    left += 1;
                }
                if self.staging.pending_bytes() > BATCH {
                    if let Ok(_guard) = self.flushing.try_lock() {
                        self.flush()?;
                    }
                }
            }
            Ok((left, left == 0))
        })?;
        self.left.fetch_add(left, Ordering::Relaxed);
        self.read.fetch_add(read, Ordering::Relaxed);
        lock(&self.done).extend(path);
        Ok(())
    }

    /// Makes one file; says whether it could be made. Only damage of the part itself is an error: the next file cannot
    /// be read then.
    fn file(&self, file: &FileEntry, streams: &mut Streams<'_>) -> Result<bool, UpdateError> {
        let Some(target) = self.target(file) else { return bad("it names a file that is in neither tree") };
        let header = self.catalogue.headers.get(usize::try_from(file.header).unwrap_or(usize::MAX));
        let meta = header.map(|header| FileMeta::decode_stream(header, file.size));
        let base = self.base(file);
        let (Some(Ok(meta)), Ok(base)) = (meta, &base) else {
            if let Err(error) = base {
                tracing::debug!(%target, %error, "left to the pull");
            }
            return streams.next(None, file.content).finish().map_err(io_error("reading the update")).map(|()| false);
        };
        let mut patch = streams.next(Some(base), file.content);
        let written = self.write(file, &meta, target, &mut patch);
        if let Err(Error::Io { source, .. }) = &written {
            if Corrupt::is(source) {
                return bad(source.to_string());
            }
        }
        patch.finish().map_err(io_error("reading the update"))?;
        match written {
            Ok(new) => {
                if new {
                    self.made.fetch_add(1, Ordering::Relaxed);
                    self.input.wrote();
                }
                Ok(true)
            }
            Err(error) if disk(&error) => Err(error.into()),
            Err(error) => {
                tracing::debug!(%target, error = %crate::error::chain(&error), "left to the pull");
                Ok(false)
            }
        }
    }

    /// Packs the content and adds the object.
    fn write(
        &self,
        file: &FileEntry,
        meta: &FileMeta,
        target: &Checksum,
        patch: &mut (dyn Read + Send),
    ) -> Result<bool, Error> {
        let packing = |error| Error::io("packing a file", error);
        let mut turned = Vec::new();
        let content: Box<dyn Read + Send + '_> = if file.elf {
            if file.content > elf::MAX {
                return Err(Error::invalid("a file too large to be turned"));
            }
            patch.read_to_end(&mut turned).map_err(packing)?;
            elf::back(&mut turned);
            Box::new(turned.as_slice())
        } else {
            Box::new(patch)
        };
        let mut packed = file.layer.pack(content, file.content).map_err(packing)?;
        self.staging.write_known(meta, target, Content::Stream(&mut packed))
    }

    fn base(&self, file: &FileEntry) -> Result<Base<'_>, Error> {
        let mut base = Base::empty(self.staging.repo());
        for source in &file.sources {
            let list = if source.new { &self.news } else { &self.olds };
            let checksum = usize::try_from(source.index).ok().and_then(|index| list.get(index));
            base.add(checksum.ok_or_else(|| Error::invalid("no such file"))?, source, file.elf)?;
        }
        Ok(base)
    }
}

/// Whether the disk is the trouble: nothing else will work either.
fn disk(error: &Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error, Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem))
}

/// An update that lies with a remote.
struct Remote<'a, 'c> {
    context: &'a Context<'c>,
    path: String,
    /// Its first bytes, which were fetched already.
    head: Vec<u8>,
    failure: Mutex<Option<PullError>>,
    /// Bytes of parts that have arrived.
    arrived: AtomicU64,
}

impl Input for Remote<'_, '_> {
    fn open(&self, from: u64, length: u64) -> Result<Box<dyn Read + Send + '_>, UpdateError> {
        let gone = || UpdateError::Malformed("it is not there any more".into());
        let here = usize::try_from(from).ok().and_then(|from| self.head.get(from..)).unwrap_or_default();
        let here = &here[..here.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        let rest = length - here.len() as u64;
        if rest == 0 {
            return Ok(Box::new(here));
        }
        match self.context.files.open(&self.path, from + here.len() as u64, Some(rest)) {
            Ok(opened) => Ok(Box::new(here.chain(opened.ok_or_else(gone)?.reader))),
            Err(error) => {
                let lost = matches!(error, PullError::Fetch { source: Transport::Io(_), .. });
                lock(&self.failure).get_or_insert(error);
                Err(if lost { UpdateError::Lost(io::ErrorKind::NotConnected.into()) } else { gone() })
            }
        }
    }

    fn keeps(&self) -> bool {
        true
    }

    fn expect(&self, bytes: u64) {
        self.context.expect(bytes);
    }

    fn arrived(&self, bytes: u64) {
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
        self.context.arrived(bytes);
    }

    fn wrote(&self) {
        self.context.wrote(1);
    }
}

/// An update that a remote has.
pub(crate) struct Offered {
    /// Where it lies.
    pub path: String,
    /// Its bytes, where that is known.
    pub size: Option<u64>,
    /// Its first bytes: of a small one that is everything but the parts, in one request.
    head: Vec<u8>,
}

/// The update that a remote has from a commit that is here, the likeliest first, or from nothing where nothing is here.
pub(crate) fn offered(files: &dyn Files, bases: &[Checksum], to: &Checksum) -> Result<Option<Offered>, PullError> {
    let bases: Vec<Option<Checksum>> =
        if bases.is_empty() { vec![None] } else { bases.iter().copied().map(Some).take(MAX_BASES).collect() };
    for base in bases {
        let path = super::path(base.as_ref(), to);
        if let Some(mut opened) = files.open(&path, 0, Some(PROBE))? {
            let (size, mut head) = (opened.size, Vec::new());
            let read = opened.reader.by_ref().take(PROBE).read_to_end(&mut head);
            drop(opened);
            if let Err(error) = read {
                let (what, from) = ("the update".to_owned(), files.locate(&path));
                return Err(PullError::Fetch { what, from, source: Transport::Io(error) });
            }
            return Ok(Some(Offered { path, size, head }));
        }
    }
    Ok(None)
}

/// The way of a pull that takes an update, where the remote has one.
pub fn way(context: &Context<'_>) -> Result<Arrived, PullError> {
    let Some(offered) = offered(context.files, context.bases, &context.to.checksum)? else {
        return Ok(Arrived::NotOffered);
    };
    let Offered { path, head, .. } = offered;
    let remote = Remote { context, path, head, failure: Mutex::new(None), arrived: AtomicU64::new(0) };
    let applied = apply(&remote, context.staging, &context.to.commit);
    let from = context.files.locate(&remote.path);
    let failure = lock(&remote.failure).take();
    match applied {
        // The next pull goes on from here. Where not a byte came, another way may be better.
        Err(UpdateError::Lost(error)) => {
            let what = "the update".to_owned();
            let error = failure.unwrap_or(PullError::Fetch { what, from, source: Transport::Io(error) });
            let arrived = remote.arrived.into_inner() > 0;
            Err(if arrived { PullError::Interrupted(Box::new(error)) } else { error })
        }
        Err(_) if failure.is_some() => failure.map_or(Ok(Arrived::NotOffered), Err),
        Ok(applied) if applied.left == 0 => Ok(Arrived::Done),
        Ok(_) => Ok(Arrived::Partly),
        Err(UpdateError::Store(error)) => Err(error.into()),
        Err(UpdateError::Io { what, source }) => Err(PullError::Fetch { what, from, source: Transport::Io(source) }),
        Err(error) => Err(PullError::Malformed {
            what: "the update".into(),
            from,
            source: crate::value::Malformed(error.to_string()),
        }),
    }
}

/// An update in a file.
struct Local(File);

impl Input for Local {
    fn open(&self, from: u64, length: u64) -> Result<Box<dyn Read + Send + '_>, UpdateError> {
        Ok(Box::new(Section { file: &self.0, at: from, left: length }))
    }

    fn keeps(&self) -> bool {
        false
    }

    fn expect(&self, _: u64) {}

    fn arrived(&self, _: u64) {}

    fn wrote(&self) {}
}

fn local(path: &Path) -> Result<Local, UpdateError> {
    let what = format!("opening {}", path.display());
    File::open(path).map(Local).map_err(|source| UpdateError::Io { what, source })
}

/// What an update in a file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The commit it starts from.
    pub from: Option<Checksum>,
    /// The commit it leads to.
    pub to: Checksum,
    /// Of each part its bytes in the file, and the bytes of content it holds.
    pub parts: Vec<(u64, u64)>,
}

/// Reads what an update in a file says about itself.
pub fn inspect(path: &Path) -> Result<Inspected, UpdateError> {
    let (table, _) = read_table(&local(path)?)?;
    let size = std::fs::metadata(path).map_err(io_error("reading the update"))?.len();
    if size != table.size() {
        return bad(format!("it has {size} bytes and should have {}", table.size()));
    }
    let parts = table.parts.iter().map(|part| (part.stored(), part.content)).collect();
    Ok(Inspected { from: table.from, to: table.to, parts })
}

/// Brings a commit from an update in a file: signature first, then all objects, then the commit. Every object of the
/// commit is here afterwards, or it is an error and the commit is not.
pub fn apply_file(
    path: &Path,
    repo: &Repo,
    keyring: Option<&Keyring>,
    verity: Verity,
) -> Result<(Checksum, Applied, Option<PublicKey>), UpdateError> {
    let input = local(path)?;
    let opened = open(repo, &input)?;
    let bytes = &opened.catalogue.commit;
    let to = opened.table.to;
    let malformed = |e: crate::value::Malformed| UpdateError::Malformed(e.to_string());
    let detached = match opened.catalogue.detached.as_slice() {
        [] => None,
        bytes => Some(crate::value::decode_dict(bytes).map_err(malformed)?),
    };
    let signer = keyring
        .map(|keyring| keyring.verify(bytes, &detached.clone().unwrap_or_default()))
        .transpose()
        .map_err(|source| UpdateError::Untrusted { commit: to, source })?;
    let commit = Commit::decode(bytes).map_err(malformed)?;
    let staging = repo.stage_with(verity)?;
    let mut applied = apply_opened(&input, &staging, &commit, &opened)?;
    // What counts is not what the update claims to hold, but what the tree needs.
    let mut objects = Objects::default();
    repo.reach(&commit.root_tree, &commit.root_meta, &mut objects)?;
    applied.left = objects.files.iter().filter(|file| !repo.has(ObjectType::File, file)).count() as u64;
    if applied.left > 0 {
        return Err(UpdateError::Incomplete(applied.left, to));
    }
    if !repo.has(ObjectType::Commit, &to) {
        staging.write_metadata(ObjectType::Commit, bytes)?;
        staging.flush()?;
    }
    if let Some(mut detached) = detached {
        if repo.mode() != crate::Mode::Archive {
            detached.remove(crate::commit::SIZES);
        }
        repo.write_detached(&to, &detached)?;
    }
    Ok((to, applied, signer))
}
