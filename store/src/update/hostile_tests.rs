//! Updates that somebody made to do harm. Each is refused, or what it lies about is left out; nothing of it is seen
//! afterwards, and nothing is taken that it only announces.

use std::io::Write as _;

use super::layer::{Kind, Layer};
use super::wire::{Catalogue, FileEntry, Part, SourceEntry, Table, varint, zigzag};
use super::{UpdateError, apply_file};
use crate::commit::Builder;
use crate::object::{DirMeta, DirTree, FileMeta};
use crate::repo::Content;
use crate::{Checksum, Mode, ObjectType, Repo, Verity};

const OLD: &[u8] = b"the content of the file that is here";
const NEW: &[u8] = b"the content of the file that is new here";

/// A machine with a commit of one file, and the commit of another one that an update leads to.
struct World {
    dir: tempfile::TempDir,
    machine: Repo,
    from: Checksum,
    new: Checksum,
}

/// The streams of a part, before they are packed.
#[derive(Default)]
struct Streams {
    control: Vec<u8>,
    gaps: Vec<u8>,
    bytes: Vec<u8>,
    extra: Vec<u8>,
}

impl Streams {
    /// One region: `len` old bytes after a step of `step`, then `extra`.
    fn region(len: u64, extra: &[u8], step: i64) -> Streams {
        let mut streams = Streams { extra: extra.to_vec(), ..Streams::default() };
        for number in [len, extra.len() as u64, zigzag(step)] {
            varint(&mut streams.control, number);
        }
        varint(&mut streams.gaps, 1 << 40);
        streams
    }

    fn packed(&self) -> [Vec<u8>; 4] {
        [&self.control, &self.gaps, &self.bytes, &self.extra].map(|plain| {
            // Preset 3 is the highest whose dictionary a reader accepts.
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 3);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        })
    }
}

fn checksum(content: &[u8]) -> Checksum {
    use sha2::Digest as _;
    let mut hasher = FileMeta::regular(0o644, content.len() as u64).hasher();
    hasher.update(content);
    Checksum(hasher.finalize().into())
}

fn tree(name: &str, file: Checksum) -> Vec<u8> {
    DirTree { files: vec![(name.to_owned(), file)], dirs: Vec::new() }.encode()
}

fn header(size: usize) -> Vec<u8> {
    FileMeta::regular(0o644, size as u64).stream_header()[8..].to_vec()
}

/// The entry of the new file, made from nothing.
fn entry() -> FileEntry {
    FileEntry {
        index: 0,
        header: 0,
        size: NEW.len() as u64,
        layer: Layer::Raw,
        content: NEW.len() as u64,
        elf: false,
        sources: Vec::new(),
    }
}

fn old_source() -> SourceEntry {
    SourceEntry { new: false, index: 0, kind: Kind::Raw, size: OLD.len() as u64 }
}

impl World {
    fn new() -> World {
        World::with(OLD)
    }

    fn with(old: &[u8]) -> World {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let machine = Repo::create(&dir.path().join("machine"), Mode::BareUser).unwrap().without_fsync();
        let staging = machine.stage().unwrap();
        let meta = FileMeta::regular(0o644, old.len() as u64);
        staging.write_known(&meta, &checksum(old), Content::Bytes(old)).unwrap();
        let root_meta = staging.write_metadata(ObjectType::DirMeta, &DirMeta::root(0o755).encode()).unwrap();
        let root_tree = staging.write_metadata(ObjectType::DirTree, &tree("file", checksum(old))).unwrap();
        staging.flush().unwrap();
        drop(staging);
        let from = Builder::new(root_tree, root_meta, 1).write(&machine).unwrap();
        World { dir, machine, from, new: checksum(NEW) }
    }

    /// What the update would say if it were honest: one file in one part.
    fn catalogue(&self, files: Vec<FileEntry>) -> Catalogue {
        self.catalogue_of(tree("file", self.new), files)
    }

