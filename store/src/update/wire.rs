//! The bytes of an update file.
//!
//! ```text
//!   0   8  "SLIPUPD1"
//!   8  32  the commit it starts from; zeros: from nothing
//!  40  32  the commit it leads to
//!  72   4  number of parts, little-endian as everything here
//!  76  48  a part: stage (8), bytes of content (8), stored bytes of its four streams (4 × 8)
//!   …      the parts, one after the other; the streams of each: control, gaps, bytes, extra (see `streams`)
//! ```
//! Part 0 is a patch from the old commit's dirtrees, sorted by name and strung together, to the *catalogue*:
//! ```text
//! commit, detached metadata            each: length (varint), bytes; length 0: there is none
//! dirtrees, dirmetas, headers          each: number, then length and bytes of each; headers of content streams
//! for each part from 1 on: number of files, then of each
//!     object        index in the sorted list of all files of the new commit
//!     header, size  index of its header, bytes of the object
//!     layer         how its content becomes the object (see `layer`)
//!     content       bytes of content << 1 | 1 if compared as an ELF file (see `elf`)
//!     sources       number, then of each: index << 1 | 1 if in the new commit; layer; bytes of content
//! ```
//! Numbers are unsigned LEB128. Parts of stage 1 have sources that parts of stage 0 make. The old content of a file is
//! the content of its sources, strung together.

use super::UpdateError;
use super::layer::{Kind, Layer};
use crate::Checksum;

const MAGIC: &[u8; 8] = b"SLIPUPD1";
/// Bytes before the table of parts.
pub(crate) const HEAD: usize = 76;
/// Bytes that describe a part.
pub(crate) const ENTRY: usize = 48;
/// More parts would be a table larger than any update.
const MAX_PARTS: u32 = 1 << 16;
/// A catalogue is read into memory, and so are the directories it is a patch from.
pub(crate) const MAX_CATALOGUE: u64 = 32 << 20;
/// Files larger than this are in no update: a client fetches them as objects.
pub(crate) const MAX_FILE: u64 = 256 << 20;
/// Content of a file, and what it is compared with, unpacked.
pub(crate) const MAX_CONTENT: u64 = 256 << 20;
/// Files of all parts together, and their sources: a list of them takes 16 times what it takes in the file.
pub(crate) const MAX_FILES: usize = 1 << 18;
const MAX_SOURCES: usize = 1 << 18;

/// Says what is wrong with an update file.
pub(crate) fn bad<T>(why: impl Into<String>) -> Result<T, UpdateError> {
    Err(UpdateError::Malformed(why.into()))
}

/// A part, as the table describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub stage: u64,
    pub content: u64,
    pub streams: [u64; 4],
    /// Where its first stream begins. Not in the file: it follows from the parts before.
    pub offset: u64,
}

impl Part {
    /// Bytes in the file.
    pub fn stored(&self) -> u64 {
        self.streams.iter().sum()
    }
}

/// What an update file says before its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub from: Option<Checksum>,
    pub to: Checksum,
    pub parts: Vec<Part>,
}

impl Table {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.from.map_or([0; 32], |from| from.0));
        bytes.extend_from_slice(&self.to.0);
        bytes.extend_from_slice(&(self.parts.len() as u32).to_le_bytes());
        for part in &self.parts {
            for number in [part.stage, part.content].iter().chain(&part.streams) {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes
    }

    /// How many bytes the table of parts has, from the `HEAD` bytes before it.
    pub fn table_size(head: &[u8]) -> Result<usize, UpdateError> {
        let mut reader = Reader(head);
        if reader.take(8)? != MAGIC {
            return bad("it does not begin as an update does, or is of a later format");
        }
        let head = reader.take(68)?;
        let count = u32::from_le_bytes([head[64], head[65], head[66], head[67]]);
        if count == 0 || count > MAX_PARTS {
            return bad(format!("{count} parts"));
        }
        Ok(count as usize * ENTRY)
    }

    /// Decodes head and table.
    pub fn decode(bytes: &[u8]) -> Result<Table, UpdateError> {
        let size = Table::table_size(bytes)?;
        let mut reader = Reader(bytes);
        reader.take(8)?;
        let from = reader.checksum()?;
        let to = reader.checksum()?;
        reader.take(4)?;
        let mut offset = (HEAD + size) as u64;
        let mut parts = Vec::with_capacity(size / ENTRY);
        for _ in 0..size / ENTRY {
            let stage = reader.fixed()?;
            let content = reader.fixed()?;
            let streams = [reader.fixed()?, reader.fixed()?, reader.fixed()?, reader.fixed()?];
            let part = Part { stage, content, streams, offset };
            let end = streams.iter().try_fold(offset, |sum, len| sum.checked_add(*len));
            match end {
                // The sum of all content must be a number too.
                Some(end) if end <= i64::MAX as u64 && content <= 1 << 40 && stage <= 1 => offset = end,
                _ => return bad("a part lies beyond any file"),
            }
            parts.push(part);
        }
        let from = (from.0 != [0; 32]).then_some(from);
        Ok(Table { from, to, parts })
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        let parts: u64 = self.parts.iter().map(Part::stored).sum();
        (HEAD + ENTRY * self.parts.len()) as u64 + parts
    }
}

