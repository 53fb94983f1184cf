//! The objects of a repository and their encodings.
//!
//! ```text
//! objects/ab/cdef….dirtree   (a(say)a(sayay))        files: name, file; directories: name, dirtree, dirmeta
//! objects/ab/cdef….dirmeta   (uuua(ayay))            uid, gid, mode, extended attributes; big-endian
//! objects/ab/cdef….commit    (a{sv}aya(say)sstayay)  metadata, parent, -, subject, body, time, dirtree, dirmeta
//! objects/ab/cdef….file      bare-user: content, the rest in the xattr user.ostreemeta (uuua(ayay))
//! objects/ab/cdef….filez     archive: header (tuuuusa(ayay)), raw deflate
//! ```
//! The name of a file object is the SHA-256 of its *content stream*: header `(uuuusa(ayay))`, then the content. All
//! decoders check what they read: names cannot leave their directory, arrays are sorted, nothing occurs twice.

use std::cmp::Ordering;
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::Checksum;
use crate::gv::{self, Malformed, Type, Writer, bad};
use crate::value::{self, Dict};

/// Largest metadata object that is read from anywhere (libostree's limit).
pub const MAX_METADATA: u64 = 128 << 20;

/// File type bits of a mode.
pub const S_IFMT: u32 = 0o170_000;
/// A directory.
pub const S_IFDIR: u32 = 0o040_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectType {
    /// A regular file or symbolic link.
    File,
    /// The names in one directory.
    DirTree,
    /// Owner, mode and extended attributes of a directory.
    DirMeta,
    /// A commit.
    Commit,
}

impl ObjectType {
    /// The number in `ostree.sizes` and static deltas.
    pub fn number(self) -> u8 {
        match self {
            ObjectType::File => 1,
            ObjectType::DirTree => 2,
            ObjectType::DirMeta => 3,
            ObjectType::Commit => 4,
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [ObjectType::File, ObjectType::DirTree, ObjectType::DirMeta, ObjectType::Commit]
            .into_iter()
            .find(|t| t.number() == number)
    }

    /// The file name extension in a bare repository.
    pub fn extension(self) -> &'static str {
        match self {
            ObjectType::File => "file",
            ObjectType::DirTree => "dirtree",
            ObjectType::DirMeta => "dirmeta",
            ObjectType::Commit => "commit",
        }
    }
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

/// Where an object lies below `objects/` in a bare repository: `ab/cdef….file`.
pub fn object_path(kind: ObjectType, checksum: &Checksum) -> String {
    path_with_extension(checksum, kind.extension())
}

pub(crate) fn path_with_extension(checksum: &Checksum, extension: &str) -> String {
    let hex = checksum.to_hex();
    format!("{}/{}.{extension}", &hex[..2], &hex[2..])
}

/// Extended attributes: name without NUL, value; sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn xattr_type() -> Type {
    let bytes = || Type::Array(Box::new(Type::Byte));
    Type::Array(Box::new(Type::Tuple(vec![bytes(), bytes()])))
}

pub(crate) fn decode_xattrs(bytes: &[u8]) -> Result<Xattrs, Malformed> {
    let Type::Array(element) = xattr_type() else { return bad("xattrs") };
    let Type::Tuple(members) = &*element else { return bad("xattrs") };
    let mut xattrs: Xattrs = Vec::new();
    for entry in gv::array(&element, bytes)? {
        let parts = gv::tuple(members, entry)?;
        let Some((&0, name)) = parts[0].split_last() else { return bad("xattr name does not end in NUL") };
        if name.is_empty() || name.contains(&0) {
            return bad("xattr name is empty or holds a NUL");
        }
        if xattrs.last().is_some_and(|(last, _)| last.as_slice() >= name) {
            return bad("xattrs are not sorted, or one occurs twice");
        }
        xattrs.push((name.to_vec(), parts[1].to_vec()));
    }
    Ok(xattrs)
}