    fn catalogue_of(&self, dirtree: Vec<u8>, files: Vec<FileEntry>) -> Catalogue {
        let meta = Checksum::of(&DirMeta::root(0o755).encode());
        Catalogue {
            commit: Builder::new(Checksum::of(&dirtree), meta, 2).encode(),
            dirtrees: vec![dirtree],
            headers: vec![header(NEW.len())],
            parts: vec![files],
            ..Catalogue::default()
        }
    }

    /// The file: a catalogue that repeats nothing of the old directories, and one part.
    fn update(&self, catalogue: &Catalogue, streams: &Streams) -> Vec<u8> {
        self.update_of(&Checksum::of(&catalogue.commit), &catalogue.encode(), streams)
    }

    fn update_of(&self, to: &Checksum, catalogue: &[u8], streams: &Streams) -> Vec<u8> {
        let first = Streams::region(0, catalogue, 0).packed();
        let second = streams.packed();
        let part = |streams: &[Vec<u8>; 4], content| Part {
            content,
            streams: [0, 1, 2, 3].map(|n| streams[n].len() as u64),
            ..Part::default()
        };
        let parts = vec![part(&first, catalogue.len() as u64), part(&second, NEW.len() as u64)];
        let table = Table { from: Some(self.from), to: *to, parts };
        [table.encode(), first.concat(), second.concat()].concat()
    }

    fn apply(&self, bytes: &[u8]) -> Result<(), UpdateError> {
        let path = self.dir.path().join("update");
        std::fs::write(&path, bytes).unwrap();
        apply_file(&path, &self.machine, None, Verity::Off).map(|_| ())
    }

    /// Applying it is refused with one of these words, and the machine is as it was.
    fn refused(&self, story: &str, bytes: &[u8], word: &str) {
        let before = self.machine.all_objects().unwrap();
        let error = self.apply(bytes).expect_err(story);
        let text = crate::error::chain(&error);
        assert!(text.contains(word), "{story}: {text}");
        let objects = self.machine.all_objects().unwrap();
        let commit = |objects: &[(ObjectType, Checksum)]| {
            objects.iter().filter(|(kind, _)| matches!(kind, ObjectType::Commit | ObjectType::File)).count()
        };
        assert_eq!(commit(&objects), commit(&before), "{story}");
        let report = crate::fsck::fsck(&self.machine, &crate::fsck::Options::default()).unwrap();
        assert_eq!(report.problems, [], "{story}");
        let around = std::fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(around, 2, "{story}: something was written beside the repository");
    }

    fn part_refused(&self, story: &str, file: FileEntry, streams: &Streams, word: &str) {
        self.refused(story, &self.update(&self.catalogue(vec![file]), streams), word);
    }
}

#[test]
fn an_honest_update_is_applied() {
    let world = World::new();
    let catalogue = world.catalogue(vec![FileEntry { sources: vec![old_source()], ..entry() }]);
    // "the content of the file that is " is old, the rest new.
    world.apply(&world.update(&catalogue, &Streams::region(32, &NEW[32..], 0))).unwrap();
    assert!(world.machine.has(ObjectType::File, &world.new));
    let world = World::new();
    world.apply(&world.update(&world.catalogue(vec![entry()]), &Streams::region(0, NEW, 0))).unwrap();
}

#[test]
fn a_zip_bomb_in_a_part_goes_off_nowhere() {
    let world = World::new();
    // A few kilobytes that unpack to 32 MiB.
    let bomb = Streams::region(0, &vec![0; 32 << 20], 0);
    // More than is declared is not read.
    world.part_refused("declared small", entry(), &bomb, "damaged");
    let declared = |content: u64, layer: Layer| FileEntry { content, layer, ..entry() };
    // As much as is declared of content, of which a file of 40 bytes is made: no more of it is written.
    world.part_refused("large content", declared(32 << 20, Layer::Raw), &bomb, "1 objects");
    let zstd = Layer::Zstd { level: 3, checksum: false, sized: false, worker: false };
    world.part_refused("packed by zstd", declared(32 << 20, zstd), &bomb, "1 objects");
    let xz = Layer::Xz { preset: 0, check: 0, dict: 1 << 20, block: 0 };
    world.part_refused("packed by xz", declared(32 << 20, xz), &bomb, "1 objects");
    let gzip = Layer::Gzip { header: b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), level: 1, fast: true };
    world.part_refused("packed by gzip", declared(32 << 20, gzip), &bomb, "1 objects");
    // And as a program, which is turned in memory.
    let elf = FileEntry { elf: true, ..declared(32 << 20, Layer::Raw) };
    world.part_refused("turned", elf, &bomb, "1 objects");
    // More than any file has is refused before anything is read.
    world.part_refused("absurd content", declared(1 << 39, Layer::Raw), &bomb, "larger than one");
    let absurd = FileEntry { size: 1 << 39, ..entry() };
    world.part_refused("absurd size", absurd, &bomb, "larger than one");
}

