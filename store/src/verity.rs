//! fs-verity: digests computed here, read from the kernel, and laid out for file systems written offline.
//!
//! Always SHA-256, blocks of 4096 bytes, no salt: what OSTree and composefs use.
//!
//! ```text
//! content   block 0 | block 1 | …            each hashed, the last one padded with zeros
//! level 0   128 hashes to a block            hashed again
//! level n   one block                        its hash is the root hash
//! descriptor (256 bytes)                     sha256(descriptor) = the digest the kernel reports
//!
//! on disk (ext4)  content | zeros to 64 KiB | level n … level 0 | descriptor … size of descriptor (last 4 bytes of its block)
//! ```

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;

use sha2::{Digest, Sha256};

/// Size of a Merkle tree block and of a data block.
pub const BLOCK: usize = 4096;
/// Size of a digest.
pub const DIGEST: usize = 32;
const HASHES_PER_BLOCK: usize = BLOCK / DIGEST;
/// Size of the descriptor that is hashed into the digest.
const DESCRIPTOR: usize = 256;
/// ext4 puts the Merkle tree at the first multiple of this after the end of the content.
const EXT4_ALIGN: u64 = 65536;

/// Computes the fs-verity digest of a stream; memory grows with the logarithm of its length.
#[derive(Clone)]
pub struct Hasher {
    /// Content that does not fill a block yet.
    block: Sha256,
    filled: usize,
    size: u64,
    /// `levels[0]` hashes data blocks, `levels[n + 1]` hashes blocks of level n.
    levels: Vec<Level>,
    /// Blocks of every level, kept only where the tree itself is wanted.
    kept: Option<Vec<Vec<u8>>>,
}

#[derive(Clone, Default)]
struct Level {
    hashes: Vec<u8>,
    /// How many blocks of this level were passed up.
    blocks: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Hasher { block: Sha256::new(), filled: 0, size: 0, levels: Vec::new(), kept: None }
    }

    /// A hasher that also keeps the Merkle tree (1/127 of the content), for `finish_tree`.
    pub fn with_tree() -> Self {
        Hasher { kept: Some(Vec::new()), ..Self::new() }
    }

    /// Adds content.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.filled == 0 && bytes.len() >= BLOCK {
                let hash = Sha256::digest(&bytes[..BLOCK]);
                self.push(0, &hash);
                bytes = &bytes[BLOCK..];
                continue;
            }
            let take = bytes.len().min(BLOCK - self.filled);
            self.block.update(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if self.filled == BLOCK {
                let hash = self.block.finalize_reset();
                self.filled = 0;
                self.push(0, &hash);
            }
        }
    }

    /// Adds one hash to a level; a full block of hashes is hashed into the next level only when another hash follows,
    /// because the last block of the highest level has no level above it.
    fn push(&mut self, level: usize, hash: &[u8]) {
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        if self.levels[level].hashes.len() == BLOCK {
            self.pass_up(level);
        }
        self.levels[level].hashes.extend_from_slice(hash);
    }

    fn pass_up(&mut self, level: usize) {
        let mut block = std::mem::take(&mut self.levels[level].hashes);
        block.resize(BLOCK, 0);
        self.levels[level].blocks += 1;
        let hash = Sha256::digest(&block);
        self.keep(level, &block);
        self.push(level + 1, &hash);
        block.clear();
        self.levels[level].hashes = block;
    }

    fn keep(&mut self, level: usize, block: &[u8]) {
        if let Some(kept) = &mut self.kept {
            if kept.len() <= level {
                kept.resize(level + 1, Vec::new());
            }
            kept[level].extend_from_slice(block);
        }
    }

    fn root(&mut self) -> [u8; DIGEST] {
        if self.filled > 0 {
            let padding = [0; BLOCK];
            self.block.update(&padding[self.filled..]);
            let hash = self.block.finalize_reset();
            self.filled = 0;
            self.push(0, &hash);
        }
        let mut level = 0;
        while level < self.levels.len() {
            let state = &self.levels[level];
            if state.blocks == 0 && state.hashes.len() == DIGEST {
                // A single hash: the root. At level 0 the content is one block and the tree has no block at all.
                let mut root = [0; DIGEST];
                root.copy_from_slice(&state.hashes);
                return root;
            }
            self.pass_up(level);
            level += 1;
        }
        [0; DIGEST]
    }

    /// The digest, as `FS_IOC_MEASURE_VERITY` reports it.
    pub fn finish(mut self) -> [u8; DIGEST] {
        let root = self.root();
        Sha256::digest(descriptor(self.size, &root)).into()
    }

    /// The digest together with what a file system stores. Only after `with_tree`; otherwise the tree is empty.
    pub fn finish_tree(mut self) -> Merkle {
        let root = self.root();
        let descriptor = descriptor(self.size, &root);
        // Root level first.
        let tree = self.kept.unwrap_or_default().into_iter().rev().flatten().collect();
        Merkle { digest: Sha256::digest(descriptor).into(), size: self.size, tree, descriptor }
    }
}

