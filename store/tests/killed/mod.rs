//! Kill -9 at random moments: a child process of this very test does the work, and is killed in the middle of it.
//!
//! ```text
//! round:  change something  ->  start the child  ->  kill it after a random part of the time a whole run takes
//!         ->  what is visible is whole (our fsck; every few rounds the stock one)
//!         ->  run it again, unharmed: it succeeds, nothing is left in tmp, and the result is right
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use store::commit::Builder;
use store::fsck::{self, fsck};
use store::pull::{self, Allowed, Network};
use store::serve::{self, Server};
use store::sign::{Keyring, SecretKey, sign_commit};
use store::{Checksum, Mode, Repo, delta, gc, import, update};
use sys::Cmd;

const JOB: &str = "SLIPWAY_KILL_JOB";
const REPO: &str = "SLIPWAY_KILL_REPO";
const FROM: &str = "SLIPWAY_KILL_FROM";
const REF: &str = "os/x";

/// The child's work, after which it ends; in the parent there is none. The child runs the same test as its parent.
fn job() {
    let Some(job) = std::env::var_os(JOB) else { return };
    let var = |name| std::env::var_os(name).map(PathBuf::from).unwrap();
    let repo = Repo::open(&var(REPO)).unwrap();
    let from = var(FROM);
    match job.to_str().unwrap() {
        "commit" => {
            commit(&repo, &from);
        }
        "pull" | "pull-delta" => {
            let keyring = Keyring::of([key().public()]);
            let delta = Allowed { updates: false, deltas: true, objects: false };
            let options = pull::Options {
                ways: if job == "pull" { Allowed::default() } else { delta },
                remote: Some("origin".into()),
                network: Network { connections: 3, ..Network::default() },
                ..pull::Options::new(from.to_str().unwrap(), REF, Some(keyring))
            };
            pull::http(&options, &repo).unwrap();
        }
        "pull-local" => {
            let source = Repo::open(&from).unwrap();
            let commit = source.resolve(REF).unwrap();
            pull::local(&source, &repo, &commit).unwrap();
            repo.set_ref(REF, &commit).unwrap();
        }
        "prune" => {
            gc::prune(&repo, &gc::Options { depth: Some(0), ..gc::Options::default() }).unwrap();
        }
        other => panic!("no job {other}"),
    }
    std::process::exit(0);
}

fn key() -> SecretKey {
    SecretKey::from_seed(&[3; 32])
}

fn commit(repo: &Repo, tree: &Path) -> Checksum {
    let imported = import::directory(repo, tree, &import::Options { cache: true, ..Default::default() }).unwrap();
    let mut builder = Builder::new(imported.root_tree, imported.root_meta, 1_700_000_000).bind(REF);
    builder.parent = repo.read_ref(REF).unwrap();
    builder.record_sizes(repo).unwrap();
    let commit = builder.write(repo).unwrap();
    sign_commit(repo, &commit, &key()).unwrap();
    repo.set_ref(REF, &commit).unwrap();
    commit
}

/// Numbers without a pattern; where a round is killed depends on the machine anyway.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

struct World {
    /// The name of the test that runs.
    test: &'static str,
    dir: tempfile::TempDir,
    random: Random,
    /// How long a run that is not killed takes.
    whole: Duration,
    killed: u32,
}

