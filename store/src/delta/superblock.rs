//! The superblock: what a delta leads to, which objects are in which part, and what has to be fetched besides.
//!
//! ```text
//! signed     (t ay a{sv})       magic "OSTSGNDT", superblock, signatures over its bytes
//! superblock (a{sv} t ay ay COMMIT ay a(uayttay) a(yaytt))
//!            facts, time, from, to, the commit, -, parts, fallbacks
//! part       version 0, checksum of its file, bytes of it, bytes of its objects, n x (kind, checksum)
//! fallback   kind, checksum, bytes compressed, bytes
//! facts      ostree.endianness y 'l' | 'B'; DIR/N (yay): part N inline; DIR/commitmeta a{sv}: detached metadata
//! ```
//! Numbers of parts and fallbacks are in the byte order that the facts name. Deltas made before there was such a fact
//! are in that of the machine that made them; then the order is the one in which the numbers make sense.

use std::ops::Range;

use super::DeltaName;
use crate::Checksum;
use crate::gv::{self, Malformed, Type, Writer, bad};
use crate::object::{Commit, ObjectType};
use crate::sign::Signs;
use crate::value::{self, Dict, Value};

/// "OSTSGNDT"
const SIGNED: u64 = 0x4F53_5453_474E_4454;
/// Kind and checksum of one object in a part's list.
const ENTRY: usize = 33;
const ENDIANNESS: &str = "ostree.endianness";

/// Byte order of the numbers in a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// `l`
    Little,
    /// `B`
    Big,
}

impl ByteOrder {
    fn u32(self, bytes: &[u8]) -> Result<u32, Malformed> {
        let bytes = bytes.try_into().map_err(|_| Malformed("number has the wrong size".into()))?;
        Ok(if self == ByteOrder::Little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn u64(self, bytes: &[u8]) -> Result<u64, Malformed> {
        let bytes = bytes.try_into().map_err(|_| Malformed("number has the wrong size".into()))?;
        Ok(if self == ByteOrder::Little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    }

    fn put(self, number: u64) -> [u8; 8] {
        if self == ByteOrder::Little { number.to_le_bytes() } else { number.to_be_bytes() }
    }

    fn letter(self) -> u8 {
        if self == ByteOrder::Little { b'l' } else { b'B' }
    }
}

/// What the superblock says about a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// SHA-256 of its file.
    pub checksum: Checksum,
    /// Bytes of its file.
    pub size: u64,
    /// Bytes of its objects.
    pub unpacked: u64,
    /// Its objects, in the order in which its operations make them.
    pub objects: Vec<(ObjectType, Checksum)>,
}

/// An object that is fetched as it lies in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Its kind.
    pub kind: ObjectType,
    /// Its name.
    pub checksum: Checksum,
    /// Bytes to fetch.
    pub size: u64,
    /// Bytes of its content.
    pub unpacked: u64,
}

/// A superblock that was read.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// The two commits.
    pub name: DeltaName,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// The commit it leads to; its bytes match the name.
    pub commit: Commit,
    /// Facts other than those below.
    pub facts: Dict,
    /// The commit's detached metadata.
    pub detached: Option<Dict>,
    /// The parts, in order.
    pub parts: Vec<Part>,
    /// What is not in the parts.
    pub fallbacks: Vec<Fallback>,
    /// Byte order of its numbers.
    pub order: ByteOrder,
    /// Whether nothing in the superblock says so.
    pub order_guessed: bool,
    /// The signatures, where it was signed.
    pub signatures: Option<Dict>,
    bytes: Vec<u8>,
    signed: Range<usize>,
    inline: Vec<Option<Range<usize>>>,
}

fn types(text: &str) -> Result<Vec<Type>, Malformed> {
    match Type::parse(text)? {
        Type::Tuple(members) => Ok(members),
        _ => bad("not a tuple"),
    }
}

/// Where `part` lies in `whole`, of which it is a slice.
fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}