/// Extended attributes as objects hold them (`a(ayay)`), sorted.
pub fn encode_xattrs(xattrs: &Xattrs) -> Vec<u8> {
    let mut sorted: Vec<_> = xattrs.iter().collect();
    sorted.sort();
    let mut writer = Writer::new();
    for (name, value) in sorted {
        let mut with_nul = name.clone();
        with_nul.push(0);
        let mut entry = Writer::new();
        entry.framed(1, &with_nul).plain(1, value);
        writer.framed(1, &entry.tuple());
    }
    writer.array()
}

fn be32(bytes: &[u8]) -> Result<u32, Malformed> {
    bytes.try_into().map(u32::from_be_bytes).map_err(|_| Malformed("number has the wrong size".into()))
}

fn be64(bytes: &[u8]) -> Result<u64, Malformed> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| Malformed("number has the wrong size".into()))
}

fn checksum(bytes: &[u8]) -> Result<Checksum, Malformed> {
    Checksum::from_bytes(bytes).ok_or_else(|| Malformed(format!("checksum of {} bytes", bytes.len())))
}

/// Whether `name` may be the name of a file in a tree: one path component, and not a way out of the directory.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// Owner, mode and extended attributes of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirMeta {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode, with `S_IFDIR`.
    pub mode: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

fn decode_meta(bytes: &[u8]) -> Result<(u32, u32, u32, Xattrs), Malformed> {
    let number = || Type::Number(4);
    let parts = gv::tuple(&[number(), number(), number(), xattr_type()], bytes)?;
    Ok((be32(parts[0])?, be32(parts[1])?, be32(parts[2])?, decode_xattrs(parts[3])?))
}

fn encode_meta(uid: u32, gid: u32, mode: u32, xattrs: &Xattrs) -> Vec<u8> {
    let mut writer = Writer::new();
    for number in [uid, gid, mode] {
        writer.plain(4, &number.to_be_bytes());
    }
    writer.plain(1, &encode_xattrs(xattrs));
    writer.tuple()
}

impl DirMeta {
    /// A directory of root's, without extended attributes.
    pub fn root(permissions: u32) -> Self {
        DirMeta { uid: 0, gid: 0, mode: S_IFDIR | permissions, xattrs: Vec::new() }
    }

    /// Decodes and checks a dirmeta object.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (uid, gid, mode, xattrs) = decode_meta(bytes)?;
        if mode & S_IFMT != S_IFDIR || mode & !(S_IFMT | 0o7777) != 0 {
            return bad(format!("{mode:o} is not the mode of a directory"));
        }
        Ok(DirMeta { uid, gid, mode, xattrs })
    }

    /// The bytes of the dirmeta object.
    pub fn encode(&self) -> Vec<u8> {
        encode_meta(self.uid, self.gid, self.mode, &self.xattrs)
    }
}

/// The names in one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirTree {
    /// Files and symbolic links, sorted by name: name, file object.
    pub files: Vec<(String, Checksum)>,
    /// Directories, sorted by name: name, dirtree, dirmeta.
    pub dirs: Vec<(String, Checksum, Checksum)>,
}

