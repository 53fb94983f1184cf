//! Disk images: partitions, LVM, ext4 with verity, ESP; raw and qcow2. No root, no loop device, no device mapper.
//!
//! ```text
//! disk     plan (commit → what goes where) and execute (write it, on all cores)
//! content  the root file system: first deployment and repository
//! signed   whether the machine would trust the commit
//! gpt lvm ext4 fat qcow2   the formats, each written straight into the file
//! ids crc  identifiers that follow from the commit; checksums
//! ```
//! The same commit and options give the same bytes.

mod content;
mod crc;
mod disk;
mod error;
pub mod ext4;
pub mod fat;
pub mod gpt;
mod ids;
pub mod lvm;
pub mod qcow2;
mod signed;

pub use disk::{Format, GROUP, Options, Plan, ROOT, Summary, plan};
pub use error::Error;

use std::path::Path;

use store::{Checksum, Repo};
use sys::Reporter;

/// Plans and writes the disk image of a commit.
pub fn build(
    repo: &Repo,
    commit: &Checksum,
    options: &Options,
    output: &Path,
    reporter: &Reporter,
) -> Result<Summary, Error> {
    plan(repo, commit, options)?.execute(output, reporter)
}
