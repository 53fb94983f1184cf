//! Boot entries, kernel arguments, boot counting, systemd-boot: what "switch" means on an EFI machine.
//!
//! ```text
//! /efi/EFI/BOOT/BOOTX64.EFI, EFI/systemd/systemd-bootx64.efi      the loader
//! /efi/loader/loader.conf, loader/entries.srel                    its configuration
//! /efi/loader/entries/slipway-<os>-<commit12>.<n>[+tries[-done]].conf   one entry for each deployment
//! /efi/slipway/<bootcsum>/{linux,initrd}                          shared by all deployments with that kernel
//! ```
//!
//! The loader sorts entries by themselves: those out of tries last, then by `sort-key`, then the greatest `version`
//! first. The first one boots, so *switching* is adding one file with a greater version. FAT renames are not atomic, so
//! a deployment's only entry is never renamed or unlinked: [`Esp`] writes the new file, syncs, then unlinks the old.

mod efivars;
mod entry;
mod esp;
mod kargs;
mod name;
mod order;
mod version;

pub use efivars::{BootVariables, VARIABLE_GUID};
pub use entry::{Entry, EntryError};
pub use esp::{ENTRIES_DIR, ENTRIES_SREL, Esp, EspError, Found, KERNELS_DIR, LOADER_CONF, boot_directory};
pub use kargs::{Karg, Kargs};
pub use name::{Counter, EntryName};
pub use order::{Ranked, sort};
pub use version::compare_versions;

/// How often a new deployment may be tried before the loader falls back.
pub const FIRST_TRIES: u32 = 3;

/// The EFI path of the loader that firmware finds without any variable.
pub const FALLBACK_LOADER: &str = "EFI/BOOT/BOOTX64.EFI";

/// The EFI path where `bootctl` expects the loader.
pub const SYSTEMD_LOADER: &str = "EFI/systemd/systemd-bootx64.efi";

/// Where a Debian tree keeps the loader that goes to both paths.
pub const LOADER_IN_TREE: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed";

/// The kernel arguments every deployment boots with: which deployment, then how to fail.
///
/// There is no `root=`: it would wake `systemd-gpt-auto-generator`. A console belongs to the tree's own arguments.
pub fn deployment_kargs(os: &str, deployment: &str, tree: &Kargs) -> Kargs {
    let mut kargs = Kargs::default();
    kargs.append("slipway.deployment", Some(&format!("{os}/{deployment}")));
    for word in [
        "panic=10",
        "rd.shell=0",
        "rd.emergency=reboot",
        "rd.retry=20",
        "rd.lvm.lv=host/root",
        "systemd.watchdog_sec=30",
    ] {
        kargs.append_word(word);
    }
    for karg in tree.iter() {
        // Which deployment boots is decided by the entry, whatever the tree or an operator says.
        if karg.key != "slipway.deployment" {
            kargs.append(&karg.key, karg.value.as_deref());
        }
    }
    kargs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_line_reads_like_the_design() {
        let tree = Kargs::parse("console=tty0 console=ttyS0,115200 slipway.deployment=evil/x.0");
        assert_eq!(
            deployment_kargs("slipway", "ab.0", &tree).to_string(),
            "slipway.deployment=slipway/ab.0 panic=10 rd.shell=0 rd.emergency=reboot rd.retry=20 rd.lvm.lv=host/root \
             systemd.watchdog_sec=30 console=tty0 console=ttyS0,115200"
        );
    }
}
