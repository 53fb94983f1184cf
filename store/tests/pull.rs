//! Pulls over a server of our own, with everything that goes wrong on the way.

mod common;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use common::{Log, REF, World, content, healthy, noise, text, tree};
use store::commit::Builder;
use store::fsck::{self, fsck};
use store::pull::{self, Ahead, Missing, Network, Options, Outcome, Progress, PullError};

use store::serve::{self, FailAfter};
use store::sign::{Keyring, SecretKey, VerifyError, sign_commit};
use store::{Checksum, DirMeta, DirTree, Error, FileMeta, Mode, ObjectType, Repo, gc, import, update};

#[test]
fn a_pull_brings_everything_once_with_exact_progress() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    for (name, mode) in [("archive", Mode::Archive), ("user", Mode::BareUser)] {
        let target = world.target(name, mode);
        let seen: Mutex<Vec<Progress>> = Mutex::default();
        let record = |p: &Progress| seen.lock().unwrap().push(*p);
        let options = Options { progress: Some(&record), ..world.options(&server.url()) };
        let outcome = pull::http(&options, &target).unwrap();
        assert_eq!(outcome.signer, Some(world.key.public()));
        assert_eq!(target.resolve("default:slipway/test").unwrap(), outcome.commit);
        assert_eq!(content(&target, &outcome.commit), content(&world.origin, &outcome.commit));
        healthy(&target);
        let last = *seen.lock().unwrap().iter().max_by_key(|p| (p.objects, p.bytes)).unwrap();
        assert_eq!(last.objects, last.objects_total);
        assert_eq!(Some(last.bytes), last.bytes_total, "the commit records what a pull fetches");
        assert_eq!((last.objects, last.bytes), (outcome.fetched, outcome.bytes));
        let first = *seen.lock().unwrap().iter().find(|p| p.bytes_total.is_some()).unwrap();
        assert_eq!((first.objects, first.bytes), (0, 0), "known before the first object comes");
        assert_eq!((first.objects_total, first.bytes_total), (last.objects_total, last.bytes_total));

        let before = server.requests();
        let again = pull::http(&world.options(&server.url()), &target).unwrap();
        assert_eq!((again.fetched, again.bytes), (0, 0));
        assert_eq!(server.requests() - before, 3, "ref, commit, signatures");
    }
    let newer = world.commit(2);
    let target = world.target("user", Mode::BareUser);
    let remote_options = world.options(&server.url());
    let remote = pull::Remote::open(&remote_options).unwrap();
    let verified = remote.commit(REF, &target).unwrap();
    let ahead = remote.ahead(REF, &verified, &target).unwrap();
    let outcome = remote.fetch(REF, &verified, &target).unwrap();
    assert_eq!(outcome.commit, newer);
    assert_eq!(ahead, Some(Ahead::Objects(Missing { objects: outcome.fetched, bytes: outcome.bytes })));
    // os-release, tool; the dirtrees of /, etc, usr, usr/bin.
    assert_eq!(outcome.fetched, 6);
}

#[test]
fn server_gone_in_the_middle_then_resumed() {
    let world = World::new();
    let target = world.target("user", Mode::BareUser);
    let whole = {
        let server = world.serve(serve::Options::default());
        pull::http(&world.options(&server.url()), &world.target("other", Mode::Archive)).unwrap()
    };
    for fail in [FailAfter::Bytes(60_000), FailAfter::Requests(25)] {
        let server = world.serve(serve::Options { fail_after: Some(fail), ..serve::Options::default() });
        let error = pull::http(&world.options(&server.url()), &target).unwrap_err();
        assert!(matches!(error, PullError::Fetch { .. }), "{}", text(&error));
        assert!(text(&error).contains(&server.url()), "{}", text(&error));
        assert!(target.read_ref("default:slipway/test").unwrap().is_none());
        assert!(!target.has(ObjectType::Commit, &whole.commit));
        assert!(target.is_partial(&whole.commit));
        healthy(&target);
    }
    let server = world.serve(serve::Options::default());
    let rest = pull::http(&world.options(&server.url()), &target).unwrap();
    assert!(rest.present > 0 && rest.fetched < whole.fetched, "{rest:?}");
    assert_eq!(rest.present + rest.fetched, whole.fetched);
    assert!(!target.is_partial(&whole.commit));
    healthy(&target);
}

