//! One tree laid over another.

use std::collections::BTreeMap;

use crate::object::ObjectType;
use crate::repo::Staging;
use crate::{Checksum, DirTree, Entry, Error, Repo};

/// A directory: its names and its metadata.
pub type Tree = (Checksum, Checksum);

/// Lays `top` over `base`: files of `top` replace those of the same name, directories are joined and take the metadata
/// of `top`. A directory and a file of one name are refused.
pub fn over(repo: &Repo, base: Tree, top: Tree) -> Result<Tree, Error> {
    let staging = repo.stage()?;
    let tree = join(repo, &staging, "", base.0, top.0)?;
    staging.flush()?;
    Ok((tree, top.1))
}

fn join(repo: &Repo, staging: &Staging<'_>, path: &str, base: Checksum, top: Checksum) -> Result<Checksum, Error> {
    if base == top {
        return Ok(top);
    }
    let mut entries = entries(repo.load_dirtree(&base)?);
    for (name, new) in self::entries(repo.load_dirtree(&top)?) {
        let path = format!("{path}/{name}");
        let merged = match (entries.get(&name), new) {
            (Some(Entry::Dir { tree: old, .. }), Entry::Dir { tree, meta }) => {
                Entry::Dir { tree: join(repo, staging, &path, *old, tree)?, meta }
            }
            (Some(Entry::Dir { .. }), Entry::File { .. }) => {
                return Err(Error::invalid(format!("{path}: a file cannot replace a directory")));
            }
            (Some(Entry::File { .. }), Entry::Dir { .. }) => {
                return Err(Error::invalid(format!("{path}: a directory cannot replace a file")));
            }
            (_, new) => new,
        };
        entries.insert(name, merged);
    }
    let mut tree = DirTree::default();
    for (name, entry) in entries {
        match entry {
            Entry::File { checksum } => tree.files.push((name, checksum)),
            Entry::Dir { tree: names, meta } => tree.dirs.push((name, names, meta)),
        }
    }
    staging.write_metadata(ObjectType::DirTree, &tree.encode())
}

fn entries(tree: DirTree) -> BTreeMap<String, Entry> {
    let files = tree.files.into_iter().map(|(name, checksum)| (name, Entry::File { checksum }));
    let dirs = tree.dirs.into_iter().map(|(name, tree, meta)| (name, Entry::Dir { tree, meta }));
    files.chain(dirs).collect()
}
