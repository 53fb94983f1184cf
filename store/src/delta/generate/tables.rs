//! Programs as their tables compare best.
//!
//! ```text
//! relocations   offset, info, addend      ->  offset and addend less those of the entry before
//! symbols       name … value …            ->  name and value less those of the entry before
//! BTF           name, info, type; …       ->  each number less the third before it
//! ```
//! A function that grew by ten bytes moves all that follow, and thousands of entries change by the same ten; a type that
//! was added to the kernel moves the numbers of all types in its modules. Byte by byte hardly two entries are equal to
//! old ones, so that no equal bytes show which old entry lies beside which new one. As differences nearly all are equal.
//! Places stay what they are: stretches that are found here lie beside each other in the files as well. Patches of
//! Debian's kernel modules are smaller by three tenths.

use std::ops::Range;

use crate::update::elf;

/// The beginning of type information for BPF: magic, version, flags, length of the header.
const BTF: [u8; 8] = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
/// Most entries are three numbers of four bytes, or begin with as many.
const TYPE: usize = 12;

/// The same length of bytes as `bytes`, with tables as differences; `None` where there are none.
pub(super) fn comparable(bytes: &[u8]) -> Option<Vec<u8>> {
    if !elf::is(bytes) {
        return None;
    }
    let mut turned = bytes.to_vec();
    let mut changed = elf::forth(&mut turned);
    for (_, range) in elf::headers(bytes) {
        let section = &bytes[range.clone()];
        if let Some(types) = types(section) {
            differences(&mut turned[range][types.clone()], &section[types]);
            changed = true;
        }
    }
    changed.then_some(turned)
}

/// Where in a section the types are, if it holds type information.
fn types(section: &[u8]) -> Option<Range<usize>> {
    let number = |at: usize| {
        let bytes = section.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if !section.starts_with(&BTF) {
        return None;
    }
    let from = number(4)?.checked_add(number(8)?)?;
    let to = from.checked_add(number(12)?)?;
    (to <= section.len()).then_some(from..to)
}

/// Writes numbers of four bytes of `from` to `to`, which is as long, less the third before each.
fn differences(to: &mut [u8], from: &[u8]) {
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let (numbers, third) = (from.chunks_exact(4), TYPE / 4);
    let pairs = numbers.clone().zip(numbers.skip(third));
    for (to, (before, now)) in to.chunks_exact_mut(4).skip(third).zip(pairs) {
        to.copy_from_slice(&number(now).wrapping_sub(number(before)).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff::{align, encode_patch};
    use super::*;
    use proptest::prelude::*;

    /// A program with a table of relocations and one of types: places from `text`, types from `first`.
    fn module(text: u64, first: u32) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        let mut sections = vec![(1u32, 0..64)];
        let start = bytes.len();
        let (mut place, mut state) = (text, 1u64);
        for _ in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            place += 1 + (state >> 60);
            for number in [place, state >> 40, place * 3] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        sections.push((4, start..bytes.len()));
        let start = bytes.len();
        bytes.extend_from_slice(&BTF);
        for number in [0u32, 24_000, 24_000, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for n in 0..2000u32 {
            for number in [first * 7 + n * 5, 0x0400_0000 + n % 3, first + n / 2] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        sections.push((1, start..bytes.len()));
        let table = bytes.len();
        for (kind, range) in &sections {
            let mut header = [0; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(range.start as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(range.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&header);
        }
        bytes[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        bytes[0x3a..0x3e].copy_from_slice(&[64, 0, sections.len() as u8, 0]);
        bytes
    }

    fn packed(old: &[u8], new: &[u8], tables: bool) -> usize {
        let stretches =
            if tables { align(&comparable(old).unwrap(), &comparable(new).unwrap()) } else { align(old, new) };
        let mut file = Vec::new();
        crate::delta::part::pack(&encode_patch(old, new, &stretches), 6, 1 << 20, &mut file).unwrap();
        file.len()
    }

    #[test]
    fn entries_that_all_moved_are_found() {
        let old = module(0x10_0000, 90_000);
        // Everything moved, and some entries of the relocations are gone.
        let mut new = module(0x10_0137, 90_041);
        new.copy_within(64 + 300 * 24..64 + 2000 * 24, 64 + 280 * 24);
        assert_eq!(comparable(&old).map(|bytes| bytes.len()), Some(old.len()));
        let (plain, tables) = (packed(&old, &new, false), packed(&old, &new, true));
        assert!(tables * 4 < plain * 3, "{tables} {plain}");
    }

    #[test]
    fn what_has_no_tables_stays() {
        for bytes in [&b""[..], b"\x7fELF\x02\x01", b"\x7fELF\x01\x01 and more", b"text"] {
            assert_eq!(comparable(bytes), None);
        }
    }

    proptest! {
        #[test]
        fn hostile_headers_are_harmless(spots in proptest::collection::vec((0usize..80_000, any::<u8>()), 0..60)) {
            let mut bytes = module(50, 7);
            let len = bytes.len();
            for (at, value) in spots {
                // The beginning, the type information's, and the table of sections are hit most.
                let near = [0, 64 + 48_000, len - 192][at % 3];
                bytes[(near + at / 3 % 400).min(len - 1)] = value;
            }
            prop_assert!(comparable(&bytes).is_none_or(|turned| turned.len() == len));
        }
    }
}
