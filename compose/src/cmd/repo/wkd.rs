//! Where a Web Key Directory has the key of a mail address.
//!
//! ```text
//! https://openpgpkey.DOMAIN/.well-known/openpgpkey/DOMAIN/hu/HASH?l=LOCAL
//! https://DOMAIN/.well-known/openpgpkey/hu/HASH?l=LOCAL
//! ```
//! HASH is the SHA-1 of the part before the `@` in small letters, in z-base-32: a name in an address, and no more.

/// The two addresses, the one to try first before the other. `None` where there is no mail address.
pub fn urls(mail: &str) -> Option<[String; 2]> {
    let (local, domain) = mail.rsplit_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty())?;
    let domain = domain.to_lowercase();
    let hash = z_base_32(&sha1(local.to_ascii_lowercase().as_bytes()));
    let end = format!("hu/{hash}?l={}", escape(local));
    Some([
        format!("https://openpgpkey.{domain}/.well-known/openpgpkey/{domain}/{end}"),
        format!("https://{domain}/.well-known/openpgpkey/{end}"),
    ])
}

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// Five bits a letter; 20 bytes are 32 letters without a rest.
fn z_base_32(bytes: &[u8; 20]) -> String {
    const LETTERS: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
    let bit = |at: usize| usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let letter = |at: usize| (0..5).fold(0, |sum, next| sum << 1 | bit(5 * at + next));
    (0..32).map(|at| char::from(LETTERS[letter(at)])).collect()
}

/// FIPS 180-4, section 6.1.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    let length = (padded.len() + 8).next_multiple_of(64);
    padded.resize(length, 0);
    padded[length - 8..].copy_from_slice(&(8 * message.len() as u64).to_be_bytes());
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks_exact(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_is_that_of_the_standard() {
        assert_eq!(hex::encode(sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex::encode(sha1(b"")), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex::encode(sha1(two_blocks)), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        for length in [55, 63, 64] {
            let output = sys::Cmd::new("sha1sum").stdin(vec![b'a'; length]).run().unwrap().text();
            assert!(output.starts_with(&hex::encode(sha1(&vec![b'a'; length]))), "{length}");
        }
    }

    #[test]
    fn addresses_are_where_gnupg_looks() {
        let [advanced, direct] = urls("One+a@Example.org").unwrap();
        let hash = z_base_32(&sha1(b"one+a"));
        assert_eq!(direct, format!("https://example.org/.well-known/openpgpkey/hu/{hash}?l=One%2Ba"));
        assert!(advanced.starts_with("https://openpgpkey.example.org/.well-known/openpgpkey/example.org/hu/"));
        assert_eq!(z_base_32(&sha1(b"one")), "9an53zghjrwynjhbwza4fj5hzpj3taeg");
        for none in ["", "one", "@example.org", "one@"] {
            assert_eq!(urls(none), None, "{none}");
        }
    }
}