fn checksum(bytes: &[u8]) -> Result<Checksum, Malformed> {
    Checksum::from_bytes(bytes).ok_or_else(|| Malformed(format!("checksum of {} bytes", bytes.len())))
}

fn kind(number: u8) -> Result<ObjectType, Malformed> {
    ObjectType::from_number(number).ok_or_else(|| Malformed(format!("{number} is not a kind of object")))
}

/// A part or fallback whose numbers have no byte order yet.
struct RawPart<'a> {
    version: &'a [u8],
    checksum: Checksum,
    size: &'a [u8],
    unpacked: &'a [u8],
    objects: Vec<(ObjectType, Checksum)>,
}

impl<'a> RawPart<'a> {
    fn decode(bytes: &'a [u8], members: &[Type]) -> Result<Self, Malformed> {
        let fields = gv::tuple(members, bytes)?;
        if fields[4].len() % ENTRY != 0 {
            return bad("the list of a part's objects does not hold a whole number of them");
        }
        let entry = |entry: &[u8]| Ok((kind(entry[0])?, checksum(&entry[1..])?));
        Ok(RawPart {
            version: fields[0],
            checksum: checksum(fields[1])?,
            size: fields[2],
            unpacked: fields[3],
            objects: fields[4].chunks_exact(ENTRY).map(entry).collect::<Result<_, Malformed>>()?,
        })
    }
}

/// The order in which the sizes make sense: nothing compresses to more than it was, no object is larger than 4 GiB.
fn guess_order(parts: &[RawPart<'_>]) -> Result<ByteOrder, Malformed> {
    let (mut total, mut objects) = (0u64, 0u64);
    for part in parts {
        let (size, unpacked) = (ByteOrder::Little.u64(part.size)?, ByteOrder::Little.u64(part.unpacked)?);
        if size > unpacked && size / 6 * 5 > unpacked && size > 1 << 20 {
            return Ok(ByteOrder::Big);
        }
        total = total.saturating_add(size);
        objects = objects.saturating_add(part.objects.len() as u64);
    }
    let absurd = objects > 0 && total / objects > u64::from(u32::MAX);
    Ok(if absurd { ByteOrder::Big } else { ByteOrder::Little })
}

/// The signed bytes and their signatures, if `bytes` is a signed superblock.
fn unwrap_signed(bytes: &[u8]) -> Result<Option<(Range<usize>, Dict)>, Malformed> {
    if bytes.get(..8) != Some(&SIGNED.to_be_bytes()[..]) {
        return Ok(None);
    }
    let fields = gv::tuple(&types("(taya{sv})")?, bytes)?;
    Ok(Some((range_in(bytes, fields[1]), value::decode_dict(fields[2])?)))
}

impl Superblock {
    /// Decodes and checks a superblock, signed or not. Signatures are not verified.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let (signed, signatures) = match unwrap_signed(&bytes)? {
            Some((range, signatures)) => (range, Some(signatures)),
            None => (0..bytes.len(), None),
        };
        let members = types("(a{sv}tayay(a{sv}aya(say)sstayay)aya(uayttay)a(yaytt))")?;
        let fields = gv::tuple(&members, &bytes[signed.clone()])?;
        let from = if fields[2].is_empty() { None } else { Some(checksum(fields[2])?) };
        let name = DeltaName { from, to: checksum(fields[3])? };
        if Checksum::of(fields[4]) != name.to {
            return bad(format!("the commit in it is {}, not {}", Checksum::of(fields[4]), name.to));
        }
        let commit = Commit::decode(fields[4])?;
        if !fields[5].is_empty() {
            return bad("it depends on other deltas");
        }
        let part = types("(uayttay)")?;
        let raw: Vec<RawPart<'_>> = gv::array(&Type::Tuple(part.clone()), fields[6])?
            .into_iter()
            .map(|bytes| RawPart::decode(bytes, &part))
            .collect::<Result<_, _>>()?;
        let mut facts = Facts::decode(&bytes, fields[0], &name, raw.len())?;
        let order = facts.order.map_or_else(|| guess_order(&raw), Ok)?;
        let parts = raw.into_iter().map(|raw| {
            let version = order.u32(raw.version)?;
            if version != 0 {
                return bad(format!("a part has the unknown version {version}"));
            }
            let (size, unpacked) = (order.u64(raw.size)?, order.u64(raw.unpacked)?);
            Ok(Part { checksum: raw.checksum, size, unpacked, objects: raw.objects })
        });
        let parts = parts.collect::<Result<Vec<_>, Malformed>>()?;
        Ok(Superblock {
            name,
            timestamp: ByteOrder::Big.u64(fields[1])?,
            commit,
            facts: std::mem::take(&mut facts.rest),
            detached: facts.detached,
            parts,
            fallbacks: decode_fallbacks(fields[7], order)?,
            order,
            order_guessed: facts.order.is_none(),
            signatures,
            inline: facts.inline,
            bytes,
            signed,
        })
    }

    /// The bytes that its signatures are over.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.bytes[self.signed.clone()]
    }

    /// The whole file.
    pub fn file_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A part that lies in the superblock.
    pub fn inline_part(&self, index: usize) -> Option<&[u8]> {
        Some(&self.bytes[self.inline.get(index)?.clone()?])
    }

    /// Bytes to fetch besides the superblock.
    pub fn size(&self) -> u64 {
        let parts = self.parts.iter().enumerate().filter(|(index, _)| self.inline_part(*index).is_none());
        let parts = parts.fold(0u64, |sum, (_, part)| sum.saturating_add(part.size));
        self.fallbacks.iter().fold(parts, |sum, fallback| sum.saturating_add(fallback.size))
    }
}

