//! What a new file is, given an old one: stretches that lie beside stretches of the old one, and bytes between them.
//!
//! ```text
//! new   |== beside old[a..] ==|-- bytes --|== beside old[b..] ==|-- bytes --|
//!          mostly equal                      mostly equal
//! ```
//! The same stretches make a bsdiff patch, which says how each byte differs, or copies, where most do not.

use super::matcher::Index;
use crate::Checksum;
use crate::equal::common;

/// A stretch of the new file beside one of the old, and how many bytes follow that are beside nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub old: usize,
    pub len: usize,
    pub extra: usize,
}

/// Equal bytes along the present alignment that are followed without asking whether others would be better.
const FOLLOW: usize = 24;
/// How many more equal bytes another alignment must offer.
const BETTER: usize = 8;

/// Lays the new file beside the old one.
pub(super) fn align(old: &[u8], new: &[u8]) -> Vec<Stretch> {
    let index = Index::new(old);
    let mut stretches = Vec::new();
    // Where the present stretch began, in both files.
    let (mut start, mut start_old) = (0usize, 0usize);
    let mut scan = 0;
    while scan < new.len() {
        let (found, place) = next_match(&index, old, new, scan, start, start_old);
        scan = found;
        let end = scan == new.len();
        let forward = reach_forward(old, new, start, start_old, scan);
        let mut back = if end { 0 } else { reach_back(old, new, start, scan, place) };
        let mut len = forward;
        if start + len > scan - back {
            let overlap = start + len - (scan - back);
            let keep =
                split_overlap(old, new, (start + len - overlap, start_old + len - overlap), place - back, overlap);
            len = len + keep - overlap;
            back -= keep;
        }
        let begin = scan - back;
        stretches.push(Stretch { old: start_old, len, extra: begin - (start + len) });
        (start, start_old) = (begin, place.saturating_sub(back));
    }
    stretches
}

/// The next place from `from` on where another alignment is clearly better than the present one, and where in the old
/// file it is; or the end.
fn next_match(
    index: &Index<'_>,
    old: &[u8],
    new: &[u8],
    from: usize,
    start: usize,
    start_old: usize,
) -> (usize, usize) {
    // Place in the old file that is beside `at` now.
    let beside = |at: usize| start_old + (at - start);
    let same = |at: usize| old.get(beside(at)).is_some_and(|byte| *byte == new[at]);
    let mut scan = from;
    // Of new[scan..counted], `agree` bytes are equal along the present alignment.
    let (mut counted, mut agree) = (scan, 0usize);
    while scan < new.len() {
        let along = common(old, beside(scan), new, scan);
        if along >= FOLLOW {
            scan += along;
            (counted, agree) = (scan, 0);
            continue;
        }
        let (place, len) = index.longest(new, scan);
        while counted < scan + len {
            agree += usize::from(same(counted));
            counted += 1;
        }
        if len > 0 && len == agree {
            // As good as what is followed anyway.
            scan += len;
            (counted, agree) = (scan, 0);
            continue;
        }
        if len > agree + BETTER {
            return (scan, place);
        }
        if counted > scan {
            agree -= usize::from(same(scan));
        } else {
            counted = scan + 1;
        }
        scan += 1;
    }
    (new.len(), 0)
}

/// How far the present stretch goes, at most to `end`: as far as more than half of the bytes are equal.
fn reach_forward(old: &[u8], new: &[u8], start: usize, start_old: usize, end: usize) -> usize {
    let most = (end - start).min(old.len().saturating_sub(start_old));
    let (old, new) = (&old[start_old.min(old.len())..], &new[start..]);
    let (mut score, mut best, mut len) = (0isize, 0isize, 0);
    for at in 0..most {
        score += if old[at] == new[at] { 1 } else { -1 };
        if score > best {
            (best, len) = (score, at + 1);
        }
    }
    len
}

/// How far the stretch that is found at `scan` goes back, at most to `start`.
fn reach_back(old: &[u8], new: &[u8], start: usize, scan: usize, place: usize) -> usize {
    let most = (scan - start).min(place);
    let (mut score, mut best, mut len) = (0isize, 0isize, 0);
    for at in 1..=most {
        score += if old[place - at] == new[scan - at] { 1 } else { -1 };
        if score > best {
            (best, len) = (score, at);
        }
    }
    len
}

/// Of bytes that both stretches want, how many the first one gets.
fn split_overlap(old: &[u8], new: &[u8], (at, first): (usize, usize), second: usize, overlap: usize) -> usize {
    let (mut score, mut best, mut keep) = (0isize, 0isize, 0);
    for i in 0..overlap {
        score += isize::from(new[at + i] == old[first + i]) - isize::from(new[at + i] == old[second + i]);
        if score > best {
            (best, keep) = (score, i + 1);
        }
    }
    keep
}

/// The patch that `Patching` applies.
pub(super) fn encode_patch(old: &[u8], new: &[u8], stretches: &[Stretch]) -> Vec<u8> {
    let mut patch = Vec::with_capacity(new.len() + stretches.len() * 24);
    let mut at = 0;
    for (index, stretch) in stretches.iter().enumerate() {
        let seek = stretches.get(index + 1).map_or(0, |next| next.old as i64 - (stretch.old + stretch.len) as i64);
        for number in [stretch.len as i64, stretch.extra as i64, seek] {
            let sign = u64::from(number < 0) << 63;
            patch.extend_from_slice(&(number.unsigned_abs() | sign).to_le_bytes());
        }
        let beside = &old[stretch.old.min(old.len())..][..stretch.len];
        patch.extend(new[at..at + stretch.len].iter().zip(beside).map(|(new, old)| new.wrapping_sub(*old)));
        at += stretch.len;
        patch.extend_from_slice(&new[at..at + stretch.extra]);
        at += stretch.extra;
    }
    patch
}

