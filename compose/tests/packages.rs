//! Resolving and fetching, against an archive of our own.

mod archive;

use archive::{Archive, Server};
use compose::packages::{self, Options};
use compose::treefile;
use sys::Reporter;

const BASE: &str = "Package: base\nEssential: yes\nPre-Depends: lib";
const LIB: &str = "Package: lib";

fn prepare(archive: &Archive, tree: &std::path::Path) -> packages::Set {
    let tree = treefile::load(tree).unwrap();
    packages::prepare(&tree, &Options::new(archive.path("cache")), &Reporter::quiet()).unwrap()
}

fn names(set: &packages::Set) -> Vec<&str> {
    set.packages.iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn the_set_is_closed_ordered_and_on_disk() {
    let archive = Archive::new(&[
        BASE,
        LIB,
        "Package: app\nDepends: tool, helper | other\nRecommends: extra\nVersion: 1:2.0~rc1-1",
        "Package: tool\nArchitecture: amd64",
        "Package: helper",
        "Package: extra",
        "Package: unwanted",
    ]);
    let set = prepare(&archive, &archive.treefile("packages: [app]\n"));
    assert_eq!(names(&set), ["lib", "base", "tool", "helper", "app"]);
    assert_eq!(set.source_date_epoch, 1_599_897_341, "the date of the Release file");
    let app = &set.packages[4];
    assert_eq!((app.version.as_str(), app.arch.as_str(), app.essential), ("1:2.0~rc1-1", "all", false));
    assert!(set.packages[1].essential && app.control.get("Depends") == Some("tool, helper | other"));
    for package in &set.packages {
        assert_eq!(package.deb.metadata().unwrap().len(), package.size);
    }
    let set = prepare(&archive, &archive.treefile("packages: [app]\nrecommends: true\n"));
    assert!(names(&set).contains(&"extra"));
}

#[test]
fn our_own_packages_come_before_newer_ones_of_the_archive() {
    let archive = Archive::new(&[BASE, LIB, "Package: app\nVersion: 2.0", "Package: dep"]);
    archive.deb("own", "Package: app\nVersion: 1.0\nDepends: dep");
    archive.deb("own", "Package: unasked");
    let set = prepare(&archive, &archive.treefile("packages: [app]\nlocal-packages: [own]\n"));
    assert_eq!(names(&set), ["lib", "base", "dep", "app"]);
    assert_eq!(set.packages[3].version, "1.0");
    // The same name and version with another content: the new one is taken.
    archive.deb("own", "Package: app\nVersion: 1.0\nDepends: dep, lib");
    let again = prepare(&archive, &archive.treefile("packages: [app]\nlocal-packages: [own]\n"));
    assert_ne!(again.inputs_digest, set.inputs_digest);
}

#[test]
fn fetching_goes_on_where_the_connection_broke_and_happens_once() {
    let archive = Archive::new(&[BASE, LIB, "Package: large\nPayload: 20000"]);
    let server = Server::start(archive.dir.path(), 4000, 1);
    let tree = archive.treefile_at(&server.url, "archive", "packages: [large]\n");
    let set = prepare(&archive, &tree);
    let debs = |requests: &[String]| requests.iter().filter(|r| r.contains(".deb")).cloned().collect::<Vec<_>>();
    let requests = debs(&server.requests());
    assert_eq!(requests.len(), 4, "three packages, one in two parts: {requests:?}");
    assert!(requests.iter().any(|r| r.ends_with(" from 4000")), "{requests:?}");
    assert_eq!(prepare(&archive, &tree), set);
    assert_eq!(debs(&server.requests()).len(), 4, "nothing is fetched twice");
}

#[test]
fn a_package_that_is_not_what_the_index_says_is_refused() {
    let archive = Archive::new(&[BASE, LIB]);
    let deb = archive.path("pool/lib_1.0_all.deb");
    let mut content = std::fs::read(&deb).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    std::fs::write(&deb, content).unwrap();
    let server = Server::start(archive.dir.path(), 0, 0);
    let tree = archive.treefile_at(&server.url, "archive", "packages: [base]\n");
    let message = archive.refusal(&tree, &["--download-only"]);
    assert!(message.contains("/pool/lib_1.0_all.deb has the digest "), "{message}");
    let kept = std::fs::read_dir(archive.path("cache/debs")).unwrap().flatten();
    assert!(kept.into_iter().all(|e| !e.path().ends_with(".part")));
}
