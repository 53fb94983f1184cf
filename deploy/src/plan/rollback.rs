//! Going back: rollback, reject, and switching to any deployment that is complete.

use bootloader::{Counter, FIRST_TRIES};

use super::{Plan, Refusal, Step, drop_other_entries, fresh_name};
use crate::machine::Deployment;
use crate::state::{BadMark, State, StateFile};
use crate::{DeploymentId, Machine, first};

/// What becomes of a staged deployment when the operator goes somewhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// It stays on the disk and is not switched to until an upgrade says so.
    Hold,
    /// It is removed.
    Drop,
}

/// Makes the other deployment boot first.
pub fn rollback(machine: &Machine, staged: Staged) -> Result<Plan, Refusal> {
    let target = machine.rollback().ok_or(Refusal::NoRollback)?;
    switch_to(machine, &target.id, staged)
}

/// Makes a complete deployment boot first.
pub fn switch_to(machine: &Machine, id: &DeploymentId, staged: Staged) -> Result<Plan, Refusal> {
    let target = machine.get(id).ok_or_else(|| Refusal::Unknown(id.short()))?;
    if target.state.state == State::Staged {
        return Err(Refusal::Unfinished(target.label()));
    }
    let mut steps = Vec::new();
    let first_now = machine.default().is_some_and(|d| d.id == *id && d.bootable());
    let keep = if first_now { target.entries.first().map(|f| f.file.clone()) } else { None };
    match keep {
        // A crash after the switch: only the older entry is left to remove.
        Some(file) => drop_other_entries(target, &file, &mut steps),
        None => {
            if machine.kernels.get(&target.state.bootcsum).is_none_or(|&size| size == 0) {
                let bootcsum = target.state.bootcsum.clone();
                steps.push(Step::InstallKernel { bootcsum, commit: id.commit, size: 0 });
                steps.push(Step::Sync);
            }
            // The plain name is in use and may not be rewritten; the counted one is blessed when it has come up.
            let counter = Counter::fresh(FIRST_TRIES);
            let file = fresh_name(target, &machine.os, Some(counter)).to_string();
            let generation = machine.next_generation();
            let entry = match target.entries.first() {
                Some(found) => found.entry.clone().with("version", &generation.to_string()),
                None => first::entry(&machine.os, id, &target.state, generation),
            };
            steps.push(Step::WriteEntry { file: file.clone(), entry });
            drop_other_entries(target, &file, &mut steps);
        }
    }
    if let Some(waiting) = machine.staged() {
        match staged {
            Staged::Hold if !waiting.state.hold => {
                let state = StateFile { hold: true, ..waiting.state.clone() };
                // Before the switch: a shutdown in between must not put the staged one above it.
                steps.insert(0, Step::WriteState { id: waiting.id, state: Box::new(state) });
            }
            Staged::Drop => steps.insert(0, Step::RemoveDeployment { id: waiting.id }),
            Staged::Hold => {}
        }
    }
    if steps.is_empty() {
        return Ok(Plan::nothing(format!("{} boots next already", target.label())));
    }
    steps.push(Step::Sync);
    Ok(Plan::new(format!("boot {} next", target.label()), steps))
}

/// Marks the running deployment bad and lets the loader sort it last.
pub fn reject(machine: &Machine, reason: &str, now: u64) -> Result<Plan, Refusal> {
    let booted = machine.booted_deployment().ok_or_else(|| Refusal::Unknown(machine.booted.deployment.short()))?;
    let other = machine.deployments.iter().any(|d| d.id != booted.id && d.bootable() && d.state.state != State::Bad);
    if !other {
        return Err(Refusal::OnlyOne(booted.label()));
    }
    let mut steps = Vec::new();
    let mut marks = machine.bad.clone();
    // The first reason stays: it is the one that somebody looked into.
    marks.commits.entry(booted.id.commit.to_string()).or_insert_with(|| BadMark {
        version: booted.state.version.clone(),
        reason: reason.to_owned(),
        at: now,
        rest: Default::default(),
    });
    if marks != machine.bad {
        steps.push(Step::WriteBadMarks { marks });
    }
    if booted.state.state != State::Bad {
        let state = StateFile { state: State::Bad, reason: Some(reason.to_owned()), ..booted.state.clone() };
        steps.push(Step::WriteState { id: booted.id, state: Box::new(state) });
        steps.push(Step::Sync);
    }
    exhaust(machine, booted, &mut steps);
    if steps.is_empty() {
        return Ok(Plan::nothing(format!("{} is rejected already", booted.label())));
    }
    Ok(Plan::new(format!("reject {}: {reason}", booted.label()), steps))
}

/// Gives it an entry without tries, then removes the others.
fn exhaust(machine: &Machine, deployment: &Deployment, steps: &mut Vec<Step>) {
    let spent = deployment.entries.iter().find(|f| f.name.as_ref().is_some_and(|n| n.exhausted()));
    let file = match (spent, deployment.entries.first()) {
        (Some(found), _) => found.file.clone(),
        (None, Some(found)) => {
            let done = deployment.counter().map_or(1, |c| c.done.max(1));
            let file = fresh_name(deployment, &machine.os, Some(Counter { left: 0, done })).to_string();
            steps.push(Step::WriteEntry { file: file.clone(), entry: found.entry.clone() });
            file
        }
        (None, None) => return,
    };
    drop_other_entries(deployment, &file, steps);
}

/// Keeps a deployment from being pruned, or lets it go.
pub fn pin(machine: &Machine, id: &DeploymentId, pinned: bool) -> Result<Plan, Refusal> {
    let deployment = machine.get(id).ok_or_else(|| Refusal::Unknown(id.short()))?;
    let verb = if pinned { "pin" } else { "unpin" };
    if deployment.state.pinned == pinned {
        return Ok(Plan::nothing(format!("{} is {verb}ned already", deployment.label())));
    }
    let state = StateFile { pinned, ..deployment.state.clone() };
    let steps = vec![Step::WriteState { id: *id, state: Box::new(state) }];
    Ok(Plan::new(format!("{verb} {}", deployment.label()), steps))
}
