//! The EROFS image itself, byte for byte as libcomposefs writes its format version 0.
//!
//! ```text
//! 0        composefs header (32 bytes)
//! 1024     EROFS superblock (128 bytes)
//! 1152     inodes, breadth first, each at a multiple of 32; its number is its offset / 32:
//!            inode (32 bytes; 64 where an id or the size needs it) | attributes | tail
//!            tail = the end of a directory | target of a link | one "hole" chunk of a file
//!          a tail never crosses a block: padding goes before its inode, or the tail becomes a block of its own
//! ….       attributes that more than one inode has, sorted downwards
//! block    directory blocks, breadth first
//! ```
//!
//! Files have no data here: each is a hole of its size with two attributes that tell overlayfs where the content is
//! (`trusted.overlay.redirect`) and which fs-verity digest it must have (`trusted.overlay.metacopy`).
//! The root directory gets a whiteout for each of `00` … `ff`, which hides the object directories themselves.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Error;
use super::tree::{Kind, Node, Xattrs};

const BLOCK: u64 = 4096;
const SLOT: u64 = 32;
const SUPER: u64 = 1024;
const INODES: u64 = SUPER + 128;
/// A link target that would be refused by every file system.
const PATH_MAX: usize = 4096;
/// libcomposefs' limit for the attributes of one inode.
const XATTRS_MAX: usize = u16::MAX as usize;

const OVERLAY: &[u8] = b"trusted.overlay.";

const TYPE_REG: u16 = 0o100000;
const TYPE_DIR: u16 = 0o040000;
const TYPE_CHR: u16 = 0o020000;
const TYPE_LNK: u16 = 0o120000;

const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;
const CHUNKED: u16 = 4;

/// One inode on its way to the image.
struct Inode<'a> {
    mode: u16,
    uid: u32,
    gid: u32,
    xattrs: Vec<Xattr>,
    body: Body<'a>,
    parent: usize,
    // Decided by `place`:
    compact: bool,
    blocks: u64,
    tail: u64,
    pad: u64,
    nid: u64,
}

