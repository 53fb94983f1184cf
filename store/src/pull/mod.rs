//! Objects from another repository, verified while they stream.
//!
//! ```text
//! ref -> commit -> its signature, before anything it says is believed
//!     -> binding, age -> space -> shorter ways: our update format, static deltas (`ways`)
//!     -> every dirtree and dirmeta -> every file that is missing (`objects`) -> commit -> ref
//! ```
//! Nothing enters the repository whose checksum was not compared. What has arrived stays when a pull is interrupted
//! (`state/CHECKSUM.commitpartial` says that more is wanted), and the next pull goes on from there. The commit becomes
//! visible after all its objects are durable, the ref after the commit.

mod client;
mod error;
mod http;
mod local;
mod markup;
mod metalink;
mod meter;
mod names;
mod objects;
mod pipe;
mod queue;
mod remote;
mod select;
mod sizes;
mod summary;
pub mod ways;

use std::collections::BTreeMap;

use crate::commit::Size;
use crate::object::{Commit, ObjectType};
use crate::repo::{Staging, Verity};
use crate::sign::PublicKey;
use crate::sign::trust::{Signer, Trust};
use crate::value::{self, Dict};
use crate::{Checksum, Repo};

pub use client::{Login, Network};
pub use error::{PullError, Transport};
pub use local::{LocalOptions, local, local_with};
pub(crate) use metalink::METALINK;
pub use names::KnownNames;
pub use remote::{Options, Remote, http};
pub use select::{Depth, Select};
pub use summary::Fetched;
pub use ways::Allowed;
pub(crate) use ways::{Arrived, Context};

/// How far a pull is. Numbers only grow; totals are exact once they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Objects that have arrived.
    pub objects: u64,
    /// Objects to fetch. Where the commit or its publisher says their sizes, known before the first is fetched; else 0
    /// until every directory is known.
    pub objects_total: u64,
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes to fetch: of an update or a delta, or of the objects where the commit or its publisher says their sizes.
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
    /// Those of them that are files and came one by one.
    pub files: u64,
    /// Commits that are new here.
    pub new_commits: u64,
    /// Bytes that were fetched.
    pub bytes: u64,
    /// Objects that were here already.
    pub present: u64,
}

impl Outcome {
    /// Counts another commit of the same pull.
    fn add(&mut self, other: Outcome) {
        self.fetched += other.fetched;
        self.files += other.files;
        self.new_commits += other.new_commits;
        self.bytes += other.bytes;
        self.present += other.present;
        self.commits.extend(other.commits);
    }
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
        accept: Accept<'_>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError>;
    /// Everything else the remote has: summary, deltas, updates.
    fn files(&self) -> &dyn ways::Files;
    /// One thread's way to many objects.
    fn lane(&self) -> Box<dyn Lane + '_>;
}

/// One thread's way to the objects of a source, which may be told ahead what will be asked for.
pub(crate) trait Lane {
    /// The object will be asked for, in the order of these calls.
    fn ahead(&mut self, kind: ObjectType, checksum: &Checksum);
    /// As [`Source::metadata`].
    fn metadata(&mut self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError>;
    /// As [`Source::file`].
    fn file(
        &mut self,
        checksum: &Checksum,
        accept: Accept<'_>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError>;
}

/// A repository on this machine as a source.
pub(crate) fn local_source(repo: &Repo) -> impl Source + '_ {
    local::Local::of(repo)
}

/// A repository that is served over HTTP as a source.
pub(crate) fn http_source(url: &str, network: &Network) -> Result<impl Source + use<>, PullError> {
    http::Http::open(url, None, network)
}

/// Which file objects are accepted.
#[derive(Clone, Copy)]
pub(crate) struct Accept<'a> {
    /// Of this size, where a signed commit says so.
    pub size: Option<&'a Size>,
    /// Only those that a repository of mode `bare-user-only` could hold.
    pub bareuseronly: bool,
}

impl Accept<'_> {
    /// Looks at a file before its content comes.
    fn check(&self, checksum: &Checksum, meta: &crate::FileMeta) -> Result<(), PullError> {
        if self.bareuseronly && meta.symlink.is_none() && meta.mode & 0o7777 & !0o775 != 0 {
            return Err(PullError::FileMode { file: *checksum, mode: meta.mode & 0o7777 });
        }
        Ok(())
    }

    /// Looks at the header of a `.filez`; the reader that is returned begins with it once more.
    fn look<'r>(
        &self,
        checksum: &Checksum,
        mut raw: impl std::io::Read + 'r,
    ) -> Result<Box<dyn std::io::Read + 'r>, PullError> {
        use std::io::Read as _;
        if !self.bareuseronly {
            return Ok(Box::new(raw));
        }
        // A header that is longer is none of a file that could be accepted, and is refused when it is stored.
        let mut head = Vec::new();
        let read = raw.by_ref().take(64 << 10).read_to_end(&mut head);
        let damaged = |source| PullError::Fetch {
            what: format!("file {checksum}"),
            from: "the remote".to_owned(),
            source: Transport::Io(source),
        };
        read.map_err(damaged)?;
        let meta = crate::repo::filez_meta(&head).map_err(damaged)?;
        self.check(checksum, &meta)?;
        Ok(Box::new(std::io::Cursor::new(head).chain(raw)))
    }
}

