//! A tar stream becomes a tree of objects.
//!
//! ```text
//! stream    one thread: headers, names; content of up to 64 MiB goes to the others, more is written as it comes
//! files     every core: hash -> known? skip : compress, write
//! trees     one thread, when the stream has ended: what occurs twice is as it was last
//! ```
//! Nothing is unpacked, so no name in the stream can reach a file outside the repository.

mod read;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use super::{Attributes, Filter, Imported, Modify, Stats, lock, threads};
use crate::object::{DirMeta, DirTree, FileMeta, ObjectType, S_IFDIR, S_IFLNK, S_IFREG, valid_name};
use crate::repo::{IN_MEMORY, Staging};
use crate::{Checksum, Error, Repo};
use read::{Entry, Kind, Reader};

/// No tree is deeper.
const DEPTH: usize = 1000;

/// Finds the metadata of a directory (`/usr/bin`; the root is `/`).
pub type Base<'a> = &'a (dyn Fn(&str) -> Result<Option<DirMeta>, Error> + Sync);
/// Changes a name: without `./` or `/` before it, as it is in the archive otherwise.
pub type Rename<'a> = &'a (dyn Fn(&str) -> String + Sync);

/// How an archive is imported.
#[derive(Clone, Copy, Default)]
pub struct TarOptions<'a> {
    /// Make directories that the archive does not mention, with mode 0755 and the owner of the entry that needs them.
    /// Without it they are an error.
    pub make_parents: bool,
    /// The directories of the tree that this one will be laid over: those the archive does not mention are taken as
    /// they are there.
    pub base: Option<Base<'a>>,
    /// Changes the names in the archive, and the targets of its hard links.
    pub rename: Option<Rename<'a>>,
    /// Paths to leave out, with everything below them.
    pub skip: Option<Filter<'a>>,
    /// Changes owner, mode or xattrs of a path.
    pub modify: Option<Modify<'a>>,
    /// Threads; 0 uses every core.
    pub threads: usize,
}

/// Imports a tar stream, which may be compressed with gzip or xz, into `repo`.
pub fn tar(repo: &Repo, stream: impl Read, options: &TarOptions<'_>) -> Result<Imported, Error> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let start = stream.fill_buf().map_err(|e| Error::io("reading the archive", e))?;
    for (magic, tool) in [(&b"\x28\xb5\x2f\xfd"[..], "zstd"), (b"BZh", "bzip2")] {
        if start.starts_with(magic) {
            return Err(Error::invalid(format!("the archive is compressed with {tool}; unpack it first ({tool} -dc)")));
        }
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        return import(repo, flate2::bufread::MultiGzDecoder::new(stream), options);
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        return import(repo, liblzma::bufread::XzDecoder::new_multi_decoder(stream), options);
    }
    import(repo, stream, options)
}

fn import(repo: &Repo, stream: impl Read, options: &TarOptions<'_>) -> Result<Imported, Error> {
    let staging = repo.stage()?;
    let mut tree = Tree { options, root: Dir::default(), count: 0, large: BTreeMap::new(), stats: Stats::default() };
    let files = Files::default();
    let threads = threads(options.threads);
    // What waits is bounded: a file for each thread, and one more each.
    let (send, receive) = sync_channel(threads);
    let receive = Mutex::new(receive);
    let result = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| files.work(&staging, &receive));
        }
        let mut reader = Reader::new(stream);
        let result = tree.fill(&mut reader, &staging, &files, |item| {
            // The receiver outlives this scope.
            let _ = send.send(item);
        });
        drop(send);
        result
    });
    if let Some(error) = lock(&files.failure).take() {
        return Err(error);
    }
    result?;
    let done = files.done.into_inner().unwrap_or_default();
    let sums: BTreeMap<usize, Checksum> = done.iter().map(|d| (d.0, d.1)).chain(tree.large.clone()).collect();
    for (_, _, new, size) in &done {
        tree.stats.new_files += u64::from(*new);
        tree.stats.new_bytes += if *new { *size } else { 0 };
    }
    let (root_tree, root_meta) = tree.root.write(&staging, "/", options, &sums, &mut tree.stats)?;
    staging.flush()?;
    Ok(Imported { root_tree, root_meta, stats: tree.stats })
}

type Item = (usize, FileMeta, Vec<u8>);

/// What the threads that hash and compress have done.
#[derive(Default)]
struct Files {
    /// Number, object, whether it was new, its size.
    done: Mutex<Vec<(usize, Checksum, bool, u64)>>,
    failure: Mutex<Option<Error>>,
    stop: AtomicBool,
}

