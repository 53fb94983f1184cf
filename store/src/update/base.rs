//! Old content, read where a patch points.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

use rustix::fs::{Mode as Bits, OFlags};

use super::elf;
use super::layer::Kind;
use super::wire::SourceEntry;
use crate::import::lock;
use crate::{Checksum, Error, Mode, ObjectType, Repo};

/// Content up to this size is unpacked in memory, larger content in a file that has no name.
const IN_MEMORY: u64 = 1 << 20;

enum Place {
    Memory(Vec<u8>),
    File(File),
    /// A file object that is kept as it is: opened when it is wanted. An initramfs has hundreds of them.
    Object(Checksum),
}

/// One or several pieces of old content, strung together.
pub(crate) struct Base<'r> {
    repo: &'r Repo,
    /// Where each piece begins.
    pieces: Vec<(u64, Place)>,
    len: u64,
    opened: Mutex<Option<(usize, File)>>,
}

/// A file without a name on the repository's file system: it is gone when it is closed, also after a crash.
pub(crate) fn nameless(repo: &Repo) -> Result<File, Error> {
    let tmp = repo.path().join("tmp");
    let io = |e: rustix::io::Errno| Error::io(format!("making a file in {}", tmp.display()), e.into());
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(&tmp, flags | OFlags::TMPFILE, Bits::from_raw_mode(0o600)) {
        Ok(fd) => Ok(File::from(fd)),
        // Not every file system can do that.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = tmp.join(format!("update-{}-{count}", std::process::id()));
            let fd = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, Bits::from_raw_mode(0o600));
            let file = File::from(fd.map_err(io)?);
            rustix::fs::unlink(&path).map_err(io)?;
            Ok(file)
        }
        Err(error) => Err(io(error)),
    }
}

impl<'r> Base<'r> {
    /// Nothing: a patch from it is all extra.
    pub fn empty(repo: &'r Repo) -> Self {
        Base { repo, pieces: Vec::new(), len: 0, opened: Mutex::new(None) }
    }

    /// Bytes in memory.
    pub fn of_bytes(repo: &'r Repo, bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        Base { repo, pieces: vec![(0, Place::Memory(bytes))], len, opened: Mutex::new(None) }
    }

    /// Adds the content of an object, as it is or turned. It must have exactly the size that was declared.
    pub fn add(&mut self, checksum: &Checksum, source: &SourceEntry, turned: bool) -> Result<(), Error> {
        let io = |e| Error::io(format!("reading file {checksum}"), e);
        if turned && source.size > elf::MAX {
            return Err(Error::invalid("a file too large to be turned"));
        }
        let place = if !turned && source.kind == Kind::Raw && self.repo.mode() != Mode::Archive {
            let file = self.repo.open_raw(ObjectType::File, checksum)?;
            if file.metadata().map_err(io)?.len() != source.size {
                return Err(Error::invalid(format!("file {checksum} does not have {} bytes", source.size)));
            }
            Place::Object(*checksum)
        } else {
            let object = self.repo.open_file(checksum)?;
            let mut content = source.kind.unpack(object.content).map_err(io)?.take(source.size + 1);
            let (place, found) = if turned || source.size <= IN_MEMORY {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes).map_err(io)?;
                let found = bytes.len() as u64;
                if turned {
                    elf::forth(&mut bytes);
                }
                (Place::Memory(bytes), found)
            } else {
                let mut file = nameless(self.repo)?;
                let found = io::copy(&mut content, &mut file).map_err(io)?;
                file.seek(SeekFrom::Start(0)).map_err(io)?;
                (Place::File(file), found)
            };
            if found != source.size {
                return Err(Error::invalid(format!("file {checksum} does not hold {} bytes", source.size)));
            }
            place
        };
        self.pieces.push((self.len, place));
        self.len = self.len.checked_add(source.size).ok_or_else(|| Error::invalid("too much old content"))?;
        Ok(())
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills the buffer from a place inside.
    pub fn read_at(&self, mut at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let index = self.pieces.partition_point(|(start, _)| *start <= at);
            let index = index.checked_sub(1).ok_or(io::ErrorKind::UnexpectedEof)?;
            let (start, place) = &self.pieces[index];
            let end = self.pieces.get(index + 1).map_or(self.len, |next| next.0);
            let count = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (part, rest) = buffer.split_at_mut(count);
            match place {
                Place::Memory(bytes) => {
                    let from = (at - start) as usize;
                    part.copy_from_slice(bytes.get(from..from + count).ok_or(io::ErrorKind::UnexpectedEof)?);
                }
                Place::File(file) => file.read_exact_at(part, at - start)?,
                Place::Object(checksum) => {
                    let mut opened = lock(&self.opened);
                    if opened.as_ref().is_none_or(|(number, _)| *number != index) {
                        let file = self.repo.open_raw(ObjectType::File, checksum).map_err(io::Error::other)?;
                        *opened = Some((index, file));
                    }
                    if let Some((_, file)) = &*opened {
                        file.read_exact_at(part, at - start)?;
                    }
                }
            }
            at += count as u64;
            buffer = rest;
        }
        Ok(())
    }
}
