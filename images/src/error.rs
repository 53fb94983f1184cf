//! Why there is no image.

use std::path::PathBuf;

use store::Checksum;
use store::sign::VerifyError;

use crate::{ext4, fat};

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key of the tree has signed the commit.
    #[error("commit {commit} would not be trusted by the machine: {reason}")]
    Untrusted {
        /// The commit.
        commit: Checksum,
        /// What is wrong with its signatures.
        reason: VerifyError,
    },
    /// The disk is too small for its partitions.
    #[error("a disk of {have} MiB is too small: EFI system partition and root volume need {need} MiB")]
    DiskTooSmall {
        /// MiB needed.
        need: u64,
        /// MiB asked for.
        have: u64,
    },
    /// The commit cannot be deployed.
    #[error("the commit cannot be the first deployment")]
    Deployment(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file of keys in the tree has a line that is no key.
    #[error("/{path}:{line}: not an ed25519 public key in base64")]
    Key {
        /// The file.
        path: String,
        /// The line.
        line: usize,
    },
    /// A file of the tree could not be read.
    #[error("cannot read /{what} of the tree")]
    Read {
        /// The file.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The repository.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The root file system.
    #[error("the root file system: {0}")]
    Root(#[from] ext4::Error),
    /// The EFI system partition.
    #[error(transparent)]
    Esp(#[from] fat::Error),
    /// The image file.
    #[error("cannot write {}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What to do about an expected "no"; nothing for a failure.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Error::Untrusted { .. } => Some("sign it (`slipway sign`), or give --allow-unsigned for a test".into()),
            Error::DiskTooSmall { need, .. } => Some(format!("give --size {need}M or more, or a smaller --root-size")),
            Error::Root(ext4::Error::TooSmall { need, .. }) => Some(format!("give --root-size {need}M or more")),
            Error::Esp(fat::Error::Full { .. }) => Some("make the initramfs smaller".into()),
            _ => None,
        }
    }
}
