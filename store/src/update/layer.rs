//! Seeing through compression: what is inside a compressed file, and how exactly it was packed.
//!
//! ```text
//! new file  --unpack-->  content   --diff against old content-->  patch
//! old file  --unpack-->  old content + patch  -->  content  --pack again-->  new file, byte for byte
//! ```
//! Packing again gives the same bytes only with the same encoder and parameters. Whoever makes an update tries those
//! that the file's own header allows, compares every byte, and ships the file as it is where none fits. Whoever applies
//! it compares the object's checksum: another version of an encoder costs a download, never a wrong object.

use std::io::{self, BufReader, Read};

use flate2::read::{DeflateEncoder, GzDecoder};
use liblzma::read::{XzDecoder, XzEncoder};
use liblzma::stream::{Check, Filters, LzmaOptions, MtStreamBuilder, Stream};

use super::UpdateError;
use super::wire::{Reader, bad, blob, varint};

/// Largest dictionary of an encoder that is run on a machine: it needs about twelve times as much memory.
const MAX_XZ_DICT: u64 = 2 << 20;
/// Largest block of a threaded xz encoder, which buffers it.
const MAX_XZ_BLOCK: u64 = 8 << 20;
/// Memory for unpacking xz.
const XZ_MEMORY: u64 = 80 << 20;
/// Highest zstd level that is run on a machine. From 17 on an encoder needs more than 50 MiB; the 22 of Debian's kernel
/// image needs 780 MiB and a minute, which no update may ask for.
const MAX_ZSTD_LEVEL: u8 = 16;
/// Largest window that is unpacked.
const ZSTD_WINDOW_LOG: u32 = 23;
/// A gzip header with a longer name is not looked into.
const MAX_GZIP_HEADER: usize = 512;
/// gzip files are packed in memory.
const MAX_GZIP: u64 = 16 << 20;

/// How something is packed, as far as unpacking goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Raw,
    Xz,
    Zstd,
    Gzip,
}

impl Kind {
    pub fn number(self) -> u8 {
        match self {
            Kind::Raw => 0,
            Kind::Xz => 1,
            Kind::Zstd => 2,
            Kind::Gzip => 3,
        }
    }

    pub fn from_number(number: u8) -> Result<Kind, UpdateError> {
        let kinds = [Kind::Raw, Kind::Xz, Kind::Zstd, Kind::Gzip];
        kinds.into_iter().find(|kind| kind.number() == number).map_or_else(|| bad("an unknown kind of packing"), Ok)
    }

    /// What a file seems to be.
    pub fn guess(bytes: &[u8]) -> Kind {
        if bytes.starts_with(b"\xfd7zXZ\0") {
            Kind::Xz
        } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
            Kind::Zstd
        } else if bytes.starts_with(b"\x1f\x8b\x08") {
            Kind::Gzip
        } else {
            Kind::Raw
        }
    }

    /// What is inside, as a stream. Memory is bounded; the length is not.
    pub fn unpack<'a>(self, packed: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Kind::Raw => packed,
            Kind::Xz => Box::new(XzDecoder::new_stream(packed, Stream::new_stream_decoder(XZ_MEMORY, 0)?)),
            Kind::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(packed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Kind::Gzip => Box::new(GzDecoder::new(BufReader::new(packed))),
        })
    }
}

/// How content becomes a file, with every parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Raw,
    /// `block`: bytes of each block of the threaded encoder; 0: the other one. `preset`: bit 7 for the extreme variant.
    Xz {
        preset: u8,
        check: u8,
        dict: u64,
        block: u64,
    },
    /// `worker`: the threaded encoder, whose output does not depend on the number of threads.
    Zstd {
        level: u8,
        checksum: bool,
        sized: bool,
        worker: bool,
    },
    /// `fast`: libdeflate instead of the other deflate.
    Gzip {
        header: Vec<u8>,
        level: u8,
        fast: bool,
    },
}

impl Layer {
    pub fn kind(&self) -> Kind {
        match self {
            Layer::Raw => Kind::Raw,
            Layer::Xz { .. } => Kind::Xz,
            Layer::Zstd { .. } => Kind::Zstd,
            Layer::Gzip { .. } => Kind::Gzip,
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind().number());
        match self {
            Layer::Raw => {}
            Layer::Xz { preset, check, dict, block } => {
                out.extend_from_slice(&[*preset, *check]);
                varint(out, *dict);
                varint(out, *block);
            }
            Layer::Zstd { level, checksum, sized, worker } => {
                out.extend_from_slice(&[*level, u8::from(*checksum) | u8::from(*sized) << 1 | u8::from(*worker) << 2]);
            }
            Layer::Gzip { header, level, fast } => {
                blob(out, header);
                out.extend_from_slice(&[*level, u8::from(*fast)]);
            }
        }
    }