fn decode_fallbacks(bytes: &[u8], order: ByteOrder) -> Result<Vec<Fallback>, Malformed> {
    let members = types("(yaytt)")?;
    let mut fallbacks = Vec::new();
    for entry in gv::array(&Type::Tuple(members.clone()), bytes)? {
        let fields = gv::tuple(&members, entry)?;
        let (size, unpacked) = (order.u64(fields[2])?, order.u64(fields[3])?);
        fallbacks.push(Fallback { kind: kind(fields[0][0])?, checksum: checksum(fields[1])?, size, unpacked });
    }
    Ok(fallbacks)
}

/// The dictionary at the head. Inline parts may be large and are not copied.
#[derive(Default)]
struct Facts {
    order: Option<ByteOrder>,
    detached: Option<Dict>,
    inline: Vec<Option<Range<usize>>>,
    rest: Dict,
}

impl Facts {
    fn decode(whole: &[u8], bytes: &[u8], name: &DeltaName, parts: usize) -> Result<Self, Malformed> {
        let members = [Type::Str, Type::Variant];
        let part = types("(yay)")?;
        let prefix = format!("{}/", name.dir());
        let mut facts = Facts { inline: vec![None; parts], ..Facts::default() };
        let mut seen = std::collections::BTreeSet::new();
        for entry in gv::array(&Type::Tuple(members.to_vec()), bytes)? {
            let fields = gv::tuple(&members, entry)?;
            let key = gv::string(fields[0])?;
            if !seen.insert(key) {
                return bad(format!("key {key:?} occurs twice"));
            }
            let (value, ty) = gv::variant(fields[1])?;
            let index = key.strip_prefix(prefix.as_str()).and_then(|index| index.parse::<usize>().ok());
            if let (Some(index), "(yay)") = (index, ty) {
                gv::tuple(&part, value)?;
                // A key that is not the one way to write a number, or names a part that is not there, names nothing.
                if name.part(index) != key || index >= parts {
                    return bad(format!("{key:?} is not a part of it"));
                }
                facts.inline[index] = Some(range_in(whole, value));
            } else if key == name.commitmeta() && ty == "a{sv}" {
                facts.detached = Some(value::decode_dict(value)?);
            } else if key == ENDIANNESS {
                facts.order = Some(match (ty, value) {
                    ("y", b"l") => ByteOrder::Little,
                    ("y", b"B") => ByteOrder::Big,
                    _ => return bad("its byte order is neither 'l' nor 'B'"),
                });
            } else {
                facts.rest.insert(key.to_owned(), Value::decode(ty, value)?);
            }
        }
        Ok(facts)
    }
}