impl World {
    fn new(test: &'static str) -> World {
        job();
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let seed = sys::clock::since_epoch().as_nanos() as u64 | 1;
        let mut world = World { test, dir, random: Random(seed), whole: Duration::from_millis(200), killed: 0 };
        for _ in 0..120 {
            world.change();
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn repo(&self, name: &str, mode: Mode) -> Repo {
        let repo = Repo::create(&self.path(name), mode).unwrap();
        // What is killed is a process, not the machine: what the kernel was given it keeps.
        let config = format!("[core]\nrepo_version=1\nmode={}\nfsync=false\n", mode.name());
        fs::write(self.path(name).join("config"), config).unwrap();
        repo
    }

    /// Adds or changes a file of the tree: small ones, large ones, compressible ones and others.
    fn change(&mut self) {
        let dir = self.path("tree").join(self.random.next(12).to_string());
        fs::create_dir_all(&dir).unwrap();
        let size = if self.random.next(10) == 0 { 300_000 } else { 3_000 };
        let step = 1 + self.random.next(40) as usize;
        let mut content = vec![0; self.random.next(size) as usize];
        for byte in content.iter_mut().step_by(step) {
            *byte = self.random.next(256) as u8;
        }
        fs::write(dir.join(self.random.next(40).to_string()), content).unwrap();
    }

    fn child(&self, job: &str, repo: &Path, from: &Path) -> std::process::Command {
        let exe = std::env::current_exe().unwrap();
        let cmd = Cmd::new(exe).args(["--exact", self.test, "--quiet"]).env(JOB, job).env(REPO, repo);
        let mut command = cmd.env(FROM, from).to_command();
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    }

    /// Starts the job and kills it at a random moment; then lets it run to its end.
    fn round(&mut self, job: &str, repo: &Repo, from: &Path, check: impl Fn(&Repo)) {
        let mut child = self.child(job, repo.path(), from).spawn().unwrap();
        // A little more than a run takes, so that its last moments have their turn too.
        let limit = (self.whole.as_micros() as u64 * 11 / 10).max(1000);
        std::thread::sleep(Duration::from_micros(self.random.next(limit)));
        let in_time = child.try_wait().unwrap().is_none();
        self.killed += u32::from(in_time);
        // It may have ended meanwhile.
        let _ = child.kill();
        child.wait().unwrap();
        healthy(repo);
        let start = Instant::now();
        let status = self.child(job, repo.path(), from).status().unwrap();
        assert!(status.success(), "{job} fails after one that was killed; run it by hand on {:?}", self.keep());
        // After a run that came to its end the second one had nothing to do, and says only that we were too late.
        self.whole = if in_time { (self.whole * 3 + start.elapsed()) / 4 } else { self.whole * 2 / 3 };
        healthy(repo);
        check(repo);
    }

    fn keep(&mut self) -> PathBuf {
        let other = tempfile::tempdir_in("/var/tmp").unwrap();
        std::mem::replace(&mut self.dir, other).keep()
    }

    fn finish(&self, rounds: u32, repo: &Repo) {
        Cmd::new("ostree").arg("fsck").arg("--quiet").arg(format!("--repo={}", repo.path().display())).run().unwrap();
        // How many depends on the machine; none would mean that nothing was tried.
        assert!(self.killed > 0, "none of {rounds} was killed in time");
        eprintln!("{} of {rounds} runs were killed", self.killed);
    }
}

fn healthy(repo: &Repo) {
    let report = fsck(repo, &fsck::Options::default()).unwrap();
    assert_eq!(report.problems, [], "{}", repo.path().display());
}

fn visible(repo: &Repo, want: &Checksum) {
    assert_eq!(repo.resolve(REF).unwrap(), *want);
    assert!(!repo.is_partial(want));
}

/// Commits that are killed.
pub fn commits(test: &'static str, rounds: u32) {
    let mut world = World::new(test);
    let repo = world.repo("repo", Mode::Archive);
    let tree = world.path("tree");
    for _ in 0..rounds {
        for _ in 0..8 {
            world.change();
        }
        world.round("commit", &repo, &tree, |repo| {
            let now = import::directory(repo, &tree, &import::Options::default()).unwrap();
            let commit = repo.load_commit(&repo.resolve(REF).unwrap()).unwrap();
            assert_eq!((commit.root_tree, now.stats.new_files), (now.root_tree, 0));
        });
    }
    world.finish(rounds, &repo);
}

/// Pulls that are killed: over HTTP, and from this machine.
pub fn pulls(test: &'static str, rounds: u32) {
    let mut world = World::new(test);
    let origin = world.repo("origin", Mode::Archive);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(origin.path(), address, serve::Options::default()).unwrap().spawn().unwrap();
    let (near, far) = (world.repo("near", Mode::BareUser), world.repo("far", Mode::BareUser));
    for round in 0..rounds {
        for _ in 0..40 {
            world.change();
        }
        let commit = commit(&origin, &world.path("tree"));
        if round % 2 == 0 {
            world.round("pull-local", &near, origin.path(), |repo| visible(repo, &commit));
        } else {
            let url = PathBuf::from(server.url());
            world.round("pull", &far, &url, |repo| {
                assert_eq!(repo.resolve(&format!("origin:{REF}")).unwrap(), commit);
                assert!(!repo.is_partial(&commit));
            });
        }
    }
    world.finish(rounds, &near);
}

/// Pulls that take an update in our own format, killed while they apply it.
pub fn updates(test: &'static str, rounds: u32) {
    let publish = |origin: &Repo, from: &Checksum, to: &Checksum| {
        update::publish(origin, origin, Some(from), to, &update::Options::default()).unwrap();
    };
    applied(test, rounds, "pull", &publish);
}

/// Pulls that take a static delta, and nothing else, killed while they apply it.
pub fn deltas(test: &'static str, rounds: u32) {
    let publish = |origin: &Repo, from: &Checksum, to: &Checksum| {
        // Several parts: what is killed has some of them behind it.
        let options =
            delta::Options { min_fallback: 0, max_chunk: 100_000, preset: 1, threads: 1, ..delta::Options::default() };
        delta::generate(origin, Some(from), to, &options).unwrap();
    };
    applied(test, rounds, "pull-delta", &publish);
}

/// What leads from one commit to the next is published, and the job that takes it is killed.
fn applied(test: &'static str, rounds: u32, job: &str, publish: &dyn Fn(&Repo, &Checksum, &Checksum)) {
    let mut world = World::new(test);
    let origin = world.repo("origin", Mode::Archive);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(origin.path(), address, serve::Options::default()).unwrap().spawn().unwrap();
    let url = PathBuf::from(server.url());
    let machine = world.repo("machine", Mode::BareUser);
    let mut last = commit(&origin, &world.path("tree"));
    assert!(world.child("pull", machine.path(), &url).status().unwrap().success());
    for _ in 0..rounds {
        for _ in 0..60 {
            world.change();
        }
        let next = commit(&origin, &world.path("tree"));
        publish(&origin, &last, &next);
        world.round(job, &machine, &url, |repo| {
            assert_eq!(repo.resolve(&format!("origin:{REF}")).unwrap(), next);
            assert!(!repo.is_partial(&next));
        });
        last = next;
    }
    world.finish(rounds, &machine);
}

/// Prunes that are killed.
pub fn prunes(test: &'static str, rounds: u32) {
    let mut world = World::new(test);
    let repo = world.repo("repo", Mode::Archive);
    for _ in 0..rounds {
        let mut last = None;
        // Enough that there is something to delete for a while.
        for _ in 0..3 {
            for _ in 0..30 {
                world.change();
            }
            last = Some(commit(&repo, &world.path("tree")));
        }
        let last = last.unwrap();
        world.round("prune", &repo, Path::new("-"), |repo| {
            visible(repo, &last);
            let left =
                repo.all_objects().unwrap().iter().filter(|(kind, _)| *kind == store::ObjectType::Commit).count();
            assert_eq!(left, 1);
        });
    }
    world.finish(rounds, &repo);
}
