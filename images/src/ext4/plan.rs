//! Every inode and block gets its place.

use super::dir::{self, Record};
use super::geometry::{Allocator, BLOCK, FIRST_INODE, Geometry, Run};
use super::inode::{self, EXTENTS, Inode, VERITY, own_seed};
use super::superblock::{GroupUse, Totals, checksum_seed, descriptors, journal_superblock, resize_inode, superblock};
use super::tree::{Kind, Node};
use super::{Error, Params};
use store::verity::Merkle;

/// A file system with every place decided.
pub struct Plan {
    pub(super) metadata: Vec<(u64, Vec<u8>)>,
    files: Vec<FileSlot>,
    /// Blocks in use, fixed parts included.
    pub used_blocks: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Inodes in use.
    pub inodes: u64,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("used_blocks", &self.used_blocks)
            .field("inodes", &self.inodes)
            .finish_non_exhaustive()
    }
}

/// Where the content of one file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSlot {
    /// Number of the content.
    pub content: usize,
    /// Size of the content.
    pub size: u64,
    /// Whether a Merkle tree follows the content.
    pub verity: bool,
    /// Runs for the content, then for the Merkle tree, as byte offset and length.
    pub(super) data: Vec<(u64, u64)>,
    pub(super) merkle: Vec<(u64, u64)>,
}

/// A node on its way to an inode.
struct Item<'a> {
    node: &'a Node,
    parent: u32,
    names: Vec<(&'a [u8], u32, u8)>,
    /// Blocks of the directory, or of the content.
    blocks: u64,
    merkle_blocks: u64,
    xattrs: inode::Xattrs,
}

const ROOT: u32 = 2;
/// A short link lives in its inode.
const SHORT_LINK: usize = 60;
const LOST_FOUND_BLOCKS: u64 = 4;

fn inode_number(index: usize) -> u32 {
    // The root has number 2, lost+found the first free one, everything else follows.
    if index == 0 { ROOT } else { FIRST_INODE + index as u32 - 1 }
}

impl Plan {
    /// Plans the file system of `root`, which must be a directory. `lost+found` is added.
    pub fn new(params: &Params, root: &Node) -> Result<Self, Error> {
        let lost_found = Node::dir(0o700);
        let items = collect(root, &lost_found)?;
        let geometry = Geometry::new(params.bytes, items.len() as u64)?;
        let mut allocator = Allocator::new(&geometry);
        check_space(params, &geometry, &items, allocator.left)?;
        let seed = checksum_seed(params);
        let mut metadata: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut inodes: Vec<(u32, Inode)> = Vec::new();

        let journal_blocks = journal_blocks(geometry.blocks);
        let journal_run = allocator.take_run(journal_blocks)?;
        let journal = journal_inode(journal_run)?;
        metadata.push((journal_run.start, journal_superblock(journal_blocks, &params.uuid)));
        inodes.push((8, journal.clone()));
        if geometry.reserved_descriptor_blocks > 0 {
            let root = allocator.take_run(1)?.start;
            let (inode, blocks) = resize_inode(&geometry, root);
            inodes.push((7, inode));
            metadata.extend(blocks);
        }

        // Directories first, together: a check of the file system reads them all.
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); items.len()];
        for (index, item) in items.iter().enumerate() {
            if matches!(item.node.kind, Kind::Dir(_)) {
                runs[index] = allocator.take(item.blocks)?;
            }
        }
        let mut files = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let number = inode_number(index);
            let own = own_seed(seed, number);
            let mut made = Inode {
                mode: item.node.permissions & 0o7777,
                uid: item.node.uid,
                gid: item.node.gid,
                links: 1,
                xattrs: item.xattrs.in_inode.clone(),
                ..Inode::default()
            };
            let mut extents = Vec::new();
            match &item.node.kind {
                Kind::Dir(_) => {
                    made.mode |= 0o040000;
                    made.links = 2 + item.names.iter().filter(|(_, _, kind)| *kind == 2).count() as u32;
                    made.size = item.blocks * BLOCK;
                    made.flags = EXTENTS;
                    extents = inode::extents(0, &runs[index]);
                    let bytes = directory(item, number, own);
                    place(&mut metadata, &runs[index], bytes);
                }
                Kind::Symlink(target) => {
                    made.mode |= 0o120000;
                    made.size = target.len() as u64;
                    if target.len() < SHORT_LINK {
                        made.body[..target.len()].copy_from_slice(target);
                    } else {
                        made.flags = EXTENTS;
                        let run = allocator.take(1)?;
                        extents = inode::extents(0, &run);
                        place(&mut metadata, &run, target.clone());
                    }
                }
                Kind::File { size, content, verity } => {
                    made.mode |= 0o100000;
                    made.size = *size;
                    made.flags = if *verity { EXTENTS | VERITY } else { EXTENTS };
                    let data = allocator.take(item.blocks)?;
                    let merkle = allocator.take(item.merkle_blocks)?;
                    extents = inode::extents(0, &data);
                    extents.extend(inode::extents(past_end_block(*size), &merkle));
                    extents = join(extents);
                    let bytes = |runs: &[Run]| runs.iter().map(|r| (r.start * BLOCK, r.len * BLOCK)).collect();
                    files.push(FileSlot {
                        content: *content,
                        size: *size,
                        verity: *verity,
                        data: bytes(&data),
                        merkle: bytes(&merkle),
                    });
                }
            }
            made.blocks = extents.iter().map(|e| e.len).sum();
            if made.flags & EXTENTS != 0 {
                let tree_blocks = inode::tree_blocks(extents.len());
                let tree_runs = allocator.take(tree_blocks)?;
                let (body, leaves) = inode::tree(&extents, &tree_runs, own)?;
                made.body = body;
                made.blocks += tree_blocks;
                metadata.extend(leaves);
            }
            if let Some(block) = &item.xattrs.block {
                let number = allocator.take_run(1)?.start;
                let mut block = block.clone();
                inode::seal_xattr_block(&mut block, number, seed);
                metadata.push((number, block));
                made.xattr_block = number;
                made.blocks += 1;
            }
            inodes.push((number, made));
        }

        let used_blocks = geometry.blocks - allocator.left;
        let totals = Totals {
            free_blocks: allocator.left,
            free_inodes: geometry.inodes_per_group * geometry.groups
                - (u64::from(FIRST_INODE) + items.len() as u64 - 2),
        };
        let uses = uses(&geometry, &items);
        write_tables(params, seed, &geometry, &allocator, &uses, &inodes, &mut metadata);
        write_supers(params, &geometry, &totals, &journal, seed, &allocator, &uses, &mut metadata);
        metadata.sort_by_key(|(block, _)| *block);
        Ok(Plan { metadata, files, used_blocks, blocks: geometry.blocks, inodes: items.len() as u64 })
    }

    /// The files whose content must be written.
    pub fn files(&self) -> &[FileSlot] {
        &self.files
    }
}

