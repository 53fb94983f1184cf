//! What the tests of roots share: small packages, a small Debian made of this machine's programs, and a tree as text.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use compose::rootfs::{Input, Options};
use sha2::{Digest, Sha256};
use sys::Cmd;

/// Scripts and owners need root; without it a test says so and ends.
pub fn root_or_say(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test}: DID NOT RUN: needs root");
    }
    root
}

/// A package to be.
pub struct Package {
    dir: PathBuf,
}

impl Package {
    /// Begins a package; `fields` are lines for its control file after the ones every package has.
    pub fn new(dir: &Path, name: &str, fields: &str) -> Self {
        let dir = dir.join(name);
        fs::create_dir_all(dir.join("DEBIAN")).unwrap();
        let arch = if fields.contains("Architecture:") { "" } else { "Architecture: amd64\n" };
        let control = format!(
            "Package: {name}\nVersion: 1.0\nMaintainer: Nobody <nobody@example.org>\n{arch}{fields}Description: a test\n"
        );
        fs::write(dir.join("DEBIAN/control"), control).unwrap();
        fs::set_permissions(dir.join("DEBIAN"), fs::Permissions::from_mode(0o755)).unwrap();
        Package { dir }
    }

    /// A file of the package.
    pub fn file(self, path: &str, content: &str) -> Self {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        self
    }

    /// A control file: `conffiles`, `triggers`, `templates`.
    pub fn control(self, name: &str, content: &str) -> Self {
        self.file(&format!("DEBIAN/{name}"), content)
    }

    /// A shell script of the package.
    pub fn program(self, path: &str, body: &str) -> Self {
        let this = self.file(path, &format!("#!/bin/sh\nset -e\n{body}\n"));
        fs::set_permissions(this.dir.join(path), fs::Permissions::from_mode(0o755)).unwrap();
        this
    }

    /// A maintainer script.
    pub fn script(self, name: &str, body: &str) -> Self {
        self.program(&format!("DEBIAN/{name}"), body)
    }

    /// Builds the `.deb` with Debian's own tool.
    pub fn build(self) -> Input {
        let deb = self.dir.with_extension("deb");
        Cmd::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(&self.dir).arg(&deb).run().unwrap();
        input(deb)
    }
}

/// A `.deb` with its digest.
pub fn input(deb: PathBuf) -> Input {
    let sha256 = hex::encode(Sha256::digest(fs::read(&deb).unwrap()));
    Input { deb, sha256 }
}

/// Programs dpkg and the scripts of the tests need.
const PROGRAMS: [&str; 25] = [
    "sh",
    "dpkg",
    "dpkg-deb",
    "dpkg-query",
    "dpkg-divert",
    "dpkg-statoverride",
    "dpkg-trigger",
    "dpkg-split",
    "rm",
    "cat",
    "mkdir",
    "ln",
    "cp",
    "mv",
    "touch",
    "env",
    "diff",
    "tar",
    "start-stop-daemon",
    "ldconfig",
    "true",
    "grep",
    "sleep",
    "stat",
    "cut",
];

/// A Debian in one package: this machine's dpkg, its shell, and the libraries they need. Enough to run scripts in.
pub fn tiny_debian(dir: &Path) -> Input {
    let arch = Cmd::new("dpkg").arg("--print-architecture").run().unwrap().text();
    let version = Cmd::new("dpkg-query").args(["-W", "-f", "${Version}", "dpkg"]).run().unwrap().text();
    let mut package = Package::new(dir, "dpkg", &format!("Architecture: {arch}\nEssential: yes\n"));
    let control = fs::read_to_string(package.dir.join("DEBIAN/control")).unwrap();
    fs::write(package.dir.join("DEBIAN/control"), control.replace("Version: 1.0", &format!("Version: {version}")))
        .unwrap();
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(package.dir.join("usr").join(name)).unwrap();
        symlink(format!("usr/{name}"), package.dir.join(name)).unwrap();
    }
    fs::create_dir_all(package.dir.join("var/log")).unwrap();
    // Where the scripts of tests leave their traces.
    fs::create_dir_all(package.dir.join("trace")).unwrap();
    let mut files = BTreeSet::new();
    for name in PROGRAMS {
        let places = ["/usr/bin", "/usr/sbin"].map(|dir| format!("{dir}/{name}"));
        let path = places.into_iter().find(|p| Path::new(p).exists()).unwrap_or_else(|| panic!("install {name}"));
        let libraries = Cmd::new("ldd").arg(&path).output().unwrap().text();
        let words = libraries.split_whitespace().filter(|w| w.starts_with('/'));
        files.extend(words.map(|w| w.trim_end_matches(':').to_owned()));
        files.insert(path);
    }
    for file in files {
        // Through the links of a merged /usr.
        let target = package.dir.join(file.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(fs::canonicalize(&file).unwrap(), target).unwrap();
    }
    package = package.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n").file("etc/group", "root:x:0:\n");
    package = package.file("etc/dpkg/dpkg.cfg", "no-debsig\n");
    package.build()
}

