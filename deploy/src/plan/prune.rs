//! Prune: keep the running deployment, the one that boots next, the one to go back to, the staged one and the pinned.

use std::collections::BTreeSet;

use store::Checksum;

use super::{Plan, Step};
use crate::state::State;
use crate::{DeploymentId, Machine};

/// The deployments that stay.
pub fn kept(machine: &Machine) -> Vec<DeploymentId> {
    let mut keep = BTreeSet::from([machine.booted.deployment]);
    keep.extend(machine.default().map(|d| d.id));
    keep.extend(machine.rollback().map(|d| d.id));
    keep.extend(machine.staged().map(|d| d.id));
    for deployment in &machine.deployments {
        let waits = match deployment.state.state {
            State::Trial => deployment.bootable() || deployment.entries.is_empty(),
            State::Staged | State::Good | State::Bad => false,
        };
        if waits || deployment.state.pinned {
            keep.insert(deployment.id);
        }
    }
    // A failed one is kept for nothing, even when it is all that would boot after the running one.
    let bad = |id: &DeploymentId| {
        machine.get(id).is_some_and(|d| d.state.state == State::Bad && !d.state.pinned)
            && *id != machine.booted.deployment
    };
    keep.into_iter().filter(|id| !bad(id)).collect()
}

/// Removes everything else. Always repeatable.
pub fn prune(machine: &Machine) -> Plan {
    let keep = kept(machine);
    let mut steps = Vec::new();
    let gone: Vec<_> = machine.deployments.iter().filter(|d| !keep.contains(&d.id)).collect();
    // Entries first: nothing may point at what is no longer there.
    for deployment in &gone {
        for found in &deployment.entries {
            steps.push(Step::RemoveEntry { file: found.file.clone() });
        }
    }
    for file in &machine.stray_entries {
        steps.push(Step::RemoveEntry { file: file.clone() });
    }
    for deployment in &gone {
        steps.push(Step::RemoveDeployment { id: deployment.id });
    }
    for name in &machine.leftovers {
        steps.push(Step::RemoveLeftover { name: name.clone() });
    }
    let needed: BTreeSet<&str> = machine
        .deployments
        .iter()
        .filter(|d| keep.contains(&d.id))
        .flat_map(|d| {
            let used = d.entries.iter().filter_map(|f| f.entry.bootcsum());
            used.chain([d.state.bootcsum.as_str()])
        })
        .collect();
    // Without a word about the running kernel none is removed: better a full ESP than one without it.
    let sure = machine.booted_deployment().is_some_and(|d| !d.state.bootcsum.is_empty());
    for bootcsum in machine.kernels.keys().filter(|k| sure && !needed.contains(k.as_str())) {
        steps.push(Step::RemoveKernel { bootcsum: bootcsum.clone() });
    }
    if !gone.is_empty() || !machine.leftovers.is_empty() {
        steps.push(collect(machine));
    }
    if steps.is_empty() {
        return Plan::nothing("nothing is left over");
    }
    Plan::new("remove what is no longer needed", steps)
}

/// Removes the objects of everything that does not stay.
pub fn collect(machine: &Machine) -> Step {
    let keep = kept(machine);
    let bad = machine.bad.commits.keys().filter_map(|c| c.parse::<Checksum>().ok());
    let forget = bad.filter(|c| !keep.iter().any(|id| id.commit == *c)).collect();
    Step::CollectGarbage { keep, forget }
}
