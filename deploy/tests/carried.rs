//! Updates that come in a file or on a disk, with every check that is made of what comes over the network.

mod common;

use common::{Content, Host, REF, Site, stderr};
use store::sign::{self, SecretKey};
use store::{Checksum, bundle};

fn machine() -> (Site, Host, Checksum) {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100));
    let host = Host::install(&site, &one);
    host.ok(&["bless"]);
    (site, host, one)
}

#[test]
fn a_file_is_taken_as_the_network_is() {
    let (site, host, one) = machine();
    let two = site.publish(&Content::new("2", 200));
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = dir.path().join("os.bundle");
    bundle::write(&site.repo, Some(&one), &two, REF, dir.path(), &file).unwrap();
    let file = file.to_str().unwrap();
    let offer = host.json(&["upgrade", "--check", "--json", "--from", file]);
    assert_eq!((&offer["commit"], &offer["new"]), (&two.to_string().into(), &true.into()));
    assert!(host.machine().staged().is_none());
    host.ok(&["upgrade", "--from", file]);
    assert_eq!(host.machine().staged().unwrap().id.commit, two);
    let left = std::fs::read_dir(host.repo().path().join("tmp")).unwrap();
    assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with("slipway-bundle")));
}

#[test]
fn a_repository_on_a_disk_is_taken_as_the_network_is() {
    let (site, host, _) = machine();
    let two = site.publish(&Content::new("2", 200));
    host.ok(&["upgrade", "--from", site.repo.path().to_str().unwrap()]);
    assert_eq!(host.machine().staged().unwrap().id.commit, two);
}

#[test]
fn what_a_stranger_signed_or_no_bundle_is_refused() {
    let (site, host, one) = machine();
    let two = site.commit(&Content::new("2", 200));
    sign::sign_commit(&site.repo, &two, &SecretKey::from_seed(&[9; 32])).unwrap();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = dir.path().join("os.bundle");
    bundle::write(&site.repo, Some(&one), &two, REF, dir.path(), &file).unwrap();
    let output = host.host(&["upgrade", "--from", file.to_str().unwrap()]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("by a trusted key"), "{}", stderr(&output));
    std::fs::write(&file, "text").unwrap();
    let output = host.host(&["upgrade", "--from", file.to_str().unwrap()]);
    assert!(output.code == 1 && host.machine().staged().is_none(), "{}", stderr(&output));
}
