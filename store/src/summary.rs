//! The file `summary`: every ref of a repository in one, for clients that ask for it first.
//!
//! ```text
//! summary       (a(s(taya{sv}))a{sv})   ref: name, (size of the commit object, commit, {timestamp, version}); facts
//!               facts: ostree.summary.collection-map a{sa(s(taya{sv}))}: mirrored refs of other collections
//! summary.sig   a{sv}                   signatures over the bytes of the summary, below the same keys as a commit's
//! ```
//! The signature of a summary says which refs there are and what they point to now: a client that has seen a newer one
//! refuses an older one (`ostree.summary.last-modified`), and every client refuses one that has expired
//! (`ostree.summary.expires`).

use std::collections::BTreeMap;
use std::path::Path;

use crate::gv::{self, Malformed, Type, Writer};
use crate::sign::{self, SecretKey};
use crate::value::{Dict, Value, decode_dict, dict_keys, encode_dict};
use crate::{Checksum, Error, ObjectType, Repo, delta};

/// Facts: when it was written.
pub const LAST_MODIFIED: &str = "ostree.summary.last-modified";
/// Facts: when it is no longer good.
pub const EXPIRES: &str = "ostree.summary.expires";
/// Facts: delta name to checksum of its superblock.
pub const STATIC_DELTAS: &str = "ostree.static-deltas";
/// Facts: whether static deltas have indexes of their own.
pub const INDEXED_DELTAS: &str = "ostree.summary.indexed-deltas";
/// Facts about a ref: the time of the commit.
pub const COMMIT_TIMESTAMP: &str = "ostree.commit.timestamp";
/// Facts about a ref: the version of the commit.
pub const COMMIT_VERSION: &str = "ostree.commit.version";
/// Facts: the collection that the refs belong to.
pub const COLLECTION_ID: &str = "ostree.summary.collection-id";
/// Facts: the refs of other collections.
pub const COLLECTION_MAP: &str = "ostree.summary.collection-map";
/// The type of a list of refs.
const REFS: &str = "a(s(taya{sv}))";
/// The type of the refs of other collections.
const MAP: &str = "a{sa(s(taya{sv}))}";
/// No summary is larger: as the stock tools.
pub const MAX_SUMMARY: u64 = 10 << 20;

/// What a summary says of one ref.
#[derive(Clone, Debug, PartialEq)]
pub struct Ref {
    /// Its name.
    pub name: String,
    /// Bytes of the commit object.
    pub size: u64,
    /// The commit.
    pub commit: Checksum,
    /// Time, version and more.
    pub facts: Dict,
}

/// A summary, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The refs, in the order of their names.
    pub refs: Vec<Ref>,
    /// Facts about the repository.
    pub facts: Dict,
}

impl Ref {
    /// The time of the commit, if the summary says it.
    pub fn timestamp(&self) -> Option<u64> {
        self.facts.get(COMMIT_TIMESTAMP).and_then(Value::as_u64).map(u64::swap_bytes).filter(|time| *time > 0)
    }

    /// Of a commit of the repository.
    fn of(repo: &Repo, name: String, checksum: Checksum) -> Result<(Ref, u64), Error> {
        let commit = repo.load_commit(&checksum)?;
        let mut facts = Dict::from([(COMMIT_TIMESTAMP.to_owned(), big_endian(commit.timestamp))]);
        if let Some(version) = commit.version() {
            facts.insert(COMMIT_VERSION.to_owned(), version.into());
        }
        let size = repo.stored_size(ObjectType::Commit, &checksum)?;
        Ok((Ref { name, size, commit: checksum, facts }, commit.timestamp))
    }
}

/// A number that is stored big-endian in a format whose numbers are the machine's.
fn big_endian(number: u64) -> Value {
    Value::U64(number.swap_bytes())
}

