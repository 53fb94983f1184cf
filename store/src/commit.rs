//! Making commits.

use std::collections::BTreeSet;

use crate::object::{self, CommitFields, ObjectType};
use crate::repo::Objects;
use crate::value::{Dict, Value};
use crate::{Checksum, Error, Mode, Repo};

/// Metadata: the refs a commit belongs to.
pub const REF_BINDING: &str = "ostree.ref-binding";
/// Metadata: the size of every object, so that a pull knows how much it will fetch.
pub const SIZES: &str = "ostree.sizes";
/// Metadata: the fs-verity digest of the composefs image.
pub const COMPOSEFS_DIGEST: &str = "ostree.composefs.digest.v0";

/// Everything a commit says. The same values give the same commit, bit for bit.
#[derive(Clone, Debug)]
pub struct Builder {
    /// Facts about the tree; written in the order of their keys.
    pub metadata: Dict,
    /// Keys that are written before the others, in this order.
    pub first_keys: Vec<String>,
    /// The commit before it.
    pub parent: Option<Checksum>,
    /// One line.
    pub subject: String,
    /// More lines.
    pub body: String,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Dirtree of the root.
    pub root_tree: Checksum,
    /// Dirmeta of the root.
    pub root_meta: Checksum,
}

impl Builder {
    /// A commit of a tree, made at `timestamp`.
    pub fn new(root_tree: Checksum, root_meta: Checksum, timestamp: u64) -> Self {
        Builder {
            metadata: Dict::new(),
            first_keys: Vec::new(),
            parent: None,
            subject: String::new(),
            body: String::new(),
            timestamp,
            root_tree,
            root_meta,
        }
    }

    /// Binds the commit to a ref: pulled under another name it is refused.
    #[must_use]
    pub fn bind(mut self, name: &str) -> Self {
        let mut refs: BTreeSet<String> = BTreeSet::from([name.to_owned()]);
        if let Some(Value::StringArray(old)) = self.metadata.remove(REF_BINDING) {
            refs.extend(old);
        }
        self.metadata.insert(REF_BINDING.to_owned(), Value::StringArray(refs.into_iter().collect()));
        self
    }

    /// Records the size of every object. Only an archive knows them: elsewhere this changes nothing.
    pub fn record_sizes(&mut self, repo: &Repo) -> Result<(), Error> {
        if repo.mode() == Mode::Archive {
            let sizes = sizes(repo, &self.root_tree, &self.root_meta)?.iter().map(Size::encode).collect();
            self.metadata.insert(SIZES.to_owned(), Value::BytesArray(sizes));
        }
        Ok(())
    }

    /// The bytes of the commit object.
    pub fn encode(&self) -> Vec<u8> {
        CommitFields {
            metadata: &self.metadata,
            first_keys: &self.first_keys,
            parent: self.parent.as_ref(),
            subject: &self.subject,
            body: &self.body,
            timestamp: self.timestamp,
            root_tree: &self.root_tree,
            root_meta: &self.root_meta,
        }
        .encode()
    }

    /// Writes the commit object and returns its name. No ref is changed: who imports a tree, writes its commit and points a
    /// ref at it holds `repo.lock_shared()` all the while, so that no prune comes in between.
    pub fn write(&self, repo: &Repo) -> Result<Checksum, Error> {
        if [&self.subject, &self.body].iter().any(|text| text.contains('\0')) {
            return Err(Error::invalid("a commit message cannot hold a NUL"));
        }
        let staging = repo.stage()?;
        let commit = staging.write_metadata(ObjectType::Commit, &self.encode())?;
        staging.flush()?;
        Ok(commit)
    }
}

/// The size of one object, as a commit records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Name.
    pub checksum: Checksum,
    /// Bytes in an archive: what a pull fetches.
    pub archived: u64,
    /// Bytes of content.
    pub unpacked: u64,
    /// Kind.
    pub kind: ObjectType,
}

