//! What differs between two trees.

use std::collections::BTreeMap;

use crate::{Checksum, Entry, Error, Repo};

/// How one path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only in the second.
    Added,
    /// Only in the first.
    Removed,
    /// In both, and not the same.
    Modified,
}

/// The paths that differ between two commits, in order. A directory that is only in one of them stands for all below.
pub fn diff(repo: &Repo, from: &Checksum, to: &Checksum) -> Result<Vec<(String, Change)>, Error> {
    let (from, to) = (repo.load_commit(from)?, repo.load_commit(to)?);
    let mut changes = Vec::new();
    if from.root_meta != to.root_meta {
        changes.push(("/".to_owned(), Change::Modified));
    }
    let mut todo = vec![(String::new(), from.root_tree, to.root_tree)];
    while let Some((path, from, to)) = todo.pop() {
        // Equal names, equal trees: nothing below can differ.
        if from == to {
            continue;
        }
        let (before, after) = (entries(repo, &from)?, entries(repo, &to)?);
        for (name, old) in &before {
            let child = format!("{path}/{name}");
            match (old, after.get(name)) {
                (_, None) => changes.push((child, Change::Removed)),
                (Entry::Dir { tree: a, meta: am }, Some(Entry::Dir { tree: b, meta: bm })) => {
                    if am != bm {
                        changes.push((child.clone(), Change::Modified));
                    }
                    todo.push((child, *a, *b));
                }
                (old, Some(new)) if old != new => changes.push((child, Change::Modified)),
                _ => {}
            }
        }
        for name in after.keys().filter(|name| !before.contains_key(*name)) {
            changes.push((format!("{path}/{name}"), Change::Added));
        }
    }
    changes.sort();
    Ok(changes)
}

fn entries(repo: &Repo, tree: &Checksum) -> Result<BTreeMap<String, Entry>, Error> {
    let tree = repo.load_dirtree(tree)?;
    let files = tree.files.into_iter().map(|(name, checksum)| (name, Entry::File { checksum }));
    let dirs = tree.dirs.into_iter().map(|(name, tree, meta)| (name, Entry::Dir { tree, meta }));
    Ok(files.chain(dirs).collect())
}