enum Body<'a> {
    /// Names with the index of their inode, `.` and `..` among them, in byte order.
    Dir(Vec<(&'a [u8], usize)>),
    File(u64),
    Symlink(&'a [u8]),
    Whiteout,
}

struct Xattr {
    key: Vec<u8>,
    value: Vec<u8>,
    /// Offset in the area of shared attributes.
    shared: Option<u64>,
}

impl Xattr {
    /// EROFS stores well-known prefixes as a number.
    fn split(&self) -> (u8, &[u8]) {
        let prefixes: [(&[u8], u8); 5] = [
            (b"user.", 1),
            (b"system.posix_acl_access", 2),
            (b"system.posix_acl_default", 3),
            (b"trusted.", 4),
            (b"security.", 6),
        ];
        for (prefix, index) in prefixes {
            if let Some(rest) = self.key.strip_prefix(prefix) {
                return (index, rest);
            }
        }
        (0, &self.key)
    }

    fn len(&self) -> u64 {
        (4 + self.split().1.len() + self.value.len()).next_multiple_of(4) as u64
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (index, name) = self.split();
        out.push(name.len() as u8);
        out.push(index);
        out.extend_from_slice(&(self.value.len() as u16).to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(&self.value);
        align(out, 4);
    }

    /// The bit that the kernel's quick "surely absent" filter clears for this name.
    fn filter_bit(&self) -> u32 {
        let (index, name) = self.split();
        xxh32(name, 0x25BB_E08F + u32::from(index)) & 31
    }
}

impl Inode<'_> {
    /// Size as `stat` shows it. `blocks` and `tail` must be known.
    fn size(&self) -> u64 {
        match &self.body {
            Body::Dir(_) => self.blocks * BLOCK + self.tail,
            Body::File(size) => *size,
            Body::Symlink(target) => target.len() as u64,
            Body::Whiteout => 0,
        }
    }

    fn inode_len(&self) -> u64 {
        if self.compact { 32 } else { 64 }
    }

    fn xattr_len(&self) -> u64 {
        let shared = self.xattrs.iter().filter(|x| x.shared.is_some()).count() as u64;
        let own: u64 = self.xattrs.iter().filter(|x| x.shared.is_none()).map(Xattr::len).sum();
        if self.xattrs.is_empty() { 0 } else { 12 + 4 * shared + own }
    }

    fn links(&self, inodes: &[Inode<'_>]) -> u64 {
        match &self.body {
            Body::Dir(names) => {
                let sub = |(name, index): &&(&[u8], usize)| {
                    *name != b"." && *name != b".." && matches!(inodes[*index].body, Body::Dir(_))
                };
                2 + names.iter().filter(sub).count() as u64
            }
            _ => 1,
        }
    }
}

/// Writes the image of `root`, which must be a directory.
pub(super) fn write(root: &Node) -> Result<Vec<u8>, Error> {
    let mut inodes = flatten(root)?;
    let (shared_bytes, acl) = share_xattrs(&mut inodes);
    let (inodes_end, data_blocks) = place(&mut inodes);
    let data_start = (inodes_end + shared_bytes.len() as u64).next_multiple_of(BLOCK);
    let total = data_start / BLOCK + data_blocks;
    let blocks = u32::try_from(total).map_err(|_| Error::TooLarge)?;

    let mut out = Vec::with_capacity((total * BLOCK) as usize);
    out.extend_from_slice(&0xd078_629a_u32.to_le_bytes());
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(&u32::from(acl).to_le_bytes());
    out.resize(SUPER as usize, 0);
    superblock(&mut out, &inodes, blocks, inodes_end);

    let mut next_block = data_start / BLOCK;
    for index in 0..inodes.len() {
        write_inode(&mut out, &inodes, index, inodes_end, &mut next_block);
    }
    align(&mut out, SLOT as usize);
    debug_assert_eq!(out.len() as u64, inodes_end);
    out.extend_from_slice(&shared_bytes);
    align(&mut out, BLOCK as usize);
    for inode in &inodes {
        match &inode.body {
            Body::Dir(names) => write_names(&mut out, &inodes, names, inode.blocks, Part::Blocks),
            Body::Symlink(target) if inode.blocks > 0 => {
                out.extend_from_slice(target);
                align(&mut out, BLOCK as usize);
            }
            _ => {}
        }
    }
    debug_assert_eq!(out.len() as u64, total * BLOCK);
    Ok(out)
}

fn superblock(out: &mut Vec<u8>, inodes: &[Inode<'_>], blocks: u32, inodes_end: u64) {
    let mut sb = Vec::with_capacity(128);
    sb.extend_from_slice(&0xE0F5_E1E2_u32.to_le_bytes());
    sb.extend_from_slice(&0u32.to_le_bytes()); // no checksum
    sb.extend_from_slice(&6u32.to_le_bytes()); // compatible features: mtime, attribute filter
    sb.push(12); // log2 of the block size
    sb.push(0);
    sb.extend_from_slice(&(inodes[0].nid as u16).to_le_bytes());
    sb.extend_from_slice(&(inodes.len() as u64).to_le_bytes());
    sb.extend_from_slice(&0u64.to_le_bytes()); // time of all compact inodes
    sb.extend_from_slice(&0u32.to_le_bytes());
    sb.extend_from_slice(&blocks.to_le_bytes());
    sb.extend_from_slice(&((INODES / BLOCK) as u32).to_le_bytes());
    sb.extend_from_slice(&((inodes_end / BLOCK) as u32).to_le_bytes());
    sb.resize(128, 0);
    out.extend_from_slice(&sb);
}

/// Breadth first, with the attributes overlayfs wants, `.` and `..`, and the whiteouts of the root.
fn flatten(root: &Node) -> Result<Vec<Inode<'_>>, Error> {
    let Kind::Dir(_) = root.kind else { return Err(Error::NotADirectory) };
    let mut inodes: Vec<Inode<'_>> = Vec::new();
    let mut queue: VecDeque<&Node> = VecDeque::new();
    inodes.push(start(root, 0)?);
    let opaque = Xattr { key: [OVERLAY, b"opaque"].concat(), value: b"y".to_vec(), shared: None };
    inodes[0].xattrs.push(opaque);
    inodes[0].xattrs.sort_by(|a, b| a.key.cmp(&b.key));
    queue.push_back(root);
    // Whiteouts have no Node: the queue holds the nodes of all other inodes, in the same order.
    let mut next = 0;
    while next < inodes.len() {
        if matches!(inodes[next].body, Body::Whiteout) {
            next += 1;
            continue;
        }
        let Some(node) = queue.pop_front() else { return Err(Error::NotADirectory) };
        if let Kind::Dir(children) = &node.kind {
            let mut names: BTreeMap<&[u8], usize> = BTreeMap::new();
            names.insert(b".", next);
            names.insert(b"..", inodes[next].parent);
            let mut merged: BTreeMap<&[u8], Option<&Node>> =
                children.iter().map(|(name, node)| (name.as_slice(), Some(node))).collect();
            if next == 0 {
                for i in 0..=255u8 {
                    merged.entry(whiteout_name(i)).or_insert(None);
                }
            }
            for (name, child) in merged {
                if name.is_empty() || name.len() > 255 || name == b"." || name == b".." || name.contains(&b'/') {
                    return Err(Error::Name { name: String::from_utf8_lossy(name).into_owned() });
                }
                names.insert(name, inodes.len());
                match child {
                    Some(child) => {
                        inodes.push(start(child, next)?);
                        queue.push_back(child);
                    }
                    None => {
                        let whiteout = whiteout(&inodes[0]);
                        inodes.push(whiteout);
                    }
                }
            }
            inodes[next].body = Body::Dir(names.into_iter().collect());
        }
        next += 1;
    }
    Ok(inodes)
}

/// `00` … `ff` as a static string.
fn whiteout_name(i: u8) -> &'static [u8] {
    static NAMES: [[u8; 2]; 256] = {
        let hex = *b"0123456789abcdef";
        let mut names = [[0; 2]; 256];
        let mut i = 0;
        while i < 256 {
            names[i] = [hex[i >> 4], hex[i & 15]];
            i += 1;
        }
        names
    };
    &NAMES[usize::from(i)]
}

fn whiteout<'a>(root: &Inode<'_>) -> Inode<'a> {
    let inherited = root.xattrs.iter().filter(|x| x.key == b"security.selinux");
    Inode {
        mode: TYPE_CHR | 0o644,
        uid: root.uid,
        gid: root.gid,
        xattrs: inherited.map(|x| Xattr { key: x.key.clone(), value: x.value.clone(), shared: None }).collect(),
        body: Body::Whiteout,
        parent: 0,
        compact: false,
        blocks: 0,
        tail: 0,
        pad: 0,
        nid: 0,
    }
}

