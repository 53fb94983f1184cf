//! A fleet of one: a signed repository behind HTTP, and a directory laid out like a machine that booted from it.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bootloader::{Counter, Esp};
use deploy::first::{self, Kind};
use deploy::paths::Paths;
use deploy::{DeploymentId, Machine};
use serde_json::{Value, json};
use store::import::{self, Node};
use store::sign::{self, SecretKey};
use store::{Checksum, DirMeta, FileMeta, Mode, Repo, commit, composefs, pull};
use sys::{Cmd, Output};

pub const REF: &str = "debian/13/test";

/// The build side: an archive repository, a key, an HTTP server.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub repo: Repo,
    pub key: SecretKey,
    pub url: String,
    /// Paths that were asked for.
    pub log: Arc<Mutex<Vec<String>>>,
}

/// What goes into a tree.
pub struct Content {
    pub version: &'static str,
    pub timestamp: u64,
    pub kernel: &'static str,
    /// Relative to usr/etc.
    pub etc: Vec<(&'static str, &'static str)>,
    /// Seeds of the keys that the tree trusts, if not the site's.
    pub trusted: Option<Vec<u8>>,
    /// Seeds of the keys that it revokes.
    pub revoked: Vec<u8>,
}

/// The key that comes from a seed.
pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

impl Content {
    pub fn new(version: &'static str, timestamp: u64) -> Content {
        let etc = vec![
            ("passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("group", "root:x:0:\n"),
            ("shadow", "root:*:1::::::\n"),
            ("motd", "hello\n"),
            ("ld.so.cache", "cache\n"),
            ("app/app.conf", "a=1\n"),
        ];
        Content { version, timestamp, kernel: "kernel A", etc, trusted: None, revoked: Vec::new() }
    }

    pub fn trusting(mut self, seeds: &[u8]) -> Content {
        self.trusted = Some(seeds.to_vec());
        self
    }

    pub fn revoking(mut self, seeds: &[u8]) -> Content {
        self.revoked = seeds.to_vec();
        self
    }

    pub fn etc(mut self, path: &'static str, text: &'static str) -> Content {
        self.etc.retain(|(p, _)| *p != path);
        self.etc.push((path, text));
        self
    }

    pub fn without(mut self, path: &'static str) -> Content {
        self.etc.retain(|(p, _)| *p != path);
        self
    }

    pub fn kernel(mut self, text: &'static str) -> Content {
        self.kernel = text;
        self
    }
}

fn put(root: &mut BTreeMap<String, Node>, path: &str, node: Node) {
    match path.split_once('/') {
        None => {
            root.insert(path.to_owned(), node);
        }
        Some((dir, rest)) => {
            let entry = root.entry(dir.to_owned()).or_insert_with(|| Node::Dir(DirMeta::root(0o755), BTreeMap::new()));
            if let Node::Dir(_, children) = entry {
                put(children, rest, node);
            }
        }
    }
}

fn file(text: &str) -> Node {
    Node::File(FileMeta::regular(0o644, text.len() as u64), text.into())
}

impl Site {
    pub fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap().without_fsync();
        let log = Arc::new(Mutex::new(Vec::new()));
        let url = serve(dir.path().join("repo"), log.clone());
        Site { dir, repo, key: SecretKey::from_seed(&[7; 32]), url, log }
    }

    /// Composes, signs and publishes.
    pub fn publish(&self, content: &Content) -> Checksum {
        let commit = self.commit(content);
        sign::sign_commit(&self.repo, &commit, &self.key).unwrap();
        self.repo.set_ref(REF, &commit).unwrap();
        commit
    }

    /// The same, signed by the keys of these seeds and not by the site's.
    pub fn publish_by(&self, content: &Content, seeds: &[u8]) -> Checksum {
        let commit = self.commit(content);
        seeds.iter().for_each(|seed| sign::sign_commit(&self.repo, &commit, &key(*seed)).unwrap());
        self.repo.set_ref(REF, &commit).unwrap();
        commit
    }