impl Summary {
    /// Takes a summary apart. Names that cannot be refs make it invalid, and so does one that is there twice.
    pub fn decode(bytes: &[u8]) -> Result<Summary, Malformed> {
        let ty = Type::parse("(a(s(taya{sv}))a{sv})")?;
        gv::check(&ty, bytes, 0)?;
        let members = [Type::parse(REFS)?, Type::parse("a{sv}")?];
        let parts = gv::tuple(&members, bytes)?;
        Ok(Summary { refs: decode_refs(parts[0])?, facts: decode_dict(parts[1])? })
    }

    /// The names of the facts in the order of the file, which `decode` forgets.
    pub fn order_of_facts(bytes: &[u8]) -> Result<Vec<String>, Malformed> {
        let members = [Type::parse("a(s(taya{sv}))")?, Type::parse("a{sv}")?];
        dict_keys(gv::tuple(&members, bytes)?[1])
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut summary = Writer::new();
        summary.framed(8, &encode_refs(&self.refs)).plain(8, &encode_dict(&self.facts));
        summary.tuple()
    }

    /// The commit a ref points to.
    pub fn commit(&self, name: &str) -> Option<Checksum> {
        let found = self.refs.binary_search_by(|entry| entry.name.as_str().cmp(name));
        found.ok().map(|index| self.refs[index].commit)
    }

    /// The collection that the refs belong to.
    pub fn collection(&self) -> Option<&str> {
        self.facts.get(COLLECTION_ID).and_then(Value::as_str)
    }

    /// The refs of other collections, which the repository mirrors.
    pub fn collections(&self) -> Result<BTreeMap<String, Vec<Ref>>, Malformed> {
        let mut found = BTreeMap::new();
        let Some(Value::Other(ty, bytes)) = self.facts.get(COLLECTION_MAP) else { return Ok(found) };
        if ty != MAP {
            return gv::bad(format!("the refs of other collections have the type {ty}"));
        }
        for entry in gv::array(&Type::parse("{sa(s(taya{sv}))}")?, bytes)? {
            let pair = gv::tuple(&[Type::parse("s")?, Type::parse(REFS)?], entry)?;
            let id = gv::string(pair[0])?;
            if !crate::valid_collection(id) {
                return gv::bad(format!("{id:?} cannot be the name of a collection"));
            }
            if found.insert(id.to_owned(), decode_refs(pair[1])?).is_some() {
                return gv::bad(format!("the collection {id:?} is there twice"));
            }
        }
        Ok(found)
    }

    /// Says which refs of other collections the repository mirrors.
    fn set_collections(&mut self, collections: &BTreeMap<String, Vec<Ref>>) {
        let mut map = Writer::new();
        for (id, refs) in collections {
            let mut entry = Writer::new();
            entry.framed(1, &gv::nul(id)).plain(8, &encode_refs(refs));
            map.framed(8, &entry.tuple());
        }
        if !collections.is_empty() {
            self.facts.insert(COLLECTION_MAP.to_owned(), Value::Other(MAP.to_owned(), map.array()));
        }
    }

    /// When it was written, in seconds since 1970.
    pub fn last_modified(&self) -> Option<u64> {
        self.facts.get(LAST_MODIFIED).and_then(Value::as_u64).map(u64::swap_bytes)
    }

    /// When it is no longer good.
    pub fn expires(&self) -> Option<u64> {
        self.facts.get(EXPIRES).and_then(Value::as_u64).map(u64::swap_bytes)
    }
}

/// The bytes of a list of refs.
fn encode_refs(refs: &[Ref]) -> Vec<u8> {
    let mut list = Writer::new();
    for entry in refs {
        // The size alone is in the byte order of the writer's machine; that is how the format came to be.
        let mut inner = Writer::new();
        inner.plain(8, &entry.size.to_le_bytes()).framed(1, &entry.commit.0).plain(8, &encode_dict(&entry.facts));
        let mut pair = Writer::new();
        pair.framed(1, &gv::nul(&entry.name)).plain(8, &inner.tuple());
        list.framed(8, &pair.tuple());
    }
    list.array()
}

