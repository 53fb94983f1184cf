//! Our composefs images against libostree's own, byte for byte.
//!
//! Needs an `ostree` with composefs (2024 or newer). Where the machine's own is older, one is installed into a chroot
//! below `target/heavy` (network, root). Runs only with `SLIPWAY_HEAVY=1`.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::sid::Tools;
use store::{Repo, composefs};

/// The stock tools.
struct Stock(Tools);

impl Stock {
    fn find() -> Self {
        Stock(Tools::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/heavy/sid")).unwrap())
    }

    /// A directory that the tools can see, and its name for them.
    fn workdir(&self) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir_in(self.0.tmp()).unwrap();
        let name = self.0.name(dir.path()).display().to_string();
        (dir, name)
    }

    fn ostree(&self, args: &[&str]) -> String {
        self.0.ostree().args(args).run().unwrap().text()
    }

    /// Commits `tree` (as the tools call it) and compares every form of the image.
    fn compare(&self, dir: &Path, name: &str, tree: &str, mode: &str) -> usize {
        let path = |file: &str| format!("{name}/{file}");
        let repo = format!("--repo={}", path(mode));
        self.ostree(&[&repo, "init", &format!("--mode={mode}")]);
        let tree = format!("--tree=dir={tree}");
        self.ostree(&[&repo, "commit", "-b", "test", &tree, "--generate-composefs-metadata", "--skip-if-unchanged"]);
        let theirs = format!("{mode}.cfs");
        self.ostree(&[&repo, "checkout", "--composefs", "test", &path(&theirs)]);
        let plain = format!("{mode}.noverity.cfs");
        self.ostree(&[&repo, "checkout", "--composefs-noverity", "test", &path(&plain)]);
        let opened = Repo::open(&dir.join(mode)).unwrap();
        let commit = opened.resolve("test").unwrap();
        let ours = composefs::image(&opened, &commit).unwrap();
        let unsealed = composefs::image_without_verity(&opened, &commit).unwrap();
        assert!(unsealed.bytes == fs::read(dir.join(&plain)).unwrap(), "{mode}: the image without digests differs");
        assert!(ours.bytes == fs::read(dir.join(&theirs)).unwrap(), "{mode}: the images differ");
        assert_eq!(opened.load_commit(&commit).unwrap().composefs_digest(), Some(ours.digest), "{mode}");
        // Once more from remembered digests.
        assert_eq!(composefs::image(&opened, &commit).unwrap(), ours);
        ours.bytes.len()
    }
}

fn odd_tree(root: &Path) {
    let write = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for i in 0..3000 {
        write(&format!("many/file-number-{i:05}"), format!("{i}\n").as_bytes());
    }
    for i in 0..100 {
        for j in 0..i {
            write(&format!("usr/d{i}/{}{j}", "k".repeat(j % 30)), &vec![b'z'; j]);
        }
    }
    for name in ["same1", "same2", "same3"] {
        write(&format!("usr/{name}"), b"same content\n");
    }
    fs::set_permissions(root.join("usr/same2"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::chown(root.join("usr/same3"), Some(70_000), Some(80_000)).unwrap();
    write("usr/empty", b"");
    write(&format!("usr/{}", "n".repeat(255)), b"long");
    write("usr/ü with spaces", b"odd");
    write("usr/-minus", b"before the dot");
    write("00", b"named like an object directory");
    write("big", &(0..5_000_000u32).map(|i| ((i * 7) >> 5) as u8).collect::<Vec<_>>());
    fs::create_dir_all(root.join("usr/emptydir")).unwrap();
    for len in (1..4000).step_by(13) {
        symlink("y".repeat(len), root.join(format!("usr/link{len}"))).unwrap();
    }
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::setxattr(root.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    for i in 0..20 {
        set(&format!("many/file-number-{i:05}"), "user.test", &vec![b'v'; i % 4 * 100]);
        set(&format!("many/file-number-{i:05}"), "user.same", b"shared");
    }
    set("usr/emptydir", "user.dir", b"d");
    set("many/file-number-00030", "user.big", &[b'B'; 3000]);
    set("usr/same1", "trusted.overlay.redirect", b"/etc/shadow");
    set("usr/same1", "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn images_equal_those_of_libostree() {
    if std::env::var_os("SLIPWAY_HEAVY").is_none() {
        eprintln!("heavy_composefs DID NOT RUN: set SLIPWAY_HEAVY=1 to compare images with libostree's");
        return;
    }
    let tools = Stock::find();
    let (dir, name) = tools.workdir();
    odd_tree(&dir.path().join("odd"));
    for mode in ["bare-user", "archive"] {
        let bytes = tools.compare(dir.path(), &name, &format!("{name}/odd"), mode);
        println!("odd tree, {mode}: {bytes} bytes are equal");
    }
    let (dir, name) = tools.workdir();
    let bytes = tools.compare(dir.path(), &name, "/usr", "bare-user");
    println!("/usr: {bytes} bytes are equal");
}
