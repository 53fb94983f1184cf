//! Static deltas against the stock `ostree`, in both directions. It is required: without it these tests fail.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use common::scratch;
use proptest::prelude::*;
use store::commit::Builder;
use store::delta::{self, ApplyOptions, DeltaError, DeltaName};
use store::fsck::{self, fsck};
use store::serve::{self, Server};
use store::sign::{Keyring, SecretKey};
use store::{Checksum, Mode, Repo, import, pull};
use sys::Cmd;

fn ostree(repo: &Path, args: &[&str]) -> String {
    Cmd::new("ostree").arg(format!("--repo={}", repo.display())).args(args).run().unwrap().text()
}

fn healthy(repo: &Repo) {
    let report = fsck(repo, &fsck::Options::default()).unwrap();
    assert_eq!(report.problems, [], "{}", repo.path().display());
    ostree(repo.path(), &["fsck", "--quiet"]);
}

/// Bytes that look like nothing.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Like a program: a table of addresses between stretches of code.
fn program(seed: u64, shift: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    let mut address = 0x0040_1000u32;
    while bytes.len() < len {
        bytes.extend_from_slice(&noise(seed + u64::from(address & 0x3fff), 24));
        bytes.extend_from_slice(&(address + shift).to_le_bytes());
        address += 0x24;
    }
    bytes.truncate(len);
    bytes
}

