//! Steps, and how a plan is printed.

use std::fmt;

use bootloader::Entry;
use store::Checksum;

use crate::DeploymentId;
use crate::state::{BadMarks, StateFile};

/// One step. Each may be repeated.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keeps a commit's objects from being collected.
    KeepCommit {
        /// The deployment that needs them.
        id: DeploymentId,
    },
    /// Makes a deployment's directory and writes its EROFS image, with fs-verity.
    WriteImage {
        /// The deployment.
        id: DeploymentId,
        /// The digest it must have.
        digest: Option<String>,
        /// Its size.
        size: u64,
    },
    /// Writes a kernel and its initramfs to the ESP.
    InstallKernel {
        /// Their directory.
        bootcsum: String,
        /// The commit that has them.
        commit: Checksum,
        /// Their size.
        size: u64,
    },
    /// Writes a deployment's origin file.
    WriteOrigin {
        /// The deployment.
        id: DeploymentId,
        /// The ref it came by.
        ref_name: Option<String>,
    },
    /// Replaces a deployment's state file.
    WriteState {
        /// The deployment.
        id: DeploymentId,
        /// Its content.
        state: Box<StateFile>,
    },
    /// Makes `/etc` of a deployment from the new tree, the booted tree and the live `/etc`.
    MergeEtc {
        /// The deployment that gets it.
        id: DeploymentId,
    },
    /// Removes `/var/.updated`, so that the next boot refreshes what depends on `/usr`.
    RemoveStamps,
    /// Makes everything written so far durable, on both file systems.
    Sync,
    /// Writes an entry under a name that no other file of the deployment has. Greater version: the switch.
    WriteEntry {
        /// The file name.
        file: String,
        /// Its content.
        entry: Entry,
    },
    /// Unlinks an entry.
    RemoveEntry {
        /// The file name.
        file: String,
    },
    /// Writes the list of commits that failed here.
    WriteBadMarks {
        /// All of them.
        marks: BadMarks,
    },
    /// Removes a deployment: state file first, then origin, ref and directory.
    RemoveDeployment {
        /// The deployment.
        id: DeploymentId,
    },
    /// Removes what a crash left of a deployment.
    RemoveLeftover {
        /// The name below the directory of deployments.
        name: String,
    },
    /// Removes a kernel from the ESP.
    RemoveKernel {
        /// Its directory.
        bootcsum: String,
    },
    /// Removes objects that no deployment and no ref needs.
    CollectGarbage {
        /// The deployments that stay.
        keep: Vec<DeploymentId>,
        /// Commits that failed: no remembered ref of a remote keeps them.
        forget: Vec<Checksum>,
    },
}

/// What to do, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What it is for, in one line.
    pub title: String,
    /// The steps.
    pub steps: Vec<Step>,
    /// Why there are none.
    pub nothing: Option<String>,
}

impl Plan {
    /// A plan of `steps`.
    pub fn new(title: impl Into<String>, steps: Vec<Step>) -> Plan {
        Plan { title: title.into(), steps, nothing: None }
    }

    /// A plan without steps, and why.
    pub fn nothing(why: impl Into<String>) -> Plan {
        Plan { title: String::new(), steps: Vec::new(), nothing: Some(why.into()) }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// As data for `--json`: title and printed steps.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "title": self.title,
            "nothing": self.nothing,
            "steps": self.steps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

/// A size as people read it.
pub(crate) fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::KeepCommit { id } => write!(f, "keep     objects of {}", id.short()),
            Step::WriteImage { id, size, .. } => write!(f, "image    {}, {}", id.short(), mb(*size)),
            Step::InstallKernel { bootcsum, size, .. } => write!(f, "kernel   {}, {}", short(bootcsum), mb(*size)),
            Step::WriteOrigin { id, ref_name } => {
                write!(f, "origin   {} {}", id.short(), ref_name.as_deref().unwrap_or("-"))
            }
            Step::WriteState { id, state } => {
                write!(f, "state    {} {}", id.short(), state.state)?;
                if state.pinned {
                    write!(f, ", pinned")?;
                }
                if state.hold {
                    write!(f, ", held")?;
                }
                match &state.finalize {
                    Some(record) => write!(f, ", finalize {:?}", record.result).map(drop),
                    None => Ok(()),
                }
            }
            Step::MergeEtc { id } => write!(f, "merge    /etc into {}", id.short()),
            Step::RemoveStamps => write!(f, "remove   /var/.updated"),
            Step::Sync => write!(f, "sync"),
            Step::WriteEntry { file, entry } => {
                write!(f, "entry    {file} version {}", entry.get("version").unwrap_or("-"))
            }
            Step::RemoveEntry { file } => write!(f, "remove   {file}"),
            Step::WriteBadMarks { marks } => {
                let marked: Vec<String> = marks.commits.keys().map(|c| short(c).to_owned()).collect();
                write!(f, "mark     bad: {}", if marked.is_empty() { "-".to_owned() } else { marked.join(", ") })
            }
            Step::RemoveDeployment { id } => write!(f, "remove   deployment {}", id.short()),
            Step::RemoveLeftover { name } => write!(f, "remove   leftover {name}"),
            Step::RemoveKernel { bootcsum } => write!(f, "remove   kernel {}", short(bootcsum)),
            Step::CollectGarbage { keep, .. } => {
                write!(f, "collect  objects that the {} deployments kept do not need", keep.len())
            }
        }
    }
}

fn short(hex: &str) -> &str {
    hex.get(..10).unwrap_or(hex)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.nothing {
            return writeln!(f, "nothing to do: {why}");
        }
        writeln!(f, "{}", self.title)?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>2} {step}", number + 1)?;
        }
        Ok(())
    }
}