#[test]
fn a_zip_bomb_among_the_old_files_goes_off_nowhere() {
    let zeros = vec![0; 64 << 20];
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 3);
    encoder.write_all(&zeros).unwrap();
    let bombs = [(Kind::Xz, encoder.finish().unwrap()), (Kind::Zstd, zstd::bulk::compress(&zeros, 3).unwrap())];
    for (kind, bomb) in bombs {
        let world = World::with(&bomb);
        let source = SourceEntry { kind, size: 40, ..old_source() };
        let file = |source| FileEntry { sources: vec![source], ..entry() };
        let streams = Streams::region(32, &NEW[32..], 0);
        world.part_refused("declared small", file(source.clone()), &streams, "1 objects");
        let large = SourceEntry { size: 1 << 40, ..source };
        world.part_refused("declared huge", file(large), &streams, "made from more");
    }
}

#[test]
fn path_traversal_in_the_tree_of_an_update_is_refused() {
    let world = World::new();
    for name in ["../../../../etc/cron.d/evil", "..", "a/b", "", "."] {
        let catalogue = world.catalogue_of(tree(name, world.new), vec![entry()]);
        world.refused(name, &world.update(&catalogue, &Streams::region(0, NEW, 0)), "cannot be the name");
    }
}

#[test]
fn a_wrong_checksum_is_never_an_object() {
    let world = World::new();
    let mut wrong = NEW.to_vec();
    wrong[0] ^= 1;
    world.part_refused("wrong content", entry(), &Streams::region(0, &wrong, 0), "1 objects");
    // Another owner or mode is another object.
    let mut catalogue = world.catalogue(vec![entry()]);
    catalogue.headers = vec![FileMeta::regular(0o4755, NEW.len() as u64).stream_header()[8..].to_vec()];
    world.refused("another mode", &world.update(&catalogue, &Streams::region(0, NEW, 0)), "1 objects");
    catalogue.headers = vec![vec![0xff; 40]];
    world.refused("no header", &world.update(&catalogue, &Streams::region(0, NEW, 0)), "1 objects");
    // A directory that is not what its name says is not found.
    let world = World::new();
    let mut catalogue = world.catalogue(vec![entry()]);
    catalogue.dirtrees = vec![tree("other", world.new)];
    world.refused("another directory", &world.update(&catalogue, &Streams::region(0, NEW, 0)), "is not in it");
}

#[test]
fn reading_outside_of_the_source_is_refused() {
    let world = World::new();
    let from_old = FileEntry { sources: vec![old_source()], ..entry() };
    let size = NEW.len() as u64;
    for (story, file, len, step, word) in [
        ("behind its end", &from_old, size, 0, "behind the old content"),
        ("far behind its end", &from_old, size, i64::MAX, "behind the old content"),
        ("before its beginning", &from_old, 8, -1, "before the old content"),
        ("where there is none", &entry(), size, 0, "behind the old content"),
        ("more than the file has", &from_old, size + 1, 0, "more than the file has"),
        ("more than there is", &from_old, u64::MAX, 0, "more than the file has"),
    ] {
        world.part_refused(story, file.clone(), &Streams::region(len, b"", step), word);
    }
}

