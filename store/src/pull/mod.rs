//! Objects from another repository, verified while they stream.
//!
//! ```text
//! ref -> commit -> its signature, before anything it says is believed
//!     -> binding, age -> every dirtree and dirmeta -> space -> every file that is missing -> commit -> ref
//! ```
//! Nothing enters the repository whose checksum was not compared. What has arrived stays when a pull is interrupted
//! (`state/CHECKSUM.commitpartial` says that more is wanted), and the next pull goes on from there. The commit becomes
//! visible after all its objects are durable, the ref after the commit.

mod http;
mod local;
mod names;
mod queue;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::commit::{self, Size};
use crate::import::lock;
use crate::object::{Commit, DirTree, ObjectType};
use crate::repo::{Staging, Verity};
use crate::sign::{PublicKey, VerifyError};
use crate::value::{self, Dict, Malformed};
use crate::{Checksum, Error, Mode, Repo};

pub use http::{Options, Remote, http};
pub use local::{LocalOptions, local, local_with};
pub use names::KnownNames;

/// How far a pull is. Numbers only grow; totals are exact once they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Objects that have arrived.
    pub objects: u64,
    /// Objects to fetch; 0 until every directory is known.
    pub objects_total: u64,
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes to fetch, where the commit records the sizes of its objects.
    pub bytes_total: Option<u64>,
}

/// Called from every thread of a pull.
pub type OnProgress<'a> = &'a (dyn Fn(&Progress) + Sync);

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The commit (of the first ref).
    pub commit: Checksum,
    /// The commit of each ref.
    pub commits: BTreeMap<String, Checksum>,
    /// The key whose signature was accepted, where one was asked for.
    pub signer: Option<PublicKey>,
    /// Objects that were fetched.
    pub fetched: u64,
    /// Bytes that were fetched.
    pub bytes: u64,
    /// Objects that were here already.
    pub present: u64,
}

