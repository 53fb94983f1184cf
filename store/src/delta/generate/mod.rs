//! Making a delta.
//!
//! ```text
//! trees    what the new one has and the old one has not; a source for each file        one thread
//! encode   each file against its source: whole, copies or a patch                      every core, largest first
//! nest     files that hold other new files are made of them                        one thread
//! parts    forms in the order of their paths, so that like lies beside like
//! pack     each part: data, operations, .xz                                            every core
//! write    parts, superblock; visible by one rename
//! ```
//! Forms that are not in their part yet lie in a file without a name; memory is bounded by what is laid side by side
//! at once. The same commits give the same bytes, on however many cores.

mod choose;
mod diff;
mod encode;
mod matcher;
mod nest;
mod pack;
mod spool;
mod tables;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use choose::OldFiles;
use encode::{Encoded, Form, Limits};
use pack::{Item, PartBuilder};
use spool::{Budget, Spool, Spooled};

use super::superblock::{Fields, Part, wrap_signed};
use super::{ByteOrder, DeltaError, DeltaName, Fallback};
use crate::import::{lock, threads};
use crate::object::FileMeta;
use crate::repo::Objects;
use crate::sign::Signs;
use crate::value::Dict;
use crate::{Checksum, Entry, Error, ObjectType, Repo};

/// How a delta is made. Sizes are in bytes.
#[derive(Clone)]
pub struct Options<'a> {
    /// Put the parts into the superblock.
    pub inline: bool,
    /// Files larger than this for which nothing smaller was found are left to be fetched on their own; 0 leaves none.
    pub min_fallback: u64,
    /// Sum of both sizes up to which a file may become a bsdiff patch; `None` for never.
    pub max_bsdiff: Option<u64>,
    /// Data of a part after which the next one begins.
    pub max_chunk: u64,
    /// Byte order of the numbers.
    pub order: ByteOrder,
    /// Facts for the head of the superblock.
    pub facts: Dict,
    /// Write the superblock here and the parts beside it, and not into the repository.
    pub file: Option<PathBuf>,
    /// Sign the superblock with these keys.
    pub keys: &'a [&'a dyn Signs],
    /// Preset of .xz.
    pub preset: u32,
    /// Largest window of .xz.
    pub window: u32,
    /// Memory for files that are laid side by side.
    pub memory: u64,
    /// Threads; 0 uses every core.
    pub threads: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            inline: false,
            min_fallback: 4_000_000,
            max_bsdiff: Some(128_000_000),
            max_chunk: 32_000_000,
            order: ByteOrder::Little,
            facts: Dict::new(),
            file: None,
            keys: &[],
            preset: 6,
            window: 16 << 20,
            memory: 384 << 20,
            threads: 0,
        }
    }
}

/// What making a delta came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Generated {
    /// Parts.
    pub parts: u64,
    /// Objects in the parts.
    pub objects: u64,
    /// Files made of copies.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Files made by a patch.
    pub patched: u64,
    /// Bytes of the objects in the parts.
    pub unpacked: u64,
    /// Bytes of the parts' files.
    pub packed: u64,
    /// Bytes of the same objects as they lie in the repository.
    pub loose: u64,
    /// Bytes of the superblock, with the parts in it if they are.
    pub superblock: u64,
    /// Objects to be fetched on their own.
    pub fallbacks: u64,
    /// Their bytes.
    pub fallback_bytes: u64,
}

impl Generated {
    /// Bytes that a client fetches.
    pub fn bytes(&self, inline: bool) -> u64 {
        self.superblock + self.fallback_bytes + if inline { 0 } else { self.packed }
    }
}

/// A new file.
struct New {
    checksum: Checksum,
    path: String,
    meta: FileMeta,
}

/// An estimate of a part's compressed size after which the next one begins: parts are packed side by side.
const PACKED: u64 = 6 << 20;

