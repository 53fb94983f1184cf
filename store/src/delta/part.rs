//! The parts of a delta: data, and operations that make objects of it.
//!
//! ```text
//! file      y ay                  0 plain | 'x' .xz, then the payload
//! payload   (a(uuu) aa(ayay) ay ay)   modes: uid, gid, mode, big-endian; sets of xattrs; data; operations
//! ```
//! The payload is read where it lies: the data, which is most of it, stays in a file when it is large.

use std::io::{self, Read, Write};
use std::path::Path;

use liblzma::stream::{Check, Filters, LzmaOptions, Stream};

use super::blob::{Blob, invalid};
use crate::gv::{self, Malformed, Type, Writer, bad};
use crate::object::{self, Xattrs};

/// The most memory that a decoder may take: four times what the stock tools' parts need.
const DECODER_MEMORY: u64 = 160 << 20;
/// The most that tables and operations of one part may be: they are in memory.
const MAX_TABLES: u64 = 64 << 20;

/// Owner, group and mode.
pub(super) type Owner = (u32, u32, u32);

/// A part that was opened.
pub(super) struct Payload {
    blob: Blob,
    data: std::ops::Range<u64>,
    pub modes: Vec<Owner>,
    pub xattrs: Vec<Xattrs>,
    pub operations: Vec<u8>,
}

/// Unpacks the file of a part into memory or into a file in `tmp`; more than `limit` bytes are refused.
pub(super) fn unpack(file: &mut dyn Read, limit: u64, tmp: &Path) -> io::Result<Blob> {
    let mut compression = [0];
    file.read_exact(&mut compression)?;
    match compression[0] {
        0 => Blob::read(file, limit, tmp),
        b'x' => {
            let stream = Stream::new_stream_decoder(DECODER_MEMORY, 0).map_err(io::Error::other)?;
            let mut decoder = liblzma::read::XzDecoder::new_stream(file, stream);
            Blob::read(&mut decoder, limit, tmp)
        }
        other => Err(invalid(format!("unknown compression {other}"))),
    }
}

impl Payload {
    /// Finds the four members and reads the small ones.
    pub fn open(blob: Blob) -> io::Result<Self> {
        Self::open_checked(blob).map_err(|e| match e {
            OpenError::Io(e) => e,
            OpenError::Malformed(e) => invalid(e.to_string()),
        })
    }

    fn open_checked(blob: Blob) -> Result<Self, OpenError> {
        let len = blob.len();
        let width: u64 = match len {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        let Some(body) = len.checked_sub(3 * width) else { return Err(bad_open("it ends early")) };
        let tail = blob.piece(body, 3 * width)?;
        let end = |index: usize| {
            let mut wide = [0; 8];
            let width = width as usize;
            wide[..width].copy_from_slice(&tail[index * width..(index + 1) * width]);
            u64::from_le_bytes(wide)
        };
        // Stored last to first; the fourth member ends where the offsets begin.
        let (modes, xattrs, data) = (end(2), end(1), end(0));
        if modes > xattrs || xattrs > data || data > body {
            return Err(bad_open("its members overlap"));
        }
        if xattrs > MAX_TABLES || body - data > MAX_TABLES {
            return Err(bad_open("its tables are too large"));
        }
        let (mode_bytes, xattr_bytes) = (blob.piece(0, modes)?, blob.piece(modes, xattrs - modes)?);
        let operations = blob.piece(data, body - data)?;
        let (modes, sets) = (decode_modes(&mode_bytes)?, decode_xattr_sets(&xattr_bytes)?);
        Ok(Payload { blob, data: xattrs..data, modes, xattrs: sets, operations })
    }

    /// Bytes of data.
    pub fn data_len(&self) -> u64 {
        self.data.end - self.data.start
    }

    /// Whether the data hold `offset..offset + len`.
    pub fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.data_len())
    }

    /// Fills `buffer` from `offset` of the data.
    pub fn read_data(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if !self.holds(offset, buffer.len() as u64) {
            return Err(invalid(format!("{} bytes at {offset} are not in the part", buffer.len())));
        }
        self.blob.read_exact_at(buffer, self.data.start + offset)
    }
}