#[test]
fn tampered_and_truncated_objects_are_named_and_never_stored() {
    type Story = (&'static str, &'static str, fn(&Path));
    let stories: [Story; 6] = [
        ("one bit of a file", "filez", |path| {
            let mut bytes = fs::read(path).unwrap();
            let last = bytes.len() - 20;
            bytes[last] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("a file that is another valid file", "filez", |path| {
            let mut bytes = FileMeta::regular(0o644, 5).filez_header();
            bytes.extend_from_slice(&[1, 5, 0, !5, !0]);
            bytes.extend_from_slice(b"evil\n");
            fs::write(path, bytes).unwrap();
        }),
        ("truncated file", "filez", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("bytes after a dirtree", "dirtree", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.push(0);
            fs::write(path, bytes).unwrap();
        }),
        ("empty dirmeta", "dirmeta", |path| fs::write(path, "").unwrap()),
        ("missing file", "filez", |path| fs::remove_file(path).unwrap()),
    ];
    for (story, extension, tamper) in stories {
        let world = World::new();
        let path = world.object(extension, |size| extension != "filez" || size > 2000);
        let original = fs::read(&path).unwrap();
        tamper(&path);
        let server = world.serve(serve::Options::default());
        let target = world.target("user", Mode::BareUser);
        let error = pull::http(&world.options(&server.url()), &target).unwrap_err();
        let message = text(&error);
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(message.contains(name), "{story}: {message}");
        healthy(&target);
        let everything: Vec<_> = target.all_objects().unwrap();
        assert!(everything.iter().all(|(_, sum)| &sum.to_hex()[2..] != name), "{story}: stored");
        fs::write(&path, original).unwrap();
        pull::http(&world.options(&server.url()), &target).unwrap();
        healthy(&target);
    }
}

#[test]
fn tampered_object_shows_both_checksums() {
    let world = World::new();
    let path = world.object("dirtree", |_| true);
    fs::write(&path, DirTree::default().encode()).unwrap();
    let server = world.serve(serve::Options::default());
    let error = pull::http(&world.options(&server.url()), &world.target("t", Mode::Archive)).unwrap_err();
    let found = Checksum::of(&DirTree::default().encode()).to_string();
    assert!(matches!(error, PullError::Mismatch { .. }) && error.to_string().contains(&found), "{error}");
}

#[test]
fn zip_bomb_is_stopped_by_the_declared_size() {
    let world = World::new();
    let path = world.object("filez", |size| (2900..3200).contains(&size));
    // 3000 bytes are declared and signed; the stream holds a gigabyte of zeros.
    let mut bomb = FileMeta::regular(0o644, 3000).filez_header();
    let mut encoder = flate2::write::DeflateEncoder::new(&mut bomb, flate2::Compression::best());
    for _ in 0..64 {
        std::io::Write::write_all(&mut encoder, &vec![0; 16 << 20]).unwrap();
    }
    encoder.finish().unwrap();
    fs::write(&path, &bomb).unwrap();
    let server = world.serve(serve::Options::default());
    let error = pull::http(&world.options(&server.url()), &world.target("t", Mode::BareUser)).unwrap_err();
    assert!(text(&error).contains("longer than its header says"), "{}", text(&error));

    // The header lies too: refused before anything is inflated.
    let lie = FileMeta::regular(0o644, 1 << 40).filez_header();
    fs::write(&path, [&lie, &bomb[lie.len()..]].concat()).unwrap();
    let error = pull::http(&world.options(&server.url()), &world.target("t", Mode::BareUser)).unwrap_err();
    assert!(text(&error).contains("the commit says 3000"), "{}", text(&error));
}

#[test]
fn untrusted_commits_are_refused_before_their_objects_are_fetched() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let target = world.target("t", Mode::BareUser);
    let stranger = SecretKey::from_seed(&[1; 32]);
    let before = server.requests();
    let options = Options { keyring: Some(Keyring::of([stranger.public()])), ..world.options(&server.url()) };
    let error = pull::http(&options, &target).unwrap_err();
    assert!(matches!(error, PullError::Untrusted { source: VerifyError::Untrusted(1), .. }), "{error}");
    assert_eq!(server.requests() - before, 3);

    let mut keyring = Keyring::of([world.key.public()]);
    keyring.revoke(world.key.public());
    keyring.trust(stranger.public());
    let options = Options { keyring: Some(keyring), ..world.options(&server.url()) };
    let error = pull::http(&options, &target).unwrap_err();
    assert!(matches!(error, PullError::Untrusted { source: VerifyError::Revoked(_), .. }), "{error}");

    fs::remove_file(world.object("commitmeta", |_| true)).unwrap();
    let error = pull::http(&world.options(&server.url()), &target).unwrap_err();
    assert!(matches!(error, PullError::Untrusted { source: VerifyError::Unsigned, .. }), "{error}");
    assert!(target.all_objects().unwrap().is_empty());
    let options = Options { keyring: None, ..world.options(&server.url()) };
    assert_eq!(pull::http(&options, &target).unwrap().signer, None);
}

#[test]
fn downgrade_and_sidegrade_are_refused() {
    let world = World::new();
    let old = world.origin.resolve(REF).unwrap();
    let new = world.commit(2);
    let server = world.serve(serve::Options::default());
    let target = world.target("t", Mode::BareUser);
    pull::http(&world.options(&server.url()), &target).unwrap();
    world.origin.set_ref(REF, &old).unwrap();
    let error = pull::http(&world.options(&server.url()), &target).unwrap_err();
    assert!(matches!(error, PullError::Downgrade { .. }), "{error}");
    assert_eq!(target.resolve("default:slipway/test").unwrap(), new);
    let floor = Options { not_older_than: Some(1002), remote: None, ..world.options(&server.url()) };
    assert!(matches!(pull::http(&floor, &target), Err(PullError::Downgrade { .. })));
    let options = Options { allow_downgrade: true, ..world.options(&server.url()) };
    assert_eq!(pull::http(&options, &target).unwrap().commit, old);

    // A valid commit of this ref, served under another name.
    world.origin.set_ref("slipway/other", &new).unwrap();
    let options = Options { refs: vec!["slipway/other".into()], ..world.options(&server.url()) };
    let error = pull::http(&options, &target).unwrap_err();
    assert!(matches!(error, PullError::Binding { .. }), "{error}");
}

/// Why a pull of a signed commit with this directory is refused; the directory must not have arrived.
fn refused(world: &World, evil: &DirTree) -> PullError {
    let staging = world.origin.stage().unwrap();
    let tree = staging.write_metadata(ObjectType::DirTree, &evil.encode()).unwrap();
    let meta = staging.write_metadata(ObjectType::DirMeta, &DirMeta::root(0o755).encode()).unwrap();
    staging.flush().unwrap();
    drop(staging);
    let commit = Builder::new(tree, meta, 5000).bind(REF).write(&world.origin).unwrap();
    sign_commit(&world.origin, &commit, &world.key).unwrap();
    world.origin.set_ref(REF, &commit).unwrap();
    let server = world.serve(serve::Options::default());
    let target = world.target("t", Mode::BareUser);
    let error = pull::http(&world.options(&server.url()), &target).unwrap_err();
    assert!(!target.has(ObjectType::DirTree, &tree));
    error
}

#[test]
fn path_traversal_in_a_dirtree_is_refused() {
    let world = World::new();
    // A commit that is signed, by a builder that was taken over, or by mistake.
    let evil = DirTree { files: vec![("../../../../etc/cron.d/evil".into(), Checksum::of(b""))], dirs: Vec::new() };
    let error = refused(&world, &evil);
    assert!(text(&error).contains("cannot be the name of a file"), "{}", text(&error));
}

#[test]
fn duplicate_names_in_a_dirtree_are_refused() {
    let world = World::new();
    let sum = Checksum::of(b"");
    let evil = DirTree { files: vec![("passwd".into(), sum), ("passwd".into(), sum)], dirs: Vec::new() };
    let error = refused(&world, &evil);
    assert!(matches!(error, PullError::Malformed { .. }), "{}", text(&error));
}

#[test]
fn cyclic_parents_end() {
    let world = World::new();
    let first = world.origin.read_ref(REF).unwrap().unwrap();
    let loaded = world.origin.load_commit(&first).unwrap();
    // No checksum is in its own past: who wants a circle has to put a commit under another's name.
    let past = Checksum::of(b"the commit before it");
    let mut builder = Builder::new(loaded.root_tree, loaded.root_meta, 5000).bind(REF);
    builder.parent = Some(past);
    let commit = builder.write(&world.origin).unwrap();
    sign_commit(&world.origin, &commit, &world.key).unwrap();
    world.origin.set_ref(REF, &commit).unwrap();
    let path = |checksum: &Checksum| {
        world.origin.path().join("objects").join(world.origin.loose_path(ObjectType::Commit, checksum))
    };
    fs::create_dir_all(path(&past).parent().unwrap()).unwrap();
    fs::copy(path(&commit), path(&past)).unwrap();
    let signatures = |checksum| path(checksum).with_extension("commitmeta");
    fs::copy(signatures(&commit), signatures(&past)).unwrap();

    let server = world.serve(serve::Options::default());
    let target = world.target("t", Mode::BareUser);
    let mut options = world.options(&server.url());
    options.select.depth = pull::Depth::All;
    let error = pull::http(&options, &target).unwrap_err();
    assert!(matches!(&error, PullError::Mismatch { expected, .. } if *expected == past), "{}", text(&error));
    assert!(!target.has(ObjectType::Commit, &past));
    healthy(&target);
    // Nor does anything here walk in a circle.
    let error = gc::prune(&world.origin, &gc::Options::default()).unwrap_err();
    assert!(matches!(error, Error::Mismatch { expected, .. } if expected == past), "{error}");
    let report = fsck(&world.origin, &fsck::Options::default()).unwrap();
    assert!(!report.problems.is_empty());
}

/// A commit from a repository that compresses nothing cannot know the sizes of its objects; its publisher does.
fn commit_without_sizes(world: &World) -> Checksum {
    let tree = import::tree(&world.origin, &tree(3)).unwrap();
    let commit = Builder::new(tree.root_tree, tree.root_meta, 2000).bind(REF).write(&world.origin).unwrap();
    sign_commit(&world.origin, &commit, &world.key).unwrap();
    world.origin.set_ref(REF, &commit).unwrap();
    commit
}

fn sizes_of(world: &World, commit: &Checksum) -> Vec<store::commit::Size> {
    let commit = world.origin.load_commit(commit).unwrap();
    store::commit::sizes(&world.origin, &commit.root_tree, &commit.root_meta).unwrap()
}

/// Pulls, and returns what was told before the first file came, what was told last, and what was done.
fn watched(world: &World, url: &str, target: &Repo) -> (Option<Progress>, Progress, Outcome) {
    let seen: Mutex<Vec<Progress>> = Mutex::default();
    let progress = |p: &Progress| seen.lock().unwrap().push(*p);
    let outcome = pull::http(&Options { progress: Some(&progress), ..world.options(url) }, target).unwrap();
    let seen = seen.into_inner().unwrap();
    (seen.iter().find(|p| p.bytes_total.is_some()).copied(), *seen.last().unwrap(), outcome)
}

#[test]
fn sizes_in_a_file_of_their_own_tell_and_do_not_bind() {
    let world = World::new();
    let commit = commit_without_sizes(&world);
    let file = world.origin.path().join(update::sizes_path(&commit));
    let server = world.serve(serve::Options::default());

    // Nobody says them: no total, and nothing else is different.
    let target = world.target("missing", Mode::BareUser);
    let (first, last, without) = watched(&world, &server.url(), &target);
    assert_eq!((first, last.objects_total), (None, without.fetched));

    update::record_sizes(&world.origin, &commit).unwrap();
    let good = fs::read(&file).unwrap();
    assert!(good.len() < 44 + 12 * without.fetched as usize, "{} bytes", good.len());
    let target = world.target("present", Mode::BareUser);
    let options = world.options(&server.url());
    let remote = pull::Remote::open(&options).unwrap();
    let verified = remote.commit(REF, &target).unwrap();
    let ahead = remote.ahead(REF, &verified, &target).unwrap();
    let (first, last, outcome) = watched(&world, &server.url(), &target);
    let first = first.unwrap();
    assert_eq!((first.objects, first.bytes), (0, 0), "known before the first object comes");
    assert_eq!((first.objects_total, first.bytes_total), (outcome.fetched, Some(outcome.bytes)));
    assert_eq!((last.objects, Some(last.bytes)), (outcome.fetched, last.bytes_total));
    assert_eq!(ahead, Some(Ahead::Objects(Missing { objects: outcome.fetched, bytes: outcome.bytes })));
    assert_eq!((outcome.fetched, outcome.bytes), (without.fetched, without.bytes));
    assert_eq!(remote.ahead(REF, &verified, &target).unwrap(), Some(Ahead::Objects(Missing::default())));

    // A mirror says them too.
    let mirror = world.target("mirror", Mode::Archive);
    pull::http(&options, &mirror).unwrap();
    assert_eq!(fs::read(mirror.path().join(update::sizes_path(&commit))).unwrap(), good);

    // Whatever is in the file, the pull succeeds and what is accepted stays the same.
    let one_byte_each = |good: &[u8]| {
        let mut bytes = good[..44].to_vec();
        let mut rest = &good[44..];
        while !rest.is_empty() {
            bytes.extend_from_slice(&rest[..6]);
            bytes.push(1);
            rest = &rest[6 + rest[6..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1..];
        }
        bytes
    };
    let mut other = good.clone();
    other[8] ^= 1;
    let mut absurd = good.clone();
    absurd[40..44].fill(0xff);
    for (name, bytes) in [
        ("truncated", good[..good.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("huge", vec![0; 9 << 20]),
        ("wrong-sizes", one_byte_each(&good)),
        ("another-commits", other),
        ("absurd-count", absurd),
        ("noise", noise(1, 5000)),
    ] {
        fs::write(&file, bytes).unwrap();
        let target = world.target(name, Mode::BareUser);
        let (first, _, outcome) = watched(&world, &server.url(), &target);
        assert_eq!((outcome.fetched, outcome.bytes), (without.fetched, without.bytes), "{name}");
        assert_eq!(first.is_some(), name == "wrong-sizes", "{name}");
        healthy(&target);
    }
    // Nor is one that the server does not give.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let target = world.target("directory", Mode::BareUser);
    assert_eq!(watched(&world, &server.url(), &target).2.fetched, without.fetched);
}

#[test]
fn sizes_are_fetched_only_where_objects_are() {
    let world = World::new();
    let first = world.origin.read_ref(REF).unwrap().unwrap();
    let target = world.target("t", Mode::BareUser);
    pull::local(&world.origin, &target, &first).unwrap();
    target.set_ref(&format!("default:{REF}"), &first).unwrap();
    let commit = commit_without_sizes(&world);
    update::record_sizes(&world.origin, &commit).unwrap();
    update::publish(&world.origin, &world.origin, Some(&first), &commit, &update::Options::default()).unwrap();
    let log = Log::default();
    let server = world.serve(serve::Options { log: Some(Box::new(log.clone())), ..serve::Options::default() });
    pull::http(&world.options(&server.url()), &target).unwrap();
    healthy(&target);
    let asked = log.text();
    assert!(asked.contains(".update") && !asked.contains("/sizes"), "{asked}");
    let other = world.target("other", Mode::BareUser);
    pull::http(&world.options(&server.url()), &other).unwrap();
    let asked = log.text();
    assert!(asked.contains("/sizes"), "{asked}");
    // A second pull asks for nothing but ref, commit and signatures.
    let before = server.requests();
    pull::http(&world.options(&server.url()), &other).unwrap();
    assert_eq!(server.requests() - before, 3);
}

/// As publishers wrote them once.
#[test]
fn sizes_beside_the_signatures_tell_and_do_not_bind() {
    let world = World::new();
    let commit = commit_without_sizes(&world);
    let sizes = sizes_of(&world, &commit);
    let mut detached = world.origin.load_detached(&commit).unwrap().unwrap();
    let entries = sizes.iter().map(store::commit::Size::encode).collect();
    detached.insert(store::commit::SIZES.into(), store::Value::BytesArray(entries));
    world.origin.write_detached(&commit, &detached).unwrap();
    let server = world.serve(serve::Options::default());
    let target = world.target("t", Mode::BareUser);
    let (first, _, outcome) = watched(&world, &server.url(), &target);
    let first = first.unwrap();
    assert_eq!((first.objects_total, first.bytes_total), (outcome.fetched, Some(outcome.bytes)));
    let kept = target.load_detached(&commit).unwrap().unwrap();
    assert!(kept.contains_key(store::sign::KEY) && !kept.contains_key(store::commit::SIZES));

    // Nothing signs them: wrong ones change what is shown, never what is accepted.
    let lies = sizes.iter().map(|size| store::commit::Size { archived: 1, unpacked: 1, ..*size }.encode()).collect();
    detached.insert(store::commit::SIZES.into(), store::Value::BytesArray(lies));
    world.origin.write_detached(&commit, &detached).unwrap();
    let other = world.target("other", Mode::BareUser);
    pull::http(&world.options(&server.url()), &other).unwrap();
    healthy(&other);
}

#[test]
fn what_is_not_there_is_said() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let target = world.target("t", Mode::Archive);
    let options = Options { refs: vec!["no/such/ref".into()], ..world.options(&server.url()) };
    let message = text(&pull::http(&options, &target).unwrap_err());
    assert!(message.contains("ref no/such/ref") && message.contains("it is not there"), "{message}");
    let url = server.url();
    drop(server);
    let message = text(&pull::http(&world.options(&url), &target).unwrap_err());
    assert!(message.contains(&url) && message.contains("refused"), "{message}");
    let message = text(&pull::http(&world.options("ftp://x"), &target).unwrap_err());
    assert!(message.contains("http://"), "{message}");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let world = World::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let network = Network { retries: 0, stall_seconds: 1, ..Network::default() };
    let options = Options { network, ..world.options(&url) };
    let error = pull::http(&options, &world.target("t", Mode::Archive)).unwrap_err();
    assert!(text(&error).contains("no answer in time"), "{}", text(&error));
}

/// Says that a file has more bytes than it sends, over and over, or fewer.
#[test]
fn lengths_that_lie_are_refused() {
    for (story, answer) in [
        ("fewer", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nshort"),
        ("endless", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
        ("huge", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n"),
        ("no http", "220 smtp\r\n"),
        (
            "a range",
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-18/20\r\nContent-Length: 10\r\n\r\n0123456789",
        ),
    ] {
        let world = World::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let _ = std::io::Read::read(&mut client, &mut [0; 4096]);
                let _ = client.write_all(answer.as_bytes());
                let endless = story == "endless";
                while endless && client.write_all(&[b'a'; 4096]).is_ok() {}
            }
        });
        let network = Network { retries: 1, stall_seconds: 5, ..Network::default() };
        let options = Options { network, ..world.options(&url) };
        let target = world.target("t", Mode::Archive);
        let error = pull::http(&options, &target).unwrap_err();
        assert!(matches!(error, PullError::Fetch { .. }), "{story}: {}", text(&error));
        assert_eq!(target.all_objects().unwrap(), [], "{story}");
    }
}

#[test]
fn local_pulls_convert_between_modes() {
    let world = World::new();
    let commit = world.origin.resolve(REF).unwrap();
    let user = world.target("user", Mode::BareUser);
    let back = world.target("back", Mode::Archive);
    let there = pull::local(&world.origin, &user, &commit).unwrap();
    pull::local(&user, &back, &commit).unwrap();
    assert_eq!(pull::local(&user, &back, &commit).unwrap().fetched, 0);
    assert_eq!(content(&back, &commit), content(&world.origin, &commit));
    assert_eq!(user.load_detached(&commit).unwrap(), world.origin.load_detached(&commit).unwrap());
    assert!(there.fetched > 60);
    for repo in [&user, &back] {
        healthy(repo);
    }
}

#[test]
fn fsck_reports_everything_and_a_pull_repairs() {
    let world = World::new();
    let commit = world.origin.resolve(REF).unwrap();
    let user = world.target("user", Mode::BareUser);
    pull::local(&world.origin, &user, &commit).unwrap();
    let objects = user.all_objects().unwrap();
    let of = |kind| objects.iter().filter(move |(k, _)| *k == kind).map(|(_, sum)| *sum).collect::<Vec<_>>();
    let path = |kind, sum: &Checksum| user.path().join("objects").join(user.loose_path(kind, sum));
    let (files, trees) = (of(ObjectType::File), of(ObjectType::DirTree));
    let regular: Vec<_> = files.iter().filter(|f| user.load_file_meta(f).unwrap().size > 0).collect();
    fs::write(path(ObjectType::File, regular[0]), "damaged").unwrap();
    fs::remove_file(path(ObjectType::File, regular[1])).unwrap();
    fs::write(path(ObjectType::DirTree, &trees[0]), "damaged").unwrap();

    let report = fsck(&user, &fsck::Options::default()).unwrap();
    let seen: Vec<_> = report.problems.iter().map(|p| (p.kind.as_str(), p.checksum, p.missing)).collect();
    assert!(seen.contains(&("file", *regular[0], false)), "{seen:?}");
    assert!(seen.contains(&("dirtree", trees[0], false)), "{seen:?}");
    let report = fsck(&user, &fsck::Options { delete: true, threads: 2 }).unwrap();
    assert!(report.problems.iter().filter(|p| !p.missing).all(|p| p.deleted), "{:?}", report.problems);
    pull::local(&world.origin, &user, &commit).unwrap();
    healthy(&user);
}

/// Objects that nothing needs yet are a prune's; so whoever fetches them keeps it away until the ref is set.
#[test]
fn a_pull_fetches_nothing_while_somebody_deletes() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let target = world.target("t", Mode::BareUser);
    let config = fs::read_to_string(target.path().join("config")).unwrap();
    fs::write(target.path().join("config"), config + "lock-timeout-secs=0\n").unwrap();
    let target = Repo::open(target.path()).unwrap();
    let other = Repo::open(target.path()).unwrap();
    let deleting = other.lock_exclusive().unwrap();
    let error = pull::http(&world.options(&server.url()), &target).unwrap_err();
    assert!(text(&error).contains("locked"), "{}", text(&error));
    assert_eq!(server.requests(), 0);
    drop(deleting);
    pull::http(&world.options(&server.url()), &target).unwrap();
    healthy(&target);
}

#[test]
fn prune_keeps_what_refs_need() {
    let world = World::new();
    let old = world.origin.resolve(REF).unwrap();
    let new = world.commit(2);
    let all = world.origin.all_objects().unwrap().len();
    let options = gc::Options { keep: vec![old], ..Default::default() };
    assert_eq!(gc::prune(&world.origin, &options).unwrap().deleted, 0);
    let dry = gc::Options { dry_run: true, ..Default::default() };
    let would = gc::prune(&world.origin, &dry).unwrap();
    let did = gc::prune(&world.origin, &gc::Options::default()).unwrap();
    assert_eq!(would, did);
    // The old commit, its two files and the four directories on their way.
    assert_eq!((did.total, did.deleted), (all as u64, 7));
    assert!(!world.origin.has(ObjectType::Commit, &old) && world.origin.has(ObjectType::Commit, &new));
    healthy(&world.origin);
}