/// Makes the delta from one commit to another, or from nothing, and writes it.
pub fn generate(
    repo: &Repo,
    from: Option<&Checksum>,
    to: &Checksum,
    options: &Options<'_>,
) -> Result<Generated, DeltaError> {
    let name = DeltaName { from: from.copied(), to: *to };
    let threads = threads(options.threads);
    let commit = repo.load_commit(to)?;
    let (metadata, files) = new_objects(repo, from, to)?;
    let old = from.map(|from| OldFiles::of(repo, from)).transpose()?.unwrap_or_default();
    let tmp = repo.path().join("tmp");
    let spool = Spool::new(&tmp)?;
    let limits = Limits { both: options.memory / 2, patch: options.max_bsdiff };
    let mut forms = encode_all(repo, &files, &old, &limits, options, threads, &spool)?;

    let groups = nest_all(repo, &files, &mut forms, &old, &limits, options, &spool)?;
    let grouped: HashSet<usize> = groups.iter().flatten().copied().collect();

    let mut done = Generated::default();
    let mut fallbacks = Vec::new();
    let mut plan = Plan { max: options.max_chunk, ..Plan::default() };
    for (index, (kind, checksum)) in metadata.iter().enumerate() {
        plan.add(index, repo.stored_size(*kind, checksum)?, 0);
    }
    let mut hard = Plan { max: options.max_chunk, hard: true, ..Plan::default() };
    for (index, (file, form)) in files.iter().zip(&forms).enumerate() {
        let size = repo.stored_size(ObjectType::File, &file.checksum)?;
        done.loose += size;
        if grouped.contains(&index) {
            continue;
        }
        if falls_back(form, file, options) {
            let (kind, checksum, unpacked) = (ObjectType::File, file.checksum, file.meta.size);
            fallbacks.push(Fallback { kind, checksum, size, unpacked });
            continue;
        }
        let in_vain = encode::incompressible(form.data(&file.meta), form.estimate);
        let plan = if in_vain { &mut hard } else { &mut plan };
        plan.add(metadata.len() + index, form.data(&file.meta), if in_vain { 0 } else { form.estimate });
    }
    let mut plan = plan.parts;
    let shift = |group: Vec<usize>| group.into_iter().map(|file| metadata.len() + file).collect();
    plan.extend(groups.into_iter().map(|group| (shift(group), false)));
    plan.extend(hard.parts);
    if plan.is_empty() {
        // The stock tools make a part of nothing too.
        plan.push((Vec::new(), false));
    }

    let target = Target::open(repo, &name, options)?;
    let build = |(part, hard): &(Vec<usize>, bool), index: usize| -> Result<(Part, Vec<u8>), DeltaError> {
        let mut builder = PartBuilder::default();
        for item in part {
            let item = match item.checked_sub(metadata.len()) {
                None => Item { kind: metadata[*item].0, checksum: metadata[*item].1, meta: None, form: Form::Whole },
                Some(file) => Item {
                    kind: ObjectType::File,
                    checksum: files[file].checksum,
                    meta: Some(&files[file].meta),
                    form: spool.load(&forms[file])?,
                },
            };
            builder.add(repo, item)?;
        }
        let io = |e| DeltaError::Store(Error::io(format!("packing part {index} of delta {name}"), e));
        let mut bytes = Vec::new();
        let part = builder.finish(options, *hard, &mut bytes).map_err(io)?;
        if !options.inline {
            target.part(index, &bytes)?;
            bytes = Vec::new();
        }
        Ok((part, bytes))
    };
    let mut parts = Vec::new();
    let mut inline = Vec::new();
    for built in parallel(threads, &plan, build) {
        let (part, bytes) = built?;
        done.packed += part.size;
        done.unpacked += part.unpacked;
        done.objects += part.objects.len() as u64;
        parts.push(part);
        inline.push(bytes);
    }
    for (form, file) in forms.iter().zip(&files) {
        match form.form {
            spool::Kind::Copies => {
                done.copied += 1;
                done.copied_bytes += file.meta.size;
            }
            spool::Kind::Patch => done.patched += 1,
            spool::Kind::Whole => {}
        }
    }
    let detached = repo.load_detached(to)?;
    let fields = Fields {
        name,
        timestamp: commit.timestamp,
        commit: &commit.bytes,
        facts: &options.facts,
        detached: detached.as_ref(),
        parts: &parts,
        fallbacks: &fallbacks,
        order: options.order,
    };
    let mut superblock = fields.encode(options.inline.then_some(&inline[..]));
    if !options.keys.is_empty() {
        superblock = wrap_signed(&superblock, options.keys)
            .map_err(|why| Error::invalid(format!("signing the static delta {name}: {why}")))?;
    }
    done.superblock = superblock.len() as u64;
    done.parts = parts.len() as u64;
    done.fallbacks = fallbacks.len() as u64;
    done.fallback_bytes = fallbacks.iter().map(|f| f.size).sum();
    target.finish(&superblock)?;
    Ok(done)
}

