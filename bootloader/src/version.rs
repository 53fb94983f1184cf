//! The UAPI version order, as systemd-boot compares versions and identifiers.

use std::cmp::Ordering;

fn known(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'~' | b'-' | b'^' | b'.')
}

/// Takes the longest prefix whose bytes satisfy `keep`.
fn take<'a>(text: &mut &'a [u8], keep: impl Fn(u8) -> bool) -> &'a [u8] {
    let end = text.iter().position(|&b| !keep(b)).unwrap_or(text.len());
    let (head, rest) = text.split_at(end);
    *text = rest;
    head
}

/// Compares two versions: `1.10` is greater than `1.9`, `2~rc1` less than `2`, `2^1` greater than `2`.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        take(&mut a, |c| !known(c));
        take(&mut b, |c| !known(c));
        // `~` sorts before everything, the end of the text included; `-`, `^` and `.` before everything but the end.
        for separator in [b'~', b'-', b'^', b'.'] {
            let (has_a, has_b) = (a.first() == Some(&separator), b.first() == Some(&separator));
            if separator != b'~' && (a.is_empty() || b.is_empty()) {
                return b.is_empty().cmp(&a.is_empty());
            }
            match (has_a, has_b) {
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (true, true) => {
                    a = &a[1..];
                    b = &b[1..];
                }
                (false, false) => {}
            }
        }
        let digit = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
        let order = if digit(a) || digit(b) {
            take(&mut a, |c| c == b'0');
            take(&mut b, |c| c == b'0');
            let (x, y) = (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            let (x, y) = (take(&mut a, |c| c.is_ascii_alphabetic()), take(&mut b, |c| c.is_ascii_alphabetic()));
            x.cmp(y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_as_the_specification_says() {
        // The chain of examples in the UAPI version format specification, and some of our own.
        let chain = [
            "~a",
            "",
            "122.1",
            "123~rc1-1",
            "123",
            "123-a",
            "123-a.1",
            "123-1",
            "123-1.1",
            "123^post1",
            "123.a-1",
            "123.1-1",
            "123a-1",
            "124-1",
        ];
        for (i, a) in chain.iter().enumerate() {
            for (j, b) in chain.iter().enumerate() {
                assert_eq!(compare_versions(a, b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
        assert_eq!(compare_versions("10", "9"), Ordering::Greater);
        assert_eq!(compare_versions("007", "7"), Ordering::Equal);
        assert_eq!(compare_versions("1_2", "12"), Ordering::Less);
    }

    proptest! {
        #[test]
        fn is_antisymmetric(a in "[~^.a-c0-2_-]{0,8}", b in "[~^.a-c0-2_-]{0,8}") {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
        }
    }
}
