//! The story of a machine: installed, upgraded, rolled back, failed, cleaned up.

mod common;

use common::{Content, Host, Site, stderr};
use std::fs;

#[test]
fn upgrades_switches_and_rolls_back() {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100));
    let host = Host::install(&site, &one);
    host.ok(&["bless"]);
    let status = host.json(&["status", "--json"]);
    assert_eq!(status["booted"]["version"], "1");
    assert_eq!(status["booted"]["state"], "good");
    assert!(status["staged"].is_null() && status["rollback"].is_null());
    assert!(host.ok(&["upgrade", "--check"]).text().contains("1 is the newest"));

    // A local user, a local change, and a file that only this machine has.
    host.write_etc("passwd", "root:x:0:0:root:/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/bash\n");
    host.write_etc("app/app.conf", "a=2\n");
    host.write_etc("mine", "mine\n");
    fs::write(host.root().join("var/.updated"), "").unwrap();
    fs::write(host.root().join("var/data"), "kept").unwrap();

    let two = Content::new("2", 200)
        .kernel("kernel B")
        .etc("motd", "hello again\n")
        .etc("app/app.conf", "a=3\n")
        .etc("ld.so.cache", "new cache\n")
        .etc("passwd", "root:x:0:0:root:/root:/bin/bash\n_new:x:990:990::/:/usr/sbin/nologin\n");
    let two = site.publish(&two);
    assert!(host.ok(&["upgrade", "--check"]).text().contains("2 is available"));
    host.ok(&["upgrade", "--dry-run"]);
    assert!(host.machine().staged().is_none());
    host.ok(&["upgrade", "--download-only"]);
    assert!(host.machine().staged().is_none());
    host.ok(&["upgrade"]);
    let status = host.json(&["status", "--json"]);
    assert_eq!(status["staged"]["version"], "2");
    assert_eq!(status["staged"]["signer"], site.key.public().to_string());
    assert_eq!(status["booted"]["version"], "1");
    assert_eq!(host.entries().len(), 1, "nothing is switched before the shutdown");
    assert!(stderr(&host.ok(&["upgrade"])).contains("staged already"));

    assert_eq!(host.reboot().commit, two);
    assert_eq!(
        host.etc("passwd").unwrap(),
        "root:x:0:0:root:/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/bash\n_new:x:990:990::/:/usr/sbin/nologin\n"
    );
    assert_eq!(host.etc("app/app.conf").unwrap(), "a=2\n");
    assert_eq!(host.etc("mine").unwrap(), "mine\n");
    assert_eq!(host.etc("motd").unwrap(), "hello again\n");
    assert_eq!(host.etc("ld.so.cache").unwrap(), "new cache\n");
    assert!(!host.root().join("var/.updated").exists());
    assert_eq!(fs::read_to_string(host.root().join("var/data")).unwrap(), "kept");
    let status = host.json(&["status", "--json"]);
    assert_eq!((&status["booted"]["version"], &status["rollback"]["version"]), (&"2".into(), &"1".into()));
    let notes = status["booted"]["finalize"]["notes"].to_string();
    assert!(notes.contains("/etc/app/app.conf: local version kept"), "{notes}");
    assert_eq!(host.entries().len(), 2);
    assert!(host.entries().iter().all(|e| !e.contains('+')), "both are blessed");
    assert_eq!(host.machine().kernels.len(), 2);

    let text = host.ok(&["status", "--verbose"]).text();
    assert!(text.starts_with(&format!("updates from {} {}\n● 2 ", site.url, common::REF)), "{text}");
    assert!(text.contains("booted, good\n") && text.contains("local version kept"), "{text}");
    assert!(host.ok(&["kargs"]).text().ends_with("systemd.watchdog_sec=30 console=ttyS0"));
    let published: serde_json::Value = serde_json::from_slice(&fs::read(host.paths.status()).unwrap()).unwrap();
    assert_eq!(published["deployments"], host.json(&["status", "--json"])["deployments"]);

    host.write_etc("after", "2\n");
    assert_eq!(host.json(&["rollback", "--json"])["status"]["rollback"]["version"], "2");
    assert_eq!(host.reboot().commit, one);
    assert_eq!(host.etc("motd").unwrap(), "hello\n");
    assert_eq!(host.etc("after"), None, "a rollback goes back to that deployment's own /etc");
    let status = host.json(&["status", "--json"]);
    assert_eq!((&status["booted"]["version"], &status["rollback"]["version"]), (&"1".into(), &"2".into()));
    // And forth, and the machine has not lost anything on the way.
    host.ok(&["rollback"]);
    assert_eq!(host.reboot().commit, two);
    assert_eq!(host.etc("after").unwrap(), "2\n");
}

