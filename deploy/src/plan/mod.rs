//! Decides what to do. Nothing here touches the disk.
//!
//! A plan is a list of steps, each of which may be repeated. In every plan one step is the switch (writing an entry);
//! all before it only add, all after it only remove. A crash after any step leaves a machine that boots the old
//! deployment or the new one, and planning again leads to the same end.

mod bless;
mod fallback;
mod finalize;
mod prune;
mod refusal;
mod rollback;
mod stage;
mod step;

pub use bless::{Facts, bless};
pub use fallback::{Fallback, fallback};
pub use finalize::{finalize, finalize_failed, finalize_started};
pub use prune::{collect, kept, prune};
pub use refusal::Refusal;
pub use rollback::{Staged, pin, reject, rollback, switch_to};
pub use stage::{Bad, Downgrade, Target, stage};
pub use step::{Plan, Step};

use bootloader::{Counter, EntryName};

use crate::machine::Deployment;

/// A name for the next entry of a deployment that none of its entries has: `preferred`, or the same number of tries
/// with another count of boots. Entries are never rewritten in place.
fn fresh_name(deployment: &Deployment, os: &str, preferred: Option<Counter>) -> EntryName {
    let base = deployment.id.entry_name(os);
    let taken = |name: &EntryName| deployment.entries.iter().any(|f| f.file == name.to_string());
    let first = base.with(preferred);
    if !taken(&first) {
        return first;
    }
    let left = preferred.map_or(bootloader::FIRST_TRIES, |c| c.left);
    (0..).map(|done| base.with(Some(Counter { left, done }))).find(|name| !taken(name)).unwrap_or(first)
}

/// Steps that remove all entries of a deployment but `keep`.
fn drop_other_entries(deployment: &Deployment, keep: &str, steps: &mut Vec<Step>) {
    for found in deployment.entries.iter().filter(|f| f.file != keep) {
        steps.push(Step::RemoveEntry { file: found.file.clone() });
    }
}
