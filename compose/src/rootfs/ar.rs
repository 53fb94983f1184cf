//! The outer layer of a `.deb`: an `ar` archive.
//!
//! ```text
//! !<arch>\n
//! name[16] mtime[12] uid[6] gid[6] mode[8] size[10] `\n      60 bytes, ASCII, padded with spaces
//! content, padded to an even offset
//! ```

use super::source::Source;

/// One member of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name, without the padding and the trailing slash.
    pub name: String,
    /// Where its content starts.
    pub offset: u64,
    /// How long its content is.
    pub size: u64,
}

/// Why the bytes are not an `ar` archive.
#[derive(Debug, thiserror::Error)]
pub enum ArError {
    /// The magic is missing.
    #[error("not an ar archive")]
    Magic,
    /// A header is not as the format wants it.
    #[error("the header at byte {0} is damaged")]
    Header(u64),
    /// A member reaches over the end of the file.
    #[error("member {name} should end at byte {end}, the file ends at {length}: it is truncated")]
    Truncated {
        /// Name of the member.
        name: String,
        /// Where it should end.
        end: u64,
        /// Where the file ends.
        length: u64,
    },
    /// More members than any package has.
    #[error("more than {MEMBERS} members")]
    TooMany,
    /// Reading failed.
    #[error("reading")]
    Read(#[from] std::io::Error),
}

/// A `.deb` has three members and now and then a signature.
const MEMBERS: usize = 64;
const HEADER: u64 = 60;

/// Lists the members.
pub fn members(source: &impl Source) -> Result<Vec<Member>, ArError> {
    let length = source.length()?;
    let mut magic = [0; 8];
    if length < 8 {
        return Err(ArError::Magic);
    }
    source.read_exact_at(&mut magic, 0)?;
    if &magic != b"!<arch>\n" {
        return Err(ArError::Magic);
    }
    let mut members = Vec::new();
    let mut at = 8;
    // A single byte of padding may be missing at the end.
    while at + 1 < length {
        if members.len() == MEMBERS {
            return Err(ArError::TooMany);
        }
        let mut header = [0; HEADER as usize];
        if at + HEADER > length {
            return Err(ArError::Header(at));
        }
        source.read_exact_at(&mut header, at)?;
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).ok().map(str::trim_end);
        let (Some(name), Some(size)) = (text(0..16), text(48..58)) else { return Err(ArError::Header(at)) };
        if &header[58..60] != b"`\n" || size.is_empty() || !size.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ArError::Header(at));
        }
        let size: u64 = size.parse().map_err(|_| ArError::Header(at))?;
        let name = name.strip_suffix('/').unwrap_or(name).to_owned();
        let offset = at + HEADER;
        let end = offset + size;
        if end > length {
            return Err(ArError::Truncated { name, end, length });
        }
        members.push(Member { name, offset, size });
        at = end + end % 2;
    }
    Ok(members)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Builds an archive.
    pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in members {
            let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", content.len());
            bytes.extend(header.as_bytes());
            bytes.extend(*content);
            if content.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    #[test]
    fn members_are_found_behind_odd_sizes() {
        let bytes = archive(&[("debian-binary", b"2.0"), ("data.tar/", b"abcd")]);
        let list = members(&&bytes[..]).unwrap();
        assert_eq!(list[0], Member { name: "debian-binary".into(), offset: 68, size: 3 });
        assert_eq!(list[1], Member { name: "data.tar".into(), offset: 132, size: 4 });
    }

    #[test]
    fn a_truncated_member_is_named() {
        let mut bytes = archive(&[("data.tar", b"abcdefgh")]);
        bytes.truncate(bytes.len() - 3);
        let error = members(&&bytes[..]).unwrap_err().to_string();
        assert_eq!(error, "member data.tar should end at byte 76, the file ends at 73: it is truncated");
    }

    #[test]
    fn a_size_that_is_no_number_is_refused() {
        let mut bytes = archive(&[("data.tar", b"abcdefgh")]);
        bytes[8 + 48] = b'-';
        assert!(matches!(members(&&bytes[..]), Err(ArError::Header(8))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = members(&&bytes[..]);
            let mut with_magic = b"!<arch>\n".to_vec();
            with_magic.extend(&bytes);
            let _ = members(&&with_magic[..]);
        }

        #[test]
        fn a_flipped_byte_never_makes_the_reader_panic(at in 0usize..150, value: u8) {
            let mut bytes = archive(&[("debian-binary", b"2.0\n"), ("data.tar", b"abcdefgh")]);
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            let _ = members(&&bytes[..]);
        }
    }
}
