//! What a machine wrote to its serial console.

/// Removes terminal control sequences and carriage returns: firmware and loaders paint screens.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.peek() {
                Some('[') => {
                    chars.next();
                    // CSI: parameters, then one final letter.
                    while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
                }
                Some(']') => while chars.next().is_some_and(|c| c != '\x07' && c != '\x1b') {},
                _ => {
                    chars.next();
                }
            },
            '\r' | '\0' => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_painted_screen_becomes_lines() {
        assert_eq!(plain(b"\x1b[2J\x1b[01;01HBdsDxe\r\n\x1b]0;title\x07x\x1b=y\0"), "BdsDxe\nxy");
    }

    proptest! {
        #[test]
        fn any_bytes_are_fine(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            prop_assert!(!plain(&bytes).contains('\x1b'));
        }
    }
}
