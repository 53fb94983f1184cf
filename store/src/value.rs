//! `a{sv}`: the dictionaries of commits and of their detached metadata.
//!
//! OSTree hashes and signs the encoded bytes, so encoding is canonical here: keys in byte order, no duplicates.

use std::collections::BTreeMap;

use crate::gv::{self, Type, Writer, bad};

pub use crate::gv::Malformed;

/// A dictionary of named values.
pub type Dict = BTreeMap<String, Value>;

/// One value. Types that Slipway has no use for are checked and kept as they are, so that rewriting a dictionary loses
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `u`, in the byte order of the file (little-endian unless OSTree says otherwise for the key).
    U32(u32),
    /// `i`
    I32(i32),
    /// `t`
    U64(u64),
    /// `x`
    I64(i64),
    /// `s`
    String(String),
    /// `ay`
    Bytes(Vec<u8>),
    /// `as`
    StringArray(Vec<String>),
    /// `aay`
    BytesArray(Vec<Vec<u8>>),
    /// `a{sv}`
    Dict(Dict),
    /// Any other type: the type string and the value's bytes in normal form.
    Other(String, Vec<u8>),
}

impl Value {
    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = self { Some(text) } else { None }
    }

    /// The bytes, if it is a byte array.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Value::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The truth, if it is a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// The number, if it is a `t`.
    pub fn as_u64(&self) -> Option<u64> {
        if let Value::U64(number) = self { Some(*number) } else { None }
    }

    /// The strings, if it is a string array.
    pub fn as_strings(&self) -> Option<&[String]> {
        if let Value::StringArray(strings) = self { Some(strings) } else { None }
    }

    /// The byte arrays, if it is an array of them.
    pub fn as_bytes_array(&self) -> Option<&[Vec<u8>]> {
        if let Value::BytesArray(arrays) = self { Some(arrays) } else { None }
    }

    /// The dictionary, if it is one.
    pub fn as_dict(&self) -> Option<&Dict> {
        if let Value::Dict(dict) = self { Some(dict) } else { None }
    }

    /// The GVariant type string.
    pub fn type_string(&self) -> &str {
        match self {
            Value::Bool(_) => "b",
            Value::Byte(_) => "y",
            Value::U32(_) => "u",
            Value::I32(_) => "i",
            Value::U64(_) => "t",
            Value::I64(_) => "x",
            Value::String(_) => "s",
            Value::Bytes(_) => "ay",
            Value::StringArray(_) => "as",
            Value::BytesArray(_) => "aay",
            Value::Dict(_) => "a{sv}",
            Value::Other(ty, _) => ty,
        }
    }

    /// Decodes a value of type `ty` in normal form.
    pub fn decode(ty: &str, bytes: &[u8]) -> Result<Value, Malformed> {
        Self::decode_at(ty, bytes, 0)
    }

    fn decode_at(ty: &str, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        if depth > 16 {
            return bad("dictionaries nested too deeply");
        }
        let parsed = Type::parse(ty)?;
        if ty == "a{sv}" {
            return Ok(Value::Dict(decode_dict_at(bytes, depth)?));
        }
        gv::check(&parsed, bytes, depth)?;
        Ok(match ty {
            "b" => Value::Bool(bytes == [1]),
            "y" => Value::Byte(bytes[0]),
            "u" => Value::U32(u32::from_le_bytes(fixed(bytes)?)),
            "i" => Value::I32(i32::from_le_bytes(fixed(bytes)?)),
            "t" => Value::U64(u64::from_le_bytes(fixed(bytes)?)),
            "x" => Value::I64(i64::from_le_bytes(fixed(bytes)?)),
            "s" => Value::String(gv::string(bytes)?.to_owned()),
            "ay" => Value::Bytes(bytes.to_vec()),
            "as" => {
                let strings = gv::array(&Type::Str, bytes)?.into_iter();
                Value::StringArray(strings.map(|s| gv::string(s).map(str::to_owned)).collect::<Result<_, _>>()?)
            }
            "aay" => {
                let element = Type::Array(Box::new(Type::Byte));
                Value::BytesArray(gv::array(&element, bytes)?.into_iter().map(<[u8]>::to_vec).collect())
            }
            _ => Value::Other(ty.to_owned(), bytes.to_vec()),
        })
    }

    /// Encodes the value alone, without its type.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Value::Bool(truth) => vec![u8::from(*truth)],
            Value::Byte(byte) => vec![*byte],
            Value::U32(number) => number.to_le_bytes().to_vec(),
            Value::I32(number) => number.to_le_bytes().to_vec(),
            Value::U64(number) => number.to_le_bytes().to_vec(),
            Value::I64(number) => number.to_le_bytes().to_vec(),
            Value::String(text) => gv::nul(text),
            Value::Bytes(bytes) | Value::Other(_, bytes) => bytes.clone(),
            Value::StringArray(strings) => {
                let mut writer = Writer::new();
                for text in strings {
                    writer.framed(1, &gv::nul(text));
                }
                writer.array()
            }
            Value::BytesArray(arrays) => {
                let mut writer = Writer::new();
                for bytes in arrays {
                    writer.framed(1, bytes);
                }
                writer.array()
            }
            Value::Dict(dict) => encode_dict(dict),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Value::Bool(truth)
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed("number has the wrong size".into()))
}

