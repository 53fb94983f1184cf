//! Static deltas: what leads from one commit to another, made once, in the stock format.
//!
//! ```text
//! name         DeltaName      the two commits, and the directory
//! superblock   Superblock     the commit, lists of objects for each part, fallbacks, signatures
//! part         Payload        data and operations
//! ops          Recipe         operations, checked: how each object is made
//! patch        Assembled      an object's content as a stream
//! apply        apply_offline  parts become objects
//! generate     generate       two commits become parts
//! index        list …         which deltas there are
//! way          take           a pull that finds a delta uses it
//! ```
//! Nothing a delta says is believed: every reference is checked before it is followed, memory does not depend on what
//! it declares, and an object is visible only after its checksum was compared.

mod apply;
mod blob;
mod generate;
#[cfg(test)]
mod hostile_tests;
mod index;
mod name;
mod ops;
mod part;
mod patch;
mod show;
mod superblock;
mod way;

use std::io;

use crate::sign::VerifyError;
use crate::value::Malformed;
use crate::{Checksum, Error};

pub use apply::{Applied, ApplyOptions, apply_offline, read_superblock};
pub use generate::{Generated, Options, generate};
pub use index::{delete, exists, for_summary, indexes, list, reindex};
pub use name::{DeltaName, index_path};
pub use show::{PartFacts, check_part, part_facts};
pub use superblock::{ByteOrder, Fallback, Part, Superblock, wrap_signed};
pub(crate) use way::take;

/// Why a delta was not made or applied. Objects that were made before are valid and stay.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The repository.
    #[error(transparent)]
    Store(#[from] Error),
    /// Bytes that are not a delta.
    #[error("{what} is not a valid delta")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// A part could not be read, or says what cannot be.
    #[error("part {index} of delta {name}")]
    Part {
        /// The delta.
        name: Box<DeltaName>,
        /// The part.
        index: usize,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// A part is another one.
    #[error("part {index} of delta {name} was tampered with or damaged: its checksum is {found}, not {expected}")]
    PartMismatch {
        /// The delta.
        name: Box<DeltaName>,
        /// The part.
        index: usize,
        /// What the superblock says.
        expected: Checksum,
        /// What was read.
        found: Checksum,
    },
    /// The delta starts from a commit that is not here.
    #[error("Commit {0}, which is the delta source, is not in repository")]
    NoSource(Checksum),
    /// Something has to be fetched besides, which is not possible here.
    #[error(
        "the delta leaves out {0} objects that are to be fetched on their own; pull it, or generate it with --min-fallback-size=0"
    )]
    Fallbacks(usize),
    /// No trusted key signed the superblock.
    #[error("the delta {name} is not trusted")]
    Untrusted {
        /// The delta.
        name: Box<DeltaName>,
        /// Why not.
        #[source]
        source: VerifyError,
    },
    /// There is no such delta.
    #[error("Can't find delta {0}")]
    NotFound(DeltaName),
}