#[test]
fn a_missing_source_is_refused() {
    let world = World::new();
    for (story, new, index) in [("old", false, 1), ("new", true, 1), ("far", false, u64::MAX >> 2)] {
        let source = SourceEntry { new, index, ..old_source() };
        let file = FileEntry { sources: vec![source], ..entry() };
        world.part_refused(story, file, &Streams::region(32, &NEW[32..], 0), "in neither tree");
    }
    let target = FileEntry { index: 7, ..entry() };
    world.part_refused("a file of no tree", target, &Streams::region(0, NEW, 0), "in neither tree");
    let header = FileEntry { header: 7, ..entry() };
    world.part_refused("no such header", header, &Streams::region(0, NEW, 0), "in neither tree");
}

#[test]
fn a_cyclic_source_ends() {
    let world = World::new();
    // The file is to be made from itself.
    let source = SourceEntry { new: true, size: NEW.len() as u64, ..old_source() };
    let file = FileEntry { sources: vec![source], ..entry() };
    world.part_refused("from itself", file, &Streams::region(NEW.len() as u64, b"", 0), "1 objects");
}

#[test]
fn a_duplicate_object_is_made_once() {
    let world = World::new();
    let two = world.catalogue(vec![entry(), entry()]);
    let mut streams = Streams::region(0, NEW, 0);
    let again = Streams::region(0, b"something else that is not the new file.", 0);
    streams.control.extend_from_slice(&again.control);
    streams.extra.extend_from_slice(&again.extra);
    world.apply(&world.update(&two, &streams)).unwrap();
    world.machine.verify_file(&world.new).unwrap();
    let report = crate::fsck::fsck(&world.machine, &crate::fsck::Options::default()).unwrap();
    assert_eq!(report.problems, []);
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    let world = World::new();
    let honest = world.catalogue(vec![entry()]);
    let to = Checksum::of(&honest.commit);
    let streams = Streams::region(0, NEW, 0);
    let mut announced = Vec::new();
    super::wire::blob(&mut announced, &honest.commit);
    super::wire::blob(&mut announced, b"");
    varint(&mut announced, u64::MAX >> 1);
    world.refused("dirtrees", &world.update_of(&to, &announced, &streams), "more is announced");
    let many = vec![entry(); super::wire::MAX_FILES + 1];
    world.refused("files", &world.update(&world.catalogue(many), &streams), "more files than");
    let sources = vec![SourceEntry { size: 0, ..old_source() }; (1 << 18) + 1];
    let file = FileEntry { sources, ..entry() };
    world.refused("sources", &world.update(&world.catalogue(vec![file]), &streams), "made from more");
    let mut parts = world.update(&honest, &streams);
    parts[72..76].copy_from_slice(&u32::MAX.to_le_bytes());
    world.refused("parts", &parts, "4294967295 parts");
}

#[test]
fn an_encoder_that_takes_too_much_memory_is_refused() {
    let world = World::new();
    for (story, layer) in [
        ("xz dictionary", Layer::Xz { preset: 9, check: 1, dict: 1 << 30, block: 0 }),
        ("xz block", Layer::Xz { preset: 6, check: 1, dict: 1 << 20, block: 1 << 40 }),
        ("zstd level", Layer::Zstd { level: 22, checksum: true, sized: true, worker: false }),
        ("gzip header", Layer::Gzip { header: vec![0; 4096], level: 9, fast: false }),
    ] {
        let file = FileEntry { layer, ..entry() };
        world.part_refused(story, file, &Streams::region(0, NEW, 0), "too much memory");
    }
    // And a decoder: preset 9 has a dictionary of 64 MiB.
    let honest = world.update(&world.catalogue(vec![entry()]), &Streams::region(0, NEW, 0));
    let stream = |preset: u32| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), preset);
        encoder.write_all(NEW).unwrap();
        encoder.finish().unwrap()
    };
    let (good, bad) = (stream(3), stream(9));
    assert_eq!(good.len(), bad.len());
    let bytes = [&honest[..honest.len() - good.len()], &bad].concat();
    world.refused("xz stream", &bytes, "damaged");
}

#[test]
fn a_truncated_update_leaves_nothing() {
    let world = World::new();
    let honest = world.update(&world.catalogue(vec![entry()]), &Streams::region(0, NEW, 0));
    for length in (0..honest.len()).step_by(13) {
        world.refused("truncated", &honest[..length], "the update");
    }
}
