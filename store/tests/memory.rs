//! How much memory the large things take: a child process of this very test does one of them, and says what it took at
//! its peak.

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use common::{noise, scratch};
use store::commit::Builder;
use store::import::{self, Node};
use store::pull::ways::Allowed;
use store::serve::{self, Server};
use store::{Checksum, DirMeta, FileMeta, Mode, ObjectType, Repo, Verity, delta, fsck, pull, update};
use sys::Cmd;

const JOB: &str = "SLIPWAY_MEMORY_JOB";
const DIR: &str = "SLIPWAY_MEMORY_DIR";
/// Files that are larger than what may be taken for all of them, in MiB.
const LARGE: [u64; 3] = [300, 200, 150];

/// The most that this process had in memory, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// The child's work; in the parent there is none.
fn job() {
    let Some(job) = std::env::var_os(JOB) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let repo = |name: &str| Repo::open(&dir.join(name)).unwrap().without_fsync();
    let refs = |repo: &Repo| (repo.read_ref("one").unwrap(), repo.read_ref("two").unwrap());
    match job.to_str().unwrap() {
        "commit" => {
            let import = import::directory(&repo("origin"), &dir.join("tree"), &import::Options::default()).unwrap();
            let commit = Builder::new(import.root_tree, import.root_meta, 1).write(&repo("origin")).unwrap();
            repo("origin").set_ref("one", &commit).unwrap();
        }
        "pull" => {
            let server = Server::bind(&dir.join("origin"), "127.0.0.1:0".parse().unwrap(), serve::Options::default());
            let server = server.unwrap().spawn().unwrap();
            let options = pull::Options { ways: Allowed::OBJECTS, ..pull::Options::new(server.url(), "one", None) };
            pull::http(&options, &repo("machine")).unwrap();
        }
        "fsck" => {
            let report = fsck::fsck(&repo("origin"), &fsck::Options::default()).unwrap();
            assert_eq!(report.problems, []);
        }
        "update" => {
            let (one, two) = refs(&repo("origin"));
            let options = update::Options { threads: 2, ..update::Options::default() };
            let mut file = std::fs::File::create(dir.join("update")).unwrap();
            update::generate(&repo("origin"), one.as_ref(), &two.unwrap(), &options, &mut file).unwrap();
        }
        "apply-update" => {
            update::apply_file(&dir.join("update"), &repo("machine"), None, Verity::Off).unwrap();
        }
        "delta" => {
            let (one, two) = refs(&repo("origin"));
            let options = delta::Options {
                threads: 2,
                min_fallback: 0,
                file: Some(dir.join("delta/superblock")),
                ..delta::Options::default()
            };
            delta::generate(&repo("origin"), one.as_ref(), &two.unwrap(), &options).unwrap();
        }
        "apply-delta" => {
            let options = delta::ApplyOptions { threads: 2, ..delta::ApplyOptions::default() };
            delta::apply_offline(&repo("machine"), &dir.join("delta/superblock"), &options).unwrap();
        }
        other => panic!("no job {other}"),
    }
    println!("PEAK {}", peak());
    std::process::exit(0);
}

/// Runs a job, which may take so many MiB.
fn takes(test: &str, job: &str, dir: &Path, most: u64) {
    let child = Cmd::new(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = child.env(JOB, job).env(DIR, dir).run().unwrap().text();
    let peak = output.lines().find_map(|line| line.split_once("PEAK ")).expect("what it took").1;
    let peak: u64 = peak.trim().parse().unwrap();
    eprintln!("{job}: {peak} MiB");
    assert!(peak <= most, "{job} took {peak} MiB, and {most} are allowed");
}

/// Large files are committed, checked and pulled in less memory than any of them has bytes.
#[test]
fn files_that_fit_into_no_memory() {
    job();
    const TEST: &str = "files_that_fit_into_no_memory";
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    Repo::create(&path("origin"), Mode::Archive).unwrap();
    Repo::create(&path("machine"), Mode::BareUser).unwrap();
    std::fs::create_dir(path("tree")).unwrap();
    // What cannot be compressed costs no time; between it are holes, which cost no room.
    for (n, size) in LARGE.into_iter().enumerate() {
        let file = std::fs::File::create(path("tree").join(n.to_string())).unwrap();
        file.set_len(size << 20).unwrap();
        for place in 0..8 {
            file.write_all_at(&noise(place * 10 + n as u64, 5 << 20), (place * size / 8) << 20).unwrap();
        }
    }
    takes(TEST, "commit", dir.path(), 64);
    takes(TEST, "fsck", dir.path(), 128);
    takes(TEST, "pull", dir.path(), 192);
}

/// Both ways to lead from one version to the next, made and applied.
#[test]
fn updates_and_deltas_keep_to_what_they_say() {
    job();
    const TEST: &str = "updates_and_deltas_keep_to_what_they_say";
    const FILE: usize = 8 << 20;
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    let origin = Repo::create(&path("origin"), Mode::Archive).unwrap().without_fsync();
    let machine = Repo::create(&path("machine"), Mode::BareUser).unwrap().without_fsync();
    let commit = |version: u64| -> Checksum {
        let mut files = BTreeMap::new();
        for n in 0..3 {
            // Program-like: mostly the same, with a change every now and then, and something put in.
            let mut content = noise(n, FILE);
            for at in (0..FILE).step_by(40_000) {
                content[at] ^= version as u8;
            }
            content.splice(FILE / 2..FILE / 2, noise(version * 100 + n, 1000));
            files.insert(format!("f{n}"), Node::File(FileMeta::regular(0o644, 0), content));
        }
        if version == 2 {
            // Nothing like it is there, and it fills the largest dictionaries.
            let words: String = (0..900_000u64).map(|n| format!("{} ", n * n % 100_003)).collect();
            files.insert("new".to_owned(), Node::File(FileMeta::regular(0o644, 0), words.into_bytes()));
        }
        let tree = import::tree(&origin, &Node::Dir(DirMeta::root(0o755), files)).unwrap();
        Builder::new(tree.root_tree, tree.root_meta, version).write(&origin).unwrap()
    };
    let (one, two) = (commit(1), commit(2));
    origin.set_ref("one", &one).unwrap();
    origin.set_ref("two", &two).unwrap();
    pull::local(&origin, &machine, &one).unwrap();
    std::fs::create_dir(path("delta")).unwrap();
    // Twelve times the largest file for each of two threads, and their encoders.
    takes(TEST, "update", dir.path(), 2 * (12 * (FILE as u64 >> 20) + 64));
    takes(TEST, "apply-update", dir.path(), 192);
    assert!(machine.has(ObjectType::Commit, &two));
    // As its options say, with the encoders of two threads beside it.
    takes(TEST, "delta", dir.path(), 384 + 2 * 192);
    // What the update brought goes again.
    store::gc::prune(&machine, &store::gc::Options { keep: vec![one], ..Default::default() }).unwrap();
    assert!(!machine.has(ObjectType::Commit, &two));
    takes(TEST, "apply-delta", dir.path(), 256);
    assert!(machine.has(ObjectType::Commit, &two));
    let report = fsck::fsck(&machine, &fsck::Options::default()).unwrap();
    assert_eq!(report.problems, []);
}
