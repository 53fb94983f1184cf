//! Remotes: what of them is pulled, who has to have signed it, and the ways to get there.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use common::{REF, World, content, healthy, text};
use store::pull::ways::Allowed;
use store::pull::{self, Depth, LocalOptions, Login, Network, Options, PullError, Select};
use store::remote::Config;
use store::serve;
use store::sign::trust::{Keys, Trust};
use store::sign::{self, Keyring, SecretKey, gpg, sign_commit, spki};
use store::{Checksum, Mode, ObjectType, Repo, summary};
use sys::Cmd;

/// A listener whose connections go through `talk` on their way to `upstream`.
fn relay(upstream: &str, talk: impl Fn(TcpStream, &str) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let upstream = upstream.strip_prefix("http://").unwrap_or(upstream).to_owned();
    let talk = Arc::new(talk);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (talk, upstream) = (talk.clone(), upstream.clone());
            std::thread::spawn(move || talk(client, &upstream));
        }
    });
    address
}

/// The head of a request, with the empty line at its end.
fn head(client: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while client.read_line(&mut head).unwrap_or(0) > 2 {}
    head
}

/// Passes bytes both ways; at most `limit` of them to the client.
fn join(client: &TcpStream, server: &TcpStream, limit: u64) -> u64 {
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let passed = std::io::copy(&mut server.take(limit), &mut &*client).unwrap_or(0);
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    passed
}

/// Lets the first request of a connection pass if `allowed` says so of its head.
fn gate(upstream: &str, allowed: impl Fn(&str) -> bool + Send + Sync + 'static) -> String {
    relay(upstream, move |client, upstream| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let head = head(&mut reader);
        if !allowed(&head) {
            let _ = (&client).write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        let server = TcpStream::connect(upstream).unwrap();
        (&server).write_all(head.as_bytes()).unwrap();
        // More requests may have come behind the first.
        (&server).write_all(reader.buffer()).unwrap();
        join(&client, &server, u64::MAX);
    })
}

fn select(select: Select, options: Options<'static>) -> Options<'static> {
    Options { select, ..options }
}

#[test]
fn a_part_of_a_tree_then_all_of_it() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let target = world.target("user", Mode::BareUser);
    let part = Select { subpaths: vec!["/usr/bin".into(), "/etc/os-release".into()], ..Select::default() };
    let outcome = pull::http(&select(part, world.options(&server.url())), &target).unwrap();
    let commit = outcome.commit;
    assert!(target.is_partial(&commit) && target.has(ObjectType::Commit, &commit));
    assert!(target.lookup(&commit, "/usr/bin/tool").unwrap().is_some());
    let file = |path: &str| match world.origin.lookup(&commit, path).unwrap() {
        Some(store::Entry::File { checksum }) => target.has(ObjectType::File, &checksum),
        other => panic!("{path}: {other:?}"),
    };
    assert!(file("/usr/bin/tool") && file("/etc/os-release"));
    assert!(!file("/usr/large") && !file("/usr/share/f00"));
    healthy(&target);
    // A part again changes nothing; everything later is everything.
    let whole = pull::http(&world.options(&server.url()), &target).unwrap();
    assert!(whole.present > 0 && !target.is_partial(&commit));
    assert_eq!(content(&target, &commit), content(&world.origin, &commit));
    let part = Select { subpaths: vec!["usr".into()], ..Select::default() };
    pull::http(&select(part, world.options(&server.url())), &target).unwrap();
    assert!(!target.is_partial(&commit), "what is whole stays whole");
}

#[test]
fn the_commit_alone() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let target = world.target("user", Mode::BareUser);
    let only = Select { commit_only: true, ..Select::default() };
    let outcome = pull::http(&select(only, world.options(&server.url())), &target).unwrap();
    assert_eq!(target.all_objects().unwrap(), [(ObjectType::Commit, outcome.commit)]);
    assert!(target.is_partial(&outcome.commit));
    assert!(target.load_detached(&outcome.commit).unwrap().is_some());
}

