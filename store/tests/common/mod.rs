//! A repository to pull from, and what a pull is compared with.

#![allow(dead_code, reason = "each test uses a part")]

pub mod sid;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use store::commit::Builder;
use store::fsck::{self, fsck};
use store::import::{self, Node};
use store::pull::{Network, Options, PullError};
use store::serve::{self, Running, Server};
use store::sign::{Keyring, SecretKey, sign_commit};
use store::{Checksum, DirMeta, FileMeta, Mode, Repo};

pub const REF: &str = "slipway/test";

/// A directory on a real file system: tmpfs knows no user xattrs.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

pub struct World {
    pub dir: tempfile::TempDir,
    pub origin: Repo,
    pub key: SecretKey,
}

pub fn dir(entries: impl IntoIterator<Item = (&'static str, Node)>) -> Node {
    Node::Dir(DirMeta::root(0o755), entries.into_iter().map(|(n, e)| (n.to_owned(), e)).collect())
}

pub fn file(content: impl Into<Vec<u8>>) -> Node {
    Node::File(FileMeta::regular(0o644, 0), content.into())
}

/// Bytes that do not compress, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

pub fn tree(version: u64) -> Node {
    let many = (0..60).map(|n| (format!("f{n:02}"), file(noise(n, 3000)))).collect();
    dir([
        ("etc", dir([("os-release", file(format!("VERSION={version}\n")))])),
        (
            "usr",
            dir([
                (
                    "bin",
                    dir([
                        ("tool", Node::File(FileMeta::regular(0o4755, 0), noise(version + 1000, 50_000))),
                        ("link", Node::File(FileMeta::link("tool"), Vec::new())),
                    ]),
                ),
                ("share", Node::Dir(DirMeta::root(0o755), many)),
                ("large", file(noise(7, 6 << 20))),
                ("zeros", file(vec![0; 5 << 20])),
                ("empty", file("")),
            ]),
        ),
    ])
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let origin = Repo::create(&dir.path().join("origin"), Mode::Archive).unwrap().without_fsync();
        let world = World { dir, origin, key: SecretKey::from_seed(&[9; 32]) };
        world.commit(1);
        world
    }

    pub fn commit(&self, version: u64) -> Checksum {
        let tree = import::tree(&self.origin, &tree(version)).unwrap();
        let mut builder = Builder::new(tree.root_tree, tree.root_meta, 1000 + version).bind(REF);
        builder.record_sizes(&self.origin).unwrap();
        let commit = builder.write(&self.origin).unwrap();
        sign_commit(&self.origin, &commit, &self.key).unwrap();
        self.origin.set_ref(REF, &commit).unwrap();
        commit
    }

    pub fn target(&self, name: &str, mode: Mode) -> Repo {
        Repo::create(&self.dir.path().join(name), mode).unwrap().without_fsync()
    }

    pub fn serve(&self, options: serve::Options) -> Running {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Server::bind(self.origin.path(), address, options).unwrap().spawn().unwrap()
    }

    pub fn options(&self, url: &str) -> Options<'static> {
        let keyring = Keyring::of([self.key.public()]);
        Options {
            remote: Some("default".into()),
            network: Network { retries: 1, stall_seconds: 20, connections: 3, ..Network::default() },
            ..Options::new(url, REF, Some(keyring))
        }
    }

    pub fn object(&self, extension: &str, pick: impl Fn(u64) -> bool) -> PathBuf {
        let mut found = Vec::new();
        for dir in fs::read_dir(self.origin.path().join("objects")).unwrap() {
            for entry in fs::read_dir(dir.unwrap().path()).unwrap() {
                let entry = entry.unwrap();
                let size = entry.metadata().unwrap().len();
                if entry.path().extension().is_some_and(|e| e == extension) && pick(size) {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        found.into_iter().next().expect("such an object")
    }
}

pub fn text(error: &PullError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

pub fn healthy(repo: &Repo) {
    let report = fsck(repo, &fsck::Options::default()).unwrap();
    assert_eq!(report.problems, [], "{}", repo.path().display());
}

pub fn content(repo: &Repo, commit: &Checksum) -> BTreeMap<String, String> {
    let mut paths = BTreeMap::new();
    repo.walk(commit, |path, entry| {
        if let store::Entry::File { checksum } = entry {
            repo.verify_file(&checksum)?;
        }
        paths.insert(path.to_owned(), format!("{entry:?}"));
        Ok(())
    })
    .unwrap();
    paths
}

/// The machine's own Debian mirror.
pub fn mirror() -> String {
    sid::mirror().unwrap()
}

/// What a server logs.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
