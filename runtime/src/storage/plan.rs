//! What has to be done for container storage, as data.

use std::fmt;

use serde::Serialize;
use sys::Refused;

use super::{MOUNT, Machine, POOL, TAG_FORMATTED, TAG_OURS, VOLUME};

const MIB: u64 = 1 << 20;
/// Less free space than this is not worth a pool.
const SMALLEST: u64 = 512 * MIB;
/// Part of the free space the pool takes at first; dmeventd grows it into the rest.
const SHARE: u64 = 80;
/// Size of a chunk of the pool.
pub const CHUNK: u64 = 64 << 10;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Make the thin pool.
    CreatePool {
        /// Bytes for data.
        size: u64,
        /// Bytes for metadata (and as much again as a spare).
        metadata: u64,
    },
    /// Make the thin volume in the pool.
    CreateVolume {
        /// Bytes.
        size: u64,
    },
    /// Make the kernel know the volume, and with it the pool.
    Activate,
    /// Make an XFS file system on the volume. Only ever on a volume we made and never finished.
    Format,
    /// Remember that the file system is complete.
    MarkFormatted,
    /// Mount it.
    Mount,
}

/// All that has to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Name of the volume group.
    pub group: String,
    /// The devices LVM is told to use.
    pub devices: Vec<String>,
    /// In order.
    pub steps: Vec<Step>,
}

/// Compares the machine with what it should be.
pub fn plan(machine: &Machine) -> Result<Plan, Refused> {
    let mut steps = Vec::new();
    let pool_size = match &machine.pool {
        Some(pool) if pool.kind != "thin-pool" => {
            return Err(occupied(&machine.group, POOL, "thin pool", &pool.kind));
        }
        Some(pool) => pool.size,
        None => {
            let (size, metadata) = pool_sizes(machine)?;
            steps.push(Step::CreatePool { size, metadata });
            size
        }
    };
    match &machine.volume {
        Some(volume) if volume.kind != "thin" || volume.pool.as_deref() != Some(POOL) => {
            return Err(occupied(&machine.group, VOLUME, "thin volume of the pool `containers`", &volume.kind));
        }
        Some(volume) => {
            let has = |tag: &str| volume.tags.iter().any(|t| t == tag);
            if !volume.active {
                steps.push(Step::Activate);
            }
            if has(TAG_OURS) && !has(TAG_FORMATTED) {
                // Made by us, never finished, so never mounted: a half-made file system holds nothing.
                steps.extend([Step::Format, Step::MarkFormatted]);
            } else if volume.active && machine.file_system.as_deref() != Some("xfs") {
                let found = machine.file_system.as_deref().unwrap_or("no file system");
                return Err(Refused::with_hint(
                    format!(
                        "volume `{VOLUME}` in group `{}` should have an XFS file system and has {found}",
                        machine.group
                    ),
                    format!("remove it if nothing on it is needed: lvremove {}/{VOLUME}", machine.group),
                ));
            }
        }
        // A new volume is active as soon as it is there.
        None => steps.extend([Step::CreateVolume { size: pool_size }, Step::Format, Step::MarkFormatted]),
    }
    match &machine.mounted {
        None => steps.push(Step::Mount),
        Some(device) if is_ours(device, machine) => {}
        Some(device) => {
            return Err(Refused::with_hint(
                format!("{device} is mounted on {MOUNT}"),
                "leave storage to it, and mask slipway-storage.service; or remove that mount and run this again",
            ));
        }
    }
    Ok(Plan { group: machine.group.clone(), devices: machine.devices.clone(), steps })
}

fn occupied(group: &str, name: &str, wanted: &str, kind: &str) -> Refused {
    Refused::with_hint(
        format!("volume `{name}` in group `{group}` is no {wanted} but of type {kind}"),
        format!("rename it (lvrename {group}/{name} NEW-NAME) and run this again"),
    )
}