/// Versions 1 to `newest`, each the parent of the next.
fn chain(world: &World, newest: u64) -> Vec<Checksum> {
    let mut commits = Vec::new();
    for version in 1..=newest {
        let tree = store::import::tree(&world.origin, &common::tree(version)).unwrap();
        let mut builder = store::commit::Builder::new(tree.root_tree, tree.root_meta, 1000 + version).bind(REF);
        builder.parent = commits.last().copied();
        let commit = builder.write(&world.origin).unwrap();
        sign_commit(&world.origin, &commit, &world.key).unwrap();
        commits.push(commit);
    }
    world.origin.set_ref(REF, commits.last().unwrap()).unwrap();
    commits
}

#[test]
fn history_as_deep_as_was_asked_for_and_as_it_goes() {
    let world = World::new();
    let commits = chain(&world, 4);
    let server = world.serve(serve::Options::default());
    let whole = |repo: &Repo| commits.iter().filter(|c| repo.has(ObjectType::Commit, c) && !repo.is_partial(c)).count();
    for (depth, count) in [(Depth::Parents(0), 1), (Depth::Parents(2), 3), (Depth::All, 4)] {
        let target = world.target(&format!("{depth:?}").replace(['(', ')'], ""), Mode::Archive);
        let options = select(Select { depth, ..Select::default() }, world.options(&server.url()));
        pull::http(&options, &target).unwrap();
        assert_eq!(whole(&target), count, "{depth:?}");
        healthy(&target);
    }
    // A history that ends somewhere is no error; one commit in it that is not signed is.
    let path = |commit: &Checksum, extension: &str| {
        world
            .origin
            .path()
            .join("objects")
            .join(store::object_path(ObjectType::Commit, commit))
            .with_extension(extension)
    };
    fs::remove_file(path(&commits[0], "commit")).unwrap();
    let all = || select(Select { depth: Depth::All, ..Select::default() }, world.options(&server.url()));
    let target = world.target("ends", Mode::Archive);
    pull::http(&all(), &target).unwrap();
    assert_eq!(whole(&target), 3);
    fs::remove_file(path(&commits[1], "commitmeta")).unwrap();
    let target = world.target("unsigned", Mode::Archive);
    let error = pull::http(&all(), &target).unwrap_err();
    assert!(matches!(error, PullError::Untrusted { commit, .. } if commit == commits[1]), "{}", text(&error));
    // The same from a directory.
    let local = world.target("local", Mode::BareUser);
    let two = Select { depth: Depth::Parents(1), ..Select::default() };
    let options = LocalOptions { select: Some(&two), ..LocalOptions::default() };
    pull::local_with(&world.origin, &local, &commits[3], &options).unwrap();
    assert_eq!(whole(&local), 2);
}

#[test]
fn a_deleted_commit_is_said_to_be_deleted() {
    let world = World::new();
    let commits = chain(&world, 2);
    let path = world.origin.path().join("objects").join(store::object_path(ObjectType::Commit, &commits[1]));
    fs::rename(&path, path.with_extension("tombstone-commit")).unwrap();
    let server = world.serve(serve::Options::default());
    let error = pull::http(&world.options(&server.url()), &world.target("t", Mode::Archive)).unwrap_err();
    assert!(matches!(error, PullError::Deleted { .. }), "{}", text(&error));
}

#[test]
fn a_mirror_has_every_ref_and_the_summary_as_it_was() {
    let world = World::new();
    world.origin.set_ref("other/branch", &world.origin.resolve(REF).unwrap()).unwrap();
    summary::write(&world.origin).unwrap();
    sign_summary(&world.origin, &world.key);
    let server = world.serve(serve::Options::default());
    let target = world.target("mirror", Mode::Archive);
    let trust = Trust::of(Keys::Ed25519(Keyring::of([world.key.public()])));
    let options = Options { refs: Vec::new(), mirror: true, summary_trust: trust, ..world.options(&server.url()) };
    let error = pull::http(&options, &target).unwrap_err();
    assert!(matches!(error, PullError::Binding { .. }), "bindings hold for a mirror, too: {}", text(&error));
    assert!(target.refs().unwrap().is_empty(), "no ref changes before all is here");
    let options = Options { check_bindings: false, ..options };
    pull::http(&options, &target).unwrap();
    assert_eq!(target.refs().unwrap(), world.origin.refs().unwrap());
    for name in ["summary", "summary.sig"] {
        let read = |repo: &Repo| fs::read(repo.path().join(name)).unwrap();
        assert_eq!(read(&target), read(&world.origin), "{name}");
    }
    healthy(&target);
}

