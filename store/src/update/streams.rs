//! A part: one or several patches, their kinds of bytes kept apart.
//!
//! ```text
//! control   for each region: len, extra, how far the old place is from where the last one ended (varint; zigzag)
//! gaps      how many bytes of the regions are equal before the next that is not, over all files of the part
//! bytes     new - old of those that are not equal
//! extra     new content that resembles nothing
//! ```
//! Each stream is an `.xz` with a dictionary of at most 4 MiB. Numbers and differences of a hundred kernel modules lie
//! next to each other; that is worth more than any cleverness about one of them.

use std::io::{self, BufReader, Read, Write as _};

use liblzma::read::XzDecoder;
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use liblzma::write::XzEncoder;

use super::base::Base;
use super::matching::Region;
use super::wire::{unzigzag, varint, zigzag};

/// Dictionary of a stream. Reading one part takes four times as much memory.
const DICT: u32 = 4 << 20;
/// What a decoder may use: the dictionary and something for itself.
const MEMORY: u64 = 6 << 20;

/// Bytes of the four streams of a part, before compression.
#[derive(Default)]
pub(crate) struct Plain {
    control: Vec<u8>,
    gaps: Vec<u8>,
    bytes: Vec<u8>,
    extra: Vec<u8>,
    gap: u64,
}

impl Plain {
    /// Adds a patch.
    pub fn add(&mut self, old: &[u8], new: &[u8], regions: &[Region]) {
        let mut at = 0;
        for region in regions {
            self.region(region, &mut at);
            let (end, old_end) = (region.new + region.len, region.old + region.len);
            for (new, old) in new[region.new..end].iter().zip(&old[region.old..old_end]) {
                if new == old {
                    self.gap += 1;
                } else {
                    varint(&mut self.gaps, std::mem::take(&mut self.gap));
                    self.bytes.push(new.wrapping_sub(*old));
                }
            }
            self.extra.extend_from_slice(&new[end..end + region.extra]);
        }
    }

    /// Adds a patch whose regions are equal to the old content, byte for byte.
    pub fn add_exact(&mut self, new: &[u8], regions: &[Region]) {
        let mut at = 0;
        for region in regions {
            self.region(region, &mut at);
            self.gap += region.len as u64;
            let end = region.new + region.len;
            self.extra.extend_from_slice(&new[end..end + region.extra]);
        }
    }

    fn region(&mut self, region: &Region, at: &mut i64) {
        varint(&mut self.control, region.len as u64);
        varint(&mut self.control, region.extra as u64);
        // Where nothing is taken the place says nothing.
        let place = if region.len == 0 { *at } else { region.old as i64 };
        varint(&mut self.control, zigzag(place - *at));
        *at = place + region.len as i64;
    }

    /// Compresses the streams and appends them to `out`. Returns the size of each.
    pub fn finish(mut self, out: &mut dyn io::Write) -> io::Result<[u64; 4]> {
        varint(&mut self.gaps, self.gap);
        let mut sizes = [0; 4];
        let streams = [(self.control, 3, 0), (self.gaps, 0, 0), (self.bytes, 0, 0), (self.extra, 3, 2)];
        for (size, (plain, literal, position)) in sizes.iter_mut().zip(streams) {
            if plain.is_empty() {
                continue;
            }
            // Already compressed content is only copied: looking for more takes seconds and finds nothing.
            let preset = if dense(&plain) { 0 } else { 6 };
            let mut options = LzmaOptions::new_preset(preset)?;
            let dict = u32::try_from(plain.len()).unwrap_or(DICT).next_power_of_two().clamp(4096, DICT);
            options.dict_size(dict).literal_context_bits(literal).position_bits(position);
            let mut filters = Filters::new();
            filters.lzma2(&options);
            let stream = Stream::new_stream_encoder(&filters, Check::None)?;
            let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(&plain)?;
            drop(plain);
            let packed = encoder.finish()?;
            out.write_all(&packed)?;
            *size = packed.len() as u64;
        }
        Ok(sizes)
    }
}

/// Whether bytes look compressed: a sample of each MiB does not shrink.
fn dense(plain: &[u8]) -> bool {
    if plain.len() < 1 << 20 {
        return false;
    }
    let sample: Vec<u8> = plain.chunks(1 << 20).flat_map(|chunk| &chunk[..chunk.len().min(8 << 10)]).copied().collect();
    zstd::bulk::compress(&sample, 1).is_ok_and(|packed| packed.len() * 50 > sample.len() * 49)
}

/// The four streams of a part, decompressed as they are read.
pub(crate) struct Streams<'a> {
    control: Box<dyn Read + Send + 'a>,
    gaps: Box<dyn Read + Send + 'a>,
    bytes: Box<dyn Read + Send + 'a>,
    extra: Box<dyn Read + Send + 'a>,
    /// Equal bytes before the next that differs.
    gap: Option<u64>,
}