#[test]
fn the_same_kernel_is_kept_once() {
    let site = Site::new();
    let host = Host::install(&site, &site.publish(&Content::new("1", 100)));
    host.ok(&["bless"]);
    site.publish(&Content::new("2", 200));
    host.ok(&["upgrade"]);
    host.reboot();
    assert_eq!(host.machine().kernels.len(), 1);
    assert_eq!(host.entries().len(), 2);
}

#[test]
fn old_deployments_go_when_a_newer_one_is_blessed() {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100).kernel("K1"));
    let host = Host::install(&site, &one);
    host.ok(&["bless"]);
    for (version, time, kernel) in [("2", 200, "K2"), ("3", 300, "K3"), ("4", 400, "K4")] {
        site.publish(&Content::new(version, time).kernel(kernel));
        host.ok(&["upgrade"]);
        host.reboot();
        if version == "3" {
            host.ok(&["pin"]);
        }
    }
    let machine = host.machine();
    let versions: Vec<String> = machine.deployments.iter().map(|d| d.label()).collect();
    assert_eq!(versions, ["4", "3"]);
    assert_eq!(machine.kernels.len(), 2);
    assert_eq!(host.entries().len(), 2);
    let repo = host.repo();
    assert!(!repo.has(store::ObjectType::Commit, &one), "its objects are collected");
    for (name, commit) in repo.refs().unwrap() {
        assert!(repo.has(store::ObjectType::Commit, &commit), "{name}");
    }
    // The pinned one stays through the next upgrades.
    for (version, time) in [("5", 500), ("6", 600)] {
        site.publish(&Content::new(version, time));
        host.ok(&["upgrade"]);
        host.reboot();
    }
    let versions: Vec<String> = host.machine().deployments.iter().map(|d| d.label()).collect();
    assert_eq!(versions, ["6", "5", "3"]);
    host.ok(&["unpin", "3"]);
    host.ok(&["cleanup"]);
    assert_eq!(host.machine().deployments.len(), 2);
}

#[test]
fn a_version_that_never_comes_up_is_left_and_marked() {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100));
    let host = Host::install(&site, &one);
    host.ok(&["bless"]);
    let two = site.publish(&Content::new("2", 200).kernel("broken"));
    host.ok(&["upgrade"]);
    host.ok(&["finalize"]);
    for _ in 0..3 {
        assert_eq!(host.boot().commit, two);
    }
    assert_eq!(host.boot().commit, one, "the loader falls back by itself");
    host.ok(&["bless"]);
    let status = host.json(&["status", "--json"]);
    assert_eq!(status["booted"]["version"], "1");
    assert!(status["bad"][two.to_string()]["reason"].as_str().unwrap().contains("did not come up in 3 boots"));
    let refused = host.host(&["upgrade"]);
    assert_eq!(refused.code, 3);
    assert!(stderr(&refused).contains("2 failed on this machine"), "{}", stderr(&refused));
    // A newer one is welcome.
    site.publish(&Content::new("3", 300));
    host.ok(&["upgrade"]);
    host.reboot();
    assert_eq!(host.json(&["status", "--json"])["booted"]["version"], "3");
}

#[test]
fn an_unhealthy_trial_is_rejected() {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100));
    let host = Host::install(&site, &one);
    let lone = host.host(&["reject"]);
    assert_eq!(lone.code, 3, "{}", stderr(&lone));
    host.ok(&["bless"]);
    let two = site.publish(&Content::new("2", 200));
    host.ok(&["upgrade"]);
    host.ok(&["finalize"]);
    assert_eq!(host.boot().commit, two);
    host.ok(&["reject", "--only-trial", "--reason", "sshd is down", "--reboot"]);
    assert_eq!(host.boot().commit, one);
    host.ok(&["bless"]);
    assert_eq!(host.host(&["upgrade"]).code, 3);
    // Blessed: a unit that fails later rejects nothing.
    assert!(stderr(&host.ok(&["reject", "--only-trial", "--reboot"])).contains("nothing to do"));
}

#[test]
fn power_cuts_before_the_first_bless_are_survived() {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100));
    let host = Host::install(&site, &one);
    for _ in 0..4 {
        assert_eq!(host.boot().commit, one);
    }
    assert!(host.entries()[0].contains("+0-5"), "{:?}", host.entries());
    host.ok(&["bless"]);
    assert_eq!(host.json(&["status", "--json"])["booted"]["state"], "good");
    assert!(!host.entries()[0].contains('+'));
}

#[test]
fn a_rollback_holds_back_what_is_staged() {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100));
    let host = Host::install(&site, &one);
    host.ok(&["bless"]);
    let two = site.publish(&Content::new("2", 200));
    host.ok(&["upgrade"]);
    assert_eq!(host.reboot().commit, two);
    let three = site.publish(&Content::new("3", 300));
    host.ok(&["upgrade"]);
    host.ok(&["rollback"]);
    assert_eq!(host.reboot().commit, one);
    assert_eq!(host.json(&["status", "--json"])["staged"]["held"], true);
    host.ok(&["upgrade"]);
    assert_eq!(host.reboot().commit, three);
    host.ok(&["rollback", "--drop-staged"]);
    assert!(host.machine().staged().is_none());
}

