//! What a directory holds, by relative path.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use store::Xattrs;

use crate::tree::{Tree, TreeError, Visited};

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A directory.
    Dir,
    /// A regular file, by the SHA-256 of its content.
    File([u8; 32]),
    /// A symbolic link and where it points.
    Link(Vec<u8>),
    /// A socket, pipe or device: never carried over.
    Special,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub what: What,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes that count.
    pub xattrs: Xattrs,
}

impl Node {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.what == What::Dir
    }
}

/// Everything below a directory, and the directory itself under the empty path. A path comes after its parents.
pub type Snapshot = BTreeMap<PathBuf, Node>;

/// Reads a directory on disk. A missing one is empty.
pub fn of_directory(dir: &Path) -> io::Result<Snapshot> {
    // The top may be reached through a link; what is below it is taken as it is.
    let mut snapshot = Snapshot::new();
    match fs::canonicalize(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(snapshot),
        Err(e) => return Err(e),
        Ok(dir) => visit(&dir, Path::new(""), &mut snapshot)?,
    }
    Ok(snapshot)
}

fn visit(top: &Path, relative: &Path, snapshot: &mut Snapshot) -> io::Result<()> {
    let path = if relative.as_os_str().is_empty() { top.to_owned() } else { top.join(relative) };
    // A file may vanish between listing and reading: /etc is live.
    let Some(metadata) = present(fs::symlink_metadata(&path))? else { return Ok(()) };
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        What::Dir
    } else if kind.is_file() {
        match present(hash(&path))? {
            Some(hash) => What::File(hash),
            None => return Ok(()),
        }
    } else if kind.is_symlink() {
        match present(fs::read_link(&path))? {
            Some(target) => What::Link(target.into_os_string().into_vec()),
            None => return Ok(()),
        }
    } else {
        debug_assert!(kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device());
        What::Special
    };
    let mode = if kind.is_symlink() { 0o777 } else { metadata.mode() & 0o7777 };
    let xattrs = if kind.is_symlink() { Xattrs::new() } else { read_xattrs(&path)? };
    let is_dir = what == What::Dir;
    snapshot.insert(relative.to_owned(), Node { what, mode, uid: metadata.uid(), gid: metadata.gid(), xattrs });
    if is_dir {
        for entry in fs::read_dir(&path)? {
            visit(top, &relative.join(entry?.file_name()), snapshot)?;
        }
    }
    Ok(())
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    hash_reader(&mut File::open(path)?)
}

fn hash_reader(reader: &mut dyn Read) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = [0; 1 << 15];
    loop {
        let n = reader.read(&mut buffer)?;
        if n == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&buffer[..n]);
    }
}

/// Attributes of the storage, not of the file: they differ between an overlay and a plain file system.
fn counts(name: &[u8]) -> bool {
    !(name.starts_with(b"trusted.") || name.starts_with(b"user.ostree") || name == b"security.selinux")
}

/// The extended attributes of a file that count, sorted.
pub(super) fn read_xattrs(path: &Path) -> io::Result<Xattrs> {
    let mut names = vec![0_u8; 4096];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOENT) => return Ok(Xattrs::new()),
        Err(e) => return Err(e.into()),
    };
    let mut xattrs = Xattrs::new();
    for name in names[..length].split(|&b| b == 0).filter(|n| !n.is_empty() && counts(n)) {
        let name_c = CString::new(name).map_err(io::Error::other)?;
        let mut value = vec![0_u8; 65536];
        match rustix::fs::lgetxattr(path, name_c.as_c_str() as &CStr, &mut value[..]) {
            Ok(length) => xattrs.push((name.to_vec(), value[..length].to_vec())),
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Reads the directory `path` of a tree.
pub fn of_tree(tree: &Tree<'_>, path: &str) -> Result<Snapshot, TreeError> {
    let mut snapshot = Snapshot::new();
    let dir = |meta: &store::DirMeta| Node {
        what: What::Dir,
        mode: meta.mode & 0o7777,
        uid: meta.uid,
        gid: meta.gid,
        xattrs: meta.xattrs.iter().filter(|x| counts(&x.0)).cloned().collect(),
    };
    let Some(top) = tree.dir_meta(path)? else { return Ok(snapshot) };
    snapshot.insert(PathBuf::new(), dir(&top));
    tree.walk::<TreeError>(path, &mut |relative, item| {
        let node = match item {
            Visited::Dir(meta) => dir(meta),
            Visited::File(checksum) => {
                let (meta, mut content) = tree.open_file(checksum)?;
                let what = match &meta.symlink {
                    Some(target) => What::Link(Path::new(target).as_os_str().as_bytes().to_vec()),
                    None => What::File(
                        hash_reader(&mut *content)
                            .map_err(|e| TreeError::Read(format!("{path}/{relative}"), tree.checksum, e))?,
                    ),
                };
                let mode = if meta.symlink.is_some() { 0o777 } else { meta.mode & 0o7777 };
                let xattrs = meta.xattrs.iter().filter(|x| counts(&x.0)).cloned().collect();
                Node { what, mode, uid: meta.uid, gid: meta.gid, xattrs }
            }
        };
        snapshot.insert(PathBuf::from(relative), node);
        Ok(())
    })?;
    Ok(snapshot)
}
