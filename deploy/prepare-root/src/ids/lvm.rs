//! LVM's label and metadata on a physical volume, as far as ids and the place of a linear volume go.
//!
//! ```text
//!  sector 1      LABELONE: CRC, PV id, size, where data and metadata areas are
//!  4096          metadata area: header (CRC; offset, size and CRC of the current text), then a ring of texts
//!  pe_start      extents
//! ```
//!
//! The text is a small configuration language: sections in braces, `key = value`, comments after `#`. Ids are replaced in
//! place, so the rest of it stays as it is, byte for byte.

use super::{Disk, IdsError, SECTOR, crc, unexpected};

const MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
const RING: u64 = 512;
/// More than any image has; a bound for what is read from a disk.
const LARGEST_TEXT: u64 = 1 << 20;
/// Where the physical volume's id lies in the label.
const PV_ID: std::ops::Range<usize> = 32..64;
const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The metadata of one physical volume.
#[derive(Clone, Debug)]
pub struct Volumes {
    start: u64,
    label_at: u64,
    label: Vec<u8>,
    area: Area,
    text: String,
}

/// The metadata area.
#[derive(Clone, Copy, Debug)]
struct Area {
    at: u64,
    size: u64,
    /// Of the current text, from the area's start.
    offset: u64,
    length: u64,
}

impl Volumes {
    /// Reads and checks the physical volume at `start`.
    pub fn read(disk: &dyn Disk, start: u64, size: u64) -> Result<Volumes, IdsError> {
        let (label_at, label) = label(disk, start)?;
        let bad = |at: u64, why: &str| unexpected("the LVM metadata", at, why);
        // Two lists of (offset, size), each ended by zeros: data areas, then metadata areas.
        let mut words = label[72..].chunks_exact(16).map(|c| (u64_at(c, 0), u64_at(c, 8)));
        while words.next().is_some_and(|w| w != (0, 0)) {}
        let areas: Vec<(u64, u64)> = words.take_while(|w| *w != (0, 0)).collect();
        let &[(offset, length)] = areas.as_slice() else {
            return Err(bad(label_at, "does not lie in exactly one area"));
        };
        let fits = offset.checked_add(length).is_some_and(|end| end <= size) && length > RING;
        if !fits {
            return Err(bad(label_at, "lies outside the partition"));
        }
        let at = start + offset;
        let mut header = [0; SECTOR as usize];
        disk.read(at, &mut header)?;
        if crc::lvm(&header[4..]) != u32_at(&header, 0) || &header[4..20] != MAGIC {
            return Err(bad(at, "has no valid header"));
        }
        let area = Area { at, size: length, offset: u64_at(&header, 40), length: u64_at(&header, 48) };
        if area.length == 0 || area.length > LARGEST_TEXT || area.offset < RING || area.offset >= length {
            return Err(bad(at, "is empty"));
        }
        let text = area.read(disk)?;
        if crc::lvm(&text) != u32_at(&header, 56) {
            return Err(bad(at + area.offset, "has a wrong checksum"));
        }
        let text = String::from_utf8(text).map_err(|_| bad(at + area.offset, "is not text"))?;
        Ok(Volumes { start, label_at, label, area, text })
    }

    /// Where on the disk the logical volume of this name starts. It must be one linear piece.
    pub fn start_of(&self, volume: &str) -> Result<u64, IdsError> {
        self.find_start(volume).ok_or_else(|| {
            unexpected("the LVM metadata", self.area.at + self.area.offset, format!("has no linear volume `{volume}`"))
        })
    }