fn sign_summary(repo: &Repo, key: &SecretKey) {
    let add = |signatures: &mut store::Dict, bytes: &[u8]| {
        sign::add_signature(signatures, bytes, key);
        Ok::<(), store::Error>(())
    };
    summary::sign(repo, add).unwrap();
}

#[test]
fn replayed_expired_and_unsigned_summaries_are_refused() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let target = world.target("user", Mode::BareUser);
    let trust = Trust::of(Keys::Ed25519(Keyring::of([world.key.public()])));
    let options = || Options { summary_trust: trust.clone(), ..world.options(&server.url()) };
    let error = pull::http(&options(), &target).unwrap_err();
    assert!(text(&error).contains("must be signed"), "there is none: {}", text(&error));
    summary::write(&world.origin).unwrap();
    let error = pull::http(&options(), &target).unwrap_err();
    assert!(matches!(error, PullError::SummaryUntrusted { .. }), "{}", text(&error));
    sign_summary(&world.origin, &SecretKey::from_seed(&[1; 32]));
    let error = pull::http(&options(), &target).unwrap_err();
    assert!(matches!(error, PullError::SummaryUntrusted { .. }), "a stranger's: {}", text(&error));
    sign_summary(&world.origin, &world.key);
    pull::http(&options(), &target).unwrap();

    let file = |name: &str| world.origin.path().join(name);
    let old = (fs::read(file("summary")).unwrap(), fs::read(file("summary.sig")).unwrap());
    let newer = world.commit(5);
    // The ref says so, the summary does not yet: who signs the summary decides.
    let same = pull::http(&options(), &target).unwrap();
    assert_ne!(same.commit, newer);
    summary::write(&world.origin).unwrap();
    sign_summary(&world.origin, &world.key);
    assert_eq!(pull::http(&options(), &target).unwrap().commit, newer);

    fs::write(file("summary"), &old.0).unwrap();
    fs::write(file("summary.sig"), &old.1).unwrap();
    let error = pull::http(&Options { allow_downgrade: true, ..options() }, &target).unwrap_err();
    assert!(matches!(error, PullError::Replayed { .. }), "{}", text(&error));

    // Of two summaries whose newest commit is the same, too.
    let publish = || summary::write_signed(&world.origin, &world.key).unwrap();
    world.origin.set_ref("slipway/extra", &newer).unwrap();
    publish();
    let old = (fs::read(file("summary")).unwrap(), fs::read(file("summary.sig")).unwrap());
    world.origin.delete_ref("slipway/extra").unwrap();
    publish();
    pull::http(&options(), &target).unwrap();
    fs::write(file("summary"), &old.0).unwrap();
    fs::write(file("summary.sig"), &old.1).unwrap();
    let error = pull::http(&options(), &target).unwrap_err();
    assert!(matches!(error, PullError::Replayed { .. }), "{}", text(&error));

    let mut expired = summary::of_repo(&world.origin).unwrap();
    expired.facts.insert(summary::EXPIRES.into(), store::Value::U64(7u64.swap_bytes()));
    summary::write_bytes(&world.origin, &expired.encode()).unwrap();
    sign_summary(&world.origin, &world.key);
    let error = pull::http(&options(), &target).unwrap_err();
    assert!(matches!(error, PullError::Expired { expires: 7, .. }), "{}", text(&error));
}

/// Makes a key with openssl, and both of its files.
fn spki_key(dir: &Path, name: &str) {
    let openssl = |args: &[&str]| Cmd::new("openssl").args(args).dir(dir).run().unwrap();
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name]);
    openssl(&["pkey", "-in", name, "-pubout", "-out", &format!("{name}.pem")]);
}