/// An inode with everything that follows from its node alone. Directories get their names later.
fn start(node: &Node, parent: usize) -> Result<Inode<'_>, Error> {
    let mut xattrs = Xattrs::new();
    for (key, value) in &node.xattrs {
        // overlayfs would take these for its own; the escaped form is what a mount shows as the plain one.
        let key = match key.strip_prefix(OVERLAY) {
            Some(rest) => [OVERLAY, b"overlay.", rest].concat(),
            None => key.clone(),
        };
        if key.is_empty() || key.len() > 255 || key.contains(&0) {
            return Err(Error::Xattr { name: String::from_utf8_lossy(&key).into_owned() });
        }
        xattrs.insert(key, value.clone());
    }
    let (kind, body) = match &node.kind {
        Kind::Dir(_) => (TYPE_DIR, Body::Dir(Vec::new())),
        Kind::Symlink(target) => {
            if target.is_empty() || target.len() >= PATH_MAX {
                return Err(Error::Symlink { len: target.len() });
            }
            (TYPE_LNK, Body::Symlink(target))
        }
        Kind::File { size, payload, digest } => {
            if *size > 0 {
                // Empty, or version, length, flags, SHA-256.
                let metacopy = digest.map_or_else(Vec::new, |digest| [&[0, 36, 0, 1], &digest[..]].concat());
                xattrs.insert([OVERLAY, b"metacopy"].concat(), metacopy);
                xattrs.insert([OVERLAY, b"redirect"].concat(), format!("/{payload}").into_bytes());
            }
            (TYPE_REG, Body::File(*size))
        }
    };
    let size: usize = xattrs.iter().map(|(k, v)| 7 + k.len() + v.len()).sum();
    if size + 12 > XATTRS_MAX {
        return Err(Error::XattrsTooLarge { size });
    }
    Ok(Inode {
        mode: kind | (node.permissions & 0o7777),
        uid: node.uid,
        gid: node.gid,
        xattrs: xattrs.into_iter().map(|(key, value)| Xattr { key, value, shared: None }).collect(),
        body,
        parent,
        compact: false,
        blocks: 0,
        tail: 0,
        pad: 0,
        nid: 0,
    })
}

