//! Build side library: from a treefile to a root directory that is ready to be imported into the store.
//!
//! ```text
//! treefile   what the tree shall be: YAML or JSON, includes, checked keys           → Treefile
//! packages   real apt resolves with private directories, our code fetches           → packages::Set
//! rootfs     unpacks the .debs and runs their maintainer scripts in a sandbox       → a plain Debian root directory
//! layout     turns that directory into an image-mode tree                           → what the commit holds
//! build      all of it, then import, commit, sign                                   → a commit in the repository
//! ```
//!
//! The verbs of the binary `slipway` (`src/cmd/`) put these together.

pub mod build;
pub mod layout;
pub mod packages;
pub mod rootfs;
pub mod treefile;
