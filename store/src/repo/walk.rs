//! Going through the tree of a commit.

use std::collections::HashSet;

use super::Repo;
use crate::{Checksum, Error, ObjectType};

/// What is at a path of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Dir {
        /// Its names.
        tree: Checksum,
        /// Its owner, mode and xattrs.
        meta: Checksum,
    },
    /// A regular file or symbolic link.
    File {
        /// The file object.
        checksum: Checksum,
    },
}

/// Every object below a commit or tree, each once.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Directory contents.
    pub dirtrees: HashSet<Checksum>,
    /// Directory metadata.
    pub dirmetas: HashSet<Checksum>,
    /// Files and symbolic links.
    pub files: HashSet<Checksum>,
}

/// No tree is this deep; a hostile one must not exhaust the stack or the path.
const MAX_DEPTH: usize = 1024;
/// Sharing makes it cheap to describe more paths than anyone can visit.
const MAX_ENTRIES: usize = 1 << 26;

impl Repo {
    /// Visits every path of a commit, the root (`/`) first, a directory before what is in it, its files before its
    /// directories, each in byte order.
    pub fn walk(
        &self,
        commit: &Checksum,
        mut visit: impl FnMut(&str, Entry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let commit = self.load_commit(commit)?;
        self.walk_tree(&commit.root_tree, &commit.root_meta, &mut visit)
    }

    /// Visits every path below a directory, which itself is called `/`.
    pub fn walk_tree(
        &self,
        tree: &Checksum,
        meta: &Checksum,
        visit: &mut dyn FnMut(&str, Entry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut todo = vec![(String::new(), *tree, *meta, 0)];
        let mut seen = 0;
        while let Some((path, tree, meta, depth)) = todo.pop() {
            visit(if path.is_empty() { "/" } else { &path }, Entry::Dir { tree, meta })?;
            let tree = self.load_dirtree(&tree)?;
            seen += 1 + tree.files.len() + tree.dirs.len();
            if depth > MAX_DEPTH || seen > MAX_ENTRIES {
                return Err(Error::invalid("the tree is too deep or has too many files"));
            }
            for (name, checksum) in &tree.files {
                visit(&format!("{path}/{name}"), Entry::File { checksum: *checksum })?;
            }
            // The stack gives them back in order.
            for (name, tree, meta) in tree.dirs.iter().rev() {
                todo.push((format!("{path}/{name}"), *tree, *meta, depth + 1));
            }
        }
        Ok(())
    }

    /// Adds every object below a tree to `objects`. What is there already is not read again.
    pub fn reach(&self, tree: &Checksum, meta: &Checksum, objects: &mut Objects) -> Result<(), Error> {
        objects.dirmetas.insert(*meta);
        let mut todo = vec![*tree];
        while let Some(tree) = todo.pop() {
            if !objects.dirtrees.insert(tree) {
                continue;
            }
            let tree = self.load_dirtree(&tree)?;
            objects.files.extend(tree.files.iter().map(|f| f.1));
            objects.dirmetas.extend(tree.dirs.iter().map(|d| d.2));
            todo.extend(tree.dirs.iter().map(|d| d.1));
        }
        Ok(())
    }

    /// Every object of a commit, the commit itself included, sorted.
    pub fn objects_of(&self, commit: &Checksum) -> Result<Vec<(ObjectType, Checksum)>, Error> {
        let loaded = self.load_commit(commit)?;
        let mut objects = Objects::default();
        self.reach(&loaded.root_tree, &loaded.root_meta, &mut objects)?;
        let mut all = vec![(ObjectType::Commit, *commit)];
        all.extend(objects.dirtrees.into_iter().map(|c| (ObjectType::DirTree, c)));
        all.extend(objects.dirmetas.into_iter().map(|c| (ObjectType::DirMeta, c)));
        all.extend(objects.files.into_iter().map(|c| (ObjectType::File, c)));
        all.sort();
        Ok(all)
    }

    /// What is at `path` in the tree of a commit.
    pub fn lookup(&self, commit: &Checksum, path: &str) -> Result<Option<Entry>, Error> {
        let commit = self.load_commit(commit)?;
        self.lookup_in(&commit.root_tree, &commit.root_meta, path)
    }

    /// The same in a tree that no commit has.
    pub fn lookup_in(&self, tree: &Checksum, meta: &Checksum, path: &str) -> Result<Option<Entry>, Error> {
        let mut entry = Entry::Dir { tree: *tree, meta: *meta };
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            let Entry::Dir { tree, .. } = entry else { return Ok(None) };
            let tree = self.load_dirtree(&tree)?;
            let file = tree.files.iter().find(|f| f.0 == part).map(|f| Entry::File { checksum: f.1 });
            let dir = || tree.dirs.iter().find(|d| d.0 == part).map(|d| Entry::Dir { tree: d.1, meta: d.2 });
            match file.or_else(dir) {
                Some(found) => entry = found,
                None => return Ok(None),
            }
        }
        Ok(Some(entry))
    }
}
