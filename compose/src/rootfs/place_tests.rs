use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::rootfs::ar::tests::archive;
use crate::rootfs::tar::tests::entry_of;

/// A root, and a place for packages.
struct Scene {
    dir: tempfile::TempDir,
    debs: Vec<Deb>,
    data: Vec<Data>,
    diversions: Diversions,
    overrides: StatOverrides,
}

/// (name, type, link, content or mode for directories)
type File<'a> = (&'a str, u8, &'a str, &'a str);

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let (diversions, overrides) = Default::default();
        Scene { dir, debs: Vec::new(), data: Vec::new(), diversions, overrides }
    }

    fn root(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root(path)).unwrap_or_else(|e| format!("({e})"))
    }

    /// Adds a package. `fields` begins with its name.
    fn package(mut self, fields: &str, conffiles: &str, files: &[File]) -> Self {
        // Whoever runs the test can give files to himself only.
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let control = format!("Package: {fields}\nVersion: 1\n");
        let control = if fields.contains("Architecture") { control } else { control + "Architecture: amd64\n" };
        let mut control = entry_of("./control", b'0', "", control.as_bytes(), 0o644, owner);
        control.extend(entry_of("./conffiles", b'0', "", conffiles.as_bytes(), 0o644, owner));
        let files = files.iter().map(|(name, kind, link, content)| {
            let mode = if *kind == b'5' || content.contains("#!") { 0o755 } else { 0o644 };
            entry_of(name, *kind, link, content.as_bytes(), mode, owner)
        });
        let data: Vec<u8> = files.flatten().collect();
        let number = self.debs.len();
        let path = self.dir.path().join(format!("{number}.deb"));
        let members: [(&str, &[u8]); 3] = [("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &data)];
        fs::write(&path, archive(&members)).unwrap();
        let deb = Deb::open(&path, &format!("{number}")).unwrap();
        self.data.push(deb.unpack(self.dir.path()).unwrap());
        self.debs.push(deb);
        self
    }

    fn place(&self) -> Result<Placed, PlaceError> {
        let mut placer = Placer::new(&self.root(""), Filter::none()).unwrap();
        let items: Vec<Item> = self
            .debs
            .iter()
            .zip(&self.data)
            .enumerate()
            .map(|(number, (deb, data))| Item { number, deb, data })
            .collect();
        let users = Users::default();
        placer.place(&items, Conffiles::Beside, &self.debs, &self.diversions, &self.overrides, &users)
    }
}

#[test]
fn files_directories_and_links_land_with_their_modes_and_times() {
    let scene = Scene::new().package(
        "a",
        "",
        &[
            ("./", b'5', "", ""),
            ("./usr/", b'5', "", ""),
            ("./usr/x", b'0', "", "#!x"),
            ("./usr/y", b'1', "./usr/x", ""),
            ("./usr/z", b'2', "x", ""),
            ("./no/parent/listed", b'0', "", "n"),
        ],
    );
    let placed = scene.place().unwrap();
    assert_eq!(placed.lists[&0], ["/.", "/usr", "/usr/x", "/usr/y", "/usr/z", "/no/parent/listed"]);
    let meta = fs::metadata(scene.root("usr/x")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.nlink(), meta.mtime()), (0o755, 2, 15));
    assert_eq!(fs::read_link(scene.root("usr/z")).unwrap(), PathBuf::from("x"));
    assert_eq!(scene.read("no/parent/listed"), "n");
}

#[test]
fn hostile_symlink_escape_stays_in_the_root() {
    for target in ["/outside", "../../../../../../outside"] {
        let scene = Scene::new().package(
            "a",
            "",
            &[("./outside/", b'5', "", ""), ("./link", b'2', target, ""), ("./link/file", b'0', "", "inside")],
        );
        scene.place().unwrap();
        assert_eq!(scene.read("outside/file"), "inside");
        assert!(!PathBuf::from("/outside").exists());
    }
}

#[test]
fn hostile_file_over_a_symlink_replaces_the_link_not_its_target() {
    let scene = Scene::new().package("a", "", &[("./victim", b'0', "", "untouched")]).package(
        "b\nReplaces: a",
        "",
        &[("./link", b'2', "victim", ""), ("./link", b'0', "", "new")],
    );
    scene.place().unwrap();
    assert_eq!((scene.read("victim"), scene.read("link")), ("untouched".into(), "new".into()));
    assert!(fs::symlink_metadata(scene.root("link")).unwrap().is_file());
}

