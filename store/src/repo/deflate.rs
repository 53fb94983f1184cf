//! Raw deflate of whole files: what a `.filez` holds.
//!
//! The level is zlib's, as the configuration counts; the encoder is another one, whose levels are worth more. Each is
//! mapped to the cheapest that makes files no more than 2 % larger, taken together, than zlib would. What cannot be
//! compressed (modules, firmware and archives that already are) is stored: trying costs more than all the rest. What does
//! not fit into memory is made of pieces (see `pieces`).

use std::cell::RefCell;
use std::io;

use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

/// Largest stored block.
const BLOCK: usize = 65_535;
/// Bytes looked at to find out whether content can be compressed, and in how many places.
const SAMPLE: usize = 64 << 10;
const PLACES: usize = 4;
/// Fewer bytes say nothing.
const LEAST: usize = 2 << 10;
/// Bits of information in a byte from which on it does not pay to try.
const DENSE: f64 = 7.97;

/// The encoder's level for a level of zlib.
fn level(zlib: u8) -> i32 {
    match zlib {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 2,
        5 => 3,
        6 => 4,
        7 => 5,
        8 => 6,
        _ => 8,
    }
}

/// What a thread compresses with, and into: memory that is taken once is not paid for at every file.
struct Bench {
    made_for: u8,
    compressor: Compressor,
    out: Vec<u8>,
}

/// Compresses `content` and passes `header` and the raw deflate stream to `write`, in one piece.
pub(crate) fn deflate<T>(
    header: &[u8],
    content: &[u8],
    zlib: u8,
    write: impl FnOnce(&[u8]) -> io::Result<T>,
) -> io::Result<T> {
    thread_local! {
        static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
    }
    BENCH.with_borrow_mut(|bench| {
        if bench.as_ref().is_none_or(|bench| bench.made_for != zlib) {
            let level = CompressionLvl::new(level(zlib).max(1)).map_err(|_| io::Error::other("compression level"))?;
            *bench = Some(Bench { made_for: zlib, compressor: Compressor::new(level), out: Vec::new() });
        }
        let Some(Bench { compressor, out, .. }) = bench else { return Err(io::Error::other("no compressor")) };
        if zlib == 0 || dense(content) {
            out.clear();
            out.extend_from_slice(header);
            store(content, true, out);
            return write(out);
        }
        let most = header.len() + compressor.deflate_compress_bound(content.len());
        if out.len() < most {
            out.resize(most, 0);
        }
        out[..header.len()].copy_from_slice(header);
        let size = compressor
            .deflate_compress(content, &mut out[header.len()..])
            .map_err(|e| io::Error::other(format!("compressing: {e:?}")))?;
        write(&out[..header.len() + size])
    })
}

/// Stored blocks: a header of five bytes for each 64 KiB. `last` says whether the stream ends with them.
pub(super) fn store(content: &[u8], last: bool, bytes: &mut Vec<u8>) {
    bytes.reserve(content.len() + 5 * (content.len() / BLOCK + 1));
    let mut blocks = content.chunks(BLOCK).peekable();
    if content.is_empty() {
        bytes.extend_from_slice(&[u8::from(last), 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        bytes.push(u8::from(last && blocks.peek().is_none()));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(block);
    }
}

/// Whether every byte value is about equally frequent in several samples: so it is in what was compressed already.
pub(super) fn dense(content: &[u8]) -> bool {
    if content.len() < LEAST {
        return false;
    }
    let mut counts = [0u32; 256];
    let mut total = 0u32;
    let each = SAMPLE / PLACES;
    for place in 0..PLACES {
        let (start, end) = if content.len() <= SAMPLE {
            (content.len() * place / PLACES, content.len() * (place + 1) / PLACES)
        } else {
            let start = (content.len() - each) / (PLACES - 1) * place;
            (start, start + each)
        };
        for byte in &content[start..end] {
            counts[usize::from(*byte)] += 1;
        }
        total += (end - start) as u32;
    }
    let total = f64::from(total);
    let bits: f64 = counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n)).map(|n| -n * (n / total).log2()).sum();
    // A small sample of even bytes looks uneven; this much is due to its size alone.
    let bias = 255.0 / (2.0 * total * std::f64::consts::LN_2);
    bits / total + bias >= DENSE
}

/// Inflates a whole stream into exactly `size` bytes, which are lent from `buffer`. That only grows, so that it is not
/// cleared for every file: what is in it is written over, or the result is an error.
pub(crate) fn inflate_into<'b>(body: &[u8], size: u64, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    }
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    // Deflate cannot do better than 1032 to 1, so a small body never makes a large allocation.
    if size > (body.len() as u64).saturating_mul(1032) {
        return Err(invalid("truncated, or it declares more than it can hold"));
    }
    let size = usize::try_from(size).map_err(|_| invalid("too large"))?;
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
    let content = &mut buffer[..size];
    match DECOMPRESSOR.with_borrow_mut(|d| d.deflate_decompress(body, content)) {
        Ok(count) if count == size => Ok(content),
        Ok(count) => Err(invalid(&format!("truncated: {} bytes are missing", size - count))),
        Err(DecompressionError::InsufficientSpace) => Err(invalid("longer than its header says")),
        Err(DecompressionError::BadData) => Err(invalid("the compressed data is damaged or truncated")),
    }
}

/// Inflates a whole stream into exactly `size` bytes.
#[cfg(test)]
fn inflate(body: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    inflate_into(body, size, &mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes without any pattern.
    fn noise(count: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    fn deflated(header: &[u8], content: &[u8], level: u8) -> Vec<u8> {
        deflate(header, content, level, |bytes| Ok(bytes.to_vec())).unwrap()
    }

    fn round_trip(content: &[u8], level: u8) -> usize {
        let bytes = deflated(b"header", content, level);
        assert_eq!(bytes[..6], *b"header");
        assert_eq!(inflate(&bytes[6..], content.len() as u64).unwrap(), content);
        let mut stock = Vec::new();
        io::Read::read_to_end(&mut flate2::read::DeflateDecoder::new(&bytes[6..]), &mut stock).unwrap();
        assert_eq!(stock, content);
        bytes.len() - 6
    }

    #[test]
    fn noise_is_stored_and_text_is_not() {
        for size in [LEAST, BLOCK, BLOCK + 1, 3 * BLOCK, 1 << 20] {
            let stored = round_trip(&noise(size), 6);
            assert!(stored <= size + 5 * (size / BLOCK + 1), "{size}: {stored}");
        }
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        assert!(round_trip(&text, 6) < text.len() / 2);
        assert!(!dense(&text) && dense(&noise(1 << 20)));
        // Noise in front of something that can be compressed does not hide it.
        let mut mixed = noise(100_000);
        mixed.resize(1 << 20, 7);
        assert!(round_trip(&mixed, 6) < 200_000);
    }

    #[test]
    fn a_stream_of_another_length_is_refused() {
        let bytes = deflated(b"", b"hello hello hello", 6);
        assert!(inflate(&bytes, 16).unwrap_err().to_string().contains("longer"));
        assert!(inflate(&bytes, 18).unwrap_err().to_string().contains("1 bytes are missing"));
        assert!(inflate(&bytes[..5], 17).is_err());
        assert!(inflate(&bytes, u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn everything_comes_back(content in prop::collection::vec(any::<u8>(), 0..70_000), level in 0..10u8) {
            round_trip(&content, level);
        }
    }
}
