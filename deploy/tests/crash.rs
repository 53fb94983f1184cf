//! Cuts the power after every step of every plan.
//!
//! After each cut: the loader's first entry boots a complete deployment, so does every entry that has tries left, and
//! planning again leads to the same end.

mod common;

use std::path::Path;

use bootloader::Esp;
use common::{Content, Host, Site};
use deploy::execute::{self, Came, Context};
use deploy::machine::Machine;
use deploy::paths::Paths;
use deploy::plan::{self, Bad, Downgrade, Facts, Plan, Staged};
use store::{Checksum, Repo, Verity};
use sys::Cmd;

type Planner = dyn Fn(&Paths) -> Plan;

fn context<'a>(paths: &'a Paths, repo: &'a Repo) -> Context<'a> {
    Context { paths, os: "slipway".into(), repo, verity: Verity::Off }
}

/// Whatever the loader may pick is all there.
fn check_bootable(paths: &Paths, at: &str) {
    let esp = Esp::new(paths.esp());
    let entries = esp.entries().unwrap();
    assert!(!entries.is_empty(), "{at}: nothing to boot");
    for (rank, found) in entries.iter().enumerate() {
        if rank > 0 && found.name.as_ref().is_some_and(|n| n.exhausted()) {
            continue;
        }
        let id = found.entry.deployment().unwrap();
        let dir = paths.deployments("slipway").join(id.strip_prefix("slipway/").unwrap());
        assert!(dir.join(".ostree.cfs").is_file(), "{at}: {} has no image", found.file);
        assert!(dir.join("etc").is_dir(), "{at}: {} has no /etc", found.file);
        assert!(esp.has_kernel(found.entry.bootcsum().unwrap()), "{at}: {} has no kernel", found.file);
    }
}

/// What matters of a machine, without serial and generation numbers that a repetition may skip.
fn gist(paths: &Paths) -> Vec<String> {
    let machine = Machine::load(paths).unwrap();
    let next = machine.default().map(|d| d.id);
    machine
        .deployments
        .iter()
        .map(|d| {
            let names: Vec<String> = d
                .entries
                .iter()
                .map(|f| f.name.clone().unwrap().counter.map_or("plain".into(), |c| c.to_string()))
                .collect();
            format!(
                "{} {} {names:?}{}{}",
                d.label(),
                d.state.state,
                if next == Some(d.id) { " next" } else { "" },
                if d.state.hold { " held" } else { "" }
            )
        })
        .collect()
}

fn copy(from: &Path) -> (tempfile::TempDir, Paths) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("root");
    Cmd::new("cp").arg("-a").arg(from).arg(&to).run().unwrap();
    // The link to the deployment's /etc points into the original.
    let paths = Paths::new(&to);
    let link = std::fs::read_link(paths.etc()).unwrap();
    let inside = link.strip_prefix(from).unwrap().to_owned();
    std::fs::remove_file(paths.etc()).unwrap();
    std::os::unix::fs::symlink(to.join(inside), paths.etc()).unwrap();
    (dir, paths)
}

fn cut_everywhere(name: &str, host: &Host, planner: &Planner) {
    let run_all = |paths: &Paths| {
        let repo = Repo::open(&paths.repo()).unwrap();
        execute::run(&planner(paths), &context(paths, &repo)).unwrap();
    };
    let (_whole, paths) = copy(host.root());
    let length = planner(&paths).steps.len();
    assert!(length > 0, "{name}: nothing is planned");
    run_all(&paths);
    check_bootable(&paths, name);
    let wanted = gist(&paths);
    assert!(planner(&paths).is_empty(), "{name}: done, and yet there is more to do:\n{}", planner(&paths));
    for cut in 0..=length {
        let at = format!("{name}, cut after {cut} of {length}");
        let (_dir, paths) = copy(host.root());
        let repo = Repo::open(&paths.repo()).unwrap();
        for step in &planner(&paths).steps[..cut] {
            execute::run_step(step, &context(&paths, &repo)).unwrap();
        }
        check_bootable(&paths, &at);
        run_all(&paths);
        check_bootable(&paths, &at);
        assert_eq!(gist(&paths), wanted, "{at}: did not converge");
    }
}

