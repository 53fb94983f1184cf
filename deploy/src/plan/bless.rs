//! Bless: the running deployment came up well.

use bootloader::{Counter, FIRST_TRIES};

use super::{Plan, Step, drop_other_entries, prune};
use crate::machine::Deployment;
use crate::state::{BadMark, BadMarks, FinalizeResult, State, StateFile};
use crate::{Machine, first};

/// What the planner is told about the boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Seconds since 1970.
    pub now: u64,
    /// The watchdog reset the machine before this boot.
    pub watchdog: bool,
}

/// Declares the running deployment good, notes which others failed, writes entries that are missing, and removes what
/// is no longer needed.
pub fn bless(machine: &Machine, facts: Facts) -> Plan {
    let mut steps = Vec::new();
    let mut after = machine.clone();
    if let Some(booted) = machine.booted_deployment() {
        bless_booted(machine, booted, &mut steps);
        if let Some(d) = after.deployments.iter_mut().find(|d| d.id == booted.id) {
            d.state.state = State::Good;
        }
    }
    mark_failed(machine, facts, &mut after, &mut steps);
    restore_entries(machine, &after, &mut steps);
    for deployment in &machine.deployments {
        cut_short(deployment, &mut steps);
    }
    steps.extend(prune(&after).steps);
    if steps.is_empty() {
        let label = machine.booted_deployment().map_or_else(|| machine.booted.deployment.short(), |d| d.label());
        return Plan::nothing(format!("{label} is good already"));
    }
    Plan::new("bless the running deployment", steps)
}

fn bless_booted(machine: &Machine, booted: &Deployment, steps: &mut Vec<Step>) {
    let plain = booted.id.entry_name(&machine.os).to_string();
    let has_plain = booted.entries.iter().any(|f| f.file == plain);
    let highest = booted.entries.iter().max_by_key(|f| f.entry.generation());
    let current = booted.entries.iter().find(|f| f.file == plain).and_then(|f| f.entry.generation());
    let generation = booted.generation().max(1);
    if booted.entries.is_empty() && booted.state.bootcsum.is_empty() {
        // Nothing is known of its kernel: a broken state file and no entry. `status` tells.
        return;
    }
    if !has_plain || current != Some(generation) {
        let entry = match highest {
            Some(found) => found.entry.clone(),
            None => first::entry(&machine.os, &booted.id, &booted.state, generation),
        };
        install_kernel(machine, booted, steps);
        if has_plain {
            // Both names exist and the counted one is newer (a rollback, then a crash). The plain name is not the only
            // one, so it may go first.
            steps.push(Step::RemoveEntry { file: plain.clone() });
        }
        steps.push(Step::WriteEntry { file: plain.clone(), entry });
    }
    drop_other_entries(booted, &plain, steps);
    if booted.state.state != State::Good || booted.state.generation != generation {
        let state = StateFile { state: State::Good, generation, reason: None, ..booted.state.clone() };
        steps.push(Step::WriteState { id: booted.id, state: Box::new(state) });
        steps.push(Step::Sync);
    }
}

fn install_kernel(machine: &Machine, deployment: &Deployment, steps: &mut Vec<Step>) {
    let bootcsum = &deployment.state.bootcsum;
    let planned = steps.iter().any(|s| matches!(s, Step::InstallKernel { bootcsum: b, .. } if b == bootcsum));
    if !planned && machine.kernels.get(bootcsum).is_none_or(|&size| size == 0) {
        let (bootcsum, commit) = (bootcsum.clone(), deployment.id.commit);
        steps.push(Step::InstallKernel { bootcsum, commit, size: 0 });
    }
}

/// A deployment that used up its tries and does not run has failed.
fn mark_failed(machine: &Machine, facts: Facts, after: &mut Machine, steps: &mut Vec<Step>) {
    let mut marks: BadMarks = machine.bad.clone();
    for deployment in &mut after.deployments {
        let failed = deployment.exhausted() && deployment.id != machine.booted.deployment;
        if !failed || deployment.state.state == State::Bad {
            continue;
        }
        let done = deployment.counter().map_or(0, |c| c.done);
        let mut reason = format!("it did not come up in {done} boots");
        if facts.watchdog {
            reason.push_str("; the watchdog reset the machine before this boot");
        }
        let mark = BadMark {
            version: deployment.state.version.clone(),
            reason: reason.clone(),
            at: facts.now,
            rest: Default::default(),
        };
        // The running commit is good, whatever another deployment of it did.
        if deployment.id.commit != machine.booted.commit {
            marks.commits.insert(deployment.id.commit.to_string(), mark);
        }
        deployment.state.state = State::Bad;
        deployment.state.reason = Some(reason);
        steps.push(Step::WriteState { id: deployment.id, state: Box::new(deployment.state.clone()) });
    }
    marks.commits.remove(&machine.booted.commit.to_string());
    if marks != machine.bad {
        after.bad = marks.clone();
        steps.push(Step::WriteBadMarks { marks });
        steps.push(Step::Sync);
    }
}

/// The state on the root file system is the truth: what has no entry and should have gets one.
fn restore_entries(machine: &Machine, after: &Machine, steps: &mut Vec<Step>) {
    for deployment in &after.deployments {
        let counter = match deployment.state.state {
            State::Good => None,
            State::Trial => Some(Counter::fresh(FIRST_TRIES)),
            State::Staged | State::Bad => continue,
        };
        let booted = deployment.id == machine.booted.deployment;
        if booted || !deployment.entries.is_empty() || deployment.state.bootcsum.is_empty() {
            continue;
        }
        install_kernel(machine, deployment, steps);
        let generation = deployment.state.generation.max(1);
        let entry = first::entry(&machine.os, &deployment.id, &deployment.state, generation);
        let file = deployment.id.entry_name(&machine.os).with(counter).to_string();
        steps.push(Step::WriteEntry { file, entry });
    }
}

/// A finalize that began and did not end: the shutdown was cut short.
fn cut_short(deployment: &Deployment, steps: &mut Vec<Step>) {
    let Some(record) = &deployment.state.finalize else { return };
    if deployment.state.state != State::Staged || record.result != FinalizeResult::Started {
        return;
    }
    let mut state = deployment.state.clone();
    if let Some(record) = &mut state.finalize {
        record.result = FinalizeResult::Failed;
        record.error = Some("the shutdown was cut short; the next one tries again".to_owned());
    }
    steps.push(Step::WriteState { id: deployment.id, state: Box::new(state) });
}