/// Takes a list of refs apart. Names that cannot be refs make it invalid, and so does one that is there twice.
fn decode_refs(bytes: &[u8]) -> Result<Vec<Ref>, Malformed> {
    let mut refs: Vec<Ref> = Vec::new();
    for item in gv::array(&Type::parse("(s(taya{sv}))")?, bytes)? {
        let pair = gv::tuple(&[Type::parse("s")?, Type::parse("(taya{sv})")?], item)?;
        let inner = gv::tuple(&[Type::parse("t")?, Type::parse("ay")?, Type::parse("a{sv}")?], pair[1])?;
        let name = gv::string(pair[0])?;
        if !crate::valid_ref(name) {
            return gv::bad(format!("{name:?} cannot be the name of a ref"));
        }
        if refs.last().is_some_and(|last| last.name.as_str() >= name) {
            return gv::bad(format!("ref {name:?} is there twice or out of order"));
        }
        let Ok(size) = inner[0].try_into().map(u64::from_le_bytes) else { return gv::bad("size of a commit") };
        let Some(commit) = Checksum::from_bytes(inner[1]) else { return gv::bad("checksum of a commit") };
        refs.push(Ref { name: name.to_owned(), size, commit, facts: decode_dict(inner[2])? });
    }
    Ok(refs)
}

/// The summary of a repository's local refs. It holds no clock: the same refs give the same bytes.
pub fn of_repo(repo: &Repo) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    let mut newest = 0;
    for (name, checksum) in repo.refs()? {
        let (entry, time) = Ref::of(repo, name, checksum)?;
        newest = newest.max(time);
        summary.refs.push(entry);
    }
    let own = repo.config_value("core", "collection-id")?;
    let mut mirrored: BTreeMap<String, Vec<Ref>> = BTreeMap::new();
    for ((id, name), checksum) in repo.mirror_refs()?.into_iter().filter(|((id, _), _)| Some(id) != own.as_ref()) {
        let (entry, time) = Ref::of(repo, name, checksum)?;
        newest = newest.max(time);
        mirrored.entry(id).or_default().push(entry);
    }
    summary.facts = Dict::from([
        (LAST_MODIFIED.to_owned(), big_endian(newest)),
        ("ostree.summary.mode".to_owned(), repo.mode().name().into()),
        ("ostree.summary.tombstone-commits".to_owned(), repo.tombstones()?.into()),
        (INDEXED_DELTAS.to_owned(), true.into()),
    ]);
    summary.set_collections(&mirrored);
    let deltas = delta::for_summary(repo)?;
    if !deltas.is_empty() && repo.config_value("core", "no-deltas-in-summary")?.as_deref() != Some("true") {
        summary.facts.insert(STATIC_DELTAS.to_owned(), Value::Dict(deltas));
    }
    Ok(summary)
}

/// The bytes of the summary of a repository's local refs.
pub fn encode(repo: &Repo) -> Result<Vec<u8>, Error> {
    Ok(of_repo(repo)?.encode())
}

/// Writes the summary, and the indexes of deltas that it speaks of. A signature over the old summary goes first: it
/// would make clients refuse the new one.
pub fn write(repo: &Repo) -> Result<(), Error> {
    delta::reindex(repo, None)?;
    write_bytes(repo, &encode(repo)?)
}

/// Writes a summary that was made elsewhere, or holds more than `write` puts in.
pub fn write_bytes(repo: &Repo, bytes: &[u8]) -> Result<(), Error> {
    let path = repo.path().join("summary");
    let io = |e| Error::io(format!("writing {}", path.display()), e);
    if std::fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    sys::file::remove(&repo.path().join("summary.sig")).map_err(io)?;
    sys::file::replace(&path, bytes, 0o644).map_err(io)
}

/// Signatures of older summaries that are kept beside the newest.
const OLD_SIGNATURES: usize = 7;