/// Depth first in the order of names; lost+found directly after the root.
fn collect<'a>(root: &'a Node, lost_found: &'a Node) -> Result<Vec<Item<'a>>, Error> {
    let Kind::Dir(children) = &root.kind else { return Err(Error::Path { path: "/".into() }) };
    let name: &[u8] = b"lost+found";
    if children.contains_key(name) {
        return Err(Error::Path { path: "/lost+found".into() });
    }
    let mut items = vec![item(root, ROOT)?, item(lost_found, ROOT)?];
    items[1].blocks = LOST_FOUND_BLOCKS;
    items[0].names.push((name, inode_number(1), 2));
    let mut stack: Vec<(usize, &'a [u8], &'a Node)> =
        children.iter().rev().map(|(n, c)| (0, n.as_slice(), c)).collect();
    while let Some((parent, name, node)) = stack.pop() {
        let index = items.len();
        let kind = match &node.kind {
            Kind::Dir(children) => {
                stack.extend(children.iter().rev().map(|(n, c)| (index, n.as_slice(), c)));
                2
            }
            Kind::File { .. } => 1,
            Kind::Symlink(_) => 7,
        };
        items.push(item(node, inode_number(parent))?);
        items[parent].names.push((name, inode_number(index), kind));
    }
    for item in &mut items {
        if matches!(item.node.kind, Kind::Dir(_)) {
            let names = [b".".as_slice(), b".."].into_iter().chain(item.names.iter().map(|n| n.0));
            item.blocks = item.blocks.max(dir::blocks(names));
        }
    }
    Ok(items)
}

fn item(node: &Node, parent: u32) -> Result<Item<'_>, Error> {
    let (mut blocks, mut merkle_blocks) = (0, 0);
    match &node.kind {
        Kind::File { size, verity, .. } => {
            blocks = size.div_ceil(BLOCK);
            if *verity {
                merkle_blocks = Merkle::past_end_len(*size) / BLOCK;
            }
            if past_end_block(*size) + merkle_blocks > u64::from(u32::MAX) {
                return Err(Error::Size { bytes: *size });
            }
        }
        Kind::Symlink(target) if target.is_empty() || target.len() >= BLOCK as usize => {
            return Err(Error::Path { path: format!("a link to a target of {} bytes", target.len()) });
        }
        _ => {}
    }
    let xattrs = inode::pack_xattrs(&node.xattrs)?;
    Ok(Item { node, parent, names: Vec::new(), blocks, merkle_blocks, xattrs })
}

/// ext4 keeps the Merkle tree at the first multiple of 64 KiB past the end.
fn past_end_block(size: u64) -> u64 {
    size.next_multiple_of(65536) / BLOCK
}

/// As large as mke2fs makes it, at most 64 MiB.
fn journal_blocks(blocks: u64) -> u64 {
    match blocks {
        0..32_768 => 1024,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        _ => 16384,
    }
}

