//! What differs between two trees: of commits, or of directories of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::{Checksum, Error, Repo, local};

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

/// One side of a comparison.
#[derive(Clone, Debug)]
pub enum Side {
    /// The tree of a commit.
    Commit(Checksum),
    /// A directory of this machine.
    Directory(PathBuf),
}

/// What counts as a difference.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Extended attributes do not.
    pub ignore_xattrs: bool,
    /// The owner of files in a directory.
    pub uid: Option<u32>,
    /// The group of files in a directory.
    pub gid: Option<u32>,
}

/// The paths that differ between two commits, in order. A directory that is only in one of them stands for all below.
pub fn diff(repo: &Repo, from: &Checksum, to: &Checksum) -> Result<Vec<(String, Change)>, Error> {
    let (from, to) = (Side::Commit(*from), Side::Commit(*to));
    let mut changes = Walk { repo, options: Options::default(), whole: false, changes: Vec::new() }.run(&from, &to)?;
    changes.sort();
    Ok(changes)
}

/// The paths that differ, in the order in which a walk through both trees meets them: files of a directory, then its
/// directories, what the first has before what only the second has. A directory that was added is followed by all that
/// is in it; one that was removed stands alone.
pub fn walk(repo: &Repo, from: &Side, to: &Side, options: &Options) -> Result<Vec<(String, Change)>, Error> {
    Walk { repo, options: *options, whole: true, changes: Vec::new() }.run(from, to)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// In a commit: names and metadata.
    Tree(Checksum, Checksum),
    /// On this machine.
    Directory(PathBuf),
    /// A file or link of a commit.
    Object(Checksum),
    /// A file or link of this machine.
    File(PathBuf),
}

impl Node {
    fn is_dir(&self) -> bool {
        matches!(self, Node::Tree(..) | Node::Directory(_))
    }
}

/// Names with what they are, files before directories.
type Names = Vec<(String, Node)>;

struct Walk<'a> {
    repo: &'a Repo,
    options: Options,
    /// Whether what is in an added directory is named, and the root is not.
    whole: bool,
    changes: Vec<(String, Change)>,
}

impl Walk<'_> {
    fn run(mut self, from: &Side, to: &Side) -> Result<Vec<(String, Change)>, Error> {
        let (from, to) = (self.root(from)?, self.root(to)?);
        if !self.whole && self.name_of(&from)? != self.name_of(&to)? {
            self.changes.push(("/".to_owned(), Change::Modified));
        }
        self.dirs("", &from, &to)?;
        Ok(self.changes)
    }

    fn root(&self, side: &Side) -> Result<Node, Error> {
        Ok(match side {
            Side::Commit(commit) => {
                let commit = self.repo.load_commit(commit)?;
                Node::Tree(commit.root_tree, commit.root_meta)
            }
            Side::Directory(path) => Node::Directory(path.clone()),
        })
    }

    fn names(&self, node: &Node) -> Result<Names, Error> {
        match node {
            Node::Tree(tree, _) => {
                let tree = self.repo.load_dirtree(tree)?;
                let files = tree.files.into_iter().map(|(name, checksum)| (name, Node::Object(checksum)));
                let dirs = tree.dirs.into_iter().map(|(name, tree, meta)| (name, Node::Tree(tree, meta)));
                Ok(files.chain(dirs).collect())
            }
            Node::Directory(path) => {
                let io = |e| Error::io(format!("reading {}", path.display()), e);
                let mut sorted = BTreeMap::new();
                for entry in fs::read_dir(path).map_err(io)? {
                    let entry = entry.map_err(io)?;
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let dir = entry.file_type().map_err(io)?.is_dir();
                    let node = if dir { Node::Directory(entry.path()) } else { Node::File(entry.path()) };
                    sorted.insert((dir, name), node);
                }
                Ok(sorted.into_iter().map(|((_, name), node)| (name, node)).collect())
            }
            Node::Object(_) | Node::File(_) => Ok(Vec::new()),
        }
    }

    /// What two things have in common if they are the same. Of a directory, its metadata alone.
    fn name_of(&self, node: &Node) -> Result<Checksum, Error> {
        let Options { ignore_xattrs, uid, gid } = self.options;
        match node {
            Node::Tree(_, meta) if ignore_xattrs => {
                let meta = crate::DirMeta { xattrs: Vec::new(), ..self.repo.load_dirmeta(meta)? };
                Ok(Checksum::of(&meta.encode()))
            }
            Node::Object(checksum) if ignore_xattrs => {
                let mut object = self.repo.open_file(checksum)?;
                object.meta.xattrs.clear();
                let mut hasher = object.meta.hasher();
                std::io::copy(&mut object.content, &mut hasher)
                    .map_err(|e| Error::io(format!("reading file {checksum}"), e))?;
                Ok(Checksum(sha2::Digest::finalize(hasher).into()))
            }
            Node::Tree(_, meta) => Ok(*meta),
            Node::Object(checksum) => Ok(*checksum),
            Node::Directory(path) | Node::File(path) => {
                local::checksum(path, &local::Options { ignore_xattrs, uid, gid })
            }
        }
    }

    /// Whether one is a link and the other a file: then they differ, whatever they hold.
    fn same(&self, a: &Node, b: &Node) -> Result<bool, Error> {
        Ok(a == b || self.name_of(a)? == self.name_of(b)?)
    }

    fn dirs(&mut self, path: &str, from: &Node, to: &Node) -> Result<(), Error> {
        // Equal names, equal trees: nothing below can differ.
        if let (Node::Tree(a, _), Node::Tree(b, _)) = (from, to) {
            if a == b {
                return Ok(());
            }
        }
        let (before, after) = (self.names(from)?, self.names(to)?);
        let by_name: BTreeMap<&str, &Node> = after.iter().map(|(name, node)| (name.as_str(), node)).collect();
        for (name, old) in &before {
            let child = format!("{path}/{name}");
            match by_name.get(name.as_str()) {
                None => self.changes.push((child, Change::Removed)),
                Some(new) if old.is_dir() != new.is_dir() => self.changes.push((child, Change::Modified)),
                Some(new) => {
                    if !self.same(old, new)? {
                        self.changes.push((child.clone(), Change::Modified));
                    }
                    if old.is_dir() {
                        self.dirs(&child, old, new)?;
                    }
                }
            }
        }
        let old: BTreeMap<&str, &Node> = before.iter().map(|(name, node)| (name.as_str(), node)).collect();
        for (name, node) in after.iter().filter(|(name, _)| !old.contains_key(name.as_str())) {
            self.added(format!("{path}/{name}"), node)?;
        }
        Ok(())
    }

    fn added(&mut self, path: String, node: &Node) -> Result<(), Error> {
        self.changes.push((path.clone(), Change::Added));
        if self.whole && node.is_dir() {
            for (name, node) in self.names(node)? {
                self.added(format!("{path}/{name}"), &node)?;
            }
        }
        Ok(())
    }
}