/// Attributes used more than once go to a shared area, in descending order of name, length, value.
/// Returns that area, and whether any inode has a POSIX ACL.
fn share_xattrs(inodes: &mut [Inode<'_>]) -> (Vec<u8>, bool) {
    let mut uses: HashMap<(&[u8], &[u8]), u32> = HashMap::new();
    let mut acl = false;
    for xattr in inodes.iter().flat_map(|i| &i.xattrs) {
        *uses.entry((&xattr.key, &xattr.value)).or_default() += 1;
        acl |= xattr.key == b"system.posix_acl_access" || xattr.key == b"system.posix_acl_default";
    }
    let mut shared: Vec<(Vec<u8>, Vec<u8>)> =
        uses.into_iter().filter(|(_, n)| *n > 1).map(|((k, v), _)| (k.to_vec(), v.to_vec())).collect();
    shared.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.len().cmp(&a.1.len())).then(b.1.cmp(&a.1)));
    let mut bytes = Vec::new();
    let mut offsets = HashMap::new();
    for (key, value) in shared {
        let offset = bytes.len() as u64;
        let xattr = Xattr { key, value, shared: None };
        xattr.write(&mut bytes);
        offsets.insert((xattr.key, xattr.value), offset);
    }
    for inode in inodes {
        let mut count = 0;
        for xattr in &mut inode.xattrs {
            // The number of shared attributes of an inode is kept in 7 bits.
            if count < 0x80 {
                let pair = (std::mem::take(&mut xattr.key), std::mem::take(&mut xattr.value));
                xattr.shared = offsets.get(&pair).copied();
                (xattr.key, xattr.value) = pair;
                count += u32::from(xattr.shared.is_some());
            }
        }
    }
    (bytes, acl)
}

