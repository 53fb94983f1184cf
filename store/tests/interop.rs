//! The stock `ostree` and `openssl` as oracles, in both directions. They are required: without them these tests fail.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use common::scratch;
use proptest::prelude::*;
use store::commit::Builder;
use store::fsck::{self, fsck};
use store::import::{self, Node};
use store::sign::{SecretKey, sign_commit};
use store::{Checksum, DirMeta, FileMeta, Mode, Repo, Verity, pull, summary};
use sys::Cmd;

fn ostree(repo: &Path, args: &[&str]) -> String {
    Cmd::new("ostree").arg(format!("--repo={}", repo.display())).args(args).run().unwrap().text()
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything that is odd and allowed.
fn odd_tree(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("usr/bin")).unwrap();
    fs::create_dir_all(tree.join("usr/empty dir")).unwrap();
    fs::create_dir_all(tree.join("etc/a.d")).unwrap();
    fs::create_dir_all(tree.join("etc/a")).unwrap();
    fs::write(tree.join("etc/a-"), "sorts before a.d, after a").unwrap();
    fs::write(tree.join("etc/Größe — ünïcode \u{1f600}"), "name").unwrap();
    fs::write(tree.join("etc/new\nline"), "name").unwrap();
    fs::write(tree.join("etc/back\\slash 'quote' \"double\""), "name").unwrap();
    fs::write(tree.join("etc").join("x".repeat(255)), "long name").unwrap();
    fs::write(tree.join("usr/empty"), "").unwrap();
    fs::write(tree.join("usr/zeros"), vec![0; 3 << 20]).unwrap();
    fs::write(tree.join("usr/bin/setuid"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("usr/bin/setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::write(tree.join("usr/bin/secret"), "mode 0\n").unwrap();
    fs::set_permissions(tree.join("usr/bin/secret"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(tree.join("usr/empty dir"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("../../etc/nowhere", tree.join("usr/bin/dangling")).unwrap();
    symlink("ü".repeat(900), tree.join("usr/bin/long")).unwrap();
    fs::hard_link(tree.join("usr/zeros"), tree.join("usr/zeros2")).unwrap();
    let marked = tree.join("usr/marked");
    fs::write(&marked, "xattrs").unwrap();
    // Set in an order that is not theirs in the object.
    for (name, value) in [("user.z", &b"last"[..]), ("user.a", b"\0\x01\xff"), ("user.m", b"")] {
        xattr(&marked, name, value);
    }
    xattr(&tree.join("usr"), "user.dir", b"of a directory");
    // A regular file of which some bytes look like offsets: sizes on both sides of one byte.
    for size in [254, 255, 256, 257, 65535, 65536] {
        fs::write(tree.join(format!("etc/a/{size}")), vec![b'o'; size]).unwrap();
    }
    if root() {
        chown(tree.join("usr/empty"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(tree.join("usr/bin/dangling"), Some(7), Some(8)).unwrap();
    }
    tree
}

fn healthy(repo: &Repo) {
    let report = fsck(repo, &fsck::Options::default()).unwrap();
    assert_eq!(report.problems, [], "{}", repo.path().display());
    ostree(repo.path(), &["fsck", "--quiet"]);
}

fn commit_ours(repo: &Repo, tree: &Path, name: &str) -> Checksum {
    let imported = import::directory(repo, tree, &import::Options::default()).unwrap();
    let mut builder = Builder::new(imported.root_tree, imported.root_meta, 1_700_000_000).bind(name);
    builder.subject = "subject".into();
    builder.body = "body\nof two lines".into();
    builder.metadata.insert("version".into(), "42.1".into());
    builder.record_sizes(repo).unwrap();
    let commit = builder.write(repo).unwrap();
    repo.set_ref(name, &commit).unwrap();
    commit
}

fn names(mode: Mode) -> &'static str {
    if mode == Mode::Archive { "archive" } else { "bare-user" }
}

#[test]
fn the_same_directory_is_the_same_tree_for_both() {
    let dir = scratch();
    let tree = odd_tree(dir.path());
    for mode in [Mode::Archive, Mode::BareUser] {
        let theirs = dir.path().join(format!("theirs-{}", names(mode)));
        ostree(&theirs, &["init", &format!("--mode={}", names(mode))]);
        // 2022.7 hashes xattrs in the order it finds them; ext4 gives them in the order they were set.
        let plain = dir.path().join("plain");
        if !plain.exists() {
            Cmd::new("cp").arg("-a").arg(&tree).arg(&plain).run().unwrap();
            for path in ["usr/marked", "usr"] {
                for name in ["user.z", "user.a", "user.m", "user.dir"] {
                    let _ = rustix::fs::removexattr(plain.join(path), name);
                }
            }
            for name in ["user.a", "user.m", "user.z"] {
                xattr(&plain.join("usr/marked"), name, b"value");
            }
            // Both leave out one without a value.
            xattr(&plain.join("usr/empty"), "user.none", b"");
        }
        ostree(&theirs, &["commit", "-b", "x", "-s", "theirs", &format!("--tree=dir={}", plain.display())]);
        let theirs = Repo::open(&theirs).unwrap();
        assert_eq!(theirs.mode(), mode);
        let stock = theirs.load_commit(&theirs.resolve("x").unwrap()).unwrap();
        assert_eq!((stock.subject.as_str(), stock.parent), ("theirs", None));

        let ours = Repo::create(&dir.path().join(format!("ours-{}", names(mode))), mode).unwrap();
        let imported = import::directory(&ours, &plain, &import::Options::default()).unwrap();
        assert_eq!((imported.root_tree, imported.root_meta), (stock.root_tree, stock.root_meta));
        healthy(&theirs);
    }
}

#[test]
fn stock_reads_what_we_write() {
    let dir = scratch();
    let tree = odd_tree(dir.path());
    for mode in [Mode::Archive, Mode::BareUser] {
        let path = dir.path().join(names(mode));
        let repo = Repo::create(&path, mode).unwrap();
        let commit = commit_ours(&repo, &tree, "os/x");
        healthy(&repo);
        let log = ostree(&path, &["log", "os/x"]);
        assert!(log.contains(&format!("commit {commit}")) && log.contains("Version: 42.1"), "{log}");
        assert!(log.contains("2023-11-14 22:13:20 +0000") && log.contains("of two lines"), "{log}");
        let listing = ostree(&path, &["ls", "-R", "-X", "os/x"]);
        assert!(listing.contains("-06755"), "{listing}");
        assert!(listing.contains("(b'user.a', [byte 0x00, 0x01, 0xff])"), "{listing}");
        assert!(ostree(&path, &["show", "os/x"]).contains("subject"));

        // Checked out by them and imported by us again, nothing has changed.
        if root() {
            let out = dir.path().join(format!("out-{}", names(mode)));
            ostree(&path, &["checkout", "os/x", out.to_str().unwrap()]);
            let again = import::directory(&repo, &out, &import::Options::default()).unwrap();
            let loaded = repo.load_commit(&commit).unwrap();
            assert_eq!((again.root_tree, again.root_meta), (loaded.root_tree, loaded.root_meta));
        }

        // Pulled by them, into the other mode.
        let other = dir.path().join(format!("pulled-from-{}", names(mode)));
        let other_mode = if mode == Mode::Archive { "bare-user" } else { "archive" };
        ostree(&other, &["init", &format!("--mode={other_mode}")]);
        ostree(&other, &["pull-local", path.to_str().unwrap(), "os/x"]);
        let other = Repo::open(&other).unwrap();
        assert_eq!(other.resolve("os/x").unwrap(), commit);
        healthy(&other);
    }
}

/// What is compressed in pieces, on several cores, is one stream to everybody else.
#[test]
fn stock_reads_a_file_that_is_compressed_in_pieces() {
    let dir = scratch();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    // Text, what cannot be compressed, and nothing at all; more than is taken into memory at once.
    let mut content: Vec<u8> =
        (0..600_000u64).flat_map(|n| format!("{} of {n}\n", n * n % 7919).into_bytes()).collect();
    content.extend(common::noise(1, 3 << 20));
    content.resize(66 << 20, 0);
    content.extend(b"the end");
    fs::write(tree.join("large"), &content).unwrap();
    let path = dir.path().join("repo");
    let repo = Repo::create(&path, Mode::Archive).unwrap().without_fsync();
    commit_ours(&repo, &tree, "os/x");
    healthy(&repo);
    ostree(&path, &["fsck"]);
    ostree(&path, &["checkout", "-U", "os/x", dir.path().join("out").to_str().unwrap()]);
    assert!(fs::read(dir.path().join("out/large")).unwrap() == content);
}

#[test]
fn we_read_what_stock_writes() {
    let dir = scratch();
    let tree = odd_tree(dir.path());
    let theirs = dir.path().join("theirs");
    ostree(&theirs, &["init", "--mode=archive"]);
    let from = format!("--tree=dir={}", tree.display());
    let metadata = ["--add-metadata-string=version=7", "--add-metadata=k=@a{sv} {'n': <uint32 5>, 't': <('a', 1.5)>}"];
    ostree(&theirs, &["commit", "-b", "a/b", "-s", "one", "--generate-sizes", metadata[0], metadata[1], &from]);
    fs::write(tree.join("etc/added"), "new").unwrap();
    ostree(&theirs, &["commit", "-b", "a/b", "-s", "two", metadata[0], &from]);
    let empty_detached = Repo::open(&theirs).unwrap();
    assert_eq!(empty_detached.load_detached(&empty_detached.resolve("a/b").unwrap()).unwrap(), None);
    let theirs = empty_detached;
    let two = theirs.resolve("a/b").unwrap();
    let one = theirs.resolve("a/b^").unwrap();
    assert_eq!(theirs.resolve(&one.to_hex()[..10]).unwrap(), one);
    let commit = theirs.load_commit(&one).unwrap();
    assert_eq!(commit.version(), Some("7"));
    assert!(commit.metadata["k"].as_dict().is_some_and(|k| k.len() == 2), "{:?}", commit.metadata["k"]);
    assert_eq!(commit.ref_bindings().unwrap(), ["a/b"]);
    let sizes = store::commit::recorded_sizes(&commit.metadata).unwrap();
    for size in &sizes {
        assert_eq!(theirs.stored_size(size.kind, &size.checksum).unwrap(), size.archived);
    }
    let changes = store::diff::diff(&theirs, &one, &two).unwrap();
    assert_eq!(changes, [("/etc/added".to_owned(), store::diff::Change::Added)]);
    healthy(&theirs);
    for mode in [Mode::BareUser, Mode::Archive] {
        let ours = Repo::create(&dir.path().join(names(mode)), mode).unwrap();
        for commit in [&one, &two] {
            pull::local(&theirs, &ours, commit).unwrap();
        }
        ours.set_ref("a/b", &two).unwrap();
        healthy(&ours);
    }
}

#[test]
fn bare_repositories_are_read() {
    // Only root can make one that is healthy: files belong to whom the commit says.
    let dir = scratch();
    let tree = odd_tree(dir.path());
    let theirs = dir.path().join("theirs");
    ostree(&theirs, &["init", "--mode=bare"]);
    ostree(&theirs, &["commit", "-b", "x", &format!("--tree=dir={}", tree.display())]);
    let theirs = Repo::open(&theirs).unwrap();
    assert_eq!(theirs.mode(), Mode::Bare);
    let ours = Repo::create(&dir.path().join("ours"), Mode::Archive).unwrap();
    if root() {
        // Symbolic links and all, except the file whose xattrs 2022.7 hashed in the order they were set.
        let commit = theirs.resolve("x").unwrap();
        let report = fsck(&theirs, &fsck::Options::default()).unwrap();
        assert!(report.problems.len() <= 1, "{:?}", report.problems);
        if report.problems.is_empty() {
            pull::local(&theirs, &ours, &commit).unwrap();
        }
    }
}

#[test]
fn bare_repositories_are_written() {
    let dir = scratch();
    let tree = odd_tree(dir.path());
    let path = dir.path().join("bare");
    let repo = Repo::create(&path, Mode::Bare).unwrap();
    if !root() {
        assert!(repo.stage().is_err(), "the owners could not be kept");
        return;
    }
    // 2022.7 hashes xattrs in the order in which the file system gives them; of one there is but one order.
    for name in ["user.m", "user.z"] {
        rustix::fs::removexattr(tree.join("usr/marked"), name).unwrap();
    }
    let commit = commit_ours(&repo, &tree, "os/x");
    healthy(&repo);
    // The same tree, by way of an archive.
    let archive = Repo::create(&dir.path().join("archive"), Mode::Archive).unwrap();
    let same = archive.load_commit(&commit_ours(&archive, &tree, "os/x")).unwrap();
    assert_eq!(repo.load_commit(&commit).unwrap().root_tree, same.root_tree);
    let commit = same.checksum();
    let other = Repo::create(&dir.path().join("other"), Mode::Bare).unwrap();
    pull::local(&archive, &other, &commit).unwrap();
    other.set_ref("os/x", &commit).unwrap();
    healthy(&other);
    let out = dir.path().join("out");
    ostree(&path, &["checkout", "os/x", out.to_str().unwrap()]);
    let again = import::directory(&archive, &out, &import::Options::default()).unwrap();
    assert_eq!(again.root_tree, same.root_tree);
}

#[test]
fn an_archive_is_the_same_tree_for_both() {
    let dir = scratch();
    let tree = odd_tree(dir.path());
    // One attribute each: 2022.7 does not sort them.
    for name in ["user.m", "user.z"] {
        rustix::fs::removexattr(tree.join("usr/marked"), name).unwrap();
    }
    let file = dir.path().join("tree.tar");
    let tar = Cmd::new("tar").args(["--format=posix", "--xattrs", "--xattrs-include=*", "-C"]).arg(&tree).arg("-cf");
    tar.arg(&file).arg(".").run().unwrap();
    let repo = Repo::create(&dir.path().join("ours"), Mode::Archive).unwrap();
    let read = |path: &Path| import::tar(&repo, fs::File::open(path).unwrap(), &import::TarOptions::default()).unwrap();
    let imported = read(&file);
    let from_dir = import::directory(&repo, &tree, &import::Options::default()).unwrap();
    assert_eq!((imported.root_tree, imported.root_meta), (from_dir.root_tree, from_dir.root_meta));
    assert_eq!((imported.stats.files, imported.stats.dirs), (from_dir.stats.files, from_dir.stats.dirs));
    Cmd::new("xz").args(["-k", "-0"]).arg(&file).run().unwrap();
    assert_eq!(read(&dir.path().join("tree.tar.xz")).root_tree, imported.root_tree);

    // libarchive drops what it does not know, so a plain tree: GNU's own headers for long names.
    fs::remove_file(tree.join("usr/marked")).unwrap();
    rustix::fs::removexattr(tree.join("usr"), "user.dir").unwrap();
    let tar = Cmd::new("tar").args(["--format=gnu", "-C"]).arg(&tree).arg("-cf").arg(&file);
    tar.arg(".").run().unwrap();
    let theirs = dir.path().join("theirs");
    ostree(&theirs, &["init", "--mode=archive"]);
    ostree(&theirs, &["commit", "-b", "x", &format!("--tree=tar={}", file.display())]);
    let theirs = Repo::open(&theirs).unwrap();
    let stock = theirs.load_commit(&theirs.resolve("x").unwrap()).unwrap();
    let imported = read(&file);
    assert_eq!((imported.root_tree, imported.root_meta), (stock.root_tree, stock.root_meta));
}

/// libostree locks with record locks: with anything else, a prune would run beside a commit.
#[test]
fn stock_waits_for_our_lock_and_we_for_theirs() {
    let dir = scratch();
    let path = dir.path().join("repo");
    let repo = Repo::create(&path, Mode::Archive).unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    ostree(&path, &["config", "set", "core.lock-timeout-secs", "1"]);
    let commit = Cmd::new("ostree").arg(format!("--repo={}", path.display())).args(["commit", "-b", "x"]);
    let commit = commit.arg(format!("--tree=dir={}", tree.display()));
    let lock = repo.lock_exclusive().unwrap();
    assert_ne!(commit.output().unwrap().code, 0, "it ran while we held the lock");
    drop(lock);
    let shared = repo.lock_shared().unwrap();
    commit.run().unwrap();
    // Opened again, to see the time-out; somebody else has a shared lock.
    let again = Repo::open(&path).unwrap();
    assert!(again.lock_exclusive().is_err());
    drop(shared);
    again.lock_exclusive().unwrap();
}

#[test]
fn stock_pulls_over_http_from_our_publication() {
    let dir = scratch();
    let tree = odd_tree(dir.path());
    let path = dir.path().join("archive");
    let repo = Repo::create(&path, Mode::Archive).unwrap();
    let commit = commit_ours(&repo, &tree, "os/x");
    for with_summary in [false, true] {
        if with_summary {
            summary::write(&repo).unwrap();
            let text = ostree(&path, &["summary", "-v"]);
            assert!(text.contains(&commit.to_string()) && text.contains("42.1"), "{text}");
        }
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let server = store::serve::Server::bind(&path, address, Default::default()).unwrap().spawn().unwrap();
        let client = dir.path().join(format!("client-{with_summary}"));
        ostree(&client, &["init", "--mode=bare-user"]);
        ostree(&client, &["remote", "add", "--no-gpg-verify", "r", &server.url()]);
        ostree(&client, &["pull", "r", "os/x"]);
        let client = Repo::open(&client).unwrap();
        assert_eq!(client.resolve("r:os/x").unwrap(), commit);
        healthy(&client);
    }
}

#[test]
fn objects_of_both_lie_alike_in_bare_user() {
    let dir = scratch();
    let tree = odd_tree(dir.path());
    for path in ["usr/marked", "usr"] {
        for name in ["user.z", "user.a", "user.m", "user.dir"] {
            let _ = rustix::fs::removexattr(tree.join(path), name);
        }
    }
    let theirs = dir.path().join("theirs");
    ostree(&theirs, &["init", "--mode=bare-user"]);
    ostree(&theirs, &["commit", "-b", "x", &format!("--tree=dir={}", tree.display())]);
    let theirs = Repo::open(&theirs).unwrap();
    let ours = Repo::create(&dir.path().join("ours"), Mode::BareUser).unwrap();
    pull::local_with(
        &theirs,
        &ours,
        &theirs.resolve("x").unwrap(),
        &pull::LocalOptions { verity: Verity::IfSupported, ..Default::default() },
    )
    .unwrap();
    for (kind, checksum) in theirs.all_objects().unwrap() {
        let path = theirs.loose_path(kind, &checksum);
        let (a, b) = (theirs.path().join("objects").join(&path), ours.path().join("objects").join(&path));
        let (stat, ours) = (fs::metadata(&a).unwrap(), fs::metadata(&b).unwrap());
        assert_eq!((stat.permissions(), stat.len()), (ours.permissions(), ours.len()), "{path}");
        let meta = |path: &Path| {
            let mut buffer = [0; 4096];
            rustix::fs::getxattr(path, "user.ostreemeta", &mut buffer).map(|n| buffer[..n].to_vec()).ok()
        };
        assert_eq!(meta(&a), meta(&b), "{path}");
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap(), "{path}");
    }
}

#[test]
fn openssl_verifies_our_signatures() {
    let dir = scratch();
    let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
    let tree = Node::Dir(DirMeta::root(0o755), [("f".into(), Node::File(FileMeta::regular(0o644, 0), vec![1]))].into());
    let tree = import::tree(&repo, &tree).unwrap();
    let commit = Builder::new(tree.root_tree, tree.root_meta, 0).write(&repo).unwrap();
    let key = SecretKey::generate().unwrap();
    sign_commit(&repo, &commit, &key).unwrap();
    sign_commit(&repo, &commit, &key).unwrap();
    let detached = repo.load_detached(&commit).unwrap().unwrap();
    let signatures = detached[store::sign::KEY].as_bytes_array().unwrap();
    assert_eq!(signatures.len(), 1, "signing twice changes nothing");

    // SubjectPublicKeyInfo of an Ed25519 key: a fixed prefix and the 32 bytes (RFC 8410).
    let der = [&hex::decode("302a300506032b6570032100").unwrap()[..], key.public().as_bytes()].concat();
    let pem = base64::engine::general_purpose::STANDARD.encode(der);
    let file = |name: &str| dir.path().join(name);
    fs::write(file("key.pem"), format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n")).unwrap();
    fs::write(file("signature"), &signatures[0]).unwrap();
    fs::write(file("commit"), repo.load_commit(&commit).unwrap().bytes).unwrap();
    let verify = |message: &str| {
        Cmd::new("openssl")
            .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"])
            .arg(file("key.pem"))
            .arg("-sigfile")
            .arg(file("signature"))
            .arg("-in")
            .arg(file(message))
            .output()
            .unwrap()
            .code
    };
    assert_eq!(verify("commit"), 0);
    fs::write(file("other"), b"another message").unwrap();
    assert_ne!(verify("other"), 0);
}

fn node() -> impl Strategy<Value = Node> {
    let xattrs = prop::collection::btree_map("user\\.[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..40), 0..3);
    let content =
        prop_oneof![prop::collection::vec(any::<u8>(), 0..700), (0usize..200_000).prop_map(|size| vec![b'z'; size]),];
    let file = (content, 0..0o10000u32, 0..70000u32, xattrs).prop_map(|(content, mode, id, xattrs)| {
        let xattrs = xattrs.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
        Node::File(FileMeta { uid: id, gid: id / 2, xattrs, ..FileMeta::regular(mode, 0) }, content)
    });
    let link = "[^\0]{1,300}".prop_map(|target| Node::File(FileMeta::link(target), Vec::new()));
    prop_oneof![3 => file, 1 => link].prop_recursive(4, 40, 9, |inner| {
        (prop::collection::btree_map("[^/\0]{1,60}", inner, 0..9), 0..0o10000u32).prop_map(|(entries, mode)| {
            let entries = entries.into_iter().filter(|(name, _)| store::object::valid_name(name)).collect();
            Node::Dir(DirMeta::root(mode), entries)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_survive_every_way_round(entry in node()) {
        let dir = scratch();
        let root = Node::Dir(DirMeta::root(0o755), [("root".to_owned(), entry)].into());
        let archive = Repo::create(&dir.path().join("archive"), Mode::Archive).unwrap().without_fsync();
        let tree = import::tree(&archive, &root).unwrap();
        let commit = Builder::new(tree.root_tree, tree.root_meta, 0).write(&archive).unwrap();
        archive.set_ref("x", &commit).unwrap();
        let user = Repo::create(&dir.path().join("user"), Mode::BareUser).unwrap().without_fsync();
        pull::local(&archive, &user, &commit).unwrap();
        user.set_ref("x", &commit).unwrap();
        let direct = Repo::create(&dir.path().join("direct"), Mode::BareUser).unwrap().without_fsync();
        let again = import::tree(&direct, &root).unwrap();
        prop_assert_eq!((again.root_tree, again.root_meta), (tree.root_tree, tree.root_meta));
        healthy(&archive);
        healthy(&user);
    }
}
