//! One `.deb`: what it says about itself, and its files.
//!
//! ```text
//! debian-binary                  "2.0\n"
//! control.tar{,.gz,.xz,.zst}     control, conffiles, triggers, md5sums, templates, maintainer scripts
//! data.tar{,.gz,.xz,.zst}        the files
//! ```
//!
//! The files are decompressed once, into the *unpacked cache*: one plain `tar` for each `.deb`, named after the digest of
//! the `.deb`. Roots are filled from there by copying, so nothing that runs in a root can ever touch the cache.
//!
//! ```text
//! <cachedir>/unpacked/<sha256 of the .deb>.tar       data.tar, decompressed
//!                                                    16 bytes "slipway-data-1\n\0", 8 bytes length, 32 bytes sha256
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ar::{self, ArError};
use super::control::{Control, ControlError};
use super::source::Source;
use super::tar::{self, Entry, Kind, TarError};

/// Why a `.deb` was refused.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The outer archive is damaged.
    #[error(transparent)]
    Ar(#[from] ArError),
    /// A member is missing.
    #[error("it has no member {0}")]
    Member(&'static str),
    /// A format other than 2.
    #[error("its format is {0:?}; only 2.x is known")]
    Format(String),
    /// A compression that is not known.
    #[error("the compression of {0} is not known; known are none, .gz, .xz and .zst")]
    Compression(String),
    /// A member is larger than any package's.
    #[error("{0} is larger than {1} bytes when decompressed")]
    Bomb(String, u64),
    /// One of the inner archives is damaged or hostile.
    #[error("{0}")]
    Tar(&'static str, #[source] TarError),
    /// The control file makes no sense.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A control file is not text.
    #[error("its control file {0} is not text")]
    NotText(String),
    /// A conffile that is no plain path.
    #[error("its conffile {0:?} is not an absolute path")]
    Conffile(String),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
}

/// Largest control archive, decompressed. The largest in Debian is about 10 MiB.
const CONTROL_LIMIT: u64 = 64 << 20;
/// Largest data archive, decompressed.
const DATA_LIMIT: u64 = 16 << 30;
const MAGIC: &[u8; 16] = b"slipway-data-1\n\0";
const TRAILER: u64 = 16 + 8 + 32;

/// A package whose control part has been read.
#[derive(Debug)]
pub struct Deb {
    /// Where it lies.
    pub path: PathBuf,
    /// Its sha256, 64 hex digits: the key in the cache.
    pub sha256: String,
    /// The control file.
    pub control: Control,
    /// Every file of the control archive with its mode, `control` included.
    pub files: BTreeMap<String, (Vec<u8>, u32)>,
    /// Configuration files.
    pub conffiles: Vec<Conffile>,
    /// Length of the `.deb`.
    pub size: u64,
    data: ar::Member,
}

/// A line of the control file `conffiles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conffile {
    /// Without the leading slash.
    pub path: String,
    /// Not part of the package any more: an upgrade removes it. Such a file is only recorded.
    pub remove_on_upgrade: bool,
}

impl Deb {
    /// Whether a path of the package is a configuration file.
    pub fn is_conffile(&self, path: &str) -> bool {
        self.conffiles.iter().any(|c| !c.remove_on_upgrade && c.path == path)
    }

    /// Reads the control part.
    pub fn open(path: &Path, sha256: &str) -> Result<Self, DebError> {
        let file = File::open(path).map_err(|e| DebError::Io("opening it", e))?;
        let members = ar::members(&file)?;
        let first = members.first().filter(|m| m.name == "debian-binary").ok_or(DebError::Member("debian-binary"))?;
        let mut format = vec![0; first.size.min(16) as usize];
        file.read_exact_at(&mut format, first.offset).map_err(|e| DebError::Io("reading it", e))?;
        if !format.starts_with(b"2.") {
            return Err(DebError::Format(String::from_utf8_lossy(&format).trim_end().to_owned()));
        }
        let member =
            |prefix: &'static str| members.iter().find(|m| m.name.starts_with(prefix)).ok_or(DebError::Member(prefix));
        let (control, data) = (member("control.tar")?, member("data.tar")?.clone());
        let mut archive = Vec::new();
        let limit = decompress(&file, control, CONTROL_LIMIT)?.take(CONTROL_LIMIT + 1).read_to_end(&mut archive);
        if limit.map_err(|e| DebError::Io("decompressing control.tar", e))? as u64 > CONTROL_LIMIT {
            return Err(DebError::Bomb(control.name.clone(), CONTROL_LIMIT));
        }
        let mut files = BTreeMap::new();
        for entry in tar::index(&&archive[..]).map_err(|e| DebError::Tar("control.tar", e))? {
            if let Kind::File { offset, size } = entry.kind {
                // Names with a slash are nothing dpkg knows.
                if !entry.path.contains('/') {
                    let content = archive[offset as usize..(offset + size) as usize].to_vec();
                    files.insert(entry.path, (content, entry.mode));
                }
            }
        }
        let text = |name: &str| match files.get(name) {
            None => Ok(""),
            Some((bytes, _)) => std::str::from_utf8(bytes).map_err(|_| DebError::NotText(name.to_owned())),
        };
        if !files.contains_key("control") {
            return Err(DebError::Member("control"));
        }
        let control = Control::parse(text("control")?)?;
        let conffiles = conffiles(text("conffiles")?)?;
        text("triggers")?;
        let size = file.length().map_err(|e| DebError::Io("reading it", e))?;
        Ok(Deb { path: path.to_owned(), sha256: sha256.to_owned(), control, files, conffiles, size, data })
    }

    /// A control file as text; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.files.get(name).and_then(|(bytes, _)| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Makes sure that the decompressed files are in the cache directory, and lists them.
    pub fn unpack(&self, cache: &Path) -> Result<Data, DebError> {
        let path = cache.join(format!("{}.tar", self.sha256));
        let file = match File::open(&path).ok().filter(|file| intact(file).unwrap_or(false)) {
            Some(file) => file,
            None => self.fill(cache, &path)?,
        };
        let entries = tar::index(&Archive(&file)).map_err(|e| DebError::Tar("data.tar", e))?;
        Ok(Data { file, entries })
    }

    fn fill(&self, cache: &Path, path: &Path) -> Result<File, DebError> {
        let deb = File::open(&self.path).map_err(|e| DebError::Io("opening it", e))?;
        let write = |e| DebError::Io("writing the cache", e);
        // Beside its final name: two composes may fill the same cache.
        let mut target = tempfile::Builder::new().prefix(".unpack-").tempfile_in(cache).map_err(write)?;
        let mut reader = decompress(&deb, &self.data, DATA_LIMIT)?;
        let (mut hasher, mut length) = (Sha256::new(), 0u64);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = reader.read(&mut buffer).map_err(|e| DebError::Io("decompressing data.tar", e))?;
            if count == 0 {
                break;
            }
            length += count as u64;
            if length > DATA_LIMIT {
                return Err(DebError::Bomb(self.data.name.clone(), DATA_LIMIT));
            }
            hasher.update(&buffer[..count]);
            target.write_all(&buffer[..count]).map_err(write)?;
        }
        let mut trailer = MAGIC.to_vec();
        trailer.extend(length.to_le_bytes());
        trailer.extend(hasher.finalize());
        target.write_all(&trailer).map_err(write)?;
        // No sync: a torn file fails its digest and is made again.
        target.persist(path).map_err(|e| write(e.error))
    }
}

