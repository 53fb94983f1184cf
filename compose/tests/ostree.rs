//! `slipway repo` beside the stock `ostree`: the same arguments on the same repository, and then the same standard
//! output, the same exit code and, where the verb writes, the same objects, refs and configuration.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sys::{Cmd, Output};

/// Command lines that are tried at the same time.
const THREADS: usize = 6;

/// Verbs that read. `C1` and `C2` stand for commits.
const READS: &str = "
    log os/stable
    log --raw os/stable
    log C1
    log none
    show os/stable
    show C1
    show --raw C1
    show -B C1
    show --print-metadata-key=version C1
    show --print-metadata-key=number C1
    show -B --print-metadata-key=number C1
    show --print-metadata-key=none C1
    show --print-detached-metadata-key=key C2
    show --print-detached-metadata-key=key C1
    show --print-related C1
    show none
    show
    ls os/stable
    ls -R os/stable
    ls -C os/stable
    ls -RCX os/stable /usr
    ls -d os/stable /usr
    ls os/stable /usr/bin /version
    ls --nul-filenames-only -R os/stable
    ls os/stable usr/bin/link
    ls os/stable /none
    ls
    cat os/stable /version
    cat os/stable /version usr/bin/link
    cat C1 /absolute
    cat os/stable /usr
    cat os/stable
    diff os/stable
    diff C1 C2
    diff C2 C1
    diff --no-xattrs C1 C2
    diff --stats C1 C2
    diff --fs-diff --stats C1 C2
    diff C2 ./tree
    diff none
    refs
    refs os
    refs o
    refs --list os
    refs --list other
    refs os/stable
    refs -A
    refs rem:
    refs --list rem:
    rev-parse os/stable os/stable^
    rev-parse alias
    rev-parse rem:os/stable
    rev-parse none
    rev-parse -S
    rev-parse
    config get core.mode
    config get core.none
    config get
    config get a b
    config nothing x
    fsck
    fsck --quiet
    fsck --verify-bindings
    fsck --verify-back-refs
    summary
    none
    ls --none os/stable
";

/// Verbs that write.
const WRITES: &str = "
    prune
    prune --refs-only
    prune --refs-only --depth=0
    prune --refs-only --depth -1
    prune --no-prune --refs-only --depth=0
    prune --keep-younger-than=2023-11-15
    prune --keep-younger-than=2023-11-01
    prune --retain-branch-depth=os/stable=0
    prune --only-branch=os/stable --depth=0
    prune --only-branch=none
    prune --delete-commit=C1
    prune --delete-commit=C2
    prune --delete-commit=C1 --no-prune
    prune --static-deltas-only
    prune --commit-only --refs-only --depth=0
    refs --delete os
    refs --delete other
    refs --delete
    refs --create new other
    refs --create other os/stable
    refs --force --create other os/stable
    refs --create new
    refs -A --create second other
    refs -A --create deep/second other
    refs -A --create second none
    refs --create remote:a/b other
    reset os/stable C1
    reset none C1
    reset os/stable
    config set a.b c
    config set --group g.h key value
    config unset core.mode
    config unset core.none
    config set a
    init --mode=archive
    commit -b new T tree
    commit -b new T --tree=dir=tree -s subject -m body
    commit T -b new -s one -s two tree
    commit --orphan T tree
    commit T tree
    commit -b os/stable T tree --skip-if-unchanged
    commit -b new --canonical-permissions T tree
    commit -b new --owner-uid=5 --owner-gid 6 T tree
    commit -b new --no-xattrs T tree
    commit -b new --no-bindings T tree
    commit -b new --bind-ref=z --bind-ref=a T tree
    commit -b new --parent=C1 T tree
    commit -b new --parent=none T tree
    commit -b new --tree=dir=tree --tree=dir=tree/usr T
    commit -b new --tree=ref=C1 --tree=dir=tree/usr T
    commit -b new --base=C1 T tree/usr
    commit -b new --mode-ro-executables T tree
    commit -b new --add-metadata=a=[1,2] T tree
    commit -b new --add-metadata-string=a=b T tree
    commit -b new --add-metadata-string=ab T tree
    commit -b new --add-detached-metadata-string=a=b T tree
    commit -b new --statoverride=modes T tree
    commit -b new --skip-list=skip T tree
    commit -b os/stable --keep-metadata=none T tree
    commit -b new --fsync=no T tree
    commit -b new T none
    commit -b new --timestamp=never tree
    checkout -U os/stable out
    checkout -U C1 out
    checkout -UC os/stable out
    checkout -U --subpath=/usr os/stable out
    checkout -U --subpath=/version os/stable out
    checkout -U --subpath=/none os/stable out
    checkout -U --allow-noent --subpath=/none os/stable out
    checkout -U os/stable tree
    checkout -U none out
    checkout -UM os/stable out
    checkout -UH os/stable out
    checkout -U --union os/stable other-tree
    checkout -U --union-add os/stable other-tree
    checkout -U --union-identical os/stable other-tree
    checkout -UH --union-identical os/stable other-tree
    checkout -U --skip-list=skip-out os/stable out
    checkout -U --union --union-add os/stable other-tree
    pull-local source
    pull-local source other
    pull-local --remote=r source os/stable
    pull-local --depth=-1 source os/stable
    pull-local source none
    pull-local none