/// Objects are handed out to parts in their order.
#[derive(Default)]
struct Plan {
    max: u64,
    hard: bool,
    parts: Vec<(Vec<usize>, bool)>,
    size: u64,
    estimate: u64,
}

impl Plan {
    /// Adds an object of so many bytes of data, which become about `estimate`.
    fn add(&mut self, index: usize, data: u64, estimate: u64) {
        let full = self.size + data > self.max || self.estimate + estimate > PACKED;
        if self.parts.is_empty() || (full && self.size > 0) {
            self.parts.push((Vec::new(), self.hard));
            (self.size, self.estimate) = (0, 0);
        }
        if let Some((part, _)) = self.parts.last_mut() {
            part.push(index);
        }
        self.size += data;
        self.estimate += estimate;
    }
}

type Metadata = Vec<(ObjectType, Checksum)>;

/// What `to` has and `from` has not: directories, and files in the order in which they are packed.
fn new_objects(repo: &Repo, from: Option<&Checksum>, to: &Checksum) -> Result<(Metadata, Vec<New>), Error> {
    let reach = |commit: &Checksum| {
        let mut objects = Objects::default();
        let commit = repo.load_commit(commit)?;
        repo.reach(&commit.root_tree, &commit.root_meta, &mut objects)?;
        Ok::<_, Error>(objects)
    };
    let (old, new) = (from.map(reach).transpose()?.unwrap_or_default(), reach(to)?);
    let mut metadata: Metadata = new.dirtrees.difference(&old.dirtrees).map(|c| (ObjectType::DirTree, *c)).collect();
    metadata.extend(new.dirmetas.difference(&old.dirmetas).map(|c| (ObjectType::DirMeta, *c)));
    metadata.sort();
    let mut seen = HashMap::new();
    repo.walk(to, |path, entry| {
        if let Entry::File { checksum } = entry {
            if !old.files.contains(&checksum) && !seen.contains_key(&checksum) {
                seen.insert(checksum, path.to_owned());
            }
        }
        Ok(())
    })?;
    let mut files = Vec::with_capacity(seen.len());
    for (checksum, path) in seen {
        files.push(New { checksum, path, meta: repo.load_file_meta(&checksum)? });
    }
    // Links first, then by what the name ends in: a window of the compressor sees like beside like.
    files.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    Ok((metadata, files))
}

fn sort_key(file: &New) -> (bool, &str, &str) {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    (file.meta.symlink.is_none(), extension, &file.path)
}

/// The forms of all files, in their order.
fn encode_all(
    repo: &Repo,
    files: &[New],
    old: &OldFiles,
    limits: &Limits,
    options: &Options<'_>,
    threads: usize,
    spool: &Spool,
) -> Result<Vec<Spooled>, DeltaError> {
    let budget = Budget::new(options.memory);
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse((files[*index].meta.size, *index)));
    let encoded = parallel(threads, &order, |index, _| -> Result<Spooled, DeltaError> {
        let file = &files[*index];
        let sources = if file.meta.symlink.is_some() { Vec::new() } else { old.candidates(&file.path) };
        // Both files, twice where they have tables, an index over the old one, the patch, and what it is compressed to.
        let _share = budget.take(file.meta.size.saturating_mul(14));
        let Encoded { form, estimate } = encode::encode(repo, &file.checksum, file.meta.size, &sources, limits)?;
        Ok(spool.store(form, estimate)?)
    });
    let mut forms: Vec<Option<Spooled>> = files.iter().map(|_| None).collect();
    for (index, form) in order.into_iter().zip(encoded) {
        forms[index] = Some(form?);
    }
    forms.into_iter().map(|form| form.ok_or_else(|| Error::invalid("a file was not encoded").into())).collect()
}

/// Whether a file is left to be fetched on its own.
fn falls_back(form: &Spooled, file: &New, options: &Options<'_>) -> bool {
    form.whole() && options.min_fallback > 0 && file.meta.size > options.min_fallback
}

/// A form that is worth another look.
const COSTLY: u64 = 32 << 10;

