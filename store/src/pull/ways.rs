//! Shorter ways for a whole commit to arrive than object by object.
//!
//! ```text
//! commit verified -> WAYS in order, until one brings everything -> the walk over the tree fetches what is still missing
//!      a way:  take(&Context) -> NotOffered    nothing there for this pair of commits: the next way is tried
//!                             -> Partly        some objects are in the batch, the rest comes one by one
//!                             -> Done          every object is in the batch
//!                             -> Err           the way is left; what it wrote was verified and stays
//! ```
//! A way reads files of the remote through [`Files`] and writes objects to the batch (`Context::staging`), whose own
//! checks hold: nothing enters under a name that is not its checksum. The walk follows in every case, so a way that
//! says `Done` and lies costs time, not correctness. To add one: a function of the type [`Way::take`] and a line in
//! [`WAYS`].

use std::io::Read;

use super::meter::Meter;
use super::{PullError, Verified};
use crate::repo::Staging;
use crate::sign::Keyring;
use crate::sign::trust::Trust;
use crate::{Checksum, Error, Repo};

/// How much of a commit a way brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The remote has nothing for it.
    NotOffered,
    /// Some of it.
    Partly,
    /// All of it.
    Done,
}

/// Files of a remote by their path below its top. Nothing they hold is believed.
pub trait Files: Sync {
    /// The whole address of a path, for messages.
    fn locate(&self, path: &str) -> String;

    /// A file that fits in memory; `None` where there is none. One of more than `limit` bytes is an error.
    fn small(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, PullError>;

    /// A file as a stream, from byte `from` on; `None` where there is none. A lost connection is no error: the stream
    /// goes on where it was, on a new one, a few times. To stop early just drop it.
    fn open(&self, path: &str, from: u64, length: Option<u64>) -> Result<Option<Opened<'_>>, PullError>;
}

/// A file that is being read.
pub struct Opened<'a> {
    /// Bytes of the whole file, where they are known.
    pub size: Option<u64>,
    /// From the byte that was asked for to the end, or for as long as was asked for.
    pub reader: Box<dyn Read + Send + 'a>,
}

/// A commit that is wanted, and everything that may be used to bring it.
pub struct Context<'a> {
    /// The remote.
    pub files: &'a dyn Files,
    /// Where objects are looked up.
    pub repo: &'a Repo,
    /// Where objects are written. It may be flushed at any time.
    pub staging: &'a Staging<'a>,
    /// Commits that are here whole, the likeliest first: what the ref points to, the commit's parent, other refs.
    pub bases: &'a [Checksum],
    /// The commit: name, bytes, signature accepted.
    pub to: &'a Verified,
    /// The keys that are trusted, where a signature is asked for.
    pub keyring: Option<&'a Keyring>,
    /// More rules, all of which must hold.
    pub trust: Option<&'a Trust>,
    /// Threads that may be used.
    pub threads: usize,
    pub(super) meter: &'a Meter<'a>,
}

impl Context<'_> {
    /// Says how many more bytes the way will fetch, as soon as that is known.
    pub fn expect(&self, bytes: u64) {
        self.meter.expect(bytes);
    }

    /// Says that bytes have arrived from the remote.
    pub fn arrived(&self, bytes: u64) {
        self.meter.bytes(bytes);
    }

    /// Says that objects are in the batch.
    pub fn wrote(&self, objects: u64) {
        self.meter.objects(objects);
    }
}

/// A way, by name.
pub struct Way {
    /// For messages, and for what was left: `update`, `static delta`.
    pub name: &'static str,
    /// Whether only Slipway's servers offer it.
    pub ours: bool,
    /// Takes it.
    pub take: fn(&Context<'_>) -> Result<Arrived, PullError>,
}

/// In the order in which they are tried: our own update format, static deltas.
pub const WAYS: &[Way] = &[
    Way { name: "update", ours: true, take: crate::update::way },
    Way { name: "static delta", ours: false, take: crate::delta::take },
];

/// Which ways a pull may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Our own update format.
    pub updates: bool,
    /// Static deltas.
    pub deltas: bool,
    /// Objects one by one; without them a commit that no way brings is refused.
    pub objects: bool,
}

impl Default for Allowed {
    fn default() -> Self {
        Allowed { updates: true, deltas: true, objects: true }
    }
}

impl Allowed {
    /// Nothing but objects.
    pub const OBJECTS: Allowed = Allowed { updates: false, deltas: false, objects: true };

    fn permits(self, way: &Way) -> bool {
        if way.ours { self.updates } else { self.deltas }
    }
}

/// What the ways brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The way that brought something.
    pub way: Option<&'static str>,
    /// Whether it said that this is all.
    pub done: bool,
}

/// Tries the ways in order. Each one's objects are visible before the next looks.
pub(super) fn take(ways: &[Way], allowed: Allowed, context: &Context<'_>) -> Result<Taken, PullError> {
    for way in ways.iter().filter(|way| allowed.permits(way)) {
        let arrived = (way.take)(context);
        context.staging.flush()?;
        let name = Some(way.name);
        match arrived {
            Ok(Arrived::NotOffered) => {}
            Ok(arrived) => return Ok(Taken { way: name, done: arrived == Arrived::Done }),
            // The disk is full or broken: the next way would find it so too.
            Err(error @ (PullError::Store(Error::Io { .. }) | PullError::Space { .. })) => return Err(error),
            // The next pull goes on in the middle of it.
            Err(error @ PullError::Interrupted(_)) => return Err(error),
            // Damaged or hostile: every object would have been refused; the next way is verified as strictly.
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::warn!(way = way.name, %error, "not taken");
            }
        }
    }
    Ok(Taken { way: None, done: false })
}

/// The commits here that a difference may start from, the likeliest first.
pub(super) fn bases(repo: &Repo, current: Option<Checksum>, to: &Verified) -> Result<Vec<Checksum>, Error> {
    let refs = repo.ref_targets()?.into_iter().map(|(_, commit)| commit);
    let mut bases: Vec<Checksum> = Vec::new();
    for commit in current.into_iter().chain(to.commit.parent).chain(refs) {
        let whole = repo.has(crate::ObjectType::Commit, &commit) && !repo.is_partial(&commit);
        if whole && commit != to.checksum && !bases.contains(&commit) {
            bases.push(commit);
        }
    }
    Ok(bases)
}