/// Says how much is needed before anything is planned in detail.
fn check_space(params: &Params, g: &Geometry, items: &[Item<'_>], free: u64) -> Result<(), Error> {
    let mut need = 1 + journal_blocks(g.blocks);
    for item in items {
        need += item.blocks + item.merkle_blocks + u64::from(item.xattrs.block.is_some());
        need += match &item.node.kind {
            Kind::Symlink(target) => u64::from(target.len() >= SHORT_LINK),
            // Fixed parts may cut a file in pieces; one block for an extent tree then.
            Kind::File { .. } => u64::from(item.blocks > 8192),
            Kind::Dir(_) => 0,
        };
    }
    if need <= free {
        return Ok(());
    }
    // Fixed parts take about a fortieth; round up to a whole group.
    let total = (need + need / 32 + 2 * geometry_overhead(g)).next_multiple_of(super::geometry::GROUP);
    Err(Error::TooSmall { need: (total * BLOCK) >> 20, have: params.bytes >> 20 })
}

fn geometry_overhead(g: &Geometry) -> u64 {
    1 + g.descriptor_blocks + g.reserved_descriptor_blocks
}

fn journal_inode(run: Run) -> Result<Inode, Error> {
    let (body, _) = inode::tree(&inode::extents(0, &[run]), &[], 0)?;
    Ok(Inode {
        mode: 0o100600,
        links: 1,
        size: run.len * BLOCK,
        flags: EXTENTS,
        blocks: run.len,
        body,
        ..Inode::default()
    })
}

fn directory(item: &Item<'_>, number: u32, own: u32) -> Vec<u8> {
    let mut records =
        vec![Record { inode: number, kind: 2, name: b"." }, Record { inode: item.parent, kind: 2, name: b".." }];
    records.extend(item.names.iter().map(|(name, inode, kind)| Record { inode: *inode, kind: *kind, name }));
    dir::encode(&records, item.blocks, own)
}

/// Cuts bytes into the runs they go to.
fn place(metadata: &mut Vec<(u64, Vec<u8>)>, runs: &[Run], bytes: Vec<u8>) {
    if let [run] = runs {
        metadata.push((run.start, bytes));
        return;
    }
    let mut rest = bytes.as_slice();
    for run in runs {
        let len = rest.len().min((run.len * BLOCK) as usize);
        metadata.push((run.start, rest[..len].to_vec()));
        rest = &rest[len..];
    }
}

/// Neighbouring extents become one where both file and disk are contiguous.
fn join(extents: Vec<inode::Extent>) -> Vec<inode::Extent> {
    let mut joined: Vec<inode::Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match joined.last_mut() {
            Some(last)
                if last.logical + last.len == extent.logical
                    && last.start + last.len == extent.start
                    && last.len + extent.len <= 32768 =>
            {
                last.len += extent.len;
            }
            _ => joined.push(extent),
        }
    }
    joined
}

/// How many inodes and directories each group holds.
fn uses(g: &Geometry, items: &[Item<'_>]) -> Vec<GroupUse> {
    let mut uses = vec![GroupUse::default(); g.groups as usize];
    let mut left = u64::from(FIRST_INODE) + items.len() as u64 - 2;
    for use_ in &mut uses {
        use_.inodes = left.min(g.inodes_per_group);
        left -= use_.inodes;
    }
    for (index, item) in items.iter().enumerate() {
        if matches!(item.node.kind, Kind::Dir(_)) {
            let group = (u64::from(inode_number(index)) - 1) / g.inodes_per_group;
            uses[group as usize].directories += 1;
        }
    }
    uses
}

fn write_tables(
    params: &Params,
    seed: u32,
    g: &Geometry,
    allocator: &Allocator,
    uses: &[GroupUse],
    inodes: &[(u32, Inode)],
    metadata: &mut Vec<(u64, Vec<u8>)>,
) {
    let mut tables: Vec<Vec<u8>> = uses.iter().map(|u| vec![0; (u.inodes * 256) as usize]).collect();
    for (number, inode) in inodes {
        let index = u64::from(*number) - 1;
        let at = (index % g.inodes_per_group * 256) as usize;
        let raw = inode.encode(*number, seed, params.time);
        tables[(index / g.inodes_per_group) as usize][at..at + 256].copy_from_slice(&raw);
    }
    for (group, table) in tables.into_iter().enumerate() {
        let group = group as u64;
        if !table.is_empty() {
            metadata.push((g.inode_table(group), table));
        }
        metadata.push((g.block_bitmap(group), allocator.bitmap(group).to_vec()));
    }
}

#[allow(clippy::too_many_arguments, reason = "everything the file system is, once")]
fn write_supers(
    params: &Params,
    g: &Geometry,
    totals: &Totals,
    journal: &Inode,
    seed: u32,
    allocator: &Allocator,
    uses: &[GroupUse],
    metadata: &mut Vec<(u64, Vec<u8>)>,
) {
    let (table, bitmaps) = descriptors(seed, g, allocator, uses);
    for (group, bitmap) in bitmaps.into_iter().enumerate() {
        metadata.push((g.inode_bitmap(group as u64), bitmap));
    }
    for group in std::iter::once(0).chain(g.backups()) {
        let start = group * super::geometry::GROUP;
        let mut first = superblock(params, g, totals, journal, group);
        if group == 0 {
            // The first KiB of the disk belongs to boot loaders.
            first.splice(0..0, vec![0; 1024]);
        }
        metadata.push((start, first));
        metadata.push((start + 1, table.clone()));
    }
}
