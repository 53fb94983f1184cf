//! Random directories, as odd as a tree may be, both ways round through the stock tools: the same commit contents, the
//! same files again, in every mode of repository.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use store::fsck::{self, fsck};
use store::object::valid_name;
use store::{Mode, Repo, checkout, import, pull};
use sys::Cmd;

/// One entry of a directory.
#[derive(Clone, Debug)]
enum Item {
    File {
        content: Vec<u8>,
        mode: u32,
        owner: u32,
        xattr: Option<Vec<u8>>,
    },
    /// A second name of the file before it.
    Again,
    Link(String),
    Dir {
        mode: u32,
        items: BTreeMap<String, Item>,
    },
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[^/\0]{1,40}",
        2 => "[a-z.+_~-]{1,20}",
        1 => "[a-z]{255}",
        1 => "\\.\\.[.a]{1,3}",
    ]
    .prop_filter("a file system takes it", |name: &String| valid_name(name) && name.len() <= 255)
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(Vec::new()),
        6 => prop::collection::vec(any::<u8>(), 0..3000),
        2 => (0usize..400_000, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]),
        // Larger than what is compressed in one piece while pulling.
        1 => (4_000_000usize..6_000_000, any::<u32>()).prop_map(|(size, seed)| {
            (0..size as u32).map(|n| (n.wrapping_mul(seed | 1) >> 13) as u8).collect()
        }),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    // Not empty: such an attribute is left out by both.
    let xattr = prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 1..60));
    let file = (content(), 0..0o10000u32, 0..70_000u32, xattr).prop_map(|(content, mode, owner, xattr)| Item::File {
        content,
        mode,
        owner,
        xattr,
    });
    let link = "[^\0]{1,200}".prop_map(Item::Link);
    prop_oneof![6 => file, 2 => link, 1 => Just(Item::Again)].prop_recursive(5, 60, 12, |inner| {
        let items = prop::collection::btree_map(name(), inner, 0..12);
        (items, 0..0o10000u32).prop_map(|(items, mode)| Item::Dir { mode, items })
    })
}

