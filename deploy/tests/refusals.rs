//! Bad input, each with a message that says what to do; nothing changes.

mod common;

use common::{Content, Host, REF, Site, stderr};
use std::fs;
use store::sign::{self, SecretKey};
use sys::{Cmd, Lock};

fn upgraded_site() -> (Site, Host) {
    let site = Site::new();
    let host = Host::install(&site, &site.publish(&Content::new("1", 100)));
    host.ok(&["bless"]);
    (site, host)
}

#[test]
fn a_machine_that_is_no_slipway_host() {
    let root = tempfile::tempdir().unwrap();
    for verb in [&["status"][..], &["upgrade"], &["rollback"], &["bless"], &["finalize"], &["cleanup"]] {
        let output = Cmd::new(env!("CARGO_BIN_EXE_host")).arg("--root").arg(root.path()).args(verb).output().unwrap();
        assert_eq!(output.code, 3, "{verb:?}");
        assert!(stderr(&output).contains("not booted from a Slipway deployment"), "{}", stderr(&output));
    }
}

#[test]
fn two_commands_at_once() {
    let (_site, host) = upgraded_site();
    let lock = Lock::try_exclusive(&host.paths.lock()).unwrap();
    fs::write(host.paths.lock(), "host upgrade, process 42\n").unwrap();
    let output = host.host(&["rollback"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("another command is changing this machine: host upgrade, process 42"));
    host.ok(&["status"]);
    drop(lock);
    host.ok(&["cleanup"]);
}

#[test]
fn an_unsigned_or_wrongly_signed_commit() {
    let (site, host) = upgraded_site();
    let unsigned = site.commit(&Content::new("2", 200));
    site.repo.set_ref(REF, &unsigned).unwrap();
    let output = host.host(&["upgrade"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("is not trusted: the commit is not signed"), "{}", stderr(&output));
    sign::sign_commit(&site.repo, &unsigned, &SecretKey::from_seed(&[9; 32])).unwrap();
    let output = host.host(&["upgrade"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("by a trusted key"), "{}", stderr(&output));
    assert!(host.machine().staged().is_none() && !host.repo().has(store::ObjectType::Commit, &unsigned));
    // A key in /etc changes nothing: the initramfs would not know it.
    let dir = host.paths.etc().join("ostree/trusted.ed25519.d");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("x.ed25519"), format!("{}\n", SecretKey::from_seed(&[9; 32]).public())).unwrap();
    assert_eq!(host.host(&["upgrade"]).code, 3);
}

#[test]
fn an_older_commit() {
    let (site, host) = upgraded_site();
    let old = site.publish(&Content::new("0", 50));
    let output = host.host(&["upgrade"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("--allow-downgrade"), "{}", stderr(&output));
    host.ok(&["upgrade", "--allow-downgrade"]);
    assert_eq!(host.reboot().commit, old);
}

#[test]
fn etc_that_cannot_be_merged_is_found_when_staging() {
    let (site, host) = upgraded_site();
    host.write_etc("conf.d", "a file\n");
    site.publish(&Content::new("2", 200).etc("conf.d/a", "x"));
    let output = host.host(&["upgrade"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("/etc/conf.d is no directory on this machine"), "{}", stderr(&output));
    assert!(host.machine().staged().is_none());
}

#[test]
fn no_remote_and_a_remote_that_is_gone() {
    let (_site, host) = upgraded_site();
    fs::create_dir_all(host.paths.etc().join("slipway")).unwrap();
    host.write_etc("slipway/remote.json", r#"{"format":"1.0","url":"http://127.0.0.1:1/"}"#);
    let output = host.host(&["upgrade", "--check"]);
    assert_eq!(output.code, 1, "{}", stderr(&output));
    host.write_etc("slipway/remote.json", r#"{"format":"2.0","url":"http://127.0.0.1:1/"}"#);
    let output = host.host(&["status"]);
    assert_eq!(output.code, 1);
    assert!(stderr(&output).contains("format 2.0"), "{}", stderr(&output));
}

#[test]
fn nothing_to_roll_back_to() {
    let (_site, host) = upgraded_site();
    let output = host.host(&["rollback"]);
    assert_eq!(output.code, 3);
    assert!(stderr(&output).contains("no other good deployment"));
    assert_eq!(host.host(&["pin", "nope"]).code, 3);
}

#[test]
fn a_damaged_state_file_takes_nothing_else_down() {
    let (site, host) = upgraded_site();
    let two = site.publish(&Content::new("2", 200));
    host.ok(&["upgrade"]);
    assert_eq!(host.reboot().commit, two);
    let state = host.paths.state("slipway", &host.machine().booted.deployment);
    fs::write(&state, "{ not json").unwrap();
    let status = host.json(&["status", "--json"]);
    assert!(status["problems"][0].as_str().unwrap().contains("is damaged"), "{status}");
    assert_eq!(status["booted"]["commit"], two.to_string());
    host.ok(&["bless"]);
    assert_eq!(host.boot().commit, two);
}

#[test]
fn a_finalize_that_cannot_begin_is_shown_at_the_next_boot() {
    let (site, host) = upgraded_site();
    let two = site.publish(&Content::new("2", 200));
    host.ok(&["upgrade"]);
    let config = host.paths.repo().join("config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, "[core]\nrepo_version=9\n").unwrap();
    assert_eq!(host.host(&["finalize"]).code, 1);
    fs::write(&config, text).unwrap();
    assert!(host.ok(&["status"]).text().contains("problem: the last shutdown could not switch"));
    assert_eq!(host.reboot().commit, two);
    assert!(!host.ok(&["status"]).text().contains("problem"));
}
