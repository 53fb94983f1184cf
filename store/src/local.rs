//! Files of this machine, and the names they would have as objects.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::Digest as _;

use crate::object::{DirMeta, FileMeta};
use crate::repo::{file_xattrs, link_xattrs};
use crate::{Checksum, Error};

/// What of a file counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Leave extended attributes out.
    pub ignore_xattrs: bool,
    /// An owner in place of the file's own.
    pub uid: Option<u32>,
    /// A group in place of the file's own.
    pub gid: Option<u32>,
}

/// The checksum that a regular file or symbolic link would have as a file object, and a directory as a dirmeta object.
pub fn checksum(path: &Path, options: &Options) -> Result<Checksum, Error> {
    let io = |e| Error::io(format!("reading {}", path.display()), e);
    let stat = fs::symlink_metadata(path).map_err(io)?;
    let xattrs = match (options.ignore_xattrs, stat.is_symlink()) {
        (true, _) => Vec::new(),
        (_, true) => link_xattrs(path).map_err(io)?,
        _ => file_xattrs(File::open(path).map_err(io)?).map_err(io)?,
    };
    let (uid, gid) = (options.uid.unwrap_or(stat.uid()), options.gid.unwrap_or(stat.gid()));
    let mode = stat.mode();
    if stat.is_dir() {
        return Ok(Checksum::of(&DirMeta { uid, gid, mode, xattrs }.encode()));
    }
    let symlink = match stat.is_symlink() {
        true => Some(fs::read_link(path).map_err(io)?),
        false => None,
    };
    let symlink = symlink.map(|target| {
        let text = target.into_os_string().into_string();
        text.map_err(|_| Error::invalid(format!("{}: the target of the link is not UTF-8", path.display())))
    });
    let meta = FileMeta { uid, gid, mode, symlink: symlink.transpose()?, xattrs, size: stat.len() };
    let mut hasher = meta.hasher();
    if stat.is_file() {
        io::copy(&mut File::open(path).map_err(io)?, &mut hasher).map_err(io)?;
    } else if !stat.is_symlink() {
        return Err(Error::invalid(format!("{} is neither file, link nor directory", path.display())));
    }
    Ok(Checksum(hasher.finalize().into()))
}
