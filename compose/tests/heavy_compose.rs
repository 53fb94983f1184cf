//! Heavy tier: the container host and its next version, composed from real packages with the packages of `make deb`, and
//! read back with the stock `ostree`. Needs root, the network (once: packages are kept) and the sandbox.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sys::Cmd;

const REF: &str = "slipway/trixie/amd64/container-host";

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// A key, and a treefile for each version that trusts it.
    fn new() -> World {
        let world = World { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
        world.slipway().args(["key", "new", "signing.key"]).run().unwrap();
        for (name, base) in [("one", "container-host"), ("two", "test-overlay")] {
            let treefiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../treefiles");
            let text = format!(
                "include: {}/{base}.yaml\nremotes:\n  default:\n    url: http://updates.example/\n    keys: [signing.key.pub]\n",
                treefiles.canonicalize().unwrap().display()
            );
            fs::write(world.dir.path().join(format!("{name}.yaml")), text).unwrap();
        }
        world
    }

    fn slipway(&self) -> Cmd {
        Cmd::new(env!("CARGO_BIN_EXE_slipway")).dir(self.dir.path())
    }

    fn compose(&self, treefile: &str, repo: &str) -> String {
        let cache = std::env::var_os("SLIPWAY_TEST_CACHE").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("compose-cache"));
        fs::create_dir_all(&cache).unwrap();
        let debs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/deb");
        let compose = self.slipway().args(["compose", treefile, "--repo", repo, "--sign-key", "signing.key"]);
        let compose = compose.arg("--cachedir").arg(&cache).arg("--workdir").arg(self.dir.path().join("work"));
        compose.arg("--local-packages").arg(debs).run().unwrap().text()
    }

    fn ostree(&self, args: &[&str]) -> String {
        Cmd::new("ostree").dir(self.dir.path()).arg("--repo=repo").args(args).run().unwrap().text()
    }

    fn cat(&self, revision: &str, path: &str) -> String {
        self.ostree(&["cat", revision, path])
    }
}

fn heavy() -> bool {
    let heavy = std::env::var_os("SLIPWAY_HEAVY").is_some();
    if !heavy {
        eprintln!("DID NOT RUN: heavy tier only (SLIPWAY_HEAVY=1, make test-full)");
    }
    heavy
}

/// Each thing that a machine relies on, in a tree of real packages.
fn check_tree(world: &World, revision: &str) {
    let top: BTreeSet<String> =
        world.ostree(&["ls", revision, "/"]).lines().filter_map(|l| l.split(" /").nth(1)).map(str::to_owned).collect();
    for mount in ["boot", "dev", "efi", "proc", "run", "sys", "sysroot", "tmp", "var"] {
        assert!(top.contains(mount), "no mount point /{mount} in {top:?}");
        assert_eq!(world.ostree(&["ls", revision, &format!("/{mount}")]).lines().count(), 1, "/{mount} is not empty");
    }
    assert!(!top.contains("etc"), "/etc beside /usr/etc");
    let etc = world.ostree(&["ls", "-R", revision, "/usr/etc"]);
    for unwanted in ["ssh_host_", "/usr/etc/hostname", "/usr/etc/fstab", "/usr/etc/passwd-", ".dpkg-"] {
        assert!(!etc.contains(unwanted), "{unwanted} in /usr/etc");
    }
    assert_eq!(world.cat(revision, "/usr/etc/machine-id"), "");

    let modules = world.ostree(&["ls", revision, "/usr/lib/modules"]);
    assert_eq!(modules.lines().count(), 2, "more than one kernel:\n{modules}");

    // Each system account has a line with its number.
    let mut fixed = BTreeSet::new();
    for line in world.ostree(&["ls", revision, "/usr/lib/sysusers.d"]).lines().skip(1) {
        let path = line.split_whitespace().last().unwrap().to_owned();
        for line in world.cat(revision, &path).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["u" | "u!", name, id, ..] = words[..] {
                let number = id.split(':').next().unwrap_or_default();
                assert!(number.parse::<u32>().is_ok(), "{path}: no number for {name}");
                fixed.insert(format!("{name}:{number}"));
            }
        }
    }
    for line in world.cat(revision, "/usr/etc/passwd").lines() {
        let fields: Vec<&str> = line.split(':').collect();
        assert!(fixed.contains(&format!("{}:{}", fields[0], fields[2])), "no sysusers.d line for {}", fields[0]);
    }
}

#[test]
fn heavy_two_versions_of_the_container_host() {
    if !heavy() {
        return;
    }
    assert!(rustix::process::geteuid().is_root(), "composing needs root");
    let world = World::new();
    let one = world.compose("one.yaml", "repo");
    assert_eq!(world.compose("one.yaml", "other"), one, "the same inputs gave another commit");
    let two = world.compose("two.yaml", "repo");
    assert_eq!(world.ostree(&["rev-parse", &format!("{REF}^")]), one);
    world.ostree(&["fsck", "--quiet"]);
    for revision in [&one, &two] {
        check_tree(&world, revision);
    }

    let kernel = world.ostree(&["ls", &one, "/usr/lib/modules"]);
    let kernel = kernel.lines().last().unwrap().split_whitespace().last().unwrap().to_owned();
    let initramfs = |revision: &str| world.ostree(&["ls", "-C", revision, &format!("{kernel}/initramfs.img")]);
    assert_eq!(initramfs(&one), initramfs(&two), "versions with the same kernel do not share an initramfs");

    let changed: BTreeSet<String> = world.ostree(&["diff", &one, &two]).lines().map(str::to_owned).collect();
    let expected = [
        "M    /usr/etc/group",
        "M    /usr/etc/gshadow",
        "M    /usr/etc/issue.net",
        "M    /usr/etc/motd",
        "M    /usr/etc/passwd",
        "M    /usr/etc/shadow",
        "M    /usr/lib/os-release",
        "M    /usr/lib/slipway/tree.json",
        "M    /usr/lib/sysimage/dpkg/status",
        "M    /usr/share/slipway/treefile.json",
        "A    /usr/bin/tree",
        "A    /usr/lib/sysimage/dpkg/info/tree.list",
        "A    /usr/lib/sysimage/dpkg/info/tree.md5sums",
        "A    /usr/lib/sysusers.d/slipway-test.conf",
        "A    /usr/lib/tmpfiles.d/slipway-test.conf",
        "A    /usr/share/doc/tree",
        "A    /usr/share/doc/tree/copyright",
    ];
    assert_eq!(
        changed,
        expected.iter().map(|e| (*e).to_owned()).collect::<BTreeSet<_>>(),
        "one more package changes other files"
    );
}