/// The decompressed files of a package.
#[derive(Debug)]
pub struct Data {
    /// The archive in the cache; contents are copied from here.
    pub file: File,
    /// Its table of contents.
    pub entries: Vec<Entry>,
}

/// The archive part of a cache file, without the trailer.
struct Archive<'a>(&'a File);

impl Source for Archive<'_> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.length()?.saturating_sub(TRAILER))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// Whether a cache file is whole: its trailer's digest is that of the archive.
fn intact(mut file: &File) -> io::Result<bool> {
    let length = file.length()?;
    let Some(archive) = length.checked_sub(TRAILER) else { return Ok(false) };
    let mut trailer = [0; TRAILER as usize];
    file.read_exact_at(&mut trailer, archive)?;
    if &trailer[..16] != MAGIC || trailer[16..24] != archive.to_le_bytes() {
        return Ok(false);
    }
    let mut hasher = Sha256::new();
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 256 << 10];
    let mut rest = file.take(archive);
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize()[..] == trailer[24..])
}

/// Where the cache lies below a cache directory; makes it.
pub fn cache_dir(cachedir: &Path) -> io::Result<PathBuf> {
    let dir = cachedir.join("unpacked");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn decompress<'a>(file: &'a File, member: &ar::Member, limit: u64) -> Result<Box<dyn Read + 'a>, DebError> {
    let read = |e| DebError::Io("reading it", e);
    let mut input = file.try_clone().map_err(read)?;
    input.seek(SeekFrom::Start(member.offset)).map_err(read)?;
    let input = BufReader::with_capacity(256 << 10, input.take(member.size));
    let Some((_, extension)) = member.name.split_once(".tar") else {
        return Err(DebError::Compression(member.name.clone()));
    };
    Ok(match extension {
        "" if member.size > limit => return Err(DebError::Bomb(member.name.clone(), limit)),
        "" => Box::new(input),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        ".xz" => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input)),
        ".zst" => Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(read)?),
        _ => return Err(DebError::Compression(member.name.clone())),
    })
}

fn conffiles(text: &str) -> Result<Vec<Conffile>, DebError> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    lines
        .map(|line| {
            let (path, remove_on_upgrade) = match line.strip_prefix("remove-on-upgrade ") {
                Some(path) => (path.trim(), true),
                None => (line, false),
            };
            match path.strip_prefix('/') {
                Some(path) if !path.split('/').any(|p| p == "..") => {
                    Ok(Conffile { path: path.to_owned(), remove_on_upgrade })
                }
                _ => Err(DebError::Conffile(line.to_owned())),
            }
        })
        .collect()
}

#[cfg(test)]
#[path = "deb_tests.rs"]
mod tests;
