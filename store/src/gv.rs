//! GVariant framing: where the members of an array or a tuple begin and end.
//!
//! ```text
//! array of fixed    e e e e
//! array of variable e pad e pad e | end end end            one framing offset for each element
//! tuple             m pad m pad m | end(last but one) … end(first)
//!                                   only for variable members that are not last; reverse order
//! variant           value 00 type-string
//! ```
//! Offsets are little-endian, as wide as the size of the whole container needs (1, 2, 4 or 8 bytes).
//!
//! Everything here refuses what is not in *normal form*: one value has one encoding, so nobody can hide bytes from one
//! reader and show them to another. Nothing is allocated that the input did not pay for, and nesting is bounded.

/// Why bytes are not the value they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

pub(crate) fn bad<T>(why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(why.into()))
}

/// Deeper nesting than any OSTree object has; bounds recursion over hostile input.
const MAX_DEPTH: usize = 32;
/// Longest type string that is looked at.
const MAX_TYPE: usize = 255;

/// A parsed type string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    Byte,
    /// Fixed-size numbers of 2, 4 or 8 bytes.
    Number(usize),
    Str,
    ObjectPath,
    Signature,
    Variant,
    Maybe(Box<Type>),
    Array(Box<Type>),
    /// Tuples and dictionary entries.
    Tuple(Vec<Type>),
}

impl Type {
    /// Parses exactly one complete type.
    pub(crate) fn parse(text: &str) -> Result<Type, Malformed> {
        if text.len() > MAX_TYPE {
            return bad("type string too long");
        }
        let mut rest = text.as_bytes();
        let ty = Self::next(&mut rest, 0)?;
        if rest.is_empty() { Ok(ty) } else { bad(format!("{text:?} is not one type")) }
    }

    fn next(rest: &mut &[u8], depth: usize) -> Result<Type, Malformed> {
        if depth > MAX_DEPTH {
            return bad("type nested too deeply");
        }
        let Some((&first, tail)) = rest.split_first() else { return bad("type string ends early") };
        *rest = tail;
        Ok(match first {
            b'b' => Type::Bool,
            b'y' => Type::Byte,
            b'n' | b'q' => Type::Number(2),
            b'i' | b'u' | b'h' => Type::Number(4),
            b'x' | b't' | b'd' => Type::Number(8),
            b's' => Type::Str,
            b'o' => Type::ObjectPath,
            b'g' => Type::Signature,
            b'v' => Type::Variant,
            b'm' => Type::Maybe(Box::new(Self::next(rest, depth + 1)?)),
            b'a' => Type::Array(Box::new(Self::next(rest, depth + 1)?)),
            b'(' => {
                let mut members = Vec::new();
                while rest.first() != Some(&b')') {
                    members.push(Self::next(rest, depth + 1)?);
                }
                *rest = &rest[1..];
                Type::Tuple(members)
            }
            b'{' => {
                let key = Self::next(rest, depth + 1)?;
                if matches!(key, Type::Variant | Type::Maybe(_) | Type::Array(_) | Type::Tuple(_)) {
                    return bad("dictionary key is not a basic type");
                }
                let value = Self::next(rest, depth + 1)?;
                if rest.first() != Some(&b'}') {
                    return bad("dictionary entry without end");
                }
                *rest = &rest[1..];
                Type::Tuple(vec![key, value])
            }
            other => return bad(format!("unknown type character {:?}", char::from(other))),
        })
    }

    pub(crate) fn align(&self) -> usize {
        match self {
            Type::Bool | Type::Byte | Type::Str | Type::ObjectPath | Type::Signature => 1,
            Type::Number(size) => *size,
            Type::Variant => 8,
            Type::Maybe(inner) | Type::Array(inner) => inner.align(),
            Type::Tuple(members) => members.iter().map(Type::align).max().unwrap_or(1),
        }
    }

