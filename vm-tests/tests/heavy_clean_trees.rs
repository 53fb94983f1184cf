//! Heavy tier: in clean Debian 12 and 13 root trees, the README's set-up and build, and the Debian packages without Rust.
//!
//! ```text
//! tree of the release, made by mmdebstrap ─┬─ the sources → `.ci/setup build demo` → `make deb` → two packages
//!                                          └─ the packages alone → apt-get install, no cargo there → slipway resolves
//!                                             its treefile, signs, publishes, serves; host says where it is
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use sys::Cmd;

fn heavy() -> bool {
    let heavy = std::env::var_os("SLIPWAY_HEAVY").is_some();
    if !heavy {
        eprintln!("DID NOT RUN: heavy tier only (SLIPWAY_HEAVY=1, make test-full)");
    }
    heavy
}

/// A small commit: signed, published, served, and pulled back as any client would.
const PUBLISH_AND_SERVE: &str = "\
cd /tmp
slipway key new signing.key
mkdir -p tree/usr/bin
echo hello >tree/usr/bin/hello
slipway repo --repo=build init --mode=bare-user
slipway repo --repo=build commit --branch=test/small tree >/dev/null
slipway sign test/small --repo build --key signing.key
slipway publish test/small --repo build public --keyring signing.key.pub
slipway serve public --listen 127.0.0.1:0 >address &
server=$!
trap 'kill $server' EXIT
for i in $(seq 100); do [ -s address ] && break; sleep 0.1; done
slipway repo --repo=clone init
slipway repo --repo=clone remote add origin --no-gpg-verify \"$(cat address)\"
slipway repo --repo=clone pull origin test/small >/dev/null
slipway repo --repo=clone cat origin:test/small /usr/bin/hello
";

/// The Debian mirror in this machine's own apt sources.
fn mirror() -> String {
    let script = "cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null \
                  | grep -v '^#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' '";
    let mirror = Cmd::new("sh").args(["-c", script]).run().expect("reading apt sources").text();
    assert!(!mirror.is_empty(), "no Debian mirror in this machine's apt sources");
    mirror
}

/// A clean root tree that can be entered; removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn make(suite: &str, name: &str) -> Tree {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clean-{suite}-{name}"));
        let tree = Tree(path);
        tree.clear();
        Cmd::new("mmdebstrap")
            .args(["--variant=apt", "--include=ca-certificates,git,make", suite])
            .arg(&tree.0)
            .arg(mirror())
            .run()
            .expect("mmdebstrap");
        for file in ["etc/resolv.conf", "etc/hosts"] {
            // The mirror must have the same address inside.
            fs::copy(Path::new("/").join(file), tree.0.join(file)).expect("name resolution");
        }
        // A machine that trusts a private certificate authority goes on trusting it inside.
        Cmd::new("cp")
            .args(["-aL", "--remove-destination", "/etc/ssl/certs/."])
            .arg(tree.0.join("etc/ssl/certs"))
            .run()
            .expect("certificates");
        tree.shell_outside("mount -t proc proc proc && mount --rbind /dev dev && mount --make-rslave dev");
        tree
    }

    fn shell_outside(&self, line: &str) {
        Cmd::new("sh").args(["-ec", line]).dir(&self.0).run().expect(line);
    }

    fn shell(&self, line: &str) -> String {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let cmd = Cmd::new("chroot").arg(&self.0).args(["/usr/bin/env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"]);
        let cmd = cmd.arg(format!("PATH={path}")).args(["sh", "-ec", line]);
        cmd.run().expect(line).text()
    }

    fn clear(&self) {
        for mount in ["proc", "dev"] {
            // Not mounted is fine.
            let _ = Cmd::new("umount").arg("-l").arg(self.0.join(mount)).output();
        }
        let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
        assert!(!mounts.contains(&*self.0.to_string_lossy()), "{} is still mounted into", self.0.display());
        sys::file::remove_tree(&self.0).expect("removing the tree");
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.clear();
    }
}

fn sources_build_and_packages_run(suite: &str) {
    let build = Tree::make(suite, "build");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Cmd::new("git")
        .args(["clone", "--quiet", "--no-hardlinks"])
        .arg(&source)
        .arg(build.0.join("slipway"))
        .run()
        .expect("git clone");
    build.shell("cd /slipway && .ci/setup build demo && make deb");

    let plain = Tree::make(suite, "plain");
    plain.shell("apt-get update -q >/dev/null");
    Cmd::new("sh")
        .args(["-c", "mkdir -p \"$2\"/packages && cp \"$1\"/slipway/target/deb/*.deb \"$2\"/packages/", "sh"])
        .arg(&build.0)
        .arg(&plain.0)
        .run()
        .expect("copying the packages");
    packages_work(&plain);
}

/// Installs the packages in a tree that has `/packages` and nothing else of ours, and does a little with each program.
fn packages_work(plain: &Tree) {
    plain.shell("apt-get install -y -q --no-install-recommends /packages/slipway_*.deb >/dev/null");
    assert!(plain.shell("command -v cargo || command -v rustc || echo none") == "none", "there is a Rust toolchain");
    let version = plain.shell("slipway --version");
    assert!(version.starts_with("slipway "), "{version}");

    // The treefile that the package brings, resolved by this release's own apt from this tree's own sources.
    let treefile = "/usr/share/slipway/treefiles/container-host.yaml";
    let plan = plain.shell(&format!("cd /tmp && slipway compose {treefile} --local-packages /packages --dry-run 2>&1"));
    for package in ["linux-image-cloud-", "podman ", "slipway-host "] {
        assert!(plan.contains(package), "no {package}in what would be composed: {plan}");
    }
    assert_eq!(plain.shell(PUBLISH_AND_SERVE).lines().last(), Some("hello"));

    // The agent belongs into trees of Debian 13, which its own package is composed into; it installs on 12 all the same.
    plain.shell("apt-get install -y -q --no-install-recommends /packages/slipway-host_*.deb >/dev/null");
    let version = plain.shell("host --version");
    assert!(version.starts_with("host "), "{version}");
    let refused = plain.shell("host status 2>&1 || echo \"exit $?\"");
    assert!(refused.ends_with("exit 3"), "host outside a Slipway host: {refused}");
}

#[test]
fn heavy_debian_12_builds_from_a_clean_tree_and_runs_the_packages() {
    if heavy() {
        sources_build_and_packages_run("bookworm");
    }
}

#[test]
fn heavy_debian_13_builds_from_a_clean_tree_and_runs_the_packages() {
    if heavy() {
        sources_build_and_packages_run("trixie");
    }
}
