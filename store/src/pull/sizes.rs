//! What is known about the sizes of a commit's objects before the first is fetched.
//!
//! ```text
//! in the commit itself         ostree.sizes: signed, so objects of other sizes are refused
//! beside its signatures        ostree.sizes, as publishers did once
//! updates/TO/sizes             a file of its own; fetched when objects are, and not when an update brings them
//! ```

use std::collections::HashMap;

use super::ways::Files;
use super::{Missing, Verified};
use crate::commit::{self, Size};
use crate::object::ObjectType;
use crate::{Checksum, Error, Mode, Repo, update};

/// The sizes of a commit's objects, from whoever says them.
pub(super) enum Sizes {
    /// The commit: its signature covers them.
    Signed(HashMap<(ObjectType, Checksum), Size>),
    /// Whoever publishes it. Good for progress, and nothing is refused because of them.
    Told(update::Sizes),
}

impl Sizes {
    /// What came with the commit.
    pub fn recorded(verified: &Verified) -> Option<Sizes> {
        if let Some(sizes) = commit::recorded_sizes(&verified.commit.metadata) {
            return Some(Sizes::Signed(sizes.into_iter().map(|size| ((size.kind, size.checksum), size)).collect()));
        }
        let sizes = commit::recorded_sizes(verified.detached.as_ref()?)?;
        Some(Sizes::Told(sizes.into_iter().map(|size| (size.checksum, size.archived)).collect()))
    }

    /// What lies in a file of its own. Whatever is wrong with it, the pull goes on without.
    pub fn published(files: &dyn Files, commit: &Checksum) -> Option<Sizes> {
        let path = update::sizes_path(commit);
        let bytes = files.small(&path, update::MAX_SIZES).map_err(|error| crate::error::chain(&error));
        let sizes = bytes.and_then(|bytes| {
            let decoded = bytes.map(|bytes| update::Sizes::decode(&bytes, commit)).transpose();
            decoded.map_err(|error| crate::error::chain(&error))
        });
        match sizes {
            Ok(sizes) => sizes.map(Sizes::Told),
            Err(error) => {
                tracing::debug!(path, error, "how much there is to fetch is not known");
                None
            }
        }
    }

    /// The objects that `repo` lacks.
    pub fn missing(&self, repo: &Repo) -> Result<Missing, Error> {
        let (objects, bytes) = match self {
            Sizes::Signed(sizes) => {
                let missing = sizes.values().filter(|size| !repo.has(size.kind, &size.checksum));
                missing.fold((0, 0), |(objects, bytes), size| (objects + 1, size.archived.saturating_add(bytes)))
            }
            Sizes::Told(sizes) => sizes.missing(repo)?,
        };
        Ok(Missing { objects, bytes })
    }

    /// The bytes that the objects which `repo` lacks will occupy there, where somebody vouches for them.
    pub fn space(&self, repo: &Repo) -> Option<u64> {
        let Sizes::Signed(sizes) = self else { return None };
        let missing = sizes.values().filter(|size| !repo.has(size.kind, &size.checksum));
        Some(missing.fold(0, |sum, size| occupied(repo, size).saturating_add(sum)))
    }

    /// What is to be fetched for an object.
    pub fn archived(&self, kind: ObjectType, checksum: &Checksum) -> Option<u64> {
        match self {
            Sizes::Signed(sizes) => sizes.get(&(kind, *checksum)).map(|size| size.archived),
            Sizes::Told(sizes) => sizes.of(checksum),
        }
    }

    /// What an object must be.
    pub fn signed(&self, kind: ObjectType, checksum: &Checksum) -> Option<&Size> {
        match self {
            Sizes::Signed(sizes) => sizes.get(&(kind, *checksum)),
            Sizes::Told(_) => None,
        }
    }
}

fn occupied(repo: &Repo, size: &Size) -> u64 {
    let bytes = if repo.mode() == Mode::Archive { size.archived } else { size.unpacked };
    // Whole blocks, and one for the inode and its xattrs; a Merkle tree adds less than a hundredth.
    (bytes / 4096 + 2).saturating_mul(4096).saturating_add(bytes / 100)
}