impl Files {
    fn work(&self, staging: &Staging<'_>, items: &Mutex<Receiver<Item>>) {
        let mut done = Vec::new();
        loop {
            let item = lock(items).recv();
            let Ok((number, meta, content)) = item else { break };
            // After a failure the rest is only taken, so that the stream's thread never waits for nobody.
            if self.stop.load(Ordering::Relaxed) {
                continue;
            }
            match staging.write_bytes(&meta, &content) {
                Ok((checksum, new)) => done.push((number, checksum, new, content.len() as u64)),
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    lock(&self.failure).get_or_insert(error);
                }
            }
        }
        lock(&self.done).append(&mut done);
    }
}

enum Node {
    Dir(Dir),
    /// The number of its content in the stream.
    File(usize),
}

#[derive(Default)]
struct Dir {
    /// Missing as long as only something inside was mentioned.
    meta: Option<DirMeta>,
    /// The owner of the entry that made it necessary; of root, the last one that made any directory necessary.
    owner: (u32, u32),
    nodes: BTreeMap<String, Node>,
}

struct Tree<'a> {
    options: &'a TarOptions<'a>,
    root: Dir,
    count: usize,
    /// Files that were written as they came.
    large: BTreeMap<usize, Checksum>,
    stats: Stats,
}

/// `./usr//bin/x` as its parts; refuses what leads out.
fn parts(path: &str) -> Result<Vec<&str>, Error> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if let Some(part) = parts.iter().find(|part| !valid_name(part)) {
        return Err(Error::invalid(format!("the archive holds {path:?}: {part:?} cannot be the name of a file")));
    }
    if parts.len() > DEPTH {
        return Err(Error::invalid(format!("the archive holds a path of {} directories", parts.len())));
    }
    Ok(parts)
}

impl Tree<'_> {
    fn renamed<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let Some(rename) = self.options.rename else { return Cow::Borrowed(name) };
        let plain = name.trim_start_matches("./").trim_start_matches('/');
        Cow::Owned(rename(plain))
    }

    fn fill<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        staging: &Staging<'_>,
        files: &Files,
        send: impl Fn(Item),
    ) -> Result<(), Error> {
        while let Some(entry) = reader.next()? {
            if files.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let name = self.renamed(&entry.path);
            let parts = parts(&name)?;
            let skipped = |skip: Filter<'_>| (1..=parts.len()).any(|n| skip(&format!("/{}", parts[..n].join("/"))));
            if self.options.skip.is_some_and(skipped) {
                continue;
            }
            let path = format!("/{}", parts.join("/"));
            let number = match &entry.kind {
                Kind::Dir => {
                    if let Some((name, above)) = parts.split_last() {
                        let dir = self.dir(above, (entry.uid, entry.gid))?;
                        // Necessary because of itself, and of nothing else.
                        dir.nodes.entry((*name).to_owned()).or_insert_with(|| Node::Dir(Dir::default()));
                    }
                    let meta = attributes(self.options, &path, &entry).into_dir();
                    self.dir(&parts, (entry.uid, entry.gid))?.meta = Some(meta);
                    continue;
                }
                Kind::Hardlink(target) => self.existing(&path, &self.renamed(target))?,
                Kind::File | Kind::Symlink(_) => {
                    let number = self.count;
                    self.count += 1;
                    self.content(reader, staging, &path, &entry, number, &send)?;
                    number
                }
            };
            self.place(&path, &parts, number, (entry.uid, entry.gid))?;
        }
        Ok(())
    }

    fn content<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        staging: &Staging<'_>,
        path: &str,
        entry: &Entry,
        number: usize,
        send: &impl Fn(Item),
    ) -> Result<(), Error> {
        let Attributes { uid, gid, mode, xattrs } = attributes(self.options, path, entry);
        if let Kind::Symlink(target) = &entry.kind {
            if target.is_empty() {
                return Err(Error::invalid(format!("the archive holds {path:?}, a symbolic link to nothing")));
            }
            self.stats.symlinks += 1;
            let symlink = Some(target.clone());
            send((number, FileMeta { uid, gid, mode, symlink, xattrs, size: 0 }, Vec::new()));
            return Ok(());
        }
        self.stats.files += 1;
        self.stats.bytes += entry.size;
        let meta = FileMeta { uid, gid, mode, symlink: None, xattrs, size: entry.size };
        if entry.size > IN_MEMORY {
            let (checksum, new) = staging.write_stream(&meta, reader)?;
            self.stats.new_files += u64::from(new);
            self.stats.new_bytes += if new { entry.size } else { 0 };
            self.large.insert(number, checksum);
            return Ok(());
        }
        let mut content = Vec::new();
        let size = entry.size;
        reader.by_ref().take(size).read_to_end(&mut content).map_err(|e| Error::io("reading the archive", e))?;
        if content.len() as u64 != size {
            return Err(Error::invalid(format!("the archive is cut off in {path:?}")));
        }
        send((number, meta, content));
        Ok(())
    }

    /// The directory at a path, made where it is not there yet because of an entry of `owner`.
    fn dir(&mut self, parts: &[&str], owner: (u32, u32)) -> Result<&mut Dir, Error> {
        if !self.there(parts) {
            self.root.owner = owner;
        }
        let mut dir = &mut self.root;
        for part in parts {
            let new = || Node::Dir(Dir { owner, ..Dir::default() });
            let node = dir.nodes.entry((*part).to_owned()).or_insert_with(new);
            let Node::Dir(next) = node else {
                let path = parts.join("/");
                return Err(Error::invalid(format!(
                    "the archive holds a file {part:?} where /{path} needs a directory"
                )));
            };
            dir = next;
        }
        Ok(dir)
    }

    fn there(&self, parts: &[&str]) -> bool {
        let mut dir = &self.root;
        for part in parts {
            let Some(Node::Dir(next)) = dir.nodes.get(*part) else { return false };
            dir = next;
        }
        true
    }

    fn existing(&mut self, path: &str, target: &str) -> Result<usize, Error> {
        let no = || Error::invalid(format!("the archive holds {path:?}, a hard link to {target:?}: no earlier file"));
        let parts = parts(target)?;
        let (name, above) = parts.split_last().ok_or_else(no)?;
        let mut dir = &self.root;
        for part in above {
            let Some(Node::Dir(next)) = dir.nodes.get(*part) else { return Err(no()) };
            dir = next;
        }
        let Some(Node::File(number)) = dir.nodes.get(*name) else { return Err(no()) };
        Ok(*number)
    }

    fn place(&mut self, path: &str, parts: &[&str], number: usize, owner: (u32, u32)) -> Result<(), Error> {
        let Some((name, above)) = parts.split_last() else {
            return Err(Error::invalid("the archive holds a file in the place of its root"));
        };
        let dir = self.dir(above, owner)?;
        if let Some(Node::Dir(_)) = dir.nodes.insert((*name).to_owned(), Node::File(number)) {
            return Err(Error::invalid(format!("the archive holds {path:?} as a directory and as a file")));
        }
        Ok(())
    }
}

