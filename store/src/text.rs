//! GVariant's text format: `{'a': <uint32 5>, 'b': <[byte 0x01, 0x02]>}`, as people read and type it.
//!
//! ```text
//! print   type string + bytes  → text        the type is written where it cannot be guessed
//! parse   text                 → Value       the type is guessed where it is not written
//! ```

use std::fmt::Write as _;

use crate::gv::{self, Malformed, Type, Writer, bad};
use crate::value::Value;

/// In which byte order the numbers of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As GVariant has them on the machines we run on.
    Little,
    /// As OSTree has them in its objects.
    Big,
}

/// The text of a value of type `ty`, its type written where it cannot be guessed if `annotate`.
pub fn print(ty: &str, bytes: &[u8], order: Order, annotate: bool) -> Result<String, Malformed> {
    gv::check(&Type::parse(ty)?, bytes, 0)?;
    let mut out = String::new();
    Printer { out: &mut out, order }.value(ty, bytes, annotate)?;
    Ok(out)
}

/// The text of a value.
pub fn print_value(value: &Value, order: Order, annotate: bool) -> String {
    // What a Value holds was checked when it became one.
    print(value.type_string(), &value.encode(), order, annotate).unwrap_or_default()
}

struct Printer<'a> {
    out: &'a mut String,
    order: Order,
}

