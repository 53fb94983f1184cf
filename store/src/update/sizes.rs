//! The size of every object of a commit, in a file of its own that is read only when objects are fetched one by one.
//!
//! ```text
//! updates/TO/sizes
//!   0   8  "SLIPSIZ1"
//!   8  32  the commit
//!  40   4  number of objects, little-endian
//!  44   …  of each, sorted: the first 6 bytes of its checksum, its bytes in the archive (unsigned LEB128)
//! ```
//! A commit made where nothing is compressed cannot know these sizes; who publishes it does. Nobody signs them: they say
//! how far a pull is, and nothing is accepted or refused because of them. Six bytes tell the objects of a commit apart.

use super::wire::{Reader, bad, varint};
use super::{UpdateError, sizes_path};
use crate::commit::{self, SIZES};
use crate::{Checksum, Error, Repo};

const MAGIC: &[u8; 8] = b"SLIPSIZ1";
/// Bytes of a checksum that stand for it.
const PREFIX: usize = 6;
/// More than a million objects. A client reads no larger file, so none is written.
pub(crate) const MAX_SIZES: u64 = 8 << 20;

/// What stands for an object.
fn prefix(checksum: &Checksum) -> u64 {
    number(&checksum.0[..PREFIX])
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// How many bytes objects have in an archive, as somebody said it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes(Vec<(u64, u64)>);

impl FromIterator<(Checksum, u64)> for Sizes {
    fn from_iter<I: IntoIterator<Item = (Checksum, u64)>>(sizes: I) -> Self {
        let mut all: Vec<_> = sizes.into_iter().map(|(checksum, bytes)| (prefix(&checksum), bytes)).collect();
        all.sort_unstable();
        Sizes(all)
    }
}

impl Sizes {
    fn encode(&self, commit: &Checksum) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&commit.0);
        bytes.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        for (prefix, size) in &self.0 {
            bytes.extend_from_slice(&prefix.to_be_bytes()[8 - PREFIX..]);
            varint(&mut bytes, *size);
        }
        bytes
    }

    /// Decodes the file of `commit`.
    pub fn decode(bytes: &[u8], commit: &Checksum) -> Result<Sizes, UpdateError> {
        let mut reader = Reader(bytes);
        if reader.take(8)? != MAGIC {
            return bad("it does not begin as a file of sizes does, or is of a later format");
        }
        if reader.take(32)? != commit.0 {
            return bad("the sizes are those of another commit");
        }
        let count = u32::from_le_bytes(reader.take(4)?.try_into().unwrap_or_default());
        // Each takes more bytes than that: what is there bounds what is allocated.
        if count as usize > reader.0.len() / PREFIX {
            return bad("more is announced than can follow");
        }
        let mut sizes = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let prefix = number(reader.take(PREFIX)?);
            if sizes.last().is_some_and(|(last, _)| *last > prefix) {
                return bad("the sizes are not sorted");
            }
            sizes.push((prefix, reader.varint()?));
        }
        if reader.0.is_empty() { Ok(Sizes(sizes)) } else { bad("bytes after the sizes") }
    }

    /// The bytes of an object in the archive.
    pub fn of(&self, checksum: &Checksum) -> Option<u64> {
        let wanted = prefix(checksum);
        let index = self.0.binary_search_by_key(&wanted, |(prefix, _)| *prefix).ok()?;
        Some(self.0[index].1)
    }

    /// How many of the objects `repo` lacks, and their bytes.
    pub fn missing(&self, repo: &Repo) -> Result<(u64, u64), Error> {
        let mut here: Vec<u64> = repo.all_objects()?.iter().map(|(_, checksum)| prefix(checksum)).collect();
        here.sort_unstable();
        let missing = self.0.iter().filter(|(prefix, _)| here.binary_search(prefix).is_err());
        Ok(missing.fold((0, 0), |(objects, bytes), (_, size)| (objects + 1, size.saturating_add(bytes))))
    }
}

/// Decodes a file of the sizes of a commit's objects; returns how many there are.
pub fn check_sizes(bytes: &[u8], commit: &Checksum) -> Result<u64, UpdateError> {
    Ok(Sizes::decode(bytes, commit)?.0.len() as u64)
}

/// Writes the sizes of all objects of a commit where clients look for them. Nothing is written where the commit says
/// them itself, where the file is there already, and for a tree of more objects than a client would read of.
pub fn record_sizes(repo: &Repo, commit: &Checksum) -> Result<(), Error> {
    let place = repo.path().join(sizes_path(commit));
    let loaded = repo.load_commit(commit)?;
    if loaded.metadata.contains_key(SIZES) || place.exists() {
        return Ok(());
    }
    let sizes = commit::sizes(repo, &loaded.root_tree, &loaded.root_meta)?;
    let sizes: Sizes = sizes.iter().map(|size| (size.checksum, size.archived)).collect();
    let bytes = sizes.encode(commit);
    if bytes.len() as u64 > MAX_SIZES {
        return Ok(());
    }
    let io = |e| Error::io(format!("writing {}", place.display()), e);
    std::fs::create_dir_all(place.parent().unwrap_or(repo.path())).map_err(io)?;
    sys::file::replace(&place, &bytes, 0o644).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes() -> (Checksum, Sizes) {
        let sizes = (0..20u64).map(|n| (Checksum::of(&n.to_le_bytes()), n * n * 1000)).collect();
        (Checksum::of(b"commit"), sizes)
    }

    #[test]
    fn sizes_come_back() {
        let (commit, sizes) = sizes();
        let bytes = sizes.encode(&commit);
        assert_eq!(bytes[44..50].len(), PREFIX);
        assert_eq!(Sizes::decode(&bytes, &commit).unwrap(), sizes);
        assert_eq!(sizes.of(&Checksum::of(&7u64.to_le_bytes())), Some(49_000));
        assert_eq!(sizes.of(&commit), None);
    }

    /// Each is refused with a word, and none of them allocates what it announces.
    #[test]
    fn hostile_sizes_are_refused() {
        let (commit, sizes) = sizes();
        let good = sizes.encode(&commit);
        let refused = |bytes: &[u8], word: &str| {
            let error = Sizes::decode(bytes, &commit).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        let spoiled = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            bad
        };
        refused(&spoiled(0, b"X"), "does not begin");
        refused(&spoiled(8, &[7; 32]), "another commit");
        refused(&spoiled(40, &u32::MAX.to_le_bytes()), "more is announced");
        refused(&spoiled(40, &19u32.to_le_bytes()), "bytes after");
        refused(&spoiled(44, &[0xff; 6]), "not sorted");
        for length in [0, 30, 43, good.len() - 1] {
            refused(&good[..length], if length < good.len() - 1 { "too early" } else { "early" });
        }
        // Cut at the end of an entry.
        let mut cut = good.clone();
        cut.truncate(good.len() - PREFIX - 3);
        refused(&cut, "early");
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            count in 0u32..12,
        ) {
            let commit = Checksum::of(b"commit");
            let whole = [&MAGIC[..], &commit.0, &count.to_le_bytes(), &bytes].concat();
            let _ = Sizes::decode(&bytes, &commit);
            if let Ok(sizes) = Sizes::decode(&whole, &commit) {
                // A number may be written in more bytes than it needs.
                prop_assert_eq!(Sizes::decode(&sizes.encode(&commit), &commit).unwrap(), sizes);
            }
        }
    }
}