/// Where old content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceEntry {
    /// Whether it is a file of the new commit.
    pub new: bool,
    /// Its place in the sorted list of that commit's files.
    pub index: u64,
    pub kind: Kind,
    /// Bytes of content.
    pub size: u64,
}

/// A file that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    /// Its place in the sorted list of the new commit's files.
    pub index: u64,
    /// The header of its content stream.
    pub header: u64,
    pub size: u64,
    pub layer: Layer,
    pub content: u64,
    /// Whether old and new content are compared as `elf` turns them.
    pub elf: bool,
    pub sources: Vec<SourceEntry>,
}

/// What the new commit consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    pub commit: Vec<u8>,
    pub detached: Vec<u8>,
    pub dirtrees: Vec<Vec<u8>>,
    pub dirmetas: Vec<Vec<u8>>,
    pub headers: Vec<Vec<u8>>,
    /// The files of each part from 1 on.
    pub parts: Vec<Vec<FileEntry>>,
}

impl Catalogue {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        blob(&mut out, &self.commit);
        blob(&mut out, &self.detached);
        for list in [&self.dirtrees, &self.dirmetas, &self.headers] {
            varint(&mut out, list.len() as u64);
            list.iter().for_each(|bytes| blob(&mut out, bytes));
        }
        for part in &self.parts {
            varint(&mut out, part.len() as u64);
            for file in part {
                varint(&mut out, file.index);
                varint(&mut out, file.header);
                varint(&mut out, file.size);
                file.layer.encode(&mut out);
                varint(&mut out, file.content << 1 | u64::from(file.elf));
                varint(&mut out, file.sources.len() as u64);
                for source in &file.sources {
                    varint(&mut out, source.index << 1 | u64::from(source.new));
                    out.push(source.kind.number());
                    varint(&mut out, source.size);
                }
            }
        }
        out
    }

    /// Decodes the catalogue of a file with `parts` parts besides it.
    pub fn decode(bytes: &[u8], parts: usize) -> Result<Catalogue, UpdateError> {
        let mut reader = Reader(bytes);
        let mut catalogue = Catalogue { commit: reader.blob()?, detached: reader.blob()?, ..Catalogue::default() };
        for list in [&mut catalogue.dirtrees, &mut catalogue.dirmetas, &mut catalogue.headers] {
            for _ in 0..reader.count()? {
                list.push(reader.blob()?);
            }
        }
        let (mut all, mut sources) = (0, 0);
        for _ in 0..parts {
            let mut files = Vec::new();
            for _ in 0..reader.count()? {
                let file = reader.file(MAX_SOURCES - sources)?;
                (all, sources) = (all + 1, sources + file.sources.len());
                if all > MAX_FILES {
                    return bad("more files than an update may have");
                }
                files.push(file);
            }
            catalogue.parts.push(files);
        }
        if reader.0.is_empty() { Ok(catalogue) } else { bad("bytes after the catalogue") }
    }
}

/// Appends a number.
pub(crate) fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A signed number as one that is small where it is near 0.
pub(crate) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// The reverse.
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

