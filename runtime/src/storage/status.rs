//! What `host storage status` shows.

use serde::Serialize;

use super::plan::size;
use super::{MOUNT, Machine, POOL, VOLUME, lvm::Volume};

/// State of container storage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Version of this form.
    pub format: &'static str,
    /// `ready`, `incomplete` (run `host storage setup`) or `low` (little room left).
    pub state: &'static str,
    /// Name of the volume group.
    pub group: String,
    /// Bytes in the group.
    pub size: u64,
    /// Bytes the pool can still grow by.
    pub free: u64,
    /// The pool.
    pub pool: Option<Pool>,
    /// Bytes of the volume.
    pub volume_size: Option<u64>,
    /// Its file system.
    pub file_system: Option<String>,
    /// The device that is mounted.
    pub mounted: Option<String>,
}

/// State of the pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pool {
    /// Bytes for data.
    pub size: u64,
    /// How full it is, in percent.
    pub data_percent: Option<f64>,
    /// How full its metadata is, in percent.
    pub metadata_percent: Option<f64>,
    /// dmeventd watches it, and grows it when it fills up.
    pub monitored: bool,
}

/// From what LVM says.
pub fn status(machine: &Machine) -> Status {
    let full = |v: &Volume| v.data.into_iter().chain(v.metadata).any(|p| p > 9000);
    let state = match (&machine.pool, &machine.mounted) {
        (Some(pool), Some(_)) if full(pool) => "low",
        (Some(_), Some(_)) if machine.volume.is_some() => "ready",
        _ => "incomplete",
    };
    Status {
        format: "1.0",
        state,
        group: machine.group.clone(),
        size: machine.size,
        free: machine.free,
        pool: machine.pool.as_ref().map(|pool| Pool {
            size: pool.size,
            data_percent: pool.data.map(percent),
            metadata_percent: pool.metadata.map(percent),
            monitored: pool.monitored,
        }),
        volume_size: machine.volume.as_ref().map(|v| v.size),
        file_system: machine.file_system.clone(),
        mounted: machine.mounted.clone(),
    }
}

fn percent(hundredths: u32) -> f64 {
    f64::from(hundredths) / 100.0
}

/// As a person reads it.
pub fn text(status: &Status) -> String {
    let mut lines = vec![format!("container storage: {}", status.state)];
    if status.state == "incomplete" {
        lines.push("  run `host storage setup`".to_owned());
    }
    lines.push(format!("  group   {}: {}, {} free", status.group, size(status.size), size(status.free)));
    if let Some(pool) = &status.pool {
        let used = pool.data_percent.map(|p| format!(", {p:.1} % used")).unwrap_or_default();
        let metadata = pool.metadata_percent.map(|p| format!(", metadata {p:.1} %")).unwrap_or_default();
        let monitored = if pool.monitored { ", grows by itself" } else { ", not monitored" };
        lines.push(format!("  pool    {POOL}: {}{used}{metadata}{monitored}", size(pool.size)));
    }
    if let Some(bytes) = status.volume_size {
        let kind = status.file_system.as_deref().unwrap_or("not formatted");
        let mounted =
            if status.mounted.is_some() { format!(", mounted on {MOUNT}") } else { ", not mounted".to_owned() };
        lines.push(format!("  volume  {VOLUME}: {}, {kind}{mounted}", size(bytes)));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_machine() {
        let volume = |kind: &str, pool: Option<&str>| Volume {
            size: 4 << 30,
            kind: kind.to_owned(),
            pool: pool.map(str::to_owned),
            active: true,
            tags: Vec::new(),
            data: Some(123),
            metadata: Some(1090),
            monitored: true,
        };
        let mut machine = Machine {
            group: "host".to_owned(),
            devices: Vec::new(),
            extent: 4 << 20,
            free: 1 << 30,
            size: 7 << 30,
            pool: Some(volume("thin-pool", None)),
            volume: Some(volume("thin", Some(POOL))),
            file_system: Some("xfs".to_owned()),
            mounted: Some("/dev/mapper/host-containers--storage".to_owned()),
        };
        assert_eq!(
            text(&status(&machine)),
            "container storage: ready
  group   host: 7.0 GiB, 1.0 GiB free
  pool    containers: 4.0 GiB, 1.2 % used, metadata 10.9 %, grows by itself
  volume  containers-storage: 4.0 GiB, xfs, mounted on /var/lib/containers
"
        );
        machine.mounted = None;
        assert_eq!(status(&machine).state, "incomplete");
        machine.mounted = Some(String::new());
        machine.pool.as_mut().unwrap().data = Some(9100);
        assert_eq!(status(&machine).state, "low");
    }
}
