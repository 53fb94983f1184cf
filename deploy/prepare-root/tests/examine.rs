//! Evidence from a disk: a commit that was signed with a real key, and what an attacker may do to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prepare_root::cmdline::Deployment;
use prepare_root::level::{Level, Refusal};
use prepare_root::prepare::{PrepareError, examine, required};
use store::sign::SecretKey;
use store::{Checksum, Mode, Repo, Value};

const TRUSTED: [u8; 32] = [1; 32];
const STRANGER: [u8; 32] = [2; 32];

/// A repository with one commit, a deployment of it whose image is not protected, and an initramfs with a key.
fn disk(signer: Option<[u8; 32]>) -> (tempfile::TempDir, Deployment) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("ostree")).unwrap();
    let repo = Repo::create(&root.join("ostree/repo"), Mode::BareUser).unwrap();
    let commit = store::commit::Builder {
        metadata: BTreeMap::from([("ostree.composefs.digest.v0".to_owned(), Value::Bytes(vec![5; 32]))]),
        first_keys: Vec::new(),
        parent: None,
        subject: "test".to_owned(),
        body: String::new(),
        timestamp: 0,
        root_tree: Checksum([3; 32]),
        root_meta: Checksum([4; 32]),
    }
    .write(&repo)
    .unwrap();
    if let Some(seed) = signer {
        store::sign::sign_commit(&repo, &commit, &SecretKey::from_seed(&seed)).unwrap();
    }
    let name = Deployment { os: "slipway".to_owned(), commit, serial: 0 };
    fs::create_dir_all(root.join(name.dir())).unwrap();
    fs::write(root.join(name.dir()).join(".ostree.cfs"), "image").unwrap();
    let keys = root.join("usr/share/ostree/trusted.ed25519.d");
    fs::create_dir_all(&keys).unwrap();
    fs::write(keys.join("a.ed25519"), SecretKey::from_seed(&TRUSTED).public().to_string()).unwrap();
    (dir, name)
}

fn refusal(root: &Path, name: &Deployment, level: Level) -> Refusal {
    match examine(name, root, root, level) {
        Err(PrepareError::Refused(_, refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_signature_brings_it_to_the_next_check() {
    let (dir, name) = disk(Some(TRUSTED));
    // This file system has no fs-verity: that is what stops it, not the signature.
    assert!(matches!(refusal(dir.path(), &name, Level::Verified), Refusal::NoVerity(_)));
}

#[test]
fn without_a_trusted_signature_nothing_else_is_looked_at() {
    for signer in [None, Some(STRANGER)] {
        let (dir, name) = disk(signer);
        assert!(matches!(refusal(dir.path(), &name, Level::Verified), Refusal::Unsigned(_)), "{signer:?}");
        assert!(matches!(refusal(dir.path(), &name, Level::Verity), Refusal::NoVerity(_)), "{signer:?}");
    }
}

#[test]
fn a_key_that_was_revoked_no_longer_counts() {
    let (dir, name) = disk(Some(TRUSTED));
    let revoked = dir.path().join("usr/share/ostree/revoked.ed25519.d");
    fs::create_dir_all(&revoked).unwrap();
    fs::write(revoked.join("a.ed25519"), SecretKey::from_seed(&TRUSTED).public().to_string()).unwrap();
    assert!(matches!(refusal(dir.path(), &name, Level::Verified), Refusal::Unsigned(_)));
}

#[test]
fn keys_on_the_disk_to_be_checked_do_not_count() {
    let (dir, name) = disk(Some(TRUSTED));
    let initramfs = tempfile::tempdir().unwrap();
    let result = examine(&name, dir.path(), initramfs.path(), Level::Verified);
    assert!(matches!(result, Err(PrepareError::Refused(_, Refusal::Unsigned(_)))), "{result:?}");
}

#[test]
fn a_commit_object_that_was_replaced_is_refused_before_it_is_parsed() {
    let (dir, name) = disk(Some(TRUSTED));
    let hex = name.commit.to_string();
    let path = dir.path().join("ostree/repo/objects").join(&hex[..2]).join(format!("{}.commit", &hex[2..]));
    fs::write(&path, "not a commit").unwrap();
    assert!(matches!(refusal(dir.path(), &name, Level::Verity), Refusal::Commit { .. }));
}

#[test]
fn a_deployment_that_is_not_there_says_so() {
    let (dir, name) = disk(Some(TRUSTED));
    let other = Deployment { serial: 1, ..name };
    let error = examine(&other, dir.path(), dir.path(), Level::Verified).unwrap_err();
    assert!(error.to_string().ends_with("is not on this disk; boot another entry"), "{error}");
}

#[test]
fn what_the_tree_requires_comes_from_the_initramfs() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(required(dir.path()).unwrap(), Level::Verified);
    fs::create_dir_all(dir.path().join("usr/lib/slipway")).unwrap();
    let tree = dir.path().join("usr/lib/slipway/tree.json");
    fs::write(&tree, r#"{"format":"1.0","os":"slipway","require":"verity"}"#).unwrap();
    assert_eq!(required(dir.path()).unwrap(), Level::Verity);
    fs::write(&tree, r#"{"require":"nothing"}"#).unwrap();
    assert!(required(dir.path()).unwrap_err().to_string().contains("not understood"));
}
