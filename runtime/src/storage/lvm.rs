//! What LVM says about the volume group that holds the root file system.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Deserialize;
use sys::Cmd;

use super::{MOUNT, POOL, VOLUME};

/// The machine's volume group, as far as container storage is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Name of the group.
    pub group: String,
    /// Devices of the group: the only ones LVM is told to look at.
    pub devices: Vec<String>,
    /// Bytes in an extent.
    pub extent: u64,
    /// Unused bytes.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
    /// The thin pool, if it is there.
    pub pool: Option<Volume>,
    /// The thin volume, if it is there.
    pub volume: Option<Volume>,
    /// File system on the volume, where it is active and has one.
    pub file_system: Option<String>,
    /// Something is mounted on `/var/lib/containers`, and this is its device.
    pub mounted: Option<String>,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes; for a pool, those for data.
    pub size: u64,
    /// `thin-pool`, `thin`, `linear` …
    pub kind: String,
    /// Its pool.
    pub pool: Option<String>,
    /// The kernel has it.
    pub active: bool,
    /// Tags.
    pub tags: Vec<String>,
    /// How full it is, in hundredths of a percent.
    pub data: Option<u32>,
    /// How full a pool's metadata is, in hundredths of a percent.
    pub metadata: Option<u32>,
    /// dmeventd watches it.
    pub monitored: bool,
}

