//! A tree in memory becomes a tree of objects: what tests and generated trees are made of.

use std::collections::BTreeMap;

use super::{Imported, Stats};
use crate::object::{DirMeta, DirTree, FileMeta, ObjectType, valid_name};
use crate::repo::Staging;
use crate::{Checksum, Error, Repo};

/// A tree in memory.
#[derive(Clone, Debug)]
pub enum Node {
    /// A directory.
    Dir(DirMeta, BTreeMap<String, Node>),
    /// A regular file or symbolic link; the size in the metadata is ignored.
    File(FileMeta, Vec<u8>),
}

/// Imports a tree that is in memory; `root` must be a directory.
pub fn tree(repo: &Repo, root: &Node) -> Result<Imported, Error> {
    let staging = repo.stage()?;
    let mut stats = Stats::default();
    let Node::Dir(meta, entries) = root else { return Err(Error::invalid("the root of a tree is a directory")) };
    let (root_tree, root_meta) = write_node(&staging, meta, entries, &mut stats)?;
    staging.flush()?;
    Ok(Imported { root_tree, root_meta, stats })
}

fn write_node(
    staging: &Staging<'_>,
    meta: &DirMeta,
    entries: &BTreeMap<String, Node>,
    stats: &mut Stats,
) -> Result<(Checksum, Checksum), Error> {
    stats.dirs += 1;
    let mut dirtree = DirTree::default();
    for (name, node) in entries {
        if !valid_name(name) {
            return Err(Error::invalid(format!("{name:?} cannot be the name of a file")));
        }
        match node {
            Node::Dir(meta, entries) => {
                let (tree, meta) = write_node(staging, meta, entries, stats)?;
                dirtree.dirs.push((name.clone(), tree, meta));
            }
            Node::File(meta, content) => {
                let meta = FileMeta { size: content.len() as u64, ..meta.clone() };
                let (checksum, new) = staging.write_bytes(&meta, content)?;
                stats.files += u64::from(meta.symlink.is_none());
                stats.symlinks += u64::from(meta.symlink.is_some());
                stats.new_files += u64::from(new);
                dirtree.files.push((name.clone(), checksum));
            }
        }
    }
    let tree = staging.write_metadata(ObjectType::DirTree, &dirtree.encode())?;
    Ok((tree, staging.write_metadata(ObjectType::DirMeta, &meta.encode())?))
}
