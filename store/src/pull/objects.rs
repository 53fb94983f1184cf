//! The walk over a commit's tree that fetches what is missing.
//!
//! ```text
//! shorter ways (see `ways`) -> how much there is (`sizes`) -> every dirtree and dirmeta, from the root
//!     -> every file, the largest first -> commit
//! ```
//! Each thread asks for several objects before the first has come, where the source can be told ahead ([`Lane`]).

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::meter::Meter;
use super::select::Below;
use super::sizes::Sizes;
use super::ways::{self, Context};
use super::{Accept, Lane, Outcome, PullError, Session, Source as _, Verified, checked, queue, verified_metadata};
use crate::commit;
use crate::import::lock;
use crate::object::{Commit, DirMeta, DirTree, ObjectType};
use crate::repo::Staging;
use crate::value::Malformed;
use crate::{Checksum, Error, Mode, Repo};

/// Pending bytes at which a batch is made durable: what a killed pull loses at most, besides small files that wait.
const BATCH: u64 = 64 << 20;

struct Job<'a> {
    session: &'a Session<'a>,
    staging: &'a Staging<'a>,
    sizes: Option<Sizes>,
    meter: &'a Meter<'a>,
    present: AtomicU64,
    flushing: Mutex<()>,
}

/// Fetches every object of a verified commit that is wanted and missing, then makes the commit visible. `current` is the
/// commit that is to be replaced, if one is.
pub(super) fn fetch_objects(
    session: &Session<'_>,
    verified: &Verified,
    current: Option<Checksum>,
) -> Result<Outcome, PullError> {
    let Session { source, repo, ref rules, .. } = *session;
    let wants_all = rules.select.whole();
    let mut sizes = Sizes::recorded(verified);
    if let Some(needed) = sizes.as_ref().filter(|_| wants_all).and_then(|sizes| sizes.space(repo)) {
        check_space(repo, needed)?;
    }
    let partial = repo.partial_path(&verified.checksum);
    let state = |e| Error::io(format!("writing {}", partial.display()), e);
    let visible = repo.has(ObjectType::Commit, &verified.checksum);
    let whole = visible && !repo.is_partial(&verified.checksum);
    if !whole || wants_all {
        std::fs::create_dir_all(repo.path().join("state")).map_err(state)?;
        std::fs::write(&partial, "").map_err(state)?;
    }

    let staging = repo.stage_with(rules.verity)?;
    let meter = Meter::new(rules.progress);
    let mut came = false;
    if !whole && wants_all && !rules.select.bareuseronly && rules.ways != ways::Allowed::OBJECTS {
        let bases = ways::bases(repo, current, verified)?;
        let context = Context {
            files: source.files(),
            repo,
            staging: &staging,
            bases: &bases,
            to: verified,
            keyring: rules.keyring,
            trust: rules.trust,
            threads: rules.threads,
            meter: &meter,
        };
        came = ways::take(ways::WAYS, rules.ways, &context)?.done;
        if !rules.ways.objects && !came {
            return Err(PullError::NoWay { commit: verified.checksum });
        }
    }
    let told = sizes.is_none() && wants_all && !whole && !came;
    if told {
        sizes = Sizes::published(source.files(), &verified.checksum);
    }
    if let Some(sizes) = sizes.as_ref().filter(|_| wants_all) {
        let missing = sizes.missing(repo)?;
        meter.expect_objects(missing.objects);
        meter.expect(missing.bytes);
    }
    let job =
        Job { session, staging: &staging, sizes, meter: &meter, present: AtomicU64::new(0), flushing: Mutex::new(()) };
    let result = if rules.select.commit_only { Ok(Vec::new()) } else { job.run(&verified.commit) };
    // What has arrived is valid and stays, whatever happened to the rest.
    let flushed = staging.flush();
    let arrived = result?;
    flushed?;
    let files = arrived.len() as u64;
    // The last look before the commit becomes visible costs a moment, and a commit with a hole would cost a boot.
    if let Some(checksum) = arrived.into_iter().find(|file| !repo.has(ObjectType::File, file)) {
        return Err(Error::Missing { kind: ObjectType::File, checksum }.into());
    }
    if !visible {
        staging.write_metadata(ObjectType::Commit, &verified.commit.bytes)?;
        staging.flush()?;
    }
    if let Some(mut detached) = verified.detached.clone() {
        // Sizes in the archive they were fetched from.
        if repo.mode() != Mode::Archive {
            detached.remove(commit::SIZES);
        }
        repo.write_detached(&verified.checksum, &detached)?;
    }
    // A mirror has the same objects and says so.
    if told && job.sizes.is_some() && repo.mode() == Mode::Archive {
        crate::update::record_sizes(repo, &verified.checksum)?;
    }
    if wants_all {
        sys::file::remove(&partial).map_err(state)?;
    }
    let present = job.present.into_inner();
    let arrived = meter.now();
    Ok(Outcome {
        commit: verified.checksum,
        commits: BTreeMap::new(),
        signer: verified.signer,
        fetched: arrived.objects,
        files,
        new_commits: u64::from(!visible),
        bytes: arrived.bytes,
        present,
    })
}