/// Two versions of a tree in which everything happens that a delta knows.
fn trees(dir: &Path) -> [PathBuf; 2] {
    let [one, two] = ["one", "two"].map(|name| dir.join(name));
    for (version, tree) in [(0u32, &one), (1, &two)] {
        for sub in ["usr/bin", "usr/lib/modules/6.1", "usr/share/doc", "etc"] {
            fs::create_dir_all(tree.join(sub)).unwrap();
        }
        let new = version == 1;
        // Rebuilt: every address moved, and a header of its own.
        let mut rebuilt = noise(u64::from(version) + 7, 64);
        rebuilt.extend(program(1, version * 0x40, 300_000));
        fs::write(tree.join("usr/bin/rebuilt"), rebuilt).unwrap();
        // A few bytes put in at the beginning, some changed at the end.
        let mut shifted = noise(2, 900_000);
        if new {
            shifted.splice(0..0, *b"a new header");
            shifted.truncate(899_000);
        }
        fs::write(tree.join("usr/lib/shifted"), shifted).unwrap();
        // Larger than what stays in memory, and than the stock tools' smallest fallback.
        let mut large = noise(3, 2 << 20);
        if new {
            large[1_000_000..1_000_100].fill(0);
        }
        fs::write(tree.join("usr/lib/large"), large).unwrap();
        let moved = if new { "usr/share/doc/moved-to" } else { "usr/lib/moved" };
        fs::write(tree.join(moved), noise(4, 200_000)).unwrap();
        let module = if new { "usr/lib/modules/6.2" } else { "usr/lib/modules/6.1" };
        fs::create_dir_all(tree.join(module)).unwrap();
        fs::write(tree.join(module).join("net.ko"), program(5, version * 8, 50_000)).unwrap();
        let text: String = (0..4000)
            .map(|line| format!("line {line} of version {}\n", if line % 500 == 0 { version } else { 0 }))
            .collect();
        fs::write(tree.join("usr/share/doc/text"), text).unwrap();
        fs::write(tree.join("etc/empty"), "").unwrap();
        fs::write(tree.join("etc/small"), format!("version {version}\n")).unwrap();
        symlink(format!("target-{version}"), tree.join("etc/link")).unwrap();
        fs::write(tree.join("etc/mode"), "the same\n".repeat(100)).unwrap();
        fs::set_permissions(tree.join("etc/mode"), fs::Permissions::from_mode(if new { 0o600 } else { 0o644 }))
            .unwrap();
        fs::write(tree.join("etc/marked"), "xattrs\n").unwrap();
        rustix::fs::setxattr(
            tree.join("etc/marked"),
            "user.version",
            version.to_string().as_bytes(),
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        // Files inside of a file, as in an initramfs: one that is new, and is in the tree too.
        let fresh = noise(20 + u64::from(version), 100_000);
        fs::write(tree.join("usr/bin/fresh"), &fresh).unwrap();
        let outer = [noise(30, 600_000), fresh, vec![version as u8; 7000], noise(31, 600_000)].concat();
        fs::write(tree.join("usr/lib/initramfs"), outer).unwrap();
        let only = if new { "etc/added" } else { "etc/removed" };
        fs::write(tree.join(only), noise(6 + u64::from(version), 3000)).unwrap();
    }
    [one, two]
}

/// An archive with both versions under the ref `test`.
fn source(dir: &Path) -> (Repo, Checksum, Checksum) {
    let repo = Repo::create(&dir.join("source"), Mode::Archive).unwrap().without_fsync();
    let mut parent = None;
    let mut commits = Vec::new();
    for (index, tree) in trees(dir).iter().enumerate() {
        let imported = import::directory(&repo, tree, &import::Options::default()).unwrap();
        let mut builder =
            Builder::new(imported.root_tree, imported.root_meta, 1_700_000_000 + index as u64).bind("test");
        builder.parent = parent;
        let commit = builder.write(&repo).unwrap();
        parent = Some(commit);
        commits.push(commit);
    }
    repo.set_ref("test", &commits[1]).unwrap();
    (repo, commits[0], commits[1])
}

/// A repository with the first version.
fn client(dir: &Path, name: &str, mode: Mode, source: &Repo, from: Option<&Checksum>) -> Repo {
    let repo = Repo::create(&dir.join(name), mode).unwrap().without_fsync();
    if let Some(from) = from {
        pull::local(source, &repo, from).unwrap();
    }
    repo
}

const MODES: [Mode; 2] = [Mode::BareUser, Mode::Archive];

#[test]
fn what_the_stock_tools_generate_is_applied() {
    let dir = scratch();
    let (source, one, two) = source(dir.path());
    let (from, to) = (format!("--from={one}"), format!("--to={two}"));
    for (index, options) in [
        &["--min-fallback-size=0"][..],
        &["--min-fallback-size=0", "--inline"],
        &["--min-fallback-size=0", "--disable-bsdiff"],
        &["--min-fallback-size=0", "--max-bsdiff-size=1", "--max-chunk-size=1"],
        &["--min-fallback-size=0", "--max-chunk-size=1", "--inline"],
        &["--min-fallback-size=0", "--set-endianness=B"],
        &["--min-fallback-size=0", "--set-endianness=l"],
        &["--min-fallback-size=0", "--empty"],
        &["--min-fallback-size=0", "--empty", "--inline", "--max-chunk-size=1"],
    ]
    .into_iter()
    .enumerate()
    {
        let empty = options.contains(&"--empty");
        let mut args = vec!["static-delta", "generate", &to];
        if !empty {
            args.push(&from);
        }
        args.extend(options);
        ostree(source.path(), &args);
        let name = DeltaName { from: (!empty).then_some(one), to: two };
        let path = source.path().join(name.dir());
        assert_eq!(path.join("0").exists(), !options.contains(&"--inline"), "{options:?}");
        for mode in MODES {
            let name = format!("client-{index}-{}", mode.name());
            let repo = client(dir.path(), &name, mode, &source, (!empty).then_some(&one));
            let applied = delta::apply_offline(&repo, &path, &ApplyOptions::default()).unwrap();
            assert!(applied.parts > 0 && applied.objects > 5, "{options:?}: {applied:?}");
            repo.set_ref("test", &two).unwrap();
            healthy(&repo);
            assert!(!repo.is_partial(&two));
            // Again, there is nothing to do.
            assert_eq!(delta::apply_offline(&repo, &path, &ApplyOptions::default()).unwrap().parts, 0);
            fs::remove_dir_all(repo.path()).unwrap();
        }
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn what_has_to_be_fetched_besides_is_said() {
    let dir = scratch();
    let (source, one, two) = source(dir.path());
    ostree(source.path(), &["static-delta", "generate", "--empty", "--min-fallback-size=1", &format!("--to={two}")]);
    let path = source.path().join(DeltaName { from: None, to: two }.dir());
    let repo = client(dir.path(), "client", Mode::BareUser, &source, None);
    let error = delta::apply_offline(&repo, &path, &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, DeltaError::Fallbacks(2)), "{error}");
    assert!(repo.all_objects().unwrap().is_empty());
    // One that starts from what is not here.
    ostree(source.path(), &["static-delta", "generate", &format!("--from={one}"), &format!("--to={two}")]);
    let path = source.path().join(DeltaName { from: Some(one), to: two }.dir());
    let error = delta::apply_offline(&repo, &path, &ApplyOptions::default()).unwrap_err().to_string();
    assert_eq!(error, format!("Commit {one}, which is the delta source, is not in repository"));
}

fn megabytes(options: &delta::Options<'_>) -> String {
    format!(
        "inline {} fallback {} bsdiff {:?} chunk {} {:?}",
        options.inline, options.min_fallback, options.max_bsdiff, options.max_chunk, options.order
    )
}

#[test]
fn what_we_generate_is_applied_by_the_stock_tools_and_by_us() {
    let dir = scratch();
    let (source, one, two) = source(dir.path());
    let base = delta::Options { min_fallback: 0, preset: 1, ..delta::Options::default() };
    for (index, (from, options)) in [
        (Some(one), base.clone()),
        (Some(one), delta::Options { inline: true, ..base.clone() }),
        (Some(one), delta::Options { max_bsdiff: None, max_chunk: 100_000, ..base.clone() }),
        (Some(one), delta::Options { order: delta::ByteOrder::Big, memory: 16 << 20, ..base.clone() }),
        (None, base.clone()),
        (None, delta::Options { inline: true, max_chunk: 1 << 20, ..base.clone() }),
    ]
    .into_iter()
    .enumerate()
    {
        let what = megabytes(&options);
        let made = delta::generate(&source, from.as_ref(), &two, &options).unwrap();
        let name = DeltaName { from, to: two };
        assert_eq!(delta::list(&source).unwrap(), [name]);
        assert_eq!(ostree(source.path(), &["static-delta", "list"]).trim(), name.to_string());
        let path = source.path().join(name.dir());
        let superblock = delta::read_superblock(&path).unwrap();
        assert_eq!(superblock.name, name);
        assert_eq!(superblock.parts.len() as u64, made.parts, "{what}");
        if from.is_some() {
            // Most of the five megabytes are in the old tree, and what is twice in the new one goes once.
            let most = if options.max_chunk < 1 << 20 { 420_000 } else { 260_000 };
            assert!(made.bytes(options.inline) < most, "{what}: {made:?}");
            assert!(made.copied >= 2 && (made.patched > 0) == options.max_bsdiff.is_some(), "{what}: {made:?}");
        }
        if !options.inline {
            // The stock tools cannot show one whose parts lie in its superblock.
            let show = ostree(source.path(), &["static-delta", "show", &name.to_string()]);
            assert!(show.contains(&format!("Number of parts: {}\n", made.parts)), "{show}");
        }
        for mode in MODES {
            let repo = client(dir.path(), &format!("ours-{index}-{}", mode.name()), mode, &source, from.as_ref());
            let applied = delta::apply_offline(&repo, &path, &ApplyOptions::default()).unwrap();
            assert!(applied.objects > 5, "{what}");
            healthy(&repo);
        }
        let repo = client(dir.path(), &format!("stock-{index}"), Mode::BareUser, &source, from.as_ref());
        ostree(repo.path(), &["static-delta", "apply-offline", path.to_str().unwrap()]);
        healthy(&repo);
        assert!(repo.has(store::ObjectType::Commit, &two));
        // The same bytes, on however many cores.
        let before = tree_bytes(&path);
        delta::generate(&source, from.as_ref(), &two, &delta::Options { threads: 1, ..options }).unwrap();
        assert_eq!(tree_bytes(&path), before, "{what}");
        delta::delete(&source, &name).unwrap();
    }
}

fn tree_bytes(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    let mut all: Vec<_> =
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect();
    all.sort();
    all
}

const DELTAS_ONLY: pull::Allowed = pull::Allowed { updates: false, deltas: true, objects: false };

/// The first version is here under `origin:test`; the second comes over HTTP, by deltas only.
fn pull_by_delta(repo: &Repo, url: &str) -> Result<pull::Outcome, pull::PullError> {
    let mut options = pull::Options::new(url, "test", None);
    options.remote = Some("origin".to_owned());
    options.ways = DELTAS_ONLY;
    pull::http(&options, repo)
}

#[test]
fn a_pull_takes_the_delta_that_starts_from_what_is_here() {
    let dir = scratch();
    let (source, one, two) = source(dir.path());
    let server = Server::bind(source.path(), "127.0.0.1:0".parse().unwrap(), serve::Options::default()).unwrap();
    let server = server.spawn().unwrap();
    let url = server.url();
    let options = delta::Options { min_fallback: 1_000_000, preset: 1, ..delta::Options::default() };
    let made = delta::generate(&source, Some(&one), &two, &options).unwrap();
    for (index, offered) in ["superblock alone", "summary", "index"].iter().enumerate() {
        match index {
            1 => {
                store::summary::write(&source).unwrap();
                fs::remove_dir_all(source.path().join("delta-indexes")).unwrap();
            }
            2 => delta::reindex(&source, None).unwrap(),
            _ => {}
        }
        let repo = client(dir.path(), &format!("pull-{index}"), Mode::BareUser, &source, Some(&one));
        repo.set_ref("origin:test", &one).unwrap();
        let outcome = pull_by_delta(&repo, &url).unwrap();
        assert_eq!(outcome.commit, two, "{offered}");
        assert!(outcome.bytes < made.bytes(false) + 40_000, "{offered}: {} of {made:?}", outcome.bytes);
        assert_eq!(repo.read_ref("origin:test").unwrap(), Some(two));
        healthy(&repo);
    }
    // The stock tools take it too, from the summary and index that we wrote.
    let stock = client(dir.path(), "pull-stock", Mode::BareUser, &source, Some(&one));
    stock.set_ref("origin:test", &one).unwrap();
    ostree(stock.path(), &["remote", "add", "--no-gpg-verify", "origin", &url]);
    let said = ostree(stock.path(), &["pull", "--require-static-deltas", "origin", "test"]);
    assert!(said.contains("delta parts"), "{said}");
    healthy(&stock);
    // From another commit there is none; one by one, objects always come.
    let repo = client(dir.path(), "pull-none", Mode::BareUser, &source, None);
    assert!(matches!(pull_by_delta(&repo, &url), Err(pull::PullError::NoWay { .. })));
    let mut options = pull::Options::new(&url, "test", None);
    options.remote = Some("origin".to_owned());
    pull::http(&options, &repo).unwrap();
    healthy(&repo);
}

#[test]
fn a_damaged_delta_costs_time_and_nothing_else() {
    let dir = scratch();
    let (source, one, two) = source(dir.path());
    let options = delta::Options { min_fallback: 0, preset: 1, ..delta::Options::default() };
    delta::generate(&source, Some(&one), &two, &options).unwrap();
    store::summary::write(&source).unwrap();
    let name = DeltaName { from: Some(one), to: two };
    let part = source.path().join(name.part(0));
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, bytes).unwrap();
    let server = Server::bind(source.path(), "127.0.0.1:0".parse().unwrap(), serve::Options::default()).unwrap();
    let server = server.spawn().unwrap();
    let url = server.url();
    let repo = client(dir.path(), "damaged", Mode::BareUser, &source, Some(&one));
    repo.set_ref("origin:test", &one).unwrap();
    let error = delta::apply_offline(&repo, &source.path().join(name.dir()), &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, DeltaError::PartMismatch { index: 0, .. }), "{error}");
    assert!(!repo.has(store::ObjectType::Commit, &two));
    assert!(matches!(pull_by_delta(&repo, &url), Err(pull::PullError::NoWay { .. })));
    let mut options = pull::Options::new(&url, "test", None);
    options.remote = Some("origin".to_owned());
    assert_eq!(pull::http(&options, &repo).unwrap().commit, two);
    healthy(&repo);
}

