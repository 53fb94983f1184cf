use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFake somebody";
const HASH: &str = "$6$salt$secretsecretsecret";

fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in ["etc", "var/lib", "efi/slipway/credentials", "run/credentials/@system"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    write(dir.path(), "etc/shadow", "root:*:20000:0:99999:7:::\ndaemon:*:20000::::::\n");
    let passwd = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\nme:x:1000:1000::/home/me:/bin/sh\n";
    write(dir.path(), "etc/passwd", passwd);
    dir
}

fn write(root: &Path, path: &str, text: &str) {
    fs::write(root.join(path), text).unwrap();
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

fn esp(root: &Path, name: &str, value: &str) {
    write(root, &format!("efi/slipway/credentials/{name}"), value);
}

fn system(root: &Path, name: &str, value: &str) {
    write(root, &format!("run/credentials/@system/{name}"), value);
}

#[test]
fn everything_a_machine_can_be_told() {
    let dir = machine();
    let root = dir.path();
    esp(root, "ssh.authorized_keys.root", &format!("# mine\n{KEY}\n"));
    esp(root, "passwd.hashed-password.root", &format!("{HASH}\n"));
    esp(root, "firstboot.hostname", "web-1.example.org\n");
    esp(root, "network.network.10-lan", "[Match]\nName=eth0\n");
    esp(root, "slipway.remote-url", "https://user:hunter2@updates.example.org/repo");
    esp(root, "slipway.remote-ref", "slipway/stable");
    esp(root, "systemd.extra-unit.hello.service", "[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n");
    esp(root, "systemd.unit-dropin.ssh.service", "[Service]\nNice=1\n");
    let outcome = run(root, 1000).unwrap();
    assert!(outcome.first && outcome.record.ignored.is_empty(), "{:?}", outcome.record.ignored);
    assert_eq!(outcome.record.applied.len(), 8);
    assert_eq!(outcome.way_in, WayIn { keys: vec!["root".into()], passwords: vec!["root".into()] });

    assert_eq!(read(root, "var/roothome/.ssh/authorized_keys"), format!("{KEY}\n"));
    assert_eq!(read(root, "etc/shadow"), format!("root:{HASH}:20000:0:99999:7:::\ndaemon:*:20000::::::\n"));
    assert_eq!(read(root, "etc/hostname"), "web-1.example.org\n");
    assert_eq!(read(root, "etc/systemd/network/10-lan.network"), "[Match]\nName=eth0\n");
    let remote: serde_json::Value = serde_json::from_str(&read(root, "etc/slipway/remote.json")).unwrap();
    assert_eq!(remote["ref"], "slipway/stable");
    assert_eq!(remote["url"], "https://user:hunter2@updates.example.org/repo");
    assert!(read(root, "etc/systemd/system/hello.service").starts_with("[Service]"));
    assert!(read(root, "etc/systemd/system/ssh.service.d/50-credential.conf").contains("Nice"));
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("var/roothome/.ssh"), mode("var/roothome/.ssh/authorized_keys")), (0o700, 0o600));

    // Nothing of it can be read in the record, and nothing is left on the ESP.
    let record = read(root, "var/lib/slipway/firstboot.json") + &text(&outcome.record);
    for secret in [HASH, "hunter2", "AAAAC3", "ExecStart"] {
        assert!(!record.contains(secret), "{secret}: {record}");
    }
    assert!(!root.join("efi/slipway/credentials").exists());
}

#[test]
fn applied_once_and_never_again() {
    let dir = machine();
    let root = dir.path();
    system(root, "ssh.authorized_keys.root", KEY);
    let first = run(root, 1000).unwrap();
    fs::remove_file(root.join("var/roothome/.ssh/authorized_keys")).unwrap();
    esp(root, "firstboot.hostname", "late");
    let second = run(root, 2000).unwrap();
    assert!(!second.first && second.record == first.record);
    assert!(!root.join("etc/hostname").exists());
    assert!(root.join("efi/slipway/credentials/firstboot.hostname").exists(), "what was never read is not removed");
    assert!(second.way_in.is_none(), "the keys that were removed stay removed");
}