fn check_space(repo: &Repo, needed: u64) -> Result<(), PullError> {
    let path = repo.path();
    let stat = rustix::fs::statvfs(path)
        .map_err(|e| Error::io(format!("asking for the space in {}", path.display()), e.into()))?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed > available {
        return Err(PullError::Space { path: path.display().to_string(), needed, available });
    }
    Ok(())
}

/// A metadata object to look at, how deep in the tree it lies, and what is wanted of it.
struct Wanted {
    kind: ObjectType,
    checksum: Checksum,
    depth: usize,
    below: Below,
}

/// What a dirtree costs to fetch, and a file whose size nobody tells: a guess.
const USUAL: u64 = 4 << 10;

impl Job<'_> {
    /// Fetches everything that is wanted and missing; returns the files that it fetched.
    fn run(&self, commit: &Commit) -> Result<Vec<Checksum>, PullError> {
        let seen: Mutex<HashSet<(ObjectType, Checksum)>> = Mutex::default();
        let files: Mutex<HashSet<Checksum>> = Mutex::default();
        let threads = self.session.rules.threads;
        let root = |kind, checksum| Wanted { kind, checksum, depth: 0, below: self.session.rules.select.root() };
        let start = vec![root(ObjectType::DirMeta, commit.root_meta), root(ObjectType::DirTree, commit.root_tree)];
        let lane = || self.session.source.lane();
        queue::run(threads, start, || Directories { job: self, lane: lane(), seen: &seen, files: &files })?;

        let files = files.into_inner().unwrap_or_default();
        let (present, mut todo): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| self.session.repo.has(ObjectType::File, file));
        self.present.fetch_add(present.len() as u64, Ordering::Relaxed);
        self.meter.expect_objects(todo.len() as u64);
        // The queue takes from the end: the largest first, so that none is left alone at last.
        todo.sort_by_cached_key(|file| (self.archived(file), *file));
        queue::run(threads, todo.clone(), || Files { job: self, lane: lane() })?;
        Ok(todo)
    }

    fn archived(&self, file: &Checksum) -> Option<u64> {
        self.sizes.as_ref().and_then(|sizes| sizes.archived(ObjectType::File, file))
    }

    fn malformed(&self, kind: ObjectType, checksum: &Checksum, source: Malformed) -> PullError {
        let from = self.session.source.address(kind, checksum);
        PullError::Malformed { what: format!("{kind} {checksum}"), from, source }
    }
}

/// A thread that walks directories.
struct Directories<'a> {
    job: &'a Job<'a>,
    lane: Box<dyn Lane + 'a>,
    seen: &'a Mutex<HashSet<(ObjectType, Checksum)>>,
    files: &'a Mutex<HashSet<Checksum>>,
}