#[test]
fn a_directory_may_be_a_link_that_is_there_already() {
    let scene = Scene::new().package("a", "", &[("./lib/", b'5', "", ""), ("./lib/x", b'0', "", "x")]);
    fs::create_dir_all(scene.root("usr/lib")).unwrap();
    symlink("usr/lib", scene.root("lib")).unwrap();
    scene.place().unwrap();
    assert_eq!(scene.read("usr/lib/x"), "x");
    assert!(fs::symlink_metadata(scene.root("lib")).unwrap().is_symlink());
}

#[test]
fn a_link_does_not_replace_a_directory() {
    let scene = Scene::new().package("a", "", &[("./d/", b'5', "", ""), ("./d/x", b'0', "", "x")]).package(
        "b",
        "",
        &[("./d", b'2', "e", "")],
    );
    scene.place().unwrap();
    assert_eq!(scene.read("d/x"), "x");
}

#[test]
fn conffiles_wait_beside_their_place() {
    let scene = Scene::new().package(
        "a",
        "/etc/x\n/etc/y\n",
        &[("./etc/x", b'0', "", "x"), ("./etc/y", b'1', "./etc/x", ""), ("./etc/z", b'0', "", "z")],
    );
    let placed = scene.place().unwrap();
    assert_eq!(placed.lists[&0], ["/etc/x", "/etc/y", "/etc/z"]);
    assert_eq!((scene.read("etc/x.dpkg-new"), scene.read("etc/y.dpkg-new")), ("x".into(), "x".into()));
    assert!(!scene.root("etc/x").exists() && scene.root("etc/z").exists());
}

#[test]
fn two_packages_with_one_path_are_a_conflict() {
    let scene = Scene::new().package("a", "", &[("./x", b'0', "", "a")]).package("b", "", &[("./x", b'0', "", "b")]);
    let text = scene.place().unwrap_err().to_string();
    assert_eq!(text, "b and a both ship /x, and neither declares that it replaces the other");
}

#[test]
fn the_replacing_package_wins_in_either_order() {
    let a = ("a", [("./x", b'0', "", "a"), ("./only-a", b'0', "", "a")]);
    let b = ("b\nReplaces: a (<< 2)", [("./x", b'0', "", "b"), ("./only-b", b'0', "", "b")]);
    let scene = Scene::new().package(a.0, "", &a.1).package(b.0, "", &b.1);
    let placed = scene.place().unwrap();
    assert_eq!((scene.read("x"), placed.taken), ("b".into(), vec![(0, "/x".into())]));

    let scene = Scene::new().package(b.0, "", &b.1).package(a.0, "", &a.1);
    let placed = scene.place().unwrap();
    assert_eq!((scene.read("x"), &placed.lists[&1][..]), ("b".into(), &["/only-a".to_owned()][..]));
}

#[test]
fn a_replacement_of_another_version_does_not_count() {
    let scene = Scene::new().package("a", "", &[("./x", b'0', "", "a")]).package(
        "b\nReplaces: a (<< 1)",
        "",
        &[("./x", b'0', "", "b")],
    );
    assert!(matches!(scene.place(), Err(PlaceError::Conflict { .. })));
}

#[test]
fn instances_for_two_architectures_share_files() {
    let file = [("./usr/share/x", b'0', "", "same")];
    let scene = Scene::new().package("a\nArchitecture: amd64\nMulti-Arch: same", "", &file).package(
        "a\nArchitecture: i386\nMulti-Arch: same",
        "",
        &file,
    );
    scene.place().unwrap();
    assert_eq!(scene.read("usr/share/x"), "same");
}

#[test]
fn a_diverted_path_goes_elsewhere_but_not_for_its_owner() {
    let mut scene =
        Scene::new().package("a", "", &[("./x", b'0', "", "a")]).package("b", "", &[("./x", b'0', "", "b")]);
    scene.diversions = Diversions::parse("/x\n/x.distrib\nb\n");
    scene.place().unwrap();
    assert_eq!((scene.read("x"), scene.read("x.distrib")), ("b".into(), "a".into()));
}

#[test]
fn an_override_decides_over_the_package() {
    let mut scene = Scene::new().package("a", "", &[("./x", b'0', "", "a"), ("./y", b'0', "", "a")]);
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    scene.overrides = StatOverrides::parse(&format!("#{} #{} 4711 /x\n", owner.0, owner.1), &Users::default());
    scene.place().unwrap();
    let mode = |path| fs::metadata(scene.root(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("x"), mode("y")), (0o4711, 0o644));
}

#[test]
fn a_file_where_another_package_has_a_directory_is_an_error() {
    let scene = Scene::new().package("a", "", &[("./d/", b'5', "", "")]).package("b", "", &[("./d", b'0', "", "x")]);
    assert_eq!(scene.place().unwrap_err().to_string(), "b ships /d, which is a directory already");
}
