//! The oracle of `compose::rootfs`: mmdebstrap makes a root of the very same packages, and the two are compared path by
//! path: type, mode, owner, link target, content, hard links, extended attributes (and so capabilities and ACLs); then
//! dpkg's status with its Conffiles, `dpkg --verify` and `dpkg --audit`.
//!
//! Needs root, the network and mmdebstrap: heavy tier. `SLIPWAY_TEST_CACHE` names a directory that keeps the packages.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{Exception, differences, root_or_say};
use compose::packages::{self, Package};
use compose::rootfs::{self, Sandbox};
use compose::treefile::{self, Treefile};
use sys::{Cmd, Reporter};

const MEDIUM: &str =
    "systemd systemd-sysv openssh-server podman crun lvm2 nftables dbus e2fsprogs libpam-systemd iproute2";

/// Where the roots may differ, and why; `common::names` says what a pattern stands for.
const EXCEPTIONS: [Exception<'static>; 7] = [
    (
        "mmdebstrap makes it, no package ships it: device nodes, a placeholder, the build machine's name and resolver",
        &["/dev/", "/etc/fstab", "/etc/hostname", "/etc/resolv.conf", "/etc/.resolv.conf.systemd-resolved.bak"],
    ),
    (
        "apt works inside mmdebstrap's root, and outside of ours",
        &["/etc/apt/", "/var/cache/apt/", "/var/lib/apt/", "/var/log/apt/"],
    ),
    (
        "the rules about documentation, in a file of another name",
        &["/etc/dpkg/dpkg.cfg.d/99mmdebstrap", "/etc/dpkg/dpkg.cfg.d/no-documentation"],
    ),
    (
        "of the moment: a tmpfs in the sandbox, locks",
        &["/run/", "/etc/.pwd.lock", "/var/lib/dpkg/lock*", "/var/lib/dpkg/triggers/Lock"],
    ),
    (
        "the state before the last change, and we make fewer of them",
        &["/etc/*-", "/var/cache/debconf/*-old", "/var/lib/dpkg/*-old"],
    ),
    ("random, and made anew on each machine", &["/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub"]),
    (
        // Compared below all the same, without order and numbers.
        "packages that depend on nothing of each other are configured in the order in which dpkg meets them, and take \
         the next free user and group number",
        &["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/var/lib/dpkg/triggers/File"],
    ),
];

fn heavy(test: &str) -> bool {
    if std::env::var_os("SLIPWAY_HEAVY").is_none() {
        eprintln!("{test} DID NOT RUN: set SLIPWAY_HEAVY=1 to compare with mmdebstrap");
        return false;
    }
    root_or_say(test)
}

/// Packages stay from run to run, so that the network is needed once.
fn cache() -> PathBuf {
    let dir = std::env::var_os("SLIPWAY_TEST_CACHE").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("rootfs-cache"));
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A repository of exactly these packages, for apt. mmdebstrap looks for the essential ones by the suite's name.
fn repository(packages: &[Package], dir: &Path) {
    fs::create_dir(dir).unwrap();
    let mut index = String::new();
    for package in packages {
        let file = format!("{}.deb", package.sha256);
        fs::copy(&package.deb, dir.join(&file)).unwrap();
        let control = Cmd::new("dpkg-deb").arg("--field").arg(&package.deb).run().unwrap().text();
        let (size, sha256) = (package.size, &package.sha256);
        let _ = write!(index, "{control}\nFilename: ./{file}\nSize: {size}\nSHA256: {sha256}\n\n");
    }
    fs::write(dir.join("Packages"), &index).unwrap();
    let sha256 = Cmd::new("sha256sum").arg(dir.join("Packages")).run().unwrap().text();
    let sha256 = &sha256[..64];
    let release = format!(
        "Suite: trixie\nCodename: trixie\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: amd64 arm64 all\nSHA256:\n {sha256} {} \
         Packages\n",
        index.len()
    );
    fs::write(dir.join("Release"), release).unwrap();
}