/// Writes the summary of a repository that is being served, signed, and the indexes of deltas that it speaks of.
///
/// Two files cannot be replaced at once. So the signature goes first, into a file that keeps those of the summaries before
/// it: at every moment, also where the writer is killed or a copy is sent in two steps, one of them is good for the
/// summary that is there.
///
/// A summary that says something else is also newer by its own words: where a ref was moved to an older commit, or deleted,
/// no commit's time says so, and whoever served the summary before it once more would not be found out.
pub fn write_signed(repo: &Repo, key: &SecretKey) -> Result<(), Error> {
    delta::reindex(repo, None)?;
    let (there, old) = read(repo.path())?;
    let bytes = after(of_repo(repo)?, there.as_deref()).encode();
    let mut signatures = Dict::new();
    sign::add_signature(&mut signatures, &bytes, key);
    let Some(Value::BytesArray(all)) = signatures.get_mut(sign::KEY) else {
        return Err(Error::invalid("the summary was not signed"));
    };
    let old = old.get(sign::KEY).and_then(Value::as_bytes_array).unwrap_or_default();
    let newest = all.clone();
    all.extend(old.iter().filter(|signature| !newest.contains(signature)).take(OLD_SIGNATURES).cloned());
    for (name, bytes, there) in [("summary.sig", encode_dict(&signatures), None), ("summary", bytes, there)] {
        let path = repo.path().join(name);
        if there.as_ref() != Some(&bytes) {
            let written = sys::file::replace(&path, &bytes, 0o644);
            written.map_err(|e| Error::io(format!("writing {}", path.display()), e))?;
        }
    }
    Ok(())
}

/// A summary that takes the place of one that is there: that one, if it says the same, else one that is newer.
fn after(mut summary: Summary, there: Option<&[u8]>) -> Summary {
    let Some(there) = there.and_then(|bytes| Summary::decode(bytes).ok()) else { return summary };
    let (Some(newest), Some(last)) = (summary.last_modified(), there.last_modified()) else { return summary };
    summary.facts.insert(LAST_MODIFIED.to_owned(), big_endian(last));
    if summary != there {
        summary.facts.insert(LAST_MODIFIED.to_owned(), big_endian(newest.max(last.saturating_add(1))));
    }
    summary
}

/// The bytes of the summary and its signatures, as far as they are there.
pub fn read(repo: &Path) -> Result<(Option<Vec<u8>>, Dict), Error> {
    let file = |name: &str| match std::fs::read(repo.join(name)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|e| Error::io(format!("reading {}", repo.join(name).display()), e)),
    };
    let invalid = |e| Error::invalid(format!("{}: {e}", repo.join("summary.sig").display()));
    let signatures = file("summary.sig")?.map(|bytes| decode_dict(&bytes)).transpose().map_err(invalid)?;
    Ok((file("summary")?, signatures.unwrap_or_default()))
}

