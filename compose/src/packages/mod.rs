//! Which packages, and their files: real apt resolves with private directories; fetching and verifying are ours.
//!
//! ```text
//! CACHEDIR/apt/<key>/    apt's own directories for one set of sources: configuration, lists, an empty dpkg status
//! CACHEDIR/debs/<sha256>.deb    each package once, under the digest that the signed index gives it
//! ```

pub mod deb822;

use std::path::PathBuf;

use deb822::Stanza;

/// A package of the tree, its file at hand and verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture: the tree's, or `all`.
    pub arch: String,
    /// Marked `Essential: yes`.
    pub essential: bool,
    /// The `.deb`.
    pub deb: PathBuf,
    /// SHA-256 of the `.deb`, hex.
    pub sha256: String,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Its stanza of the index: `Pre-Depends`, `Depends` and so on.
    pub control: Stanza,
}

/// The packages of a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    /// In an order in which they can be unpacked: what a package pre-depends on comes before it.
    pub packages: Vec<Package>,
    /// Seconds since 1970: the newest date of the sources, or `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: u64,
    /// SHA-256 over names, versions and digests of the packages, and the date.
    pub inputs_digest: [u8; 32],
}
