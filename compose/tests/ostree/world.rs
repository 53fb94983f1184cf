//! A small world for both tools to work on, and what counts of what they leave there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sys::{Cmd, Output};

/// Repositories `repo` (bare-user) and `source`, and what is committed, left out and checked out over.
pub struct World {
    dir: tempfile::TempDir,
    /// Two commits of `os/stable`, the older one first.
    pub commits: [String; 2],
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("tree/usr/bin")).unwrap();
        fs::create_dir_all(at("tree/empty")).unwrap();
        fs::write(at("tree/usr/bin/tool"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at("tree/usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("tool", at("tree/usr/bin/link")).unwrap();
        symlink("/usr/bin/tool", at("tree/absolute")).unwrap();
        fs::write(at("tree/version"), "1\n").unwrap();
        fs::write(at("tree/nothing"), "").unwrap();
        fs::create_dir(at("other-tree")).unwrap();
        fs::write(at("other-tree/version"), "another\n").unwrap();
        fs::write(at("modes"), "+2048 /usr/bin/tool\n").unwrap();
        fs::write(at("skip"), "/empty\n").unwrap();
        fs::write(at("skip-out"), "/empty/\n/usr/bin/tool\n").unwrap();
        fs::write(at("other-modes"), "=493 /usr/bin/tool\n+1 /version\n").unwrap();
        fs::write(at("skip-none"), "/none\n").unwrap();
        fs::write(at("body"), "from a file\nsecond\n").unwrap();
        fs::create_dir_all(at("white/usr/bin")).unwrap();
        fs::create_dir_all(at("white/empty")).unwrap();
        for name in ["usr/bin/.wh.tool", ".wh.version", ".wh.none", "empty/.wh..wh..opq"] {
            fs::write(at("white").join(name), "").unwrap();
        }

        let mut world = World { dir, commits: Default::default() };
        world.stock("--repo=repo init --mode=bare-user");
        // The disk is not what is compared.
        world.stock("--repo=repo config set core.fsync false");
        let first = "--repo=repo commit -b os/stable -s First -m Body --timestamp=2023-11-14T22:13:20Z";
        let metadata = ["--add-metadata-string=version=1.0", "--add-metadata=number=uint32 5", "--tree=dir=tree"];
        let first: Vec<&str> = first.split(' ').chain(metadata).collect();
        world.commits[0] = world.cmd("ostree").args(first).run().unwrap().text();
        fs::write(world.path("tree/version"), "2\n").unwrap();
        fs::write(world.path("tree/same"), "2\n").unwrap();
        fs::create_dir(world.path("tree/new")).unwrap();
        fs::write(world.path("tree/new/file"), "n\n").unwrap();
        fs::remove_file(world.path("tree/absolute")).unwrap();
        let second = "-s Second --timestamp=2023-11-15T22:13:20Z --tree=dir=tree";
        let detached = "--add-detached-metadata-string=key=value";
        world.commits[1] = world.stock(&format!("--repo=repo commit -b os/stable {second} {detached}"));
        world.stock(&format!("--repo=repo commit -b other {second}"));
        world.stock("--repo=repo commit -b white -s White --timestamp=2023-11-15T22:13:20Z --tree=dir=white");
        world.stock("--repo=repo refs -A --create alias os/stable");
        let pairs = format!("{}\0/usr\0{}\0/new\0", world.commits[0], world.commits[1]);
        fs::write(world.path("pairs"), pairs).unwrap();
        // With every directory, without any, and with ./ before the names.
        for (archive, names) in
            [("whole.tar", "."), ("deep.tar", "usr/bin/tool new/file"), ("dots.tar", "./usr/bin/tool ./version")]
        {
            let tar = world.cmd("tar").args(["-C", "tree", "--sort=name", "--owner=5", "--group=6", "--mtime=@1"]);
            tar.args(["-cf", archive]).args(names.split(' ')).run().unwrap();
        }
        world.stock("--repo=repo refs --create rem:os/stable os/stable");
        // A system root, for what is told to work on one.
        fs::create_dir(world.path("root")).unwrap();
        world.stock("admin init-fs root");
        // Without the alias, which is no ref that its commit belongs to.
        Cmd::new("cp").arg("-a").args([world.path("repo"), world.path("source")]).run().unwrap();
        world.stock("--repo=source refs --delete alias");
        world.stock("--repo=source refs --delete rem:os/stable");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn cmd(&self, program: &str) -> Cmd {
        let cmd = Cmd::new(program).dir(self.dir.path()).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
        cmd.env_remove("OSTREE_REPO").env_remove("SOURCE_DATE_EPOCH")
    }

    /// The stock tool (0) or ours (1).
    pub fn tool(&self, which: usize) -> Cmd {
        match which {
            0 => self.cmd("ostree"),
            _ => self.cmd(env!("CARGO_BIN_EXE_slipway")).arg("repo"),
        }
    }

    pub fn stock(&self, args: &str) -> String {
        self.cmd("ostree").args(args.split(' ')).run().unwrap().text()
    }

    /// Runs both; `repo` is the repository of each.
    pub fn both(&self, args: &[&str], repos: [&str; 2]) -> [Output; 2] {
        let run = |cmd: Cmd, repo: &str| cmd.arg(format!("--repo={repo}")).args(args).output().unwrap();
        let ours = self.cmd(env!("CARGO_BIN_EXE_slipway")).arg("repo");
        [run(self.cmd("ostree"), repos[0]), run(ours, repos[1])]
    }

    pub fn args(&self, line: &str) -> Vec<String> {
        let word = |word: &str| match word {
            "T" => "--timestamp=2023-11-16T22:13:20Z".to_owned(),
            word => word.replace("C1", &self.commits[0]).replace("C2", &self.commits[1]),
        };
        line.split_whitespace().map(word).collect()
    }
}

/// Standard output, without what tells only how far the stock tool is, and in order where it has none.
pub fn output(output: &Output, line: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text.split_inclusive('\n').filter(|l| !l.starts_with("fsck objects (")).collect();
    if line.contains("refs") {
        lines.sort_unstable();
    }
    let text = lines.concat();
    // How many bytes it took is the one tool's own affair, and how long it took is chance.
    match (text.split_once(" imported; "), text.rsplit_once("; ")) {
        (Some((what, _)), Some((_, written))) => format!("{what} imported; {written}"),
        _ => text,
    }
}

/// The command lines of a table. One that begins with `+` is for a stock tool as young as 2025.2; an older one, such as
/// Debian 12 has, does not know its options.
pub fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    let version = Cmd::new("ostree").arg("--version").run().unwrap().text();
    let year = version.split_once("Version: '").and_then(|(_, rest)| rest.get(..4)).unwrap().to_owned();
    let known = move |line: &&str| year.as_str() >= "2025" || !line.starts_with('+');
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(known).map(|line| line.trim_start_matches("+ "))
}

/// Everything a verb may have written: path → mode and content; of a hard link only that it is one.
pub fn everything(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir_now) = todo.pop() {
        for entry in fs::read_dir(&dir_now).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            // Locks, caches and scratch files are each tool's own.
            let own = [
                "repo/tmp",
                "repo/.lock",
                "repo/state",
                "repo/extensions",
                "repo/slipway",
                "repo/uncompressed",
                "repo/summary",
            ];
            if own.iter().any(|own| name.starts_with(own)) {
                continue;
            }
            let text = if meta.is_dir() {
                todo.push(path);
                // A directory of objects that is empty says nothing.
                if name.starts_with("repo/objects/") { continue } else { String::new() }
            } else if meta.is_symlink() {
                format!(" -> {}", fs::read_link(&path).unwrap().display())
            } else {
                format!(" {:?}", fs::read(&path).unwrap())
            };
            found.insert(name, format!("{:o}{text}", meta.permissions().mode()));
        }
    }
    found
}
