//! `host` on a `/` of its own: `/sysroot` is read-only for everybody else, the ESP is a file system, `/etc` a mount.
//!
//! Needs root for mounts and chroot, so it belongs to the heavy tier.

mod common;

use common::{Content, Host, Site};
use std::fs;
use sys::Cmd;

const SCRIPT: &str = r#"
set -eu
D=$1 HOST=$2 ETC=$3
mount --make-rprivate /
mount --bind "$D" "$D"
cp "$HOST" "$D/host"
mkdir -p "$D/esp.copy" "$D/proc" "$D/dev" "$D/tmp"
cp -a "$D/efi/." "$D/esp.copy/"
mount -t tmpfs esp "$D/efi"
cp -a "$D/esp.copy/." "$D/efi/"
ln -sfn usr/lib "$D/lib"
ln -sfn usr/lib64 "$D/lib64"
ln -sfn usr/bin "$D/bin"
mount -t overlay usr -o "lowerdir=$D/usr:/usr" "$D/usr"
rm "$D/etc"
mkdir "$D/etc"
mount --bind "$ETC" "$D/etc"
mount --bind "$D/sysroot" "$D/sysroot"
mount -o remount,bind,ro,nosuid,nodev "$D/sysroot"
mount -t proc proc "$D/proc"
run() { chroot "$D" "$@"; }
run /host bless
run /host upgrade
if run touch /sysroot/x 2>/dev/null; then echo "/sysroot is writable for everybody"; exit 1; fi
run /host status
run /host finalize
run /host fsck
run /host status --json > "$D/status.json"
ls "$D/efi/loader/entries" > "$D/entries"
umount "$D/efi"
if run /host cleanup 2> "$D/no-esp"; then exit 1; else [ $? = 3 ]; fi
"#;

#[test]
fn heavy_only_a_command_at_work_sees_a_writable_sysroot() {
    if std::env::var_os("SLIPWAY_HEAVY").is_none_or(|v| v != "1") {
        eprintln!("DID NOT RUN: needs root and SLIPWAY_HEAVY=1");
        return;
    }
    let site = Site::new();
    let host = Host::install(&site, &site.publish(&Content::new("1", 100)));
    let two = site.publish(&Content::new("2", 200).kernel("kernel B").etc("motd", "two\n"));
    let etc = fs::read_link(host.paths.etc()).unwrap();
    let output = Cmd::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .arg(host.root())
        .arg(env!("CARGO_BIN_EXE_host"))
        .arg(etc)
        .output()
        .unwrap();
    eprintln!("{}{}", output.text(), common::stderr(&output));
    assert_eq!(output.code, 0);
    let status: serde_json::Value =
        serde_json::from_slice(&fs::read(host.root().join("status.json")).unwrap()).unwrap();
    assert_eq!(status["deployments"][0]["commit"], two.to_string());
    assert_eq!(status["deployments"][0]["state"], "trial");
    assert_eq!(status["deployments"][0]["tries"]["left"], 3);
    let no_esp = fs::read_to_string(host.root().join("no-esp")).unwrap();
    assert!(no_esp.contains("the EFI system partition is not mounted"), "{no_esp}");
}
