//! `slipway key`, `sign`, `publish`, `serve` and `repo` as processes: what a script or a person at a terminal sees.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use sys::{Cmd, Output};

struct World {
    dir: tempfile::TempDir,
}

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    fn new() -> World {
        let world = World { dir: tempfile::tempdir_in("/var/tmp").unwrap() };
        fs::create_dir_all(world.path("tree/usr/bin")).unwrap();
        fs::write(world.path("tree/usr/bin/tool"), "#!/bin/sh\necho tool\n").unwrap();
        fs::set_permissions(world.path("tree/usr/bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("tool", world.path("tree/usr/bin/link")).unwrap();
        fs::write(world.path("tree/version"), "1\n").unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cmd(&self, args: &[&str]) -> Cmd {
        Cmd::new(env!("CARGO_BIN_EXE_slipway")).args(args).dir(self.dir.path()).env_remove("SOURCE_DATE_EPOCH")
    }

    fn out(&self, args: &[&str]) -> Output {
        self.cmd(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        self.cmd(args).run().unwrap().text()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.out(args);
        assert_eq!(output.code, 3, "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    fn commit(&self, timestamp: &str) -> String {
        let time = format!("--timestamp=@{timestamp}");
        self.ok(&["repo", "--repo", "build", "commit", "-b", "os/x", "-s", "news", &time, "tree"])
    }

    fn serve(&self, args: &[&str]) -> (Serving, String) {
        let mut command = self.cmd(&["serve"]).args(args).to_command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Serving(child), line.trim_end().to_owned())
    }
}

#[test]
fn a_key_is_made_once_and_is_secret() {
    let world = World::new();
    let public = world.ok(&["key", "new", "k"]);
    assert_eq!(fs::metadata(world.path("k")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(world.path("k.pub")).unwrap(), format!("{public}\n"));
    assert_eq!(world.ok(&["key", "show", "k"]), public);
    assert_eq!(world.ok(&["key", "show", "k.pub"]), public);
    assert_eq!(world.json(&["key", "show", "k", "--json"])["public"], public.as_str());
    let secret = fs::read_to_string(world.path("k")).unwrap();
    assert!(world.refused(&["key", "new", "k"]).contains("k exists already"));
    assert_eq!(fs::read_to_string(world.path("k")).unwrap(), secret, "never overwritten");
}

#[test]
fn commit_sign_publish_serve_pull() {
    let world = World::new();
    world.ok(&["key", "new", "k"]);
    world.ok(&["key", "new", "other"]);
    world.ok(&["repo", "--repo", "build", "init", "--mode", "bare-user"]);
    let first = world.commit("1700000000");
    assert_ne!(world.commit("1700000000"), first, "it has a parent now");
    world.ok(&["repo", "--repo", "build", "refs", "--delete", "os/x"]);
    assert_eq!(world.commit("1700000000"), first, "same inputs, same commit");

    let publish = ["publish", "os/x", "--repo", "build", "public"];
    let text = world.refused(&publish);
    assert!(text.contains("is not signed") && text.contains("hint: sign it"), "{text}");
    assert!(!world.path("public").exists());

    // From a file, from the environment, from a descriptor.
    world.ok(&["sign", "os/x", "--repo", "build", "--key", "k"]);
    let secret = fs::read_to_string(world.path("other")).unwrap();
    world.cmd(&["sign", "os/x", "--repo", "build", "--key-env", "SECRET"]).env("SECRET", secret.trim()).run().unwrap();
    let mut by_fd = world.cmd(&["sign", "os/x", "--repo", "build", "--key-fd", "0"]).to_command();
    assert!(by_fd.stdin(File::open(world.path("k")).unwrap()).stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(world.json(&["repo", "--repo", "build", "show", "os/x", "--json"])["signatures"], 2);

    world.ok(&["key", "new", "stranger"]);
    let text = world.refused(&["publish", "os/x", "--repo", "build", "public", "--keyring", "stranger.pub"]);
    assert!(text.contains("none of the commit's 2 signatures"), "{text}");
    assert!(world.ok(&["publish", "os/x", "--repo", "build", "public", "--dry-run"]).is_empty());
    assert!(!world.path("public").exists());
    let done = world.json(&["publish", "os/x", "--repo", "build", "public", "--keyring", "k.pub", "--json"]);
    assert_eq!(done["commit"], first.as_str());
    world.ok(&["repo", "--repo", "public", "fsck", "--quiet"]);
    let again = world.json(&["publish", "os/x", "--repo", "build", "public", "--json"]);
    assert_eq!(again["objects"], 0);

    let (_serving, url) = world.serve(&["public", "--log", "log"]);
    world.ok(&["repo", "--repo", "machine", "init", "--mode", "bare-user"]);
    let output = world.out(&["repo", "--repo", "machine", "pull", &url, "os/x"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.code == 1 && text.contains("--keyring"), "{text}");
    let output = world.out(&["repo", "--repo", "machine", "pull", &url, "os/x", "--keyring", "stranger.pub"]);
    assert_eq!(output.code, 1);
    let pull = ["repo", "--repo", "machine", "pull", &url, "os/x", "--keyring", "k.pub"];
    let ahead = world.cmd(&pull).arg("--dry-run").run().unwrap().errors();
    assert!(ahead.contains(": 7 objects"), "the size is known before: {ahead}");
    let pulled = world.cmd(&pull).run().unwrap();
    assert_eq!(pulled.text(), first);
    assert!(pulled.errors().contains("7 objects"), "{}", pulled.errors());
    let log = fs::read_to_string(world.path("log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|l| l["path"] == "/refs/heads/os/x" && l["status"] == 200), "{log}");

    // An older commit is not published over a newer one.
    fs::write(world.path("tree/version"), "0\n").unwrap();
    world.commit("1600000000");
    world.ok(&["sign", "os/x", "--repo", "build", "--key", "k"]);
    let text = world.refused(&publish);
    assert!(text.contains("downgrade") && text.contains("--allow-downgrade"), "{text}");
}

#[test]
fn a_repository_is_looked_into() {
    let world = World::new();
    world.ok(&["repo", "--repo", "build", "init", "--mode", "archive"]);
    let one = world.commit("1700000000");
    fs::write(world.path("tree/version"), "2\n").unwrap();
    fs::write(world.path("tree/added"), "").unwrap();
    fs::remove_file(world.path("tree/usr/bin/link")).unwrap();
    let two = world.commit("1700000001");
    let repo = |args: &[&str]| world.ok(&[&["repo", "--repo", "build"], args].concat());
    assert_eq!(repo(&["refs", "-r"]), format!("os/x\t{two}"));
    assert_eq!(repo(&["cat", "os/x^", "/version", "/version"]), "1\n1");
    assert_eq!(repo(&["diff", "os/x"]), "M    /version\nD    /usr/bin/link\nA    /added");
    assert_eq!(repo(&["diff", &one, &one]), "");
    let log = repo(&["log", "os/x"]);
    assert!(log.contains(&format!("commit {two}\nParent:  {one}\nContentChecksum:")), "{log}");
    assert_eq!(world.json(&["repo", "--repo", "build", "log", "os/x", "--json"]).as_array().unwrap().len(), 2);
    let listing = repo(&["ls", "-R", &one, "/usr"]);
    assert!(listing.contains("/usr/bin/link -> tool") && listing.lines().count() == 4, "{listing}");
    assert!(repo(&["ls", &one]).contains("-00644"));
    let listing = world.json(&["repo", "--repo", "build", "ls", &one, "usr/bin/tool", "--json"]);
    assert_eq!((&listing[0]["mode"], &listing[0]["size"]), (&"00755".into(), &20.into()));
    let missing = world.out(&["repo", "--repo", "build", "cat", "os/x", "/none"]);
    assert!(missing.code == 1 && String::from_utf8_lossy(&missing.stderr).contains("has no /none"));

    repo(&["checkout", "-U", "os/x", "out"]);
    assert_eq!(fs::read_to_string(world.path("out/version")).unwrap(), "2\n");
    assert!(repo(&["prune", "--refs-only", "--depth", "0", "--json"]).contains("\"deleted\":"));
    assert_eq!(world.out(&["repo", "--repo", "build", "log", &one]).code, 1);
    let object =
        world.json(&["repo", "--repo", "build", "ls", "os/x", "/version", "--json"])[0]["checksum"].to_string();
    let object = object.trim_matches('"');
    let file = world.path(&format!("build/objects/{}/{}.filez", &object[..2], &object[2..]));
    fs::write(&file, "damaged").unwrap();
    let check = world.out(&["repo", "--repo", "build", "fsck", "--json"]);
    let report: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!((check.code, &report["problems"][0]["checksum"]), (1, &object.into()));
}

/// From its first object to its ref a commit keeps a prune away.
#[test]
fn a_prune_waits_for_a_commit_to_have_its_ref() {
    let world = World::new();
    world.ok(&["key", "new", "k"]);
    world.ok(&["repo", "--repo", "build", "init", "--mode", "archive"]);
    let config = fs::read_to_string(world.path("build/config")).unwrap();
    fs::write(world.path("build/config"), config + "lock-timeout-secs=0\n").unwrap();
    // The commit is there and has no ref yet, while its writer waits for the key that it is to be signed with.
    Cmd::new("mkfifo").arg(world.path("pipe")).run().unwrap();
    let args = ["repo", "--repo", "build", "commit", "-b", "os/x", "--sign-from-file=pipe", "tree"];
    let mut child = world.cmd(&args).to_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let repo = store::Repo::open(&world.path("build")).unwrap();
    while repo.commits().unwrap().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    let prune = ["repo", "--repo", "build", "prune", "--refs-only"];
    let output = world.out(&prune);
    assert!(output.code == 1 && String::from_utf8_lossy(&output.stderr).contains("locked"), "nobody waits for it");
    fs::write(world.path("pipe"), fs::read(world.path("k")).unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
    world.ok(&prune);
    assert_consistent(&world.path("build"));
    world.ok(&["repo", "--repo", "build", "ls", "os/x"]);
}

/// Both tools commit to one repository while both prune it.
#[test]
fn stock_and_we_write_and_prune_at_the_same_time() {
    const ROUNDS: u32 = 8;
    let world = World::new();
    world.ok(&["repo", "--repo", "build", "init", "--mode", "archive"]);
    let config = fs::read_to_string(world.path("build/config")).unwrap();
    fs::write(world.path("build/config"), config + "fsync=false\n").unwrap();
    let slipway = env!("CARGO_BIN_EXE_slipway");
    let commit = |tool: &[&str], branch: &str| {
        let tree = world.path(&format!("tree-{branch}"));
        fs::create_dir_all(&tree).unwrap();
        for round in 0..ROUNDS {
            for n in 0..40 {
                fs::write(tree.join(n.to_string()), format!("{branch} {round} {n}\n").repeat(50)).unwrap();
            }
            let args = ["--repo=build", "commit", "-b", branch, "-s", "s", &format!("--tree=dir=tree-{branch}")];
            let cmd = Cmd::new(tool[0]).args(&tool[1..]).args(args).dir(world.dir.path());
            cmd.run().unwrap_or_else(|error| panic!("{branch}, round {round}: {error}"));
        }
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let prune = |tool: &[&str]| {
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let args = ["--repo=build", "prune", "--refs-only", "--depth=0"];
            Cmd::new(tool[0]).args(&tool[1..]).args(args).dir(world.dir.path()).run().unwrap();
        }
    };
    std::thread::scope(|scope| {
        let prunes = [scope.spawn(|| prune(&["ostree"])), scope.spawn(|| prune(&[slipway, "repo"]))];
        let commits =
            [scope.spawn(|| commit(&["ostree"], "stock")), scope.spawn(|| commit(&[slipway, "repo"], "ours"))];
        let results: Vec<_> = commits.into_iter().map(|thread| thread.join()).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for result in results.into_iter().chain(prunes.into_iter().map(|thread| thread.join())) {
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    assert_consistent(&world.path("build"));
    Cmd::new("ostree").args(["--repo=build", "fsck"]).dir(world.dir.path()).run().unwrap();
    for branch in ["stock", "ours"] {
        let listed = world.ok(&["repo", "--repo", "build", "cat", branch, "/39"]);
        assert_eq!(listed.lines().next().unwrap(), format!("{branch} {} 39", ROUNDS - 1));
    }
}

#[test]
fn packages_of_two_versions_are_compared_and_tags_outlive_a_prune() {
    let world = World::new();
    world.ok(&["repo", "--repo", "build", "init", "--mode", "bare-user"]);
    let status = |packages: &[(&str, &str, &str)]| {
        let text: String = packages
            .iter()
            .map(|(name, version, state)| {
                format!("Package: {name}\nStatus: install ok {state}\nVersion: {version}\n\n")
            })
            .collect();
        fs::create_dir_all(world.path("tree/usr/lib/sysimage/dpkg")).unwrap();
        fs::write(world.path("tree/usr/lib/sysimage/dpkg/status"), text).unwrap();
    };
    status(&[("libc6", "2.41-1", "installed"), ("old", "1", "installed"), ("same", "3", "installed")]);
    let one = world.commit("1700000000");
    // What was removed and left its configuration is not installed.
    status(&[
        ("libc6", "2.41-2", "installed"),
        ("new", "7", "installed"),
        ("same", "3", "installed"),
        ("old", "1", "config-files"),
    ]);
    let two = world.commit("1700000001");
    let diff = |more: &[&str]| world.ok(&[&["repo", "--repo", "build", "diff", "os/x", "--packages"], more].concat());
    assert_eq!(diff(&[]), "M    libc6 2.41-1 -> 2.41-2\nA    new 7\nD    old 1");
    let list: Value = serde_json::from_str(&diff(&["--json"])).unwrap();
    assert_eq!(list[0], serde_json::json!({ "package": "libc6", "from": "2.41-1", "to": "2.41-2" }));
    assert_eq!((list.as_array().unwrap().len(), &list[1]["from"]), (3, &Value::Null));

    let three = world.commit("1700000002");
    world.ok(&["repo", "--repo", "build", "refs", "--create", "release/1", &one]);
    let prune = ["repo", "--repo", "build", "prune", "--refs-only", "--depth=0", "--keep-tagged=release"];
    world.ok(&prune);
    let here = |commit: &str| world.out(&["repo", "--repo", "build", "show", commit]).code == 0;
    assert_eq!([&one, &two, &three].map(|commit| here(commit)), [true, false, true]);
    assert_consistent(&world.path("build"));
}

#[test]
fn a_killed_commit_leaves_nothing_visible() {
    let world = World::new();
    for n in 0..3000 {
        fs::write(world.path(&format!("tree/{n}")), format!("{n}\n").repeat(300)).unwrap();
    }
    world.ok(&["repo", "--repo", "build", "init", "--mode", "archive"]);
    for millis in [20, 60, 120, 200] {
        let args = ["repo", "--repo", "build", "commit", "-b", "os/x", "tree"];
        let mut child = world.cmd(&args).to_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        // Perhaps it was quicker; then there is nothing to kill.
        let _ = child.kill();
        child.wait().unwrap();
        assert_consistent(&world.path("build"));
    }
    world.ok(&["repo", "--repo", "build", "commit", "-b", "os/x", "tree"]);
    assert_consistent(&world.path("build"));
}

/// Every object that is there is whole, and a ref points to a whole commit.
fn assert_consistent(repo: &Path) {
    let repo = store::Repo::open(repo).unwrap();
    let report = store::fsck::fsck(&repo, &store::fsck::Options::default()).unwrap();
    assert_eq!(report.problems, []);
}
