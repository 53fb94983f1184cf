//! Updates: one file that leads from one commit to another, the smallest there is.
//!
//! ```text
//! updates/TO/FROM.update        in a repository, and below its address: what a client that has FROM fetches for TO
//! updates/TO/empty.update       the same for a client that has nothing
//! updates/TO/sizes              bytes of each object of TO, for whoever fetches them one by one (`sizes`)
//!
//! generate   both commits -> pairs of files by path -> parts, on all cores      (pairs, matching, cpio, generate)
//! apply      catalogue -> parts, a few at a time -> objects, each checked        (apply, base, spool)
//! format     wire (table, catalogue), streams (a part), layer (what is inside compressed files)
//! ```
//! What is compressed is unpacked, compared unpacked, and packed again on the machine (see `layer`); tables in programs
//! are compared entry by entry (`elf`); an initramfs is put together from files of the new tree. Memory: applying takes at most 192 MiB in all, whatever the update says:
//! four decoders with dictionaries of 4 MiB and one encoder of a bounded level for each of at most two threads; old
//! content is read where it lies, or from a file without a name. Generating takes, for each thread, the old file, the new
//! one and an index of the old: about twelve times the file, and of a large one no more than 256 MiB for the index.
//!
//! Nothing in an update is believed. A file that cannot be made here (another encoder, a damaged base) is left to the
//! pull, which fetches it as an object.

mod apply;
mod base;
mod cpio;
pub(crate) mod elf;
mod generate;
#[cfg(test)]
mod hostile_tests;
mod layer;
mod matching;
mod pairs;
mod place;
mod sizes;
mod spool;
mod streams;
mod wire;

use crate::{Checksum, Error};

pub(crate) use apply::offered;
pub use apply::{Applied, Input, Inspected, apply, apply_file, inspect, way};
pub use generate::{Options, PartReport, Report, generate};
pub use place::{prune, publish};
pub(crate) use sizes::{MAX_SIZES, Sizes};
pub use sizes::{check_sizes, record_sizes};

/// Why an update was not made or applied.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The file is not an update, or was tampered with.
    #[error("the update is not valid: {0}")]
    Malformed(String),
    /// The repository here.
    #[error(transparent)]
    Store(#[from] Error),
    /// The file could not be read or written.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The connection to where it lies was lost.
    #[error("the connection was lost while the update was fetched")]
    Lost(#[source] std::io::Error),
    /// It starts from a commit that is not here.
    #[error("the update starts from commit {0}, which is not here")]
    Base(Checksum),
    /// No trusted key signed the commit.
    #[error("commit {commit} is not trusted")]
    Untrusted {
        /// The commit.
        commit: Checksum,
        /// Why not.
        #[source]
        source: crate::sign::VerifyError,
    },
    /// Some objects could not be made from what is here.
    #[error("{0} objects of commit {1} cannot be made from what is here: pull it from a repository instead")]
    Incomplete(u64, Checksum),
}

/// Where the update between two commits lies, below a repository.
pub fn path(from: Option<&Checksum>, to: &Checksum) -> String {
    format!("updates/{to}/{}.update", from.map_or_else(|| "empty".to_owned(), Checksum::to_hex))
}

/// Where the sizes of a commit's objects lie, below a repository.
pub fn sizes_path(commit: &Checksum) -> String {
    format!("updates/{commit}/sizes")
}
