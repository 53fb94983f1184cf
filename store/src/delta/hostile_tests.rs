//! Deltas that somebody made to do harm. Each is refused, and leaves the repository as it was.

use std::path::Path;

use proptest::prelude::*;

use super::blob::Blob;
use super::ops::{Operations, put, put_number};
use super::part::{Payload, Tables, pack};
use super::superblock::Fields;
use super::*;
use crate::commit::Builder;
use crate::object::Commit;
use crate::object::{DirMeta, DirTree, FileMeta, S_IFDIR, S_IFREG};
use crate::repo::Content;
use crate::value::{Dict, Value};
use crate::{Mode, ObjectType, Repo};

const SOURCE: &[u8] = b"the content of the file that is here";
const NEW: &[u8] = b"the content of the new file";

/// A repository with a commit that has one file, and the commit that a delta leads to.
struct World {
    dir: tempfile::TempDir,
    repo: Repo,
    from: Checksum,
    source: Checksum,
    new: Checksum,
    to: Vec<u8>,
}

fn checksum(meta: &FileMeta, content: &[u8]) -> Checksum {
    use sha2::Digest as _;
    let mut hasher = meta.hasher();
    hasher.update(content);
    Checksum(hasher.finalize().into())
}

fn tree(file: Checksum) -> DirTree {
    DirTree { files: vec![("file".to_owned(), file)], dirs: Vec::new() }
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap().without_fsync();
        let staging = repo.stage().unwrap();
        let meta = FileMeta::regular(0o644, SOURCE.len() as u64);
        let source = checksum(&meta, SOURCE);
        staging.write_known(&meta, &source, Content::Bytes(SOURCE)).unwrap();
        let root_meta = staging.write_metadata(ObjectType::DirMeta, &DirMeta::root(0o755).encode()).unwrap();
        let root_tree = staging.write_metadata(ObjectType::DirTree, &tree(source).encode()).unwrap();
        staging.flush().unwrap();
        drop(staging);
        let from = Builder::new(root_tree, root_meta, 1).write(&repo).unwrap();
        let new = checksum(&FileMeta::regular(0o644, NEW.len() as u64), NEW);
        let to = crate::object::CommitFields {
            metadata: &Dict::new(),
            first_keys: &[],
            parent: Some(&from),
            subject: "",
            body: "",
            timestamp: 2,
            root_tree: &Checksum::of(&tree(new).encode()),
            root_meta: &root_meta,
        };
        let to = to.encode();
        World { dir, repo, from, source, new, to }
    }

    fn name(&self) -> DeltaName {
        DeltaName { from: Some(self.from), to: Checksum::of(&self.to) }
    }

    fn objects(&self) -> Vec<(ObjectType, Checksum)> {
        vec![(ObjectType::DirTree, Checksum::of(&tree(self.new).encode())), (ObjectType::File, self.new)]
    }

    /// A superblock with one inline part.
    fn superblock(&self, objects: Vec<(ObjectType, Checksum)>, file: Vec<u8>) -> Vec<u8> {
        let part = Part { checksum: Checksum::of(&file), size: file.len() as u64, unpacked: 100, objects };
        let fields = Fields {
            name: self.name(),
            timestamp: 0,
            commit: &self.to,
            facts: &Dict::new(),
            detached: None,
            parts: &[part],
            fallbacks: &[],
            order: ByteOrder::Little,
        };
        fields.encode(Some(&[file]))
    }

    /// Everything wrong with applying it, in one line.
    fn apply(&self, superblock: &[u8]) -> Result<Applied, String> {
        let path = self.dir.path().join("superblock");
        std::fs::write(&path, superblock).unwrap();
        let applied = apply_offline(&self.repo, &path, &ApplyOptions { threads: 2, ..ApplyOptions::default() });
        applied.map_err(|error| {
            let mut line = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                line = format!("{line}: {error}");
                cause = error.source();
            }
            line
        })
    }
}

/// Data: the tree, the new file, the name of the source, and whatever an attack needs.
fn data(world: &World, more: &[u8]) -> (Vec<u8>, [u64; 4]) {
    let mut data = tree(world.new).encode();
    let new = data.len() as u64;
    data.extend_from_slice(NEW);
    let source = data.len() as u64;
    data.extend_from_slice(&world.source.0);
    let rest = data.len() as u64;
    data.extend_from_slice(more);
    let end = data.len() as u64;
    (data, [new, source, rest, end])
}