/// Makes files that hold other new ones of them, where that is smaller. Each group is a part: the inner files in their
/// order, then the outer one.
fn nest_all(
    repo: &Repo,
    files: &[New],
    forms: &mut [Spooled],
    old: &OldFiles,
    limits: &Limits,
    options: &Options<'_>,
    spool: &Spool,
) -> Result<Vec<Vec<usize>>, DeltaError> {
    let outer: Vec<usize> = (0..files.len())
        .filter(|&index| {
            let (size, form) = (files[index].meta.size, &forms[index]);
            let large = size >= nest::OUTER && size <= limits.both && form.estimate > COSTLY;
            large && !(form.whole() && encode::incompressible(size, form.estimate))
        })
        .collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut taken: HashSet<usize> = HashSet::new();
    let may = |index: usize| !falls_back(&forms[index], &files[index], options);
    let heads = if outer.is_empty() { None } else { Some(nest::Heads::of(repo, files, may)?) };
    for (heads, index) in outer.into_iter().filter_map(|index| Some((heads.as_ref()?, index))) {
        let source = old.candidates(&files[index].path).into_iter().next();
        let Some(nested) = nest::nest(repo, files, index, heads, source.as_ref(), limits)? else { continue };
        // A file is in one part only; and a part must not become larger than it may.
        let free = !taken.contains(&index) && nested.inner.iter().all(|inner| !taken.contains(inner));
        let own = if let Form::Copies { bytes, .. } = &nested.form { bytes.len() as u64 } else { 0 };
        let data = nested.inner.iter().map(|inner| forms[*inner].data(&files[*inner].meta)).sum::<u64>() + own;
        if !free || data > options.max_chunk || nested.estimate >= forms[index].estimate {
            continue;
        }
        forms[index] = spool.store(nested.form, nested.estimate)?;
        taken.insert(index);
        taken.extend(&nested.inner);
        let mut group = nested.inner;
        group.push(index);
        groups.push(group);
    }
    Ok(groups)
}

/// Calls `work` for each item on several threads; the results are in the order of the items. Nothing new is begun after
/// the first error.
fn parallel<T: Sync, R: Send, E: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T, usize) -> Result<R, E> + Sync,
) -> Vec<Result<R, E>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::new(Vec::with_capacity(items.len()));
    let run = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(item) = items.get(index) else { return };
        let result = work(item, index);
        if result.is_err() {
            next.store(items.len(), Ordering::Relaxed);
        }
        lock(&results).push((index, result));
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // After an error the items that were skipped have no result, and what is before it stays in order.
    results.sort_by_key(|(index, result)| (result.is_ok(), *index));
    results.into_iter().map(|(_, result)| result).collect()
}

/// Where the files of a delta go.
struct Target {
    /// Where they are written, and where that goes by a rename.
    dir: PathBuf,
    rename: Option<PathBuf>,
    superblock: PathBuf,
}

impl Target {
    fn open(repo: &Repo, name: &DeltaName, options: &Options<'_>) -> Result<Self, DeltaError> {
        if let Some(file) = &options.file {
            let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Ok(Target { dir: dir.to_owned(), rename: None, superblock: file.clone() });
        }
        let whole = repo.path().join(name.dir());
        let parent = whole.parent().unwrap_or(repo.path());
        let dir = parent.join(format!(".tmp-{}-{}", std::process::id(), name.to.short()));
        let io = |e| Error::io(format!("creating {}", dir.display()), e);
        sys::file::remove_tree(&dir).map_err(io)?;
        std::fs::create_dir_all(&dir).map_err(io)?;
        Ok(Target { superblock: dir.join("superblock"), dir: dir.clone(), rename: Some(whole) })
    }

    fn part(&self, index: usize, bytes: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(index.to_string());
        sys::file::replace(&path, bytes, 0o644).map_err(|e| Error::io(format!("writing {}", path.display()), e))
    }

    fn finish(mut self, superblock: &[u8]) -> Result<(), Error> {
        let io = |e| Error::io(format!("writing {}", self.superblock.display()), e);
        sys::file::replace(&self.superblock, superblock, 0o644).map_err(io)?;
        let Some(whole) = self.rename.take() else { return Ok(()) };
        // A client that reads the delta that was there finds either all of the old one or all of the new one.
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let cwd = rustix::fs::CWD;
        if rustix::fs::renameat_with(cwd, &self.dir, cwd, &whole, flags).is_ok() {
            sys::file::remove_tree(&self.dir).map_err(io)?;
        } else {
            sys::file::remove_tree(&whole).map_err(io)?;
            std::fs::rename(&self.dir, &whole).map_err(io)?;
        }
        sys::file::sync_dir(whole.parent().unwrap_or(&whole)).map_err(io)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.rename.is_some() {
            let _ = sys::file::remove_tree(&self.dir);
        }
    }
}