#[test]
fn remotes_of_the_configuration_ask_for_their_kinds_of_signatures() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let target = world.target("user", Mode::BareUser);
    let root = world.dir.path();
    spki_key(root, "good");
    spki_key(root, "other");
    let commit = world.origin.resolve(REF).unwrap();
    let bytes = world.origin.load_metadata(ObjectType::Commit, &commit).unwrap();
    let pull = |values: &[(&str, &str)]| {
        let mut remote = Config::new("origin", &server.url()).unwrap();
        remote.set("gpg-verify", "false");
        values.iter().for_each(|(key, value)| remote.set(key, *value));
        target.set_remote(&remote).unwrap();
        let options = target.remote("origin").unwrap().pull_options(&target, root, vec![REF.into()])?;
        pull::http(&options, &target)
    };
    let path = |name: &str| root.join(name).display().to_string();
    let ed25519 = world.key.public().to_string();
    let by_ed25519 = ("verification-ed25519-key", ed25519.as_str());
    assert!(pull(&[]).is_ok(), "nothing is asked for");
    assert!(pull(&[("sign-verify", "true")]).is_err(), "no keys");
    assert!(pull(&[("sign-verify", "true"), by_ed25519]).is_ok());

    let (good, other) = (path("good.pem"), path("other.pem"));
    let by_spki = [("sign-verify", "spki"), ("verification-spki-file", good.as_str())];
    assert!(matches!(pull(&by_spki), Err(PullError::Untrusted { .. })), "not signed so");
    let mut detached = world.origin.load_detached(&commit).unwrap().unwrap();
    spki::add_signature(&mut detached, &bytes, &spki::SecretKey::load(&root.join("good")).unwrap()).unwrap();
    world.origin.write_detached(&commit, &detached).unwrap();
    assert!(pull(&by_spki).is_ok());
    let both = [("sign-verify", "ed25519;spki"), by_spki[1], by_ed25519];
    assert!(pull(&both).is_ok());
    let stranger = ("verification-spki-file", other.as_str());
    assert!(matches!(pull(&[by_spki[0], stranger]), Err(PullError::Untrusted { .. })));
    assert!(matches!(pull(&[both[0], stranger, by_ed25519]), Err(PullError::Untrusted { .. })), "both are needed");
    assert!(pull(&[("sign-verify", "true"), stranger, by_ed25519]).is_ok(), "one of them is enough");
    fs::create_dir_all(root.join("etc/ostree")).unwrap();
    fs::copy(root.join("good.pem"), root.join("etc/ostree/revoked.spki")).unwrap();
    assert!(pull(&by_spki).is_err(), "revoked on this machine");
}

/// A GnuPG with one key.
fn gnupg(name: &str) -> (tempfile::TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let gpg =
        |args: &[&str]| Cmd::new("gpg").args(["--batch", "--homedir"]).arg(dir.path()).args(args).run().unwrap().stdout;
    gpg(&["--passphrase", "", "--quick-generate-key", name, "rsa2048", "sign", "never"]);
    let key = gpg(&["--export", name]);
    (dir, key)
}

