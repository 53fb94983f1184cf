//! A writer for ext4 file systems: rootless, deterministic, streaming.
//!
//! ```text
//! tree        Node        what to write, without content
//! Plan::new   Node → Plan     every inode and block gets its place; nothing is read or written
//! Plan::write Plan → disk     content goes straight to its place, on all cores; metadata follows
//! ```
//!
//! The result is what `mke2fs -t ext4 -O verity,metadata_csum_seed` makes (journal, checksums, extents, 64-bit, flex
//! groups, room to grow while mounted), with fs-verity's Merkle trees in place. The same tree and parameters give the
//! same bytes. Directories are linear; the kernel takes them as they are.

mod dir;
mod geometry;
mod inode;
mod plan;
mod superblock;
mod tree;
mod write;

pub use plan::{FileSlot, Plan};
pub use tree::{Kind, Node};
pub use write::{Content, Target};

/// What a file system is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Space in bytes.
    pub bytes: u64,
    /// UUID; also the source of the checksum seed.
    pub uuid: [u8; 16],
    /// Seed for directory hashes.
    pub hash_seed: [u8; 16],
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// All times, in seconds since 1970.
    pub time: u64,
}

/// Why a file system cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The space is no usable size.
    #[error("no ext4 file system fits into {bytes} bytes")]
    Size {
        /// The space.
        bytes: u64,
    },
    /// More files than inodes.
    #[error("{wanted} files need more than the {have} inodes a file system of this size has")]
    Inodes {
        /// Files to be written.
        wanted: u64,
        /// Inodes.
        have: u64,
    },
    /// The content does not fit.
    #[error("the files need {need} MiB, the file system has room for {have} MiB")]
    TooSmall {
        /// Size in MiB a file system must have.
        need: u64,
        /// Size in MiB it has.
        have: u64,
    },
    /// The allocator ran out of blocks.
    #[error("the file system is full")]
    Full,
    /// A file whose blocks lie in too many pieces.
    #[error("a file with {extents} extents is beyond what this writer does")]
    Fragmented {
        /// Pieces.
        extents: usize,
    },
    /// A path that cannot be written.
    #[error("`{path}` cannot be placed in the tree")]
    Path {
        /// The path.
        path: String,
    },
    /// An attribute outside `user.`, `trusted.` and `security.`.
    #[error("the extended attribute `{name}` cannot be written to ext4")]
    Xattr {
        /// Its name.
        name: String,
    },
    /// Attributes that do not fit into an inode and a block.
    #[error("{size} bytes of extended attributes on one file; ext4 holds 4 KiB")]
    XattrsTooLarge {
        /// Their size.
        size: usize,
    },
    /// Content could not be read.
    #[error("cannot read the content of {what}")]
    Read {
        /// What was read.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Content has another size than planned.
    #[error("{what} has {found} bytes, {planned} were planned")]
    Changed {
        /// What was read.
        what: String,
        /// Size planned.
        planned: u64,
        /// Size found.
        found: u64,
    },
    /// The image could not be written.
    #[error("cannot write the image")]
    Write(#[from] std::io::Error),
}

#[cfg(test)]
mod tests;
