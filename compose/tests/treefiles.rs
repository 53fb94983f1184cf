//! The treefiles we ship resolve, and hold what the layout needs.

use std::path::{Path, PathBuf};

use compose::treefile::{Treefile, load_for};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../treefiles").join(name)
}

fn load(name: &str, arch: &str) -> Treefile {
    load_for(&shipped(name), arch).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn kernels(treefile: &Treefile) -> Vec<&String> {
    treefile.packages.iter().filter(|p| p.starts_with("linux-image")).collect()
}

#[test]
fn each_host_has_one_kernel_and_what_makes_an_initramfs() {
    for (name, arch, kernel) in [
        ("container-host.yaml", "amd64", "linux-image-cloud-amd64"),
        ("container-host.yaml", "arm64", "linux-image-cloud-arm64"),
        ("metal.yaml", "amd64", "linux-image-amd64"),
        ("test-overlay.yaml", "amd64", "linux-image-cloud-amd64"),
    ] {
        let treefile = load(name, arch);
        assert_eq!(kernels(&treefile), [kernel], "{name}");
        for package in
            ["slipway-host", "dracut", "zstd", "lvm2", "thin-provisioning-tools", "systemd-boot", "podman-docker"]
        {
            assert!(treefile.packages.contains(package), "{name}: {package}");
        }
        assert!(!treefile.documentation && !treefile.recommends, "{name}");
        assert!(treefile.kargs.iter().any(|k| k.starts_with("console=")), "{name}");
    }
}

#[test]
fn the_overlay_is_the_next_version_of_the_same_branch() {
    let (first, next) = (load("container-host.yaml", "amd64"), load("test-overlay.yaml", "amd64"));
    assert_eq!(first.ref_name, "slipway/trixie/amd64/container-host");
    assert_eq!(first.ref_name, next.ref_name);
    assert!(next.packages.is_superset(&first.packages) && next.packages.len() > first.packages.len());
    assert!(next.add_files.iter().any(|f| f.destination == "/etc/motd"));
}

#[test]
fn a_host_of_ones_own_adds_address_and_key_in_a_few_lines() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("signing.key.pub"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    let text = format!(
        "include: {}\nremotes:\n  default:\n    url: http://updates.example/repo\n    keys: [signing.key.pub]\n",
        shipped("container-host.yaml").display()
    );
    let path = dir.path().join("host.yaml");
    std::fs::write(&path, text).unwrap();
    let treefile = load_for(&path, "amd64").unwrap();
    assert_eq!(treefile.remotes["default"].keys.len(), 1);
    assert_eq!(treefile.ref_name, "slipway/trixie/amd64/container-host");
}