/// Why a pull did not succeed. The repository holds only valid objects, and no ref was changed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The repository here.
    #[error(transparent)]
    Store(#[from] Error),
    /// Something could not be fetched.
    #[error("fetching {what} from {from}")]
    Fetch {
        /// What was wanted.
        what: String,
        /// The address.
        from: String,
        /// The cause.
        #[source]
        source: Transport,
    },
    /// An object is not what its name says.
    #[error("{kind} {expected} from {from} was tampered with or damaged: its content has the checksum {found}")]
    Mismatch {
        /// Kind of the object.
        kind: ObjectType,
        /// Its name.
        expected: Checksum,
        /// The checksum of what arrived.
        found: Checksum,
        /// The address.
        from: String,
    },
    /// What arrived is not an object.
    #[error("{what} from {from} is not valid")]
    Malformed {
        /// What was wanted.
        what: String,
        /// The address.
        from: String,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// No trusted key signed the commit.
    #[error("commit {commit} from {from} is not trusted")]
    Untrusted {
        /// The commit.
        commit: Checksum,
        /// The address.
        from: String,
        /// Why not.
        #[source]
        source: VerifyError,
    },
    /// The commit was made for another ref.
    #[error("commit {commit} belongs to {}, not to {wanted:?}", list(.bound))]
    Binding {
        /// The commit.
        commit: Checksum,
        /// The refs it names.
        bound: Vec<String>,
        /// The ref that was asked for.
        wanted: String,
    },
    /// The commit is older than the one that is here.
    #[error("commit {commit} is older ({timestamp}) than what is here ({current}, {than}): a downgrade")]
    Downgrade {
        /// The commit.
        commit: Checksum,
        /// Its time.
        timestamp: u64,
        /// The commit that is here.
        than: String,
        /// The time of the commit that is here.
        current: u64,
    },
    /// There is not enough room.
    #[error("{needed} bytes are needed in {path}, {available} are free")]
    Space {
        /// The repository.
        path: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
}

fn list(refs: &[String]) -> String {
    if refs.is_empty() { "no ref".to_owned() } else { refs.join(", ") }
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Transport {
    /// It is not there.
    #[error("it is not there")]
    NotFound,
    /// The server answered with an error.
    #[error("the server answered {0}")]
    Status(u16),
    /// The connection failed, or what came over it could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Larger than it may be.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The client cannot do what was asked.
    #[error("{0}")]
    Client(String),
}

/// Where objects come from. Nothing that a source returns is believed.
pub(crate) trait Source: Sync {
    /// The address of an object, for messages.
    fn address(&self, kind: ObjectType, checksum: &Checksum) -> String;
    /// The bytes of a metadata object.
    fn metadata(&self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError>;
    /// The detached metadata of a commit.
    fn detached(&self, commit: &Checksum) -> Result<Option<Vec<u8>>, PullError>;
    /// Writes a file object to the batch; returns the bytes that were fetched. `count` is told about bytes as they come.
    fn file(
        &self,
        checksum: &Checksum,
        size: Option<&Size>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError>;
}

/// What a pull believes a commit to be, and what it is to become.
pub(crate) struct Rules<'a> {
    pub keyring: Option<&'a crate::sign::Keyring>,
    pub verity: Verity,
    pub threads: usize,
    pub progress: Option<OnProgress<'a>>,
}

/// A commit whose bytes match its name and whose signature was accepted, where one was asked for.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its name.
    pub checksum: Checksum,
    /// What it says.
    pub commit: Commit,
    /// Its detached metadata.
    pub detached: Option<Dict>,
    /// The key that signed it, where a keyring was given.
    pub signer: Option<PublicKey>,
}

/// What is still to be fetched of a commit, as far as the sizes it records tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// Objects that are not here.
    pub objects: u64,
    /// Bytes to fetch.
    pub bytes: u64,
    /// Bytes they will occupy.
    pub unpacked: u64,
}

impl Verified {
    /// The sizes of the commit's objects, and whether a signature covers them. A commit made where nothing is
    /// compressed does not know them; who publishes it writes them beside its signatures. Those are good for progress
    /// and for a look at the free space, and nothing is refused because of them.
    fn sizes(&self) -> Option<(Vec<Size>, bool)> {
        match commit::recorded_sizes(&self.commit.metadata) {
            Some(sizes) => Some((sizes, true)),
            None => Some((commit::recorded_sizes(self.detached.as_ref()?)?, false)),
        }
    }

    /// Counts the objects that `repo` lacks; `None` when nobody recorded sizes.
    pub fn missing(&self, repo: &Repo) -> Option<Missing> {
        Some(count_missing(repo, &self.sizes()?.0))
    }
}

fn count_missing(repo: &Repo, sizes: &[Size]) -> Missing {
    let mut missing = Missing::default();
    for size in sizes {
        if !repo.has(size.kind, &size.checksum) {
            missing.objects += 1;
            missing.bytes = missing.bytes.saturating_add(size.archived);
            missing.unpacked = missing.unpacked.saturating_add(occupied(repo, size));
        }
    }
    missing
}

fn occupied(repo: &Repo, size: &Size) -> u64 {
    let bytes = if repo.mode() == Mode::Archive { size.archived } else { size.unpacked };
    // Whole blocks, and one for the inode and its xattrs; a Merkle tree adds less than a hundredth.
    (bytes / 4096 + 2).saturating_mul(4096).saturating_add(bytes / 100)
}

/// Fetches a commit and its signatures, and believes nothing of it before one of them was accepted.
pub(crate) fn fetch_commit(source: &dyn Source, checksum: &Checksum, rules: &Rules<'_>) -> Result<Verified, PullError> {
    let bytes = verified_metadata(source, ObjectType::Commit, checksum)?;
    let from = || source.address(ObjectType::Commit, checksum);
    let malformed = |what: String, source| PullError::Malformed { what, from: from(), source };
    let detached = source
        .detached(checksum)?
        .map(|bytes| value::decode_dict(&bytes))
        .transpose()
        .map_err(|e| malformed(format!("the detached metadata of commit {checksum}"), e))?;
    let signer = match rules.keyring {
        None => None,
        Some(keyring) => {
            let empty = Dict::new();
            let verified = keyring.verify(&bytes, detached.as_ref().unwrap_or(&empty));
            Some(verified.map_err(|source| PullError::Untrusted { commit: *checksum, from: from(), source })?)
        }
    };
    let commit = Commit::decode(&bytes).map_err(|e| malformed(format!("commit {checksum}"), e))?;
    Ok(Verified { checksum: *checksum, commit, detached, signer })
}

fn verified_metadata(source: &dyn Source, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError> {
    let bytes = source.metadata(kind, checksum)?;
    let found = Checksum::of(&bytes);
    if found != *checksum {
        let from = source.address(kind, checksum);
        return Err(PullError::Mismatch { kind, expected: *checksum, found, from });
    }
    Ok(bytes)
}

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
    objects: AtomicU64,
    objects_total: AtomicU64,
    bytes: AtomicU64,
    bytes_total: Option<u64>,
    present: AtomicU64,
    flushing: Mutex<()>,
}

/// Fetches every object of a verified commit that is missing, then makes the commit visible.
pub(crate) fn fetch_objects(
    source: &dyn Source,
    repo: &Repo,
    verified: &Verified,
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
    let job = Job {
        source,
        repo,
        staging: &staging,
        rules,
        sizes: sizes.into_iter().flatten().map(|size| ((size.kind, size.checksum), size)).collect(),
        signed,
        objects: AtomicU64::new(0),
        objects_total: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        bytes_total: missing.map(|m| m.bytes),
        present: AtomicU64::new(0),
        flushing: Mutex::new(()),
    };
    let result = job.run(&verified.commit);
    // What has arrived is valid and stays, whatever happened to the rest.
    let flushed = staging.flush();
    result?;
    flushed?;
    if !repo.has(ObjectType::Commit, &verified.checksum) {
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
    Ok(Outcome {
        commit: verified.checksum,
        commits: BTreeMap::new(),
        signer: verified.signer,
        fetched: job.objects.into_inner(),
        bytes: job.bytes.into_inner(),
        present: job.present.into_inner(),
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
        self.report();
        queue::run(self.rules.threads, start, |wanted, more| self.directory(&wanted, more, &seen, &files))?;

        let files = files.into_inner().unwrap_or_default();
        let (present, mut todo): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| self.repo.has(ObjectType::File, file));
        self.present.fetch_add(present.len() as u64, Ordering::Relaxed);
        self.objects_total.store(self.objects.load(Ordering::Relaxed) + todo.len() as u64, Ordering::Relaxed);
        self.report();
        // The queue takes from the end: the largest first, so that none is left alone at last.
        todo.sort_by_key(|file| (self.size(ObjectType::File, file).map(|s| s.archived), *file));
        queue::run(self.rules.threads, todo, |file, _| self.file(&file))
    }

    fn size(&self, kind: ObjectType, checksum: &Checksum) -> Option<&Size> {
        self.sizes.get(&(kind, *checksum))
    }

    fn report(&self) {
        if let Some(progress) = self.rules.progress {
            progress(&Progress {
                objects: self.objects.load(Ordering::Relaxed),
                objects_total: self.objects_total.load(Ordering::Relaxed),
                bytes: self.bytes.load(Ordering::Relaxed),
                bytes_total: self.bytes_total,
            });
        }
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
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.objects.fetch_add(1, Ordering::Relaxed);
                self.report();
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
            _ => crate::DirMeta::decode(bytes).map(|_| ()),
        };
        result.map_err(|e| self.malformed(kind, checksum, e))
    }

    fn file(&self, checksum: &Checksum) -> Result<(), PullError> {
        let size = self.size(ObjectType::File, checksum).filter(|_| self.signed);
        let arrived = AtomicU64::new(0);
        let count = |bytes: u64| {
            let before = arrived.fetch_add(bytes, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            if before >> 20 != (before + bytes) >> 20 {
                self.report();
            }
        };
        self.source.file(checksum, size, self.staging, &count)?;
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.report();
        if self.staging.pending_bytes() > BATCH {
            if let Ok(_guard) = self.flushing.try_lock() {
                self.staging.flush()?;
            }
        }
        Ok(())
    }
}

/// Checks binding and age of a commit against what is here.
pub(crate) fn check_commit(
    repo: &Repo,
    verified: &Verified,
    name: &str,
    current: Option<Checksum>,
    not_older_than: Option<u64>,
) -> Result<(), PullError> {
    let commit = &verified.commit;
    if let Some(bound) = commit.ref_bindings() {
        if !bound.iter().any(|b| b == name) {
            let (bound, wanted) = (bound.to_vec(), name.to_owned());
            return Err(PullError::Binding { commit: verified.checksum, bound, wanted });
        }
    }
    let downgrade = |than: String, current: u64| PullError::Downgrade {
        commit: verified.checksum,
        timestamp: commit.timestamp,
        than,
        current,
    };
    if let Some(current) = current.filter(|current| *current != verified.checksum) {
        // A ref to a commit that was pruned tells nothing.
        if let Ok(here) = repo.load_commit(&current) {
            if here.timestamp > commit.timestamp {
                return Err(downgrade(current.to_string(), here.timestamp));
            }
        }
    }
    if let Some(time) = not_older_than.filter(|time| *time > commit.timestamp) {
        return Err(downgrade("the lowest time that is accepted".to_owned(), time));
    }
    Ok(())
}
