//! Stage: everything but `/etc` and the switch.

use store::Checksum;

use super::prune::prune;
use super::{Plan, Refusal, Step};
use crate::state::{State, StateFile};
use crate::{DeploymentId, Machine, json};

/// Room left alone on the root file system: a full disk makes a machine unwell.
const ROOT_MARGIN: u64 = 32 << 20;
/// Room on the ESP for entries, directories and cluster rounding.
const ESP_MARGIN: u64 = 1 << 20;

/// A commit that was pulled, and everything about it that a plan needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The commit.
    pub commit: Checksum,
    /// The stateroot it is made for.
    pub os: String,
    /// Its version.
    pub version: Option<String>,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// The ref it came by.
    pub ref_name: Option<String>,
    /// Where it came from.
    pub url: Option<String>,
    /// The trusted key that signed it, base64.
    pub signer: Option<String>,
    /// The title of its entry.
    pub title: String,
    /// Its kernel's directory.
    pub bootcsum: String,
    /// Bytes of kernel and initramfs.
    pub kernel_size: u64,
    /// Bytes of the EROFS image.
    pub image_size: u64,
    /// Bytes of its `/etc`.
    pub etc_size: u64,
    /// The digest its commit names.
    pub digest: Option<String>,
    /// The tree's kernel arguments.
    pub kargs: Vec<String>,
    /// What its `/etc` and the live one cannot agree on.
    pub etc_conflicts: Vec<String>,
}

/// Whether an older commit may be staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downgrade {
    /// It may.
    Allow,
    /// It may not.
    Refuse,
}

/// Whether a commit that failed here may be staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It may, and is forgiven.
    Allow,
    /// It may not.
    Refuse,
}

impl Target {
    fn label(&self) -> String {
        self.version.clone().unwrap_or_else(|| self.commit.to_string()[..10].to_owned())
    }
}

/// Stages `target` beside what is there.
pub fn stage(machine: &Machine, target: &Target, downgrade: Downgrade, bad: Bad) -> Result<Plan, Refusal> {
    let label = target.label();
    let same = machine.all_staged().filter(|d| d.id.commit == target.commit).min_by_key(|d| d.state.hold);
    if let Some(same) = same {
        let mut steps = Vec::new();
        hold_others(machine, Some(same.id), &mut steps);
        if same.state.hold {
            let state = StateFile { hold: false, ..same.state.clone() };
            steps.push(Step::WriteState { id: same.id, state: Box::new(state) });
        }
        remove_others(machine, Some(same.id), &mut steps);
        if steps.is_empty() {
            return Ok(Plan::nothing(format!("{label} is staged already; it boots at the next `host reboot`")));
        }
        steps.push(Step::Sync);
        return Ok(Plan::new(format!("stage {label} again"), steps));
    }
    let boots_next = machine.default().is_some_and(|d| d.id.commit == target.commit && d.bootable());
    if boots_next && machine.staged().is_none_or(|s| s.state.hold) {
        return Ok(Plan::nothing(if machine.booted.commit == target.commit {
            format!("{label} runs already")
        } else {
            format!("{label} boots next already")
        }));
    }
    let commit = target.commit.to_string();
    let mut marks = machine.bad.clone();
    if let Some(mark) = marks.commits.remove(&commit) {
        if bad == Bad::Refuse {
            return Err(Refusal::MarkedBad { label, reason: mark.reason });
        }
    }
    if target.os != machine.os {
        return Err(Refusal::OtherOs { tree: target.os.clone(), machine: machine.os.clone() });
    }
    if target.digest.is_none() && machine.booted.level != "unverified" {
        return Err(Refusal::NoDigest(label));
    }
    if let Some(running) = machine.booted_deployment() {
        if downgrade == Downgrade::Refuse && target.timestamp < running.state.timestamp {
            return Err(Refusal::Downgrade { offered: label, running: running.label() });
        }
    }
    if !target.etc_conflicts.is_empty() {
        return Err(Refusal::Etc(target.etc_conflicts.clone()));
    }
    check_space(machine, target)?;

    let id = DeploymentId { commit: target.commit, serial: machine.next_serial(&target.commit) };
    let state = StateFile {
        format: json::FORMAT.to_owned(),
        state: State::Staged,
        pinned: false,
        version: target.version.clone(),
        ref_name: target.ref_name.clone(),
        url: target.url.clone(),
        signer: target.signer.clone(),
        title: target.title.clone(),
        bootcsum: target.bootcsum.clone(),
        kargs: target.kargs.clone(),
        generation: 0,
        digest: target.digest.clone(),
        timestamp: target.timestamp,
        hold: false,
        reason: None,
        finalize: None,
        rest: Default::default(),
    };
    let mut steps =
        vec![Step::KeepCommit { id }, Step::WriteImage { id, digest: target.digest.clone(), size: target.image_size }];
    if !has_kernel(machine, target) {
        steps.push(Step::InstallKernel {
            bootcsum: target.bootcsum.clone(),
            commit: target.commit,
            size: target.kernel_size,
        });
    }
    steps.push(Step::WriteOrigin { id, ref_name: target.ref_name.clone() });
    // The state file is what makes it a deployment: everything it stands for must be on disk.
    steps.push(Step::Sync);
    hold_others(machine, None, &mut steps);
    steps.push(Step::WriteState { id, state: Box::new(state) });
    steps.push(Step::Sync);
    if marks != machine.bad {
        steps.push(Step::WriteBadMarks { marks });
    }
    remove_others(machine, None, &mut steps);
    let from = machine.booted_deployment().map_or_else(|| machine.booted.deployment.short(), |d| d.label());
    Ok(Plan::new(format!("stage {label} (running {from})"), steps))
}

/// One switch at a time: what was staged before must not be switched to from here on.
fn hold_others(machine: &Machine, keep: Option<DeploymentId>, steps: &mut Vec<Step>) {
    for old in machine.all_staged().filter(|d| Some(d.id) != keep && !d.state.hold) {
        let state = StateFile { hold: true, ..old.state.clone() };
        steps.push(Step::WriteState { id: old.id, state: Box::new(state) });
    }
}

fn remove_others(machine: &Machine, keep: Option<DeploymentId>, steps: &mut Vec<Step>) {
    for old in machine.all_staged().filter(|d| Some(d.id) != keep) {
        steps.push(Step::RemoveDeployment { id: old.id });
    }
}

fn has_kernel(machine: &Machine, target: &Target) -> bool {
    machine.kernels.get(&target.bootcsum).is_some_and(|&size| size > 0)
}

fn check_space(machine: &Machine, target: &Target) -> Result<(), Refusal> {
    let esp_needed = if has_kernel(machine, target) { 64 << 10 } else { target.kernel_size + ESP_MARGIN };
    if machine.esp_space.free < esp_needed {
        let removable = prune(machine)
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::RemoveKernel { bootcsum } => machine.kernels.get(bootcsum),
                _ => None,
            })
            .sum();
        return Err(Refusal::NoSpace {
            place: "the EFI system partition",
            needed: esp_needed,
            free: machine.esp_space.free,
            removable,
        });
    }
    let root_needed = target.image_size + 2 * target.etc_size + ROOT_MARGIN;
    if machine.root_space.free < root_needed {
        return Err(Refusal::NoSpace {
            place: "the root file system",
            needed: root_needed,
            free: machine.root_space.free,
            removable: 0,
        });
    }
    Ok(())
}
