//! The walk over a commit's tree that fetches what is missing.
//!
//! ```text
//! shorter ways (see `ways`) -> every dirtree and dirmeta, from the root -> every file, the largest first -> commit
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::meter::Meter;
use super::ways::{self, Context};
use super::{Outcome, PullError, Rules, Source, Verified, count_missing, queue, verified_metadata};
use crate::commit::{self, Size};
use crate::import::lock;
use crate::object::{Commit, DirMeta, DirTree, ObjectType};
use crate::repo::Staging;
use crate::value::Malformed;
use crate::{Checksum, Error, Mode, Repo};

/// Pending bytes at which a batch is made durable: what a killed pull loses at most.
const BATCH: u64 = 64 << 20;

struct Job<'a> {
    source: &'a dyn Source,
    repo: &'a Repo,
    staging: &'a Staging<'a>,
    rules: &'a Rules<'a>,
    sizes: HashMap<(ObjectType, Checksum), Size>,
    /// Whether an object of another size is to be refused.
    signed: bool,
    meter: &'a Meter<'a>,
    present: AtomicU64,
    flushing: Mutex<()>,
}

/// Fetches every object of a verified commit that is missing, then makes the commit visible. `current` is the commit
/// that is to be replaced, if one is.
pub(crate) fn fetch_objects(
    source: &dyn Source,
    repo: &Repo,
    verified: &Verified,
    current: Option<Checksum>,
    rules: &Rules<'_>,
) -> Result<Outcome, PullError> {
    let (sizes, signed) = verified.sizes().map_or((None, false), |(sizes, signed)| (Some(sizes), signed));
    let missing = sizes.as_ref().map(|sizes| count_missing(repo, sizes));
    if let Some(missing) = missing.filter(|_| signed) {
        check_space(repo, missing.unpacked)?;
    }
    let partial = repo.partial_path(&verified.checksum);
    let state = |e| Error::io(format!("writing {}", partial.display()), e);
    std::fs::create_dir_all(repo.path().join("state")).map_err(state)?;
    std::fs::write(&partial, "").map_err(state)?;

    let staging = repo.stage_with(rules.verity)?;
    let meter = Meter::new(rules.progress);
    let whole = repo.has(ObjectType::Commit, &verified.checksum);
    if !whole && rules.ways != ways::Allowed::OBJECTS {
        let bases = ways::bases(repo, current, verified)?;
        let (files, keyring, threads) = (source.files(), rules.keyring, rules.threads);
        let context =
            Context { files, repo, staging: &staging, bases: &bases, to: verified, keyring, threads, meter: &meter };
        let taken = ways::take(ways::WAYS, rules.ways, &context)?;
        if !rules.ways.objects && !taken.done {
            return Err(PullError::NoWay { commit: verified.checksum });
        }
    }
    if let Some(sizes) = &sizes {
        meter.expect(count_missing(repo, sizes).bytes);
    }
    let job = Job {
        source,
        repo,
        staging: &staging,
        rules,
        sizes: sizes.into_iter().flatten().map(|size| ((size.kind, size.checksum), size)).collect(),
        signed,
        meter: &meter,
        present: AtomicU64::new(0),
        flushing: Mutex::new(()),
    };
    let result = job.run(&verified.commit);
    // What has arrived is valid and stays, whatever happened to the rest.
    let flushed = staging.flush();
    result?;
    flushed?;
    if !whole {
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
    sys::file::remove(&partial).map_err(state)?;
    let present = job.present.into_inner();
    let arrived = meter.now();
    Ok(Outcome {
        commit: verified.checksum,
        commits: BTreeMap::new(),
        signer: verified.signer,
        fetched: arrived.objects,
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

/// A metadata object to look at, and how deep in the tree it lies.
struct Wanted {
    kind: ObjectType,
    checksum: Checksum,
    depth: usize,
}

impl Job<'_> {
    fn run(&self, commit: &Commit) -> Result<(), PullError> {
        let seen: Mutex<HashSet<(ObjectType, Checksum)>> = Mutex::default();
        let files: Mutex<HashSet<Checksum>> = Mutex::default();
        let root = |kind, checksum| Wanted { kind, checksum, depth: 0 };
        let start = vec![root(ObjectType::DirMeta, commit.root_meta), root(ObjectType::DirTree, commit.root_tree)];
        queue::run(self.rules.threads, start, |wanted, more| self.directory(&wanted, more, &seen, &files))?;

        let files = files.into_inner().unwrap_or_default();
        let (present, mut todo): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| self.repo.has(ObjectType::File, file));
        self.present.fetch_add(present.len() as u64, Ordering::Relaxed);
        self.meter.expect_objects(todo.len() as u64);
        // The queue takes from the end: the largest first, so that none is left alone at last.
        todo.sort_by_key(|file| (self.size(ObjectType::File, file).map(|s| s.archived), *file));
        queue::run(self.rules.threads, todo, |file, _| self.file(&file))
    }

    fn size(&self, kind: ObjectType, checksum: &Checksum) -> Option<&Size> {
        self.sizes.get(&(kind, *checksum))
    }

    fn directory(
        &self,
        wanted: &Wanted,
        more: &mut Vec<Wanted>,
        seen: &Mutex<HashSet<(ObjectType, Checksum)>>,
        files: &Mutex<HashSet<Checksum>>,
    ) -> Result<(), PullError> {
        let Wanted { kind, checksum, depth } = wanted;
        if !lock(seen).insert((*kind, *checksum)) {
            return Ok(());
        }
        if *depth > 1024 {
            return Err(Error::invalid("the tree is deeper than 1024 directories").into());
        }
        // One that is here and damaged is fetched again: a pull repairs.
        let bytes = match self.repo.load_metadata(*kind, checksum) {
            Ok(bytes) => {
                self.present.fetch_add(1, Ordering::Relaxed);
                bytes
            }
            Err(Error::Missing { .. } | Error::Mismatch { .. }) => {
                let bytes = verified_metadata(self.source, *kind, checksum)?;
                self.check(*kind, checksum, &bytes)?;
                self.staging.replace_metadata(*kind, checksum, &bytes)?;
                self.meter.bytes(bytes.len() as u64);
                self.meter.objects(1);
                bytes
            }
            Err(error) => return Err(error.into()),
        };
        if *kind == ObjectType::DirTree {
            let tree = DirTree::decode(&bytes).map_err(|e| self.malformed(*kind, checksum, e))?;
            lock(files).extend(tree.files.iter().map(|f| f.1));
            for (_, tree, meta) in &tree.dirs {
                more.push(Wanted { kind: ObjectType::DirMeta, checksum: *meta, depth: depth + 1 });
                more.push(Wanted { kind: ObjectType::DirTree, checksum: *tree, depth: depth + 1 });
            }
        }
        Ok(())
    }

    fn malformed(&self, kind: ObjectType, checksum: &Checksum, source: Malformed) -> PullError {
        let from = self.source.address(kind, checksum);
        PullError::Malformed { what: format!("{kind} {checksum}"), from, source }
    }

    /// A name of its own that matches proves nothing about the content: a hostile tree is refused before it is stored.
    fn check(&self, kind: ObjectType, checksum: &Checksum, bytes: &[u8]) -> Result<(), PullError> {
        let result = match kind {
            ObjectType::DirTree => DirTree::decode(bytes).map(|_| ()),
            _ => DirMeta::decode(bytes).map(|_| ()),
        };
        result.map_err(|e| self.malformed(kind, checksum, e))
    }

    fn file(&self, checksum: &Checksum) -> Result<(), PullError> {
        let size = self.size(ObjectType::File, checksum).filter(|_| self.signed);
        self.source.file(checksum, size, self.staging, &|bytes| self.meter.bytes(bytes))?;
        self.meter.objects(1);
        if self.staging.pending_bytes() > BATCH {
            if let Ok(_guard) = self.flushing.try_lock() {
                self.staging.flush()?;
            }
        }
        Ok(())
    }
}