fn target(paths: &Paths, commit: &Checksum) -> plan::Target {
    execute::target(paths, &Repo::open(&paths.repo()).unwrap(), commit, Came::default()).unwrap()
}

fn load(paths: &Paths) -> Machine {
    Machine::load(paths).unwrap()
}

fn bless(paths: &Paths) -> Plan {
    plan::bless(&load(paths), Facts { now: 1, watchdog: false })
}

/// A machine that runs 1, with 2 downloaded.
fn running_one(site: &Site) -> (Host, Checksum) {
    let one = site.publish(&Content::new("1", 100));
    let host = Host::install(site, &one);
    host.ok(&["bless"]);
    let two = site.publish(&Content::new("2", 200).kernel("kernel B").etc("motd", "two\n"));
    host.ok(&["upgrade", "--download-only"]);
    (host, two)
}

#[test]
fn stage_and_finalize() {
    let site = Site::new();
    let (host, two) = running_one(&site);
    cut_everywhere("stage", &host, &move |paths| {
        plan::stage(&load(paths), &target(paths, &two), Downgrade::Refuse, Bad::Refuse).unwrap()
    });
    host.ok(&["upgrade"]);
    cut_everywhere("finalize", &host, &|paths| plan::finalize(&load(paths), 1, Vec::new()));
    // Another version takes the staged one's place.
    let three = site.publish(&Content::new("3", 300));
    host.ok(&["upgrade", "--download-only"]);
    cut_everywhere("stage over", &host, &move |paths| {
        plan::stage(&load(paths), &target(paths, &three), Downgrade::Refuse, Bad::Refuse).unwrap()
    });
}

#[test]
fn bless_and_what_it_removes() {
    let site = Site::new();
    let first = Host::install(&site, &site.publish(&Content::new("1", 100)));
    cut_everywhere("first bless", &first, &bless);
    let site = Site::new();
    let (host, _) = running_one(&site);
    host.ok(&["upgrade"]);
    host.ok(&["finalize"]);
    host.boot();
    cut_everywhere("bless after an upgrade", &host, &bless);
    // Two boots fail, then the first version comes up again.
    host.boot();
    host.boot();
    host.boot();
    assert_eq!(load(&host.paths).booted_deployment().unwrap().label(), "1");
    cut_everywhere("bless after a fallback", &host, &bless);
}

#[test]
fn rollback_there_and_back() {
    let site = Site::new();
    let (host, _) = running_one(&site);
    host.ok(&["upgrade"]);
    host.reboot();
    // Planning a second time would toggle: the target is what the operator meant the first time.
    let one = load(&host.paths).rollback().unwrap().id;
    cut_everywhere("rollback", &host, &move |paths| plan::switch_to(&load(paths), &one, Staged::Hold).unwrap());
    site.publish(&Content::new("3", 300));
    host.ok(&["upgrade"]);
    for staged in [Staged::Hold, Staged::Drop] {
        cut_everywhere("rollback past a staged one", &host, &move |paths| {
            plan::switch_to(&load(paths), &one, staged).unwrap()
        });
    }
    host.ok(&["rollback"]);
    host.boot();
    cut_everywhere("bless after a rollback", &host, &bless);
}

#[test]
fn reject_and_prune() {
    let site = Site::new();
    let (host, _) = running_one(&site);
    host.ok(&["upgrade"]);
    host.ok(&["finalize"]);
    host.boot();
    cut_everywhere("reject", &host, &|paths| plan::reject(&load(paths), "unwell", 1).unwrap());
    host.ok(&["bless"]);
    cut_everywhere("reject a blessed one", &host, &|paths| plan::reject(&load(paths), "unwell", 1).unwrap());
    host.ok(&["pin", "1"]);
    site.publish(&Content::new("3", 300).kernel("kernel C"));
    host.ok(&["upgrade"]);
    host.reboot();
    site.publish(&Content::new("4", 400).kernel("kernel D"));
    host.ok(&["upgrade"]);
    host.reboot();
    host.ok(&["unpin", "1"]);
    cut_everywhere("prune", &host, &|paths| plan::prune(&load(paths)));
}