    /// Decodes a layer, and refuses one that would need more memory than a machine is asked for.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Layer, UpdateError> {
        let layer = match Kind::from_number(reader.byte()?)? {
            Kind::Raw => Layer::Raw,
            Kind::Xz => {
                let (preset, check) = (reader.byte()?, reader.byte()?);
                Layer::Xz { preset, check, dict: reader.varint()?, block: reader.varint()? }
            }
            Kind::Zstd => {
                let (level, flags) = (reader.byte()?, reader.byte()?);
                if flags > 7 {
                    return bad("zstd flags");
                }
                Layer::Zstd { level, checksum: flags & 1 != 0, sized: flags & 2 != 0, worker: flags & 4 != 0 }
            }
            Kind::Gzip => {
                let header = reader.blob()?;
                let (level, fast) = (reader.byte()?, reader.byte()?);
                if fast > 1 {
                    return bad("gzip flags");
                }
                Layer::Gzip { header, level, fast: fast == 1 }
            }
        };
        if layer.modest() { Ok(layer) } else { bad("an encoder that would need too much memory") }
    }

    fn modest(&self) -> bool {
        match self {
            Layer::Raw => true,
            Layer::Xz { preset, check, dict, block } => {
                preset & 0x7f <= 9
                    && xz_check(*check).is_some()
                    && (4096..=MAX_XZ_DICT).contains(dict)
                    && *block <= MAX_XZ_BLOCK
            }
            Layer::Zstd { level, .. } => (1..=MAX_ZSTD_LEVEL).contains(level),
            Layer::Gzip { header, level, fast } => {
                header.len() <= MAX_GZIP_HEADER && (1..=if *fast { 12 } else { 9 }).contains(level)
            }
        }
    }

    /// Packs `size` bytes of content.
    pub fn pack<'a>(&self, content: Box<dyn Read + Send + 'a>, size: u64) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Layer::Raw => content,
            Layer::Xz { preset, check, dict, block } => {
                let extreme = if preset & 0x80 != 0 { 1 << 31 } else { 0 };
                let mut options = LzmaOptions::new_preset(u32::from(preset & 0x7f) | extreme)?;
                options.dict_size(*dict as u32);
                let mut filters = Filters::new();
                filters.lzma2(&options);
                let check = xz_check(*check).unwrap_or(Check::None);
                let stream = if *block == 0 {
                    Stream::new_stream_encoder(&filters, check)?
                } else {
                    let mut builder = MtStreamBuilder::new();
                    builder.threads(1).block_size(*block).filters(filters).check(check).encoder()?
                };
                Box::new(XzEncoder::new_stream(content, stream))
            }
            Layer::Zstd { level, checksum, sized, worker } => {
                let mut encoder = zstd::stream::read::Encoder::new(content, i32::from(*level))?;
                encoder.include_checksum(*checksum)?;
                if *sized {
                    encoder.set_pledged_src_size(Some(size))?;
                }
                if *worker {
                    encoder.multithread(1)?;
                }
                Box::new(encoder)
            }
            Layer::Gzip { header, level, fast } => {
                Box::new(io::Cursor::new(gzip(content, size, header, *level, *fast)?))
            }
        })
    }

    /// Finds the layer that gives exactly `packed` from `content`. `likely` are tried first: files of one package were
    /// packed in one way.
    pub fn find(packed: &[u8], content: &[u8], likely: &[Layer]) -> Option<Layer> {
        let candidates = match Kind::guess(packed) {
            Kind::Raw => return None,
            Kind::Xz => xz_candidates(packed, content.len() as u64)?,
            Kind::Zstd => zstd_candidates(packed)?,
            Kind::Gzip => gzip_candidates(packed, content.len() as u64)?,
        };
        let first = candidates.iter().filter(|layer| likely.contains(layer));
        let others = candidates.iter().filter(|layer| !likely.contains(layer));
        first.chain(others).find(|layer| layer.modest() && layer.gives(content, packed)).cloned()
    }

    /// Whether packing gives these bytes. Stops at the first that differs.
    fn gives(&self, content: &[u8], packed: &[u8]) -> bool {
        let Ok(mut reader) = self.pack(Box::new(content), content.len() as u64) else { return false };
        let (mut buffer, mut rest) = (vec![0; 32 << 10], packed);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return rest.is_empty(),
                Ok(count) => match rest.strip_prefix(&buffer[..count]) {
                    Some(more) => rest = more,
                    None => return false,
                },
                Err(_) => return false,
            }
        }
    }
}