/// A piece of the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As in the old file at a place.
    Copy { old: usize, len: usize },
    /// Bytes of its own.
    Bytes { at: usize, len: usize },
    /// All of another new file.
    Whole { object: Checksum, len: usize },
}

/// Equal bytes that are worth an operation of their own.
const COPY: usize = 48;

/// The pieces that copies make of the same stretches.
pub(super) fn copies(old: &[u8], new: &[u8], stretches: &[Stretch]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let bytes = |pieces: &mut Vec<Piece>, from: usize, to: usize| {
        if let Some(Piece::Bytes { len, .. }) = pieces.last_mut() {
            *len += to - from;
        } else if to > from {
            pieces.push(Piece::Bytes { at: from, len: to - from });
        }
    };
    let mut at = 0;
    for stretch in stretches {
        let (mut done, end) = (0, stretch.len);
        let mut look = 0;
        while look < end {
            let equal = common(&old[..stretch.old + end], stretch.old + look, &new[..at + end], at + look);
            if equal >= COPY {
                bytes(&mut pieces, at + done, at + look);
                pieces.push(Piece::Copy { old: stretch.old + look, len: equal });
                done = look + equal;
            }
            look += equal.max(1);
        }
        bytes(&mut pieces, at + done, at + end + stretch.extra);
        at += end + stretch.extra;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(old: &[u8], new: &[u8]) -> (usize, usize) {
        let stretches = align(old, new);
        assert_eq!(stretches.iter().map(|s| s.len + s.extra).sum::<usize>(), new.len());
        // A patch applied by the letter of the format.
        let patch = encode_patch(old, new, &stretches);
        let (mut made, mut at, mut place) = (Vec::new(), 0, 0i64);
        while made.len() < new.len() {
            let number = |i: usize| {
                let word = u64::from_le_bytes(patch[at + i * 8..at + i * 8 + 8].try_into().unwrap());
                let magnitude = (word & !(1 << 63)) as i64;
                if word >> 63 == 1 { -magnitude } else { magnitude }
            };
            let (add, extra, seek) = (number(0), number(1), number(2));
            at += 24;
            for i in 0..add {
                made.push(patch[at + i as usize].wrapping_add(old[(place + i) as usize]));
            }
            at += add as usize;
            made.extend_from_slice(&patch[at..at + extra as usize]);
            at += extra as usize;
            place += add + seek;
        }
        assert_eq!(at, patch.len());
        assert_eq!(made, new);
        let mut made = Vec::new();
        let pieces = copies(old, new, &stretches);
        for piece in &pieces {
            match *piece {
                Piece::Copy { old: at, len } => made.extend_from_slice(&old[at..at + len]),
                Piece::Bytes { at, len } => made.extend_from_slice(&new[at..at + len]),
                Piece::Whole { .. } => unreachable!("there are no other files"),
            }
        }
        assert_eq!(made, new);
        let literal = pieces.iter().map(|p| if let Piece::Bytes { len, .. } = p { *len } else { 0 }).sum();
        (literal, stretches.iter().map(|s| s.extra).sum())
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(len)
        .collect()
    }

    #[test]
    fn a_byte_put_in_at_the_beginning_costs_a_byte() {
        let old = noise(100_000);
        let mut new = old.clone();
        new.insert(0, 1);
        new[50_000] ^= 1;
        let (literal, extra) = check(&old, &new);
        assert!(literal < 10 && extra < 4, "{literal} {extra}");
        // Halves exchanged, and a piece that is twice there.
        let mut new = old[60_000..].to_vec();
        new.extend_from_slice(&old[..60_000]);
        new.extend_from_slice(&old[10_000..20_000]);
        let (literal, _) = check(&old, &new);
        assert!(literal < 10, "{literal}");
        check(&old, &[]);
        check(&[], &old);
        check(&vec![0; 1 << 20], &vec![0; 1 << 19]);
    }

    #[derive(Clone, Debug)]
    enum Edit {
        Copy(usize, usize),
        Bytes(Vec<u8>),
        Change(usize, usize, u8),
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            (0..2000usize, 0..900usize).prop_map(|(at, len)| Edit::Copy(at, len)),
            prop::collection::vec(any::<u8>(), 0..80).prop_map(Edit::Bytes),
            (0..2000usize, 0..900usize, any::<u8>()).prop_map(|(at, len, every)| Edit::Change(at, len, every)),
        ]
    }

    proptest! {
        #[test]
        fn patches_and_copies_make_the_file(edits in prop::collection::vec(edit(), 0..12), few in any::<bool>()) {
            let old: Vec<u8> = noise(2000).into_iter().map(|b| if few { b & 1 } else { b }).collect();
            let mut new = Vec::new();
            for edit in edits {
                match edit {
                    Edit::Copy(at, len) => new.extend_from_slice(&old[at..(at + len).min(old.len())]),
                    Edit::Bytes(bytes) => new.extend(bytes),
                    Edit::Change(at, len, every) => new.extend(
                        old[at..(at + len).min(old.len())].iter().enumerate().map(|(i, b)| if i % (usize::from(every) + 2) == 0 { b ^ 0x55 } else { *b }),
                    ),
                }
            }
            check(&old, &new);
        }
    }
}