/// Decodes an `a{sv}`. A key that occurs twice is refused: readers would disagree about which one counts.
pub fn decode_dict(bytes: &[u8]) -> Result<Dict, Malformed> {
    decode_dict_at(bytes, 0)
}

/// The keys of an `a{sv}`, in the order of the bytes.
pub(crate) fn dict_keys(bytes: &[u8]) -> Result<Vec<String>, Malformed> {
    let members = [Type::Str, Type::Variant];
    let entries = gv::array(&Type::Tuple(members.to_vec()), bytes)?;
    entries.into_iter().map(|entry| Ok(gv::string(gv::tuple(&members, entry)?[0])?.to_owned())).collect()
}

fn decode_dict_at(bytes: &[u8], depth: usize) -> Result<Dict, Malformed> {
    let members = [Type::Str, Type::Variant];
    let mut dict = Dict::new();
    for entry in gv::array(&Type::Tuple(members.to_vec()), bytes)? {
        let parts = gv::tuple(&members, entry)?;
        let key = gv::string(parts[0])?;
        let (value, ty) = gv::variant(parts[1])?;
        let value = Value::decode_at(ty, value, depth + 1).map_err(|e| Malformed(format!("{key}: {e}")))?;
        if dict.insert(key.to_owned(), value).is_some() {
            return bad(format!("key {key:?} occurs twice"));
        }
    }
    Ok(dict)
}

/// Encodes an `a{sv}`, keys in byte order.
pub fn encode_dict(dict: &Dict) -> Vec<u8> {
    encode_dict_with(dict, &[])
}

/// The same, some keys before the others: in the order of `first`, as a tool wrote them that minds none.
pub(crate) fn encode_dict_with(dict: &Dict, first: &[String]) -> Vec<u8> {
    let mut writer = Writer::new();
    let place = |key: &String| first.iter().position(|name| name == key).unwrap_or(first.len());
    let mut entries: Vec<(&String, &Value)> = dict.iter().collect();
    entries.sort_by_key(|(key, _)| place(key));
    for (key, value) in entries {
        let mut variant = value.encode();
        variant.push(0);
        variant.extend_from_slice(value.type_string().as_bytes());
        let mut entry = Writer::new();
        entry.framed(1, &gv::nul(key)).plain(8, &variant);
        writer.framed(8, &entry.tuple());
    }
    writer.array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<u8>().prop_map(Value::Byte),
            any::<u32>().prop_map(Value::U32),
            any::<i64>().prop_map(Value::I64),
            any::<u64>().prop_map(Value::U64),
            "[^\0]{0,20}".prop_map(Value::String),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
            prop::collection::vec("[^\0]{0,9}", 0..9).prop_map(Value::StringArray),
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..9).prop_map(Value::BytesArray),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop::collection::btree_map("[^\0]{0,9}", inner, 0..4).prop_map(Value::Dict)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(dict in prop::collection::btree_map("[^\0]{0,12}", value(), 0..6)) {
            prop_assert_eq!(decode_dict(&encode_dict(&dict)).unwrap(), dict);
        }

        #[test]
        fn what_is_accepted_is_one_encoding_up_to_key_order(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(dict) = decode_dict(&bytes) {
                prop_assert_eq!(decode_dict(&encode_dict(&dict)).unwrap(), dict);
            }
        }
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused() {
        let one = encode_dict(&Dict::from([("k".into(), Value::Byte(1))]));
        let entry = &one[..one.len() - 1];
        let mut writer = Writer::new();
        writer.framed(8, entry).framed(8, entry);
        assert!(decode_dict(&writer.array()).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn other_types_survive() {
        let mut value = b"hi\0\0\xfe\xff\xff\xff".to_vec();
        value.push(3);
        let dict = Dict::from([("k".into(), Value::Other("(si)".into(), value))]);
        assert_eq!(decode_dict(&encode_dict(&dict)).unwrap(), dict);
    }
}