/// Gives each inode its place. Returns the end of the inodes and the number of data blocks.
fn place(inodes: &mut [Inode<'_>]) -> (u64, u64) {
    let mut pos = INODES;
    let mut data_blocks = 0;
    for index in 0..inodes.len() {
        let links = inodes[index].links(inodes);
        let inode = &mut inodes[index];
        match &inode.body {
            Body::Dir(names) => (inode.blocks, inode.tail) = dir_size(names),
            Body::Symlink(target) => inode.tail = target.len() as u64,
            Body::File(size) if *size > 0 => inode.tail = 4,
            _ => {}
        }
        let max = u64::from(u16::MAX);
        inode.compact = links <= max
            && u64::from(inode.uid) <= max
            && u64::from(inode.gid) <= max
            && inode.size() <= u64::from(u32::MAX);
        let slot = pos.next_multiple_of(SLOT);
        let extra = pad_for_tail(inode, slot);
        inode.pad = slot - pos + extra;
        pos = slot + extra;
        inode.nid = pos / SLOT;
        pos += inode.inode_len() + inode.xattr_len() + inode.tail;
        data_blocks += inode.blocks;
    }
    (pos.next_multiple_of(SLOT), data_blocks)
}

/// Whole blocks and the tail of a directory; more than half a block is not worth a tail.
fn dir_size(names: &[(&[u8], usize)]) -> (u64, u64) {
    let (mut blocks, mut filled) = (0, 0);
    for (name, _) in names {
        let len = 12 + name.len() as u64;
        if filled + len > BLOCK {
            blocks += 1;
            filled = 0;
        }
        filled += len;
    }
    if filled > BLOCK / 2 { (blocks + 1, 0) } else { (blocks, filled) }
}

/// Padding before an inode so that its tail does not cross a block; gives the tail up where that is not enough.
fn pad_for_tail(inode: &mut Inode<'_>, pos: u64) -> u64 {
    let head = inode.inode_len() + inode.xattr_len();
    let to_next_block = pos.next_multiple_of(BLOCK) - pos;
    if let Body::Symlink(_) = inode.body {
        // A link keeps inode and target in one block, unless both can never fit.
        let total = head + inode.tail;
        let crosses = pos / BLOCK != (pos + total - 1) / BLOCK;
        if total >= BLOCK {
            inode.blocks += 1;
            inode.tail = 0;
        }
        return if crosses { to_next_block } else { 0 };
    }
    let left = BLOCK - (pos + head) % BLOCK;
    if left >= inode.tail {
        return 0;
    }
    let pad = left.next_multiple_of(SLOT);
    let left = BLOCK - (pos + head + pad) % BLOCK;
    if inode.tail <= left {
        return pad;
    }
    inode.blocks += 1;
    inode.tail = 0;
    to_next_block
}

fn write_inode(out: &mut Vec<u8>, inodes: &[Inode<'_>], index: usize, inodes_end: u64, next_block: &mut u64) {
    let inode = &inodes[index];
    out.resize(out.len() + inode.pad as usize, 0);
    let xattr_len = inode.xattr_len();
    let icount = if xattr_len == 0 { 0 } else { (xattr_len - 12) / 4 + 1 } as u16;
    let (layout, mut union) = match &inode.body {
        Body::File(size) if *size > 0 => (CHUNKED, chunk_bits(*size) - 12),
        _ if inode.tail > 0 => (FLAT_INLINE, 0),
        _ => (FLAT_PLAIN, 0),
    };
    if inode.blocks > 0 {
        union = *next_block as u32;
        *next_block += inode.blocks;
    }
    let links = inode.links(inodes) as u32;
    let format = layout << 1 | u16::from(!inode.compact);
    out.extend_from_slice(&format.to_le_bytes());
    out.extend_from_slice(&icount.to_le_bytes());
    out.extend_from_slice(&inode.mode.to_le_bytes());
    if inode.compact {
        out.extend_from_slice(&(links as u16).to_le_bytes());
        out.extend_from_slice(&(inode.size() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&union.to_le_bytes());
        out.extend_from_slice(&(index as u32).to_le_bytes());
        out.extend_from_slice(&(inode.uid as u16).to_le_bytes());
        out.extend_from_slice(&(inode.gid as u16).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    } else {
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&inode.size().to_le_bytes());
        out.extend_from_slice(&union.to_le_bytes());
        out.extend_from_slice(&(index as u32).to_le_bytes());
        out.extend_from_slice(&inode.uid.to_le_bytes());
        out.extend_from_slice(&inode.gid.to_le_bytes());
        out.extend_from_slice(&[0; 12]); // time 0
        out.extend_from_slice(&links.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
    }
    if xattr_len > 0 {
        write_xattrs(out, inode, inodes_end);
    }
    match &inode.body {
        Body::Dir(names) => write_names(out, inodes, names, inode.blocks, Part::Tail),
        Body::Symlink(target) if inode.blocks == 0 => out.extend_from_slice(target),
        Body::File(size) if *size > 0 => out.extend_from_slice(&u32::MAX.to_le_bytes()),
        _ => {}
    }
}

fn write_xattrs(out: &mut Vec<u8>, inode: &Inode<'_>, inodes_end: u64) {
    let names = inode.xattrs.iter().fold(0u32, |bits, x| bits | 1 << x.filter_bit());
    let shared: Vec<u64> = inode.xattrs.iter().filter_map(|x| x.shared).collect();
    out.extend_from_slice(&(!names).to_le_bytes());
    out.push(shared.len() as u8);
    out.extend_from_slice(&[0; 7]);
    for offset in shared {
        out.extend_from_slice(&(((inodes_end % BLOCK + offset) / 4) as u32).to_le_bytes());
    }
    inode.xattrs.iter().filter(|x| x.shared.is_none()).for_each(|x| x.write(out));
}

/// One chunk covers the whole file: the smallest power of two that holds it, at least a block.
fn chunk_bits(size: u64) -> u32 {
    let bits = 64 - (size - 1).leading_zeros();
    bits.clamp(12, 12 + 31)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Blocks,
    Tail,
}

/// Writes the blocks or the tail of a directory. Each is a table of fixed records followed by the names.
fn write_names(out: &mut Vec<u8>, inodes: &[Inode<'_>], names: &[(&[u8], usize)], blocks: u64, part: Part) {
    let (mut first, mut filled, mut written) = (0, 0, 0);
    let mut emit = |from: usize, to: usize, block: bool| {
        if block == (part == Part::Blocks) && from < to {
            write_chunk(out, inodes, &names[from..to]);
            if block {
                align(out, BLOCK as usize);
            }
        }
    };
    for (i, (name, _)) in names.iter().enumerate() {
        let len = 12 + name.len() as u64;
        if filled + len > BLOCK {
            emit(first, i, true);
            written += 1;
            filled = 0;
            first = i;
        }
        filled += len;
    }
    emit(first, names.len(), written < blocks);
}

fn write_chunk(out: &mut Vec<u8>, inodes: &[Inode<'_>], names: &[(&[u8], usize)]) {
    let mut offset = names.len() * 12;
    for (name, index) in names {
        let target = &inodes[*index];
        out.extend_from_slice(&target.nid.to_le_bytes());
        out.extend_from_slice(&(offset as u16).to_le_bytes());
        out.push(match target.body {
            Body::File(_) => 1,
            Body::Dir(_) => 2,
            Body::Whiteout => 3,
            Body::Symlink(_) => 7,
        });
        out.push(0);
        offset += name.len();
    }
    names.iter().for_each(|(name, _)| out.extend_from_slice(name));
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// xxHash, 32 bits: what EROFS hashes attribute names with.
fn xxh32(input: &[u8], seed: u32) -> u32 {
    const P1: u32 = 2_654_435_761;
    const P2: u32 = 2_246_822_519;
    const P3: u32 = 3_266_489_917;
    const P4: u32 = 668_265_263;
    const P5: u32 = 374_761_393;
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let stripes = input.chunks_exact(16);
    let mut rest = stripes.remainder();
    let mut hash = if input.len() >= 16 {
        let mut lanes = [seed.wrapping_add(P1).wrapping_add(P2), seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)];
        for stripe in stripes {
            for (lane, bytes) in lanes.iter_mut().zip(stripe.chunks_exact(4)) {
                *lane = lane.wrapping_add(word(bytes).wrapping_mul(P2)).rotate_left(13).wrapping_mul(P1);
            }
        }
        let turns = [1, 7, 12, 18];
        lanes.iter().zip(turns).fold(0u32, |sum, (lane, turn)| sum.wrapping_add(lane.rotate_left(turn)))
    } else {
        seed.wrapping_add(P5)
    };
    hash = hash.wrapping_add(input.len() as u32);
    while rest.len() >= 4 {
        hash = hash.wrapping_add(word(rest).wrapping_mul(P3)).rotate_left(17).wrapping_mul(P4);
        rest = &rest[4..];
    }
    for byte in rest {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(P2);
    hash = (hash ^ hash >> 13).wrapping_mul(P3);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxhash_known_answers() {
        assert_eq!(xxh32(b"", 0), 0x02CC_5D05);
        assert_eq!(xxh32(b"abc", 0), 0x32D1_53FF);
        assert_eq!(xxh32(b"Nobody inspects the spammish repetition", 0), 0xE229_3B2F);
    }

    #[test]
    fn chunks_cover_the_file() {
        for (size, bits) in [(1, 12), (4096, 12), (4097, 13), (8192, 13), (8193, 14), (1 << 40, 40), (u64::MAX, 43)] {
            assert_eq!(chunk_bits(size), bits, "{size}");
        }
    }
}
