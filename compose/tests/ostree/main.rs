//! `slipway repo` beside the stock `ostree`: the same arguments on the same repository, and then the same standard
//! output, the same exit code and, where the verb writes, the same objects, refs and configuration.
//!
//! ```text
//! reads, writes   tables of command lines      gpg, delta   signatures, static deltas, both ways
//! options         every option of every verb   modes        repositories of every mode
//! remotes         over HTTP: pulls, cookies …  signs        signatures that are not OpenPGP's
//! world           what they all work on
//! ```

mod delta;
mod gpg;
mod modes;
mod options;
mod reads;
mod remotes;
mod signs;
mod world;
mod writes;

use world::World;

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
        ("find-remotes --finders=lan org.example.X a", "lan"),
        ("commit -b x --selinux-policy=/ tree", "--selinux-policy"),
        ("commit -b x --tree=ref=other --owner-uid=5", "--owner-uid"),
        ("commit -b x --tree=ref=other --no-xattrs", "--no-xattrs"),
        ("checkout --selinux-policy=/ os/stable out", "--selinux-policy"),
        ("init --mode=bare-split-xattrs", "bare-split-xattrs"),
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

#[test]
fn a_composefs_image_comes_with_and_without_digests() {
    let world = World::new();
    for (option, name) in [("--composefs", "sealed"), ("--composefs-noverity", "plain")] {
        world.tool(1).args(["--repo=repo", "checkout", option, "os/stable", name]).run().unwrap();
    }
    let [sealed, plain] = ["sealed", "plain"].map(|name| std::fs::read(world.path(name)).unwrap());
    let digest = store::verity::digest(b"#!/bin/sh\n");
    let holds = |image: &[u8], bytes: &[u8]| image.windows(bytes.len()).any(|window| window == bytes);
    // Both say where the content lies, one says what it must be.
    assert!(holds(&sealed, b".file") && holds(&plain, b".file"));
    assert!(holds(&sealed, &digest) && !holds(&plain, &digest));
}

#[test]
fn trees_laid_over_each_other_are_the_stock_tools() {
    let world = World::new();
    for line in [
        "commit -b new T --tree=dir=tree --tree=dir=other-tree",
        "commit -b new T --tree=dir=other-tree --tree=dir=tree",
        "commit -b new T --base=os/stable --tree=dir=other-tree",
        "commit -b new T --tree=ref=other --tree=tar=dots.tar",
        "commit -b new T --tree=ref=other --tree=tar=deep.tar",
    ] {
        let args = world.args(line);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let [stock, ours] = world.both(&args, ["repo", "source"]);
        assert_eq!((stock.text(), stock.code), (ours.text(), 0), "{line}: {}", ours.errors());
        for which in ["repo", "source"] {
            world.stock(&format!("--repo={which} refs --delete new"));
        }
    }
}