    /// The size, for types whose values all have the same one.
    pub(crate) fn fixed(&self) -> Option<usize> {
        match self {
            Type::Bool | Type::Byte => Some(1),
            Type::Number(size) => Some(*size),
            Type::Tuple(members) => fixed_tuple(members),
            _ => None,
        }
    }
}

fn fixed_tuple(members: &[Type]) -> Option<usize> {
    let (mut at, mut align) = (0, 1);
    for member in members {
        at = pad(at, member.align()) + member.fixed()?;
        align = align.max(member.align());
    }
    Some(if members.is_empty() { 1 } else { pad(at, align) })
}

fn pad(at: usize, align: usize) -> usize {
    at.div_ceil(align) * align
}

/// Width of the framing offsets of a container of `size` bytes.
fn offset_size(size: usize) -> usize {
    match size {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

/// Width of the offsets, and whole size, of a container with `body` bytes and `count` offsets.
fn frame(body: usize, count: usize) -> (usize, usize) {
    for width in [1, 2, 4, 8] {
        let total = body + count * width;
        if offset_size(total) <= width {
            return (width, total);
        }
    }
    (8, body + count * 8)
}

fn read_offset(bytes: &[u8], at: usize, width: usize) -> usize {
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(&bytes[at..at + width]);
    usize::try_from(u64::from_le_bytes(wide)).unwrap_or(usize::MAX)
}

/// Moves `at` over padding, which must be zero and inside `end`.
fn skip_pad(bytes: &[u8], at: usize, align: usize, end: usize) -> Result<usize, Malformed> {
    let next = pad(at, align);
    if next > end {
        return bad("padding runs past the end");
    }
    if bytes[at..next].iter().any(|b| *b != 0) {
        return bad("padding is not zero");
    }
    Ok(next)
}

/// The elements of an array.
pub(crate) fn array<'a>(element: &Type, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(size) = element.fixed() {
        if bytes.len() % size != 0 {
            return bad("array does not hold a whole number of elements");
        }
        return Ok(bytes.chunks_exact(size).collect());
    }
    let width = offset_size(bytes.len());
    if bytes.len() < width {
        return bad("array without offsets");
    }
    let table = read_offset(bytes, bytes.len() - width, width);
    if table > bytes.len() - width || (bytes.len() - table) % width != 0 {
        return bad("array offset out of bounds");
    }
    let count = (bytes.len() - table) / width;
    if frame(table, count) != (width, bytes.len()) {
        return bad("array offsets are wider than needed");
    }
    let mut elements = Vec::with_capacity(count);
    let mut at = 0;
    for index in 0..count {
        let start = skip_pad(bytes, at, element.align(), table)?;
        let end = read_offset(bytes, table + index * width, width);
        if end < start || end > table {
            return bad("array elements overlap");
        }
        elements.push(&bytes[start..end]);
        at = end;
    }
    Ok(elements)
}

/// The members of a tuple.
pub(crate) fn tuple<'a>(members: &[Type], bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, Malformed> {
    let fixed = fixed_tuple(members);
    let variable = members.len().saturating_sub(1);
    let count = members[..variable].iter().filter(|m| m.fixed().is_none()).count();
    let width = offset_size(bytes.len());
    let Some(end_of_body) = bytes.len().checked_sub(count * width) else { return bad("tuple without offsets") };
    if fixed.is_none() && frame(end_of_body, count) != (width, bytes.len()) {
        return bad("tuple offsets are wider than needed");
    }
    if fixed.is_some_and(|size| size != bytes.len()) {
        return bad("tuple has the wrong size");
    }
    let mut parts = Vec::with_capacity(members.len());
    let (mut at, mut seen) = (0, 0);
    for (index, member) in members.iter().enumerate() {
        let start = skip_pad(bytes, at, member.align(), end_of_body)?;
        let end = match member.fixed() {
            Some(size) => start + size,
            None if index == variable => end_of_body,
            None => {
                seen += 1;
                read_offset(bytes, bytes.len() - seen * width, width)
            }
        };
        if end < start || end > end_of_body {
            return bad("tuple members overlap");
        }
        parts.push(&bytes[start..end]);
        at = end;
    }
    match fixed {
        Some(_) if members.is_empty() && bytes != [0] => bad("empty tuple is not one zero byte"),
        Some(_) if bytes[at.min(bytes.len())..].iter().any(|b| *b != 0) => bad("padding is not zero"),
        None if at != end_of_body => bad("bytes after the last member"),
        _ => Ok(parts),
    }
}