#[test]
fn a_signed_delta_is_accepted_from_its_signer_only() {
    let dir = scratch();
    let (source, one, two) = source(dir.path());
    let (key, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
    let name = DeltaName { from: Some(one), to: two };
    let path = source.path().join(name.dir());
    let base = delta::Options { min_fallback: 0, preset: 1, ..delta::Options::default() };
    let with = |key: &SecretKey| Keyring::of([key.public()]);
    delta::generate(&source, Some(&one), &two, &base).unwrap();
    assert!(delta::read_superblock(&path).unwrap().verify(&with(&key)).is_err(), "it is not signed");
    let keys = [&key as &dyn store::sign::Signs];
    delta::generate(&source, Some(&one), &two, &delta::Options { keys: &keys, ..base }).unwrap();
    let repo = client(dir.path(), "signed", Mode::BareUser, &source, Some(&one));
    for (keyring, accepted) in [(with(&other), false), (Keyring::default(), false), (with(&key), true)] {
        let options = ApplyOptions { keyring: Some(&keyring), ..ApplyOptions::default() };
        let applied = delta::apply_offline(&repo, &path, &options);
        assert_eq!(applied.is_ok(), accepted, "{applied:?}");
        assert_eq!(repo.has(store::ObjectType::Commit, &two), accepted);
    }
    healthy(&repo);
    // One changed byte of what is signed.
    let mut bytes = fs::read(path.join("superblock")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path.join("superblock"), bytes).unwrap();
    assert!(!delta::read_superblock(&path).is_ok_and(|superblock| superblock.verify(&with(&key)).is_ok()));
    // The stock tools read the wrapper, whether they can check such signatures or not.
    delta::generate(&source, Some(&one), &two, &delta::Options { keys: &keys, min_fallback: 0, ..Default::default() })
        .unwrap();
    assert!(ostree(source.path(), &["static-delta", "show", &name.to_string()]).contains("Signed: yes"));
    let stock = client(dir.path(), "signed-stock", Mode::BareUser, &source, Some(&one));
    ostree(stock.path(), &["static-delta", "apply-offline", path.to_str().unwrap()]);
    healthy(&stock);
}

fn any_content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        (0..4u64, 0..5000usize).prop_map(|(seed, len)| noise(seed, len)),
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..3000usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

type AnyTree = std::collections::BTreeMap<String, (Vec<u8>, u32, bool)>;

fn any_tree() -> impl Strategy<Value = AnyTree> {
    let path = prop_oneof!["[ab]/lib[0-9]\\.so", "[ab]", "[cd]/[xy]/[a-z]{1,3}\\.ko", "ü[a-c]"];
    let file = (any_content(), prop::sample::select(vec![0o644u32, 0o755, 0o4755, 0o600]), any::<bool>());
    prop::collection::btree_map(path, file, 0..12)
}

fn write_tree(dir: &Path, tree: &AnyTree) {
    fs::create_dir_all(dir).unwrap();
    for (path, (content, mode, link)) in tree {
        let path = dir.join(path);
        // A name may be a file in one place and a directory in another; the first one has it.
        if fs::create_dir_all(path.parent().unwrap()).is_err() || path.exists() {
            continue;
        }
        if *link && !content.is_empty() {
            symlink(format!("to-{}", content.len()), &path).unwrap();
        } else {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_two_trees_have_a_delta(
        old in any_tree(),
        new in any_tree(),
        keep in any::<bool>(),
        empty in any::<bool>(),
        inline in any::<bool>(),
        bsdiff in any::<bool>(),
        chunk in 1..20_000u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let source = Repo::create(&dir.path().join("source"), Mode::Archive).unwrap().without_fsync();
        let mut whole = if keep { old.clone() } else { AnyTree::new() };
        whole.extend(new);
        let commits = [&old, &whole].map(|tree| {
            let at = dir.path().join("tree");
            write_tree(&at, tree);
            let imported = import::directory(&source, &at, &import::Options::default()).unwrap();
            fs::remove_dir_all(&at).unwrap();
            Builder::new(imported.root_tree, imported.root_meta, 1).write(&source).unwrap()
        });
        let from = (!empty && commits[0] != commits[1]).then_some(commits[0]);
        let max_bsdiff = bsdiff.then_some(1 << 20);
        let options = delta::Options {
            min_fallback: 0, preset: 0, window: 1 << 20, max_chunk: chunk, inline, max_bsdiff, ..Default::default()
        };
        delta::generate(&source, from.as_ref(), &commits[1], &options).unwrap();
        let path = source.path().join(DeltaName { from, to: commits[1] }.dir());
        let target = client(dir.path(), "target", Mode::Archive, &source, from.as_ref());
        delta::apply_offline(&target, &path, &ApplyOptions::default()).unwrap();
        prop_assert_eq!(fsck(&target, &fsck::Options::default()).unwrap().problems, []);
        prop_assert_eq!(target.objects_of(&commits[1]).unwrap(), source.objects_of(&commits[1]).unwrap());
    }
}
