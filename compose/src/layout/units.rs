//! systemd units: what packages enabled stays enabled, the treefile adds to it, and what has no place on such a host is masked.
//!
//! No `preset-all`: Debian's preset enables everything, while its maintainer scripts already enabled what each package wants.

use super::tree::{Kind, Tree};
use super::{Error, Runner, Summary};

const SYSTEM: &str = "etc/systemd/system";
const UNIT_DIRS: &[&str] = &["usr/lib/systemd/system", SYSTEM, "usr/local/lib/systemd/system"];

/// Only `host` blesses entries and updates the loader; packages do not change on the machine; `e2scrub` wants free
/// space in the volume group, `xfs_scrub` mail. `blk-availability` unmounts what lies on logical volumes as early in the
/// shutdown as it can, `/var` among it, under the feet of everything that still writes there.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "blk-availability.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "systemd-bless-boot.service",
    "systemd-boot-update.service",
    "xfs_scrub_all.timer",
];

/// `gpt-auto` waits for a root partition that does not exist; `ssh` complains on machines without vsock.
const MASKED_GENERATORS: &[&str] =
    &["systemd-bless-boot-generator", "systemd-gpt-auto-generator", "systemd-ssh-generator"];

/// Units that wait for a first boot in systemd's sense on purpose: what they do is done by others here.
const FIRST_BOOT_KNOWN: &[&str] =
    &["first-boot-complete.target", "systemd-firstboot.service", "systemd-homed-firstboot.service"];

/// Enables units as `systemctl enable` of the tree itself does.
pub(crate) fn enable(tree: &Tree, units: &[String], runner: &dyn Runner) -> Result<(), Error> {
    if units.is_empty() {
        return Ok(());
    }
    for unit in units {
        if !exists(tree, unit) {
            return Err(Error::Unit(unit.clone()));
        }
    }
    let mut args = vec!["systemctl", "--root=/", "--no-reload", "enable", "--"];
    args.extend(units.iter().map(String::as_str));
    runner.run(&args, &[("SYSTEMD_OFFLINE", "1")]).map(drop)
}

fn exists(tree: &Tree, unit: &str) -> bool {
    let template = unit.split_once('@').and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
    UNIT_DIRS.iter().any(|dir| {
        tree.has(&format!("{dir}/{unit}")) || template.as_ref().is_some_and(|t| tree.has(&format!("{dir}/{t}")))
    })
}

/// Sets the target that the machine boots into.
pub(crate) fn default_target(tree: &Tree, target: &str) -> Result<(), Error> {
    if !exists(tree, target) {
        return Err(Error::Unit(target.to_owned()));
    }
    tree.link(&format!("{SYSTEM}/default.target"), &format!("/usr/lib/systemd/system/{target}"))
}

/// Masks units and generators that the tree has, and takes away what enabled them.
pub(crate) fn mask(tree: &Tree) -> Result<(), Error> {
    for unit in MASKED.iter().filter(|u| exists(tree, u)) {
        for found in tree.walk(SYSTEM)? {
            if found.path.rsplit('/').next() == Some(unit) && matches!(found.kind, Kind::Link(_)) {
                tree.remove(&found.path)?;
            }
        }
        tree.link(&format!("{SYSTEM}/{unit}"), "/dev/null")?;
    }
    for generator in MASKED_GENERATORS {
        if tree.has(&format!("usr/lib/systemd/system-generators/{generator}")) {
            tree.link(&format!("etc/systemd/system-generators/{generator}"), "/dev/null")?;
        }
    }
    // Directories that only held links to masked units.
    for name in tree.list(SYSTEM)? {
        let dir = format!("{SYSTEM}/{name}");
        if tree.is_dir(&dir) && tree.list(&dir)?.is_empty() {
            tree.remove(&dir)?;
        }
    }
    Ok(())
}

