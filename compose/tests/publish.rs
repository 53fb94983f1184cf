//! `slipway publish`, `promote` and `bundle` as processes: what a reader finds, before, between and after.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use store::{Checksum, Repo, fsck};
use sys::{Cmd, Output};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let world = World { dir: tempfile::tempdir_in("/var/tmp").unwrap() };
        fs::create_dir(world.path("tree")).unwrap();
        world.ok("key new k");
        world.ok("key new summary");
        world.ok("repo --repo build init --mode bare-user");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn out(&self, line: &str) -> Output {
        let cmd = Cmd::new(env!("CARGO_BIN_EXE_slipway")).args(line.split(' ')).dir(self.dir.path());
        cmd.env_remove("SOURCE_DATE_EPOCH").env_remove("OSTREE_REPO").output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.out(line);
        assert_eq!(output.code, 0, "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output.text()
    }

    fn refused(&self, line: &str) -> String {
        let output = self.out(line);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.code, 3, "{line}: {text}");
        text
    }

    /// A signed commit of a tree with one file, bound to `os/test` and `os/stable`.
    fn commit(&self, text: &str, time: u64) -> Checksum {
        fs::write(self.path("tree/version"), text).unwrap();
        let options = format!("--timestamp=@{time} --bind-ref=os/stable -b os/test");
        let commit = self.ok(&format!("repo --repo build commit {options} tree"));
        self.ok(&format!("sign {commit} --repo build --key k"));
        commit.parse().unwrap()
    }

    fn whole(&self, repo: &str) -> Repo {
        let repo = Repo::open(&self.path(repo)).unwrap();
        assert_eq!(fsck::fsck(&repo, &fsck::Options::default()).unwrap().problems, []);
        repo
    }
}

fn has(repo: &Repo, commit: &Checksum) -> bool {
    repo.has(store::ObjectType::Commit, commit)
}

/// As if the repository had been published long ago: what was replaced, and every object.
fn long_ago(repo: &Path) {
    let path = repo.join("state/published.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for entry in state["replaced"].as_array_mut().unwrap() {
        entry["at"] = 1_000_000.into();
    }
    fs::write(&path, state.to_string()).unwrap();
}

#[test]
fn what_was_replaced_lately_is_spared() {
    let world = World::new();
    let one = world.commit("1\n", 1_700_000_000);
    world.ok("publish os/test --repo build public");
    let two = world.commit("2\n", 1_700_000_001);
    let three = world.commit("3\n", 1_700_000_002);
    let publish = "publish os/test --repo build public --prune --history 0";
    world.ok(publish);
    let public = world.whole("public");
    assert!(has(&public, &one) && has(&public, &three) && !has(&public, &two), "only what was published is there");
    let sizes = |commit: &Checksum| world.path("public").join(store::update::sizes_path(commit));
    assert!(sizes(&one).is_file() && sizes(&three).is_file());
    let detached = public.load_detached(&three).unwrap().unwrap_or_default();
    assert!(!detached.contains_key(store::commit::SIZES), "every pull fetches the signatures");
    long_ago(&world.path("public"));
    world.ok(&format!("{publish} --grace 0"));
    let public = world.whole("public");
    assert!(!has(&public, &one) && has(&public, &three), "nobody reads it any more");
    assert!(!sizes(&one).exists() && sizes(&three).is_file());
    assert_eq!(public.read_ref("os/test").unwrap(), Some(three));
}

#[test]
fn an_interrupted_publication_shows_the_old_version_and_goes_on() {
    let world = World::new();
    let one = world.commit("1\n", 1_700_000_000);
    world.ok("publish os/test --repo build public --summary-key summary");
    for n in 0..2000 {
        fs::write(world.path(&format!("tree/{n}")), format!("{n}\n").repeat(200)).unwrap();
    }
    let two = world.commit("2\n", 1_700_000_001);
    for millis in [30, 80, 150, 250] {
        let line = "publish os/test --repo build public --summary-key summary";
        let cmd = Cmd::new(env!("CARGO_BIN_EXE_slipway")).args(line.split(' ')).dir(world.dir.path());
        let mut child =
            cmd.to_command().stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        // Perhaps it was quicker; then there is nothing to kill.
        let _ = child.kill();
        child.wait().unwrap();
        let public = world.whole("public");
        let now = public.read_ref("os/test").unwrap().unwrap();
        assert!(now == one || now == two);
        public.objects_of(&now).unwrap().iter().for_each(|(kind, sum)| assert!(public.has(*kind, sum)));
        let (summary, _) = store::summary::read(public.path()).unwrap();
        let named = store::summary::Summary::decode(&summary.unwrap()).unwrap().commit("os/test").unwrap();
        assert!(has(&public, &named));
    }
    world.ok("publish os/test --repo build public --summary-key summary");
    let public = world.whole("public");
    assert_eq!(public.read_ref("os/test").unwrap(), Some(two));
    let (summary, signatures) = store::summary::read(public.path()).unwrap();
    let key = fs::read_to_string(world.path("summary.pub")).unwrap().trim().parse().unwrap();
    store::sign::Keyring::of([key]).verify(&summary.unwrap(), &signatures).unwrap();
}

