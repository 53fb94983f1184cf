//! Our own update format: from commit to commit through every kind of packing, over HTTP, interrupted, and lied to.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use common::{Log, file, noise, scratch};
use proptest::prelude::*;
use store::commit::Builder;
use store::fsck::{self, fsck};
use store::import::{self, Node};
use store::pull::{self, Network, Options, PullError};
use store::serve::{self, FailAfter, Running, Server};
use store::update::{self, UpdateError};
use store::{Checksum, DirMeta, FileMeta, Mode, Repo, Verity};

const REF: &str = "slipway/test";

fn dir(entries: impl IntoIterator<Item = (String, Node)>) -> Node {
    Node::Dir(DirMeta::root(0o755), entries.into_iter().collect())
}

/// Like a program: stretches of code, and addresses that move from version to version.
fn program(seed: u64, version: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut address = 0x0040_1000u32;
    while bytes.len() < len {
        bytes.extend_from_slice(&noise(seed + u64::from(address & 0xfff), 24));
        bytes.extend_from_slice(&(address + version * 0x40).to_le_bytes());
        address += 0x1c;
    }
    bytes
}

fn xz(content: &[u8]) -> Vec<u8> {
    let mut options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
    options.dict_size(1 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let mut builder = liblzma::stream::MtStreamBuilder::new();
    let stream = builder.threads(2).filters(filters).check(liblzma::stream::Check::Crc32).encoder().unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zst(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 9).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn gz(content: &[u8]) -> Vec<u8> {
    let builder = flate2::GzBuilder::new().filename("changelog");
    let mut encoder = builder.write(Vec::new(), flate2::Compression::new(9));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn cpio(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
    for (name, data) in members.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        let size = format!("{:08x}", data.len());
        let name_size = format!("{:08x}", name.len() + 1);
        let zero = "00000000";
        let fields = [zero, "000081a4", zero, zero, "00000001", zero, &size, zero, zero, zero, zero, &name_size, zero];
        write!(bytes, "070701{}{name}\0", fields.concat()).unwrap();
        pad(&mut bytes);
        bytes.extend_from_slice(data);
        pad(&mut bytes);
    }
    bytes
}

/// Two versions of a small host: a kernel with packed modules, an initramfs of files of the tree, programs, links.
fn host(version: u32) -> Node {
    let programs: Vec<(String, Vec<u8>)> =
        (0..6).map(|n| (format!("tool{n}"), program(n, if n % 2 == 0 { version } else { 0 }, 60_000))).collect();
    let module = |n: u64| program(100 + n, version, 90_000 + n as usize * 1000);
    let modules: Vec<(String, Node)> = (0..8).map(|n| (format!("m{n}.ko.xz"), file(xz(&module(n))))).collect();
    // Large enough to be alone in its part, as a real one is.
    let mut members: Vec<(&str, &[u8])> =
        programs.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let large = noise(u64::from(version) + 50, 7 << 20);
    members.push(("large", &large));
    let generated = format!("generated in version {version}\n").repeat(40);
    members.push(("etc/generated", generated.as_bytes()));
    let initramfs = zst(&cpio(&members));
    let kernel = dir([
        ("kernel".to_owned(), dir(modules)),
        ("initramfs.img".to_owned(), file(initramfs)),
        ("modules.dep".to_owned(), file(generated.clone())),
    ]);
    let mut bin: BTreeMap<String, Node> = programs.into_iter().map(|(name, data)| (name, file(data))).collect();
    bin.insert("large".into(), file(large));
    bin.insert("sh".into(), Node::File(FileMeta::link(format!("tool{version}")), Vec::new()));
    bin.insert("su".into(), Node::File(FileMeta::regular(0o4755, 0), program(9, version, 30_000)));
    bin.insert("empty".into(), file(Vec::new()));
    let usr = dir([
        ("bin".to_owned(), dir(bin)),
        ("lib".to_owned(), dir([("modules".to_owned(), dir([(format!("6.12.{version}"), kernel)]))])),
        ("log.gz".to_owned(), file(gz(&generated.repeat(30).into_bytes()))),
    ]);
    dir([("usr".to_owned(), usr), (format!("only-{version}"), file(noise(u64::from(version), 5000)))])
}

fn commit(repo: &Repo, root: &Node, name: &str, time: u64) -> Checksum {
    let imported = import::tree(repo, root).unwrap();
    let commit = Builder::new(imported.root_tree, imported.root_meta, time).bind(name).write(repo).unwrap();
    repo.set_ref(name, &commit).unwrap();
    commit
}

struct World {
    dir: tempfile::TempDir,
    origin: Repo,
    one: Checksum,
    two: Checksum,
}

impl World {
    fn new(one: &Node, two: &Node) -> World {
        let dir = scratch();
        let origin = Repo::create(&dir.path().join("origin"), Mode::Archive).unwrap().without_fsync();
        let (one, two) = (commit(&origin, one, REF, 1), commit(&origin, two, REF, 2));
        World { dir, origin, one, two }
    }

    fn host() -> World {
        World::new(&host(1), &host(2))
    }

    /// A machine that has the first version.
    fn machine(&self, name: &str) -> Repo {
        let repo = Repo::create(&self.dir.path().join(name), Mode::BareUser).unwrap().without_fsync();
        pull::local(&self.origin, &repo, &self.one).unwrap();
        repo.set_ref(REF, &self.one).unwrap();
        repo
    }

    fn update(&self, from: Option<&Checksum>) -> PathBuf {
        update::publish(&self.origin, &self.origin, from, &self.two, &update::Options::default()).unwrap();
        self.origin.path().join(update::path(from, &self.two))
    }

    fn whole(&self, repo: &Repo) {
        let report = fsck(repo, &fsck::Options::default()).unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(repo.objects_of(&self.two).unwrap(), self.origin.objects_of(&self.two).unwrap());
        for (kind, checksum) in repo.objects_of(&self.two).unwrap() {
            assert!(repo.has(kind, &checksum), "{kind} {checksum}");
        }
    }
}

fn serve(repo: &Repo) -> Running {
    serve_with(repo, None, &Log::default())
}

fn serve_with(repo: &Repo, fail_after: Option<FailAfter>, log: &Log) -> Running {
    let options = serve::Options { fail_after, log: Some(Box::new(log.clone())), ..serve::Options::default() };
    Server::bind(repo.path(), SocketAddr::from(([127, 0, 0, 1], 0)), options).unwrap().spawn().unwrap()
}

fn options(server: &Running) -> Options<'static> {
    let mut options = Options::new(server.url(), REF, None);
    options.network = Network { retries: 1, ..Network::default() };
    options
}

fn apply(path: &Path, repo: &Repo) -> Result<update::Applied, UpdateError> {
    update::apply_file(path, repo, None, Verity::Off).map(|(_, applied, _)| applied)
}

#[test]
fn a_host_is_updated_through_its_packed_files() {
    let world = World::host();
    let path = world.update(Some(&world.one));
    let machine = world.machine("machine");
    let applied = apply(&path, &machine).unwrap();
    assert_eq!(applied.left, 0);
    world.whole(&machine);
    // What is new and looks like nothing: 7 MiB, once although the initramfs holds it too, and two small files.
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < (7 << 20) + 300_000, "{size}");
}

