//! The tree an image is made of: plain data, sorted by name.

use std::collections::BTreeMap;

/// Extended attributes, by full name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// One file, link or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky; no file type.
    pub permissions: u16,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir(BTreeMap<Vec<u8>, Node>),
    /// A file whose content lies in the object directory.
    File {
        /// Size of the content.
        size: u64,
        /// Path of the content below the object directory (`ab/cdef….file`); unused when the size is 0.
        payload: String,
        /// fs-verity digest of the content, where the image asks for one; unused when the size is 0.
        digest: Option<[u8; 32]>,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
}

impl Node {
    /// An empty directory, root's, mode 0755: what libostree adds for a mount point that the tree lacks.
    pub fn empty_dir() -> Self {
        Node { uid: 0, gid: 0, permissions: 0o755, xattrs: Xattrs::new(), kind: Kind::Dir(BTreeMap::new()) }
    }
}