impl<'a> Streams<'a> {
    /// The streams as they are stored.
    pub fn open(stored: [Box<dyn Read + Send + 'a>; 4]) -> io::Result<Self> {
        let open = |reader: Box<dyn Read + Send + 'a>| -> io::Result<Box<dyn Read + Send + 'a>> {
            let decoder = XzDecoder::new_stream(reader, Stream::new_stream_decoder(MEMORY, 0)?);
            Ok(Box::new(BufReader::with_capacity(16 << 10, decoder)))
        };
        let [control, gaps, bytes, extra] = stored;
        Ok(Streams { control: open(control)?, gaps: open(gaps)?, bytes: open(bytes)?, extra: open(extra)?, gap: None })
    }

    /// The next file: `size` bytes made from `base`.
    pub fn next<'s>(&'s mut self, base: Option<&'s Base<'s>>, size: u64) -> Patch<'s, 'a> {
        Patch { streams: self, base, left: size, at: 0, len: 0, extra: 0 }
    }
}

fn corrupt(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Corrupt(why.to_owned()))
}

/// A part that is damaged: nothing after it in the part can be read either.
#[derive(Debug, thiserror::Error)]
#[error("the update is damaged: {0}")]
pub(crate) struct Corrupt(String);

impl Corrupt {
    /// Whether an error came from a part and not from what was made of it.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Corrupt>())
    }
}

fn number(reader: &mut dyn Read) -> io::Result<u64> {
    let (mut number, mut byte) = (0u64, [0]);
    for shift in (0..64).step_by(7) {
        reader.read_exact(&mut byte).map_err(stream)?;
        if shift == 63 && byte[0] > 1 {
            break;
        }
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(number);
        }
    }
    Err(corrupt("a number of more than 64 bits"))
}

fn stream(error: io::Error) -> io::Error {
    corrupt(&error.to_string())
}

/// One file's content while it is made.
pub(crate) struct Patch<'s, 'a> {
    streams: &'s mut Streams<'a>,
    /// Without one only the streams are moved on.
    base: Option<&'s Base<'s>>,
    left: u64,
    /// Where the next old byte lies.
    at: u64,
    /// What is left of the region.
    len: u64,
    extra: u64,
}

impl Patch<'_, '_> {
    /// Reads the next region if this one is used up.
    fn region(&mut self) -> io::Result<()> {
        if self.len > 0 || self.extra > 0 || self.left == 0 {
            return Ok(());
        }
        let control = &mut self.streams.control;
        let (len, extra, step) = (number(control)?, number(control)?, unzigzag(number(control)?));
        let total = len.checked_add(extra).filter(|total| *total > 0 && *total <= self.left);
        if total.is_none() {
            return Err(corrupt("a region of no bytes, or of more than the file has"));
        }
        let place = self.at.checked_add_signed(step);
        let at = place.ok_or_else(|| corrupt("a place before the old content"))?;
        let end = at.checked_add(len);
        if let Some(base) = self.base {
            if len > 0 && end.is_none_or(|end| end > base.len()) {
                return Err(corrupt("a place behind the old content"));
            }
        }
        // Nothing of a region that was refused is read, whoever asks again.
        (self.at, self.len, self.extra) = (at, len, extra);
        Ok(())
    }

    /// Adds the differences to old bytes.
    fn differences(&mut self, old: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        loop {
            let gap = match self.streams.gap {
                Some(gap) => gap,
                None => number(&mut self.streams.gaps)?,
            };
            let rest = (old.len() - at) as u64;
            if gap >= rest {
                self.streams.gap = Some(gap - rest);
                return Ok(());
            }
            at += gap as usize;
            let mut byte = [0];
            self.streams.bytes.read_exact(&mut byte).map_err(stream)?;
            old[at] = old[at].wrapping_add(byte[0]);
            at += 1;
            self.streams.gap = None;
        }
    }

    /// Moves the streams to the end of this file, whatever became of it.
    pub fn finish(mut self) -> io::Result<()> {
        self.base = None;
        io::copy(&mut self, &mut io::sink()).map(|_| ())
    }
}

impl Read for Patch<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.region()?;
        if buffer.is_empty() || self.left == 0 {
            return Ok(0);
        }
        let wanted = |part: u64| part.min(buffer.len() as u64) as usize;
        let count = if self.len > 0 {
            let count = wanted(self.len);
            let part = &mut buffer[..count];
            if let Some(base) = self.base {
                base.read_at(self.at, part)?;
            }
            self.differences(part)?;
            self.at += count as u64;
            self.len -= count as u64;
            count
        } else {
            let count = wanted(self.extra);
            self.streams.extra.read_exact(&mut buffer[..count]).map_err(stream)?;
            self.extra -= count as u64;
            count
        };
        self.left -= count as u64;
        Ok(count)
    }
}