/// Warns about units that will never run: an empty `machine-id` is not a first boot, so `ConditionFirstBoot=yes` never holds.
pub(crate) fn lint_first_boot(tree: &Tree, summary: &mut Summary) -> Result<(), Error> {
    for dir in UNIT_DIRS {
        for name in tree.list(dir)? {
            let path = format!("{dir}/{name}");
            if FIRST_BOOT_KNOWN.contains(&name.as_str())
                || tree.is_dir(&path)
                || !waits_for_first_boot(&tree.read(&path).unwrap_or_default().unwrap_or_default())
            {
                continue;
            }
            let mut reset = false;
            for over in UNIT_DIRS {
                for drop_in in tree.list(&format!("{over}/{name}.d"))? {
                    let text = tree.read(&format!("{over}/{name}.d/{drop_in}"))?.unwrap_or_default();
                    reset |= text.lines().any(|l| l.trim() == "ConditionFirstBoot=");
                }
            }
            if !reset {
                summary.warn(format!(
                    "{name} has ConditionFirstBoot=yes and will never run: give it a drop-in with another condition"
                ));
            }
        }
    }
    Ok(())
}

fn waits_for_first_boot(unit: &str) -> bool {
    let yes = |value: &str| matches!(value.trim(), "yes" | "true" | "1" | "on");
    unit.lines().filter_map(|l| l.trim().strip_prefix("ConditionFirstBoot=")).any(yes)
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;

    #[test]
    fn masked_units_lose_what_enabled_them() {
        let (_dir, tree) = fake(&[
            "usr/lib/systemd/system/e2scrub_all.timer: x",
            "usr/lib/systemd/system/fstrim.timer: x",
            "usr/lib/systemd/system-generators/systemd-gpt-auto-generator: x",
            "etc/systemd/system/timers.target.wants/e2scrub_all.timer -> /usr/lib/systemd/system/e2scrub_all.timer",
            "etc/systemd/system/other.target.wants/e2scrub_all.timer -> /usr/lib/systemd/system/e2scrub_all.timer",
            "etc/systemd/system/timers.target.wants/fstrim.timer -> /usr/lib/systemd/system/fstrim.timer",
        ]);
        mask(&tree).unwrap();
        let paths: Vec<String> =
            tree.walk("etc/systemd").unwrap().into_iter().filter(|f| f.kind != Kind::Dir).map(|f| f.path).collect();
        assert_eq!(
            paths,
            [
                "etc/systemd/system/e2scrub_all.timer",
                "etc/systemd/system/timers.target.wants/fstrim.timer",
                "etc/systemd/system-generators/systemd-gpt-auto-generator"
            ]
        );
    }

    #[test]
    fn instances_exist_by_their_template() {
        let (_dir, tree) = fake(&["usr/lib/systemd/system/getty@.service: x"]);
        assert!(exists(&tree, "getty@tty1.service") && exists(&tree, "getty@.service"));
        assert!(!exists(&tree, "getty.service"));
    }

    #[test]
    fn a_unit_that_can_never_run_is_reported() {
        let (_dir, tree) = fake(&[
            "usr/lib/systemd/system/a.service: ConditionFirstBoot=yes",
            "usr/lib/systemd/system/b.service: ConditionFirstBoot=yes",
            "usr/lib/systemd/system/c.service: ConditionFirstBoot=no",
            "usr/lib/systemd/system/b.service.d/x.conf: ConditionFirstBoot=",
            "usr/lib/systemd/system/systemd-firstboot.service: ConditionFirstBoot=yes",
        ]);
        let mut summary = Summary::default();
        lint_first_boot(&tree, &mut summary).unwrap();
        assert_eq!(summary.warnings.len(), 1);
        assert!(summary.warnings[0].starts_with("a.service "));
    }

    #[test]
    fn missing_default_target_is_refused() {
        let (_dir, tree) = fake(&["usr/lib/systemd/system/multi-user.target: x"]);
        assert!(default_target(&tree, "multi-usr.target").is_err());
        default_target(&tree, "multi-user.target").unwrap();
    }
}
