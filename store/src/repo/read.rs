//! Reading objects.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use flate2::bufread::DeflateDecoder;
use rustix::fs::{AtFlags, Dir, Mode as Bits, OFlags};
use rustix::io::Errno;

use super::{Mode, Repo};
use crate::object::{self, FileMeta, MAX_METADATA, ObjectType, S_IFLNK, S_IFMT, Xattrs};
use crate::value::{self, Dict, Malformed};
use crate::{Checksum, Commit, DirMeta, DirTree, Error};

/// Name of the xattr that holds owner, mode and xattrs in a bare-user repository.
pub(super) const OSTREE_META: &str = "user.ostreemeta";

/// A file object that was opened: what it is, and its content.
pub struct FileObject {
    /// Owner, mode, xattrs, target, size.
    pub meta: FileMeta,
    /// Exactly `meta.size` bytes, or an error: an object that ends early or goes on is never mistaken for a whole one.
    pub content: Box<dyn Read + Send>,
}

/// Reads exactly as many bytes as were declared.
pub(crate) struct Exact<R> {
    inner: R,
    left: u64,
    done: bool,
}

impl<R: Read> Exact<R> {
    pub(crate) fn new(inner: R, size: u64) -> Self {
        Exact { inner, left: size, done: false }
    }
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.done {
            return Ok(0);
        }
        if self.left == 0 {
            // A compressed stream that goes on after the declared size is stopped here, whatever it would expand to.
            if self.inner.read(&mut [0])? != 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than its header says"));
            }
            self.done = true;
            return Ok(0);
        }
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..want])?;
        if count == 0 {
            let why = format!("truncated: {} bytes are missing", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Reads the framed header of a `.filez` and leaves `reader` at the deflate stream.
pub(crate) fn read_filez_header(reader: &mut impl Read) -> io::Result<FileMeta> {
    let mut frame = [0; 8];
    reader.read_exact(&mut frame)?;
    let [a, b, c, d, padding @ ..] = frame;
    let length = u32::from_be_bytes([a, b, c, d]);
    if padding != [0; 4] || u64::from(length) > 16 << 20 {
        return Err(invalid(Malformed("header of a .filez".into())));
    }
    let mut header = Vec::new();
    reader.by_ref().take(u64::from(length)).read_to_end(&mut header)?;
    if header.len() != length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    FileMeta::decode_filez(&header).map_err(invalid)
}

/// The metadata at the beginning of a `.filez`.
pub(crate) fn filez_meta(mut bytes: &[u8]) -> io::Result<FileMeta> {
    read_filez_header(&mut bytes)
}

/// The content that follows the header of a `.filez`, decompressed.
pub(crate) fn filez_content<R: io::BufRead + Send + 'static>(meta: &FileMeta, reader: R) -> Box<dyn Read + Send> {
    if meta.symlink.is_some() {
        Box::new(Exact::new(reader, 0))
    } else {
        Box::new(Exact::new(DeflateDecoder::new(reader), meta.size))
    }
}

pub(crate) fn invalid(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Repo {
    fn extension(&self, kind: ObjectType) -> &'static str {
        if kind == ObjectType::File && self.mode == Mode::Archive { "filez" } else { kind.extension() }
    }

    /// Where an object lies below `objects/` in this repository.
    pub fn loose_path(&self, kind: ObjectType, checksum: &Checksum) -> String {
        object::path_with_extension(checksum, self.extension(kind))
    }

    pub(super) fn objects_dir(&self) -> &OwnedFd {
        &self.objects
    }

    /// Whether the object is here. It is not read.
    pub fn has(&self, kind: ObjectType, checksum: &Checksum) -> bool {
        rustix::fs::statat(&self.objects, self.loose_path(kind, checksum), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Bytes an object occupies in this repository.
    pub fn stored_size(&self, kind: ObjectType, checksum: &Checksum) -> Result<u64, Error> {
        let stat = rustix::fs::statat(&self.objects, self.loose_path(kind, checksum), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.object_error(kind, checksum, e.into()))?;
        Ok(stat.st_size.unsigned_abs())
    }

    pub(super) fn object_error(&self, kind: ObjectType, checksum: &Checksum, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
            return Error::Missing { kind, checksum: *checksum };
        }
        Error::io(format!("reading {}/objects/{}", self.path.display(), self.loose_path(kind, checksum)), error)
    }

    /// Opens the file in which an object is kept, whatever its form.
    pub fn open_raw(&self, kind: ObjectType, checksum: &Checksum) -> Result<File, Error> {
        self.open_path(&self.loose_path(kind, checksum)).map_err(|e| self.object_error(kind, checksum, e))
    }

    fn open_path(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::openat(&self.objects, path, flags, Bits::empty())?))
    }

    /// The bytes of a metadata object, whose checksum has been verified.
    pub fn load_metadata(&self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, Error> {
        let bytes = self
            .open_raw(kind, checksum)
            .and_then(|file| read_limited(file).map_err(|e| self.object_error(kind, checksum, e)))?;
        let found = Checksum::of(&bytes);
        if found != *checksum {
            return Err(Error::Mismatch { kind, expected: *checksum, found });
        }
        Ok(bytes)
    }

    fn load<T>(
        &self,
        kind: ObjectType,
        checksum: &Checksum,
        decode: fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T, Error> {
        let bytes = self.load_metadata(kind, checksum)?;
        decode(&bytes).map_err(|source| Error::Malformed { kind, checksum: *checksum, source })
    }

    /// Reads and verifies a commit.
    pub fn load_commit(&self, checksum: &Checksum) -> Result<Commit, Error> {
        self.load(ObjectType::Commit, checksum, Commit::decode)
    }

    /// Reads and verifies the names of a directory.
    pub fn load_dirtree(&self, checksum: &Checksum) -> Result<DirTree, Error> {
        self.load(ObjectType::DirTree, checksum, DirTree::decode)
    }

    /// Reads and verifies the metadata of a directory.
    pub fn load_dirmeta(&self, checksum: &Checksum) -> Result<DirMeta, Error> {
        self.load(ObjectType::DirMeta, checksum, DirMeta::decode)
    }

    /// The detached metadata of a commit (signatures), if it has any. Nothing vouches for it but what it holds.
    pub fn load_detached(&self, commit: &Checksum) -> Result<Option<Dict>, Error> {
        let path = object::path_with_extension(commit, "commitmeta");
        let what = || format!("reading {}/objects/{path}", self.path.display());
        let bytes = match self.open_path(&path).and_then(read_limited) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|e| Error::io(what(), e))?,
        };
        value::decode_dict(&bytes).map(Some).map_err(|e| Error::io(what(), invalid(e)))
    }

    /// Writes the detached metadata of a commit, durably and at once.
    pub fn write_detached(&self, commit: &Checksum, detached: &Dict) -> Result<(), Error> {
        let path = self.path.join("objects").join(object::path_with_extension(commit, "commitmeta"));
        let io = |e| Error::io(format!("writing {}", path.display()), e);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        sys::file::replace(&path, &value::encode_dict(detached), 0o644).map_err(io)
    }

    /// Opens a file object. The content is checked for its length, not for its checksum: `verify_file` does that.
    pub fn open_file(&self, checksum: &Checksum) -> Result<FileObject, Error> {
        self.open_file_io(checksum).map_err(|e| self.object_error(ObjectType::File, checksum, e))
    }

    fn open_file_io(&self, checksum: &Checksum) -> io::Result<FileObject> {
        let path = self.loose_path(ObjectType::File, checksum);
        match self.mode {
            Mode::Archive => {
                let mut reader = BufReader::with_capacity(64 << 10, self.open_path(&path)?);
                let meta = read_filez_header(&mut reader)?;
                let content = filez_content(&meta, reader);
                Ok(FileObject { meta, content })
            }
            Mode::BareUser => open_bare_user(self.open_path(&path)?),
            Mode::Bare => self.open_bare(&path),
            Mode::BareUserOnly => {
                let mut object = self.open_bare(&path)?;
                // Whoever keeps it, it is root's.
                (object.meta.uid, object.meta.gid, object.meta.xattrs) = (0, 0, Vec::new());
                Ok(object)
            }
        }
    }

    fn open_bare(&self, path: &str) -> io::Result<FileObject> {
        let stat = rustix::fs::statat(&self.objects, path, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_link = stat.st_mode & S_IFMT == S_IFLNK;
        let (symlink, xattrs, file) = if is_link {
            let target = rustix::fs::readlinkat(&self.objects, path, Vec::new())?;
            let target = target.into_string().map_err(|_| invalid(Malformed("link target is not UTF-8".into())))?;
            let full = self.path.join("objects").join(path);
            (Some(target), link_xattrs(&full)?, None)
        } else {
            let file = self.open_path(path)?;
            (None, file_xattrs(&file)?, Some(file))
        };
        let size = if is_link { 0 } else { stat.st_size.unsigned_abs() };
        let meta = FileMeta { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode, symlink, xattrs, size };
        let content: Box<dyn Read + Send> = match file {
            Some(file) => Box::new(Exact::new(file, size)),
            None => Box::new(io::empty()),
        };
        Ok(FileObject { meta, content })
    }

    /// Owner, mode, xattrs, target and size of a file object, without its content.
    pub fn load_file_meta(&self, checksum: &Checksum) -> Result<FileMeta, Error> {
        Ok(self.open_file(checksum)?.meta)
    }

    /// Every object in the repository, sorted.
    pub fn all_objects(&self) -> Result<Vec<(ObjectType, Checksum)>, Error> {
        let kinds = [ObjectType::File, ObjectType::DirTree, ObjectType::DirMeta, ObjectType::Commit];
        let extensions = kinds.map(|kind| (kind, self.extension(kind)));
        let mut objects = Vec::new();
        for dir in 0..=255u8 {
            let dir = format!("{dir:02x}");
            for name in self.names_in(&dir)? {
                let Some((digits, extension)) = name.split_once('.') else { continue };
                let kind = extensions.iter().find(|(_, e)| *e == extension).map(|(kind, _)| *kind);
                if let (Some(kind), Ok(checksum)) = (kind, format!("{dir}{digits}").parse()) {
                    objects.push((kind, checksum));
                }
            }
        }
        objects.sort();
        Ok(objects)
    }

    /// Device and inode of every file object that is what a checkout would link to.
    pub(crate) fn object_inodes(&self) -> Result<HashMap<(u64, u64), Checksum>, Error> {
        let mut inodes = HashMap::new();
        if self.mode == Mode::Archive {
            return Ok(inodes);
        }
        for dir in 0..=255u8 {
            for checksum in self.list(ObjectType::File, &format!("{dir:02x}"))? {
                let path = self.loose_path(ObjectType::File, &checksum);
                // One that another process deletes meanwhile is not there.
                if let Ok(stat) = rustix::fs::statat(&self.objects, path, AtFlags::SYMLINK_NOFOLLOW) {
                    inodes.insert((stat.st_dev, stat.st_ino), checksum);
                }
            }
        }
        Ok(inodes)
    }

    /// Deletes an object; a missing one is fine. The caller holds the exclusive lock.
    pub fn delete_object(&self, kind: ObjectType, checksum: &Checksum) -> Result<(), Error> {
        let mut paths = vec![self.path.join("objects").join(self.loose_path(kind, checksum))];
        if kind == ObjectType::Commit {
            paths.push(self.path.join("objects").join(object::path_with_extension(checksum, "commitmeta")));
            paths.push(self.partial_path(checksum));
        }
        for path in paths {
            sys::file::remove(&path).map_err(|e| Error::io(format!("deleting {}", path.display()), e))?;
        }
        Ok(())
    }

    /// When an object came to this repository: when its inode last changed.
    pub(crate) fn arrived(&self, kind: ObjectType, checksum: &Checksum) -> Option<u64> {
        let path = self.loose_path(kind, checksum);
        let stat = rustix::fs::statat(&self.objects, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        u64::try_from(stat.st_ctime).ok()
    }

    /// Writes that a commit was deleted on purpose, so that a client learns it rather than believe in a fault.
    pub fn write_tombstone(&self, commit: &Checksum) -> Result<(), Error> {
        let path = self.path.join("objects").join(object::path_with_extension(commit, "tombstone-commit"));
        let mut text = commit.to_hex().into_bytes();
        text.push(0);
        let dict = Dict::from([("commit".to_owned(), value::Value::Bytes(text))]);
        let io = |e| Error::io(format!("writing {}", path.display()), e);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        sys::file::replace(&path, &value::encode_dict(&dict), 0o644).map_err(io)
    }

    /// The file that says that some objects of a commit were not fetched yet.
    pub(crate) fn partial_path(&self, commit: &Checksum) -> std::path::PathBuf {
        self.path.join("state").join(format!("{commit}.commitpartial"))
    }

    /// Whether some objects of a commit may not have been fetched.
    pub fn is_partial(&self, commit: &Checksum) -> bool {
        self.partial_path(commit).exists()
    }

    /// The names of all objects of one kind whose first two digits are `dir`.
    pub(super) fn list(&self, kind: ObjectType, dir: &str) -> Result<Vec<Checksum>, Error> {
        let suffix = format!(".{}", self.extension(kind));
        let mut found = Vec::new();
        for name in self.names_in(dir)? {
            let digits = name.strip_suffix(suffix.as_str());
            found.extend(digits.and_then(|digits| format!("{dir}{digits}").parse::<Checksum>().ok()));
        }
        Ok(found)
    }

    /// The file names in `objects/DIR`, sorted.
    pub(crate) fn names_in(&self, dir: &str) -> Result<Vec<String>, Error> {
        let io = |e: Errno| Error::io(format!("reading {}/objects/{dir}", self.path.display()), e.into());
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.objects, dir, flags, Bits::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            fd => fd.map_err(io)?,
        };
        let mut names = Vec::new();
        for entry in Dir::new(fd).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn read_limited(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_METADATA + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_METADATA {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than a metadata object may be"));
    }
    Ok(bytes)
}

fn open_bare_user(mut file: File) -> io::Result<FileObject> {
    let Some(bytes) = xattr(|buffer| rustix::fs::fgetxattr(&file, OSTREE_META, buffer))? else {
        return Err(invalid(Malformed(format!("no xattr {OSTREE_META}"))));
    };
    let size = file.metadata()?.len();
    if FileMeta::bare_user_mode(&bytes).map_err(invalid)? & S_IFMT == S_IFLNK {
        let mut target = Vec::new();
        file.by_ref().take(1 << 16).read_to_end(&mut target)?;
        // Older repositories hold the target without the NUL.
        if target.last() == Some(&0) {
            target.pop();
        }
        let target = String::from_utf8(target).map_err(|_| invalid(Malformed("link target is not UTF-8".into())))?;
        if target.contains('\0') {
            return Err(invalid(Malformed("link target with a NUL inside".into())));
        }
        let meta = FileMeta::decode_bare_user(&bytes, 0, Some(target)).map_err(invalid)?;
        return Ok(FileObject { meta, content: Box::new(io::empty()) });
    }
    let meta = FileMeta::decode_bare_user(&bytes, size, None).map_err(invalid)?;
    Ok(FileObject { meta, content: Box::new(Exact::new(file, size)) })
}

/// Calls a function that fills a buffer with an attribute until the buffer is large enough.
fn xattr(get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 256];
    loop {
        match get(&mut buffer) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 16, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}

fn all_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&OsStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Xattrs> {
    let Some(names) = xattr(list)? else { return Ok(Vec::new()) };
    let mut xattrs = Xattrs::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        // One that vanished between the two calls is not there. Nor is one without a value: libostree leaves it out, and
        // the same file must have the same checksum for both.
        if let Some(value) = xattr(|buffer| get(OsStr::from_bytes(name), buffer))?.filter(|value| !value.is_empty()) {
            xattrs.push((name.to_vec(), value));
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// The extended attributes of an open file or directory, sorted.
pub(crate) fn file_xattrs(file: impl std::os::fd::AsFd) -> io::Result<Xattrs> {
    let file = file.as_fd();
    all_xattrs(|buffer| rustix::fs::flistxattr(file, buffer), |name, buffer| rustix::fs::fgetxattr(file, name, buffer))
}

/// The extended attributes of a symbolic link, sorted.
pub(crate) fn link_xattrs(path: &std::path::Path) -> io::Result<Xattrs> {
    all_xattrs(|buffer| rustix::fs::llistxattr(path, buffer), |name, buffer| rustix::fs::lgetxattr(path, name, buffer))
}