";

struct World {
    dir: tempfile::TempDir,
    commits: [String; 2],
}

impl World {
    fn new() -> World {
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
        world.stock("--repo=repo refs -A --create alias os/stable");
        world.stock("--repo=repo refs --create rem:os/stable os/stable");
        // Without the alias, which is no ref that its commit belongs to.
        Cmd::new("cp").arg("-a").args([world.path("repo"), world.path("source")]).run().unwrap();
        world.stock("--repo=source refs --delete alias");
        world.stock("--repo=source refs --delete rem:os/stable");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cmd(&self, program: &str) -> Cmd {
        let cmd = Cmd::new(program).dir(self.dir.path()).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
        cmd.env_remove("OSTREE_REPO").env_remove("SOURCE_DATE_EPOCH")
    }

    fn stock(&self, args: &str) -> String {
        self.cmd("ostree").args(args.split(' ')).run().unwrap().text()
    }

    /// Runs both; `repo` is the repository of each.
    fn both(&self, args: &[&str], repos: [&str; 2]) -> [Output; 2] {
        let run = |cmd: Cmd, repo: &str| cmd.arg(format!("--repo={repo}")).args(args).output().unwrap();
        let ours = self.cmd(env!("CARGO_BIN_EXE_slipway")).arg("repo");
        [run(self.cmd("ostree"), repos[0]), run(ours, repos[1])]
    }

    fn args(&self, line: &str) -> Vec<String> {
        let word = |word: &str| match word {
            "T" => "--timestamp=2023-11-16T22:13:20Z".to_owned(),
            word => word.replace("C1", &self.commits[0]).replace("C2", &self.commits[1]),
        };
        line.split_whitespace().map(word).collect()
    }
}

/// Standard output, without what tells only how far the stock tool is, and in order where it has none.
fn output(output: &Output, line: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text.split_inclusive('\n').filter(|l| !l.starts_with("fsck objects (")).collect();
    if line.starts_with("refs") {
        lines.sort_unstable();
    }
    let text = lines.concat();
    // How many bytes it took is the one tool's own affair, and how long it took is chance.
    match (text.split_once(" imported; "), text.rsplit_once("; ")) {
        (Some((what, _)), Some((_, written))) => format!("{what} imported; {written}"),
        _ => text,
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[test]
fn verbs_that_read_print_what_the_stock_tool_prints() {
    let world = World::new();
    let mut wrong = Vec::new();
    for line in lines(READS) {
        let args = world.args(line);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let [stock, ours] = world.both(&args, ["repo", "repo"]);
        let (a, b) = (output(&stock, line), output(&ours, line));
        if a != b || stock.code != ours.code {
            let said = String::from_utf8_lossy(&ours.stderr).into_owned();
            wrong.push(format!("{line}: stock {} {a:?}\nours {} {b:?}\n{said}", stock.code, ours.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything a verb may have written: path → mode and content; of a hard link only that it is one.
fn everything(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir_now) = todo.pop() {
        for entry in fs::read_dir(&dir_now).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            // Locks, caches and scratch files are each tool's own.
            let own = ["repo/tmp", "repo/.lock", "repo/state", "repo/extensions", "repo/slipway", "repo/uncompressed"];
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

#[test]
fn verbs_that_write_leave_what_the_stock_tool_leaves() {
    let world = World::new();
    let copy = |name: &str| {
        let target = world.path(name);
        let _ = fs::remove_dir_all(&target);
        fs::create_dir(&target).unwrap();
        let parts = ["repo", "source", "tree", "other-tree", "modes", "skip", "skip-out"].map(|part| world.path(part));
        Cmd::new("cp").arg("-a").args(parts).arg(target).run().unwrap();
    };
    let all: Vec<&str> = lines(WRITES).collect();
    // Most of the time is waiting for the disk: several at a time, each at a place of its own.
    let compare = |first: usize| {
        let mut wrong = Vec::new();
        for line in all.iter().copied().skip(first).step_by(THREADS) {
            let args = world.args(line);
            // Both work at the same place, one after the other: what they say of paths is the same.
            let run = |cmd: Cmd| {
                copy(&format!("place{first}"));
                let place = world.path(&format!("place{first}"));
                let output = cmd.arg("--repo=repo").args(&args).dir(&place).output().unwrap();
                let found = everything(&place);
                (output, found)
            };
            let (stock, theirs) = run(world.cmd("ostree"));
            let (ours, mine) = run(world.cmd(env!("CARGO_BIN_EXE_slipway")).arg("repo"));
            let (a, b) = (output(&stock, line), output(&ours, line));
            let said = String::from_utf8_lossy(&ours.stderr).into_owned();
            if a != b || stock.code != ours.code {
                wrong.push(format!("{line}: stock {} {a:?}\nours {} {b:?}\n{said}", stock.code, ours.code));
            }
            // What fails may leave objects that nothing needs and half of a checkout; refs and configuration it may not touch.
            let kept = |name: &str| name.starts_with("repo/refs") || name == "repo/config";
            let counts = |name: &str| stock.code == 0 || kept(name);
            let names: std::collections::BTreeSet<&String> = theirs.keys().chain(mine.keys()).collect();
            for name in names.into_iter().filter(|name| counts(name) && theirs.get(*name) != mine.get(*name)) {
                wrong.push(format!("{line}: {name}: stock {:?}, ours {:?}\n{said}", theirs.get(name), mine.get(name)));
            }
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let compare = &compare;
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || compare(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn options_stand_before_and_after_the_verb_and_the_environment_counts() {
    let world = World::new();
    let log = world.stock("--repo=repo log os/stable");
    let slipway = || world.cmd(env!("CARGO_BIN_EXE_slipway")).arg("repo");
    for args in [
        "--repo=repo log os/stable",
        "--repo repo log os/stable",
        "log --repo=repo os/stable",
        "log os/stable -v --repo repo",
    ] {
        assert_eq!(slipway().args(args.split(' ')).run().unwrap().text(), log, "{args}");
    }
    assert_eq!(slipway().args(["log", "os/stable"]).env("OSTREE_REPO", "repo").run().unwrap().text(), log);
    assert_eq!(slipway().args(["log", "os/stable"]).dir(world.path("repo")).run().unwrap().text(), log);
    let version = slipway().args(["log", "--version"]).run().unwrap().text();
    assert!(version.starts_with("libostree:\n Version: '2025.2'\n") && version.contains("  - gpgme"), "{version}");
    for path in ["tree/version", "tree/usr/bin/link", "tree", "tree/none"] {
        let [stock, ours] = [world.cmd("ostree"), slipway()].map(|cmd| cmd.args(["checksum", path]).output().unwrap());
        assert_eq!((stock.code, stock.stdout), (ours.code, ours.stdout), "{path}");
    }
}

#[test]
fn what_is_left_out_is_refused_by_name() {
    let world = World::new();
    for (line, name) in [
        ("admin status", "admin"),
        ("find-remotes org.example.X a", "find-remotes"),
        ("commit -b x --selinux-policy=/ tree", "--selinux-policy"),
        ("checkout --selinux-policy=/ os/stable out", "--selinux-policy"),
        ("init --mode=bare-user-only", "bare-user-only"),
        ("show --no-such-option os/stable", "--no-such-option"),
    ] {
        let ours = world.cmd(env!("CARGO_BIN_EXE_slipway")).arg("repo").arg("--repo=repo").args(line.split(' '));
        let ours = ours.output().unwrap();
        let said = String::from_utf8_lossy(&ours.stderr).into_owned();
        assert!(ours.code == 1 && said.contains(name) && ours.stdout.is_empty(), "{line}: {} {said}", ours.code);
    }
}

#[test]
fn an_export_holds_the_tree() {
    let world = World::new();
    let [stock, ours] = world.both(&["export", "os/stable", "--prefix=x/"], ["repo", "repo"]);
    let list = |bytes: &[u8]| {
        let mut archive = tar::Archive::new(bytes);
        let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            let header = entry.header();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            let (mode, uid, mtime) = (header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap());
            let kind = header.entry_type();
            (entry.path().unwrap().display().to_string(), kind, mode & 0o7777, uid, mtime, link, content)
        };
        let mut list: Vec<_> = archive.entries().unwrap().map(entry).collect();
        // Later versions of the stock tool make hard links of what is there twice; the one at hand repeats it.
        for at in (0..list.len()).filter(|at| list[*at].1 == tar::EntryType::Link).collect::<Vec<_>>() {
            let first = list.iter().find(|entry| Some(&entry.0) == list[at].5.as_ref()).unwrap().clone();
            (list[at].1, list[at].5, list[at].6) = (first.1, first.5, first.6);
        }
        list
    };
    assert_eq!(list(&stock.stdout), list(&ours.stdout));
    assert!(list(&ours.stdout).len() > 8);
}