/// A variant's value and type string.
pub(crate) fn variant(bytes: &[u8]) -> Result<(&[u8], &str), Malformed> {
    let Some(nul) = bytes.iter().rposition(|b| *b == 0) else { return bad("variant without type") };
    match std::str::from_utf8(&bytes[nul + 1..]) {
        Ok(ty) => Ok((&bytes[..nul], ty)),
        Err(_) => bad("variant type is not text"),
    }
}

/// A string: UTF-8, one NUL, at the end.
pub(crate) fn string(bytes: &[u8]) -> Result<&str, Malformed> {
    let Some((&0, text)) = bytes.split_last() else { return bad("string does not end in NUL") };
    if text.contains(&0) {
        return bad("string with a NUL inside");
    }
    std::str::from_utf8(text).map_err(|_| Malformed("string is not UTF-8".into()))
}

/// Checks that `bytes` is the normal form of some value of type `ty`.
pub(crate) fn check(ty: &Type, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
    if depth > MAX_DEPTH {
        return bad("value nested too deeply");
    }
    match ty {
        Type::Bool if bytes.len() == 1 && bytes[0] <= 1 => Ok(()),
        Type::Bool => bad("bool is neither 0 nor 1"),
        Type::Byte if bytes.len() == 1 => Ok(()),
        Type::Byte => bad("byte has the wrong size"),
        Type::Number(size) if bytes.len() == *size => Ok(()),
        Type::Number(_) => bad("number has the wrong size"),
        Type::Str => string(bytes).map(|_| ()),
        Type::ObjectPath => match string(bytes)? {
            "/" => Ok(()),
            path if path.starts_with('/')
                && path[1..]
                    .split('/')
                    .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')) =>
            {
                Ok(())
            }
            _ => bad("not an object path"),
        },
        Type::Signature => {
            let mut rest = string(bytes)?.as_bytes();
            if rest.len() > MAX_TYPE {
                return bad("signature too long");
            }
            while !rest.is_empty() {
                Type::next(&mut rest, 0)?;
            }
            Ok(())
        }
        Type::Variant => {
            let (value, inner) = variant(bytes)?;
            check(&Type::parse(inner)?, value, depth + 1)
        }
        Type::Maybe(_) if bytes.is_empty() => Ok(()),
        Type::Maybe(inner) => match (inner.fixed(), bytes.split_last()) {
            (Some(_), _) => check(inner, bytes, depth + 1),
            (None, Some((0, value))) => check(inner, value, depth + 1),
            _ => bad("maybe does not end in zero"),
        },
        Type::Array(inner) => {
            // Arrays of bytes are the bulk of all data; any bytes will do.
            if **inner != Type::Byte {
                for element in array(inner, bytes)? {
                    check(inner, element, depth + 1)?;
                }
            }
            Ok(())
        }
        Type::Tuple(members) => {
            for (member, part) in members.iter().zip(tuple(members, bytes)?) {
                check(member, part, depth + 1)?;
            }
            Ok(())
        }
    }
}