/// Applies a part whose operations are those for the tree, and then `operations`.
fn attack(world: &World, more: &[u8], operations: impl FnOnce([u64; 4]) -> Vec<u8>) -> Result<Applied, String> {
    let (data, places) = data(world, more);
    let mut tables = Tables {
        modes: vec![(0, 0, S_IFREG | 0o644), (0, 0, S_IFDIR | 0o755), (0, 0, 0o020_644)],
        xattrs: vec![Vec::new()],
        operations: Vec::new(),
    };
    put(&mut tables.operations, b'S', &[places[0], 0]);
    tables.operations.extend(operations(places));
    let mut file = Vec::new();
    pack(&tables.encode(&data), 0, 1 << 20, &mut file).unwrap();
    world.apply(&world.superblock(world.objects(), file))
}

fn ops(list: &[(u8, &[u64])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (operation, operands) in list {
        put(&mut bytes, *operation, operands);
    }
    bytes
}

fn refused(story: &str, why: &str, world: &World, result: Result<Applied, String>) {
    let error = result.expect_err(story);
    assert!(error.contains(why), "{story}: {error}");
    assert!(!world.repo.has(ObjectType::File, &world.new), "{story}: the file is there");
    assert!(!world.repo.has(ObjectType::Commit, &Checksum::of(&world.to)), "{story}: the commit is there");
    world.repo.verify_file(&world.source).unwrap();
}

const LEN: u64 = NEW.len() as u64;
const MAX: u64 = u64::MAX;

#[test]
fn an_honest_delta_is_applied() {
    for form in ["whole", "copies", "patch"] {
        let world = World::new();
        let mut patch = Vec::new();
        for number in [0i64, LEN as i64, 0] {
            patch.extend_from_slice(&number.to_le_bytes());
        }
        patch.extend_from_slice(NEW);
        let applied = attack(&world, &patch, |[new, source, rest, end]| match form {
            "whole" => ops(&[(b'S', &[0, 0, LEN, new])]),
            "copies" => ops(&[
                (b'o', &[0, 0, LEN]),
                (b'r', &[source]),
                (b'w', &[15, 0]),
                (b'R', &[]),
                (b'w', &[LEN - 15, new + 15]),
                (b'c', &[]),
            ]),
            _ => ops(&[(b'r', &[source]), (b'o', &[0, 0, LEN]), (b'B', &[rest, end - rest]), (b'c', &[])]),
        });
        assert_eq!(applied.unwrap().objects, 2, "{form}");
        assert!(world.repo.has(ObjectType::Commit, &Checksum::of(&world.to)));
    }
}

#[test]
fn operations_that_reach_outside_are_refused() {
    for (story, why, operations) in [
        ("delta reading out of bounds", "outside", vec![(b'S', vec![0, 0, LEN, 200])]),
        ("length out of bounds", "outside", vec![(b'S', vec![0, 0, 1 << 40, 0])]),
        ("overflowed offset", "outside", vec![(b'S', vec![0, 0, LEN, MAX - 3])]),
        ("overflowed length", "outside", vec![(b'S', vec![0, 0, MAX, 1])]),
        ("written from out of bounds", "outside", vec![(b'o', vec![0, 0, LEN]), (b'w', vec![LEN, 500])]),
        ("written from an overflowed offset", "outside", vec![(b'o', vec![0, 0, LEN]), (b'w', vec![LEN, MAX])]),
        ("source's name out of bounds", "outside", vec![(b'r', vec![300]), (b'o', vec![0, 0, LEN])]),
        ("source's name at an overflowed offset", "outside", vec![(b'r', vec![MAX - 8])]),
        ("mode index out of range", "no mode", vec![(b'S', vec![9, 0, LEN, 0])]),
        ("mode index of 64 bits", "no mode", vec![(b'o', vec![MAX, 0, LEN])]),
        ("xattr index out of range", "no set of xattrs", vec![(b'S', vec![0, 1, LEN, 0])]),
        ("a file that is a directory", "no regular file", vec![(b'o', vec![1, 0, LEN])]),
        ("a directory as a whole", "not the mode of a file", vec![(b'S', vec![1, 0, 4, 0])]),
        ("a device", "not the mode of a file", vec![(b'S', vec![2, 0, 4, 0])]),
        ("a file of all memory", "gets 4", vec![(b'o', vec![0, 0, MAX]), (b'w', vec![4, 0]), (b'c', vec![])]),
        ("more bytes than the file has", "more bytes", vec![(b'o', vec![0, 0, 3]), (b'w', vec![4, 0])]),
        (
            "sum of lengths overflowed",
            "more bytes",
            vec![(b'r', vec![0]), (b'o', vec![0, 0, MAX]), (b'w', vec![MAX, 0]), (b'w', vec![2, 0])],
        ),
        ("an end without a beginning", "out of place", vec![(b'c', vec![])]),
        ("two beginnings", "out of place", vec![(b'o', vec![0, 0, LEN]), (b'o', vec![0, 0, LEN])]),
        ("a patch of nothing", "without a file", vec![(b'o', vec![0, 0, LEN]), (b'B', vec![0, 24])]),
        ("operations that end inside a file", "inside a file", vec![(b'o', vec![0, 0, LEN])]),
        ("an object left out", "leave out", vec![]),
        ("an unknown operation", "unknown operation", vec![(b'!', vec![])]),
    ] {
        let world = World::new();
        let list: Vec<(u8, &[u64])> = operations.iter().map(|(o, operands)| (*o, operands.as_slice())).collect();
        refused(story, why, &world, attack(&world, b"", |_| ops(&list)));
    }
    let world = World::new();
    let result = attack(&world, b"", |[new, ..]| ops(&[(b'S', &[0, 0, LEN, new]), (b'S', &[0, 0, LEN, new])]));
    assert!(result.unwrap_err().contains("more objects than it has"));
    for (story, number) in [
        ("a number of 11 bytes", [0xff; 11].to_vec()),
        ("a number over 64 bits", vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
    ] {
        let world = World::new();
        refused(story, "too l", &world, attack(&world, b"", |_| [b"S", number.as_slice()].concat()));
    }
    let world = World::new();
    refused("a number that ends early", "ends early", &world, attack(&world, b"", |_| vec![b'S', 0x80]));
}

#[test]
fn sources_that_are_not_there_are_refused() {
    let world = World::new();
    let copy = |len: u64, at: u64| {
        move |[_, source, ..]: [u64; 4]| {
            ops(&[(b'r', &[source]), (b'o', &[0, 0, len]), (b'w', &[len, at]), (b'c', &[])])
        }
    };
    refused("copy past the end of the source", "are not in file", &world, attack(&world, b"", copy(20, 30)));
    let world = World::new();
    refused("copy at an overflowed offset", "are not in file", &world, attack(&world, b"", copy(20, MAX - 5)));
    let world = World::new();
    let missing = attack(&world, &[7; 32], |[_, _, rest, _]| {
        ops(&[(b'r', &[rest]), (b'o', &[0, 0, 4]), (b'w', &[4, 0]), (b'c', &[])])
    });
    refused("a source that is not here", "missing", &world, missing);
}

#[test]
fn patches_that_lie_are_refused() {
    let control = |numbers: [i64; 3]| {
        numbers.iter().flat_map(|n| (n.unsigned_abs() | u64::from(*n < 0) << 63).to_le_bytes()).collect::<Vec<u8>>()
    };
    for (story, why, patch) in [
        ("a patch that ends early", "ends early", control([LEN as i64, 0, 0])),
        ("a patch without a control", "ends early", vec![1; 23]),
        ("a patch that adds more than the file", "more than the file", control([LEN as i64 + 1, 0, 0])),
        ("a patch that brings more than the file", "more than the file", control([2, LEN as i64 - 1, 0])),
        ("a negative length", "more than the file", control([-1, 0, 0])),
        ("the most negative length", "more than the file", [0xff; 24].to_vec()),
        (
            "a seek that overflows",
            "seeks too far",
            [control([0, 0, i64::MAX]), control([0, 0, i64::MAX]), control([LEN as i64, 0, 0])].concat(),
        ),
        ("another file", "corrupt", [control([LEN as i64, 0, 0]), vec![1; NEW.len()]].concat()),
        (
            "read before the beginning of the source",
            "corrupt",
            [control([0, 0, -1000]), control([LEN as i64, 0, 0]), vec![1; NEW.len()]].concat(),
        ),
    ] {
        let world = World::new();
        let result = attack(&world, &patch, |[_, source, rest, end]| {
            ops(&[(b'r', &[source]), (b'o', &[0, 0, LEN]), (b'B', &[rest, end - rest]), (b'c', &[])])
        });
        refused(story, why, &world, result);
    }
}

#[test]
fn wrong_objects_are_refused() {
    let world = World::new();
    let result = attack(&world, b"something else", |[_, _, rest, end]| ops(&[(b'S', &[0, 0, end - rest, rest])]));
    refused("wrong object", "corrupt", &world, result);
    // Right in name: its name is the checksum of a tree that leads out of the directory.
    let world = World::new();
    let mut evil = tree(world.new).encode();
    let at = evil.windows(4).position(|w| w == b"file").unwrap();
    evil[at..at + 4].copy_from_slice(b"../x");
    let mut tables = Tables::default();
    put(&mut tables.operations, b'S', &[evil.len() as u64, 0]);
    let mut file = Vec::new();
    pack(&tables.encode(&evil), 0, 1 << 20, &mut file).unwrap();
    let objects = vec![(ObjectType::DirTree, Checksum::of(&evil))];
    refused("path traversal in a dirtree", "malformed", &world, world.apply(&world.superblock(objects, file)));
    assert!(!world.repo.has(ObjectType::DirTree, &Checksum::of(&evil)));
    // A commit whose tree nobody brings.
    let other = Commit { bytes: Vec::new(), ..world.repo.load_commit(&world.from).unwrap() };
    let fields = crate::object::CommitFields {
        metadata: &other.metadata,
        first_keys: &[],
        parent: None,
        subject: "other",
        body: "",
        timestamp: 9,
        root_tree: &Checksum([9; 32]),
        root_meta: &Checksum([8; 32]),
    };
    let bytes = fields.encode();
    let mut tables = Tables::default();
    put(&mut tables.operations, b'S', &[bytes.len() as u64, 0]);
    let mut file = Vec::new();
    pack(&tables.encode(&bytes), 0, 1 << 20, &mut file).unwrap();
    let objects = vec![(ObjectType::Commit, Checksum::of(&bytes))];
    refused("a commit besides", "does not lead to", &world, world.apply(&world.superblock(objects, file)));
    // Nothing at all: the commit would have a hole.
    let mut file = Vec::new();
    pack(&Tables::default().encode(b""), 0, 1 << 20, &mut file).unwrap();
    refused("a delta that brings nothing", "missing", &world, world.apply(&world.superblock(Vec::new(), file)));
}

#[test]
fn a_part_bomb_goes_off_nowhere() {
    let world = World::new();
    let mut file = Vec::new();
    pack(&vec![0; 80 << 20], 0, 1 << 20, &mut file).unwrap();
    assert!(file.len() < 1 << 20);
    refused("part bomb", "holds more than", &world, world.apply(&world.superblock(world.objects(), file)));
    // The same beside the superblock, with a size that would read for ever.
    let world = World::new();
    let part = Part { checksum: Checksum([1; 32]), size: MAX, unpacked: MAX, objects: world.objects() };
    let fields = Fields {
        name: world.name(),
        timestamp: 0,
        commit: &world.to,
        facts: &Dict::new(),
        detached: None,
        parts: &[part],
        fallbacks: &[],
        order: ByteOrder::Little,
    };
    std::fs::write(world.dir.path().join("0"), b"\0something").unwrap();
    refused("another part", "tampered with", &world, world.apply(&fields.encode(None)));
}

#[test]
fn superblocks_that_lie_are_refused() {
    let world = World::new();
    let part = Part { checksum: Checksum([1; 32]), size: 1, unpacked: 1, objects: world.objects() };
    let encode = |facts: &Dict, parts: &[Part], commit: &[u8]| {
        let (name, order) = (world.name(), ByteOrder::Little);
        Fields { name, timestamp: 0, commit, facts, detached: None, parts, fallbacks: &[], order }.encode(None)
    };
    let honest = encode(&Dict::new(), std::slice::from_ref(&part), &world.to);
    Superblock::decode(honest.clone()).unwrap();
    let other = world.repo.load_commit(&world.from).unwrap().bytes;
    let out_of_range = Dict::from([(world.name().part(1), Value::Other("(yay)".into(), b"\0".to_vec()))]);
    let twice = Dict::from([("ostree.endianness".to_owned(), Value::Byte(b'B'))]);
    for (story, why, bytes) in [
        ("another commit", "the commit in it is", encode(&Dict::new(), &[], &other)),
        ("part index out of range", "not a part of it", encode(&out_of_range, std::slice::from_ref(&part), &world.to)),
        ("two byte orders", "twice", encode(&twice, &[], &world.to)),
        ("cut off", "", honest[..honest.len() - 1].to_vec()),
        ("nothing", "", Vec::new()),
    ] {
        let error = Superblock::decode(bytes).expect_err(story).to_string();
        assert!(error.contains(why), "{story}: {error}");
    }
    // Endianness lies: an order that does not exist, and one that is not that of the numbers.
    let letter =
        honest.windows(4).position(|w| w == b"l\0y\x12").or_else(|| honest.windows(3).position(|w| w == b"l\0y"));
    let mut bytes = honest.clone();
    bytes[letter.unwrap()] = b'x';
    assert!(Superblock::decode(bytes).unwrap_err().to_string().contains("byte order"));
    let mut bytes = honest;
    bytes[letter.unwrap()] = b'B';
    let lying = Superblock::decode(bytes.clone()).unwrap();
    assert_eq!(lying.parts[0].size, 1 << 56);
    std::fs::write(world.dir.path().join("0"), b"\0").unwrap();
    refused("endianness lies", "tampered with", &world, world.apply(&bytes));
}

#[test]
fn a_delta_without_a_byte_order_is_read_in_the_one_that_makes_sense() {
    let world = World::new();
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let part = Part { checksum: Checksum([1; 32]), size: 300_000, unpacked: 900_000, objects: world.objects() };
        let name = world.name();
        let facts = &Dict::new();
        let (commit, parts, fallbacks) = (&world.to[..], &[part][..], &[][..]);
        let fields = Fields { name, timestamp: 0, commit, facts, detached: None, parts, fallbacks, order };
        let mut bytes = fields.encode(None);
        // The fact goes under a name that means nothing.
        let at = bytes.windows(17).position(|w| w == b"ostree.endianness").unwrap();
        bytes[at] = b'x';
        let read = Superblock::decode(bytes).unwrap();
        assert!(read.order_guessed);
        assert_eq!((read.order, read.parts[0].size), (order, 300_000));
    }
}

proptest! {
    #[test]
    fn any_operations_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 1..5u8) {
        let tables = Tables { modes: vec![(0, 0, S_IFREG | 0o644)], xattrs: vec![Vec::new()], operations: bytes };
        let payload = Payload::open(Blob::Memory(tables.encode(&[7; 50]))).unwrap();
        let objects = vec![(ObjectType::from_number(kind).unwrap(), Checksum([0; 32])); 4];
        let mut operations = Operations::new(&payload, &objects);
        while let Ok(Some(_)) = operations.next() {}
    }

    #[test]
    fn any_superblock_is_handled(at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>()) {
        static HONEST: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let honest = HONEST.get_or_init(|| {
            let world = World::new();
            world.superblock(world.objects(), b"\0part".to_vec())
        });
        let mut bytes = honest.clone();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = Superblock::decode(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        let _ = Superblock::decode(bytes.clone());
        let _ = Superblock::decode(wrap_signed(&bytes, &[]).unwrap());
    }

    #[test]
    fn numbers_come_back(number: u64) {
        let mut bytes = vec![b'r'];
        put_number(&mut bytes, number);
        prop_assert!(bytes.len() <= 11);
        let tables = Tables { operations: bytes, ..Tables::default() };
        let payload = Payload::open(Blob::Memory(tables.encode(b""))).unwrap();
        let error = Operations::new(&payload, &[]).next().unwrap_err().to_string();
        prop_assert!(error.contains(&format!("32 bytes at {number} ")), "{}", error);
    }
}

/// A path for what is never written.
#[test]
fn a_part_of_nothing_is_no_part() {
    let facts = check_part(&mut &b"\0"[..], &[], 100, Path::new("/nowhere"));
    assert!(facts.is_err());
}