impl Printer<'_> {
    fn number<const N: usize>(&self, bytes: &[u8]) -> Result<[u8; N], Malformed> {
        let mut array: [u8; N] = bytes.try_into().map_err(|_| Malformed("number has the wrong size".into()))?;
        if self.order == Order::Big {
            array.reverse();
        }
        Ok(array)
    }

    fn annotated(&mut self, annotate: bool, word: &str, text: &str) {
        if annotate {
            self.out.push_str(word);
            self.out.push(' ');
        }
        self.out.push_str(text);
    }

    fn value(&mut self, ty: &str, bytes: &[u8], annotate: bool) -> Result<(), Malformed> {
        match ty.as_bytes()[0] {
            b'b' => self.out.push_str(if bytes == [1] { "true" } else { "false" }),
            b'y' => self.annotated(annotate, "byte", &format!("0x{:02x}", bytes[0])),
            b'n' => {
                let text = i16::from_le_bytes(self.number(bytes)?).to_string();
                self.annotated(annotate, "int16", &text);
            }
            b'q' => {
                let text = u16::from_le_bytes(self.number(bytes)?).to_string();
                self.annotated(annotate, "uint16", &text);
            }
            b'i' => {
                let text = i32::from_le_bytes(self.number(bytes)?).to_string();
                self.out.push_str(&text);
            }
            b'h' => {
                let text = i32::from_le_bytes(self.number(bytes)?).to_string();
                self.annotated(annotate, "handle", &text);
            }
            b'u' => {
                let text = u32::from_le_bytes(self.number(bytes)?).to_string();
                self.annotated(annotate, "uint32", &text);
            }
            b'x' => {
                let text = i64::from_le_bytes(self.number(bytes)?).to_string();
                self.annotated(annotate, "int64", &text);
            }
            b't' => {
                let text = u64::from_le_bytes(self.number(bytes)?).to_string();
                self.annotated(annotate, "uint64", &text);
            }
            b'd' => {
                let number = f64::from_le_bytes(self.number(bytes)?);
                // Always with a point: it would come back as an integer.
                let _ = write!(self.out, "{number:?}");
            }
            b's' => self.string(gv::string(bytes)?),
            b'o' | b'g' => {
                let word = if ty == "o" { "objectpath " } else { "signature " };
                self.out.push_str(if annotate { word } else { "" });
                self.string(gv::string(bytes)?);
            }
            b'v' => {
                let (value, inner) = gv::variant(bytes)?;
                self.out.push('<');
                self.value(inner, value, true)?;
                self.out.push('>');
            }
            b'm' => self.maybe(ty, bytes, annotate)?,
            b'a' => self.array(ty, bytes, annotate)?,
            _ => self.tuple(ty, bytes, annotate)?,
        }
        Ok(())
    }

    fn maybe(&mut self, ty: &str, bytes: &[u8], annotate: bool) -> Result<(), Malformed> {
        if annotate {
            let _ = write!(self.out, "@{ty} ");
        }
        let inner = &ty[1..];
        if bytes.is_empty() {
            self.out.push_str("nothing");
            return Ok(());
        }
        let fixed = Type::parse(inner)?.fixed().is_some();
        self.value(inner, if fixed { bytes } else { &bytes[..bytes.len() - 1] }, false)
    }

    fn array(&mut self, ty: &str, bytes: &[u8], annotate: bool) -> Result<(), Malformed> {
        let inner = &ty[1..];
        if inner == "y" && bytes.iter().position(|b| *b == 0) == bytes.len().checked_sub(1) && !bytes.is_empty() {
            self.byte_string(&bytes[..bytes.len() - 1]);
            return Ok(());
        }
        let dictionary = inner.starts_with('{');
        let elements = gv::array(&Type::parse(inner)?, bytes)?;
        let (open, close) = if dictionary { ('{', '}') } else { ('[', ']') };
        if elements.is_empty() && annotate {
            let _ = write!(self.out, "@{ty} ");
        }
        self.out.push(open);
        for (index, element) in elements.iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            // One element tells the type of all.
            let annotate = annotate && index == 0;
            if dictionary {
                let members = members(inner)?;
                let types: Vec<Type> = members.iter().map(|m| Type::parse(m)).collect::<Result<_, _>>()?;
                let parts = gv::tuple(&types, element)?;
                self.value(members[0], parts[0], annotate)?;
                self.out.push_str(": ");
                self.value(members[1], parts[1], annotate)?;
            } else {
                self.value(inner, element, annotate)?;
            }
        }
        self.out.push(close);
        Ok(())
    }

    fn tuple(&mut self, ty: &str, bytes: &[u8], annotate: bool) -> Result<(), Malformed> {
        let members = members(ty)?;
        let types: Vec<Type> = members.iter().map(|m| Type::parse(m)).collect::<Result<_, _>>()?;
        self.out.push('(');
        for (index, (member, part)) in members.iter().zip(gv::tuple(&types, bytes)?).enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.value(member, part, annotate)?;
        }
        self.out.push_str(if members.len() == 1 { ",)" } else { ")" });
        Ok(())
    }

    fn string(&mut self, text: &str) {
        let quote = if text.contains('\'') { '"' } else { '\'' };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                c if c == quote => {
                    self.out.push('\\');
                    self.out.push(c);
                }
                '\u{7}' => self.out.push_str("\\a"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{b}' => self.out.push_str("\\v"),
                c if c.is_control() && (c as u32) < 0x10000 => {
                    let _ = write!(self.out, "\\u{:04x}", c as u32);
                }
                c => self.out.push(c),
            }
        }
        self.out.push(quote);
    }

    fn byte_string(&mut self, bytes: &[u8]) {
        let quote = if bytes.contains(&b'\'') { '"' } else { '\'' };
        self.out.push('b');
        self.out.push(quote);
        for byte in bytes {
            match byte {
                8 => self.out.push_str("\\b"),
                12 => self.out.push_str("\\f"),
                b'\n' => self.out.push_str("\\n"),
                b'\r' => self.out.push_str("\\r"),
                b'\t' => self.out.push_str("\\t"),
                11 => self.out.push_str("\\v"),
                b'\\' => self.out.push_str("\\\\"),
                b'"' => self.out.push_str("\\\""),
                0x20..=0x7e => self.out.push(char::from(*byte)),
                _ => {
                    let _ = write!(self.out, "\\{byte:03o}");
                }
            }
        }
        self.out.push(quote);
    }
}

/// The type strings of the members of a tuple or dictionary entry.
fn members(ty: &str) -> Result<Vec<&str>, Malformed> {
    let mut rest = &ty[1..ty.len() - 1];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let length = first_type(rest)?;
        all.push(&rest[..length]);
        rest = &rest[length..];
    }
    Ok(all)
}

/// How many characters the first complete type of `text` has.
fn first_type(text: &str) -> Result<usize, Malformed> {
    let mut depth = 0i32;
    for (at, c) in text.bytes().enumerate() {
        match c {
            b'a' | b'm' => continue,
            b'(' | b'{' => depth += 1,
            b')' | b'}' => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return Ok(at + 1);
        }
    }
    bad("type string ends early")
}