impl DirTree {
    /// Decodes and checks a dirtree object.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let blob = || Type::Array(Box::new(Type::Byte));
        let file = [Type::Str, blob()];
        let dir = [Type::Str, blob(), blob()];
        let arrays = [Type::Tuple(file.to_vec()), Type::Tuple(dir.to_vec())];
        let parts = gv::tuple(&arrays.clone().map(|t| Type::Array(Box::new(t))), bytes)?;
        let mut tree = DirTree::default();
        for entry in gv::array(&arrays[0], parts[0])? {
            let members = gv::tuple(&file, entry)?;
            let name = entry_name(members[0], tree.files.last().map(|f| f.0.as_str()))?;
            tree.files.push((name, checksum(members[1])?));
        }
        for entry in gv::array(&arrays[1], parts[1])? {
            let members = gv::tuple(&dir, entry)?;
            let name = entry_name(members[0], tree.dirs.last().map(|d| d.0.as_str()))?;
            tree.dirs.push((name, checksum(members[1])?, checksum(members[2])?));
        }
        tree.check_disjoint()?;
        Ok(tree)
    }

    /// A name that is a file and a directory would be one or the other by luck.
    fn check_disjoint(&self) -> Result<(), Malformed> {
        let mut dirs = self.dirs.iter().map(|d| d.0.as_str()).peekable();
        for (file, _) in &self.files {
            while dirs.peek().is_some_and(|d| *d < file.as_str()) {
                dirs.next();
            }
            if dirs.peek() == Some(&file.as_str()) {
                return bad(format!("{file:?} is a file and a directory"));
            }
        }
        Ok(())
    }

    /// The bytes of the dirtree object; sorts the names.
    pub fn encode(&self) -> Vec<u8> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let mut dirs: Vec<_> = self.dirs.iter().collect();
        dirs.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut first, mut second) = (Writer::new(), Writer::new());
        for (name, file) in files {
            let mut entry = Writer::with_capacity(name.len() + 36);
            entry.framed(1, &gv::nul(name)).plain(1, &file.0);
            first.framed(1, &entry.tuple());
        }
        for (name, tree, meta) in dirs {
            let mut entry = Writer::with_capacity(name.len() + 70);
            entry.framed(1, &gv::nul(name)).framed(1, &tree.0).plain(1, &meta.0);
            second.framed(1, &entry.tuple());
        }
        let mut writer = Writer::new();
        writer.framed(1, &first.array()).plain(1, &second.array());
        writer.tuple()
    }
}

fn entry_name(bytes: &[u8], last: Option<&str>) -> Result<String, Malformed> {
    let name = gv::string(bytes)?;
    if !valid_name(name) {
        return bad(format!("{name:?} cannot be the name of a file"));
    }
    match last.map(|last| last.cmp(name)) {
        None | Some(Ordering::Less) => Ok(name.to_owned()),
        Some(Ordering::Equal) => bad(format!("{name:?} occurs twice")),
        Some(Ordering::Greater) => bad(format!("{name:?} is out of order")),
    }
}

/// Everything about a file object but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode, with `S_IFREG` or `S_IFLNK`.
    pub mode: u32,
    /// Where a symbolic link points.
    pub symlink: Option<String>,
    /// Extended attributes, sorted.
    pub xattrs: Xattrs,
    /// Bytes of content; 0 for a symbolic link.
    pub size: u64,
}

impl FileMeta {
    /// A regular file of root's, without extended attributes.
    pub fn regular(permissions: u32, size: u64) -> Self {
        FileMeta { uid: 0, gid: 0, mode: S_IFREG | permissions, symlink: None, xattrs: Vec::new(), size }
    }

    /// A symbolic link of root's.
    pub fn link(target: impl Into<String>) -> Self {
        FileMeta { uid: 0, gid: 0, mode: S_IFLNK | 0o777, symlink: Some(target.into()), xattrs: Vec::new(), size: 0 }
    }

    fn check(self) -> Result<Self, Malformed> {
        let fits = match self.mode & S_IFMT {
            S_IFREG => self.symlink.is_none(),
            S_IFLNK => self.size == 0 && self.symlink.as_ref().is_some_and(|target| !target.is_empty()),
            _ => false,
        };
        if !fits || self.mode & !(S_IFMT | 0o7777) != 0 {
            return bad(format!("{:o} is not the mode of this file", self.mode));
        }
        Ok(self)
    }

    fn header(&self, size: Option<u64>) -> Vec<u8> {
        let mut writer = Writer::new();
        if let Some(size) = size {
            writer.plain(8, &size.to_be_bytes());
        }
        for number in [self.uid, self.gid, self.mode, 0] {
            writer.plain(4, &number.to_be_bytes());
        }
        writer.framed(1, &gv::nul(self.symlink.as_deref().unwrap_or("")));
        writer.plain(1, &encode_xattrs(&self.xattrs));
        let header = writer.tuple();
        let mut framed = Vec::with_capacity(header.len() + 8);
        framed.extend_from_slice(&(header.len() as u32).to_be_bytes());
        framed.extend_from_slice(&[0; 4]);
        framed.extend_from_slice(&header);
        framed
    }