/// Options without a cache, with documentation.
pub fn options() -> Options {
    Options { documentation: true, keep_sandbox: false, cachedir: None, source_date_epoch: 1_700_000_000 }
}

/// A tree as text: path → type, mode, owner and group by name, links, extended attributes, content.
pub fn describe(root: &Path) -> BTreeMap<String, String> {
    let names = |file: &str| -> BTreeMap<u32, String> {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        let line = |l: &str| {
            let fields: Vec<&str> = l.split(':').collect();
            Some((fields.get(2)?.parse().ok()?, fields[0].to_owned()))
        };
        text.lines().filter_map(line).collect()
    };
    let (users, groups) = (names("etc/passwd"), names("etc/group"));
    let mut tree = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = |table: &BTreeMap<u32, String>, id: u32| table.get(&id).cloned().unwrap_or(id.to_string());
        let mut text = format!("{:o} {}:{}", meta.mode(), name(&users, meta.uid()), name(&groups, meta.gid()));
        if meta.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if meta.is_symlink() {
            let _ = write!(text, " -> {}", fs::read_link(&path).unwrap().display());
        } else if meta.is_file() {
            let _ = write!(
                text,
                " links={} sha256={}",
                meta.nlink(),
                hex::encode(Sha256::digest(fs::read(&path).unwrap()))
            );
        }
        let mut list = vec![0; 4096];
        let count = rustix::fs::llistxattr(&path, &mut list).unwrap_or(0);
        for key in list[..count].split(|b| *b == 0).filter(|k| !k.is_empty()) {
            let key = String::from_utf8_lossy(key).into_owned();
            let mut value = vec![0; 4096];
            let count = rustix::fs::lgetxattr(&path, &key, &mut value).unwrap_or(0);
            let _ = write!(text, " {key}={}", hex::encode(&value[..count]));
        }
        tree.insert(format!("/{}", path.strip_prefix(root).unwrap().display()), text);
    }
    tree
}

/// A reason why trees may differ, and where.
pub type Exception<'a> = (&'a str, &'a [&'a str]);

/// Whether a pattern names this path: exactly; everything below it, and itself, where it ends in a slash; any part of
/// the last name where that has a star.
pub fn names(pattern: &str, path: &str) -> bool {
    if let Some(dir) = pattern.strip_suffix('/') {
        return path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    }
    match pattern.split_once('*') {
        Some((start, end)) => {
            let part = path.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            part.is_some_and(|part| !part.contains('/'))
        }
        None => path == pattern,
    }
}

/// How two trees differ, one line for each path, without the paths that an exception names.
pub fn differences(ours: &Path, theirs: &Path, exceptions: &[Exception<'_>]) -> Vec<String> {
    let (a, b) = (describe(ours), describe(theirs));
    let paths: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let excepted = |path: &str| exceptions.iter().flat_map(|(_, patterns)| *patterns).any(|p| names(p, path));
    let line = |path: &&String| match (a.get(*path), b.get(*path)) {
        (Some(x), Some(y)) if x == y => None,
        (Some(x), Some(y)) => Some(format!("{path}\n   ours   {x}\n   theirs {y}")),
        (Some(x), None) => Some(format!("{path}\n   only ours   {x}")),
        (None, y) => Some(format!("{path}\n   only theirs {}", y.map_or("", String::as_str))),
    };
    paths.iter().filter(|p| !excepted(p)).filter_map(line).collect()
}