#[test]
fn an_update_from_nothing_brings_everything() {
    let world = World::host();
    let path = world.update(None);
    let empty = Repo::create(&world.dir.path().join("empty"), Mode::BareUser).unwrap().without_fsync();
    assert_eq!(apply(&path, &empty).unwrap().left, 0);
    world.whole(&empty);
    let archive = Repo::create(&world.dir.path().join("archive"), Mode::Archive).unwrap().without_fsync();
    assert_eq!(apply(&path, &archive).unwrap().left, 0);
    world.whole(&archive);
}

#[test]
fn a_pull_takes_the_update_by_itself() {
    let world = World::host();
    let plain = world.machine("plain");
    let server = serve(&world.origin);
    let without = pull::http(&options(&server), &plain).unwrap();
    let path = world.update(Some(&world.one));
    let machine = world.machine("machine");
    let with = pull::http(&options(&server), &machine).unwrap();
    world.whole(&machine);
    let size = fs::metadata(&path).unwrap().len();
    assert!(with.bytes <= size + 4096, "{} of {size}", with.bytes);
    assert!(with.bytes < without.bytes, "{} {}", with.bytes, without.bytes);
}

#[test]
fn updates_go_with_the_commits_they_lead_to() {
    let (one, two) = (dir([("a".to_owned(), file("1"))]), dir([("a".to_owned(), file("2"))]));
    let world = World::new(&one, &two);
    let path = world.update(Some(&world.one));
    fs::write(path.with_extension("tmp-1"), "half").unwrap();
    assert_eq!(update::prune(&world.origin).unwrap(), 4);
    let size = fs::metadata(&path).unwrap().len();
    let commit =
        world.origin.path().join("objects").join(world.origin.loose_path(store::ObjectType::Commit, &world.two));
    fs::remove_file(commit).unwrap();
    assert_eq!(update::prune(&world.origin).unwrap(), size);
    assert!(!path.parent().unwrap().exists());
}