fn mmdebstrap(packages: &[Package], repository: &Path, root: &Path, epoch: u64) {
    let names: Vec<String> = packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
    let rules = [
        "path-exclude=/usr/share/doc/*",
        "path-include=/usr/share/doc/*/copyright",
        "path-exclude=/usr/share/man/*",
        "path-exclude=/usr/share/info/*",
        "path-exclude=/usr/share/groff/*",
        "path-exclude=/usr/share/gtk-doc/*",
        "path-exclude=/usr/share/doc-base/*",
        "path-exclude=/usr/share/lintian/*",
        "path-exclude=/usr/share/linda/*",
    ];
    Cmd::new("mmdebstrap")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        // As in our sandbox; mmdebstrap passes its environment on.
        .env("INITRD", "No")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TMPDIR", repository.parent().unwrap_or(Path::new("/tmp")))
        .arg("--variant=essential")
        .args(rules.map(|rule| format!("--dpkgopt={rule}")))
        .arg(format!("--include={}", names.join(",")))
        .arg("trixie")
        .arg(root)
        .arg(format!("deb [trusted=yes] copy://{} ./", repository.display()))
        .run()
        .unwrap();
}

fn compare(test: &str, tree: impl FnOnce(&Path) -> Treefile) {
    if !heavy(test) {
        return;
    }
    // Beside the cache: on a disk, where the roots have room.
    let dir = tempfile::Builder::new().prefix("oracle-").tempdir_in(cache()).unwrap();
    // apt's own user must be able to read the repository.
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let tree = tree(dir.path());
    let set = packages::prepare(&tree, &packages::Options::new(cache()), &Reporter::new()).unwrap();

    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let options = rootfs::Options {
        documentation: false,
        keep_sandbox: false,
        cachedir: Some(cache()),
        source_date_epoch: set.source_date_epoch,
    };
    let start = Instant::now();
    rootfs::build(&set.packages, &ours, &options, &Reporter::new()).unwrap();
    let our_time = start.elapsed();
    repository(&set.packages, &dir.path().join("repository"));
    let start = Instant::now();
    mmdebstrap(&set.packages, &dir.path().join("repository"), &theirs, set.source_date_epoch);
    eprintln!("{test}: {} packages, ours {our_time:.1?}, mmdebstrap {:.1?}", set.packages.len(), start.elapsed());

    let mut found = differences(&ours, &theirs, &EXCEPTIONS);
    // Users and groups: the same names with the same fields, but for dynamic numbers; triggers: the same lines.
    for (path, numbers) in [
        ("etc/passwd", &[2, 3][..]),
        ("etc/group", &[2]),
        ("etc/shadow", &[]),
        ("etc/gshadow", &[]),
        ("var/lib/dpkg/triggers/File", &[]),
    ] {
        let (a, b) = (lines(&ours.join(path), numbers), lines(&theirs.join(path), numbers));
        found.extend(a.symmetric_difference(&b).map(|line| format!("/{path}: {line}")));
    }
    for args in [&["dpkg", "--verify"][..], &["dpkg", "--audit"]] {
        let say = |root: &Path| Sandbox::new(root).output(args).unwrap().text();
        let (a, b) = (say(&ours), say(&theirs));
        if args[1] == "--audit" {
            assert_eq!(a, "", "dpkg --audit");
        }
        let set = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        found.extend(set(&a).symmetric_difference(&set(&b)).map(|line| format!("{}: {line}", args.join(" "))));
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// The lines of a file of fields; numbers of system users and groups that packages take as they come are blanked.
fn lines(path: &Path, numbers: &[usize]) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let blank = |line: &str| {
        let mut fields: Vec<&str> = line.split(':').collect();
        for at in numbers {
            if fields.get(*at).and_then(|f| f.parse::<u32>().ok()).is_some_and(|id| (100..1000).contains(&id)) {
                fields[*at] = "dynamic";
            }
        }
        fields.join(":")
    };
    text.lines().map(blank).collect()
}

/// A few packages that do much at their installation.
fn medium(dir: &Path) -> Treefile {
    let file = dir.join("tree.yaml");
    let text = format!(
        "releasever: trixie\nrepos:\n  - name: debian\nrecommends: false\npackages:\n  - {MEDIUM}\nref: test/x\n"
    );
    fs::write(&file, text).unwrap();
    treefile::load(&file).unwrap()
}

/// The treefile that we ship, without our own agent: its package is not in Debian, and brings files that only our layout
/// of a tree expects.
fn container_host() -> Treefile {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../treefiles/container-host.yaml");
    let mut tree = treefile::load(&file).unwrap();
    assert!(tree.packages.remove("slipway-host"), "the agent is no longer called slipway-host");
    tree
}

#[test]
fn heavy_medium_set_is_what_mmdebstrap_makes() {
    compare("heavy_medium_set_is_what_mmdebstrap_makes", medium);
}

#[test]
fn heavy_container_host_is_what_mmdebstrap_makes() {
    compare("heavy_container_host_is_what_mmdebstrap_makes", |_| container_host());
}