#[test]
fn openpgp_signatures_are_those_of_the_stock_tools() {
    let world = World::new();
    let (home, key) = gnupg("build@example.org");
    let commit = world.origin.resolve(REF).unwrap();
    let bytes = world.origin.load_metadata(ObjectType::Commit, &commit).unwrap();
    let mut detached = world.origin.load_detached(&commit).unwrap().unwrap();
    gpg::add_signature(&mut detached, &bytes, "build@example.org", Some(home.path())).unwrap();
    world.origin.write_detached(&commit, &detached).unwrap();
    summary::write(&world.origin).unwrap();
    let server = world.serve(serve::Options::default());

    // Ours, pulled by the stock client with the keys that we imported.
    let theirs = world.target("theirs", Mode::BareUser);
    let mut remote = Config::new("origin", &server.url()).unwrap();
    remote.set("gpg-verify", "true");
    theirs.set_remote(&remote).unwrap();
    assert_eq!(remote.import_gpg_keys(&theirs, &[&key], &[]).unwrap(), 1);
    let repo = format!("--repo={}", theirs.path().display());
    Cmd::new("ostree").args([repo.as_str(), "pull", "origin", REF]).run().unwrap();
    assert_eq!(theirs.resolve(&format!("origin:{REF}")).unwrap(), commit);

    // Theirs, commit and summary, pulled by us with the same configuration.
    let origin = format!("--repo={}", world.origin.path().display());
    let sign = |args: &[&str]| {
        let home = format!("--gpg-homedir={}", home.path().display());
        Cmd::new("ostree").args([origin.as_str()]).args(args).args([home.as_str()]).run().unwrap();
    };
    detached.remove(gpg::KEY);
    world.origin.write_detached(&commit, &detached).unwrap();
    let ours = world.target("ours", Mode::BareUser);
    remote.set("gpg-verify-summary", "true");
    ours.set_remote(&remote).unwrap();
    let pull = || {
        let options = ours.remote("origin").unwrap().pull_options(&ours, world.dir.path(), vec![REF.into()])?;
        pull::http(&options, &ours)
    };
    assert!(matches!(pull(), Err(PullError::SummaryUntrusted { .. })), "no keys yet");
    remote.import_gpg_keys(&ours, &[&key], &[]).unwrap();
    assert!(matches!(pull(), Err(PullError::SummaryUntrusted { .. })), "not signed");
    sign(&["summary", "-u", "--gpg-sign=build@example.org"]);
    assert!(matches!(pull(), Err(PullError::Untrusted { .. })), "the commit is not signed");
    sign(&["gpg-sign", REF, "build@example.org"]);
    let outcome = pull().unwrap_or_else(|error| panic!("{}", text(&error)));
    assert_eq!(outcome.commit, commit);
}

#[test]
fn a_lost_connection_costs_nothing_that_has_arrived() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    // Every connection breaks after a MiB; the large file has six.
    let passed = Arc::new(AtomicU64::new(0));
    let count = passed.clone();
    let address = relay(&server.url(), move |client, upstream| {
        let server = TcpStream::connect(upstream).unwrap();
        count.fetch_add(join(&client, &server, 1 << 20), Ordering::Relaxed);
    });
    let target = world.target("user", Mode::BareUser);
    let network = Network { retries: 3, stall_seconds: 20, connections: 2, ..Network::default() };
    let options = Options { network, ways: Allowed::OBJECTS, ..world.options(&format!("http://{address}")) };
    let outcome = pull::http(&options, &target).unwrap_or_else(|error| panic!("{}", text(&error)));
    assert_eq!(content(&target, &outcome.commit), content(&world.origin, &outcome.commit));
    // Begun anew each time, the large file alone would be more; and it would never come to its end.
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed < outcome.bytes + (2 << 20), "{passed} bytes were sent for {}", outcome.bytes);
    healthy(&target);
}

/// What may pass is tried again; what will not is not.
#[test]
fn a_server_that_has_no_time_is_asked_again() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let pull = |name: &str, status: &'static str, refused: usize, retries: u32| {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let address = relay(&server.url(), move |client, upstream| {
            if count.fetch_add(1, Ordering::Relaxed) < refused {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                head(&mut reader);
                let _ = write!(&client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                return;
            }
            join(&client, &TcpStream::connect(upstream).unwrap(), u64::MAX);
        });
        let network = Network { retries, connections: 1, ..Network::default() };
        let target = world.target(name, Mode::BareUser);
        let result = pull::http(&Options { network, ..world.options(&format!("http://{address}")) }, &target);
        (result, target, asked.load(Ordering::Relaxed))
    };
    for (name, status) in [("busy", "503 Service Unavailable"), ("many", "429 Too Many Requests")] {
        let (result, target, asked) = pull(name, status, 2, 3);
        result.unwrap_or_else(|error| panic!("{}", text(&error)));
        assert!(asked > 2, "{asked}");
        healthy(&target);
    }
    let (result, _, asked) = pull("always", "503 Service Unavailable", usize::MAX, 2);
    assert!(text(&result.unwrap_err()).contains("503"));
    assert_eq!(asked, 3, "once, and twice again");
    for (name, status) in [("not-there", "404 Not Found"), ("forbidden", "403 Forbidden")] {
        let (result, _, asked) = pull(name, status, usize::MAX, 3);
        assert!(result.is_err());
        assert_eq!(asked, 1, "{status} will be the same again");
    }
}

