//! File objects of a repository of mode `bare`: the file itself, with its true owner, mode and attributes. Those of
//! mode `bare-user-only` are the same without owner and attributes, and so only some files can be kept there.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode as Bits, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};

use crate::object::FileMeta;

/// Objects are as old as can be: a tool that compares times must not see two checkouts differ.
const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

/// Gives a regular file, whose content is complete, everything else it has.
pub(super) fn seal(file: &File, meta: &FileMeta) -> io::Result<()> {
    // In this order: a new owner loses setuid and capabilities.
    rustix::fs::fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    rustix::fs::fchmod(file, Bits::from_raw_mode(meta.mode & 0o7777))?;
    for (name, value) in &meta.xattrs {
        rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(file, &TIMES)?;
    Ok(())
}

/// Refuses what a repository of mode `bare-user-only` cannot give back as it was.
pub(super) fn check_user_only(meta: &FileMeta) -> io::Result<()> {
    let bits = if meta.symlink.is_some() { 0 } else { meta.mode & 0o7777 & !0o775 };
    let why = match meta {
        FileMeta { uid: 0, gid: 0, .. } if bits != 0 => format!("mode {:04o}", meta.mode & 0o7777),
        FileMeta { uid: 0, gid: 0, xattrs, .. } if xattrs.is_empty() => return Ok(()),
        FileMeta { uid: 0, gid: 0, .. } => "extended attributes".to_owned(),
        FileMeta { uid, gid, .. } => format!("the owner {uid}:{gid}"),
    };
    let why = format!("a file with {why} cannot be kept in a repository of mode bare-user-only");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Gives a regular file its mode and nothing else.
pub(super) fn seal_plain(file: &File, mode: u32) -> io::Result<()> {
    rustix::fs::fchmod(file, Bits::from_raw_mode(mode & 0o775))?;
    Ok(rustix::fs::futimens(file, &TIMES)?)
}

/// Puts a symbolic link in the place of the file `name`, as it comes.
pub(super) fn link_plain(fd: impl AsFd, name: &str, target: &str) -> io::Result<()> {
    let fd = fd.as_fd();
    rustix::fs::unlinkat(fd, name, AtFlags::empty())?;
    rustix::fs::symlinkat(target, fd, name)?;
    Ok(rustix::fs::utimensat(fd, name, &TIMES, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Puts a symbolic link in the place of the file `name`. `dir` and `fd` are the same directory.
pub(super) fn link(dir: &Path, fd: impl AsFd, name: &str, target: &str, meta: &FileMeta) -> io::Result<()> {
    let fd = fd.as_fd();
    rustix::fs::unlinkat(fd, name, AtFlags::empty())?;
    rustix::fs::symlinkat(target, fd, name)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(fd, name, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)), flags)?;
    for (attribute, value) in &meta.xattrs {
        rustix::fs::lsetxattr(dir.join(name), attribute.as_slice(), value, XattrFlags::empty())?;
    }
    rustix::fs::utimensat(fd, name, &TIMES, flags)?;
    Ok(())
}
