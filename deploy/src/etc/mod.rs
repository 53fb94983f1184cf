//! The three-way merge of `/etc`.
//!
//! ```text
//! old    /usr/etc of the booted tree       what the machine was given
//! live   /etc                              what it made of it
//! new    usr/etc of the new tree           what it is given now
//!        ──► etc.new ──► etc of the new deployment
//! ```
//! What was changed locally wins; what was not follows the new tree. Account files are merged line by line, files that
//! programs generate are taken from the new tree. Only where a directory and a file meet is there no answer: that is
//! found when an update is staged, not at shutdown.

mod accounts;
mod apply;
mod merge;
mod snapshot;

pub use accounts::{ACCOUNT_FILES, Family, merge_accounts};
pub use apply::{ApplyError, Sources, account_notes, write};
pub use merge::{Conflict, Merge, Source, merge};
pub use snapshot::{Node, Snapshot, What, of_directory, of_tree};
