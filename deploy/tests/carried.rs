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

#[test]
fn an_older_commit_or_one_of_another_ref_is_refused() {
    let (site, host, one) = machine();
    let old = site.publish(&Content::new("0", 50));
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = dir.path().join("os.bundle");
    bundle::write(&site.repo, Some(&one), &old, REF, dir.path(), &file).unwrap();
    for from in [&file, site.repo.path()] {
        let output = host.host(&["upgrade", "--from", from.to_str().unwrap()]);
        assert_eq!(output.code, 3, "{}", stderr(&output));
        assert!(stderr(&output).contains("--allow-downgrade"), "{}", stderr(&output));
        assert!(host.machine().staged().is_none());
    }
    // Signed, newer, and of another ref: whoever copied it may have called it what he liked.
    let two = site.publish(&Content::new("2", 200));
    site.repo.set_ref("debian/13/other", &two).unwrap();
    std::fs::create_dir_all(host.paths.etc().join("slipway")).unwrap();
    host.write_etc("slipway/remote.json", r#"{"format":"1.0","ref":"debian/13/other"}"#);
    let output = host.host(&["upgrade", "--from", site.repo.path().to_str().unwrap()]);
    assert_eq!(output.code, 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("a commit of another ref"), "{}", stderr(&output));
    assert!(host.machine().staged().is_none());
}

#[test]
fn a_truncated_or_damaged_bundle_changes_nothing() {
    let (site, host, one) = machine();
    let two = site.publish(&Content::new("2", 200));
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = dir.path().join("os.bundle");
    bundle::write(&site.repo, Some(&one), &two, REF, dir.path(), &file).unwrap();
    let good = std::fs::read(&file).unwrap();
    let name = format!("{one}.update");
    let update = good.windows(name.len()).position(|bytes| bytes == name.as_bytes()).unwrap() + 512;
    let mut damaged = good.clone();
    damaged[update + 200..update + 260].fill(0x55);
    for bad in [&good[..update + 300], &good[..700], &damaged] {
        std::fs::write(&file, bad).unwrap();
        let output = host.host(&["upgrade", "--from", file.to_str().unwrap()]);
        assert!(output.code == 1 || output.code == 3, "{}", stderr(&output));
        assert!(host.machine().staged().is_none(), "{}", stderr(&output));
    }
    std::fs::write(&file, &good).unwrap();
    host.ok(&["upgrade", "--from", file.to_str().unwrap()]);
    assert_eq!(host.machine().staged().unwrap().id.commit, two);
}
