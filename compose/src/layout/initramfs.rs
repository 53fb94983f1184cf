//! The initramfs: made once, by the tree's own dracut, the same bytes each time.
//!
//! It depends on the kernel and the programs in it, not on the version of the tree: whatever carries the version
//! (`os-release`, `tree.json`) is written after it, so that deployments with the same kernel share one on the ESP.

use std::collections::BTreeSet;

use super::tree::Tree;
use super::{Error, Runner};

/// Everything needed to reach a root volume and to be reset when it cannot be reached. Nothing else brings drivers in, so
/// each platform is listed; a kernel flavour that lacks one just does without.
const DRIVERS: &[&str] = &[
    // file systems and device-mapper
    "ext4",
    "erofs",
    "overlay",
    "dm_mod",
    "efivarfs",
    // virtual disks: KVM, Xen, Hyper-V, VMware
    "virtio_blk",
    "virtio_pci",
    "virtio_mmio",
    "virtio_scsi",
    "xen_blkfront",
    "xen_scsifront",
    "hv_vmbus",
    "hv_storvsc",
    "pci_hyperv",
    "vmw_pvscsi",
    "mptspi",
    // disks of real machines
    "nvme",
    "sd_mod",
    "ahci",
    "ata_piix",
    "ata_generic",
    "usb_storage",
    "uas",
    "xhci_pci",
    "ehci_pci",
    "mmc_block",
    "sdhci_pci",
    "sdhci_acpi",
    "vmd",
    "megaraid_sas",
    "mpt3sas",
    "hpsa",
    "smartpqi",
    "aacraid",
    "mpi3mr",
    // consoles and watchdogs
    "virtio_console",
    "i6300esb",
    "iTCO_wdt",
    "sp5100_tco",
    "wdat_wdt",
];

/// The small module list: systemd, LVM and our own; no file system checkers, no driver that is not listed above.
const MODULES: &str = "systemd-initrd dracut-systemd lvm slipway";

/// dracut's own `zstd -15` takes eight times as long for a hundredth less.
const COMPRESS: &str = "zstd -9 -T0 -q";

const OUR_MODULE: &str = "usr/lib/dracut/modules.d/90slipway/module-setup.sh";

/// Runs dracut. Returns the size of the initramfs.
pub(crate) fn make(tree: &Tree, kernel: &str, source_date_epoch: u64, runner: &dyn Runner) -> Result<u64, Error> {
    for (path, package) in [("usr/bin/dracut", "dracut"), (OUR_MODULE, "slipway-host"), ("usr/bin/zstd", "zstd")] {
        if !tree.has(path) {
            return Err(Error::Missing { path: format!("/{path}"), package });
        }
    }
    let output = format!("usr/lib/modules/{kernel}/initramfs.img");
    tree.remove(&output)?;
    let drivers = present(&tree.read(&format!("usr/lib/modules/{kernel}/modules.dep"))?.unwrap_or_default()).join(" ");
    let target = format!("/{output}");
    let mut args = vec![
        "dracut",
        "--reproducible",
        "--no-hostonly",
        "--no-hostonly-cmdline",
        "--force",
        "--compress",
        COMPRESS,
        "--nostrip",
        "--nofscks",
        "--filesystems",
        "ext4",
        "--modules",
        MODULES,
        "--omit",
        "resume",
        "--add-drivers",
        &drivers,
        "--kver",
        kernel,
    ];
    args.push(&target);
    let epoch = source_date_epoch.to_string();
    let log = runner.run(&args, &[("SOURCE_DATE_EPOCH", &epoch)])?;
    // dracut goes on without what it does not find, and ends with 0: such an initramfs waits for its root for ever.
    if let Some(line) = log.lines().find(|l| l.contains("cannot be found or installed") || l.contains("FAILED:")) {
        return Err(Error::Dracut(line.trim().to_owned()));
    }
    let size = std::fs::metadata(tree.at(&output)).map(|m| m.len()).map_err(|e| Error::io("reading", &output, e))?;
    // dracut's umask is for initramfs files with secrets; this one has none, and may be measured by anybody.
    tree.chmod(&output, 0o644)?;
    tree.remove("var/log/dracut.log")?;
    Ok(size)
}

/// The drivers of the list that are modules of this kernel; the others are built in or belong to another flavour.
fn present(modules_dep: &str) -> Vec<&'static str> {
    let plain = |name: &str| name.replace('-', "_");
    let modules: BTreeSet<String> = modules_dep
        .lines()
        .filter_map(|line| line.split(':').next()?.rsplit('/').next()?.split(".ko").next().map(plain))
        .collect();
    DRIVERS.iter().copied().filter(|d| modules.contains(&plain(d))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn only_drivers_of_this_kernel_are_asked_for() {
        let dep = "kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz\nkernel/drivers/md/dm-mod.ko.xz:\nkernel/drivers/watchdog/i6300esb.ko:\n";
        assert_eq!(present(dep), ["erofs", "dm_mod", "i6300esb"]);
    }

    /// Stands for a sandbox: records the command, writes the file that dracut would.
    struct Fake<'a>(&'a Tree, RefCell<Vec<String>>, &'static str);

    impl Runner for Fake<'_> {
        fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Result<String, Error> {
            self.1.borrow_mut().extend(env.iter().map(|(k, v)| format!("{k}={v}")));
            self.1.borrow_mut().extend(args.iter().map(|a| (*a).to_owned()));
            self.0.write(args.last().unwrap(), "image", 0o600)?;
            Ok(self.2.to_owned())
        }
    }

    const TREE: &[&str] = &[
        "usr/bin/dracut",
        "usr/bin/zstd",
        "usr/lib/dracut/modules.d/90slipway/module-setup.sh",
        "usr/lib/modules/6.12/modules.dep: a/erofs.ko:",
    ];

    #[test]
    fn dracut_gets_the_date_and_the_drivers() {
        let (_dir, tree) = fake(TREE);
        let fake = Fake(&tree, RefCell::default(), "");
        assert_eq!(make(&tree, "6.12", 1_750_000_000, &fake).unwrap(), 5);
        let line = fake.1.borrow().join(" ");
        assert!(line.starts_with("SOURCE_DATE_EPOCH=1750000000 dracut --reproducible "), "{line}");
        assert!(line.ends_with("--add-drivers erofs --kver 6.12 /usr/lib/modules/6.12/initramfs.img"), "{line}");
        assert_eq!(tree.mode("usr/lib/modules/6.12/initramfs.img"), Some(0o644));
    }

    #[test]
    fn a_module_that_dracut_left_out_is_an_error() {
        let (_dir, tree) = fake(TREE);
        let log = "dracut[E]: Module 'slipway' cannot be found or installed.\n";
        let error = make(&tree, "6.12", 0, &Fake(&tree, RefCell::default(), log)).unwrap_err();
        assert!(error.to_string().contains("slipway"), "{error}");
    }

    #[test]
    fn a_tree_without_the_agent_is_refused_with_the_package_to_add() {
        let (_dir, tree) = fake(&["usr/bin/dracut"]);
        let error = make(&tree, "6.12", 0, &Fake(&tree, RefCell::default(), "")).unwrap_err();
        assert!(error.to_string().contains("slipway-host"), "{error}");
    }
}