fn xz_check(number: u8) -> Option<Check> {
    match number {
        0 => Some(Check::None),
        1 => Some(Check::Crc32),
        4 => Some(Check::Crc64),
        10 => Some(Check::Sha256),
        _ => None,
    }
}

/// What the header of a stream and that of its first block leave open: the preset.
fn xz_candidates(packed: &[u8], content: u64) -> Option<Vec<Layer>> {
    let check = packed.get(7)? & 15;
    let mut block = Reader(packed.get(13..13 + usize::from(*packed.get(12)?) * 4)?);
    let flags = block.byte().ok()?;
    // Both sizes: the threaded encoder. None: the other. More filters than one: not ours.
    let threaded = match flags {
        0 => false,
        0xc0 => true,
        _ => return None,
    };
    let mut first = content;
    if threaded {
        block.varint().ok()?;
        first = block.varint().ok()?;
    }
    // LZMA2, with one byte of properties: the size of the dictionary.
    if block.take(2).ok()? != [0x21, 1] {
        return None;
    }
    let bits = block.byte().ok()?;
    if bits > 39 {
        return None;
    }
    let dict = (2 | u64::from(bits & 1)) << (bits / 2 + 11);
    let block = match threaded {
        false => 0,
        // All in one block: any size above it gives the same, and the encoder's own is three dictionaries.
        true if first == content => (3 * dict).max(1 << 20).max(content),
        true => first,
    };
    let presets = [6, 9, 0x86, 0x89, 8, 7, 5, 4, 3, 2, 1, 0, 0x88, 0x87, 0x85, 0x84, 0x83, 0x82, 0x81, 0x80];
    Some(presets.into_iter().map(|preset| Layer::Xz { preset, check, dict, block }).collect())
}

/// The window in a frame's header tells the level, nearly.
fn zstd_candidates(packed: &[u8]) -> Option<Vec<Layer>> {
    let flags = *packed.get(4)?;
    let (single, checksum) = (flags & 0x20 != 0, flags & 4 != 0);
    // Without the single segment's flag a size is there only where two bits say so.
    let sized = single || flags >> 6 != 0;
    if flags & 0x1b != 0 {
        return None;
    }
    let window = packed.get(5)?;
    let levels: &[u8] = match (sized, window) {
        (true, _) => &[3, 9, 6, 12, 15, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16],
        (false, 0x48) => &[1],
        (false, 0x50) => &[2],
        (false, 0x58) => &[3, 6, 8, 7, 5, 4],
        (false, 0x60) => &[9, 12, 15, 10, 11, 13, 14, 16],
        _ => return None,
    };
    let pairs = levels.iter().flat_map(|level| [true, false].map(|worker| (*level, worker)));
    Some(pairs.map(|(level, worker)| Layer::Zstd { level, checksum, sized, worker }).collect())
}

fn gzip_candidates(packed: &[u8], content: u64) -> Option<Vec<Layer>> {
    let flags = *packed.get(3)?;
    // Only the file's name may be there.
    if flags & !8 != 0 || content > MAX_GZIP {
        return None;
    }
    let name = if flags & 8 != 0 { packed.get(10..)?.iter().position(|b| *b == 0)? + 1 } else { 0 };
    let header = packed.get(..10 + name)?.to_vec();
    let fast = (1..=12).map(|level| (level, true));
    let all = [6, 9, 1, 2, 3, 4, 5, 7, 8].into_iter().map(|level| (level, false)).chain(fast);
    Some(all.map(|(level, fast)| Layer::Gzip { header: header.clone(), level, fast }).collect())
}

