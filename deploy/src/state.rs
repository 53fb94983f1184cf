//! What is remembered of a deployment, and of commits that failed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::FORMAT;

fn format() -> String {
    FORMAT.to_owned()
}

/// How far a deployment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Everything is in place but `/etc` and the boot entry; the next clean shutdown switches to it.
    Staged,
    /// It has an entry with a counter and has not been blessed.
    Trial,
    /// It came up well.
    Good,
    /// It did not.
    Bad,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Staged => "staged",
            State::Trial => "trial",
            State::Good => "good",
            State::Bad => "bad",
        })
    }
}

/// What happened when `/etc` was merged and the entry written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalizeRecord {
    /// Whether it got to the end.
    pub result: FinalizeResult,
    /// Seconds since 1970.
    pub at: u64,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Things worth knowing: local files kept where the new tree brought another default, accounts renumbered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// How a finalize ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalizeResult {
    /// It began; if this is still there at the next boot, the shutdown was cut short.
    Started,
    /// The entry is written.
    Done,
    /// It stopped with an error; nothing was switched.
    Failed,
}

/// `<commit>.<n>.state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// `1.0`.
    #[serde(default = "format")]
    pub format: String,
    /// How far it has come.
    pub state: State,
    /// Kept by prune.
    #[serde(default)]
    pub pinned: bool,
    /// The version in the commit.
    #[serde(default)]
    pub version: Option<String>,
    /// The ref it was pulled by.
    #[serde(default, rename = "ref")]
    pub ref_name: Option<String>,
    /// Where it was pulled from.
    #[serde(default)]
    pub url: Option<String>,
    /// Which trusted key signed it, base64.
    #[serde(default)]
    pub signer: Option<String>,
    /// The title of its boot entry.
    #[serde(default)]
    pub title: String,
    /// Its kernel: the directory on the ESP.
    pub bootcsum: String,
    /// The tree's own kernel arguments.
    #[serde(default)]
    pub kargs: Vec<String>,
    /// The generation number of its entry; 0 before it has one.
    #[serde(default)]
    pub generation: u64,
    /// The digest of its EROFS image.
    #[serde(default)]
    pub digest: Option<String>,
    /// Seconds since 1970 in the commit.
    #[serde(default)]
    pub timestamp: u64,
    /// A rollback keeps the next shutdown from switching to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Why it is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The last finalize.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalize: Option<FinalizeRecord>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// One commit that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadMark {
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// Why.
    pub reason: String,
    /// Seconds since 1970.
    pub at: u64,
    /// Fields of later versions.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// `bad.json`: commits that the agent never stages again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadMarks {
    /// `1.0`.
    #[serde(default = "format")]
    pub format: String,
    /// By commit.
    #[serde(default)]
    pub commits: BTreeMap<String, BadMark>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Default for BadMarks {
    fn default() -> Self {
        BadMarks { format: format(), commits: BTreeMap::new(), rest: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_later_version_survive() {
        let text = r#"{"format":"1.7","state":"good","bootcsum":"ab","novelty":{"x":1},"finalize":{"result":"done","at":1,"more":[2]}}"#;
        let state: StateFile = serde_json::from_str(text).unwrap();
        let again = serde_json::to_value(&state).unwrap();
        assert_eq!(again["format"], "1.7");
        assert_eq!(again["novelty"]["x"], 1);
        assert_eq!(again["finalize"]["more"][0], 2);
    }

    #[test]
    fn a_higher_major_is_refused() {
        let check = |t: &str| crate::json::check_format(&serde_json::from_str(t).unwrap());
        assert!(check(r#"{"format":"1.9"}"#).is_ok());
        assert!(check("{}").is_ok());
        assert_eq!(check(r#"{"format":"2.0"}"#), Err("2.0".to_owned()));
        assert!(check(r#"{"format":"x"}"#).is_err());
    }
}
