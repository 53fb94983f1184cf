//! Imports go one way: the table of the design, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

/// crate → workspace crates it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("store", &["sys"]),
    ("bootloader", &["sys"]),
    ("runtime", &["sys"]),
    ("vm", &["sys"]),
    ("prepare-root", &["store"]),
    ("deploy", &["sys", "store", "bootloader", "runtime"]),
    ("images", &["sys", "store", "bootloader", "deploy"]),
    ("compose", &["sys", "store", "bootloader", "runtime", "vm", "deploy", "images"]),
    ("vm-tests", &["sys", "vm", "store"]),
    ("fuzz", &["sys", "store"]),
];

#[test]
fn imports_go_one_way() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = sys::Cmd::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .dir(root)
        .run()
        .expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let members: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    assert_eq!(members, layers.keys().copied().collect(), "a crate was added or removed: decide where it stands");
    for package in packages {
        let name = package["name"].as_str().expect("name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let import = dependency["name"].as_str().expect("name");
            // What tests alone import does not reach a binary.
            if !members.contains(import) || dependency["kind"] == "dev" {
                continue;
            }
            assert!(layers[name].contains(&import), "{name} may not import {import}");
        }
    }
}
