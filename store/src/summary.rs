//! The file `summary`: every ref of a repository in one, for clients that ask for it first.
//!
//! ```text
//! (a(s(taya{sv}))a{sv})    ref: name, (size of the commit object, commit, {timestamp, version}); facts about the repository
//! ```

use crate::gv::{self, Writer};
use crate::value::{Dict, Value, encode_dict};
use crate::{Error, ObjectType, Repo};

/// The bytes of the summary of a repository's local refs. It holds no clock: the same refs give the same bytes.
pub fn encode(repo: &Repo) -> Result<Vec<u8>, Error> {
    let mut refs = Writer::new();
    let mut newest = 0;
    for (name, checksum) in repo.refs()? {
        let commit = repo.load_commit(&checksum)?;
        newest = newest.max(commit.timestamp);
        let mut facts = Dict::from([("ostree.commit.timestamp".to_owned(), big_endian(commit.timestamp))]);
        if let Some(version) = commit.version() {
            facts.insert("ostree.commit.version".to_owned(), version.into());
        }
        // The size alone is in the byte order of the writer's machine; that is how the format came to be.
        let mut inner = Writer::new();
        let size = repo.stored_size(ObjectType::Commit, &checksum)?;
        inner.plain(8, &size.to_le_bytes()).framed(1, &checksum.0).plain(8, &encode_dict(&facts));
        let mut entry = Writer::new();
        entry.framed(1, &gv::nul(&name)).plain(8, &inner.tuple());
        refs.framed(8, &entry.tuple());
    }
    let facts = Dict::from([
        ("ostree.summary.last-modified".to_owned(), big_endian(newest)),
        ("ostree.summary.mode".to_owned(), repo.mode().name().into()),
        ("ostree.summary.tombstone-commits".to_owned(), false.into()),
    ]);
    let mut summary = Writer::new();
    summary.framed(8, &refs.array()).plain(8, &encode_dict(&facts));
    Ok(summary.tuple())
}

fn big_endian(number: u64) -> Value {
    Value::U64(number.swap_bytes())
}

/// Writes the summary. A signature over the old one goes first: it would make clients refuse the new one.
pub fn write(repo: &Repo) -> Result<(), Error> {
    let bytes = encode(repo)?;
    let path = repo.path().join("summary");
    let io = |e| Error::io(format!("writing {}", path.display()), e);
    if std::fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    sys::file::remove(&repo.path().join("summary.sig")).map_err(io)?;
    sys::file::replace(&path, &bytes, 0o644).map_err(io)
}
