//! OSTree repositories, on disk and on the wire, byte for byte: objects, trees, commits, refs, signatures, pull.
//!
//! ```text
//! checksum   Checksum       the SHA-256 that names everything
//! value      Value, Dict    GVariant a{sv}: metadata of commits
//! object     DirTree …      encodings of objects, and what makes one invalid
//! sign       Keyring …      signatures over commits and summaries, libostree's key files
//! verity     Hasher …       fs-verity digests, and the kernel's part in them
//! -- feature "full" --
//! repo       Repo           objects and refs on disk; Staging makes a batch of objects visible durably
//! import     directory()    a directory becomes a tree, in parallel
//! commit     Builder        a tree becomes a commit
//! digests    Digests        fs-verity digests by object, remembered
//! delta      generate, apply  static deltas in the stock format
//! update     generate, apply  our own format: one file from commit to commit, through compression
//! keyfile    KeyFile        the file config
//! remote     Config         a remote in it: address, keys, what must be signed
//! cookies    Jar            what requests to a remote carry
//! pull       local, http    objects from another repository, verified while they stream
//! fsck, gc, diff            what is damaged, what nobody needs, what changed
//! merge, local              one tree over another; what a file of this machine would be called as an object
//! text                      GVariant values as people read and type them
//! summary, checkout         all refs in one file; a tree as a directory
//! bundle                    a commit in one file, for machines without a network
//! serve      Server         a directory over HTTP, for tests and demonstrations
//! composefs  image()        the EROFS image a machine mounts
//! ```
//! Without the feature `full` what is left is what the initramfs needs: decode a commit, check its signature, know
//! where an object lies.

mod checksum;
#[cfg(feature = "full")]
mod equal;
mod error;
mod gv;
pub mod object;
pub mod sign;
#[cfg(feature = "full")]
pub mod summary;
#[cfg(feature = "full")]
pub mod text;
pub mod value;
pub mod verity;

#[cfg(feature = "full")]
pub mod bundle;
#[cfg(feature = "full")]
pub mod checkout;
#[cfg(feature = "full")]
pub mod commit;
pub mod composefs;
#[cfg(feature = "full")]
pub mod cookies;
#[cfg(feature = "full")]
pub mod delta;
#[cfg(feature = "full")]
pub mod diff;
#[cfg(feature = "full")]
pub mod digests;
#[cfg(feature = "full")]
pub mod fsck;
#[cfg(feature = "full")]
pub mod gc;
#[cfg(feature = "full")]
pub mod import;
#[cfg(feature = "full")]
pub mod keyfile;
#[cfg(feature = "full")]
pub mod local;
#[cfg(feature = "full")]
pub mod merge;
#[cfg(feature = "full")]
pub mod pull;
#[cfg(feature = "full")]
pub mod remote;
#[cfg(feature = "full")]
mod repo;
#[cfg(feature = "full")]
pub mod serve;

#[cfg(feature = "full")]
pub mod update;

pub use checksum::{Checksum, ParseChecksumError};
pub use error::Error;
pub use object::{Commit, DirMeta, DirTree, FileMeta, ObjectType, Xattrs, object_path};
pub use value::{Dict, Value};

#[cfg(feature = "full")]
pub use repo::{
    Content, Entry, FileObject, Mode, Objects, Repo, RepoLock, Staging, Verity, valid_collection, valid_ref,
};