/// What a superblock is made from.
pub(super) struct Fields<'a> {
    pub name: DeltaName,
    pub timestamp: u64,
    pub commit: &'a [u8],
    pub facts: &'a Dict,
    pub detached: Option<&'a Dict>,
    pub parts: &'a [Part],
    pub fallbacks: &'a [Fallback],
    pub order: ByteOrder,
}

fn variant(value: &[u8], ty: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 1 + ty.len());
    bytes.extend_from_slice(value);
    bytes.push(0);
    bytes.extend_from_slice(ty.as_bytes());
    bytes
}

fn dict_entry(key: &str, value: &[u8], ty: &str) -> Vec<u8> {
    let mut entry = Writer::with_capacity(key.len() + value.len() + 32);
    entry.framed(1, &gv::nul(key)).plain(8, &variant(value, ty));
    entry.tuple()
}

impl Fields<'_> {
    /// The bytes of the superblock; `inline` holds the files of the parts if they belong in it.
    pub fn encode(&self, inline: Option<&[Vec<u8>]>) -> Vec<u8> {
        let mut facts = Writer::new();
        // Readers that sniff the file look for the caller's facts at its beginning.
        for (key, value) in self.facts {
            facts.framed(8, &dict_entry(key, &value.encode(), value.type_string()));
        }
        facts.framed(8, &dict_entry(ENDIANNESS, &[self.order.letter()], "y"));
        for (index, part) in inline.into_iter().flatten().enumerate() {
            facts.framed(8, &dict_entry(&self.name.part(index), part, "(yay)"));
        }
        if let Some(detached) = self.detached {
            facts.framed(8, &dict_entry(&self.name.commitmeta(), &value::encode_dict(detached), "a{sv}"));
        }
        let (mut parts, mut fallbacks) = (Writer::new(), Writer::new());
        for part in self.parts {
            let mut objects = Vec::with_capacity(part.objects.len() * ENTRY);
            for (kind, checksum) in &part.objects {
                objects.push(kind.number());
                objects.extend_from_slice(&checksum.0);
            }
            let mut entry = Writer::new();
            entry.plain(4, &[0; 4]).framed(1, &part.checksum.0);
            entry.plain(8, &self.order.put(part.size)).plain(8, &self.order.put(part.unpacked)).plain(1, &objects);
            parts.framed(8, &entry.tuple());
        }
        for fallback in self.fallbacks {
            let mut entry = Writer::new();
            entry.plain(1, &[fallback.kind.number()]).framed(1, &fallback.checksum.0);
            entry.plain(8, &self.order.put(fallback.size)).plain(8, &self.order.put(fallback.unpacked));
            fallbacks.framed(8, &entry.tuple());
        }
        let from = self.name.from.map(|from| from.0.to_vec()).unwrap_or_default();
        let mut whole = Writer::new();
        whole.framed(8, &facts.array()).plain(8, &self.timestamp.to_be_bytes());
        whole.framed(1, &from).framed(1, &self.name.to.0).framed(8, self.commit).framed(1, &[]);
        whole.framed(8, &parts.array()).plain(8, &fallbacks.array());
        whole.tuple()
    }
}

/// Wraps a superblock with signatures over it. The error is a sentence.
pub fn wrap_signed(superblock: &[u8], keys: &[&dyn Signs]) -> Result<Vec<u8>, String> {
    let mut signatures = Dict::new();
    for key in keys {
        key.sign_into(&mut signatures, superblock)?;
    }
    let mut writer = Writer::new();
    writer.plain(8, &SIGNED.to_be_bytes()).framed(1, superblock).plain(8, &value::encode_dict(&signatures));
    Ok(writer.tuple())
}
