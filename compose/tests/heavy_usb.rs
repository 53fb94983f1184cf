//! Refs on a disk that somebody carries: what either tool writes there, both find, in the same words, and pull.
//!
//! Mounts a disk below `/media`, in a mount namespace of its own: needs root, a loop device and `mkfs.ext4`. Runs only
//! with `SLIPWAY_HEAVY=1`.

use std::fs;

use sys::Cmd;

/// `ostree` and `slipway repo` write the disk, and each of them reads it both times.
const SCRIPT: &str = r#"set -eu
mount -t tmpfs none /media
mkdir /media/stick
truncate -s 40M image
mkfs.ext4 -q image
mount -o loop image /media/stick
trap 'umount /media/stick' EXIT
mkdir tree home
chmod 700 home
echo content > tree/file
gpg --batch --quiet --homedir home --passphrase '' --pinentry-mode=loopback \
    --quick-generate-key 'Key <key@example.org>' ed25519 sign never
gpg --homedir home --export > key.pub
ostree --repo=source init --mode=archive --collection-id=org.x.Y
ostree --repo=source commit -b os/stable --gpg-sign=key@example.org --gpg-homedir="$PWD/home" tree
for writer in ostree "$SLIPWAY repo"; do
    rm -rf /media/stick/.ostree
    $writer --repo=source create-usb /media/stick org.x.Y os/stable
    for reader in ostree "$SLIPWAY repo"; do
        rm -rf client
        ostree --repo=client init --mode=archive
        ostree --repo=client remote add --collection-id=org.x.Y --gpg-import=key.pub up http://127.0.0.1:1/ > /dev/null
        $reader --repo=client find-remotes --finders=mount --pull org.x.Y os/stable > found
        cat client/refs/remotes/up/os/stable >> found
        $reader --repo=/media/stick/.ostree/repo refs -c >> found
        grep -v 'last modified' found > "found-$(echo "$writer-$reader" | tr -dc a-z-)"
    done
done
"#;

#[test]
fn heavy_a_disk_that_either_tool_wrote_is_found_by_both() {
    if std::env::var_os("SLIPWAY_HEAVY").is_none() {
        eprintln!("DID NOT RUN: heavy tier only (SLIPWAY_HEAVY=1, make test-full)");
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(dir.path().join("script"), SCRIPT).unwrap();
    let slipway = env!("CARGO_BIN_EXE_slipway");
    let cmd = Cmd::new("unshare").args(["-m", "--propagation=private", "sh", "script"]).dir(dir.path());
    cmd.env("SLIPWAY", slipway).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").run().unwrap();
    let mut found: Vec<String> = Vec::new();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("found-") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
    assert_eq!(found.len(), 4);
    assert!(found[0].contains("Pulled 1/1 refs successfully."), "{}", found[0]);
    assert!(found.iter().all(|one| *one == found[0]), "{found:#?}");
}