#[test]
fn after_a_power_cut_the_first_boot_is_done_again_and_changes_nothing_twice() {
    let dir = machine();
    let root = dir.path();
    esp(root, "ssh.authorized_keys.root", KEY);
    esp(root, "passwd.hashed-password.root", HASH);
    run(root, 1000).unwrap();
    // As if the record had not reached the disk.
    fs::remove_file(root.join("var/lib/slipway/firstboot.json")).unwrap();
    fs::create_dir_all(root.join("efi/slipway/credentials")).unwrap();
    esp(root, "ssh.authorized_keys.root", KEY);
    assert!(run(root, 1001).unwrap().first);
    assert_eq!(read(root, "var/roothome/.ssh/authorized_keys"), format!("{KEY}\n"));
}

#[test]
fn the_one_who_starts_the_machine_is_nearer_than_the_one_who_wrote_its_disk() {
    let dir = machine();
    let root = dir.path();
    esp(root, "firstboot.hostname", "from-esp");
    system(root, "firstboot.hostname", "from-smbios");
    assert_eq!(run(root, 1).unwrap().record.applied[0].source, Source::System);
    assert_eq!(read(root, "etc/hostname"), "from-smbios\n");
}

#[test]
fn units_from_smbios_are_left_to_systemd() {
    let dir = machine();
    let root = dir.path();
    system(root, "systemd.extra-unit.x.service", "[Service]\nExecStart=true\n");
    system(root, "tmpfiles.extra", "f /etc/x");
    system(root, "something.else", "x");
    let record = run(root, 1).unwrap().record;
    let applied: Vec<(&str, Source)> = record.applied.iter().map(|e| (e.name.as_str(), e.source)).collect();
    assert_eq!(applied, [("systemd.extra-unit.x.service", Source::System), ("tmpfiles.extra", Source::System)]);
    assert!(record.applied.iter().all(|e| e.what == "systemd applies it at each boot") && record.ignored.is_empty());
    assert!(!root.join("etc/systemd").exists() && !root.join("etc/x").exists());
}

#[test]
fn what_makes_no_sense_is_ignored_with_a_reason_and_the_rest_is_applied() {
    let dir = machine();
    let root = dir.path();
    let bad = [
        ("passwd.hashed-password.root", "plain text"),
        ("firstboot.hostname", "-bad-"),
        ("slipway.remote-url", "ftp://example.org"),
        ("slipway.remote-ref", "../../etc/passwd"),
        ("ssh.authorized_keys.root", "\n# nothing\n"),
        ("systemd.extra-unit.escape", "x"),
        ("network.network.", "x"),
        ("hostnam", "typo"),
    ];
    for (name, value) in bad {
        esp(root, name, value);
    }
    esp(root, "system.hostname", "good");
    let outcome = run(root, 1).unwrap();
    assert_eq!(outcome.record.ignored.len(), bad.len());
    assert_eq!(outcome.record.applied.len(), 1);
    assert_eq!(read(root, "etc/hostname"), "good\n");
    assert!(text(&outcome.record).contains("ignored hostnam (ESP): no credential of this name is known"));
}

#[test]
fn a_password_cannot_add_an_account() {
    let dir = machine();
    let root = dir.path();
    for attack in ["$6$a$b:0:0:\nevil:$6$x$y:", "$6$a$b\nevil::", "$6$a$b:", ""] {
        esp(root, "passwd.hashed-password.root", attack);
        let outcome = run(root, 1).unwrap();
        assert_eq!(outcome.record.ignored.len(), 1, "{attack:?}");
        fs::remove_file(root.join("var/lib/slipway/firstboot.json")).unwrap();
        fs::create_dir_all(root.join("efi/slipway/credentials")).unwrap();
    }
    assert!(!read(root, "etc/shadow").contains("evil"));
}

#[test]
fn a_machine_nobody_can_enter_says_so_on_its_console() {
    let dir = machine();
    let root = dir.path();
    let outcome = run(root, 1).unwrap();
    assert!(outcome.way_in.is_none());
    assert!(read(root, "run/issue.d/60-slipway-no-way-in.issue").starts_with("Nobody can log in"));
    fs::create_dir_all(root.join("var/home/me/.ssh")).unwrap();
    write(root, "var/home/me/.ssh/authorized_keys", KEY);
    assert_eq!(run(root, 2).unwrap().way_in.keys, ["me"]);
    assert!(!root.join("run/issue.d/60-slipway-no-way-in.issue").exists());
}

#[test]
fn secrets_have_no_debug_form() {
    let credentials = BTreeMap::from([(
        "passwd.hashed-password.root".to_owned(),
        Credential { source: Source::Esp, value: HASH.as_bytes().to_vec() },
    )]);
    assert!(!format!("{credentials:?} {:?}", plan::plan(&credentials)).contains("secret"));
}