/// Why the machine's storage cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The root file system is not on LVM.
    #[error("{0} is not on a logical volume")]
    NotLvm(String),
    /// LVM does not know the group of the root volume.
    #[error("LVM does not show the volume group with the id {0}, which holds the root file system")]
    NoGroup(String),
    /// Something did not answer.
    #[error(transparent)]
    Cmd(#[from] sys::CmdError),
    /// LVM's report is not understood.
    #[error("the report of {0} is not understood: {1}")]
    Report(&'static str, String),
    /// Something cannot be read.
    #[error("reading {0}")]
    Io(String, #[source] std::io::Error),
}

/// The id of the volume group that holds the file system at `sysroot`, without dashes, as device-mapper knows it.
///
/// Names do not identify a group: the disk of another machine has a group of the same name.
pub fn root_group(sysroot: &Path) -> Result<String, LoadError> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |e| LoadError::Io(path, e)
    };
    let device = std::fs::metadata(sysroot).map_err(io(sysroot))?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/dm/uuid");
    match std::fs::read_to_string(&path) {
        Ok(text) => group_of_dm_uuid(text.trim()).ok_or_else(|| LoadError::NotLvm(sysroot.display().to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(LoadError::NotLvm(sysroot.display().to_string())),
        Err(e) => Err(io(Path::new(&path))(e)),
    }
}

/// `LVM-` and two ids of 32 characters, perhaps followed by a suffix.
fn group_of_dm_uuid(uuid: &str) -> Option<String> {
    let ids = uuid.strip_prefix("LVM-")?;
    let group = ids.get(..32)?;
    (ids.len() >= 64 && group.chars().all(|c| c.is_ascii_alphanumeric())).then(|| group.to_owned())
}

const REPORT: [&str; 5] = ["--reportformat", "json", "--units", "b", "--nosuffix"];

/// Reads the state of the machine.
pub fn load() -> Result<Machine, LoadError> {
    let id = root_group(Path::new("/sysroot"))?;
    let run = |program: &str, fields: &str, more: &[String]| {
        let cmd = Cmd::new(program).env("LC_ALL", "C").args(REPORT).args(["-o", fields]).args(more);
        Ok::<_, LoadError>(cmd.run()?.text())
    };
    let groups = run("pvs", "pv_name,vg_name,vg_uuid,vg_size,vg_free,vg_extent_size", &[])?;
    let only: Vec<String> = devices(&groups, &id)?.iter().map(|d| format!("--devices={d}")).collect();
    let fields = "vg_uuid,lv_name,lv_size,segtype,pool_lv,lv_active,lv_tags,data_percent,metadata_percent,seg_monitor";
    let volumes = run("lvs", fields, &only)?;
    let mut machine = parse(&id, &groups, &volumes)?;
    if machine.volume.as_ref().is_some_and(|v| v.active) {
        machine.file_system = file_system(&machine.device(VOLUME))?;
    }
    let mounts =
        std::fs::read_to_string("/proc/self/mounts").map_err(|e| LoadError::Io("/proc/self/mounts".into(), e))?;
    machine.mounted = mounted(&mounts, MOUNT);
    Ok(machine)
}

impl Machine {
    /// The device file of a volume of the group.
    pub fn device(&self, volume: &str) -> String {
        format!("/dev/{}/{volume}", self.group)
    }
}

/// What blkid finds on a device; it ends with 2 where there is nothing.
fn file_system(device: &str) -> Result<Option<String>, LoadError> {
    let cmd = Cmd::new("blkid").args(["-p", "-o", "value", "-s", "TYPE"]).arg(device);
    let output = cmd.output()?;
    match output.code {
        0 => Ok(Some(output.text()).filter(|t| !t.is_empty())),
        2 => Ok(None),
        code => {
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(sys::CmdError::Failed { line: cmd.line(), code, stderr }.into())
        }
    }
}

/// The device of the last mount on `target`.
fn mounted(mounts: &str, target: &str) -> Option<String> {
    let mut of_target = mounts.lines().rev().filter_map(|line| {
        let mut words = line.split(' ');
        let device = words.next()?;
        (words.next()? == target).then(|| device.to_owned())
    });
    of_target.next()
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Sections>,
}

#[derive(Deserialize)]
struct Sections {
    #[serde(default)]
    pv: Vec<Physical>,
    #[serde(default)]
    lv: Vec<Logical>,
}

#[derive(Deserialize)]
struct Physical {
    pv_name: String,
    vg_name: String,
    vg_uuid: String,
    vg_size: String,
    vg_free: String,
    vg_extent_size: String,
}

#[derive(Deserialize)]
struct Logical {
    vg_uuid: String,
    lv_name: String,
    lv_size: String,
    segtype: String,
    pool_lv: String,
    lv_active: String,
    lv_tags: String,
    data_percent: String,
    metadata_percent: String,
    seg_monitor: String,
}

fn sections(program: &'static str, json: &str) -> Result<Vec<Sections>, LoadError> {
    let report: Report = serde_json::from_str(json).map_err(|e| LoadError::Report(program, e.to_string()))?;
    Ok(report.report)
}

/// The devices of the group.
fn devices(json: &str, id: &str) -> Result<Vec<String>, LoadError> {
    let mut devices: Vec<String> = sections("pvs", json)?
        .into_iter()
        .flat_map(|s| s.pv)
        .filter(|p| p.vg_uuid.replace('-', "") == id)
        .map(|p| p.pv_name)
        .collect();
    devices.sort();
    if devices.is_empty() { Err(LoadError::NoGroup(id.to_owned())) } else { Ok(devices) }
}

/// Makes sense of LVM's reports.
fn parse(id: &str, groups: &str, volumes: &str) -> Result<Machine, LoadError> {
    let bytes = |program, text: &str| {
        text.parse::<u64>().map_err(|_| LoadError::Report(program, format!("`{text}` is not a number of bytes")))
    };
    let devices = devices(groups, id)?;
    let group = sections("pvs", groups)?
        .into_iter()
        .flat_map(|s| s.pv)
        .find(|g| g.vg_uuid.replace('-', "") == id)
        .ok_or_else(|| LoadError::NoGroup(id.to_owned()))?;
    let mut machine = Machine {
        extent: bytes("pvs", &group.vg_extent_size)?,
        free: bytes("pvs", &group.vg_free)?,
        size: bytes("pvs", &group.vg_size)?,
        group: group.vg_name,
        devices,
        pool: None,
        volume: None,
        file_system: None,
        mounted: None,
    };
    if machine.extent == 0 {
        return Err(LoadError::Report("pvs", "an extent has no size".to_owned()));
    }
    for lv in sections("lvs", volumes)?.into_iter().flat_map(|s| s.lv) {
        if lv.vg_uuid.replace('-', "") != id || (lv.lv_name != POOL && lv.lv_name != VOLUME) {
            continue;
        }
        let volume = Volume {
            size: bytes("lvs", &lv.lv_size)?,
            kind: lv.segtype,
            pool: Some(lv.pool_lv).filter(|p| !p.is_empty()),
            active: lv.lv_active == "active",
            tags: lv.lv_tags.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect(),
            data: hundredths(&lv.data_percent),
            metadata: hundredths(&lv.metadata_percent),
            monitored: lv.seg_monitor == "monitored",
        };
        *(if lv.lv_name == POOL { &mut machine.pool } else { &mut machine.volume }) = Some(volume);
    }
    Ok(machine)
}

/// `12.34` percent; LVM prints nothing where it does not know.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let part = format!("{part:0<2}");
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part.get(..2)?.parse().ok()?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const ID: &str = "cUqdps3aCiIdLpo7YZbkQ0uVMoRasn3C";
    pub const GROUPS: &str = r#"{"report":[{"pv":[
        {"pv_name":"/dev/vda3","vg_name":"host","vg_uuid":"cUqdps-3aCi-IdLp-o7YZ-bkQ0-uVMo-Rasn3C","vg_size":"7511998464","vg_free":"5364514816","vg_extent_size":"4194304"},
        {"pv_name":"/dev/vdb3","vg_name":"host","vg_uuid":"zzzzzz-3aCi-IdLp-o7YZ-bkQ0-uVMo-Rasn3C","vg_size":"1","vg_free":"1","vg_extent_size":"1"},
        {"pv_name":"/dev/vdc","vg_name":"","vg_uuid":"","vg_size":"0 ","vg_free":"0","vg_extent_size":"0"}]}],"log":[]}"#;
    const VOLUMES: &str = r#"{"report":[{"lv":[
        {"vg_uuid":"cUqdps-3aCi-IdLp-o7YZ-bkQ0-uVMo-Rasn3C","lv_name":"containers","lv_size":"4290772992","segtype":"thin-pool","pool_lv":"","lv_active":"active","lv_tags":"slipway.storage","data_percent":"1.05","metadata_percent":"10.9","seg_monitor":"monitored"},
        {"vg_uuid":"cUqdps-3aCi-IdLp-o7YZ-bkQ0-uVMo-Rasn3C","lv_name":"containers-storage","lv_size":"4290772992","segtype":"thin","pool_lv":"containers","lv_active":"","lv_tags":"a,slipway.storage","data_percent":"","metadata_percent":"","seg_monitor":""},
        {"vg_uuid":"zzzzzz-3aCi-IdLp-o7YZ-bkQ0-uVMo-Rasn3C","lv_name":"containers","lv_size":"1","segtype":"linear","pool_lv":"","lv_active":"active","lv_tags":"","data_percent":"","metadata_percent":"","seg_monitor":""},
        {"vg_uuid":"cUqdps-3aCi-IdLp-o7YZ-bkQ0-uVMo-Rasn3C","lv_name":"root","lv_size":"2147483648","segtype":"linear","pool_lv":"","lv_active":"active","lv_tags":"","data_percent":"","metadata_percent":"","seg_monitor":""}]}],"log":[]}"#;

    #[test]
    fn only_the_group_of_the_root_counts_whatever_its_name() {
        let machine = parse(ID, GROUPS, VOLUMES).unwrap();
        assert_eq!(machine.devices, ["/dev/vda3"]);
        assert_eq!((machine.size, machine.free, machine.extent), (7511998464, 5364514816, 4194304));
        let pool = machine.pool.unwrap();
        assert_eq!((pool.kind.as_str(), pool.data, pool.metadata), ("thin-pool", Some(105), Some(1090)));
        assert!(pool.active && pool.monitored);
        let volume = machine.volume.unwrap();
        assert_eq!((volume.active, volume.pool.as_deref(), volume.data), (false, Some("containers"), None));
        assert_eq!(volume.tags, ["a", "slipway.storage"]);
    }

    #[test]
    fn a_group_lvm_does_not_show_is_an_error() {
        assert!(matches!(parse("other", GROUPS, VOLUMES), Err(LoadError::NoGroup(_))));
        assert!(matches!(devices("{\"report\":[]}", ID), Err(LoadError::NoGroup(_))));
        assert!(matches!(devices("not json", ID), Err(LoadError::Report("pvs", _))));
    }

    #[test]
    fn device_mapper_names_the_group() {
        let id = "a".repeat(32);
        assert_eq!(group_of_dm_uuid(&format!("LVM-{id}{}", "b".repeat(32))), Some(id.clone()));
        assert_eq!(group_of_dm_uuid(&format!("LVM-{id}{}-tpool", "b".repeat(32))), Some(id));
        for other in ["", "CRYPT-LUKS2-x", "LVM-short", "mpath-x"] {
            assert_eq!(group_of_dm_uuid(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_mount_counts() {
        let mounts = "a /var/lib/containers xfs rw 0 0\nb /var/lib/containers xfs rw 0 0\nc /var ext4 rw 0 0\n";
        assert_eq!(mounted(mounts, MOUNT).as_deref(), Some("b"));
        assert_eq!(mounted("c /var ext4 rw 0 0\n", MOUNT), None);
    }

    #[test]
    fn percentages() {
        for (text, value) in
            [("0.00", Some(0)), ("1.5", Some(150)), ("100.00", Some(10000)), ("7", Some(700)), ("", None)]
        {
            assert_eq!(hundredths(text), value, "{text}");
        }
    }
}
