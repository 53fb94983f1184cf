//! Relocatable ELF files (kernel modules) as they compare best.
//!
//! ```text
//! section of type RELA: offset, info, addend     ->  offset and addend less those of the entry before
//! section of type SYMTAB: name … value …         ->  name and value less those of the entry before
//! ```
//! A function that grew by ten bytes moves all that follow: thousands of entries change by the same ten. As differences
//! to the entry before only one of them does. On Debian's modules that is a third of the update. 64 bits and
//! little-endian only; headers are not touched, so that the way back finds the same sections.

use std::ops::Range;

/// Larger files are compared as they are: both directions happen in memory.
pub(crate) const MAX: u64 = 8 << 20;
/// An entry of either kind of section.
const ENTRY: usize = 24;
const SYMTAB: u32 = 2;
const RELA: u32 = 4;

/// A number of an entry: where it is, and how many bytes it has.
type Field = (usize, usize);

/// The fields of a kind of section that become differences.
fn fields(kind: u32) -> Option<[Field; 2]> {
    match kind {
        RELA => Some([(0, 8), (16, 8)]),
        SYMTAB => Some([(0, 4), (8, 8)]),
        _ => None,
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let mut number = [0; 8];
    number.get_mut(..len)?.copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    Some(u64::from_le_bytes(number))
}

/// Whether these are the bytes of such a file, or of a program.
pub(crate) fn is(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02\x01")
}

/// The sections whose bytes lie in the file: their types, and where.
pub(crate) fn headers(bytes: &[u8]) -> Vec<(u32, Range<usize>)> {
    let mut found = Vec::new();
    if !is(bytes) {
        return found;
    }
    let word = |at, len| number(bytes, at, len).and_then(|number| usize::try_from(number).ok());
    let (Some(table), Some(size), Some(count)) = (word(0x28, 8), word(0x3a, 2), word(0x3c, 2)) else { return found };
    for section in 0..count {
        let Some(header) = size.checked_mul(section).and_then(|offset| table.checked_add(offset)) else { break };
        let field = |at: usize, len| header.checked_add(at).and_then(|at| word(at, len));
        let (Some(kind), Some(start), Some(len)) = (field(4, 4), field(24, 8), field(32, 8)) else { break };
        if let Some(end) = start.checked_add(len).filter(|end| *end <= bytes.len()) {
            found.push((kind as u32, start..end));
        }
    }
    found
}

/// The sections that are changed, and the fields of their entries.
fn sections(bytes: &[u8]) -> Vec<(Range<usize>, [Field; 2])> {
    headers(bytes).into_iter().filter_map(|(kind, range)| Some((range, fields(kind)?))).collect()
}

fn change(bytes: &mut [u8], forth: bool) -> bool {
    let sections = sections(bytes);
    for (range, fields) in &sections {
        let mut before = [0u64; 2];
        for entry in bytes[range.clone()].chunks_exact_mut(ENTRY) {
            for ((at, len), before) in fields.iter().zip(&mut before) {
                let Some(value) = number(entry, *at, *len) else { continue };
                let changed = if forth { value.wrapping_sub(*before) } else { value.wrapping_add(*before) };
                entry[*at..at + len].copy_from_slice(&changed.to_le_bytes()[..*len]);
                *before = if forth { value } else { changed };
            }
        }
    }
    !sections.is_empty()
}

/// Turns entries into differences; `false` where there is nothing to turn.
pub(crate) fn forth(bytes: &mut [u8]) -> bool {
    change(bytes, true)
}

/// The way back.
pub(crate) fn back(bytes: &mut [u8]) {
    change(bytes, false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with one section of each kind, whose entries grow evenly.
    fn module(entries: usize) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        let start = bytes.len();
        for _ in 0..2 {
            for n in 0..entries as u64 {
                bytes.extend_from_slice(&(n * 16).to_le_bytes());
                bytes.extend_from_slice(&7u64.to_le_bytes());
                bytes.extend_from_slice(&(n * 3).to_le_bytes());
            }
        }
        let table = bytes.len();
        for (kind, number) in [(RELA, 0), (SYMTAB, 1)] {
            let mut header = [0; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&((start + number * entries * ENTRY) as u64).to_le_bytes());
            header[32..40].copy_from_slice(&((entries * ENTRY) as u64).to_le_bytes());
            bytes.extend_from_slice(&header);
        }
        bytes[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        bytes[0x3a..0x3e].copy_from_slice(&[64, 0, 2, 0]);
        bytes
    }

    #[test]
    fn entries_become_differences_and_come_back() {
        let plain = module(100);
        let mut changed = plain.clone();
        assert!(forth(&mut changed));
        assert_eq!(changed[64 + 50 * ENTRY..][..8], 16u64.to_le_bytes());
        assert_eq!(changed[64 + 50 * ENTRY + 16..][..8], 3u64.to_le_bytes());
        back(&mut changed);
        assert_eq!(changed, plain);
    }

    #[test]
    fn what_is_no_module_stays() {
        for bytes in [&b""[..], b"\x7fELF\x02\x01", b"\x7fELF\x01\x01 and more", b"text"] {
            let mut same = bytes.to_vec();
            assert!(!forth(&mut same));
            assert_eq!(same, bytes);
        }
    }

    proptest! {
        /// Whatever headers say, nothing outside is touched and nothing panics.
        #[test]
        fn hostile_headers_are_harmless(spots in proptest::collection::vec((0usize..3000, any::<u8>()), 0..40)) {
            let mut bytes = module(50);
            for (at, value) in spots {
                let len = bytes.len();
                bytes[at % len] = value;
            }
            let len = bytes.len();
            forth(&mut bytes);
            back(&mut bytes);
            prop_assert_eq!(bytes.len(), len);
        }
    }
}
