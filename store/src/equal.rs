//! How far two pieces of content agree, eight bytes at a time.

/// The 8 bytes at `at`, which is not near the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// How many bytes at `a` of one and `b` of the other are equal.
pub(crate) fn common(one: &[u8], a: usize, other: &[u8], b: usize) -> usize {
    let (Some(one), Some(other)) = (one.get(a..), other.get(b..)) else { return 0 };
    let most = one.len().min(other.len());
    let mut len = 0;
    while len + 8 <= most {
        let differ = word(one, len) ^ word(other, len);
        if differ != 0 {
            return len + (differ.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    while len < most && one[len] == other[len] {
        len += 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn common_counts(one in prop::collection::vec(0..2u8, 0..60), other in prop::collection::vec(0..2u8, 0..60), a in 0..70usize, b in 0..70usize) {
            let slow = one.iter().skip(a).zip(other.iter().skip(b)).take_while(|(x, y)| x == y).count();
            prop_assert_eq!(common(&one, a, &other, b), slow);
        }
    }
}