/// device-mapper doubles dashes in names and joins them with one.
fn is_ours(device: &str, machine: &Machine) -> bool {
    let mapper = format!("/dev/mapper/{}-{}", machine.group.replace('-', "--"), VOLUME.replace('-', "--"));
    device == mapper || device == machine.device(VOLUME)
}

/// Sizes of the pool's data and metadata.
fn pool_sizes(machine: &Machine) -> Result<(u64, u64), Refused> {
    if machine.free < SMALLEST {
        return Err(Refused::with_hint(
            format!(
                "group `{}` has {} free, too little for container storage ({} at least); containers use the root volume",
                machine.group,
                size(machine.free),
                size(SMALLEST)
            ),
            format!("add a disk (vgextend {} DEVICE) and run `host storage setup`", machine.group),
        ));
    }
    let extents = |bytes: u64| bytes.div_ceil(machine.extent) * machine.extent;
    // 64 bytes for each chunk, with room for the pool to grow to all that is free, and for snapshots.
    let metadata = extents((machine.free / CHUNK * 64 * 2).clamp(4 * MIB, 16 << 30));
    let share = machine.free / 100 * SHARE;
    let data = share.saturating_sub(2 * metadata) / machine.extent * machine.extent;
    Ok((data, metadata))
}

/// A size as a person reads it.
pub fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{}.{} GiB", b >> 30, ((b % (1 << 30)) * 10) >> 30),
        b => format!("{} MiB", b >> 20),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return writeln!(f, "container storage is complete; nothing to do");
        }
        writeln!(f, "container storage in group {} ({})", self.group, self.devices.join(", "))?;
        for (number, step) in self.steps.iter().enumerate() {
            let number = number + 1;
            match step {
                Step::CreatePool { size: s, metadata } => {
                    writeln!(f, "{number:2} pool        {POOL}: {}, metadata {}", size(*s), size(*metadata))?;
                }
                Step::CreateVolume { size: s } => writeln!(f, "{number:2} volume      {VOLUME}: {}", size(*s))?,
                Step::Activate => writeln!(f, "{number:2} activate    {VOLUME}")?,
                Step::Format => writeln!(f, "{number:2} format      {VOLUME} as xfs")?,
                Step::MarkFormatted => writeln!(f, "{number:2} mark        {VOLUME} as formatted")?,
                Step::Mount => writeln!(f, "{number:2} mount       {MOUNT}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::lvm::Volume;
    use super::*;

    fn fresh() -> Machine {
        Machine {
            group: "host".to_owned(),
            devices: vec!["/dev/vda3".to_owned()],
            extent: 4 << 20,
            free: 5364514816,
            size: 7511998464,
            pool: None,
            volume: None,
            file_system: None,
            mounted: None,
        }
    }

    fn volume(kind: &str, pool: Option<&str>, size: u64, tags: &[&str]) -> Volume {
        Volume {
            size,
            kind: kind.to_owned(),
            pool: pool.map(str::to_owned),
            active: true,
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            data: None,
            metadata: None,
            monitored: true,
        }
    }

    /// What a step does to a machine.
    fn apply(machine: &mut Machine, step: &Step) {
        match step {
            Step::CreatePool { size, metadata } => {
                machine.free -= size + 2 * metadata;
                machine.pool = Some(volume("thin-pool", None, *size, &[TAG_OURS]));
            }
            Step::CreateVolume { size } => machine.volume = Some(volume("thin", Some(POOL), *size, &[TAG_OURS])),
            Step::Activate => {
                let volume = machine.volume.as_mut().unwrap();
                volume.active = true;
                machine.file_system = volume.tags.iter().any(|t| t == TAG_FORMATTED).then(|| "xfs".to_owned());
            }
            Step::Format => machine.file_system = Some("xfs".to_owned()),
            Step::MarkFormatted => machine.volume.as_mut().unwrap().tags.push(TAG_FORMATTED.to_owned()),
            Step::Mount => machine.mounted = Some("/dev/mapper/host-containers--storage".to_owned()),
        }
    }

    #[test]
    fn the_plan_of_a_first_boot() {
        assert_eq!(
            plan(&fresh()).unwrap().to_string(),
            "container storage in group host (/dev/vda3)
 1 pool        containers: 3.9 GiB, metadata 12 MiB
 2 volume      containers-storage: 3.9 GiB
 3 format      containers-storage as xfs
 4 mark        containers-storage as formatted
 5 mount       /var/lib/containers
"
        );
    }

    #[test]
    fn after_a_power_cut_between_any_two_steps_the_rest_of_the_plan_is_left() {
        let whole = plan(&fresh()).unwrap();
        for done in 0..=whole.steps.len() {
            let mut machine = fresh();
            whole.steps[..done].iter().for_each(|step| apply(&mut machine, step));
            // After the reboot nothing is mounted, and the volume may or may not be active yet.
            for active in [true, false] {
                let mut machine = machine.clone();
                machine.mounted = None;
                if let Some(volume) = &mut machine.volume {
                    volume.active = active;
                }
                if !active {
                    machine.file_system = None;
                }
                let rest = plan(&machine).unwrap();
                rest.steps.iter().for_each(|step| apply(&mut machine, step));
                assert_eq!(plan(&machine).unwrap().steps, [], "{done} {active}");
                let formats = rest.steps.contains(&Step::Format);
                assert_eq!(formats, done < 4, "a finished file system is never made again ({done} {active})");
            }
        }
    }

    #[test]
    fn a_complete_machine_needs_nothing_and_the_plan_says_so() {
        let mut machine = fresh();
        plan(&machine).unwrap().steps.iter().for_each(|step| apply(&mut machine, step));
        assert_eq!(plan(&machine).unwrap().to_string(), "container storage is complete; nothing to do\n");
    }

    #[test]
    fn what_we_did_not_make_is_never_formatted() {
        let mut machine = fresh();
        machine.pool = Some(volume("thin-pool", None, 1 << 30, &[]));
        machine.volume = Some(volume("thin", Some(POOL), 1 << 30, &[]));
        assert!(plan(&machine).unwrap_err().reason.contains("no file system"));
        machine.file_system = Some("ext4".to_owned());
        assert!(plan(&machine).unwrap_err().reason.contains("has ext4"));
        machine.file_system = Some("xfs".to_owned());
        assert_eq!(plan(&machine).unwrap().steps, [Step::Mount]);
    }

    #[test]
    fn names_that_are_taken_are_refused() {
        let mut machine = fresh();
        machine.pool = Some(volume("linear", None, 1 << 30, &[]));
        assert!(plan(&machine).unwrap_err().reason.contains("no thin pool"));
        let mut machine = fresh();
        machine.volume = Some(volume("linear", None, 1 << 30, &[]));
        assert!(plan(&machine).unwrap_err().reason.contains("of type linear"));
        let mut machine = fresh();
        machine.mounted = Some("/dev/sdb1".to_owned());
        assert!(plan(&machine).unwrap_err().reason.contains("/dev/sdb1 is mounted"));
    }

    #[test]
    fn a_small_disk_is_refused_and_told_why() {
        let refused = plan(&Machine { free: 100 << 20, ..fresh() }).unwrap_err();
        assert!(refused.reason.contains("100 MiB free"), "{}", refused.reason);
    }

    proptest::proptest! {
        #[test]
        fn the_pool_always_fits(free in SMALLEST..(64u64 << 40), shift in 20u32..28) {
            let extent = 1u64 << shift;
            let machine = Machine { free: free / extent * extent, extent, ..fresh() };
            proptest::prop_assume!(machine.free >= SMALLEST);
            let (data, metadata) = pool_sizes(&machine).unwrap();
            proptest::prop_assert!(data + 2 * metadata <= machine.free);
            proptest::prop_assert!(data % extent == 0 && metadata % extent == 0 && metadata >= 4 * MIB);
        }
    }
}
