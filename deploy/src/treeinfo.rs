//! What a tree says about itself in `/usr/lib/slipway/tree.json`, and where updates come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{self, JsonError};
use crate::paths::Paths;

/// The stateroot of a tree that names none.
pub const DEFAULT_OS: &str = "slipway";

fn default_os() -> String {
    DEFAULT_OS.to_owned()
}

/// `/usr/lib/slipway/tree.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeInfo {
    /// The stateroot.
    #[serde(default = "default_os")]
    pub os: String,
    /// The ref the tree was composed for.
    #[serde(default, rename = "ref")]
    pub ref_name: Option<String>,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// Where updates come from.
    #[serde(default)]
    pub remotes: BTreeMap<String, RemoteInfo>,
    /// The tree's kernel arguments.
    #[serde(default)]
    pub kargs: Vec<String>,
    /// The level prepare-root insists on.
    #[serde(default)]
    pub require: Option<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// One remote of `tree.json`, and the content of `/etc/slipway/remote.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteInfo {
    /// Where the repository is served.
    #[serde(default)]
    pub url: Option<String>,
    /// Which ref to follow.
    #[serde(default, rename = "ref")]
    pub ref_name: Option<String>,
    /// Fields of later versions, `format` among them.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl TreeInfo {
    /// Parses the text of `tree.json`.
    pub fn parse(text: &[u8]) -> Result<TreeInfo, serde_json::Error> {
        let mut info: TreeInfo = serde_json::from_slice(text)?;
        if info.os.is_empty() {
            info.os = default_os();
        }
        Ok(info)
    }

    /// The remote called `default`, or the only one.
    pub fn remote(&self) -> RemoteInfo {
        let only = if self.remotes.len() == 1 { self.remotes.values().next() } else { None };
        self.remotes.get("default").or(only).cloned().unwrap_or_default()
    }
}

/// Where this machine's updates come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remote {
    /// The repository's address.
    pub url: Option<String>,
    /// The ref.
    #[serde(rename = "ref")]
    pub ref_name: Option<String>,
    /// Whether `/etc/slipway/remote.json` changes what the tree says.
    pub overridden: bool,
}

impl Remote {
    /// The tree's remote, with the operator's address and ref put over it. Keys are never taken from `/etc`.
    pub fn load(paths: &Paths, tree: &TreeInfo) -> Result<Remote, JsonError> {
        let default = tree.remote();
        let local: RemoteInfo = json::read(&paths.remote_json())?.unwrap_or_default();
        let overridden = local.url.is_some() || local.ref_name.is_some();
        Ok(Remote {
            url: local.url.or(default.url),
            ref_name: local.ref_name.or(default.ref_name).or_else(|| tree.ref_name.clone()),
            overridden,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etc_overrides_address_and_ref_one_by_one() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let tree = TreeInfo::parse(
            br#"{"format":"1.0","ref":"a/b","remotes":{"default":{"url":"http://x/","ref":"a/b"}},"kargs":[]}"#,
        )
        .unwrap();
        assert_eq!(tree.os, "slipway");
        let remote = Remote::load(&paths, &tree).unwrap();
        assert_eq!((remote.url.as_deref(), remote.overridden), (Some("http://x/"), false));
        std::fs::create_dir_all(root.path().join("etc/slipway")).unwrap();
        std::fs::write(paths.remote_json(), r#"{"format":"1.0","url":"http://y/","keys":["no"]}"#).unwrap();
        let remote = Remote::load(&paths, &tree).unwrap();
        assert_eq!((remote.url.as_deref(), remote.ref_name.as_deref()), (Some("http://y/"), Some("a/b")));
        assert!(remote.overridden);
    }
}