#[test]
fn deploy_goes_to_any_version_that_the_remote_still_has() {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100));
    let two = site.publish(&Content::new("2", 200));
    let three = site.publish(&Content::new("3", 300));
    let host = Host::install(&site, &three);
    host.ok(&["bless"]);
    host.ok(&["deploy", "1"]);
    assert_eq!(host.reboot().commit, one);
    host.ok(&["deploy", &two.to_string()]);
    assert_eq!(host.reboot().commit, two);
    // Version 1 is still here: no fetching.
    site.log.lock().unwrap().clear();
    host.ok(&["deploy", "1"]);
    assert!(site.log.lock().unwrap().is_empty());
    assert_eq!(host.reboot().commit, one);
    let unknown = host.host(&["deploy", "77"]);
    assert_eq!(unknown.code, 3);
    // The newest is an upgrade again.
    host.ok(&["upgrade"]);
    assert_eq!(host.reboot().commit, three);
}

#[test]
fn a_failed_switch_is_shown_and_can_be_repeated() {
    let site = Site::new();
    let host = Host::install(&site, &site.publish(&Content::new("1", 100)));
    host.ok(&["bless"]);
    let two = site.publish(&Content::new("2", 200).etc("conf.d/a", "x"));
    host.ok(&["upgrade"]);
    // After staging, the operator puts a file where the new tree has a directory.
    host.write_etc("conf.d", "a file\n");
    let failed = host.host(&["finalize"]);
    assert_eq!(failed.code, 1);
    let status = host.json(&["status", "--json"]);
    assert_eq!(status["staged"]["finalize"]["result"], "failed");
    assert!(status["staged"]["finalize"]["error"].as_str().unwrap().contains("/etc/conf.d"), "{status}");
    assert!(host.ok(&["status"]).text().contains("not switched to"));
    assert_eq!(host.entries().len(), 1);
    fs::remove_file(host.paths.etc().join("conf.d")).unwrap();
    assert_eq!(host.reboot().commit, two);
}

#[test]
fn fsck_names_what_is_damaged_and_fetches_it_again() {
    let site = Site::new();
    let one = site.publish(&Content::new("1", 100));
    let host = Host::install(&site, &one);
    host.ok(&["bless"]);
    assert!(host.ok(&["fsck"]).text().contains("as they should be"));
    let repo = host.repo();
    let Some(store::Entry::File { checksum }) = repo.lookup(&one, "/usr/share/version").unwrap() else {
        panic!("no such file")
    };
    let object = repo.path().join("objects").join(store::object_path(store::ObjectType::File, &checksum));
    fs::write(&object, "X").unwrap();
    let kernel = host.machine().booted_deployment().unwrap().state.bootcsum.clone();
    fs::write(host.paths.esp().join(bootloader::boot_directory(&kernel)).join("linux"), "X").unwrap();
    let output = host.host(&["fsck"]);
    assert_eq!(output.code, 1);
    assert!(output.text().contains(&format!("file {checksum}: its content has the checksum")));
    assert!(output.text().contains("1: /usr/share/version"));
    assert!(output.text().contains(&format!("kernel {kernel}: linux and initrd hash to")));
    host.ok(&["fsck", "--repair"]);
    host.ok(&["fsck"]);
    assert_eq!(fs::read(&object).unwrap(), b"1");
}

#[test]
fn a_failed_boot_reboots_only_while_that_helps() {
    let site = Site::new();
    let host = Host::install(&site, &site.publish(&Content::new("1", 100)));
    let variable = |file: &str| {
        let dir = host.root().join("sys/firmware/efi/efivars");
        fs::create_dir_all(&dir).unwrap();
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend(format!("\\loader\\entries\\{file}\0").encode_utf16().flat_map(u16::to_le_bytes));
        fs::write(dir.join(format!("LoaderBootCountPath-{}", bootloader::VARIABLE_GUID)), bytes).unwrap();
    };
    let decision = |host: &Host| stderr(&host.ok(&["boot-fallback", "--dry-run"]));
    assert!(decision(&host).contains("staying up"), "no EFI, no counter");
    variable(&host.entries()[0]);
    assert!(decision(&host).contains("rebooting"), "two tries are left");
    host.boot();
    host.boot();
    variable(&host.entries()[0]);
    assert!(host.entries()[0].contains("+0-3"));
    assert!(decision(&host).contains("staying up"), "a lone system must not reset for ever");
}