/// Who asks for a signed summary finds one after every verb that writes it.
#[test]
fn a_signed_summary_stays_signed() {
    let world = World::new();
    let one = world.commit("1\n", 1_700_000_000);
    world.ok("publish os/test --repo build public --summary-key summary");
    let key = fs::read_to_string(world.path("summary.pub")).unwrap().trim().parse().unwrap();
    let keyring = store::sign::Keyring::of([key]);
    let signed = || {
        let (summary, signatures) = store::summary::read(&world.path("public")).unwrap();
        let summary = summary.unwrap();
        keyring.verify(&summary, &signatures).unwrap();
        store::summary::Summary::decode(&summary).unwrap()
    };
    assert_eq!(signed().commit("os/test"), Some(one));
    let two = world.commit("2\n", 1_700_000_001);
    assert!(world.refused("publish os/test --repo build public").contains("--summary-key"));
    assert!(world.refused(&format!("promote {one} --to os/stable --repo public")).contains("--summary-key"));
    assert_eq!((signed().commit("os/test"), signed().commit("os/stable")), (Some(one), None), "nothing was changed");
    world.ok(&format!("promote {one} --to os/stable --repo public --summary-key summary"));
    assert_eq!(signed().commit("os/stable"), Some(one));
    let old = fs::read(world.path("public/summary")).unwrap();
    world.ok("publish os/test --repo build public --summary-key summary --prune");
    assert_eq!(signed().commit("os/test"), Some(two));
    // A reader who fetched the summary just before, and its signature just after.
    let (_, signatures) = store::summary::read(&world.path("public")).unwrap();
    keyring.verify(&old, &signatures).unwrap();
}

#[test]
fn the_commit_that_was_tested_is_promoted() {
    let world = World::new();
    let one = world.commit("1\n", 1_700_000_000);
    world.ok("publish os/test --repo build public");
    assert!(world.refused(&format!("promote {one} --to os/other --repo public")).contains("ref-bindings"));
    assert!(world.ok("promote os/test --to os/stable --repo public --dry-run").is_empty());
    assert_eq!(world.ok("promote os/test --to os/stable --repo public --keyring k.pub"), one.to_string());
    let public = world.whole("public");
    assert_eq!(public.refs().unwrap().into_values().collect::<Vec<_>>(), [one, one]);
    let (summary, _) = store::summary::read(public.path()).unwrap();
    assert_eq!(store::summary::Summary::decode(&summary.unwrap()).unwrap().commit("os/stable"), Some(one));

    let two = world.commit("2\n", 1_700_000_001);
    world.ok("publish os/test --repo build public");
    world.ok(&format!("promote {two} --to os/stable --repo public"));
    let text = world.refused(&format!("promote {one} --to os/stable --repo public"));
    assert!(text.contains("downgrade"), "{text}");
    assert!(world.refused("promote os/test --to os/stable --repo public --keyring summary.pub").contains("signature"));
}

#[test]
fn a_bundle_is_one_file() {
    let world = World::new();
    let one = world.commit("1\n", 1_700_000_000);
    let two = world.commit("2\n", 1_700_000_001);
    let made: Value =
        serde_json::from_str(&world.ok(&format!("bundle {two} --from {one} --repo build -o os.bundle --json")))
            .unwrap();
    assert_eq!((&made["ref"], &made["from"]), (&"os/stable".into(), &one.to_string().into()));
    assert_eq!(made["bytes"], fs::metadata(world.path("os.bundle")).unwrap().len());
    store::bundle::unpack(&world.path("os.bundle"), &world.path("open")).unwrap();
    world.ok("repo --repo machine init --mode bare-user");
    world.ok(&format!("repo --repo machine pull-local build {one}"));
    let url = format!("file://{}", world.path("open").display());
    world.ok(&format!("repo --repo machine pull {url} os/stable --keyring k.pub"));
    let machine = world.whole("machine");
    assert_eq!(machine.read_ref("os/stable").unwrap(), Some(two));
    assert!(
        fs::read_dir(world.dir.path()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with('.'))
    );
    world.refused(&format!("bundle {two} --repo build -o x --ref os/other"));
}

#[test]
fn another_machine_gets_a_copy() {
    let world = World::new();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let there = world.path("there");
    let owner = format!("uid = {uid}\ngid = {gid}\nuse chroot = no\n");
    let config = format!("{owner}[public]\npath = {}\nread only = no\n", there.display());
    fs::write(world.path("rsyncd.conf"), config).unwrap();
    fs::create_dir(world.path("there")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let daemon = Cmd::new("rsync").args(["--daemon", "--no-detach", "--address=127.0.0.1", "--config=rsyncd.conf"]);
    let mut daemon = daemon.arg(format!("--port={port}")).dir(world.dir.path()).to_command().spawn().unwrap();
    let up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    while !up() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let one = world.commit("1\n", 1_700_000_000);
    let target = format!("rsync://127.0.0.1:{port}/public");
    assert!(world.refused(&format!("publish os/test --repo build {target}")).contains("--local"));
    let publish =
        format!("publish os/test --repo build {target} --local here --nginx site --prune --history 0 --grace 0");
    world.ok(&publish);
    assert_eq!(world.whole("there").read_ref("os/test").unwrap(), Some(one));
    let two = world.commit("2\n", 1_700_000_001);
    world.ok(&publish);
    world.ok(&format!("promote {two} --to os/stable --repo here --send {target}"));
    assert_eq!(world.whole("there").read_ref("os/stable").unwrap(), Some(two), "sent on");
    world.ok("repo --repo here refs --delete os/stable");
    long_ago(&world.path("here"));
    world.ok(&publish);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let there = world.whole("there");
    assert_eq!(there.read_ref("os/test").unwrap(), Some(two));
    assert_eq!(there.refs().unwrap().len(), 1, "a ref that was deleted here is not there");
    let (summary, _) = store::summary::read(there.path()).unwrap();
    assert_eq!(store::summary::Summary::decode(&summary.unwrap()).unwrap().refs.len(), 1);
    assert!(!has(&there, &one), "what was pruned here went there");
    assert!(!world.path("there/state").exists() && !world.path("there/tmp").exists(), "only what is served is sent");
    assert!(fs::read_to_string(world.path("site")).unwrap().contains("immutable"));
}