    /// Composes; nothing is signed, no ref points to it.
    pub fn commit(&self, content: &Content) -> Checksum {
        let mut root = BTreeMap::new();
        let tree = json!({
            "format": "1.0", "os": "slipway", "ref": REF, "version": content.version,
            "remotes": {"default": {"url": self.url, "ref": REF}},
            "kargs": ["console=ttyS0"], "require": "verified",
        });
        put(&mut root, "usr/lib/slipway/tree.json", file(&tree.to_string()));
        put(&mut root, "usr/lib/os-release", file("NAME=x\nPRETTY_NAME=\"Test Linux\"\n"));
        put(&mut root, "usr/lib/modules/6.12.1/vmlinuz", file(content.kernel));
        put(&mut root, "usr/lib/modules/6.12.1/initramfs.img", file("initramfs"));
        put(&mut root, bootloader::LOADER_IN_TREE, file("loader"));
        put(&mut root, "usr/share/version", file(content.version));
        let lines = |keys: &[SecretKey]| keys.iter().map(|key| format!("{}\n", key.public())).collect::<String>();
        let keys = |seeds: &[u8]| lines(&seeds.iter().map(|seed| key(*seed)).collect::<Vec<_>>());
        let trusted = content.trusted.as_ref().map_or_else(|| format!("{}\n", self.key.public()), |seeds| keys(seeds));
        put(&mut root, "usr/share/ostree/trusted.ed25519.d/test.ed25519", file(&trusted));
        if !content.revoked.is_empty() {
            put(&mut root, "usr/share/ostree/revoked.ed25519.d/test.ed25519", file(&keys(&content.revoked)));
        }
        for (path, text) in &content.etc {
            put(&mut root, &format!("usr/etc/{path}"), file(text));
        }
        let imported = import::tree(&self.repo, &Node::Dir(DirMeta::root(0o755), root)).unwrap();
        let image = composefs::image_of_tree(&self.repo, &imported.root_tree, &imported.root_meta).unwrap();
        let mut builder = commit::Builder::new(imported.root_tree, imported.root_meta, content.timestamp).bind(REF);
        builder.parent = self.repo.read_ref(REF).unwrap();
        builder.metadata.insert("version".into(), store::Value::String(content.version.into()));
        builder.metadata.insert(commit::COMPOSEFS_DIGEST.into(), store::Value::Bytes(image.digest.to_vec()));
        builder.record_sizes(&self.repo).unwrap();
        builder.write(&self.repo).unwrap()
    }
}