/// Signs the summary that is there: `add` adds its signature over the bytes to those that are there.
pub fn sign<E: From<Error>>(repo: &Repo, add: impl FnOnce(&mut Dict, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let (bytes, mut signatures) = read(repo.path())?;
    let bytes = bytes.ok_or_else(|| Error::invalid("there is no summary to sign; write one first"))?;
    add(&mut signatures, &bytes)?;
    let path = repo.path().join("summary.sig");
    let written = sys::file::replace(&path, &encode_dict(&signatures), 0o644);
    Ok(written.map_err(|e| Error::io(format!("writing {}", path.display()), e))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn summary(names: &[&str]) -> Summary {
        let entry = |name: &&str| Ref {
            name: (*name).to_owned(),
            size: 99,
            commit: Checksum::of(name.as_bytes()),
            facts: Dict::from([(COMMIT_TIMESTAMP.to_owned(), big_endian(5))]),
        };
        let facts = Dict::from([(LAST_MODIFIED.to_owned(), big_endian(7))]);
        Summary { refs: names.iter().map(entry).collect(), facts }
    }

    #[test]
    fn a_summary_round_trips() {
        let one = summary(&["a", "b/c", "d"]);
        let again = Summary::decode(&one.encode()).unwrap();
        assert_eq!(again, one);
        assert_eq!(Summary::order_of_facts(&one.encode()).unwrap(), [LAST_MODIFIED]);
        assert_eq!(again.commit("b/c"), Some(Checksum::of(b"b/c")));
        assert_eq!((again.commit("b"), again.last_modified(), again.expires()), (None, Some(7), None));
        assert_eq!(Summary::decode(&Summary::default().encode()).unwrap(), Summary::default());
    }

    /// Whatever of the two files a reader or a copy has, from before and after: they belong together.
    #[test]
    fn a_signed_summary_is_replaced_without_a_gap() {
        use crate::{DirMeta, Mode, commit::Builder, import};
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap().without_fsync();
        let tree = import::tree(&repo, &import::Node::Dir(DirMeta::root(0o755), Default::default())).unwrap();
        let key = SecretKey::from_seed(&[5; 32]);
        let keyring = sign::Keyring::of([key.public()]);
        let file = |name: &str| std::fs::read(repo.path().join(name)).unwrap();
        let mut summaries: Vec<Vec<u8>> = Vec::new();
        for time in 1..=12 {
            let commit = Builder::new(tree.root_tree, tree.root_meta, time).write(&repo).unwrap();
            repo.set_ref("os/x", &commit).unwrap();
            write_signed(&repo, &key).unwrap();
            let signatures = decode_dict(&file("summary.sig")).unwrap();
            summaries.push(file("summary"));
            for summary in summaries.iter().rev().take(OLD_SIGNATURES + 1) {
                keyring.verify(summary, &signatures).unwrap();
            }
            assert!(signatures[sign::KEY].as_bytes_array().unwrap().len() <= OLD_SIGNATURES + 1);
        }
        let both = (file("summary"), file("summary.sig"));
        write_signed(&repo, &key).unwrap();
        assert_eq!((file("summary"), file("summary.sig")), both, "nothing has changed");
        let signatures = decode_dict(&both.1).unwrap();
        assert!(keyring.verify(&summaries[0], &signatures).is_err(), "old ones are forgotten some day");
        // A ref that is gone, and one that goes back: each summary is newer than the one before it.
        let time = || Summary::decode(&file("summary")).unwrap().last_modified().unwrap();
        assert_eq!(time(), 12);
        let old = Builder::new(tree.root_tree, tree.root_meta, 1).write(&repo).unwrap();
        repo.set_ref("os/x", &old).unwrap();
        write_signed(&repo, &key).unwrap();
        assert_eq!(time(), 13);
        repo.delete_ref("os/x").unwrap();
        write_signed(&repo, &key).unwrap();
        write_signed(&repo, &key).unwrap();
        assert_eq!(time(), 14);
    }

    #[test]
    fn duplicate_names_and_traversal_in_a_summary_are_refused() {
        for names in [&["a", "a"][..], &["b", "a"], &["../../etc/passwd"], &["/etc"], &[""], &["a/../b"]] {
            assert!(Summary::decode(&summary(names).encode()).is_err(), "{names:?}");
        }
    }

    proptest! {
        #[test]
        fn damaged_summaries_are_errors_or_canonical(at in 0usize..400, byte: u8, cut in 0usize..400) {
            let mut bytes = summary(&["a", "b", "c"]).encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut.min(bytes.len()) / 4);
            if let Ok(summary) = Summary::decode(&bytes) {
                prop_assert!(summary.refs.iter().all(|entry| crate::valid_ref(&entry.name)));
            }
        }

        #[test]
        fn any_bytes_are_a_summary_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Summary::decode(&bytes), Summary::order_of_facts(&bytes));
        }
    }
}
