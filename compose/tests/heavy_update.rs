//! Heavy tier: the reference host from trixie alone and with trixie's updates, a new kernel among them; the update
//! between the two, applied within its memory. Needs root, the network (once: packages are kept) and the sandbox.

use std::fs;
use std::path::{Path, PathBuf};

use sys::Cmd;

const REF: &str = "slipway/trixie/amd64/container-host";

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn slipway(&self) -> Cmd {
        Cmd::new(env!("CARGO_BIN_EXE_slipway")).dir(self.dir.path())
    }

    fn compose(&self, repos: &str) -> String {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
        let text = format!("include: {}/treefiles/container-host.yaml\n{repos}", top.display());
        fs::write(self.dir.path().join("host.yaml"), text).unwrap();
        let cache = std::env::var_os("SLIPWAY_TEST_CACHE").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("compose-cache"));
        fs::create_dir_all(&cache).unwrap();
        let compose = self.slipway().args(["compose", "host.yaml", "--repo", "build"]).arg("--cachedir").arg(cache);
        let compose = compose.arg("--workdir").arg(self.dir.path().join("work"));
        compose.arg("--local-packages").arg(top.join("target/deb")).run().unwrap().text()
    }
}

#[test]
fn heavy_a_point_release_in_our_own_format() {
    if std::env::var_os("SLIPWAY_HEAVY").is_none() {
        eprintln!("DID NOT RUN: heavy tier only (SLIPWAY_HEAVY=1, make test-full)");
        return;
    }
    let world = World { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
    let old = world.compose("repos:\n  - name: debian\n    suites: trixie\n");
    let publish = || {
        let args = ["publish", REF, "--repo", "build", "published", "--allow-unsigned"];
        world.slipway().args(args).run().unwrap()
    };
    publish();
    let machine = Cmd::new("ostree").dir(world.dir.path());
    machine.clone().args(["init", "--repo=machine", "--mode=bare-user"]).run().unwrap();
    machine.clone().args(["pull-local", "--repo=machine", "published", REF]).run().unwrap();
    let new = world.compose("");
    assert_ne!(old, new, "trixie has no updates to compare with");
    publish();

    let update = world.dir.path().join("published/updates").join(&new).join(format!("{old}.update"));
    let apply = world.slipway().args(["repo", "update", "apply", "--repo", "machine"]).arg(&update);
    let timed =
        Cmd::new("/usr/bin/time").args(["-f", "%M", "-o", "peak", "sh", "-c"]).arg(format!("exec {}", apply.line()));
    timed.dir(world.dir.path()).run().unwrap();
    let peak: u64 = fs::read_to_string(world.dir.path().join("peak")).unwrap().trim().parse().unwrap();
    assert!(peak <= 192 << 10, "{peak} KiB to apply it");
    machine.clone().args(["fsck", "--repo=machine", "--quiet"]).run().unwrap();
    assert_eq!(machine.args(["ls", "-R", "-C", "--repo=machine", &new]).run().unwrap().text(), {
        Cmd::new("ostree").dir(world.dir.path()).args(["ls", "-R", "-C", "--repo=build", &new]).run().unwrap().text()
    });
}