/// Reads a value that a person typed.
pub fn parse(text: &str) -> Result<Value, Malformed> {
    let mut parser = Parser { rest: text, depth: 0 };
    let node = parser.node()?;
    parser.space();
    if !parser.rest.is_empty() {
        return bad(format!("{:?} comes after the value", parser.rest));
    }
    let ty = node.guess()?;
    let bytes = node.encode(&ty)?;
    Value::decode(&ty, &bytes)
}

/// What was typed, before its type is known.
enum Node {
    Bool(bool),
    Number(String),
    Str(String),
    Bytes(Vec<u8>),
    Variant(Box<Node>),
    Array(Vec<Node>),
    Dict(Vec<(Node, Node)>),
    Tuple(Vec<Node>),
    Typed(String, Box<Node>),
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

const WORDS: [(&str, &str); 11] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("handle", "h"),
    ("double", "d"),
    ("string", "s"),
];

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, c: char) -> bool {
        self.space();
        let found = self.rest.strip_prefix(c);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, c: char) -> Result<(), Malformed> {
        if self.eat(c) { Ok(()) } else { bad(format!("expected {c:?} before {:?}", self.rest)) }
    }

    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn node(&mut self) -> Result<Node, Malformed> {
        self.depth += 1;
        if self.depth > 32 {
            return bad("nested too deeply");
        }
        self.space();
        let Some(first) = self.rest.chars().next() else { return bad("expected a value") };
        let node = match first {
            '\'' | '"' => Node::Str(self.quoted()?),
            'b' if self.rest[1..].starts_with(['\'', '"']) => {
                self.rest = &self.rest[1..];
                let mut bytes = self.quoted_bytes()?;
                bytes.push(0);
                Node::Bytes(bytes)
            }
            '<' => {
                self.rest = &self.rest[1..];
                let inner = self.node()?;
                self.expect('>')?;
                Node::Variant(Box::new(inner))
            }
            '[' => Node::Array(self.list('[', ']')?),
            '(' => Node::Tuple(self.list('(', ')')?),
            '{' => self.dict()?,
            '@' => {
                let length = first_type(&self.rest[1..])?;
                let ty = self.rest[1..].get(..length).ok_or_else(|| Malformed("type string".into()))?;
                Type::parse(ty)?;
                self.rest = &self.rest[1 + length..];
                Node::Typed(ty.to_owned(), Box::new(self.node()?))
            }
            _ => match self.word() {
                "" => return bad(format!("{:?} is not a value", self.rest)),
                "true" => Node::Bool(true),
                "false" => Node::Bool(false),
                word => match WORDS.iter().find(|(name, _)| *name == word) {
                    Some((_, ty)) => Node::Typed((*ty).to_owned(), Box::new(self.node()?)),
                    None => Node::Number(word.to_owned()),
                },
            },
        };
        self.depth -= 1;
        Ok(node)
    }

    fn list(&mut self, open: char, close: char) -> Result<Vec<Node>, Malformed> {
        self.expect(open)?;
        let mut nodes = Vec::new();
        while !self.eat(close) {
            if !nodes.is_empty() {
                self.expect(',')?;
                // A tuple of one ends in a comma.
                if self.eat(close) {
                    break;
                }
            }
            nodes.push(self.node()?);
        }
        Ok(nodes)
    }

    fn dict(&mut self) -> Result<Node, Malformed> {
        self.expect('{')?;
        let mut entries = Vec::new();
        while !self.eat('}') {
            if !entries.is_empty() {
                self.expect(',')?;
            }
            let key = self.node()?;
            self.expect(':')?;
            entries.push((key, self.node()?));
        }
        Ok(Node::Dict(entries))
    }

    fn quoted(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.quoted_bytes()?).map_err(|_| Malformed("a string is not UTF-8".into()))
    }

    fn quoted_bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|c| c.1);
        let mut bytes = Vec::new();
        while let Some((at, c)) = chars.next() {
            if Some(c) == quote {
                self.rest = &self.rest[at + 1..];
                return Ok(bytes);
            }
            if c != '\\' {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            match chars.next().map(|c| c.1) {
                Some('n') => bytes.push(b'\n'),
                Some('t') => bytes.push(b'\t'),
                Some('r') => bytes.push(b'\r'),
                Some('a') => bytes.push(7),
                Some('b') => bytes.push(8),
                Some('f') => bytes.push(12),
                Some('v') => bytes.push(11),
                Some(digit @ '0'..='7') => {
                    let text: String = [digit].into_iter().chain(chars.by_ref().take(2).map(|c| c.1)).collect();
                    let byte = u8::from_str_radix(&text, 8);
                    bytes.push(byte.map_err(|_| Malformed(format!("\\{text} is not a byte")))?);
                }
                Some('u') => {
                    let text: String = chars.by_ref().take(4).map(|c| c.1).collect();
                    let c = u32::from_str_radix(&text, 16).ok().and_then(char::from_u32);
                    let c = c.ok_or_else(|| Malformed(format!("\\u{text} is not a character")))?;
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                None => break,
            }
        }
        bad("a string does not end")
    }
}

