//! A tar stream: ustar, GNU and pax headers, read once from beginning to end.
//!
//! ```text
//! 512 bytes   header: name, mode, owner, size, type, link target     ┐ repeated
//! size bytes  content, filled up to a multiple of 512                ┘
//! zero block  the end; a stream without it was cut off
//!
//! L, K        the name or link target of the next header (GNU)
//! x, g        records "LENGTH KEY=VALUE\n" for the next header, or for all that follow (pax)
//! ```
//! These bytes come from anywhere: every size is bounded before memory is taken, and what is not understood is refused.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::Error;
use crate::object::Xattrs;

const BLOCK: usize = 512;
/// Longest name or link target.
const NAME: u64 = 64 << 10;
/// Largest set of pax records: attributes of 64 KiB, several of them.
const PAX: u64 = 4 << 20;
const XATTR: &str = "SCHILY.xattr.";

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    File,
    Symlink(String),
    Hardlink(String),
}

/// One entry; its content follows in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As it is in the archive.
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub xattrs: Xattrs,
}

type Pax = BTreeMap<String, Vec<u8>>;

pub(super) struct Reader<R> {
    inner: R,
    at: u64,
    /// Content of the current entry that was not read, and what fills it up.
    left: u64,
    padding: u64,
    global: Pax,
}

fn bad<T>(at: u64, why: impl std::fmt::Display) -> Result<T, Error> {
    Err(Error::invalid(format!("the archive at byte {at}: {why}")))
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Reader { inner, at: 0, left: 0, padding: 0, global: Pax::new() }
    }

    /// The next entry; what was not read of the one before is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let (mut long_name, mut long_link, mut pax) = (None, None, self.global.clone());
        loop {
            self.skip()?;
            let at = self.at;
            let mut header = [0; BLOCK];
            self.fill(&mut header)?;
            if header.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            check(&header, at)?;
            let size = number(&header[124..136], at, "size")?;
            let kind = header[156];
            if matches!(kind, b'L' | b'K' | b'x' | b'g') {
                let limit = if matches!(kind, b'L' | b'K') { NAME } else { PAX };
                if size > limit {
                    return bad(at, format!("a header of {size} bytes"));
                }
                self.begin(size);
                let mut bytes = vec![0; size as usize];
                self.read_exact(&mut bytes)?;
                match kind {
                    b'L' => long_name = Some(bytes),
                    b'K' => long_link = Some(bytes),
                    b'g' => {
                        records(&bytes, at, &mut self.global)?;
                        records(&bytes, at, &mut pax)?;
                    }
                    _ => records(&bytes, at, &mut pax)?,
                }
                continue;
            }
            return self.entry(&header, at, long_name, long_link, pax).map(Some);
        }
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        at: u64,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut pax: Pax,
    ) -> Result<Entry, Error> {
        if pax.keys().any(|key| key.starts_with("GNU.sparse.")) {
            return bad(at, "a sparse file; make the archive without --sparse");
        }
        let short = || short_name(header);
        let path = text(&pax.remove("path").or(long_name).unwrap_or_else(short), at)?;
        let link = pax.remove("linkpath").or(long_link).unwrap_or_else(|| header[157..257].to_vec());
        let link = || text(&link, at);
        let decimal = |pax: &mut Pax, key: &str, field: &[u8]| match pax.remove(key) {
            None => number(field, at, key),
            Some(bytes) => match std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()) {
                Some(number) => Ok(number),
                None => bad(at, format!("{key} is no number")),
            },
        };
        let size = decimal(&mut pax, "size", &header[124..136])?;
        let id = |number: u64, what: &str| match u32::try_from(number) {
            Ok(id) => Ok(id),
            Err(_) => bad(at, format!("{what} {number} is too large")),
        };
        let uid = id(decimal(&mut pax, "uid", &header[108..116])?, "the owner")?;
        let gid = id(decimal(&mut pax, "gid", &header[116..124])?, "the group")?;
        let mode = id(number(&header[100..108], at, "mode")?, "the mode")? & 0o7777;
        let kind = match header[156] {
            // Very old archives mark a directory only by the slash.
            0 | b'0' | b'7' if path.ends_with('/') => Kind::Dir,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::Hardlink(link()?),
            b'2' => Kind::Symlink(link()?),
            b'5' => Kind::Dir,
            other => return bad(at, format!("{path:?} is {}; leave it out of the archive", type_name(other))),
        };
        let mut xattrs = Xattrs::new();
        for (key, value) in pax {
            if let Some(name) = key.strip_prefix(XATTR) {
                if name.is_empty() {
                    return bad(at, "an attribute without a name");
                }
                xattrs.push((name.as_bytes().to_vec(), value));
            }
        }
        // A link has no content of its own, whatever size its header gives; only pax lets it have some.
        self.begin(if matches!(kind, Kind::File | Kind::Hardlink(_)) { size } else { 0 });
        Ok(Entry { path, kind, mode, uid, gid, size, xattrs })
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.inner.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::invalid(format!("the archive is cut off after byte {}", self.at)),
            _ => Error::io("reading the archive", e),
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Fills `bytes` with content of the current entry.
    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill(bytes)?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Ok(())
    }

    fn skip(&mut self) -> Result<(), Error> {
        let want = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        let io = |e| Error::io("reading the archive", e);
        let got = io::copy(&mut self.inner.by_ref().take(want), &mut io::sink()).map_err(io)?;
        self.at += got;
        if got < want { Err(Error::invalid(format!("the archive is cut off after byte {}", self.at))) } else { Ok(()) }
    }
}