#[test]
fn mirrors_are_asked_in_turn_and_objects_may_lie_elsewhere() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let list = world.dir.path().join("lists");
    fs::create_dir(&list).unwrap();
    fs::write(list.join("mirrors"), format!("http://{dead}/\n# none\nfile:///etc\n{}/\n", server.url())).unwrap();
    fs::write(list.join("none"), "file:///etc\n").unwrap();
    let lists = serve::Server::bind(&list, "127.0.0.1:0".parse().unwrap(), serve::Options::default()).unwrap();
    let lists = lists.spawn().unwrap();
    let network = Network { retries: 0, ..Network::default() };
    let options = |url: String| Options { network: network.clone(), ..world.options(&url) };
    let target = world.target("a", Mode::BareUser);
    pull::http(&options(format!("mirrorlist={}/mirrors", lists.url())), &target).unwrap();
    healthy(&target);
    let error = pull::http(&options(format!("mirrorlist={}/none", lists.url())), &target).unwrap_err();
    assert!(text(&error).contains("names none"), "{}", text(&error));

    // Refs from one place, objects from another.
    let names = world.dir.path().join("names");
    fs::create_dir_all(names.join("refs/heads/slipway")).unwrap();
    fs::copy(world.origin.path().join("refs/heads").join(REF), names.join("refs/heads").join(REF)).unwrap();
    let names = serve::Server::bind(&names, "127.0.0.1:0".parse().unwrap(), serve::Options::default()).unwrap();
    let names = names.spawn().unwrap();
    let target = world.target("b", Mode::BareUser);
    assert!(pull::http(&options(names.url()), &target).is_err());
    let elsewhere = Options { content_url: Some(server.url()), ..options(names.url()) };
    pull::http(&elsewhere, &target).unwrap();
    healthy(&target);
}

#[test]
fn names_passwords_tokens_and_headers_reach_the_server() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let wanted = |line: &'static str| gate(&server.url(), move |head| head.to_lowercase().contains(line));
    let basic = wanted("authorization: basic bwu6c2vjcmv0\r\n");
    let bearer = wanted("authorization: bearer token-1\r\n");
    let custom = wanted("x-machine: one\r\n");
    let pull = |name: &str, url: String, network: Network| {
        let network = Network { retries: 0, connections: 2, ..network };
        pull::http(&Options { network, ..world.options(&url) }, &world.target(name, Mode::BareUser))
    };
    let login = |login| Network { login: Some(login), ..Network::default() };
    let error = pull("no", format!("http://{basic}"), Network::default()).unwrap_err();
    assert!(text(&error).contains("401"), "{}", text(&error));
    pull("url", format!("http://me:secret@{basic}"), Network::default()).unwrap();
    pull("basic", format!("http://{basic}"), login(Login::Basic("me".into(), "secret".into()))).unwrap();
    pull("bearer", format!("http://{bearer}"), login(Login::Bearer("token-1".into()))).unwrap();
    let headers = vec![("X-Machine".to_owned(), "one".to_owned())];
    pull("custom", format!("http://{custom}"), Network { headers, ..Network::default() }).unwrap();
    let headers = vec![("X".to_owned(), "a\r\nInjected: b".to_owned())];
    let error = pull("split", format!("http://{custom}"), Network { headers, ..Network::default() }).unwrap_err();
    assert!(text(&error).contains("not valid"), "{}", text(&error));
}

#[test]
fn a_proxy_is_used_where_one_is_named() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let used = Arc::new(AtomicUsize::new(0));
    let count = used.clone();
    let proxy = relay("", move |client, _| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let head = head(&mut reader);
        count.fetch_add(1, Ordering::Relaxed);
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let name = target.strip_prefix("http://").unwrap_or(&target).split('/').next().unwrap_or_default();
        let Ok(server) = TcpStream::connect(name) else { return };
        if head.starts_with("CONNECT") {
            (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        } else {
            (&server).write_all(head.replacen(&format!("http://{name}"), "", 1).as_bytes()).unwrap();
        }
        join(&client, &server, u64::MAX);
    });
    let network = Network { proxy: Some(format!("http://{proxy}")), connections: 2, ..Network::default() };
    pull::http(&Options { network, ..world.options(&server.url()) }, &world.target("t", Mode::BareUser)).unwrap();
    assert!(used.load(Ordering::Relaxed) > 0);
}