    /// The beginning of the content stream; the content follows.
    pub fn stream_header(&self) -> Vec<u8> {
        self.header(None)
    }

    /// The beginning of a `.filez`; raw deflate follows.
    pub fn filez_header(&self) -> Vec<u8> {
        self.header(Some(self.size))
    }

    /// A hash that has seen the header and wants the content.
    pub fn hasher(&self) -> Sha256 {
        let mut hasher = Sha256::new();
        hasher.update(self.stream_header());
        hasher
    }

    /// Decodes the header of a `.filez` without its 8 bytes of framing.
    pub fn decode_filez(bytes: &[u8]) -> Result<Self, Malformed> {
        let number = || Type::Number(4);
        let members = [Type::Number(8), number(), number(), number(), number(), Type::Str, xattr_type()];
        let parts = gv::tuple(&members, bytes)?;
        Self::assemble(be64(parts[0])?, &parts[1..])
    }

    /// Decodes the header of a content stream without its 8 bytes of framing.
    pub fn decode_stream(bytes: &[u8], size: u64) -> Result<Self, Malformed> {
        let number = || Type::Number(4);
        let parts = gv::tuple(&[number(), number(), number(), number(), Type::Str, xattr_type()], bytes)?;
        Self::assemble(size, &parts)
    }

    fn assemble(size: u64, parts: &[&[u8]]) -> Result<Self, Malformed> {
        if be32(parts[3])? != 0 {
            return bad("device number is not 0");
        }
        let target = gv::string(parts[4])?;
        FileMeta {
            uid: be32(parts[0])?,
            gid: be32(parts[1])?,
            mode: be32(parts[2])?,
            symlink: (!target.is_empty()).then(|| target.to_owned()),
            xattrs: decode_xattrs(parts[5])?,
            size,
        }
        .check()
    }

    /// Decodes the xattr `user.ostreemeta`; `size` and `symlink` come from the content.
    pub fn decode_bare_user(bytes: &[u8], size: u64, symlink: Option<String>) -> Result<Self, Malformed> {
        let (uid, gid, mode, xattrs) = decode_meta(bytes)?;
        FileMeta { uid, gid, mode, symlink, xattrs, size }.check()
    }

    /// The value of the xattr `user.ostreemeta`.
    pub fn encode_bare_user(&self) -> Vec<u8> {
        encode_meta(self.uid, self.gid, self.mode, &self.xattrs)
    }

    /// The mode field of `user.ostreemeta`, needed before it is known whether the content is a link's target.
    pub fn bare_user_mode(bytes: &[u8]) -> Result<u32, Malformed> {
        Ok(decode_meta(bytes)?.2)
    }
}

/// A commit: a tree, when and why it was made, and signed facts about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Facts about the tree.
    pub metadata: Dict,
    /// The commit before it.
    pub parent: Option<Checksum>,
    /// One line.
    pub subject: String,
    /// More lines.
    pub body: String,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Dirtree of the root directory.
    pub root_tree: Checksum,
    /// Dirmeta of the root directory.
    pub root_meta: Checksum,
    /// The object as it was signed.
    pub bytes: Vec<u8>,
}

