//! Storage for containers: a thin pool in the machine's own volume group.
//!
//! ```text
//!  VG of the root volume
//!  ├─ root                   the system (not ours to touch)
//!  ├─ containers             thin pool, 80 % of what was free; dmeventd grows it into the rest
//!  │  └─ containers-storage  thin volume, XFS  ──>  /var/lib/containers
//!  └─ free                   what the pool may still grow by
//! ```
//!
//! `load` asks LVM once, [`plan::plan`] is pure, [`execute::run`] does the steps. Every step may be repeated, and a plan
//! made after a power cut between any two steps is the rest of the first plan. LVM is always told which devices to use
//! (those of the root volume's group), so a second disk with a group of the same name is never touched.

pub mod execute;
pub mod lvm;
pub mod plan;
pub mod status;

pub use lvm::{LoadError, Machine};
pub use plan::{Plan, Step};

/// Name of the thin pool.
pub const POOL: &str = "containers";
/// Name of the thin volume.
pub const VOLUME: &str = "containers-storage";
/// Where it is mounted.
pub const MOUNT: &str = "/var/lib/containers";
/// The unit that mounts it.
pub const MOUNT_UNIT: &str = "var-lib-containers.mount";
/// Tag of the volumes made by this module.
pub const TAG_OURS: &str = "slipway.storage";
/// Tag of the volume once its file system is complete.
pub const TAG_FORMATTED: &str = "slipway.formatted";