impl queue::Worker<Wanted, PullError> for Directories<'_> {
    fn cost(&self, _: &Wanted) -> u64 {
        USUAL
    }

    fn ahead(&mut self, wanted: &mut Wanted) -> bool {
        let Wanted { kind, checksum, ref below, .. } = *wanted;
        // Of the same directory in two places different parts may be wanted.
        if *below == Below::All && !lock(self.seen).insert((kind, checksum)) {
            return false;
        }
        let Session { repo, caches, .. } = *self.job.session;
        if !repo.has(kind, &checksum) && caches.is_empty() {
            self.lane.ahead(kind, &checksum);
        }
        true
    }

    fn work(&mut self, wanted: Wanted, more: &mut Vec<Wanted>) -> Result<(), PullError> {
        let Wanted { kind, checksum, depth, below } = wanted;
        if depth > 1024 {
            return Err(Error::invalid("the tree is deeper than 1024 directories").into());
        }
        let bytes = self.metadata(kind, &checksum)?;
        if kind != ObjectType::DirTree {
            return Ok(());
        }
        let tree = DirTree::decode(&bytes).map_err(|e| self.job.malformed(kind, &checksum, e))?;
        lock(self.files).extend(tree.files.iter().filter(|(name, _)| below.enter(name).is_some()).map(|file| file.1));
        for (name, tree, meta) in &tree.dirs {
            if let Some(below) = below.enter(name) {
                let depth = depth + 1;
                more.push(Wanted { kind: ObjectType::DirMeta, checksum: *meta, depth, below: below.clone() });
                more.push(Wanted { kind: ObjectType::DirTree, checksum: *tree, depth, below });
            }
        }
        Ok(())
    }
}

impl Directories<'_> {
    /// A dirtree or dirmeta: the one that is here, else fetched and stored.
    fn metadata(&mut self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError> {
        let Job { session, staging, meter, .. } = *self.job;
        match session.repo.load_metadata(kind, checksum) {
            Ok(bytes) => {
                self.job.present.fetch_add(1, Ordering::Relaxed);
                return Ok(bytes);
            }
            // One that is here and damaged is fetched again: a pull repairs.
            Err(Error::Missing { .. } | Error::Mismatch { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let cached = session.caches.iter().filter(|cache| cache.has(kind, checksum));
        let bytes = match cached.filter_map(|cache| verified_metadata(cache, kind, checksum).ok()).next() {
            Some(bytes) => bytes,
            None => {
                let bytes = checked(session.source, kind, checksum, self.lane.metadata(kind, checksum)?)?;
                meter.bytes(bytes.len() as u64);
                bytes
            }
        };
        // A name of its own that matches proves nothing about the content: a hostile tree is refused before it is stored.
        let decoded = match kind {
            ObjectType::DirTree => DirTree::decode(&bytes).map(|_| ()),
            _ => DirMeta::decode(&bytes).map(|_| ()),
        };
        decoded.map_err(|e| self.job.malformed(kind, checksum, e))?;
        staging.replace_metadata(kind, checksum, &bytes)?;
        meter.objects(1);
        Ok(bytes)
    }
}

/// A thread that fetches files.
struct Files<'a> {
    job: &'a Job<'a>,
    lane: Box<dyn Lane + 'a>,
}

impl queue::Worker<Checksum, PullError> for Files<'_> {
    fn cost(&self, file: &Checksum) -> u64 {
        self.job.archived(file).unwrap_or(USUAL)
    }

    fn ahead(&mut self, file: &mut Checksum) -> bool {
        if self.job.session.caches.is_empty() {
            self.lane.ahead(ObjectType::File, file);
        }
        true
    }

    fn work(&mut self, file: Checksum, _: &mut Vec<Checksum>) -> Result<(), PullError> {
        let Job { session, staging, meter, ref sizes, ref flushing, .. } = *self.job;
        let accept = Accept {
            size: sizes.as_ref().and_then(|sizes| sizes.signed(ObjectType::File, &file)),
            bareuseronly: session.rules.select.bareuseronly,
        };
        let cached = session.caches.iter().filter(|cache| cache.has(ObjectType::File, &file));
        // What a cache has and cannot give comes from the remote.
        let found = cached.map(|cache| cache.file(&file, accept, staging, &|_| {})).any(|result| result.is_ok());
        if !found {
            self.lane.file(&file, accept, staging, &|bytes| meter.bytes(bytes))?;
        }
        meter.objects(1);
        if staging.pending_bytes() > BATCH {
            if let Ok(_guard) = flushing.try_lock() {
                staging.flush_large()?;
            }
        }
        Ok(())
    }
}