impl Node {
    /// The type string, where it can be told.
    fn guess(&self) -> Result<String, Malformed> {
        let first = |nodes: &[Node]| -> Result<String, Malformed> {
            // Whichever element says its type says that of all.
            let typed = nodes.iter().find(|n| matches!(n, Node::Typed(..)));
            match typed.or(nodes.first()) {
                Some(node) => node.guess(),
                None => bad("an empty array needs its type: @as []"),
            }
        };
        Ok(match self {
            Node::Bool(_) => "b".into(),
            Node::Number(text) if text.contains(['.']) || (!text.starts_with("0x") && text.contains('e')) => "d".into(),
            Node::Number(_) => "i".into(),
            Node::Str(_) => "s".into(),
            Node::Bytes(_) => "ay".into(),
            Node::Variant(_) => "v".into(),
            Node::Array(nodes) => format!("a{}", first(nodes)?),
            Node::Tuple(nodes) => {
                format!("({})", nodes.iter().map(Node::guess).collect::<Result<String, _>>()?)
            }
            Node::Dict(entries) => match entries.first() {
                Some((key, value)) => format!("a{{{}{}}}", key.guess()?, value.guess()?),
                None => return bad("an empty dictionary needs its type: @a{sv} {}"),
            },
            Node::Typed(ty, _) => ty.clone(),
        })
    }

    fn encode(&self, ty: &str) -> Result<Vec<u8>, Malformed> {
        let wrong = |what: &str| bad(format!("{what} is not a value of type {ty}"));
        Ok(match self {
            Node::Typed(own, node) => {
                if own != ty {
                    return wrong(own);
                }
                node.encode(ty)?
            }
            Node::Bool(truth) if ty == "b" => vec![u8::from(*truth)],
            Node::Number(text) => number(ty, text)?,
            Node::Str(text) if matches!(ty, "s" | "o" | "g") => {
                if text.contains('\0') {
                    return wrong("a string with a NUL");
                }
                gv::nul(text)
            }
            Node::Bytes(bytes) if ty == "ay" => bytes.clone(),
            Node::Variant(node) if ty == "v" => {
                let inner = node.guess()?;
                let mut bytes = node.encode(&inner)?;
                bytes.push(0);
                bytes.extend_from_slice(inner.as_bytes());
                bytes
            }
            Node::Array(nodes) if ty.starts_with('a') => {
                let parts = nodes.iter().map(|n| n.encode(&ty[1..])).collect::<Result<Vec<_>, _>>()?;
                array(&ty[1..], &parts)?
            }
            Node::Dict(entries) if ty.starts_with("a{") => {
                let members = members(&ty[1..])?;
                let entry = |(key, value): &(Node, Node)| {
                    tuple(&members, &[key.encode(members[0])?, value.encode(members[1])?])
                };
                array(&ty[1..], &entries.iter().map(entry).collect::<Result<Vec<_>, _>>()?)?
            }
            Node::Tuple(nodes) if ty.starts_with('(') => {
                let members = members(ty)?;
                if members.len() != nodes.len() {
                    return wrong("a tuple of another length");
                }
                let parts = nodes.iter().zip(&members).map(|(n, ty)| n.encode(ty)).collect::<Result<Vec<_>, _>>()?;
                tuple(&members, &parts)?
            }
            _ => return wrong("this"),
        })
    }
}

