//! Finding where pieces of a new file lie in an old one.
//!
//! ```text
//! table   hash of 8 bytes -> last place in the old file where they stand
//! chain   place -> the place before it with the same hash
//! ```
//! Every `step`-th place is in the index: what it takes is bounded by a choice of `step`, and a match of 8 + `step`
//! bytes is found wherever it begins.

use crate::equal::{common, word};

/// Bytes that a match must have at least.
pub(super) const SEED: usize = 8;
/// Candidates that are looked at for one place.
const DEPTH: usize = 24;
/// A match of this length is taken without looking for a longer one.
const ENOUGH: usize = 512;
const NONE: u32 = u32::MAX;

/// An index over an old file.
pub(super) struct Index<'a> {
    old: &'a [u8],
    table: Vec<u32>,
    chain: Vec<u32>,
    shift: u32,
    step: usize,
}

/// Places to leave out so that an index over `len` bytes takes no more than a quarter of a gigabyte.
fn step_for(len: usize) -> usize {
    len.div_ceil(32 << 20).max(1).next_power_of_two()
}

impl<'a> Index<'a> {
    /// Indexes `old`, which is smaller than 4 GiB.
    pub fn new(old: &'a [u8]) -> Self {
        let step = step_for(old.len());
        let places = old.len() / step + 1;
        let bits = places.next_power_of_two().trailing_zeros().clamp(8, 26);
        let mut index = Index { old, table: vec![NONE; 1 << bits], chain: vec![NONE; places], shift: 64 - bits, step };
        let mut at = 0;
        let mut last = None;
        while at + SEED <= old.len() {
            let seed = word(old, at);
            // In a run of equal bytes one place stands for all.
            let run = seed == seed.rotate_left(8);
            if !(run && last == Some(seed)) {
                let slot = index.slot(seed);
                index.chain[at / step] = std::mem::replace(&mut index.table[slot], (at / step) as u32);
            }
            last = Some(seed);
            at += step;
        }
        index
    }

    fn slot(&self, seed: u64) -> usize {
        (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// The longest match for what begins at `at` of `new`: place in the old file, and length. (0, 0) if there is none.
    pub fn longest(&self, new: &[u8], at: usize) -> (usize, usize) {
        if at + SEED > new.len() {
            return (0, 0);
        }
        let (mut best, mut length) = (0, 0);
        let mut candidate = self.table[self.slot(word(new, at))];
        for _ in 0..DEPTH {
            if candidate == NONE {
                break;
            }
            let place = candidate as usize * self.step;
            // A longer match agrees where the best one so far ends.
            let worth = length == 0 || self.old.get(place + length).is_some_and(|b| new.get(at + length) == Some(b));
            if worth {
                let len = common(self.old, place, new, at);
                if len > length {
                    (best, length) = (place, len);
                    if len >= ENOUGH {
                        break;
                    }
                }
            }
            candidate = self.chain[candidate as usize];
        }
        if length < SEED { (0, 0) } else { (best, length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_match_is_one(old in prop::collection::vec(0..3u8, 0..400), new in prop::collection::vec(0..3u8, 0..100), at in 0..110usize) {
            let (place, len) = Index::new(&old).longest(&new, at);
            prop_assert!(len == 0 || (len >= SEED && old[place..place + len] == new[at..at + len]));
        }
    }

    #[test]
    fn what_is_there_is_found() {
        let old: Vec<u8> = (0..10_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let index = Index::new(&old);
        assert_eq!(index.longest(&old[5000..5100], 0), (5000, 100));
        assert_eq!(index.longest(&old[5000..5007], 0), (0, 0));
        let zeros = vec![0; 1 << 20];
        assert!(Index::new(&zeros).longest(&zeros, 77).1 > 0);
    }
}
