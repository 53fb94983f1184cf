//! An initramfs as a recipe: which stretches of the archive are files of the tree.
//!
//! ```text
//! "070701", 13 numbers of 8 hexadecimal digits, name NUL, padding to 4, data, padding to 4;  …;  "TRAILER!!!"
//! ```

/// Data of a member, where it is a file with content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub at: usize,
    pub len: usize,
}

/// Members with at least `least` bytes of data, or `None` if the bytes are not such an archive from beginning to end.
pub(crate) fn members(bytes: &[u8], least: usize) -> Option<Vec<Member>> {
    let field = |at: usize, number: usize| {
        let start = at.checked_add(6 + number * 8)?;
        let text = std::str::from_utf8(bytes.get(start..start + 8)?).ok()?;
        usize::try_from(u32::from_str_radix(text, 16).ok()?).ok()
    };
    let mut members = Vec::new();
    let mut at = 0;
    loop {
        if bytes.get(at..at + 6)? != b"070701" {
            return None;
        }
        let (size, name) = (field(at, 6)?, field(at, 11)?);
        let name_end = at + 110 + name;
        let data = name_end.next_multiple_of(4);
        let end = data.checked_add(size)?;
        if end > bytes.len() {
            return None;
        }
        if bytes.get(at + 110..name_end)? == b"TRAILER!!!\0" {
            return Some(members);
        }
        if size >= least.max(1) {
            members.push(Member { at: data, len: size });
        }
        at = end.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let mut fields = [0usize; 13];
        (fields[6], fields[11]) = (data.len(), name.len() + 1);
        let mut bytes = b"070701".to_vec();
        fields.iter().for_each(|field| bytes.extend_from_slice(format!("{field:08x}").as_bytes()));
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn members_are_found_and_damage_is_noticed() {
        let whole = [member("bin", b""), member("bin/a", b"0123456789"), member("TRAILER!!!", b"")].concat();
        let found = members(&whole, 4).unwrap();
        assert_eq!(found.iter().map(|m| &whole[m.at..m.at + m.len]).collect::<Vec<_>>(), [b"0123456789"]);
        assert_eq!(members(&whole[..whole.len() - 30], 4), None);
        assert_eq!(members(b"", 4), None);
        let mut lie = whole.clone();
        lie[54..62].copy_from_slice(b"ffffffff");
        assert_eq!(members(&lie, 4), None);
    }
}