fn write(dir: &Path, items: &BTreeMap<String, Item>, root: bool) {
    let mut last = None;
    for (name, item) in items {
        let path = dir.join(name);
        match item {
            Item::Dir { mode, items } => {
                fs::create_dir(&path).unwrap();
                write(&path, items, root);
                let mode = if root { *mode } else { *mode | 0o700 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            Item::Link(target) => symlink(target, &path).unwrap(),
            Item::Again => match &last {
                Some(before) => fs::hard_link(before, &path).unwrap(),
                None => fs::write(&path, "first").unwrap(),
            },
            Item::File { content, mode, owner, xattr } => {
                fs::write(&path, content).unwrap();
                if let Some(value) = xattr {
                    rustix::fs::setxattr(&path, "user.note", value, rustix::fs::XattrFlags::empty()).unwrap();
                }
                if root {
                    lchown(&path, Some(*owner), Some(owner / 3)).unwrap();
                }
                let mode = if root { *mode } else { *mode | 0o400 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                last = Some(path);
            }
        }
    }
}

/// What a directory is, without times and inodes.
fn listing(dir: &Path, below: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().into_string().unwrap());
        let stat = entry.metadata().unwrap();
        let mut text = format!("{:o} {} {}", stat.mode(), stat.uid(), stat.gid());
        if stat.is_symlink() {
            text += &format!(" -> {:?}", fs::read_link(entry.path()).unwrap());
        } else if stat.is_file() {
            let mut value = [0; 100];
            let xattr =
                rustix::fs::getxattr(entry.path(), "user.note", &mut value[..]).map(|size| value[..size].to_vec());
            text += &format!(" {} {xattr:?}", store::Checksum::of(&fs::read(entry.path()).unwrap()));
        } else {
            listing(&entry.path(), &path, found);
        }
        found.insert(path, text);
    }
}

fn list(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    listing(dir, "", &mut found);
    found
}

fn ostree(repo: &Path, args: &[&str]) -> String {
    Cmd::new("ostree").arg(format!("--repo={}", repo.display())).args(args).run().unwrap().text()
}

fn healthy(repo: &Repo) {
    assert_eq!(fsck(repo, &fsck::Options::default()).unwrap().problems, [], "{}", repo.path().display());
    ostree(repo.path(), &["fsck", "--quiet"]);
}

fn both_ways(items: &BTreeMap<String, Item>) {
    let root = rustix::process::geteuid().is_root();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    write(&tree, items, root);
    let source = list(&tree);
    let modes = [(Mode::Archive, "archive"), (Mode::BareUser, "bare-user"), (Mode::Bare, "bare")];
    let mut sums = Vec::new();
    // Only root can keep true owners.
    for (mode, name) in modes.into_iter().take(if root { 3 } else { 2 }) {
        let path = |who: &str| dir.path().join(format!("{who}-{name}"));
        // Theirs, read by us.
        ostree(&path("theirs"), &["init", &format!("--mode={name}")]);
        ostree(&path("theirs"), &["config", "set", "core.fsync", "false"]);
        let arg = format!("--tree=dir={}", tree.display());
        let commit = ostree(&path("theirs"), &["commit", "-b", "x", "--timestamp=@0", &arg]).parse().unwrap();
        let theirs = Repo::open(&path("theirs")).unwrap();
        healthy(&theirs);
        let stock = theirs.load_commit(&commit).unwrap();
        // Ours, read by them.
        let ours = Repo::create(&path("ours"), mode).unwrap().without_fsync();
        let imported = import::directory(&ours, &tree, &import::Options::default()).unwrap();
        assert_eq!((imported.root_tree, imported.root_meta), (stock.root_tree, stock.root_meta), "{name}");
        pull::local(&theirs, &ours, &commit).unwrap();
        ours.set_ref("x", &commit).unwrap();
        healthy(&ours);
        if root {
            let (a, b) = (dir.path().join(format!("a-{name}")), dir.path().join(format!("b-{name}")));
            ostree(&path("ours"), &["checkout", "x", a.to_str().unwrap()]);
            assert_eq!(list(&a), source, "{name}: the stock checkout of our repository");
            checkout::checkout(&theirs, &commit, "/", &b, &checkout::Options::default()).unwrap();
            assert_eq!(list(&b), source, "{name}: our checkout of the stock repository");
        }
        sums.push(stock.root_tree);
    }
    assert!(sums.iter().all(|sum| *sum == sums[0]));
}

fn heavy(test: &str) -> bool {
    let heavy = std::env::var_os("SLIPWAY_HEAVY").is_some();
    if !heavy {
        eprintln!("{test} DID NOT RUN: set SLIPWAY_HEAVY=1 to compare random trees with the stock tools");
    }
    heavy
}

#[test]
fn random_directories_are_the_same_for_both() {
    if !heavy("random_directories_are_the_same_for_both") {
        return;
    }
    let mut runner = TestRunner::new(Config { cases: 25, failure_persistence: None, ..Config::default() });
    let items = prop::collection::btree_map(name(), item(), 0..12);
    runner
        .run(&items, |items| {
            both_ways(&items);
            Ok(())
        })
        .unwrap();
}

#[test]
fn thousands_of_entries_and_a_huge_file() {
    if !heavy("thousands_of_entries_and_a_huge_file") {
        return;
    }
    let file = |content: Vec<u8>| Item::File { content, mode: 0o644, owner: 0, xattr: None };
    let many = (0..5000u32).map(|n| (format!("entry-{n}"), file(n.to_le_bytes().to_vec()))).collect();
    // More than is held in memory at once.
    let huge = (0..70u32 << 20).map(|n| (n.wrapping_mul(n >> 7) >> 3) as u8).collect();
    let items = BTreeMap::from([
        ("many".to_owned(), Item::Dir { mode: 0o755, items: many }),
        ("huge".to_owned(), file(huge)),
        ("setuid".to_owned(), Item::File { content: b"x".to_vec(), mode: 0o4755, owner: 1, xattr: Some(vec![0, 255]) }),
    ]);
    both_ways(&items);
}