    fn find_start(&self, volume: &str) -> Option<u64> {
        let keys = keys(&self.text);
        let number = |path: &[&str]| {
            keys.iter().find(|k| k.is(path)).and_then(|k| self.text[k.value.clone()].trim().parse::<u64>().ok())
        };
        let group = keys.first()?.path.first()?.clone();
        let extent = number(&[&group, "extent_size"])?;
        let first = number(&[&group, "physical_volumes", "pv0", "pe_start"])?;
        let segment = [&group, "logical_volumes", volume, "segment1"];
        let stripes = keys.iter().find(|k| k.is(&[&segment[..], &["stripes"]].concat()))?;
        if number(&[&group, "logical_volumes", volume, "segment_count"])? != 1
            || number(&[&segment[..], &["stripe_count"]].concat())? != 1
        {
            return None;
        }
        let list = self.text[stripes.value.clone()].trim().strip_prefix('[')?.strip_suffix(']')?;
        let (pv, extent_number) = list.split_once(',')?;
        if pv.trim() != "\"pv0\"" {
            return None;
        }
        let sectors = extent.checked_mul(extent_number.trim().parse().ok()?)?.checked_add(first)?;
        self.start.checked_add(sectors.checked_mul(SECTOR)?)
    }

    /// The same volumes with new ids.
    pub fn with_fresh_ids(&self, random: &mut dyn FnMut() -> [u8; 32]) -> Result<Volumes, IdsError> {
        let mut fresh = self.clone();
        let mut physical = 0;
        for key in keys(&self.text).iter().filter(|k| k.path.last().is_some_and(|n| n == "id")) {
            let value = &self.text[key.value.clone()];
            if value.len() != 40 {
                let at = self.area.at + self.area.offset;
                return Err(unexpected("the LVM metadata", at, format!("has an id of another form: {value}")));
            }
            let id = id(&random());
            if key.path.get(1).is_some_and(|section| section == "physical_volumes") {
                physical += 1;
                fresh.label[PV_ID].copy_from_slice(id.as_bytes());
            }
            fresh.text.replace_range(key.value.clone(), &format!("\"{}\"", dashed(&id)));
        }
        if physical != 1 {
            let at = self.area.at + self.area.offset;
            return Err(unexpected("the LVM metadata", at, "does not have exactly one physical volume"));
        }
        let checksum = crc::lvm(&fresh.label[20..]);
        fresh.label[16..20].copy_from_slice(&checksum.to_le_bytes());
        Ok(fresh)
    }

    /// The physical volume's id.
    pub fn pv(&self) -> String {
        dashed(&String::from_utf8_lossy(&self.label[PV_ID]))
    }

    /// The volume group's id.
    pub fn vg(&self) -> String {
        let keys = keys(&self.text);
        let id = keys.iter().find(|k| k.path.len() == 2 && k.path[1] == "id");
        id.map(|k| self.text[k.value.clone()].trim_matches('"').to_owned()).unwrap_or_default()
    }

    /// Writes the text to a free part of the ring, then the header that points to it, then the label.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), IdsError> {
        let length = self.text.len() as u64;
        let rounded = length.next_multiple_of(SECTOR);
        // Behind the current text, or at the start of the ring where that reaches its end (or wraps around).
        let end = self.area.offset + self.area.length.next_multiple_of(SECTOR);
        let offset = if end + rounded <= self.area.size { end.next_multiple_of(SECTOR) } else { RING };
        if offset == RING && RING + rounded > self.area.offset {
            return Err(unexpected("the LVM metadata area", self.area.at, "has no room for a second text"));
        }
        let mut text = self.text.clone().into_bytes();
        let checksum = crc::lvm(&text);
        text.resize(rounded as usize, 0);
        disk.write(self.area.at + offset, &text)?;
        disk.sync()?;

        let mut header = [0; SECTOR as usize];
        header[4..20].copy_from_slice(MAGIC);
        header[20..24].copy_from_slice(&1u32.to_le_bytes());
        // The area's own place counts from the start of the physical volume.
        header[24..32].copy_from_slice(&(self.area.at - self.start).to_le_bytes());
        header[32..40].copy_from_slice(&self.area.size.to_le_bytes());
        header[40..48].copy_from_slice(&offset.to_le_bytes());
        header[48..56].copy_from_slice(&length.to_le_bytes());
        header[56..60].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc::lvm(&header[4..]);
        header[..4].copy_from_slice(&checksum.to_le_bytes());
        disk.write(self.area.at, &header)?;
        disk.write(self.label_at, &self.label)?;
        Ok(disk.sync()?)
    }
}