fn array(element: &str, parts: &[Vec<u8>]) -> Result<Vec<u8>, Malformed> {
    let parsed = Type::parse(element)?;
    let mut writer = Writer::new();
    for part in parts {
        if parsed.fixed().is_some() {
            writer.plain(parsed.align(), part);
        } else {
            writer.framed(parsed.align(), part);
        }
    }
    Ok(writer.array())
}

fn tuple(members: &[&str], parts: &[Vec<u8>]) -> Result<Vec<u8>, Malformed> {
    let types: Vec<Type> = members.iter().map(|m| Type::parse(m)).collect::<Result<_, _>>()?;
    let mut writer = Writer::new();
    for (index, (ty, part)) in types.iter().zip(parts).enumerate() {
        if ty.fixed().is_some() || index + 1 == types.len() {
            writer.plain(ty.align(), part);
        } else {
            writer.framed(ty.align(), part);
        }
    }
    let mut bytes = writer.tuple();
    // Where every member has one size, so has the tuple: a whole number of its alignment.
    if types.iter().all(|ty| ty.fixed().is_some()) {
        let align = types.iter().map(Type::align).max().unwrap_or(1);
        bytes.resize(bytes.len().div_ceil(align).max(1) * align, 0);
    }
    Ok(bytes)
}

fn number(ty: &str, text: &str) -> Result<Vec<u8>, Malformed> {
    let wrong = || Malformed(format!("{text} is not a value of type {ty}"));
    if ty == "d" {
        return text.parse::<f64>().map(|n| n.to_le_bytes().to_vec()).map_err(|_| wrong());
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    let number = sign * i128::from_str_radix(digits, radix).map_err(|_| wrong())?;
    Ok(match ty {
        "y" => vec![u8::try_from(number).map_err(|_| wrong())?],
        "n" => i16::try_from(number).map_err(|_| wrong())?.to_le_bytes().to_vec(),
        "q" => u16::try_from(number).map_err(|_| wrong())?.to_le_bytes().to_vec(),
        "i" | "h" => i32::try_from(number).map_err(|_| wrong())?.to_le_bytes().to_vec(),
        "u" => u32::try_from(number).map_err(|_| wrong())?.to_le_bytes().to_vec(),
        "x" => i64::try_from(number).map_err(|_| wrong())?.to_le_bytes().to_vec(),
        "t" => u64::try_from(number).map_err(|_| wrong())?.to_le_bytes().to_vec(),
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn again(text: &str) -> String {
        print_value(&parse(text).unwrap(), Order::Little, true)
    }

    #[test]
    fn what_is_typed_is_printed() {
        for text in [
            "true",
            "5",
            "-5",
            "uint32 7",
            "byte 0x1f",
            "int16 -3",
            "uint64 18446744073709551615",
            "1.5",
            "'text'",
            "\"it's\"",
            "'a\\nb\\\\'",
            "b'bytes'",
            "[byte 0x01, 0x02]",
            "[1, 2, 3]",
            "@as []",
            "['a', 'b']",
            "{'a': <uint32 5>, 'b': <'x'>}",
            "@a{sv} {}",
            "('a', 5)",
            "(uint32 1, 'b', [byte 0x00, 0x01])",
            "('alone',)",
            "<<'deep'>>",
            "[(1, uint64 2), (3, 4)]",
        ] {
            assert_eq!(again(text), text);
        }
        assert_eq!(again("\"double\""), "'double'");
        assert_eq!(again("uint32 0x10"), "uint32 16");
    }

    #[test]
    fn numbers_of_objects_are_big_endian() {
        assert_eq!(print("u", &[0, 0, 0, 5], Order::Big, true).unwrap(), "uint32 5");
        assert_eq!(print("u", &[5, 0, 0, 0], Order::Little, false).unwrap(), "5");
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in ["", "[", "[]", "{}", "'open", "5 5", "uint32 -1", "byte 256", "@zz 5", "[1, 'a']", "@u 'a'", "x"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in "[\\[\\]{}()<>@'\"a-z0-9:, \\\\]{0,40}") {
            if let Ok(value) = parse(&text) {
                let printed = print_value(&value, Order::Little, true);
                prop_assert_eq!(parse(&printed).unwrap(), value);
            }
        }

        #[test]
        fn any_string_comes_back(text in "[^\0]{0,30}") {
            let value = Value::String(text);
            prop_assert_eq!(parse(&print_value(&value, Order::Little, true)).unwrap(), value);
        }
    }
}
