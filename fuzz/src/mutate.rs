//! Changes of an input.

/// Numbers without a pattern, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() >> 11) as usize % limit }
    }
}

/// Values at which decoders go wrong.
const INTERESTING: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 31, i64::MAX as u64, u64::MAX];

/// Longest input.
const LONGEST: usize = 64 << 10;

/// A few changes of `input`; pieces may come from `other`.
pub(crate) fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(32)).min(bytes.len());
        match random.below(10) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.next() as u8,
            3 | 4 => {
                let value = INTERESTING[random.below(INTERESTING.len())];
                let width = [1, 2, 4, 8][random.below(4)];
                let value = if random.below(2) == 0 { value.to_le_bytes() } else { value.swap_bytes().to_le_bytes() };
                let value = if random.below(2) == 0 { &value[..width] } else { &value[8 - width..] };
                for (place, byte) in bytes[at..].iter_mut().zip(value) {
                    *place = *byte;
                }
            }
            5 => drop(bytes.drain(at.min(end)..end)),
            6 => {
                let copy = bytes[at.min(end)..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            7 => {
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + 1 + random.below(64)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            8 => bytes.truncate(at),
            _ => bytes.extend(std::iter::repeat_n(random.next() as u8, random.below(40))),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
