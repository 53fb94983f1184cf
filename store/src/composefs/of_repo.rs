//! From a commit to the tree of its image.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::tree::{Kind, Node};
use super::{Image, image_of};
use crate::digests::Digests;
use crate::import::lock;
use crate::repo::{Objects, Repo};
use crate::{Checksum, Error, ObjectType, object_path};

/// Directories a root file system needs as mount points; libostree adds those that a tree lacks.
const MOUNT_POINTS: [&[u8]; 5] = [b"usr", b"etc", b"boot", b"var", b"sysroot"];
/// No tree is this deep.
const MAX_DEPTH: usize = 1024;
/// Sharing makes it cheap to describe more paths than anyone can visit.
const MAX_ENTRIES: usize = 1 << 24;

/// The image of a commit: what libostree writes as `.ostree.cfs`.
pub fn image(repo: &Repo, commit: &Checksum) -> Result<Image, Error> {
    let commit = repo.load_commit(commit)?;
    image_of_tree(repo, &commit.root_tree, &commit.root_meta)
}

/// The image of a commit without digests of files: it tells what is where, and not whether that is still the same.
pub fn image_without_verity(repo: &Repo, commit: &Checksum) -> Result<Image, Error> {
    let commit = repo.load_commit(commit)?;
    let mut root = tree_of(repo, &commit.root_tree, &commit.root_meta)?;
    forget_digests(&mut root);
    made(&root)
}

fn forget_digests(node: &mut Node) {
    match &mut node.kind {
        Kind::Dir(children) => children.values_mut().for_each(forget_digests),
        Kind::File { digest, .. } => *digest = None,
        Kind::Symlink(_) => {}
    }
}

/// The image of a tree, which need not belong to a commit yet.
pub fn image_of_tree(repo: &Repo, tree: &Checksum, meta: &Checksum) -> Result<Image, Error> {
    made(&tree_of(repo, tree, meta)?)
}

fn made(root: &Node) -> Result<Image, Error> {
    image_of(root).map_err(|e| Error::invalid(format!("the tree cannot become a composefs image: {e}")))
}

/// The tree of the image, mount points included.
pub fn tree_of(repo: &Repo, tree: &Checksum, meta: &Checksum) -> Result<Node, Error> {
    let mut objects = Objects::default();
    repo.reach(tree, meta, &mut objects)?;
    let files = load_files(repo, objects.files.into_iter().collect())?;
    let mut entries = 0;
    let mut root = directory(repo, &files, tree, meta, 0, &mut entries)?;
    if let Kind::Dir(children) = &mut root.kind {
        for name in MOUNT_POINTS {
            children.entry(name.to_vec()).or_insert_with(Node::empty_dir);
        }
    }
    Ok(root)
}

fn directory(
    repo: &Repo,
    files: &HashMap<Checksum, Node>,
    tree: &Checksum,
    meta: &Checksum,
    depth: usize,
    entries: &mut usize,
) -> Result<Node, Error> {
    let names = repo.load_dirtree(tree)?;
    let meta = repo.load_dirmeta(meta)?;
    *entries += 1 + names.files.len() + names.dirs.len();
    if depth > MAX_DEPTH || *entries > MAX_ENTRIES {
        return Err(Error::invalid("the tree is too deep or has too many files"));
    }
    let mut children = BTreeMap::new();
    for (name, checksum) in names.files {
        let node = files.get(&checksum).ok_or(Error::Missing { kind: ObjectType::File, checksum })?;
        children.insert(name.into_bytes(), node.clone());
    }
    for (name, tree, meta) in names.dirs {
        children.insert(name.into_bytes(), directory(repo, files, &tree, &meta, depth + 1, entries)?);
    }
    Ok(Node {
        uid: meta.uid,
        gid: meta.gid,
        permissions: (meta.mode & 0o7777) as u16,
        xattrs: meta.xattrs.into_iter().collect(),
        kind: Kind::Dir(children),
    })
}

/// Owner, mode and digest of every file object, on all cores.
fn load_files(repo: &Repo, objects: Vec<Checksum>) -> Result<HashMap<Checksum, Node>, Error> {
    let digests = repo.digests()?;
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(Checksum, Node)>> = Mutex::new(Vec::with_capacity(objects.len()));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        let mut mine = Vec::new();
        while let Some(checksum) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
            match load_file(repo, checksum, &digests) {
                Ok(node) => mine.push((*checksum, node)),
                Err(error) => {
                    // Everyone stops at the next object.
                    next.store(objects.len(), Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
            }
        }
        lock(&results).append(&mut mine);
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    digests.save()?;
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(results.into_iter().collect())
}

/// One file object as a node. Its content is read only where its digest is not known.
fn load_file(repo: &Repo, checksum: &Checksum, digests: &Digests) -> Result<Node, Error> {
    let mut object = repo.open_file(checksum)?;
    let meta = &mut object.meta;
    let (permissions, xattrs) = ((meta.mode & 0o7777) as u16, std::mem::take(&mut meta.xattrs));
    let (uid, gid, size) = (meta.uid, meta.gid, meta.size);
    let kind = match meta.symlink.take() {
        Some(target) => Kind::Symlink(target.into_bytes()),
        None => {
            let digest = if size == 0 { None } else { Some(digests.of_object(repo, checksum, object)?) };
            Kind::File { size, payload: object_path(ObjectType::File, checksum), digest }
        }
    };
    Ok(Node { uid, gid, permissions, xattrs: xattrs.into_iter().collect(), kind })
}
