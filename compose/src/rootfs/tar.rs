//! The inner layers of a `.deb`: `tar` archives in ustar or GNU form, the ones `dpkg` accepts.
//!
//! Reading is strict, because these bytes decide what lands in the tree: a name may not be absolute, hold `..`, or leave
//! the archive by a hard link; device nodes, pax headers and names that no file system takes are refused.

use super::source::Source;

const BLOCK: u64 = 512;
/// Longest name or link target (`PATH_MAX`).
const NAME: u64 = 4096;
/// More entries than any package has: the largest in Debian has about 100 000.
const ENTRIES: usize = 2_000_000;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file, and where its content lies in the archive.
    File {
        /// First byte.
        offset: u64,
        /// Length.
        size: u64,
    },
    /// A symbolic link to this target, taken as it is.
    Symlink(String),
    /// A hard link to this entry of the same archive.
    Hardlink(String),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, without `./` and trailing slash; empty for the root itself.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Owner, by name; counts more than the number where the root knows the name.
    pub user: String,
    /// Group, by name.
    pub group: String,
    /// Modification time.
    pub mtime: u64,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The archive ends in the middle of an entry.
    #[error("the archive is truncated at byte {0}")]
    Truncated(u64),
    /// The header's checksum is wrong.
    #[error("the header at byte {0} is damaged")]
    Checksum(u64),
    /// A numeric field holds no number, or one that is too large.
    #[error("the header at byte {at} has no valid {field}")]
    Number {
        /// Offset of the header.
        at: u64,
        /// Name of the field.
        field: &'static str,
    },
    /// A name that may not be.
    #[error("{name:?} is not a name an archive may hold: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry of a type that may not be.
    #[error("{name:?} is {kind}, which a package may not hold")]
    Type {
        /// The name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// A hard link to something that is not an earlier file of the archive.
    #[error("{name:?} is a hard link to {target:?}, which is no file of the same package")]
    Hardlink {
        /// The link.
        name: String,
        /// Its target.
        target: String,
    },
    /// A header for a long name is larger than any name.
    #[error("the header at byte {0} announces a name of more than {NAME} bytes")]
    Oversized(u64),
    /// Too many entries.
    #[error("more than {ENTRIES} entries")]
    TooMany,
    /// Reading failed.
    #[error("reading")]
    Read(#[from] std::io::Error),
}

/// Reads the table of contents. File contents are not read.
pub fn index(source: &impl Source) -> Result<Vec<Entry>, TarError> {
    let length = source.length()?;
    let mut entries = Vec::new();
    let mut files = std::collections::HashSet::new();
    let (mut at, mut long_name, mut long_link) = (0, None, None);
    while at + BLOCK <= length {
        let mut header = [0; BLOCK as usize];
        source.read_exact_at(&mut header, at)?;
        if header.iter().all(|b| *b == 0) {
            return Ok(entries);
        }
        if entries.len() == ENTRIES {
            return Err(TarError::TooMany);
        }
        check(&header, at)?;
        let size = number(&header[124..136]).ok_or(TarError::Number { at, field: "size" })?;
        let content = at + BLOCK;
        let end = content.checked_add(size).ok_or(TarError::Number { at, field: "size" })?;
        let kind = header[156];
        let has_content = matches!(kind, b'0' | 0 | b'7' | b'L' | b'K' | b'x' | b'g');
        if has_content && end > length {
            return Err(TarError::Truncated(at));
        }
        if matches!(kind, b'L' | b'K') {
            if size > NAME {
                return Err(TarError::Oversized(at));
            }
            let mut bytes = vec![0; size as usize];
            source.read_exact_at(&mut bytes, content)?;
            let text = text(&bytes)?;
            if kind == b'L' {
                long_name = Some(text)
            } else {
                long_link = Some(text)
            }
            at = content + size.next_multiple_of(BLOCK);
            continue;
        }
        let raw = match long_name.take() {
            Some(name) => name,
            None => short_name(&header)?,
        };
        let link = match long_link.take() {
            Some(link) => link,
            None => text(&header[157..257])?,
        };
        let path = clean(&raw)?;
        let kind = match kind {
            // Very old archives mark a directory only by the slash.
            b'0' | 0 | b'7' if raw.ends_with('/') => Kind::Dir,
            b'0' | 0 | b'7' => Kind::File { offset: content, size },
            b'1' => {
                let target = clean(&link)?;
                if !files.contains(&target) {
                    return Err(TarError::Hardlink { name: raw, target: link });
                }
                Kind::Hardlink(target)
            }
            b'2' if link.is_empty() || link.contains('\n') => {
                return Err(TarError::Name { name: link, why: "it is the target of a symbolic link" });
            }
            b'2' => Kind::Symlink(link),
            b'5' => Kind::Dir,
            other => return Err(TarError::Type { name: raw, kind: type_name(other) }),
        };
        if path.is_empty() && kind != Kind::Dir {
            return Err(TarError::Name { name: raw, why: "it is the root directory" });
        }
        if matches!(kind, Kind::File { .. } | Kind::Hardlink(_)) {
            files.insert(path.clone());
        }
        let field = |range: std::ops::Range<usize>, field| number(&header[range]).ok_or(TarError::Number { at, field });
        let id = |range, name| {
            field(range, name).and_then(|n| u32::try_from(n).map_err(|_| TarError::Number { at, field: name }))
        };
        entries.push(Entry {
            path,
            mode: id(100..108, "mode")? & 0o7777,
            uid: id(108..116, "owner")?,
            gid: id(116..124, "group")?,
            user: text(&header[265..297])?,
            group: text(&header[297..329])?,
            mtime: field(136..148, "time")?,
            kind,
        });
        at = if has_content { content + size.next_multiple_of(BLOCK) } else { content };
    }
    // dpkg, too, is content with an archive that lacks the zero blocks at the end, but not with half a block.
    if at < length && length - at < BLOCK { Err(TarError::Truncated(at)) } else { Ok(entries) }
}

fn check(header: &[u8; BLOCK as usize], at: u64) -> Result<(), TarError> {
    let sum = |signed: bool| {
        header.iter().enumerate().fold(0i64, |sum, (i, byte)| {
            let byte = if (148..156).contains(&i) { b' ' } else { *byte };
            sum + if signed { i64::from(byte as i8) } else { i64::from(byte) }
        })
    };
    let want = number(&header[148..156]).and_then(|n| i64::try_from(n).ok()).ok_or(TarError::Checksum(at))?;
    if want == sum(false) || want == sum(true) { Ok(()) } else { Err(TarError::Checksum(at)) }
}

/// Octal text, or GNU's big-endian binary with the top bit of the first byte set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (first, rest) = field.split_first()?;
        return rest.iter().try_fold(u64::from(first & 0x7f), |n, byte| {
            n.checked_mul(256).map(|n| n | u64::from(*byte)).filter(|n| *n <= i64::MAX as u64)
        });
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(|c| c == ' ' || c == '\0');
    if text.is_empty() {
        return Some(0);
    }
    text.bytes().try_fold(0u64, |n, byte| match byte {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

fn text(field: &[u8]) -> Result<String, TarError> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8(field[..end].to_vec()).map_err(|e| TarError::Name {
        name: String::from_utf8_lossy(e.as_bytes()).into_owned(),
        why: "it is not UTF-8",
    })
}

fn short_name(header: &[u8; BLOCK as usize]) -> Result<String, TarError> {
    let name = text(&header[..100])?;
    // GNU's form has two spaces here, and uses the prefix for other things.
    if &header[257..263] == b"ustar\0" && header[345] != 0 {
        return Ok(format!("{}/{name}", text(&header[345..500])?));
    }
    Ok(name)
}

/// `./usr/bin/x` → `usr/bin/x`; refuses every name that could leave the root.
fn clean(name: &str) -> Result<String, TarError> {
    let refuse = |why| Err(TarError::Name { name: name.to_owned(), why });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.starts_with('/') {
        return refuse("it is absolute");
    }
    if name.contains('\n') {
        return refuse("it holds a line break");
    }
    if name.len() as u64 >= NAME {
        return refuse("it is too long");
    }
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return refuse("it leads out of the root"),
            part if part.len() > 255 => return refuse("a component is longer than 255 bytes"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn type_name(kind: u8) -> String {
    match kind {
        b'3' => "a character device".into(),
        b'4' => "a block device".into(),
        b'6' => "a FIFO".into(),
        b'x' | b'g' => "a pax header".into(),
        other => format!("an entry of type {:?}", char::from(other)),
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
pub mod tests;