fn gzip(content: Box<dyn Read + Send + '_>, size: u64, header: &[u8], level: u8, fast: bool) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    content.take(size.min(MAX_GZIP) + 1).read_to_end(&mut plain)?;
    let mut crc = flate2::Crc::new();
    crc.update(&plain);
    let mut packed = header.to_vec();
    if fast {
        let level = libdeflater::CompressionLvl::new(i32::from(level)).map_err(|_| io::Error::other("gzip level"))?;
        let mut compressor = libdeflater::Compressor::new(level);
        let start = packed.len();
        packed.resize(start + compressor.deflate_compress_bound(plain.len()), 0);
        let count = compressor.deflate_compress(&plain, &mut packed[start..]).map_err(io::Error::other)?;
        packed.truncate(start + count);
    } else {
        DeflateEncoder::new(plain.as_slice(), flate2::Compression::new(u32::from(level))).read_to_end(&mut packed)?;
    }
    packed.extend_from_slice(&crc.sum().to_le_bytes());
    packed.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn text(lines: usize) -> Vec<u8> {
        (0..lines).flat_map(|n| format!("line {} of {}\n", n * n % 977, n).into_bytes()).collect()
    }

    fn all(reader: io::Result<Box<dyn Read + Send + '_>>) -> Vec<u8> {
        let mut bytes = Vec::new();
        reader.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn found(packed: &[u8], content: &[u8]) -> Option<Layer> {
        assert_eq!(all(Kind::guess(packed).unpack(Box::new(packed))), content);
        let layer = Layer::find(packed, content, &[])?;
        assert_eq!(all(layer.pack(Box::new(content), content.len() as u64)), packed);
        let mut wire = Vec::new();
        layer.encode(&mut wire);
        assert_eq!(Layer::decode(&mut Reader(&wire)).unwrap(), layer);
        Some(layer)
    }

    /// What `xz --check=crc32 --lzma2=dict=1MiB -T2` writes, with its several blocks.
    #[test]
    fn the_parameters_of_kernel_modules_are_found() {
        for lines in [10, 10_000, 160_000] {
            let content = text(lines);
            for block in [0, 3 << 20] {
                let made = Layer::Xz { preset: 6, check: 1, dict: 1 << 20, block };
                let packed = all(made.pack(Box::new(content.as_slice()), content.len() as u64));
                assert!(matches!(found(&packed, &content), Some(Layer::Xz { preset: 6, check: 1, .. })), "{lines}");
            }
        }
    }

    #[test]
    fn zstd_levels_are_found_with_and_without_a_size() {
        let content = text(20_000);
        for level in [1, 3, 9, 12] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
            encoder.write_all(&content).unwrap();
            assert!(found(&encoder.finish().unwrap(), &content).is_some(), "{level}");
            let packed = zstd::bulk::compress(&content, level).unwrap();
            assert!(found(&packed, &content).is_some(), "{level} with a size");
        }
    }

    #[test]
    fn gzip_with_a_name_is_found() {
        let content = text(3_000);
        let builder = flate2::GzBuilder::new().filename("a").mtime(7);
        let mut encoder = builder.write(Vec::new(), flate2::Compression::new(9));
        encoder.write_all(&content).unwrap();
        assert!(matches!(found(&encoder.finish().unwrap(), &content), Some(Layer::Gzip { level: 9, .. })));
    }

    #[test]
    fn what_nobody_packs_so_is_shipped_as_it_is() {
        let content = text(1_000);
        let mut packed = zstd::bulk::compress(&content, 3).unwrap();
        // A skippable frame behind it: valid, and no encoder writes that.
        packed.extend_from_slice(b"\x50\x2a\x4d\x18\x00\x00\x00\x00");
        assert_eq!(Layer::find(&packed, &content, &[]), None);
        assert_eq!(Layer::find(b"\xfd7zXZ\0", b"", &[]), None);
        assert_eq!(Layer::find(b"\x1f\x8b\x08", b"", &[]), None);
    }

    #[test]
    fn an_encoder_that_would_take_all_memory_is_refused() {
        let greedy = [
            Layer::Xz { preset: 9, check: 1, dict: 64 << 20, block: 0 },
            Layer::Xz { preset: 6, check: 1, dict: 1 << 20, block: 1 << 30 },
            Layer::Zstd { level: 22, checksum: true, sized: false, worker: true },
        ];
        for layer in greedy {
            let mut wire = Vec::new();
            layer.encode(&mut wire);
            assert!(Layer::decode(&mut Reader(&wire)).is_err(), "{layer:?}");
        }
    }
}
