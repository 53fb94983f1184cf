//! The treefile: what a tree shall be.
//!
//! ```text
//! file ──node──▶ tree of values with lines ──read──▶ one Layer for each file
//!                                                       │  merge: includes first, the child wins
//!                                                       ▼
//!                                                    Treefile   resolved: no includes, no variables, files read and hashed
//! ```
//!
//! The language is rpm-ostree's, with Debian's meaning for its keys; `treefiles/OPTIONS.md` describes each and is
//! rendered from the table in `options`.
//! Every error names the file and the line.

mod merge;
pub mod near;
mod node;
pub mod options;
mod read;
pub mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A resolved treefile. Serialized it is a record of what was built, and holds nothing of the build machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Treefile {
    /// The branch.
    #[serde(rename = "ref")]
    pub ref_name: String,
    /// More branches that the commit belongs to.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub ref_bindings: BTreeSet<String>,
    /// The set of defaults: `2024`.
    pub edition: String,
    /// Debian architecture (`amd64`).
    pub basearch: String,
    /// The Debian suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub releasever: Option<String>,
    /// Where packages come from; empty: the Debian archive.
    #[serde(default)]
    pub repos: Vec<Repository>,
    /// Packages asked for.
    pub packages: BTreeSet<String>,
    /// Packages that must not be there.
    #[serde(default)]
    pub exclude_packages: BTreeSet<String>,
    /// Our own `.deb` files, named as in the treefile; `Treefile::local_package_paths` tells where they are.
    #[serde(default)]
    pub local_packages: Vec<String>,
    /// Also install what is only recommended.
    pub recommends: bool,
    /// Keep documentation.
    pub documentation: bool,
    /// Units to enable.
    #[serde(default)]
    pub units: Vec<String>,
    /// What `default.target` points to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_target: Option<String>,
    /// Files to copy into the tree, directories expanded.
    #[serde(default)]
    pub add_files: Vec<AddFile>,
    /// Paths to delete, absolute.
    #[serde(default)]
    pub remove_files: Vec<String>,
    /// Scripts to run in the tree.
    #[serde(default)]
    pub postprocess: Vec<String>,
    /// What the full version replaces in os-release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutate_os_release: Option<String>,
    /// Where the version counts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_version_prefix: Option<String>,
    /// What stands before the counter.
    pub automatic_version_suffix: char,
    /// Goes into the commit's metadata.
    #[serde(default)]
    pub add_commit_metadata: BTreeMap<String, Metadata>,
    /// Kernel arguments.
    #[serde(default)]
    pub kargs: Vec<String>,
    /// Where machines get updates.
    #[serde(default)]
    pub remotes: BTreeMap<String, Remote>,
    /// What the initramfs demands.
    pub require: Require,
    /// Name of the operating system on disk.
    pub stateroot: String,
    /// Where each item was written, `key/value` → place; for messages.
    #[serde(skip)]
    pub(crate) origins: BTreeMap<String, Place>,
    /// Resolved paths of `local_packages`, in the same order.
    #[serde(skip)]
    pub(crate) local_paths: Vec<PathBuf>,
}

/// A file and a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A package repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repository {
    /// Its name in messages.
    pub name: String,
    /// Addresses; empty: the build machine's Debian mirror.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    /// Suites; empty: the treefile's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// A keyring file; none: the build machine's Debian archive keyring.
    #[serde(skip)]
    pub signed_by: Option<PathBuf>,
    /// Refuse metadata that is past its `Valid-Until`.
    pub check_valid_until: bool,
}

/// A file to copy into the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AddFile {
    /// As named in the treefile.
    pub source: String,
    /// Absolute path in the tree.
    pub destination: String,
    /// Permissions.
    pub mode: u32,
    /// SHA-256 of the content, in hex.
    pub sha256: String,
    /// Where the content is.
    #[serde(skip)]
    pub path: PathBuf,
}

/// Where machines get updates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Remote {
    /// An HTTP address; none: to be given to the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The branch to follow.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub ref_name: Option<String>,
    /// Public keys, base64.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// What the initramfs demands of a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Require {
    /// A commit signed by a trusted key, and files that match it.
    #[default]
    Verified,
    /// Files that match the commit.
    Verity,
}

impl Require {
    /// As written in the treefile and in `tree.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Require::Verified => "verified",
            Require::Verity => "verity",
        }
    }
}

/// A value of `add-commit-metadata`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Metadata {
    /// `true` or `false`.
    Bool(bool),
    /// Anything else.
    Text(String),
}

/// What is wrong with a treefile. Its text begins with `file:line: `.
#[derive(Debug, thiserror::Error)]
pub enum TreefileError {
    /// The file cannot be read.
    #[error("{}{}: cannot read the treefile", .by.as_ref().map(|b| format!("{b}: include: ")).unwrap_or_default(), .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Where it is included, if it is.
        by: Option<Place>,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Something at a place.
    #[error("{place}: {text}")]
    At {
        /// Where.
        place: Place,
        /// What is wrong, and what to do.
        text: String,
    },
}

impl TreefileError {
    fn at(file: &Path, line: usize, text: impl Into<String>) -> Self {
        TreefileError::At { place: Place { file: file.to_owned(), line }, text: text.into() }
    }
}

/// Reads a treefile and everything it includes, for the build machine's architecture.
pub fn load(path: &Path) -> Result<Treefile, TreefileError> {
    load_for(path, native_architecture())
}

/// Reads a treefile for the Debian architecture `arch`.
pub fn load_for(path: &Path, arch: &str) -> Result<Treefile, TreefileError> {
    let layer = merge::load(path, arch)?;
    merge::resolve(layer, path, arch)
}

/// Debian's name for the architecture this program runs on.
pub fn native_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        "loongarch64" => "loong64",
        other => other,
    }
}

impl Treefile {
    /// Where the item `value` of the list `key` was written (`packages`, `podman`).
    pub fn origin(&self, key: &str, value: &str) -> Option<&Place> {
        self.origins.get(&format!("{key}/{value}"))
    }

    /// Where the `.deb` files and directories of `local-packages` are.
    pub fn local_package_paths(&self) -> &[PathBuf] {
        &self.local_paths
    }

    /// SHA-256 over everything that the treefile says, contents of added files included.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_json()).into()
    }

    /// The record that is kept in the tree: the same bytes for the same treefile on every machine.
    pub fn to_json(&self) -> String {
        // Field order is the struct's, maps are sorted: nothing depends on the run. A struct of plain values always serializes.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests;
