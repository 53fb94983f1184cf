//! How one new file goes into a delta.
//!
//! ```text
//! whole    its bytes                       nothing like it was there, or nothing smaller was found
//! copies   pieces of the old file          where what is equal is equal to the byte
//! patch    bsdiff over the old file        where little differs everywhere: programs that were built again
//! ```
//! All three are tried, quickly compressed, and the smallest is taken.

use std::io::Read as _;

use libdeflater::{CompressionLvl, Compressor};

use super::diff::{Piece, Stretch, align, copies, encode_patch};
use super::tables::comparable;
use crate::{Checksum, Error, Repo};

/// A file as it goes into a part.
pub(super) enum Form {
    /// Its content, which is read again when the part is made.
    Whole,
    /// Pieces of an old file, other new files, and bytes of its own: what they are, and those bytes.
    Copies { source: Option<Checksum>, pieces: Vec<Piece>, bytes: Vec<u8> },
    /// A patch over an old file.
    Patch { source: Checksum, patch: Vec<u8> },
}

/// A form, and about how many bytes it comes to when compressed.
pub(super) struct Encoded {
    pub form: Form,
    pub estimate: u64,
}

/// Files up to this size are not worth a second look.
const SMALL: u64 = 64 << 10;
/// Bytes of a file that are compressed to see whether it can be.
const SAMPLE: usize = 1 << 20;

/// Whether compressing a whole file of `size` bytes would be in vain: it is compressed, or encrypted.
pub(super) fn incompressible(size: u64, estimate: u64) -> bool {
    size > SMALL && estimate > size - size / 16
}

/// About how small a file becomes, from its beginning, middle and end.
fn estimate_sample(bytes: &[u8]) -> u64 {
    if bytes.len() <= 3 * SAMPLE {
        return estimate(bytes);
    }
    let middle = bytes.len() / 2;
    let samples = [&bytes[..SAMPLE], &bytes[middle..middle + SAMPLE], &bytes[bytes.len() - SAMPLE..]];
    let sum: u64 = samples.into_iter().map(estimate).sum();
    (u128::from(sum) * bytes.len() as u128 / (3 * SAMPLE as u128)) as u64
}

/// Bounds on what is tried.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of both files up to which they are laid side by side; more would take too much memory.
    pub both: u64,
    /// Whether patches may be used, and for how many bytes of both files.
    pub patch: Option<u64>,
}

/// About how small `bytes` become.
pub(super) fn estimate(bytes: &[u8]) -> u64 {
    thread_local! {
        static BUFFERS: std::cell::RefCell<Option<(Compressor, Vec<u8>)>> = const { std::cell::RefCell::new(None) };
    }
    BUFFERS.with_borrow_mut(|buffers| {
        let Ok(level) = CompressionLvl::new(1) else { return bytes.len() as u64 };
        let (compressor, out) = buffers.get_or_insert_with(|| (Compressor::new(level), Vec::new()));
        // In pieces: what it takes does not grow with the file.
        let mut total = 0;
        for piece in bytes.chunks(1 << 20) {
            out.resize(compressor.deflate_compress_bound(piece.len()), 0);
            total += compressor.deflate_compress(piece, out).unwrap_or(piece.len()) as u64;
        }
        total
    })
}

/// The whole content of a file.
pub(super) fn content(repo: &Repo, checksum: &Checksum) -> Result<Vec<u8>, Error> {
    let mut object = repo.open_file(checksum)?;
    let mut bytes = Vec::with_capacity(usize::try_from(object.meta.size).unwrap_or(0).min(1 << 30));
    let io = |e| Error::io(format!("reading file {checksum}"), e);
    object.content.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Bytes of an operation that copies.
const OPERATION: u64 = 6;

/// The smallest form of a new file, with what is offered to make it from.
pub(super) fn encode(
    repo: &Repo,
    file: &Checksum,
    size: u64,
    sources: &[Checksum],
    limits: &Limits,
) -> Result<Encoded, Error> {
    if sources.is_empty() && size <= SMALL {
        return Ok(Encoded { form: Form::Whole, estimate: size });
    }
    let new = content(repo, file)?;
    // The smallest so far, and by how much it must be smaller than the whole.
    let mut best: Option<(Encoded, u64)> = None;
    for source in sources {
        let meta = repo.load_file_meta(source)?;
        let both = meta.size.saturating_add(size);
        if meta.symlink.is_some() || meta.size == 0 || both > limits.both {
            continue;
        }
        let old = content(repo, source)?;
        let stretches = beside(&old, &new);
        let pieces = copies(&old, &new, &stretches);
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| own(&new, piece).iter().copied()).collect();
        let by_copies = estimate(&bytes) + 34 + pieces.len() as u64 * OPERATION;
        let smallest = |best: &Option<(Encoded, u64)>| best.as_ref().map_or(u64::MAX, |(best, _)| best.estimate);
        if by_copies < smallest(&best) {
            let form = Form::Copies { source: Some(*source), pieces, bytes };
            best = Some((Encoded { form, estimate: by_copies }, 0));
        }
        if limits.patch.is_some_and(|most| both <= most) {
            let patch = encode_patch(&old, &new, &stretches);
            let by_patch = estimate_patch(&patch) + 34;
            // What is copied is not there to be compressed and unpacked; a patch must be worth that.
            let price = 64 + by_patch.min(1 << 20) / 32 + patch.len() as u64 / 4096;
            if by_patch + price < smallest(&best) {
                best = Some((Encoded { form: Form::Patch { source: *source, patch }, estimate: by_patch }, price));
            }
        }
    }
    let Some((best, price)) = best else {
        return Ok(Encoded { form: Form::Whole, estimate: estimate_sample(&new) });
    };
    // No file shrinks that much by itself that was like another one; and a sample does not tell hundredths.
    if best.estimate < size / 16 {
        return Ok(best);
    }
    let whole = estimate(&new);
    Ok(if best.estimate + price < whole { best } else { Encoded { form: Form::Whole, estimate: whole } })
}

/// Lays the new file beside the old one, with tables as differences where both have some.
pub(super) fn beside(old: &[u8], new: &[u8]) -> Vec<Stretch> {
    match (comparable(old), comparable(new)) {
        (Some(old), Some(new)) => align(&old, &new),
        _ => align(old, new),
    }
}

/// Deflate spends a thousandth on what does not differ at all, .xz next to nothing.
fn estimate_patch(patch: &[u8]) -> u64 {
    estimate(patch).saturating_sub(patch.len() as u64 / 400)
}

/// The bytes of a piece that are the new file's own.
pub(super) fn own<'a>(new: &'a [u8], piece: &Piece) -> &'a [u8] {
    match *piece {
        Piece::Copy { .. } | Piece::Whole { .. } => &[],
        Piece::Bytes { at, len } => &new[at..at + len],
    }
}