impl Commit {
    /// Decodes and checks a commit object.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let blob = || Type::Array(Box::new(Type::Byte));
        let related = Type::Tuple(vec![Type::Str, blob()]);
        let dict = Type::parse("a{sv}")?;
        let members = [
            dict,
            blob(),
            Type::Array(Box::new(related.clone())),
            Type::Str,
            Type::Str,
            Type::Number(8),
            blob(),
            blob(),
        ];
        let parts = gv::tuple(&members, bytes)?;
        gv::check(&members[2], parts[2], 0)?;
        Ok(Commit {
            metadata: value::decode_dict(parts[0])?,
            parent: if parts[1].is_empty() { None } else { Some(checksum(parts[1])?) },
            subject: gv::string(parts[3])?.to_owned(),
            body: gv::string(parts[4])?.to_owned(),
            timestamp: be64(parts[5])?,
            root_tree: checksum(parts[6])?,
            root_meta: checksum(parts[7])?,
            bytes: bytes.to_vec(),
        })
    }

    /// The commit's name.
    pub fn checksum(&self) -> Checksum {
        Checksum::of(&self.bytes)
    }

    /// The metadata `version`.
    pub fn version(&self) -> Option<&str> {
        self.metadata.get("version")?.as_str()
    }

    /// The refs that this commit says it belongs to.
    pub fn ref_bindings(&self) -> Option<&[String]> {
        self.metadata.get("ostree.ref-binding")?.as_strings()
    }

    /// The fs-verity digest of the composefs image of the tree.
    pub fn composefs_digest(&self) -> Option<[u8; 32]> {
        self.metadata.get("ostree.composefs.digest.v0")?.as_bytes()?.try_into().ok()
    }
}

/// What a commit says, before it has bytes.
pub(crate) struct CommitFields<'a> {
    pub metadata: &'a Dict,
    pub first_keys: &'a [String],
    pub parent: Option<&'a Checksum>,
    pub subject: &'a str,
    pub body: &'a str,
    pub timestamp: u64,
    pub root_tree: &'a Checksum,
    pub root_meta: &'a Checksum,
}

