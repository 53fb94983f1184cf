//! The files to be written, as plain data.

use std::collections::BTreeMap;

use super::Error;

/// One file, link or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky; no file type.
    pub permissions: u16,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir(BTreeMap<Vec<u8>, Node>),
    /// A file; its content is asked for by `content` when the image is written.
    File {
        /// Size of the content.
        size: u64,
        /// Number by which the content is asked for.
        content: usize,
        /// Whether the file is sealed with fs-verity.
        verity: bool,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
}

impl Node {
    /// An empty directory of root's.
    pub fn dir(permissions: u16) -> Self {
        Node { uid: 0, gid: 0, permissions, xattrs: BTreeMap::new(), kind: Kind::Dir(BTreeMap::new()) }
    }

    /// Puts `node` at `path`, whose directories are made (root's, 0755) where they are missing. A directory put over one
    /// that exists takes over its owner, mode and attributes and keeps the children.
    pub fn insert(&mut self, path: &[u8], node: Node) -> Result<(), Error> {
        let bad = || Error::Path { path: String::from_utf8_lossy(path).into_owned() };
        let mut parts: Vec<&[u8]> = path.split(|c| *c == b'/').filter(|p| !p.is_empty()).collect();
        if parts.iter().any(|p| *p == b"." || *p == b".." || p.len() > 255) {
            return Err(bad());
        }
        let last = parts.pop();
        let mut dir = self;
        for part in parts {
            let Kind::Dir(children) = &mut dir.kind else { return Err(bad()) };
            dir = children.entry(part.to_vec()).or_insert_with(|| Node::dir(0o755));
        }
        let target = match last {
            None => dir,
            Some(name) => {
                let Kind::Dir(children) = &mut dir.kind else { return Err(bad()) };
                children.entry(name.to_vec()).or_insert_with(|| Node::dir(0o755))
            }
        };
        match (&mut target.kind, node.kind) {
            (Kind::Dir(_), Kind::Dir(new)) if new.is_empty() => {}
            (Kind::Dir(old), kind) if old.is_empty() => target.kind = kind,
            _ => return Err(bad()),
        }
        (target.uid, target.gid, target.permissions, target.xattrs) =
            (node.uid, node.gid, node.permissions, node.xattrs);
        Ok(())
    }
}
