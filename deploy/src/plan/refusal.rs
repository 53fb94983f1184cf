//! Why a request cannot be planned. Not a failure of the machine: nothing has changed.

use super::step::mb;

/// An expected "no".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The commit failed here before.
    #[error("version {label} failed on this machine: {reason}")]
    MarkedBad {
        /// Version or commit.
        label: String,
        /// Why.
        reason: String,
    },
    /// The remote offers something older than what runs.
    #[error("version {offered} is older than {running}, which runs now")]
    Downgrade {
        /// What the remote has.
        offered: String,
        /// What runs.
        running: String,
    },
    /// Too little room.
    #[error("{place} has {} free, {} are needed", mb(*free), mb(*needed))]
    NoSpace {
        /// Which file system.
        place: &'static str,
        /// Bytes wanted.
        needed: u64,
        /// Bytes there.
        free: u64,
        /// Bytes that a cleanup would free there.
        removable: u64,
    },
    /// Local changes that the new tree leaves no room for.
    #[error("/etc cannot be merged: {}", .0.join("; "))]
    Etc(Vec<String>),
    /// A tree for another kind of machine.
    #[error("the tree is for `{tree}`, this machine runs `{machine}`")]
    OtherOs {
        /// The tree's.
        tree: String,
        /// The machine's.
        machine: String,
    },
    /// Its image could not be verified at boot.
    #[error("version {0} carries no composefs digest: it could not be verified at boot")]
    NoDigest(String),
    /// There is nothing to go back to.
    #[error("there is no other good deployment to go back to")]
    NoRollback,
    /// The only deployment that boots.
    #[error("{0} is the only deployment that boots: rejecting it would leave none")]
    OnlyOne(String),
    /// It is not on this machine.
    #[error("no deployment `{0}` on this machine")]
    Unknown(String),
    /// It has no `/etc` yet.
    #[error("{0} is staged: it switches at the next shutdown")]
    Unfinished(String),
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Refusal::MarkedBad { .. } => {
                Some("wait for a newer version, or run `host deploy --allow-bad` with this commit".into())
            }
            Refusal::Downgrade { .. } => Some("run `host upgrade --allow-downgrade` to go there all the same".into()),
            Refusal::NoSpace { removable: 0, .. } => {
                Some("old deployments hold none of it; `host status` shows what is pinned".into())
            }
            Refusal::NoSpace { removable, .. } => Some(format!("`host cleanup` would free {}", mb(*removable))),
            Refusal::Etc(_) => Some("move the files named above out of the way, then try again".into()),
            Refusal::NoRollback => Some("`host status` shows what there is; `host deploy VERSION` fetches one".into()),
            Refusal::Unknown(_) => Some("`host status` lists them".into()),
            _ => None,
        }
    }
}