impl CommitFields<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .framed(8, &value::encode_dict_with(self.metadata, self.first_keys))
            .framed(1, self.parent.map_or(&[][..], |p| &p.0))
            .framed(1, &[])
            .framed(1, &gv::nul(self.subject))
            .framed(1, &gv::nul(self.body))
            .plain(8, &self.timestamp.to_be_bytes())
            .framed(1, &self.root_tree.0)
            .plain(1, &self.root_meta.0);
        writer.tuple()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file_sum(meta: &FileMeta, content: &[u8]) -> String {
        let mut hasher = meta.hasher();
        hasher.update(content);
        hex::encode(hasher.finalize())
    }

    #[test]
    fn golden_checksums_of_the_stock_tools() {
        assert_eq!(
            Checksum::of(&DirMeta::root(0o755).encode()).to_string(),
            "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488"
        );
        assert_eq!(
            file_sum(&FileMeta::regular(0o644, 0), b""),
            "cc700d46f407c6c5ab2d5dde474366a928b7398277e61162e7f8ec06f469f07e"
        );
        assert_eq!(
            file_sum(&FileMeta::regular(0o755, 6), b"hello\n"),
            "d6f58149fd47ec2be3fafef4fe767915f195e7ae67b9a0c090b842b156cd07f3"
        );
        assert_eq!(
            file_sum(&FileMeta::link("hi"), b""),
            "8759a20a6ca062f5ce17955356073a670ae170eddf7ff63a882518b8b79c2e9f"
        );
        assert_eq!(
            hex::encode(FileMeta::regular(0o755, 6).filez_header()),
            "0000001a000000000000000000000006000000000000000000\
             0081ed000000000019"
        );
    }

    fn tree(files: &[&str], dirs: &[&str]) -> Vec<u8> {
        // Written as they come: `encode` would sort.
        let sum = Checksum::of(b"");
        let (mut first, mut second) = (Writer::new(), Writer::new());
        for name in files {
            let mut entry = Writer::new();
            entry.framed(1, &gv::nul(name)).plain(1, &sum.0);
            first.framed(1, &entry.tuple());
        }
        for name in dirs {
            let mut entry = Writer::new();
            entry.framed(1, &gv::nul(name)).framed(1, &sum.0).plain(1, &sum.0);
            second.framed(1, &entry.tuple());
        }
        let mut writer = Writer::new();
        writer.framed(1, &first.array()).plain(1, &second.array());
        writer.tuple()
    }

    #[test]
    fn hostile_dirtrees_are_refused() {
        DirTree::decode(&tree(&["a", "b"], &["c"])).unwrap();
        for (story, files, dirs) in [
            ("path traversal", &["../etc/passwd"][..], &[][..]),
            ("parent directory", &[], &[".."]),
            ("this directory", &["."], &[]),
            ("no name", &[""], &[]),
            ("duplicate file", &["a", "a"], &[]),
            ("duplicate directory", &[], &["a", "a"]),
            ("out of order", &["b", "a"], &[]),
            ("file and directory of one name", &["a", "b", "c"], &["aa", "b"]),
        ] {
            assert!(DirTree::decode(&tree(files, dirs)).is_err(), "{story}");
        }
    }

    #[test]
    fn modes_must_fit() {
        for mode in [0o644, S_IFREG | 0o644, S_IFLNK | 0o777, S_IFDIR | 0o200_000] {
            let meta = DirMeta { uid: 0, gid: 0, mode, xattrs: Vec::new() };
            assert!(DirMeta::decode(&meta.encode()).is_err(), "{mode:o}");
        }
        let device = FileMeta { mode: 0o020_644, ..FileMeta::regular(0, 0) };
        assert!(FileMeta::decode_filez(&device.filez_header()[8..]).is_err());
        let both = FileMeta { symlink: Some("x".into()), ..FileMeta::regular(0o644, 0) };
        assert!(FileMeta::decode_filez(&both.filez_header()[8..]).is_err());
        let neither = FileMeta { symlink: None, ..FileMeta::link("") };
        assert!(FileMeta::decode_filez(&neither.filez_header()[8..]).is_err());
    }

    fn xattrs() -> impl Strategy<Value = Xattrs> {
        prop::collection::btree_map("[a-z.]{1,20}", prop::collection::vec(any::<u8>(), 0..60), 0..4)
            .prop_map(|map| map.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect())
    }

    proptest! {
        #[test]
        fn file_headers_come_back(uid: u32, gid: u32, bits in 0..0o10_000u32, size: u64, xattrs in xattrs()) {
            let meta = FileMeta { uid, gid, mode: S_IFREG | bits, symlink: None, xattrs, size };
            prop_assert_eq!(FileMeta::decode_filez(&meta.filez_header()[8..]).unwrap(), meta.clone());
            prop_assert_eq!(FileMeta::decode_stream(&meta.stream_header()[8..], size).unwrap(), meta.clone());
            prop_assert_eq!(FileMeta::decode_bare_user(&meta.encode_bare_user(), size, None).unwrap(), meta);
        }

        #[test]
        fn dirtrees_come_back(names in prop::collection::btree_set("[^/\0]{1,300}", 0..60)) {
            let names: Vec<String> = names.into_iter().filter(|n| valid_name(n)).collect();
            let (files, dirs) = names.split_at(names.len() / 2);
            let sum = |n: &String| Checksum::of(n.as_bytes());
            let tree = DirTree {
                files: files.iter().map(|n| (n.clone(), sum(n))).collect(),
                dirs: dirs.iter().map(|n| (n.clone(), sum(n), Checksum::of(b""))).collect(),
            };
            prop_assert_eq!(DirTree::decode(&tree.encode()).unwrap(), tree);
        }

        #[test]
        fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = DirTree::decode(&bytes);
            let _ = DirMeta::decode(&bytes);
            let _ = Commit::decode(&bytes);
            let _ = FileMeta::decode_filez(&bytes);
        }

        #[test]
        fn what_decodes_has_one_encoding(mut bytes in Just(tree(&["a", "bc"], &["d"])), at in 0..100usize, to: u8) {
            let index = at % bytes.len();
            bytes[index] = to;
            if let Ok(tree) = DirTree::decode(&bytes) {
                prop_assert_eq!(tree.encode(), bytes);
            }
        }
    }
}