pub(crate) fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads numbers and bytes, never beyond the end.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], UpdateError> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else { return bad("it ends too early") };
        self.0 = rest;
        Ok(taken)
    }

    fn checksum(&mut self) -> Result<Checksum, UpdateError> {
        Checksum::from_bytes(self.take(32)?).map_or_else(|| bad("checksum"), Ok)
    }

    fn fixed(&mut self) -> Result<u64, UpdateError> {
        self.take(8)?.try_into().map(u64::from_le_bytes).or_else(|_| bad("number"))
    }

    pub fn byte(&mut self) -> Result<u8, UpdateError> {
        Ok(self.take(1)?[0])
    }

    pub fn varint(&mut self) -> Result<u64, UpdateError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        bad("a number of more than 64 bits")
    }

    /// How many things follow: each takes a byte at least, so what is left bounds it.
    fn count(&mut self) -> Result<u64, UpdateError> {
        let count = self.varint()?;
        if count > self.0.len() as u64 { bad("more is announced than can follow") } else { Ok(count) }
    }

    pub fn blob(&mut self) -> Result<Vec<u8>, UpdateError> {
        let count = self.count()?;
        Ok(self.take(count as usize)?.to_vec())
    }

    fn file(&mut self, most: usize) -> Result<FileEntry, UpdateError> {
        let (index, header, size) = (self.varint()?, self.varint()?, self.varint()?);
        let layer = Layer::decode(self)?;
        let content = self.varint()?;
        let (content, elf) = (content >> 1, content & 1 == 1);
        if size > MAX_FILE || content > MAX_CONTENT {
            return bad("a file larger than one in an update may be");
        }
        let (mut sources, mut old) = (Vec::new(), 0u64);
        for _ in 0..self.count()? {
            let index = self.varint()?;
            let kind = Kind::from_number(self.byte()?)?;
            let size = self.varint()?;
            old = old.saturating_add(size);
            if old > MAX_CONTENT || sources.len() == most {
                return bad("a file made from more than one in an update may be");
            }
            sources.push(SourceEntry { new: index & 1 == 1, index: index >> 1, kind, size });
        }
        Ok(FileEntry { index, header, size, layer, content, elf, sources })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> Table {
        let mut parts = vec![
            Part { stage: 0, content: 10, streams: [1, 2, 3, 4], offset: 0 },
            Part { stage: 1, content: 1 << 30, streams: [5, 0, 0, 1 << 20], offset: 0 },
        ];
        parts[0].offset = (HEAD + 2 * ENTRY) as u64;
        parts[1].offset = parts[0].offset + 10;
        Table { from: None, to: Checksum::of(b"to"), parts }
    }

    #[test]
    fn tables_come_back() {
        let bytes = table().encode();
        assert_eq!(bytes.len(), HEAD + Table::table_size(&bytes).unwrap());
        assert_eq!(Table::decode(&bytes).unwrap(), table());
    }

    #[test]
    fn lies_about_sizes_are_refused() {
        let good = table().encode();
        let lie = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            Table::decode(&bad).unwrap_err().to_string()
        };
        assert!(lie(0, b"X").contains("does not begin"));
        assert!(lie(72, &u32::MAX.to_le_bytes()).contains("4294967295 parts"));
        assert!(lie(72, &3u32.to_le_bytes()).contains("ends too early"));
        assert!(lie(HEAD + 16, &u64::MAX.to_le_bytes()).contains("beyond any file"));
        assert!(lie(HEAD + 8, &u64::MAX.to_le_bytes()).contains("beyond any file"));
    }

    #[test]
    fn announcing_more_than_follows_allocates_nothing() {
        let mut bytes = Vec::new();
        blob(&mut bytes, b"");
        blob(&mut bytes, b"");
        varint(&mut bytes, u64::MAX >> 8);
        assert!(Catalogue::decode(&bytes, 0).unwrap_err().to_string().contains("announced"));
        let ten = [0xff; 10];
        assert!(Reader(&ten).varint().is_err());
    }

    proptest! {
        #[test]
        fn numbers_come_back(number: u64, signed: i64) {
            let mut bytes = Vec::new();
            varint(&mut bytes, number);
            varint(&mut bytes, zigzag(signed));
            let mut reader = Reader(&bytes);
            prop_assert_eq!(reader.varint().unwrap(), number);
            prop_assert_eq!(unzigzag(reader.varint().unwrap()), signed);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Table::decode(&bytes);
            if let Ok(catalogue) = Catalogue::decode(&bytes, 2) {
                prop_assert_eq!(Catalogue::decode(&catalogue.encode(), 2).unwrap(), catalogue);
            }
        }
    }
}
