//! Signing keys change: version 2 carries the old key and the new one and is signed by both, version 3 has only the new.

mod common;

use common::{Content, Host, REF, Site, stderr};
use store::{Checksum, ObjectType};

const OLD: u8 = 7;
const NEW: u8 = 8;

/// A machine on version 1, and the versions that follow.
fn rotation() -> (Site, Host, [Checksum; 3]) {
    let site = Site::new();
    let one = site.publish_by(&Content::new("1", 100).trusting(&[OLD]), &[OLD]);
    let host = Host::install(&site, &one);
    host.ok(&["bless"]);
    let two = site.publish_by(&Content::new("2", 200).trusting(&[OLD, NEW]), &[OLD, NEW]);
    let three = site.publish_by(&Content::new("3", 300).trusting(&[NEW]).revoking(&[OLD]), &[NEW]);
    (site, host, [one, two, three])
}

#[test]
fn step_by_step_and_back_again() {
    let (site, host, [one, two, three]) = rotation();
    site.repo.set_ref(REF, &two).unwrap();
    host.ok(&["upgrade"]);
    assert_eq!(host.reboot().commit, two);
    // Back on 1: its own keys accept it, whatever came after.
    host.ok(&["rollback"]);
    assert_eq!(host.reboot().commit, one);
    host.ok(&["rollback"]);
    assert_eq!(host.reboot().commit, two);
    site.repo.set_ref(REF, &three).unwrap();
    host.ok(&["upgrade"]);
    let status = host.json(&["status", "--json"]);
    assert_eq!(status["staged"]["signer"], common::key(NEW).public().to_string());
    assert_eq!(host.reboot().commit, three);
    host.ok(&["rollback"]);
    assert_eq!(host.reboot().commit, two);
}

#[test]
fn a_machine_that_skipped_version_2_is_told_the_way() {
    let (_site, host, [_, two, three]) = rotation();
    let output = host.host(&["upgrade"]);
    assert_eq!(output.code, 3);
    let text = stderr(&output);
    assert!(text.contains("version 2") && text.contains(&format!("host deploy --reboot {two}")), "{text}");
    assert!(host.machine().staged().is_none() && !host.repo().has(ObjectType::Commit, &three));
    host.ok(&["deploy", &two.to_string()]);
    assert_eq!(host.reboot().commit, two);
    host.ok(&["upgrade"]);
    assert_eq!(host.reboot().commit, three);
}

#[test]
fn without_a_version_in_between_there_is_no_way_and_none_is_named() {
    let site = Site::new();
    let host = Host::install(&site, &site.publish_by(&Content::new("1", 100).trusting(&[OLD]), &[OLD]));
    host.ok(&["bless"]);
    site.publish_by(&Content::new("2", 200).trusting(&[NEW]), &[NEW]);
    let output = host.host(&["upgrade"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("not trusted") && !stderr(&output).contains("host deploy"), "{}", stderr(&output));
}

#[test]
fn a_revoked_key_is_refused_from_the_version_on_that_revokes_it() {
    let (site, host, [_, two, three]) = rotation();
    host.ok(&["deploy", &two.to_string()]);
    assert_eq!(host.reboot().commit, two);
    host.ok(&["upgrade"]);
    assert_eq!(host.reboot().commit, three);
    // Whoever has the old key can sign; nobody takes it any more.
    let stolen = site.publish_by(&Content::new("4", 400).trusting(&[OLD, NEW]), &[OLD]);
    let output = host.host(&["upgrade"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("revoked"), "{}", stderr(&output));
    assert!(!host.repo().has(ObjectType::Commit, &stolen) && host.machine().staged().is_none());
}

#[test]
fn a_version_that_its_own_keys_refuse_is_never_staged() {
    let site = Site::new();
    let host = Host::install(&site, &site.publish_by(&Content::new("1", 100).trusting(&[OLD]), &[OLD]));
    host.ok(&["bless"]);
    // Signed with the old key alone, and its tree knows only the new one: it would fall back at every boot.
    let forgotten = site.publish_by(&Content::new("2", 200).trusting(&[NEW]), &[OLD]);
    let output = host.host(&["upgrade"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("would not boot"), "{}", stderr(&output));
    assert!(host.machine().staged().is_none());
    store::sign::sign_commit(&site.repo, &forgotten, &common::key(NEW)).unwrap();
    host.ok(&["upgrade"]);
    assert_eq!(host.reboot().commit, forgotten);
}
