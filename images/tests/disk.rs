//! Whole disks from a small commit, read back by the tools that will meet them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use images::{Error, Format, Options};
use store::sign::{SecretKey, sign_commit};
use store::{Checksum, Mode, Repo, Value, commit, composefs, import};
use sys::{Cmd, Reporter};

const ROOT_OFFSET: u64 = 1027 << 20;

struct Fixture {
    dir: tempfile::TempDir,
    repo: Repo,
    commit: Checksum,
    key: SecretKey,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::from_seed(&[7; 32]);
    let tree = dir.path().join("tree");
    let write = |path: &str, bytes: &[u8]| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let noise: Vec<u8> = (0..3_000_000u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    write("usr/lib/modules/6.12.1/vmlinuz", &noise);
    write("usr/lib/modules/6.12.1/initramfs.img", &noise[1000..]);
    write("usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed", &noise[..100_000]);
    write("usr/lib/os-release", b"ID=slipway\nPRETTY_NAME=\"Slipway 1\"\nVERSION_ID=1\n");
    write(
        "usr/lib/slipway/tree.json",
        br#"{"format":"1.0","os":"slipway","ref":"test/host","version":"1","require":"verified"}"#,
    );
    write("usr/share/ostree/trusted.ed25519.d/test.ed25519", format!("{}\n", key.public()).as_bytes());
    write("usr/etc/passwd", b"root:x:0:0::/root:/bin/sh\n");
    write("usr/etc/deep/er/file", b"local\n");
    write("usr/bin/empty", b"");
    write("usr/bin/tool", b"#!/bin/sh\n");
    fs::set_permissions(tree.join("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("tool", tree.join("usr/bin/link")).unwrap();
    for i in 0..500 {
        write(&format!("usr/share/doc/{i}"), format!("text {i}\n").repeat(i).as_bytes());
    }
    let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
    let imported = import::directory(&repo, &tree, &import::Options { verity: true, ..Default::default() }).unwrap();
    let image = composefs::image_of_tree(&repo, &imported.root_tree, &imported.root_meta).unwrap();
    let mut builder = commit::Builder::new(imported.root_tree, imported.root_meta, 1_753_000_000).bind("test/host");
    builder.metadata.insert("version".into(), Value::String("1".into()));
    builder.metadata.insert("ostree.composefs.digest.v0".into(), Value::Bytes(image.digest.to_vec()));
    let commit = builder.write(&repo).unwrap();
    repo.set_ref("test/host", &commit).unwrap();
    Fixture { dir, repo, commit, key }
}

impl Fixture {
    fn signed() -> Self {
        let fixture = fixture();
        sign_commit(&fixture.repo, &fixture.commit, &fixture.key).unwrap();
        fixture
    }

    fn build(&self, name: &str, options: &Options) -> Result<PathBuf, Error> {
        let path = self.dir.path().join(name);
        images::build(&self.repo, &self.commit, options, &path, &Reporter::quiet())?;
        Ok(path)
    }
}

fn options() -> Options {
    let mut options = Options { size: 1400 << 20, root_size: 256 << 20, ..Options::default() };
    options.first.ref_name = Some("test/host".into());
    options.first.credentials = vec![("slipway.hostname".into(), b"node1".to_vec())];
    options
}

fn debugfs(image: &Path, request: &str) -> String {
    let device = format!("{}?offset={ROOT_OFFSET}", image.display());
    let output = Cmd::new("debugfs").args(["-R", request, &device]).run().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_layer_is_valid_for_the_tool_that_reads_it() {
    let fixture = Fixture::signed();
    let image = fixture.build("disk.raw", &options()).unwrap();
    check_structures(&fixture, &image);
    let esp = format!("{}@@1M", image.display());
    let list = Cmd::new("mdir").args(["-/", "-b", "-i", &esp, "::/"]).run().unwrap().text();
    let entry = format!("::/loader/entries/slipway-slipway-{}.0+3.conf", &fixture.commit.to_string()[..12]);
    for wanted in ["::/EFI/BOOT/BOOTX64.EFI", "::/slipway/credentials/slipway.hostname", &entry] {
        assert!(list.lines().any(|l| l == wanted), "{wanted} is not in\n{list}");
    }
}

/// Reads back the parts that carry identifiers.
fn check_structures(fixture: &Fixture, image: &Path) {
    let table = Cmd::new("sgdisk").arg("-v").arg(image).run().unwrap().text();
    assert!(table.contains("No problems found"), "{table}");
    let device = format!("{}?offset={ROOT_OFFSET}", image.display());
    let check = Cmd::new("e2fsck").args(["-fn", &device]).output().unwrap();
    assert_eq!(check.code, 0, "{}", check.text());
    // lvm2 looks at devices; the physical volume is a part of this file.
    let pv = fixture.dir.path().join("pv");
    let disk = File::open(image).unwrap();
    let mut head = vec![0; 1 << 20];
    disk.read_exact_at(&mut head, 1026 << 20).unwrap();
    fs::write(&pv, head).unwrap();
    File::options().write(true).open(&pv).unwrap().set_len((1400 << 20) - (1027 << 20)).unwrap();
    let dump = Cmd::new("pvck").args(["--dump", "metadata"]).arg(&pv).run().unwrap().text();
    assert!(dump.contains("extent_count = 64") && !dump.contains("CHECK:"), "{dump}");
}

#[test]
fn the_first_boot_can_give_the_disk_identifiers_of_its_own() {
    use prepare_root::ids::{Outcome, find::Device, refresh};
    let fixture = Fixture::signed();
    let image = fixture.build("disk.raw", &options()).unwrap();
    let device = Device::open(&image, true).unwrap();
    let mut n = 0;
    let mut random = || {
        n += 1;
        [n; 32]
    };
    let Outcome::Fresh(ids) = refresh(&device, images::ROOT, &mut random).unwrap() else { panic!("not marked") };
    assert_eq!(refresh(&device, images::ROOT, &mut random).unwrap(), Outcome::Settled);
    drop(device);
    check_structures(&fixture, &image);
    let device = format!("{}?offset={ROOT_OFFSET}", image.display());
    let header = Cmd::new("dumpe2fs").args(["-h", &device]).run().unwrap().text();
    assert!(header.contains(&format!("Filesystem UUID:          {}", ids.root)), "{header}");
}

#[test]
fn the_root_file_system_holds_deployment_and_repository() {
    let fixture = Fixture::signed();
    let image = fixture.build("disk.raw", &options()).unwrap();
    let deployment = format!("/ostree/deploy/slipway/deploy/{}.0", fixture.commit);
    assert!(debugfs(&image, &format!("stat {deployment}/.ostree.cfs")).contains("Flags: 0x180000"));
    assert!(debugfs(&image, &format!("cat {deployment}/etc/deep/er/file")).contains("local"));
    let reference = debugfs(&image, "cat /ostree/repo/refs/remotes/default/test/host");
    assert_eq!(reference.trim(), fixture.commit.to_string());
    let Some(store::Entry::File { checksum }) = fixture.repo.lookup(&fixture.commit, "usr/bin/tool").unwrap() else {
        panic!("no usr/bin/tool")
    };
    let object = format!("/ostree/repo/objects/{}", store::object_path(store::ObjectType::File, &checksum));
    assert!(debugfs(&image, &format!("stat {object}")).contains("Flags: 0x180000"));
    assert!(debugfs(&image, &format!("stat {object}")).contains("Mode:  0755"), "no object is setuid");
    assert!(debugfs(&image, &format!("ea_list {object}")).contains("user.ostreemeta (12)"));
    let commitmeta = store::object_path(store::ObjectType::Commit, &fixture.commit) + "meta";
    assert!(debugfs(&image, &format!("stat /ostree/repo/objects/{commitmeta}")).contains("Type: regular"));
}

#[test]
fn the_same_commit_gives_the_same_bytes() {
    let fixture = Fixture::signed();
    let one = fixture.build("one.raw", &options()).unwrap();
    let two = fixture.build("two.raw", &options()).unwrap();
    Cmd::new("cmp").args([&one, &two]).run().unwrap();
    assert!(fs::metadata(&one).unwrap().blocks() * 512 < 64 << 20, "the image is not sparse");
    let qcow2 = Options { format: Format::Qcow2, ..options() };
    let three = fixture.build("three.qcow2", &qcow2).unwrap();
    Cmd::new("qemu-img").args(["check", "-q"]).arg(&three).run().unwrap();
    Cmd::new("qemu-img").args(["compare", "-q"]).args([&one, &three]).run().unwrap();
    let left: Vec<_> = fs::read_dir(fixture.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().contains(".part")), "{left:?}");
}

#[test]
fn an_unsigned_commit_is_refused_unless_asked_for() {
    let fixture = fixture();
    let error = fixture.build("disk.raw", &options()).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }) && error.refusal().is_some(), "{error}");
    assert!(!fixture.dir.path().join("disk.raw").exists());
    sign_commit(&fixture.repo, &fixture.commit, &SecretKey::from_seed(&[8; 32])).unwrap();
    let error = fixture.build("disk.raw", &options()).unwrap_err();
    assert!(error.to_string().contains("by a trusted key"), "{error}");
    fixture.build("disk.raw", &Options { allow_unsigned: true, ..options() }).unwrap();
}