/// What each attempt reads before it comes to the parts: ref, commit, signatures, and the first bytes of the update.
const BEFORE: u64 = 12 << 10;

/// The names of files that a process left of updates.
fn spooled(repo: &Repo) -> Vec<String> {
    let names = fs::read_dir(repo.path().join("tmp")).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with("update-")).collect()
}

#[test]
fn a_server_that_goes_away_is_taken_up_again_at_the_byte() {
    let world = World::host();
    let size = fs::metadata(world.update(Some(&world.one))).unwrap().len();
    let machine = world.machine("machine");
    let (mut attempts, mut sent) = (0, 0);
    while !machine.has(store::ObjectType::Commit, &world.two) {
        let log = Log::default();
        let server = serve_with(&world.origin, Some(FailAfter::Bytes(size / 5)), &log);
        let mut options = options(&server);
        options.network.retries = 0;
        if let Err(error) = pull::http(&options, &machine) {
            assert!(matches!(error, PullError::Interrupted(_)), "{}", store_error(&error));
            assert!(!spooled(&machine).is_empty());
        }
        assert!(!log.text().contains(".filez"), "nothing else is cheaper");
        sent += server.bytes();
        attempts += 1;
        assert!(attempts < 9, "no progress");
    }
    assert!(attempts > 4 && sent <= size + attempts * BEFORE, "{sent} bytes of {size} in {attempts} attempts");
    assert_eq!(spooled(&machine), [""; 0]);
    world.whole(&machine);
}

/// Puts into the repository what a killed pull would have left: of each part what `keep` makes of its bytes.
fn leave(machine: &Repo, update: &Path, keep: impl Fn(usize, &[u8]) -> Vec<u8>) {
    let bytes = fs::read(update).unwrap();
    let parts = update::inspect(update).unwrap().parts;
    let mut at = 76 + 48 * parts.len();
    let id = &Checksum::of(&bytes[..at]).to_hex()[..32];
    for (number, (stored, _)) in parts.iter().enumerate() {
        let part = &bytes[at..at + *stored as usize];
        fs::write(machine.path().join(format!("tmp/update-{id}-{number}")), keep(number, part)).unwrap();
        at += part.len();
    }
}

#[test]
fn a_killed_pull_leaves_parts_that_are_not_fetched_again() {
    let world = World::host();
    let path = world.update(Some(&world.one));
    let machine = world.machine("machine");
    // All but the second half of the largest.
    let largest = update::inspect(&path).unwrap().parts.iter().map(|(stored, _)| *stored).max().unwrap();
    let half = largest as usize / 2;
    leave(&machine, &path, |_, part| if part.len() as u64 == largest { part[..half].to_vec() } else { part.to_vec() });
    let log = Log::default();
    let server = serve_with(&world.origin, None, &log);
    let outcome = pull::http(&options(&server), &machine).unwrap();
    world.whole(&machine);
    assert!(outcome.bytes <= largest - half as u64, "{}", outcome.bytes);
    assert!(server.bytes() <= largest - half as u64 + BEFORE, "{} of {largest}", server.bytes());
    assert!(!log.text().contains(".filez"));
    assert_eq!(spooled(&machine), [""; 0]);
}

#[test]
fn what_a_killed_pull_left_is_not_believed() {
    let world = World::host();
    let path = world.update(Some(&world.one));
    let size = fs::metadata(&path).unwrap().len();
    for (name, keep) in [
        ("damaged", (|_, part| vec![0x55; part.len() / 2]) as fn(usize, &[u8]) -> Vec<u8>),
        ("too-long", |_, part| [part, &[0; 9]].concat()),
        ("spoiled", |_, part| {
            let mut part = part.to_vec();
            let middle = part.len() / 2;
            part.iter_mut().skip(middle).take(8).for_each(|byte| *byte ^= 0xff);
            part
        }),
    ] {
        let machine = world.machine(name);
        leave(&machine, &path, keep);
        let log = Log::default();
        let server = serve_with(&world.origin, None, &log);
        pull::http(&options(&server), &machine).unwrap();
        world.whole(&machine);
        assert!(!log.text().contains(".filez"), "{name}: {}", log.text());
        // What was left, and was of no use, is fetched once more and not twice.
        assert!(server.bytes() <= 2 * size + BEFORE, "{name}: {} of {size}", server.bytes());
        assert_eq!(spooled(&machine), [""; 0], "{name}");
    }
}

