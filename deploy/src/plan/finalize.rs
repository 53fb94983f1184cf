//! Finalize: at shutdown, `/etc` and the switch.

use bootloader::{Counter, FIRST_TRIES};

use super::{Plan, Step, drop_other_entries, fresh_name};
use crate::machine::Deployment;
use crate::state::{FinalizeRecord, FinalizeResult, State, StateFile};
use crate::{Machine, first};

fn record(deployment: &Deployment, result: FinalizeResult, at: u64, error: Option<String>) -> Step {
    let rest = deployment.state.finalize.as_ref().map(|r| r.rest.clone()).unwrap_or_default();
    let record = FinalizeRecord { result, at, error, notes: Vec::new(), rest };
    let state = StateFile { finalize: Some(record), ..deployment.state.clone() };
    Step::WriteState { id: deployment.id, state: Box::new(state) }
}

/// Writes down that it begins: whatever stops it, the next boot shows it.
pub fn finalize_started(machine: &Machine, now: u64) -> Option<Step> {
    let staged = machine.staged().filter(|d| !d.state.hold)?;
    Some(record(staged, FinalizeResult::Started, now, None))
}

/// Writes down why it stopped.
pub fn finalize_failed(machine: &Machine, now: u64, error: String) -> Option<Step> {
    Some(record(machine.staged()?, FinalizeResult::Failed, now, Some(error)))
}

/// Switches to what is staged. `notes` are what the merge of `/etc` decided; they are known before, since the policy
/// is pure.
pub fn finalize(machine: &Machine, now: u64, notes: Vec<String>) -> Plan {
    let Some(staged) = machine.staged() else { return Plan::nothing("nothing is staged") };
    let label = staged.label();
    if staged.state.hold {
        return Plan::nothing(format!("{label} is held back by a rollback; `host upgrade` releases it"));
    }
    let generation = machine.next_generation();
    let mut steps = vec![Step::MergeEtc { id: staged.id }, Step::RemoveStamps];
    if machine.kernels.get(&staged.state.bootcsum).is_none_or(|&size| size == 0) {
        let bootcsum = staged.state.bootcsum.clone();
        steps.push(Step::InstallKernel { bootcsum, commit: staged.id.commit, size: 0 });
    }
    // The entry must not reach the disk before what it boots.
    steps.push(Step::Sync);
    let name = fresh_name(staged, &machine.os, Some(Counter::fresh(FIRST_TRIES)));
    let file = name.to_string();
    let entry = first::entry(&machine.os, &staged.id, &staged.state, generation);
    steps.push(Step::WriteEntry { file: file.clone(), entry });
    drop_other_entries(staged, &file, &mut steps);
    let record = FinalizeRecord { result: FinalizeResult::Done, at: now, error: None, notes, rest: Default::default() };
    let state =
        StateFile { state: State::Trial, generation, finalize: Some(record), reason: None, ..staged.state.clone() };
    steps.push(Step::WriteState { id: staged.id, state: Box::new(state) });
    steps.push(Step::Sync);
    Plan::new(format!("switch to {label}"), steps)
}
