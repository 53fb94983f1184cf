//! Making an update.
//!
//! ```text
//! both trees -> files that are new, each with the old file it resembles -> parts of similar files
//! a part:  unpack both, match, three streams of small numbers and one of new bytes, compress     (in parallel)
//! catalogue last, since only then it is known how each file was packed; it is written first
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::base::nameless;
use super::layer::{Kind, Layer};
use super::matching::{Index, Region, regions};
use super::pairs::Olds;
use super::streams::Plain;
use super::wire::{Catalogue, FileEntry, MAX_CATALOGUE, MAX_CONTENT, MAX_FILE, MAX_FILES, Part, SourceEntry, Table};
use super::{UpdateError, cpio, elf};
use crate::import::{lock, threads};
use crate::repo::Entry;
use crate::{Checksum, Error, FileMeta, ObjectType, Repo};

/// Content that one part holds about.
const PART: u64 = 24 << 20;
/// Files from this size on are alone in their part.
const ALONE: u64 = 6 << 20;
/// Members of an initramfs smaller than this are not looked for in the tree.
const MEMBER: usize = 64;

/// How an update is made.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Threads; 0 uses every core.
    pub threads: usize,
    /// Told after each part: how many bytes of new content are done, of how many.
    pub progress: Option<&'a (dyn Fn(u64, u64) + Sync)>,
}

/// What a part holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartReport {
    /// `modules`, `patched`, `new`, or the path of the only file.
    pub what: String,
    /// Its files.
    pub files: u64,
    /// Bytes of the objects they become.
    pub size: u64,
    /// Bytes of their content, unpacked.
    pub content: u64,
    /// Bytes in the update.
    pub stored: u64,
}

/// What an update holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The commit it starts from.
    pub from: Option<Checksum>,
    /// The commit it leads to.
    pub to: Checksum,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of what is not in a part: table, commit, directories, list of files.
    pub catalogue: u64,
    /// The parts.
    pub parts: Vec<PartReport>,
    /// Files that are in no part, since they are too large.
    pub left_out: u64,
}

/// A file that is new.
struct Item {
    index: u64,
    checksum: Checksum,
    meta: FileMeta,
    old: Option<Checksum>,
}

struct Group {
    what: String,
    stage: u64,
    items: Vec<Item>,
}

/// A part that is done.
struct Made {
    report: PartReport,
    part: Part,
    files: Vec<FileEntry>,
    /// Where its bytes lie in the spool.
    at: u64,
}

struct Job<'a> {
    repo: &'a Repo,
    /// The sorted files of the old commit, and of the new.
    olds: Vec<Checksum>,
    news: Vec<Checksum>,
    headers: HashMap<Vec<u8>, u64>,
    /// Ways of packing that were found.
    likely: Mutex<Vec<Layer>>,
    /// Initramfs members are looked up here: content by its checksum.
    contents: Mutex<Option<HashMap<Checksum, u64>>>,
}

/// The paths of a commit's files, and its directory objects.
#[derive(Default)]
struct Tree {
    files: BTreeMap<String, Checksum>,
    dirtrees: BTreeSet<Checksum>,
    dirmetas: BTreeSet<Checksum>,
}

impl Tree {
    fn load(repo: &Repo, commit: &Checksum) -> Result<Tree, Error> {
        let mut tree = Tree::default();
        repo.walk(commit, |path, entry| {
            match entry {
                Entry::Dir { tree: dirtree, meta } => {
                    tree.dirtrees.insert(dirtree);
                    tree.dirmetas.insert(meta);
                }
                Entry::File { checksum } => {
                    tree.files.insert(path.to_owned(), checksum);
                }
            }
            Ok(())
        })?;
        Ok(tree)
    }