/// struct fsverity_descriptor, as it is hashed and as ext4 stores it (no signature).
fn descriptor(size: u64, root: &[u8; DIGEST]) -> [u8; DESCRIPTOR] {
    let mut d = [0; DESCRIPTOR];
    d[0] = 1; // version
    d[1] = 1; // SHA-256
    d[2] = 12; // log2 of the block size
    d[8..16].copy_from_slice(&size.to_le_bytes());
    d[16..48].copy_from_slice(root);
    d
}

/// A Merkle tree, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merkle {
    /// What the kernel will report.
    pub digest: [u8; DIGEST],
    /// Size of the content.
    pub size: u64,
    /// Blocks of the tree, root level first; empty for content of at most one block.
    pub tree: Vec<u8>,
    /// The descriptor.
    pub descriptor: [u8; DESCRIPTOR],
}

/// What ext4 stores past the end of the content, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEnd {
    /// Offset in the file, a multiple of 64 KiB.
    pub offset: u64,
    /// Bytes to store there: a whole number of 4096-byte blocks.
    pub bytes: Vec<u8>,
}

impl Merkle {
    /// The bytes ext4 keeps past the end of the file: tree, descriptor, and the descriptor's size in the last four bytes.
    pub fn past_end(&self) -> PastEnd {
        let mut bytes = self.tree.clone();
        bytes.extend_from_slice(&self.descriptor);
        // The size sits in the last 4 bytes of the block in which the descriptor ends (256 + 4 always fit in one).
        let end = bytes.len().next_multiple_of(BLOCK);
        bytes.resize(end, 0);
        bytes[end - 4..].copy_from_slice(&(DESCRIPTOR as u32).to_le_bytes());
        PastEnd { offset: self.size.next_multiple_of(EXT4_ALIGN), bytes }
    }

    /// How many bytes `past_end` has for content of `size` bytes, without computing a tree.
    pub fn past_end_len(size: u64) -> u64 {
        let mut blocks = size.div_ceil(BLOCK as u64);
        let mut tree = 0;
        while blocks > 1 {
            blocks = blocks.div_ceil(HASHES_PER_BLOCK as u64);
            tree += blocks;
        }
        (tree + 1) * BLOCK as u64
    }
}

/// The Merkle tree of content in memory, for file systems that are written offline.
pub fn merkle(content: &[u8]) -> Merkle {
    let mut hasher = Hasher::with_tree();
    hasher.update(content);
    hasher.finish_tree()
}

/// The digest of content in memory.
pub fn digest(content: &[u8]) -> [u8; DIGEST] {
    let mut hasher = Hasher::new();
    hasher.update(content);
    hasher.finish()
}

/// The digest of all that `reader` yields.
pub fn digest_of(mut reader: impl Read) -> io::Result<[u8; DIGEST]> {
    thread_local! {
        // Most files are smaller by far: clearing this for each would cost more than reading them.
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut hasher = Hasher::new();
    let mut buffer = BUFFER.take();
    buffer.resize(128 * 1024, 0);
    let result = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break Err(e),
        }
    };
    BUFFER.set(buffer);
    result
}

/// struct fsverity_enable_arg
#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// struct fsverity_digest with room for a SHA-512.
#[repr(C)]
struct DigestArg {
    algorithm: u16,
    size: u16,
    digest: [u8; 64],
}

// _IOW('f', 133, struct fsverity_enable_arg) and _IOWR('f', 134, struct fsverity_digest); the latter's size is its header.
const ENABLE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<EnableArg>(b'f', 133);
const MEASURE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<[u16; 2]>(b'f', 134);

/// Asks the kernel to seal a file: it becomes read-only for ever and each read is checked.
///
/// `file` must be open for reading only, and nobody may have it open for writing.
#[allow(unsafe_code, reason = "an ioctl with a pointer")]
pub fn enable(file: &File) -> io::Result<()> {
    let arg = EnableArg {
        version: 1,
        hash_algorithm: 1,
        block_size: BLOCK as u32,
        salt_size: 0,
        salt_ptr: 0,
        sig_size: 0,
        reserved1: 0,
        sig_ptr: 0,
        reserved2: [0; 11],
    };
    // SAFETY: ENABLE takes a pointer to a fsverity_enable_arg, which EnableArg mirrors; it holds no other pointer.
    unsafe { rustix::ioctl::ioctl(file, rustix::ioctl::Setter::<ENABLE, EnableArg>::new(arg)) }?;
    Ok(())
}