/// Passes connections on to `server` and breaks each after so many bytes of answers. Returns its address, and what it
/// has passed.
fn breaking(server: &Running, after: u64) -> (String, Arc<AtomicU64>) {
    let upstream = server.url().strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let passed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&passed);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&upstream)) else { return };
            let (mut asked, mut asks) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut asked, &mut asks));
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let copied = std::io::copy(&mut (&server).take(after), &mut &client).unwrap_or_default();
                count.fetch_add(copied, Ordering::Relaxed);
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    (url, passed)
}

#[test]
fn a_connection_that_breaks_again_and_again_goes_on_at_the_byte() {
    let world = World::host();
    let size = fs::metadata(world.update(Some(&world.one))).unwrap().len();
    let machine = world.machine("machine");
    let server = serve(&world.origin);
    let (url, passed) = breaking(&server, 900_000);
    let options = Options { url, network: Network { retries: 2, ..Network::default() }, ..Options::new("", REF, None) };
    let outcome = pull::http(&options, &machine).unwrap();
    world.whole(&machine);
    assert!(outcome.bytes <= size, "{} of {size}", outcome.bytes);
    // Each connection may lose what was on its way when it broke: nothing here, since it breaks behind what was read.
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed <= size + 64 * 1024, "{passed} of {size}");
}

#[test]
fn a_damaged_update_is_no_obstacle_to_a_pull() {
    let world = World::host();
    let path = world.update(Some(&world.one));
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 1000);
    fs::write(&path, &bytes).unwrap();
    let machine = world.machine("machine");
    let server = serve(&world.origin);
    pull::http(&options(&server), &machine).unwrap();
    world.whole(&machine);
}

#[test]
fn the_same_trees_give_the_same_update() {
    let world = World::host();
    let mut made = Vec::new();
    for threads in [1, 4] {
        let mut bytes = Vec::new();
        let options = update::Options { threads, ..update::Options::default() };
        let report = update::generate(&world.origin, Some(&world.one), &world.two, &options, &mut bytes).unwrap();
        assert_eq!(report.bytes, bytes.len() as u64);
        made.push(bytes);
    }
    assert!(made[0] == made[1]);
}

#[test]
fn what_is_there_already_is_not_made_again() {
    let world = World::host();
    let path = world.update(Some(&world.one));
    let machine = world.machine("machine");
    apply(&path, &machine).unwrap();
    // One module is lost, and the commit with it: as after a power cut.
    let Some(store::Entry::File { checksum }) =
        machine.lookup(&world.two, "/usr/lib/modules/6.12.2/kernel/m3.ko.xz").unwrap()
    else {
        panic!("no such file")
    };
    let lost = |kind, checksum: &Checksum| machine.path().join("objects").join(machine.loose_path(kind, checksum));
    fs::remove_file(lost(store::ObjectType::File, &checksum)).unwrap();
    fs::remove_file(lost(store::ObjectType::Commit, &world.two)).unwrap();
    let again = apply(&path, &machine).unwrap();
    assert_eq!((again.made, again.left), (1, 0));
    assert!(again.read * 4 < fs::metadata(&path).unwrap().len());
    world.whole(&machine);
}

#[test]
fn a_damaged_base_costs_a_download_and_nothing_else() {
    let world = World::host();
    let path = world.update(Some(&world.one));
    let machine = world.machine("machine");
    let module = "/usr/lib/modules/6.12.1/kernel/m5.ko.xz";
    let Some(store::Entry::File { checksum }) = machine.lookup(&world.one, module).unwrap() else { panic!() };
    let object = machine.path().join("objects").join(machine.loose_path(store::ObjectType::File, &checksum));
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::OpenOptions::new().write(true).open(&object).unwrap().write_all(&bytes).unwrap();
    let error = apply(&path, &machine).unwrap_err();
    assert!(matches!(error, UpdateError::Incomplete(1, _)), "{}", store_error(&error));
    assert!(!machine.has(store::ObjectType::Commit, &world.two));
    let server = serve(&world.origin);
    pull::http(&options(&server), &machine).unwrap();
    for (kind, checksum) in machine.objects_of(&world.two).unwrap() {
        assert!(machine.has(kind, &checksum));
    }
    machine
        .verify_file(match machine.lookup(&world.two, "/usr/lib/modules/6.12.2/kernel/m5.ko.xz").unwrap() {
            Some(store::Entry::File { ref checksum }) => checksum,
            _ => panic!(),
        })
        .unwrap();
}

/// One world for all that only spoil its update.
fn shared() -> &'static (World, Vec<u8>) {
    static SHARED: LazyLock<(World, Vec<u8>)> = LazyLock::new(|| {
        let world = World::host();
        let bytes = fs::read(world.update(Some(&world.one))).unwrap();
        (world, bytes)
    });
    &SHARED
}