enum OpenError {
    Io(io::Error),
    Malformed(Malformed),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

impl From<Malformed> for OpenError {
    fn from(error: Malformed) -> Self {
        OpenError::Malformed(error)
    }
}

fn bad_open(why: &str) -> OpenError {
    OpenError::Malformed(Malformed(why.to_owned()))
}

fn decode_modes(bytes: &[u8]) -> Result<Vec<Owner>, Malformed> {
    if bytes.len() % 12 != 0 {
        return bad("its modes are not a whole number of them");
    }
    let number = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok(bytes.chunks_exact(12).map(|m| (number(m), number(&m[4..]), number(&m[8..]))).collect())
}

fn decode_xattr_sets(bytes: &[u8]) -> Result<Vec<Xattrs>, Malformed> {
    let set = Type::parse("a(ayay)")?;
    gv::array(&set, bytes)?.into_iter().map(object::decode_xattrs).collect()
}

/// What becomes a payload.
#[derive(Default)]
pub(super) struct Tables {
    pub modes: Vec<Owner>,
    pub xattrs: Vec<Xattrs>,
    pub operations: Vec<u8>,
}

impl Tables {
    /// The payload's bytes.
    pub fn encode(&self, data: &[u8]) -> Vec<u8> {
        let (mut modes, mut sets) = (Vec::with_capacity(self.modes.len() * 12), Writer::new());
        for (uid, gid, mode) in &self.modes {
            for number in [uid, gid, mode] {
                modes.extend_from_slice(&number.to_be_bytes());
            }
        }
        for set in &self.xattrs {
            sets.framed(1, &object::encode_xattrs(set));
        }
        let mut whole = Writer::with_capacity(modes.len() + data.len() + self.operations.len() + 4096);
        whole.framed(4, &modes).framed(1, &sets.array()).framed(1, data).plain(1, &self.operations);
        whole.tuple()
    }
}

/// Writes the file of a part: the payload in .xz, with a window that holds all of it up to `window` bytes.
pub(super) fn pack(payload: &[u8], preset: u32, window: u32, out: impl Write) -> io::Result<()> {
    let mut out = out;
    out.write_all(b"x")?;
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX).clamp(64 << 10, window.max(64 << 10));
    let mut options = LzmaOptions::new_preset(preset).map_err(io::Error::other)?;
    options.dict_size(size);
    if preset >= 6 {
        // Patches are mostly zeros: the longest matches save a twentieth. Looking for them no deeper than this takes a
        // fifth off the time and adds a hundredth to the bytes.
        options.nice_len(273).depth(48);
    }
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let stream = Stream::new_stream_encoder(&filters, Check::Crc64).map_err(io::Error::other)?;
    let mut encoder = liblzma::write::XzEncoder::new_stream(out, stream);
    encoder.write_all(payload)?;
    encoder.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_payload_comes_back() {
        let xattrs = vec![Vec::new(), vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), Vec::new())]];
        let tables = Tables { modes: vec![(0, 0, 0o100_644), (1, 2, 0o100_755)], xattrs, operations: b"ops".to_vec() };
        let tmp = tempfile::tempdir().unwrap();
        for len in [0, 1, 200, 70_000, 17 << 20] {
            let data: Vec<u8> = (0..len).map(|i: u32| (i / 3) as u8).collect();
            let mut file = Vec::new();
            pack(&tables.encode(&data), 1, 8 << 20, &mut file).unwrap();
            let payload = Payload::open(unpack(&mut file.as_slice(), 32 << 20, tmp.path()).unwrap()).unwrap();
            assert_eq!(payload.modes, tables.modes);
            assert_eq!(payload.xattrs, tables.xattrs);
            assert_eq!(payload.operations, tables.operations);
            let mut read = vec![0; data.len()];
            payload.read_data(&mut read, 0).unwrap();
            assert_eq!(read, data);
            assert!(payload.read_data(&mut [0], data.len() as u64).is_err());
            assert!(payload.read_data(&mut [0], u64::MAX).is_err());
        }
    }

    #[test]
    fn a_part_that_unpacks_to_more_than_it_may_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let mut file = Vec::new();
        pack(&vec![0; 64 << 20], 1, 1 << 20, &mut file).unwrap();
        assert!(file.len() < 1 << 20);
        for limit in [1000, 20 << 20] {
            let error = unpack(&mut file.as_slice(), limit, tmp.path()).err().unwrap().to_string();
            assert!(error.contains(&format!("more than {limit} bytes")), "{error}");
        }
        assert!(unpack(&mut &b""[..], 1000, tmp.path()).is_err());
        assert!(unpack(&mut &b"z"[..], 1000, tmp.path()).is_err());
        assert!(unpack(&mut &file[..file.len() / 2], 128 << 20, tmp.path()).is_err());
    }

    #[test]
    fn a_decoder_that_wants_gigabytes_is_refused() {
        let mut options = LzmaOptions::new_preset(0).unwrap();
        options.dict_size(1 << 30);
        let mut filters = Filters::new();
        filters.lzma2(&options);
        // Only the header says how large the window is; it takes no such encoder to write one.
        let mut file = Vec::new();
        pack(b"", 0, 1 << 20, &mut file).unwrap();
        assert!(unpack(&mut file.as_slice(), 10, Path::new("/nowhere")).is_ok());
        let stream = Stream::new_stream_encoder(&filters, Check::Crc64);
        let Ok(stream) = stream else { return };
        let mut encoder = liblzma::write::XzEncoder::new_stream(b"x".to_vec(), stream);
        encoder.write_all(b"little").unwrap();
        let file = encoder.finish().unwrap();
        assert!(unpack(&mut file.as_slice(), 1000, Path::new("/nowhere")).is_err());
    }

    proptest! {
        #[test]
        fn any_payload_is_handled(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(payload) = Payload::open(Blob::Memory(bytes)) {
                let _ = payload.read_data(&mut [0; 7], 3);
            }
        }
    }
}