#[test]
fn too_small_disks_are_refused_with_the_size_needed() {
    let fixture = Fixture::signed();
    let error = fixture.build("disk.raw", &Options { size: 1 << 30, ..options() }).unwrap_err();
    let Error::DiskTooSmall { need, have: 1024 } = error else { panic!("{error}") };
    fixture.build("disk.raw", &Options { size: need << 20, ..options() }).unwrap();
    let error = fixture.build("disk.raw", &Options { root_size: 16 << 20, ..options() }).unwrap_err();
    assert!(error.refusal().is_some_and(|hint| hint.contains("--root-size")), "{error}");
}

#[test]
fn an_object_that_changed_since_it_was_hashed_stops_the_image() {
    let fixture = Fixture::signed();
    let Some(store::Entry::File { checksum }) = fixture.repo.lookup(&fixture.commit, "usr/share/doc/100").unwrap()
    else {
        panic!("no usr/share/doc/100")
    };
    let digests = fixture.repo.digests().unwrap();
    digests.insert(&checksum, [9; 32]);
    digests.save().unwrap();
    let error = fixture.build("disk.raw", &options()).unwrap_err();
    // The digest in the commit is compared first: the image of the tree is no longer the signed one.
    assert!(matches!(error, Error::Deployment(_)), "{error}");
}