/// What must be refused, and by which words. Nothing of it is seen afterwards.
fn refused(name: &str, spoil: impl Fn(&mut Vec<u8>), words: &[&str]) {
    let (world, good) = shared();
    let dir = scratch();
    let path = dir.path().join("bad.update");
    let mut bytes = good.clone();
    spoil(&mut bytes);
    fs::write(&path, &bytes).unwrap();
    let machine = Repo::create(&dir.path().join("machine"), Mode::BareUser).unwrap().without_fsync();
    pull::local(&world.origin, &machine, &world.one).unwrap();
    let error = store_error(&apply(&path, &machine).expect_err(name));
    assert!(words.iter().any(|word| error.contains(word)), "{name}: {error}");
    assert!(!machine.has(store::ObjectType::Commit, &world.two), "{name}");
    assert_eq!(fsck(&machine, &fsck::Options::default()).unwrap().problems, [], "{name}");
}

fn store_error(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn a_truncated_update_is_refused() {
    refused("truncated", |bytes| bytes.truncate(bytes.len() * 2 / 3), &["too early", "damaged"]);
    refused("nothing but a head", |bytes| bytes.truncate(76), &["too early"]);
}

#[test]
fn a_wrong_base_is_refused() {
    refused("wrong base", |bytes| bytes[8..40].fill(7), &["which is not here"]);
}

#[test]
fn an_update_to_another_commit_is_refused() {
    refused("another commit", |bytes| bytes[40..72].fill(7), &["another"]);
}

#[test]
fn lies_about_sizes_are_refused() {
    // The content of the catalogue, then the stored size of a stream of the first part.
    refused("catalogue", |bytes| bytes[84..92].copy_from_slice(&(1u64 << 39).to_le_bytes()), &["32 MiB"]);
    refused("catalogue by one", |bytes| bytes[84] = bytes[84].wrapping_add(1), &["damaged", "catalogue", "early"]);
    refused("stream", |bytes| bytes[76 + 48 + 16..][..8].copy_from_slice(&(1u64 << 50).to_le_bytes()), &["are free"]);
}

#[test]
fn damage_anywhere_is_noticed() {
    // In the new noise, and in the parts behind it.
    for from_end in [2 << 20, 100_000, 20_000, 500] {
        let spoil = |bytes: &mut Vec<u8>| {
            let at = bytes.len() - from_end;
            bytes[at..at + 16].fill(0x55);
        };
        refused("damage", spoil, &["damaged", "cannot be made", "not valid", "early"]);
    }
}

#[derive(Debug, Clone)]
enum Change {
    Same,
    Bytes(usize, u8),
    Insert(usize, Vec<u8>),
    Remove,
    Fresh(Vec<u8>),
}

fn changed(content: &[u8], change: &Change) -> Option<Vec<u8>> {
    let mut content = content.to_vec();
    match change {
        Change::Same => {}
        Change::Bytes(at, value) => {
            let len = content.len().max(1);
            if let Some(byte) = content.get_mut(at % len) {
                *byte = byte.wrapping_add(*value);
            }
        }
        Change::Insert(at, bytes) => {
            let at = at % (content.len() + 1);
            content.splice(at..at, bytes.iter().copied());
        }
        Change::Remove => return None,
        Change::Fresh(bytes) => content = bytes.clone(),
    }
    Some(content)
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        2 => Just(Change::Same),
        3 => (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Change::Bytes(at, value)),
        2 => (any::<usize>(), bytes()).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => Just(Change::Remove),
        1 => bytes().prop_map(Change::Fresh),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_two_trees_are_bridged(
        files in proptest::collection::vec((any::<u64>(), 0usize..9000, 0u8..4, change(), any::<bool>()), 0..14),
    ) {
        let pack = |kind: u8, content: Vec<u8>| match kind {
            0 => content,
            1 => xz(&content),
            2 => zst(&content),
            _ => gz(&content),
        };
        let (mut one, mut two) = (BTreeMap::new(), BTreeMap::new());
        for (number, (seed, len, kind, change, moved)) in files.into_iter().enumerate() {
            let content = program(seed & 0xffff, 0, len);
            if let Some(new) = changed(&content, &change) {
                let name = if moved { format!("name-{number}-2") } else { format!("name-{number}-1") };
                two.insert(name, file(pack(kind, new)));
            }
            one.insert(format!("name-{number}-1"), file(pack(kind, content)));
        }
        let world = World::new(&dir(one), &dir(two));
        let machine = world.machine("machine");
        prop_assert_eq!(apply(&world.update(Some(&world.one)), &machine).unwrap().left, 0);
        world.whole(&machine);
    }
}
