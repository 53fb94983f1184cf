//! The kernel: exactly one, in `/usr/lib/modules/$kver`, with its initramfs beside it; `/boot` is empty.

use std::collections::BTreeSet;

use super::Error;
use super::tree::Tree;

const MODULES: &str = "usr/lib/modules";

/// The version of the tree's only kernel.
pub(crate) fn version(tree: &Tree) -> Result<String, Error> {
    let mut versions = BTreeSet::new();
    for name in tree.list("boot")? {
        versions.extend(name.strip_prefix("vmlinuz-").map(str::to_owned));
    }
    for name in tree.list(MODULES)? {
        // Packages of headers make the directory too, with nothing but links in it.
        let dir = format!("{MODULES}/{name}");
        if tree.has(&format!("{dir}/modules.order")) || tree.has(&format!("{dir}/vmlinuz")) {
            versions.insert(name);
        }
    }
    let versions: Vec<String> = versions.into_iter().collect();
    match <[String; 1]>::try_from(versions) {
        Ok([only]) => Ok(only),
        Err(versions) if versions.is_empty() => Err(Error::NoKernel),
        Err(versions) => Err(Error::Kernels(versions.join(", "))),
    }
}

/// Moves the kernel and what describes it out of `/boot`.
pub(crate) fn install(tree: &Tree, version: &str) -> Result<(), Error> {
    let dir = format!("{MODULES}/{version}");
    for (name, mode) in [("vmlinuz", 0o644), ("config", 0o644), ("System.map", 0o600)] {
        let (old, new) = (format!("boot/{name}-{version}"), format!("{dir}/{name}"));
        if tree.has(&old) {
            tree.rename(&old, &new)?;
            tree.chmod(&new, mode)?;
        }
    }
    if !tree.has(&format!("{dir}/vmlinuz")) {
        return Err(Error::NoImage(version.to_owned()));
    }
    if !tree.has(&format!("{dir}/modules.dep")) {
        return Err(Error::NoModulesDep(version.to_owned()));
    }
    tree.empty("boot")?;
    for name in tree.list("")? {
        if name.starts_with("vmlinuz") || name.starts_with("initrd.img") {
            tree.remove(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;

    const ONE: &[&str] = &[
        "boot/vmlinuz-6.12.1-amd64: kernel",
        "boot/config-6.12.1-amd64",
        "boot/System.map-6.12.1-amd64",
        "boot/initrd.img-6.12.1-amd64",
        "boot/grub/grub.cfg",
        "usr/lib/modules/6.12.1-amd64/modules.order",
        "usr/lib/modules/6.12.1-amd64/modules.dep",
        "usr/lib/modules/6.11.0-amd64/build -> /usr/src/headers",
        "vmlinuz -> boot/vmlinuz-6.12.1-amd64",
        "initrd.img.old -> boot/initrd.img-6.12.1-amd64",
    ];

    #[test]
    fn kernel_moves_and_boot_is_empty() {
        let (_dir, tree) = fake(ONE);
        let version = version(&tree).unwrap();
        assert_eq!(version, "6.12.1-amd64");
        install(&tree, &version).unwrap();
        assert_eq!(
            tree.list("usr/lib/modules/6.12.1-amd64").unwrap(),
            ["System.map", "config", "modules.dep", "modules.order", "vmlinuz"]
        );
        assert!(tree.is_dir("boot") && tree.list("boot").unwrap().is_empty());
        assert_eq!(tree.list("").unwrap(), ["boot", "usr"]);
    }

    #[test]
    fn two_kernels_are_both_named() {
        let (_dir, tree) = fake(ONE);
        tree.write("boot/vmlinuz-6.12.1-cloud-amd64", "", 0o644).unwrap();
        let error = version(&tree).unwrap_err().to_string();
        assert!(error.contains("6.12.1-amd64, 6.12.1-cloud-amd64"), "{error}");
    }

    #[test]
    fn no_kernel_is_refused() {
        let (_dir, tree) = fake(&["usr/lib/os-release"]);
        assert!(matches!(version(&tree), Err(Error::NoKernel)));
    }

    #[test]
    fn modules_without_an_image_are_refused() {
        let (_dir, tree) = fake(&["usr/lib/modules/6.12/modules.order", "usr/lib/modules/6.12/modules.dep"]);
        assert!(matches!(install(&tree, "6.12"), Err(Error::NoImage(_))));
    }
}