/// Serves files; as much HTTP as the client needs.
fn serve(dir: PathBuf, log: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let (dir, log) = (dir.clone(), log.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut request = String::new();
                    if reader.read_line(&mut request).unwrap_or(0) == 0 {
                        return;
                    }
                    let mut header = String::new();
                    while reader.read_line(&mut header).unwrap_or(0) > 2 {
                        header.clear();
                    }
                    let path = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
                    log.lock().unwrap().push(path.clone());
                    let (status, body) = match fs::read(dir.join(&path)) {
                        Ok(body) => ("200 OK", body),
                        Err(_) => ("404 Not Found", Vec::new()),
                    };
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                    if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// A machine.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub paths: Paths,
    pub level: &'static str,
}

impl Host {
    /// A disk made from a commit, booted once.
    pub fn install(site: &Site, commit: &Checksum) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let options = first::Options { signer: Some(site.key.public().to_string()), ..Default::default() };
        let disk = first::plan(&site.repo, commit, &options).unwrap();
        for node in &disk.root {
            let path = root.join("sysroot").join(&node.path);
            match &node.kind {
                Kind::Dir => fs::create_dir_all(&path).unwrap(),
                Kind::File(bytes) => fs::write(&path, bytes).unwrap(),
                Kind::Symlink(target) => symlink(String::from_utf8(target.clone()).unwrap(), &path).unwrap(),
            }
        }
        for file in &disk.esp {
            let path = root.join("efi").join(&file.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &file.bytes).unwrap();
        }
        let repo = Repo::create(&root.join("sysroot/ostree/repo"), Mode::BareUser).unwrap().without_fsync();
        pull::local(&site.repo, &repo, commit).unwrap();
        for path in ["run/slipway", "var", "usr"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        let paths = Paths::new(root);
        let host = Host { dir, paths, level: "unverified" };
        host.boot();
        host
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn repo(&self) -> Repo {
        Repo::open(&self.paths.repo()).unwrap()
    }

    pub fn entries(&self) -> Vec<String> {
        Esp::new(self.paths.esp()).entries().unwrap().into_iter().map(|f| f.file).collect()
    }

    /// What firmware, loader and initramfs do: the first entry, counted down.
    pub fn boot(&self) -> DeploymentId {
        let esp = Esp::new(self.paths.esp());
        let first = esp.entries().unwrap().into_iter().next().expect("nothing boots");
        let mut name = first.name.clone().unwrap();
        if let Some(counter) = name.counter {
            let counted = Counter { left: counter.left.saturating_sub(1), done: counter.done + 1 };
            let entries = self.paths.esp().join(bootloader::ENTRIES_DIR);
            fs::rename(entries.join(&first.file), entries.join(name.with(Some(counted)).to_string())).unwrap();
            name = name.with(Some(counted));
        }
        let text = first.entry.deployment().unwrap();
        let id: DeploymentId = text.strip_prefix("slipway/").unwrap().parse().unwrap();
        assert!(esp.has_kernel(first.entry.bootcsum().unwrap()), "{name} has no kernel");
        self.run(&id);
        id
    }

    /// What prepare-root does.
    fn run(&self, id: &DeploymentId) {
        let deployment = self.paths.deployment("slipway", id);
        assert!(deployment.join(".ostree.cfs").is_file(), "{id} has no image");
        let etc = self.paths.etc();
        let _ = fs::remove_file(&etc);
        assert!(deployment.join("etc").is_dir(), "{id} has no /etc");
        symlink(deployment.join("etc"), &etc).unwrap();
        let usr = self.root().join("usr");
        fs::remove_dir_all(&usr).unwrap();
        fs::create_dir(&usr).unwrap();
        let repo = self.repo();
        let root = self.root().to_owned();
        repo.walk(&id.commit, |path, entry| {
            let at = root.join(path.trim_start_matches('/'));
            match entry {
                store::Entry::Dir { .. } => fs::create_dir_all(&at).unwrap(),
                store::Entry::File { checksum } => {
                    let mut content = repo.open_file(&checksum)?.content;
                    std::io::copy(&mut content, &mut fs::File::create(&at).unwrap()).unwrap();
                }
            }
            Ok(())
        })
        .unwrap();
        let run = self.root().join("run/slipway");
        for file in fs::read_dir(&run).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        let booted = json!({
            "format": "1.0", "os": "slipway", "deployment": id, "commit": id.commit, "digest": null,
            "level": self.level, "required": "verified", "signer": null,
        });
        fs::write(self.paths.booted(), booted.to_string()).unwrap();
    }

    pub fn machine(&self) -> Machine {
        Machine::load(&self.paths).unwrap()
    }

    /// Runs `host`.
    pub fn host(&self, args: &[&str]) -> Output {
        let cmd = Cmd::new(env!("CARGO_BIN_EXE_host")).arg("--root").arg(self.root()).args(args);
        let output = cmd.output().unwrap();
        eprintln!("$ host {}\n{}{}", args.join(" "), output.text(), String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs `host` and wants success.
    pub fn ok(&self, args: &[&str]) -> Output {
        let output = self.host(args);
        assert_eq!(output.code, 0, "host {}", args.join(" "));
        output
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.ok(args).stdout).unwrap()
    }

    /// What a clean shutdown and a boot that comes up well do.
    pub fn reboot(&self) -> DeploymentId {
        self.ok(&["finalize"]);
        let id = self.boot();
        self.ok(&["bless"]);
        id
    }

    pub fn etc(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.paths.etc().join(path)).ok()
    }

    pub fn write_etc(&self, path: &str, text: &str) {
        fs::write(self.paths.etc().join(path), text).unwrap();
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
