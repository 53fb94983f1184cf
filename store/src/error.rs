//! What goes wrong with a repository.

use std::io;
use std::path::PathBuf;

use crate::value::Malformed;
use crate::{Checksum, ObjectType};

/// Why a repository did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system said no.
    #[error("{what}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An object is not there.
    #[error("{kind} {checksum} is missing")]
    Missing {
        /// Its kind.
        kind: ObjectType,
        /// Its name.
        checksum: Checksum,
    },
    /// An object's content is not what its name says.
    #[error("{kind} {expected} is corrupt: its content has the checksum {found}")]
    Mismatch {
        /// Its kind.
        kind: ObjectType,
        /// Its name.
        expected: Checksum,
        /// The checksum of what is there.
        found: Checksum,
    },
    /// An object's bytes are not an object.
    #[error("{kind} {checksum} is malformed")]
    Malformed {
        /// Its kind.
        kind: ObjectType,
        /// Its name.
        checksum: Checksum,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// Something that was to become an object cannot.
    #[error("{0}")]
    Invalid(String),
    /// No ref or commit of that name.
    #[error("no ref or commit {0:?} in {1}")]
    NotFound(String, PathBuf),
    /// The beginning of a checksum fits several commits.
    #[error("{0:?} is the beginning of several commits")]
    Ambiguous(String),
    /// Not the name of a ref.
    #[error("{0:?} cannot be the name of a ref (letters, digits, - _ . in parts joined by /)")]
    RefName(String),
    /// Not a repository, or one of a kind that is not understood.
    #[error("{0} is not an OSTree repository that Slipway can use: {1}")]
    NotARepo(PathBuf, String),
}

impl Error {
    /// An error of the operating system while doing `what`.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Error::Io { what: what.into(), source }
    }

    /// A tree or option that cannot be used, in words.
    pub fn invalid(why: impl Into<String>) -> Self {
        Error::Invalid(why.into())
    }
}

/// An error with all its causes on one line.
#[cfg(feature = "full")]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