    fn sorted(&self) -> Vec<Checksum> {
        self.files.values().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The old dirtrees, sorted by name and strung together: what the catalogue is a patch from.
pub(super) fn old_dirtrees(repo: &Repo, dirtrees: &BTreeSet<Checksum>) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    for dirtree in dirtrees {
        all.extend_from_slice(&repo.load_metadata(ObjectType::DirTree, dirtree)?);
        if all.len() as u64 > MAX_CATALOGUE {
            return Err(Error::invalid("the directories of the old commit are larger than 32 MiB"));
        }
    }
    Ok(all)
}

/// Writes the update from one commit to another, both of which are in `repo`.
pub fn generate(
    repo: &Repo,
    from: Option<&Checksum>,
    to: &Checksum,
    options: &Options<'_>,
    out: &mut dyn Write,
) -> Result<Report, UpdateError> {
    let new = Tree::load(repo, to)?;
    let old = from.map(|from| Tree::load(repo, from)).transpose()?.unwrap_or_default();
    let mut job = Job {
        repo,
        olds: old.sorted(),
        news: new.sorted(),
        headers: HashMap::new(),
        likely: Mutex::default(),
        contents: Mutex::default(),
    };
    let old_dirs = old_dirtrees(repo, &old.dirtrees)?;
    let Plan { groups, left_out, headers } = job.plan(&new, Olds::new(old.files))?;
    let spool = Mutex::new(nameless(repo)?);
    let made = job.run(&groups, options, &spool)?;

    let mut catalogue = Catalogue { commit: repo.load_commit(to)?.bytes, headers, ..Catalogue::default() };
    if let Some(detached) = repo.load_detached(to)? {
        catalogue.detached = crate::value::encode_dict(&detached);
    }
    for (kind, objects, known, list) in [
        (ObjectType::DirTree, &new.dirtrees, &old.dirtrees, &mut catalogue.dirtrees),
        (ObjectType::DirMeta, &new.dirmetas, &old.dirmetas, &mut catalogue.dirmetas),
    ] {
        for checksum in objects.difference(known) {
            list.push(repo.load_metadata(kind, checksum)?);
        }
    }
    catalogue.parts = made.iter().map(|made| made.files.clone()).collect();
    let content = catalogue.encode();
    if content.len() as u64 > MAX_CATALOGUE {
        return Err(Error::invalid("the list of what is new is larger than 32 MiB").into());
    }
    let write = |source| UpdateError::Io { what: "writing the update".into(), source };
    let mut plain = Plain::default();
    plain.add(&old_dirs, &content, &regions(&Index::new(&old_dirs), &content));
    let mut first = Vec::new();
    let streams = plain.finish(&mut first).map_err(write)?;
    let mut parts = vec![Part { stage: 0, content: content.len() as u64, streams, offset: 0 }];
    parts.extend(made.iter().map(|made| made.part));
    let table = Table { from: from.copied(), to: *to, parts };
    out.write_all(&table.encode()).and_then(|()| out.write_all(&first)).map_err(write)?;
    let mut spool = spool.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    for made in &made {
        spool.seek(SeekFrom::Start(made.at)).map_err(write)?;
        io::copy(&mut Read::take(&spool, made.part.stored()), out).map_err(write)?;
    }
    let bytes = table.size();
    let parts: Vec<PartReport> = made.into_iter().map(|made| made.report).collect();
    let catalogue = bytes - parts.iter().map(|part| part.stored).sum::<u64>();
    Ok(Report { from: from.copied(), to: *to, bytes, catalogue, parts, left_out })
}

/// What is to be made.
struct Plan {
    groups: Vec<Group>,
    /// Files that are too large.
    left_out: u64,
    /// The headers of the files' objects.
    headers: Vec<Vec<u8>>,
}

/// Where the content of an initramfs comes from, and the files it is counted from.
type Recipe = (Vec<Region>, Vec<SourceEntry>);

impl Job<'_> {
    /// Sorts what is new into parts.
    fn plan(&mut self, new: &Tree, olds: Olds) -> Result<Plan, UpdateError> {
        let known: BTreeSet<Checksum> = self.olds.iter().copied().collect();
        let mut seen = BTreeSet::new();
        let (mut modules, mut patched, mut fresh, mut groups) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut left_out, mut headers) = (0, Vec::new());
        for (path, checksum) in &new.files {
            if known.contains(checksum) || !seen.insert(*checksum) {
                continue;
            }
            let meta = self.repo.load_file_meta(checksum)?;
            if meta.size > MAX_FILE || seen.len() - left_out as usize > MAX_FILES {
                left_out += 1;
                continue;
            }
            let header = meta.stream_header()[8..].to_vec();
            if !self.headers.contains_key(&header) {
                self.headers.insert(header.clone(), headers.len() as u64);
                headers.push(header);
            }
            let index = self.news.binary_search(checksum).unwrap_or_default() as u64;
            let old = olds.like(path).filter(|_| meta.symlink.is_none());
            let item = Item { index, checksum: *checksum, meta, old };
            if item.meta.size >= ALONE {
                // What is made from new files waits for them.
                let stage = u64::from(path.ends_with("/initramfs.img"));
                groups.push(Group { what: path.clone(), stage, items: vec![item] });
            } else if path.contains(".ko") {
                modules.push(item);
            } else if item.old.is_some() {
                patched.push(item);
            } else {
                fresh.push(item);
            }
        }
        // The largest first, so that no thread is left alone with one at the end.
        groups.sort_by_key(|group| (group.stage, std::cmp::Reverse(group.items[0].meta.size)));
        for (what, items, factor) in [("modules", modules, 5), ("patched", patched, 1), ("new", fresh, 1)] {
            let mut content = PART;
            for item in items {
                if content >= PART {
                    groups.push(Group { what: what.to_owned(), stage: 0, items: Vec::new() });
                    content = 0;
                }
                content += item.meta.size * factor;
                if let Some(group) = groups.last_mut() {
                    group.items.push(item);
                }
            }
        }
        Ok(Plan { groups, left_out, headers })
    }

    fn run(
        &self,
        groups: &[Group],
        options: &Options<'_>,
        spool: &Mutex<std::fs::File>,
    ) -> Result<Vec<Made>, UpdateError> {
        let total: u64 = groups.iter().flat_map(|group| &group.items).map(|item| item.meta.size).sum();
        let (next, done) = (AtomicUsize::new(0), Mutex::new(0));
        let results: Mutex<Vec<Option<Made>>> = Mutex::new(groups.iter().map(|_| None).collect());
        let failure = Mutex::new(None);
        let worker = || {
            while let Some((number, group)) = {
                let number = next.fetch_add(1, Ordering::Relaxed);
                groups.get(number).map(|group| (number, group)).filter(|_| lock(&failure).is_none())
            } {
                match self.part(group, spool) {
                    Ok(made) => {
                        let mut done = lock(&done);
                        *done += made.report.size;
                        if let Some(progress) = options.progress {
                            progress(*done, total);
                        }
                        lock(&results)[number] = Some(made);
                    }
                    Err(error) => {
                        lock(&failure).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads(options.threads).min(groups.len().max(1)) {
                scope.spawn(worker);
            }
            worker();
        });
        if let Some(error) = lock(&failure).take() {
            return Err(error);
        }
        Ok(results.into_inner().unwrap_or_default().into_iter().flatten().collect())
    }

    fn part(&self, group: &Group, spool: &Mutex<std::fs::File>) -> Result<Made, UpdateError> {
        let mut plain = Plain::default();
        let mut files = Vec::with_capacity(group.items.len());
        for item in &group.items {
            files.push(self.file(item, group.stage == 1, &mut plain)?);
        }
        let write = |source| UpdateError::Io { what: "writing the update".into(), source };
        let mut bytes = Vec::new();
        let streams = plain.finish(&mut bytes).map_err(write)?;
        let mut spool = lock(spool);
        let at = spool.seek(SeekFrom::End(0)).map_err(write)?;
        spool.write_all(&bytes).map_err(write)?;
        let content = files.iter().map(|file| file.content).sum();
        let report = PartReport {
            what: group.what.clone(),
            files: files.len() as u64,
            size: files.iter().map(|file| file.size).sum(),
            content,
            stored: bytes.len() as u64,
        };
        Ok(Made { report, part: Part { stage: group.stage, content, streams, offset: 0 }, files, at })
    }

    fn content(&self, checksum: &Checksum) -> Result<Vec<u8>, Error> {
        let mut object = self.repo.open_file(checksum)?;
        let mut bytes = Vec::with_capacity(object.meta.size.min(MAX_FILE) as usize);
        object.content.read_to_end(&mut bytes).map_err(|e| Error::io(format!("reading file {checksum}"), e))?;
        Ok(bytes)
    }

    /// What is in a compressed file, and how it is packed; the file itself where that cannot be repeated.
    fn see_through(&self, packed: Vec<u8>) -> (Vec<u8>, Layer) {
        let kind = Kind::guess(&packed);
        let Some(content) = unpacked(kind, &packed) else { return (packed, Layer::Raw) };
        let likely = lock(&self.likely).clone();
        let Some(layer) = Layer::find(&packed, &content, &likely) else { return (packed, Layer::Raw) };
        if !likely.contains(&layer) && likely.len() < 8 {
            lock(&self.likely).push(layer.clone());
        }
        (content, layer)
    }

    fn file(&self, item: &Item, assembled: bool, plain: &mut Plain) -> Result<FileEntry, UpdateError> {
        let header = item.meta.stream_header()[8..].to_vec();
        let header = self.headers.get(&header).copied().unwrap_or_default();
        let (mut content, layer) = self.see_through(self.content(&item.checksum)?);
        let mut entry = FileEntry {
            index: item.index,
            header,
            size: item.meta.size,
            content: content.len() as u64,
            layer,
            elf: false,
            sources: Vec::new(),
        };
        if assembled {
            if let Some((regions, sources)) = self.recipe(&content, &item.checksum)? {
                plain.add_exact(&content, &regions);
                entry.sources = sources;
                return Ok(entry);
            }
        }
        let mut old = Vec::new();
        let comparable = |old: &Checksum| self.repo.load_file_meta(old).is_ok_and(|meta| meta.size <= MAX_CONTENT);
        if let Some(checksum) = item.old.filter(comparable) {
            let packed = self.content(&checksum)?;
            // A packed file that stays as it is resembles the old one only as that is.
            let see = entry.layer != Layer::Raw || Kind::guess(&content) == Kind::Raw;
            let kind = if see { Kind::guess(&packed) } else { Kind::Raw };
            let (mut before, kind) = unpacked(kind, &packed).map_or((packed, Kind::Raw), |content| (content, kind));
            if before.len() as u64 <= elf::MAX {
                if let Some(turned) = turned(&content) {
                    content = turned;
                    elf::forth(&mut before);
                    entry.elf = true;
                }
            }
            let index = self.olds.binary_search(&checksum).unwrap_or_default() as u64;
            entry.sources.push(SourceEntry { new: false, index, kind, size: before.len() as u64 });
            old = before;
        }
        let regions = regions(&Index::new(&old), &content);
        // Hardly anything in common: reading the old file would cost more than it brings.
        let common: usize = regions.iter().map(|region| region.len).sum();
        if common * 50 < content.len() {
            entry.sources.clear();
            plain.add(
                &[],
                &content,
                &[Region { new: 0, old: 0, len: 0, extra: content.len() }][..usize::from(!content.is_empty())],
            );
        } else {
            plain.add(&old, &content, &regions);
        }
        Ok(entry)
    }

    /// How an initramfs is put together from files of the new tree.
    fn recipe(&self, content: &[u8], own: &Checksum) -> Result<Option<Recipe>, UpdateError> {
        let Some(members) = cpio::members(content, MEMBER) else { return Ok(None) };
        let mut contents = lock(&self.contents);
        if contents.is_none() {
            *contents = Some(self.hash_contents(&members, own)?);
        }
        let Some(contents) = &*contents else { return Ok(None) };
        let (mut regions, mut sources) = (Vec::new(), Vec::new());
        let mut places: HashMap<u64, usize> = HashMap::new();
        let (mut end, mut base) = (0, 0);
        regions.push(Region { new: 0, old: 0, len: 0, extra: 0 });
        for member in members {
            let data = &content[member.at..member.at + member.len];
            let Some(&index) = contents.get(&Checksum::of(data)) else { continue };
            let place = *places.entry(index).or_insert_with(|| {
                sources.push(SourceEntry { new: true, index, kind: Kind::Raw, size: member.len as u64 });
                base += member.len;
                base - member.len
            });
            if let Some(last) = regions.last_mut() {
                last.extra = member.at - end;
            }
            regions.push(Region { new: member.at, old: place, len: member.len, extra: 0 });
            end = member.at + member.len;
        }
        if let Some(last) = regions.last_mut() {
            last.extra = content.len() - end;
        }
        regions.retain(|region| region.len + region.extra > 0);
        Ok(Some((regions, sources)))
    }

    /// Files of the new tree by the checksum of their content, as far as a member has the same size.
    fn hash_contents(&self, members: &[cpio::Member], own: &Checksum) -> Result<HashMap<Checksum, u64>, UpdateError> {
        let sizes: BTreeSet<u64> = members.iter().map(|member| member.len as u64).collect();
        let mut contents = HashMap::new();
        for (index, checksum) in self.news.iter().enumerate().filter(|(_, checksum)| *checksum != own) {
            let meta = self.repo.load_file_meta(checksum)?;
            if meta.symlink.is_none() && sizes.contains(&meta.size) {
                contents.insert(Checksum::of(&self.content(checksum)?), index as u64);
            }
        }
        Ok(contents)
    }
}

/// A program with its tables as differences, where the way back leads to the same bytes.
fn turned(content: &[u8]) -> Option<Vec<u8>> {
    if content.len() as u64 > elf::MAX {
        return None;
    }
    let mut turned = content.to_vec();
    if !elf::forth(&mut turned) {
        return None;
    }
    let mut back = turned.clone();
    elf::back(&mut back);
    (back == content).then_some(turned)
}

/// The content of a packed file, if it can be unpacked and is not too large.
fn unpacked(kind: Kind, packed: &[u8]) -> Option<Vec<u8>> {
    if kind == Kind::Raw {
        return None;
    }
    let mut content = Vec::new();
    kind.unpack(Box::new(packed)).ok()?.take(MAX_CONTENT + 1).read_to_end(&mut content).ok()?;
    (content.len() as u64 <= MAX_CONTENT).then_some(content)
}
