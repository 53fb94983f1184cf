//! The scenarios: a story each, in a file of its own.

mod bad_commits;
mod boots_verified;
mod broken_kernel;
mod clones;
mod containers;
mod esp_full;
mod first_boot;
mod interrupted_pull;
mod journal;
mod key_rotation;
mod metal;
mod rolls_back;
pub mod states;
mod tampered_object;
mod two_commands;
mod unsigned_at_boot;
mod upgrade_keeps;

use anyhow::Result;

use crate::context::Context;

/// When a scenario runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// In `make test`: together at most 15 minutes on two cores without KVM.
    Quick,
    /// In `make test-full` only, in the shard `scenarios`.
    Full,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name, also that of its directory.
    pub name: &'static str,
    /// When it runs.
    pub tier: Tier,
    /// What it shows, in one line.
    pub story: &'static str,
    /// The scenario.
    pub run: fn(&Context<'_>) -> Result<()>,
}

const fn quick(name: &'static str, story: &'static str, run: fn(&Context<'_>) -> Result<()>) -> Scenario {
    Scenario { name, tier: Tier::Quick, story, run }
}

const fn full(name: &'static str, story: &'static str, run: fn(&Context<'_>) -> Result<()>) -> Scenario {
    Scenario { name, tier: Tier::Full, story, run }
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    quick(
        "boots-verified",
        "the first boot comes up whole, verified and with an identity of its own",
        boots_verified::run,
    ),
    quick("containers", "podman, docker and Quadlet run on the thin pool, without a network", containers::run),
    quick(
        "tampered-object",
        "a flipped bit on the disk is EIO for the reader, and host fsck names it",
        tampered_object::run,
    ),
    quick("unsigned-at-pull", "a commit without a signature is refused at pull", bad_commits::unsigned),
    quick("wrong-key-at-pull", "a commit signed by a stranger is refused at pull", bad_commits::wrong_key),
    quick(
        "truncated-object",
        "an object that arrives short is refused, and the next try repairs",
        bad_commits::truncated,
    ),
    quick("tampered-at-pull", "an object that arrives changed is refused", bad_commits::tampered),
    quick(
        "server-gone",
        "a server that goes away in mid-pull leaves nothing staged; the next pull goes on",
        interrupted_pull::server_gone,
    ),
    quick("two-commands", "a second host command is refused while one works", two_commands::run),
    quick("esp-full", "an upgrade that does not fit on the ESP is refused before anything is written", esp_full::run),
    quick(
        "upgrade-keeps",
        "an upgrade keeps /etc, /var, users and containers, and brings the new tree's",
        upgrade_keeps::run,
    ),
    quick("rolls-back", "host rollback goes back to version 1 and keeps what belongs to the machine", rolls_back::run),
    quick(
        "broken-kernel",
        "an entry whose kernel panics falls back by itself, and is never tried again",
        broken_kernel::run,
    ),
    quick(
        "unsigned-at-boot",
        "a deployment whose signature is gone does not boot; the machine falls back",
        unsigned_at_boot::run,
    ),
    quick("clean-power-off", "after a clean power-off the root file system's journal is empty", journal::run),
    quick(
        "first-boot",
        "credentials from SMBIOS and from the ESP, and a remote of its own, make a first boot what it was told to be",
        first_boot::run,
    ),
    quick("two-clones", "the disks of two clones work in one machine", clones::run),
    full(
        "power-cut-in-pull",
        "a power cut in mid-pull leaves a machine that boots and upgrades",
        interrupted_pull::power_cut,
    ),
    full(
        "wrong-key-at-boot",
        "a deployment that a stranger has signed does not boot; the machine falls back",
        unsigned_at_boot::wrong_key,
    ),
    full("hung-kernel", "a kernel that hangs is reset by the watchdog and falls back", broken_kernel::hung),
    full(
        "key-rotation",
        "signing keys change over a version signed by both; who skipped it is told, and a revoked key is refused",
        key_rotation::run,
    ),
    full("missing-root", "an entry that cannot find its root falls back", broken_kernel::missing_root),
    full("hung-initramfs", "an initramfs that hangs is given up and falls back", broken_kernel::hung_initramfs),
    full("metal", "the tree with the generic kernel, composed, booted and kept through `slipway vm`", metal::run),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_directory() {
        let mut seen = std::collections::BTreeSet::new();
        for scenario in ALL {
            assert!(seen.insert(scenario.name), "{} twice", scenario.name);
            assert!(scenario.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", scenario.name);
        }
    }
}