impl Dir {
    fn write(
        &self,
        staging: &Staging<'_>,
        path: &str,
        options: &TarOptions<'_>,
        sums: &BTreeMap<usize, Checksum>,
        stats: &mut Stats,
    ) -> Result<(Checksum, Checksum), Error> {
        stats.dirs += 1;
        let mut tree = DirTree::default();
        for (name, node) in &self.nodes {
            match node {
                Node::File(number) => {
                    let sum = sums.get(number).ok_or_else(|| Error::invalid("an import thread died"))?;
                    tree.files.push((name.clone(), *sum));
                }
                Node::Dir(dir) => {
                    let child = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
                    let (child_tree, meta) = dir.write(staging, &child, options, sums, stats)?;
                    tree.dirs.push((name.clone(), child_tree, meta));
                }
            }
        }
        let meta = match &self.meta {
            Some(meta) => meta.clone(),
            None => match options.base.map(|base| base(path)).transpose()?.flatten() {
                Some(meta) => meta,
                None if options.make_parents || path == "/" => {
                    DirMeta { uid: self.owner.0, gid: self.owner.1, ..DirMeta::root(0o755) }
                }
                None => {
                    return Err(Error::invalid(format!("the archive holds files in {path}, but not that directory")));
                }
            },
        };
        let meta = staging.write_metadata(ObjectType::DirMeta, &meta.encode())?;
        Ok((staging.write_metadata(ObjectType::DirTree, &tree.encode())?, meta))
    }
}

impl Attributes {
    fn into_dir(self) -> DirMeta {
        DirMeta { uid: self.uid, gid: self.gid, mode: self.mode, xattrs: self.xattrs }
    }
}

fn attributes(options: &TarOptions<'_>, path: &str, entry: &Entry) -> Attributes {
    let kind = match entry.kind {
        Kind::Dir => S_IFDIR,
        Kind::Symlink(_) => S_IFLNK,
        Kind::File | Kind::Hardlink(_) => S_IFREG,
    };
    let (uid, gid, mode) = (entry.uid, entry.gid, kind | entry.mode);
    modified(options, path, Attributes { uid, gid, mode, xattrs: entry.xattrs.clone() })
}

fn modified(options: &TarOptions<'_>, path: &str, mut attributes: Attributes) -> Attributes {
    if let Some(modify) = options.modify {
        let kind = attributes.mode & crate::object::S_IFMT;
        modify(path, &mut attributes);
        attributes.mode = kind | (attributes.mode & 0o7777);
    }
    attributes.xattrs.sort();
    attributes
}