/// What a pull believes a commit to be, and what it is to become.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub keyring: Option<&'a crate::sign::Keyring>,
    pub verity: Verity,
    pub threads: usize,
    pub progress: Option<OnProgress<'a>>,
    pub ways: Allowed,
    pub trust: Option<&'a Trust>,
    pub select: &'a Select,
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
    /// Who else signed it, one for each rule.
    pub signers: Vec<Signer>,
}

/// Objects of a commit that are not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// How many.
    pub objects: u64,
    /// Bytes to fetch.
    pub bytes: u64,
}

/// What a pull of a commit would fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// One file of so many bytes, which the objects are made from.
    Update(u64),
    /// Objects, or a static delta that is smaller.
    Objects(Missing),
}

impl Ahead {
    /// Bytes to fetch.
    pub fn bytes(self) -> u64 {
        match self {
            Ahead::Update(bytes) => bytes,
            Ahead::Objects(missing) => missing.bytes,
        }
    }
}

/// A source, the repository that objects go to, and what is accepted: what every pull consists of.
struct Session<'a> {
    source: &'a dyn Source,
    /// Asked for objects first.
    caches: &'a [local::Local<'a>],
    repo: &'a Repo,
    rules: Rules<'a>,
}

impl Session<'_> {
    /// The commit as the source has it, its signature accepted.
    pub fn commit(&self, checksum: &Checksum) -> Result<Verified, PullError> {
        match fetch_commit(self.source, checksum, &self.rules) {
            Err(PullError::Fetch { source: Transport::NotFound, what, from }) => {
                let path = crate::object::path_with_extension(checksum, "tombstone-commit");
                match self.source.files().small(&format!("objects/{path}"), 4096)? {
                    Some(_) => Err(PullError::Deleted { commit: *checksum, from }),
                    None => Err(PullError::Fetch { source: Transport::NotFound, what, from }),
                }
            }
            result => result,
        }
    }

    /// Everything that is missing of a commit. `current` is the commit it replaces, if there is one.
    pub fn fetch(&self, verified: &Verified, current: Option<Checksum>) -> Result<Outcome, PullError> {
        objects::fetch_objects(self, verified, current)
    }

    /// The commits before it, as many as are wanted. History that the source does not have ends there.
    pub fn history(&self, verified: &Verified, outcome: &mut Outcome) -> Result<(), PullError> {
        let mut depth = self.rules.select.depth;
        let mut parent = verified.commit.parent;
        let mut seen = std::collections::HashSet::from([verified.checksum]);
        while let (Some(left), Some(checksum)) = (depth.next(), parent) {
            // A checksum cannot be in its own past; a damaged repository may say so.
            if !seen.insert(checksum) {
                break;
            }
            let known = self.repo.has(ObjectType::Commit, &checksum) && !self.repo.is_partial(&checksum);
            parent = if known {
                self.repo.load_commit(&checksum)?.parent
            } else {
                match self.commit(&checksum) {
                    Ok(verified) => {
                        outcome.add(self.fetch(&verified, None)?);
                        verified.commit.parent
                    }
                    Err(PullError::Deleted { .. } | PullError::Fetch { source: Transport::NotFound, .. }) => break,
                    Err(error) => return Err(error),
                }
            };
            depth = left;
        }
        Ok(())
    }
}

/// Fetches a commit and its signatures, and believes nothing of it before one of them was accepted.
fn fetch_commit(source: &dyn Source, checksum: &Checksum, rules: &Rules<'_>) -> Result<Verified, PullError> {
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
    let empty = Dict::new();
    let signers = rules.trust.map(|trust| trust.verify(&bytes, detached.as_ref().unwrap_or(&empty))).transpose();
    let signers = signers.map_err(|source| PullError::Untrusted { commit: *checksum, from: from(), source })?;
    let signers = signers.unwrap_or_default();
    let commit = Commit::decode(&bytes).map_err(|e| malformed(format!("commit {checksum}"), e))?;
    Ok(Verified { checksum: *checksum, commit, detached, signer, signers })
}

fn verified_metadata(source: &dyn Source, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError> {
    checked(source, kind, checksum, source.metadata(kind, checksum)?)
}

/// What a source gave, if it is what was asked for.
fn checked(source: &dyn Source, kind: ObjectType, checksum: &Checksum, bytes: Vec<u8>) -> Result<Vec<u8>, PullError> {
    let found = Checksum::of(&bytes);
    if found != *checksum {
        let from = source.address(kind, checksum);
        return Err(PullError::Mismatch { kind, expected: *checksum, found, from });
    }
    Ok(bytes)
}

/// A commit says which refs it belongs to; another name is a sidegrade.
pub(crate) fn check_binding(verified: &Verified, name: &str) -> Result<(), PullError> {
    match verified.commit.ref_bindings() {
        Some(bound) if !bound.iter().any(|b| b == name) => {
            let (bound, wanted) = (bound.to_vec(), name.to_owned());
            Err(PullError::Binding { commit: verified.checksum, bound, wanted })
        }
        _ => Ok(()),
    }
}

/// Compares the age of a commit with that of the one that is here.
pub(crate) fn check_age(
    repo: &Repo,
    verified: &Verified,
    current: Option<Checksum>,
    not_older_than: Option<u64>,
) -> Result<(), PullError> {
    let commit = &verified.commit;
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