impl Area {
    /// The current text; it may wrap around at the end of the ring.
    fn read(&self, disk: &dyn Disk) -> Result<Vec<u8>, IdsError> {
        let mut text = vec![0; self.length as usize];
        let first = (self.size - self.offset).min(self.length) as usize;
        disk.read(self.at + self.offset, &mut text[..first])?;
        if first < text.len() {
            disk.read(self.at + RING, &mut text[first..])?;
        }
        Ok(text)
    }
}

/// The label: in one of the first four sectors.
fn label(disk: &dyn Disk, start: u64) -> Result<(u64, Vec<u8>), IdsError> {
    for sector in 0..4 {
        let at = start + sector * SECTOR;
        let mut bytes = vec![0; SECTOR as usize];
        disk.read(at, &mut bytes)?;
        let header = &bytes[..8] == b"LABELONE" && u32_at(&bytes, 20) == 32 && &bytes[24..32] == b"LVM2 001";
        if header && u64_at(&bytes, 8) == sector && crc::lvm(&bytes[20..]) == u32_at(&bytes, 16) {
            return Ok((at, bytes));
        }
    }
    Err(unexpected("the LVM label", start, "is missing or has a wrong checksum"))
}

/// 32 characters from 32 random bytes. A bias of 62 in 256 does no harm to an id.
fn id(random: &[u8; 32]) -> String {
    random.iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

/// An id as LVM prints it: 6-4-4-4-4-4-6.
fn dashed(id: &str) -> String {
    let mut out = String::new();
    for (i, c) in id.chars().enumerate() {
        if matches!(i, 6 | 10 | 14 | 18 | 22 | 26) {
            out.push('-');
        }
        out.push(c);
    }
    out
}

/// A key of the text: the sections it is in and its name, and where its value lies.
struct Key {
    path: Vec<String>,
    value: std::ops::Range<usize>,
}

impl Key {
    fn is(&self, path: &[&str]) -> bool {
        self.path.iter().map(String::as_str).eq(path.iter().copied())
    }
}

/// All keys of a text, in order. What it does not understand ends the list.
fn keys(text: &str) -> Vec<Key> {
    let bytes = text.as_bytes();
    let (mut keys, mut path, mut at) = (Vec::new(), Vec::<String>::new(), 0);
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
    loop {
        while at < bytes.len() && (bytes[at].is_ascii_whitespace() || bytes[at] == 0 || bytes[at] == b'#') {
            if bytes[at] == b'#' {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
            } else {
                at += 1;
            }
        }
        if at >= bytes.len() {
            return keys;
        }
        if bytes[at] == b'}' {
            path.pop();
            at += 1;
            continue;
        }
        let from = at;
        while at < bytes.len() && word(bytes[at]) {
            at += 1;
        }
        if at == from {
            return keys;
        }
        let name = text[from..at].to_owned();
        while at < bytes.len() && bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        match bytes.get(at) {
            Some(b'{') => {
                path.push(name);
                at += 1;
            }
            Some(b'=') => {
                at += 1;
                while at < bytes.len() && bytes[at] == b' ' {
                    at += 1;
                }
                let end = match bytes.get(at) {
                    Some(b'"') => bytes[at + 1..].iter().position(|b| *b == b'"').map(|n| at + n + 2),
                    Some(b'[') => bytes[at..].iter().position(|b| *b == b']').map(|n| at + n + 1),
                    _ => Some(bytes[at..].iter().position(|b| b.is_ascii_whitespace()).map_or(bytes.len(), |n| at + n)),
                };
                let Some(end) = end else { return keys };
                keys.push(Key { path: [path.as_slice(), &[name]].concat(), value: at..end });
                at = end;
            }
            _ => return keys,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