/// The digest the kernel enforces for a file; an error when it has none (`ENODATA`), or when it is not SHA-256.
#[allow(unsafe_code, reason = "an ioctl with a pointer")]
pub fn measure(file: &File) -> io::Result<[u8; DIGEST]> {
    let mut arg = DigestArg { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: MEASURE takes a pointer to a fsverity_digest whose `size` says how many bytes follow; DigestArg has 64.
    unsafe { rustix::ioctl::ioctl(file, rustix::ioctl::Updater::<MEASURE, DigestArg>::new(&mut arg)) }?;
    if arg.algorithm != 1 || usize::from(arg.size) != DIGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "fs-verity algorithm {} with {} bytes on descriptor {}, wanted SHA-256",
                arg.algorithm,
                arg.size,
                file.as_raw_fd()
            ),
        ));
    }
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&arg.digest[..DIGEST]);
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| ((i as u64 * 2654435761) >> 13) as u8).collect()
    }

    /// The tree built level by level, straight from the definition.
    fn plain(content: &[u8]) -> ([u8; 32], Vec<u8>) {
        let blocks = |bytes: &[u8]| -> Vec<u8> {
            bytes
                .chunks(BLOCK)
                .flat_map(|c| {
                    let mut block = c.to_vec();
                    block.resize(BLOCK, 0);
                    Sha256::digest(&block).to_vec()
                })
                .collect()
        };
        let mut levels = Vec::new();
        let mut current = blocks(content);
        while current.len() > DIGEST {
            let mut padded = current.clone();
            padded.resize(current.len().next_multiple_of(BLOCK), 0);
            current = blocks(&padded);
            levels.push(padded);
        }
        current.resize(DIGEST, 0);
        let root: [u8; 32] = current.try_into().unwrap();
        levels.reverse();
        (Sha256::digest(descriptor(content.len() as u64, &root)).into(), levels.concat())
    }

    #[test]
    fn streaming_equals_the_definition_at_every_boundary() {
        for len in
            [0, 1, 4095, 4096, 4097, 8192, 128 * 4096 - 1, 128 * 4096, 128 * 4096 + 1, 129 * 4096, 300 * 4096 + 7]
        {
            let content = pattern(len);
            let (digest_wanted, tree) = plain(&content);
            let merkle = merkle(&content);
            assert_eq!(merkle.digest, digest_wanted, "{len}");
            assert_eq!(merkle.tree, tree, "{len}");
            assert_eq!(digest_of(content.as_slice()).unwrap(), digest_wanted);
            for piece in [1000, 4096, 5000] {
                let mut hasher = Hasher::new();
                content.chunks(piece).for_each(|c| hasher.update(c));
                assert_eq!(hasher.finish(), digest_wanted, "{len} in pieces of {piece}");
            }
            assert_eq!(merkle.past_end().bytes.len() as u64, Merkle::past_end_len(len as u64));
        }
    }

    #[test]
    fn three_levels() {
        let content = pattern(128 * 128 * 4096 + 1);
        let merkle = merkle(&content);
        assert_eq!(merkle.tree.len(), (1 + 2 + 129) * BLOCK);
        assert_eq!((merkle.digest, merkle.tree), plain(&content));
    }

    /// `fsverity digest FILE` of fsverity-utils 1.5.
    #[test]
    fn known_answers() {
        let answers = [
            (Vec::new(), "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
            (b"hello\n".to_vec(), "9c76eecc7b76fcb46199cb27b90cf59a660e10575bb0412128905129d5b1c2aa"),
            (vec![0; 4096], "babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e"),
            (pattern(1_000_000), "cd123dfe873385909f49b303bd34aeee6ea708755935b417920a764cdde8e45e"),
        ];
        for (content, wanted) in answers {
            assert_eq!(hex::encode(digest(&content)), wanted, "{} bytes", content.len());
        }
    }

    #[test]
    fn past_the_end_of_a_small_file() {
        let past = merkle(b"hello\n").past_end();
        assert_eq!((past.offset, past.bytes.len()), (65536, 4096));
        assert_eq!(past.bytes[..3], [1, 1, 12]);
        assert_eq!(past.bytes[4092..], 256u32.to_le_bytes());
        // An empty file has a descriptor at offset 0 and no tree.
        assert_eq!(merkle(b"").past_end().offset, 0);
    }

    #[test]
    fn a_file_without_verity_has_no_digest() {
        let file = tempfile::tempfile().unwrap();
        assert!(measure(&file).is_err());
    }

    #[test]
    fn ioctl_numbers() {
        assert_eq!(u64::from(ENABLE), 0x40806685);
        assert_eq!(u64::from(MEASURE), 0xc0046686);
    }
}