impl Size {
    /// An entry of `ostree.sizes`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.checksum.0.to_vec();
        push_varint(&mut bytes, self.archived);
        push_varint(&mut bytes, self.unpacked);
        bytes.push(self.kind.number());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let checksum = Checksum::from_bytes(bytes.get(..32)?)?;
        let mut rest = &bytes[32..];
        let archived = take_varint(&mut rest)?;
        let unpacked = take_varint(&mut rest)?;
        // Old writers leave the kind out; such entries cannot be used.
        let &[number] = rest else { return None };
        Some(Size { checksum, archived, unpacked, kind: ObjectType::from_number(number)? })
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if (part << shift) >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The sizes that a commit's metadata (or detached metadata) records, if it does and they can be read.
pub fn recorded_sizes(metadata: &Dict) -> Option<Vec<Size>> {
    metadata.get(SIZES)?.as_bytes_array()?.iter().map(|entry| Size::decode(entry)).collect()
}

/// The size of every object of a tree in an archive.
pub fn sizes(repo: &Repo, tree: &Checksum, meta: &Checksum) -> Result<Vec<Size>, Error> {
    let mut objects = Objects::default();
    repo.reach(tree, meta, &mut objects)?;
    let mut all = Vec::new();
    for (kind, set) in [(ObjectType::DirTree, &objects.dirtrees), (ObjectType::DirMeta, &objects.dirmetas)] {
        for checksum in set {
            let size = repo.stored_size(kind, checksum)?;
            all.push(Size { checksum: *checksum, archived: size, unpacked: size, kind });
        }
    }
    for checksum in &objects.files {
        let archived = repo.stored_size(ObjectType::File, checksum)?;
        let meta = repo.load_file_meta(checksum)?;
        // As the stock tools do: of a symbolic link, the length of its target.
        let unpacked = meta.symlink.map_or(meta.size, |target| target.len() as u64);
        all.push(Size { checksum: *checksum, archived, unpacked, kind: ObjectType::File });
    }
    all.sort_by_key(|size| (size.checksum, size.kind));
    Ok(all)
}

/// Checks that a commit may be deployed under the name it was asked for.
pub fn check_binding(commit: &object::Commit, name: &str) -> Result<(), Error> {
    match commit.ref_bindings() {
        Some(refs) if !refs.iter().any(|r| r == name) => Err(Error::invalid(format!(
            "commit {} belongs to {}, not to {name:?}",
            commit.checksum(),
            if refs.is_empty() { "no ref".to_owned() } else { refs.join(", ") },
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Commit, DirMeta, DirTree};
    use proptest::prelude::*;

    #[test]
    fn an_empty_commit_has_the_golden_checksum() {
        let tree = Checksum::of(&DirTree::default().encode());
        let meta = Checksum::of(&DirMeta::root(0o755).encode());
        let builder = Builder::new(tree, meta, 1_700_000_000);
        let bytes = builder.encode();
        assert_eq!(bytes[..8], [0; 8]);
        assert_eq!(hex::encode(&bytes[bytes.len() - 6..]), "300201000000");
        let commit = Commit::decode(&bytes).unwrap();
        assert_eq!((commit.timestamp, commit.root_tree, commit.parent), (1_700_000_000, tree, None));
    }

    #[test]
    fn bindings_are_enforced() {
        let sum = Checksum::of(b"");
        let bound = Builder::new(sum, sum, 0).bind("b").bind("a");
        let commit = Commit::decode(&bound.encode()).unwrap();
        assert_eq!(commit.ref_bindings().unwrap(), ["a", "b"]);
        check_binding(&commit, "a").unwrap();
        let error = check_binding(&commit, "c").unwrap_err().to_string();
        assert!(error.contains("belongs to a, b, not to \"c\""), "{error}");
        let free = Commit::decode(&Builder::new(sum, sum, 0).encode()).unwrap();
        check_binding(&free, "c").unwrap();
    }

    proptest! {
        #[test]
        fn sizes_come_back(archived: u64, unpacked: u64, n in 1..4u8) {
            let kind = ObjectType::from_number(n).unwrap();
            let size = Size { checksum: Checksum::of(b"x"), archived, unpacked, kind };
            prop_assert_eq!(Size::decode(&size.encode()), Some(size));
        }

        #[test]
        fn any_size_entry_is_handled(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Size::decode(&bytes);
        }
    }
}