/// Builds a container member by member.
#[derive(Default)]
pub(crate) struct Writer {
    body: Vec<u8>,
    ends: Vec<usize>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Writer { body: Vec::with_capacity(bytes), ends: Vec::new() }
    }

    /// Appends an element of an array of variable-size elements, or a variable member that is not the last of a tuple.
    pub(crate) fn framed(&mut self, align: usize, bytes: &[u8]) -> &mut Self {
        self.plain(align, bytes);
        self.ends.push(self.body.len());
        self
    }

    /// Appends a fixed-size member, or the last member of a tuple.
    pub(crate) fn plain(&mut self, align: usize, bytes: &[u8]) -> &mut Self {
        self.body.resize(pad(self.body.len(), align), 0);
        self.body.extend_from_slice(bytes);
        self
    }

    fn finish(mut self, reverse: bool) -> Vec<u8> {
        if reverse {
            self.ends.reverse();
        }
        let (width, total) = frame(self.body.len(), self.ends.len());
        self.body.reserve_exact(total - self.body.len());
        for end in self.ends {
            self.body.extend_from_slice(&(end as u64).to_le_bytes()[..width]);
        }
        self.body
    }

    pub(crate) fn array(self) -> Vec<u8> {
        self.finish(false)
    }

    pub(crate) fn tuple(self) -> Vec<u8> {
        self.finish(true)
    }
}

/// A string with its NUL.
pub(crate) fn nul(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(ty: &str, bytes: &[u8]) -> bool {
        check(&Type::parse(ty).unwrap(), bytes, 0).is_ok()
    }

    #[test]
    fn examples_from_the_gvariant_specification() {
        assert!(normal("s", b"hello world\0"));
        assert!(normal("ms", b"hello world\0\0"));
        assert!(normal("ab", &[1, 0, 0, 1, 1]));
        assert!(normal("(si)", b"foo\0\xff\xff\xff\xff\x04"));
        assert!(normal("a(si)", b"hi\0\0\xfe\xff\xff\xff\x03\0\0\0bye\0\xff\xff\xff\xff\x04\x09\x15"));
        assert!(normal("as", b"i\0can\0has\0strings?\0\x02\x06\x0a\x13"));
        assert!(normal("((ys)as)", b"ican\0has\0strings?\0\x04\x0d\x05"));
        assert!(normal("(yy)", b"\x70\x80"));
        assert!(normal("(iy)", b"\x60\0\0\0\x70\0\0\0"));
        assert!(normal("a(iy)", b"\x60\0\0\0\x70\0\0\0\x88\x02\0\0\xf7\0\0\0"));
        assert!(normal("{si}", b"a key\0\0\0\x02\x02\0\0\x06"));
    }

    #[test]
    fn two_encodings_of_one_value_are_refused() {
        // Padding that is not zero, and offsets out of order.
        assert!(!normal("(iy)", b"\x60\0\0\0\x70\0\0\x01"));
        assert!(!normal("as", b"i\0can\0\x06\x02"));
        // 256 bytes of body force two-byte offsets; the same body less a few bytes must not use them.
        let mut wide = vec![b'a'; 252];
        wide.push(0);
        wide.extend_from_slice(&[253, 0]);
        assert!(!normal("as", &wide), "255 bytes read as one-byte offsets");
        let mut body = vec![b'a'; 253];
        body.push(0);
        body.extend_from_slice(&[254, 0]);
        assert!(!normal("as", &body), "a two-byte offset where one byte would do");
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(Type::parse(&"a".repeat(200)).is_err());
        let mut bytes = b"\x01\0y".to_vec();
        for _ in 0..100 {
            bytes.extend_from_slice(b"\0v");
        }
        assert!(!normal("v", &bytes));
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..300), which in 0..8usize) {
            let ty = ["a{sv}", "(a(say)a(sayay))", "(uuua(ayay))", "v", "(a{sv}aya(say)sstayay)", "aay", "(mvas)", "a(iy)"][which];
            let _ = check(&Type::parse(ty).unwrap(), &bytes, 0);
        }

        #[test]
        fn any_type_string_is_handled(text in "[a-z(){}]{0,40}") {
            let _ = Type::parse(&text);
        }

        #[test]
        fn arrays_come_back(items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..40)) {
            let mut writer = Writer::new();
            for item in &items {
                writer.framed(1, item);
            }
            let bytes = writer.array();
            let element = Type::parse("ay").unwrap();
            let read: Vec<Vec<u8>> = array(&element, &bytes).unwrap().iter().map(|e| e.to_vec()).collect();
            prop_assert_eq!(read, items);
        }
    }
}