#[test]
fn tls_with_an_authority_of_ones_own_and_a_certificate_of_the_client() {
    let world = World::new();
    let dir = world.dir.path();
    let openssl = |args: &str| Cmd::new("openssl").args(args.split(' ')).dir(dir).run().unwrap();
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {ec} -keyout ca.key -out ca.pem -subj /CN=test-authority -days 30"));
    for name in ["server", "client"] {
        openssl(&format!("req {ec} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        fs::write(dir.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -out {name}.pem -days 30 -extfile ext"));
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |name: &str| dir.join(name).display().to_string();
    let mut server = Cmd::new("openssl")
        .args(["s_server", "-quiet", "-WWW", "-accept", &format!("127.0.0.1:{port}"), "-Verify", "2"])
        .args(["-verify_return_error", "-cert", &at("server.pem"), "-key", &at("server.key"), "-CAfile", &at("ca.pem")])
        .dir(world.origin.path())
        .to_command()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let target = world.target("t", Mode::BareUser);
    let pull = |network: Network| {
        let network = Network { retries: 2, connections: 1, ..network };
        pull::http(&Options { network, ..world.options(&format!("https://127.0.0.1:{port}")) }, &target)
    };
    let ca_file = Some(dir.join("ca.pem"));
    let cert = Some((dir.join("client.pem"), dir.join("client.key")));
    let unknown = pull(Network { client_cert: cert.clone(), ..Network::default() });
    let nobody = pull(Network { ca_file: ca_file.clone(), ..Network::default() });
    let known = pull(Network { ca_file, client_cert: cert, ..Network::default() });
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(unknown.is_err(), "an authority nobody trusts");
    assert!(nobody.is_err(), "a client without a certificate");
    known.unwrap_or_else(|error| panic!("{}", text(&error)));
    healthy(&target);
    let error = pull(Network { ca_file: Some(dir.join("ca.key")), ..Network::default() }).unwrap_err();
    assert!(text(&error).contains("no certificate in it"), "{}", text(&error));
}

#[test]
fn directories_and_caches_are_as_good_as_servers() {
    let world = World::new();
    let target = world.target("user", Mode::BareUser);
    let url = format!("file://{}", world.origin.path().display());
    pull::http(&world.options(&url), &target).unwrap();
    healthy(&target);
    // Only the commit, its signatures and the ref come over the network; a damaged object in the cache does, too.
    let server = world.serve(serve::Options::default());
    let victim = world.object("filez", |size| size > 2000);
    let cache = world.target("cache", Mode::Archive);
    pull::http(&world.options(&url), &cache).unwrap();
    let damaged = cache.path().join(victim.strip_prefix(world.origin.path()).unwrap());
    fs::write(&damaged, "damaged").unwrap();
    let other = world.target("other", Mode::BareUser);
    let caches = vec![cache.path().to_owned()];
    let options = Options { caches, ways: Allowed::OBJECTS, ..world.options(&server.url()) };
    let outcome = pull::http(&options, &other).unwrap();
    assert_eq!(server.requests(), 4, "ref, commit, signatures, one file");
    assert_eq!(content(&other, &outcome.commit), content(&world.origin, &outcome.commit));
    healthy(&other);
}

#[test]
fn setuid_files_are_refused_where_plain_ones_are_wanted() {
    let world = World::new();
    let server = world.serve(serve::Options::default());
    let plain = Select { bareuseronly: true, ..Select::default() };
    let target = world.target("http", Mode::BareUser);
    let error = pull::http(&select(plain.clone(), world.options(&server.url())), &target).unwrap_err();
    assert!(matches!(error, PullError::FileMode { mode: 0o4755, .. }), "{}", text(&error));
    healthy(&target);
    let commit = world.origin.resolve(REF).unwrap();
    let options = LocalOptions { select: Some(&plain), ..LocalOptions::default() };
    let error = pull::local_with(&world.origin, &world.target("local", Mode::BareUser), &commit, &options).unwrap_err();
    assert!(matches!(error, PullError::FileMode { .. }), "{}", text(&error));
}