/// Reads the content of the current entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..want])?;
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

/// Adds the records of a pax header. An empty value takes a key away.
fn records(mut bytes: &[u8], at: u64, pax: &mut Pax) -> Result<(), Error> {
    while !bytes.is_empty() {
        let wrong = || Error::invalid(format!("the archive at byte {at}: a damaged pax record"));
        let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(wrong)?;
        let length: usize =
            std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        let record = bytes.get(space + 1..length).ok_or_else(wrong)?;
        // The length rules: values may hold anything, line breaks too.
        let (&b'\n', record) = record.split_last().ok_or_else(wrong)? else { return Err(wrong()) };
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| wrong())?;
        let value = &record[equals + 1..];
        if value.is_empty() {
            pax.remove(key);
        } else {
            pax.insert(key.to_owned(), value.to_vec());
        }
        bytes = &bytes[length..];
    }
    Ok(())
}

fn check(header: &[u8; BLOCK], at: u64) -> Result<(), Error> {
    let sum = |signed: bool| {
        header.iter().enumerate().fold(0i64, |sum, (i, byte)| {
            let byte = if (148..156).contains(&i) { b' ' } else { *byte };
            sum + if signed { i64::from(byte as i8) } else { i64::from(byte) }
        })
    };
    let want = i64::try_from(number(&header[148..156], at, "checksum")?).unwrap_or(-1);
    if want == sum(false) || want == sum(true) { Ok(()) } else { bad(at, "the header is damaged, or this is no tar") }
}

/// Octal digits, or GNU's big-endian number with the top bit of the first byte set.
fn number(field: &[u8], at: u64, what: &str) -> Result<u64, Error> {
    let parsed = match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => rest
            .iter()
            .try_fold(u64::from(first & 0x7f), |n, byte| Some(n.checked_mul(256)? | u64::from(*byte)))
            .filter(|n| *n <= i64::MAX as u64),
        _ => std::str::from_utf8(field).ok().and_then(|text| {
            let digits = text.trim_matches(|c| c == ' ' || c == '\0');
            digits.bytes().try_fold(0u64, |n, byte| match byte {
                b'0'..=b'7' => n.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
                _ => None,
            })
        }),
    };
    parsed.map_or_else(|| bad(at, format!("no valid {what}")), Ok)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

fn short_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    // GNU's form has two spaces here, and uses the prefix for other things.
    if &header[257..263] == b"ustar\0" && header[345] != 0 {
        return [until_nul(&header[345..500]), b"/", name].concat();
    }
    name.to_vec()
}

fn text(bytes: &[u8], at: u64) -> Result<String, Error> {
    let name = until_nul(bytes);
    match std::str::from_utf8(name) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) => bad(at, format!("the name {:?} is not UTF-8, so no tree can hold it", String::from_utf8_lossy(name))),
    }
}

fn type_name(kind: u8) -> String {
    match kind {
        b'3' => "a character device".into(),
        b'4' => "a block device".into(),
        b'6' => "a named pipe".into(),
        b'S' => "a sparse file".into(),
        other => format!("an entry of type {:?}", char::from(other)),
    }
}
