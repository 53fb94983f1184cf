//! A writer for FAT32: the EFI system partition.
//!
//! ```text
//! sector 0     boot sector (copy in 6)      1  free space (copy in 7)
//! sector 32    first table | second table   4 bytes for each cluster
//! then         clusters of 4 KiB, from number 2: the root directory, then directories and files in order of path
//! ```
//!
//! The same files give the same bytes. A name that is not 8.3 in capitals gets a long name and a made-up short one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const SECTOR: u64 = 512;
const CLUSTER: u64 = 4096;
const PER_CLUSTER: u64 = CLUSTER / SECTOR;
const RESERVED: u64 = 32;
const END: u32 = 0x0FFF_FFFF;
const ROOT: u32 = 2;

/// What a file system is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Its size in bytes.
    pub len: u64,
    /// Where it begins on the disk (the boot sector says so).
    pub offset: u64,
    /// Volume serial number.
    pub serial: u32,
    /// Volume label, at most 11 capitals.
    pub label: String,
    /// All times, in seconds since 1970.
    pub time: u64,
}

/// Why a file system cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// FAT32 has at least 65525 clusters.
    #[error("{len} bytes are not a size for FAT32 with clusters of 4 KiB (260 MiB to 1 TiB)")]
    Size {
        /// The size.
        len: u64,
    },
    /// The files do not fit.
    #[error("the files need {need} MiB, the EFI system partition has room for {have} MiB")]
    Full {
        /// MiB needed.
        need: u64,
        /// MiB there are.
        have: u64,
    },
    /// A name FAT cannot have, or one that differs from another only in case.
    #[error("`{path}` cannot be a file on FAT: {why}")]
    Path {
        /// The path.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// The disk could not be written.
    #[error("cannot write the EFI system partition")]
    Write(#[from] io::Error),
}

enum Node<'a> {
    Dir(BTreeMap<String, Node<'a>>),
    File(&'a [u8]),
}

/// Writes a file system with these files; directories follow from the paths. The disk must read as zeros there.
pub fn write(disk: &File, params: &Params, files: &[(String, &[u8])]) -> Result<(), Error> {
    let mut root = BTreeMap::new();
    for (path, bytes) in files {
        insert(&mut root, path, bytes)?;
    }
    let layout = Layout::new(params.len)?;
    let mut writer = Writer { fat: vec![0x0FFF_FFF8, END], data: Vec::new(), stamp: stamp(params.time) };
    writer.directory(&root, None, &params.label)?;
    let clusters = writer.fat.len() as u64 - 2;
    if clusters > layout.clusters {
        return Err(Error::Full { need: (clusters * CLUSTER) >> 20, have: (layout.clusters * CLUSTER) >> 20 });
    }
    let put = |sector: u64, bytes: &[u8]| disk.write_all_at(bytes, params.offset + sector * SECTOR);
    let boot = boot_sector(params, &layout);
    let info = info_sector(layout.clusters - clusters, writer.fat.len() as u32);
    for copy in [0, 6] {
        put(copy, &boot)?;
        put(copy + 1, &info)?;
        put(copy + 2, &signature())?;
    }
    let table: Vec<u8> = writer.fat.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(RESERVED, &table)?;
    put(RESERVED + layout.table_sectors, &table)?;
    for (cluster, bytes) in &writer.data {
        put(layout.data + u64::from(cluster - 2) * PER_CLUSTER, bytes)?;
    }
    Ok(())
}

fn insert<'a>(root: &mut BTreeMap<String, Node<'a>>, path: &str, bytes: &'a [u8]) -> Result<(), Error> {
    let bad = |why| Error::Path { path: path.to_owned(), why };
    let mut parts: Vec<&str> = path.split('/').collect();
    let allowed = |c: char| c >= ' ' && !"\"*/:<>?\\|\x7f".contains(c);
    for part in &parts {
        if part.is_empty() || part.chars().all(|c| c == '.') || part.ends_with(['.', ' ']) || part.len() > 255 {
            return Err(bad("not a file name"));
        }
        if !part.chars().all(allowed) {
            return Err(bad("a character FAT does not allow"));
        }
    }
    if bytes.len() as u64 > u64::from(u32::MAX) {
        return Err(bad("4 GiB or more"));
    }
    let name = parts.pop().unwrap_or_default();
    let mut dir = root;
    for part in parts {
        check_case(dir, part).map_err(bad)?;
        let Node::Dir(next) = dir.entry(part.to_owned()).or_insert_with(|| Node::Dir(BTreeMap::new())) else {
            return Err(bad("a directory of the path is a file"));
        };
        dir = next;
    }
    check_case(dir, name).map_err(bad)?;
    if dir.insert(name.to_owned(), Node::File(bytes)).is_some() {
        return Err(bad("given twice"));
    }
    Ok(())
}

/// FAT finds names whatever their case: two that differ only there would be one.
fn check_case(dir: &BTreeMap<String, Node<'_>>, name: &str) -> Result<(), &'static str> {
    let same = |other: &String| *other != name && other.to_lowercase() == name.to_lowercase();
    if dir.keys().any(same) { Err("differs from another name only in case") } else { Ok(()) }
}

struct Layout {
    sectors: u32,
    table_sectors: u64,
    /// First sector of cluster 2.
    data: u64,
    clusters: u64,
}

impl Layout {
    fn new(len: u64) -> Result<Self, Error> {
        let total = len / SECTOR;
        let sectors = u32::try_from(total).map_err(|_| Error::Size { len })?;
        // Two tables of 4 bytes for each cluster; slightly too large a table does no harm.
        let table_sectors = ((total / PER_CLUSTER + 2) * 4).div_ceil(SECTOR);
        let data = RESERVED + 2 * table_sectors;
        let clusters = total.saturating_sub(data) / PER_CLUSTER;
        if clusters < 65525 {
            return Err(Error::Size { len });
        }
        Ok(Layout { sectors, table_sectors, data, clusters })
    }
}

struct Writer<'a> {
    fat: Vec<u32>,
    data: Vec<(u32, std::borrow::Cow<'a, [u8]>)>,
    stamp: (u16, u16),
}

impl<'a> Writer<'a> {
    /// Takes the clusters for `len` bytes, one after the other.
    fn take(&mut self, len: u64) -> u32 {
        let first = self.fat.len() as u32;
        let count = len.div_ceil(CLUSTER) as u32;
        self.fat.extend((1..count).map(|i| first + i));
        if count > 0 {
            self.fat.push(END);
        }
        first
    }

    /// Writes a directory and all below it; returns its first cluster.
    fn directory(
        &mut self,
        children: &BTreeMap<String, Node<'a>>,
        parent: Option<u32>,
        label: &str,
    ) -> Result<u32, Error> {
        let mut shorts = BTreeSet::new();
        let names: Vec<([u8; 11], Vec<[u8; 32]>)> = children.keys().map(|name| records(name, &mut shorts)).collect();
        let count = if parent.is_some() { 2 } else { 1 } + names.iter().map(|(_, long)| 1 + long.len()).sum::<usize>();
        let own = self.take(count as u64 * 32);
        let mut out = Vec::with_capacity(count * 32);
        match parent {
            None => {
                let mut name = [b' '; 11];
                let bytes = label.as_bytes();
                name[..bytes.len().min(11)].copy_from_slice(&bytes[..bytes.len().min(11)]);
                out.extend_from_slice(&self.record(&name, 8, 0, 0));
            }
            Some(parent) => {
                out.extend_from_slice(&self.record(b".          ", 16, own, 0));
                // The root is called 0 here.
                let up = if parent == ROOT { 0 } else { parent };
                out.extend_from_slice(&self.record(b"..         ", 16, up, 0));
            }
        }
        for (child, (short, long)) in children.values().zip(names) {
            long.iter().for_each(|record| out.extend_from_slice(record));
            let record = match child {
                Node::Dir(children) => {
                    let first = self.directory(children, Some(own), label)?;
                    self.record(&short, 16, first, 0)
                }
                Node::File(bytes) => {
                    let first = if bytes.is_empty() { 0 } else { self.take(bytes.len() as u64) };
                    if !bytes.is_empty() {
                        self.data.push((first, std::borrow::Cow::Borrowed(bytes)));
                    }
                    self.record(&short, 32, first, bytes.len() as u32)
                }
            };
            out.extend_from_slice(&record);
        }
        self.data.push((own, std::borrow::Cow::Owned(out)));
        Ok(own)
    }

    fn record(&self, name: &[u8; 11], attributes: u8, first: u32, size: u32) -> [u8; 32] {
        let (date, time) = self.stamp;
        let mut r = [0; 32];
        r[..11].copy_from_slice(name);
        r[11] = attributes;
        r[14..16].copy_from_slice(&time.to_le_bytes());
        r[16..18].copy_from_slice(&date.to_le_bytes());
        r[18..20].copy_from_slice(&date.to_le_bytes());
        r[20..22].copy_from_slice(&((first >> 16) as u16).to_le_bytes());
        r[22..24].copy_from_slice(&time.to_le_bytes());
        r[24..26].copy_from_slice(&date.to_le_bytes());
        r[26..28].copy_from_slice(&(first as u16).to_le_bytes());
        r[28..32].copy_from_slice(&size.to_le_bytes());
        r
    }
}

/// The short name of a file, and the records of its long name where the short one does not say it all.
fn records(name: &str, taken: &mut BTreeSet<[u8; 11]>) -> ([u8; 11], Vec<[u8; 32]>) {
    let (base, extension) = match name.rfind('.') {
        Some(0) | None => (name, ""),
        Some(dot) => (&name[..dot], &name[dot + 1..]),
    };
    let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "-_~!#$%&()@^{}'`".contains(c);
    let mut short = [b' '; 11];
    let plain =
        (1..=8).contains(&base.len()) && extension.len() <= 3 && (base.to_owned() + extension).chars().all(legal);
    if plain && !(extension.is_empty() && name.contains('.')) {
        short[..base.len()].copy_from_slice(base.as_bytes());
        short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
        if taken.insert(short) {
            return (short, Vec::new());
        }
    }
    let squeeze = |text: &str, len: usize| -> String {
        text.to_ascii_uppercase()
            .chars()
            .filter(|c| *c != '.' && *c != ' ')
            .take(len)
            .map(|c| if legal(c) { c } else { '_' })
            .collect()
    };
    let extension = squeeze(extension, 3);
    for n in 1u32.. {
        let tail = format!("~{n}");
        let base = squeeze(base, 8 - tail.len()) + &tail;
        short = [b' '; 11];
        short[..base.len()].copy_from_slice(base.as_bytes());
        short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
        if taken.insert(short) {
            break;
        }
    }
    (short, long_name(name, &short))
}

fn long_name(name: &str, short: &[u8; 11]) -> Vec<[u8; 32]> {
    let sum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(13);
    if units.len() % 13 != 0 {
        units.push(0);
    }
    units.resize(count * 13, 0xFFFF);
    let mut records = Vec::new();
    // The last part comes first.
    for (i, part) in units.chunks(13).enumerate().rev() {
        let mut r = [0; 32];
        r[0] = (i as u8 + 1) | if i + 1 == count { 0x40 } else { 0 };
        r[11] = 0x0F;
        r[13] = sum;
        let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        for (at, unit) in places.into_iter().zip(part) {
            r[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        records.push(r);
    }
    records
}

fn boot_sector(params: &Params, layout: &Layout) -> [u8; 512] {
    let mut b = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xEB, 0x58, 0x90]);
    put(3, b"SLIPWAY ");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[PER_CLUSTER as u8]);
    put(14, &(RESERVED as u16).to_le_bytes());
    put(16, &[2]); // tables
    put(21, &[0xF8]); // a fixed disk
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(28, &((params.offset / SECTOR) as u32).to_le_bytes());
    put(32, &layout.sectors.to_le_bytes());
    put(36, &(layout.table_sectors as u32).to_le_bytes());
    put(44, &ROOT.to_le_bytes());
    put(48, &1u16.to_le_bytes()); // where the free space sector is
    put(50, &6u16.to_le_bytes()); // where the copies are
    put(64, &[0x80, 0, 0x29]);
    put(67, &params.serial.to_le_bytes());
    let mut label = [b' '; 11];
    let bytes = params.label.as_bytes();
    label[..bytes.len().min(11)].copy_from_slice(&bytes[..bytes.len().min(11)]);
    put(71, &label);
    put(82, b"FAT32   ");
    put(90, &[0xEB, 0xFE]); // boot code: stop here
    put(510, &[0x55, 0xAA]);
    b
}

fn info_sector(free: u64, next: u32) -> [u8; 512] {
    let mut b = signature();
    b[0..4].copy_from_slice(b"RRaA");
    b[484..488].copy_from_slice(b"rrAa");
    b[488..492].copy_from_slice(&(free as u32).to_le_bytes());
    b[492..496].copy_from_slice(&next.to_le_bytes());
    b
}

fn signature() -> [u8; 512] {
    let mut b = [0; 512];
    b[510..].copy_from_slice(&[0x55, 0xAA]);
    b
}

/// Date and time as FAT stores them (UTC; before 1980 is 1980, after 2107 is 2107).
fn stamp(time: u64) -> (u16, u16) {
    let days = time / 86400;
    let seconds = time % 86400;
    // Civil date from days since 1970, counting years from March so that the leap day comes last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    if year < 1980 {
        return (1 << 5 | 1, 0);
    }
    let year = (year - 1980).min(127);
    let date = (year << 9 | month << 5 | day) as u16;
    let time = (((seconds / 3600) << 11) | ((seconds / 60 % 60) << 5) | (seconds % 60 / 2)) as u16;
    (date, time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::Cmd;

    fn params() -> Params {
        Params { len: 300 << 20, offset: 0, serial: 0x1234_5678, label: "SLIPWAYESP".into(), time: 1_753_000_000 }
    }

    fn files() -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("EFI/BOOT/BOOTX64.EFI".into(), vec![1; 100_000]),
            ("EFI/systemd/systemd-bootx64.efi".into(), vec![2; 4096]),
            ("loader/loader.conf".into(), b"timeout 1\n".to_vec()),
            ("loader/entries/slipway-slipway-0123456789ab.0+3.conf".into(), b"title x\n".to_vec()),
            ("loader/empty".into(), vec![]),
            (format!("slipway/{}/linux", "ab".repeat(32)), vec![3; 5_000_001]),
            (".hidden".into(), b"h".to_vec()),
        ];
        files.extend((0..300).map(|i| (format!("many/file with a longer name {i}.text"), vec![b'x'; i])));
        files
    }

    fn make(path: &std::path::Path) {
        let disk = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        disk.set_len(params().len).unwrap();
        let files = files();
        let list: Vec<(String, &[u8])> = files.iter().map(|(p, b)| (p.clone(), b.as_slice())).collect();
        write(&disk, &params(), &list).unwrap();
    }

    #[test]
    fn fsck_finds_nothing_and_mtools_reads_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("esp");
        make(&image);
        let check = Cmd::new("fsck.fat").args(["-n", "-v"]).arg(&image).output().unwrap();
        assert_eq!(check.code, 0, "{}", check.text());
        let label = Cmd::new("blkid").args(["-p", "-o", "export"]).arg(&image).run().unwrap().text();
        assert!(label.contains("UUID=1234-5678") && label.contains("LABEL=SLIPWAYESP"), "{label}");
        for (path, bytes) in files().into_iter().take(40) {
            let read = Cmd::new("mtype").arg("-i").arg(&image).arg(format!("::/{path}")).run().unwrap();
            assert!(read.stdout == bytes, "{path}");
        }
        let list = Cmd::new("mdir").args(["-/", "-b", "-i"]).arg(&image).arg("::/").run().unwrap().text();
        assert_eq!(list.lines().filter(|l| !l.ends_with('/')).count(), files().len());
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        make(&a);
        make(&b);
        assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
    }

    #[test]
    fn dates() {
        assert_eq!(stamp(0), (33, 0));
        // 2025-07-20 08:26:40
        assert_eq!(stamp(1_753_000_000), (45 << 9 | 7 << 5 | 20, 8 << 11 | 26 << 5 | 20));
        // 2024-02-29 00:00:00
        assert_eq!(stamp(1_709_164_800), (44 << 9 | 2 << 5 | 29, 0));
    }

    #[test]
    fn hostile_and_impossible_names_are_refused() {
        let disk = tempfile::tempfile().unwrap();
        for path in ["../up", "a//b", "/a", "a/.", "a:b", "dot.", "nul\0"] {
            let result = write(&disk, &params(), &[(path.to_owned(), b"".as_slice())]);
            assert!(matches!(result, Err(Error::Path { .. })), "{path}");
        }
        let same = [("a".to_owned(), b"".as_slice()), ("A".to_owned(), b"".as_slice())];
        assert!(matches!(write(&disk, &params(), &same), Err(Error::Path { .. })));
    }

    #[test]
    fn files_that_do_not_fit_are_refused_with_both_sizes() {
        let disk = tempfile::tempfile().unwrap();
        let big = vec![0; 301 << 20];
        let result = write(&disk, &params(), &[("big".to_owned(), big.as_slice())]);
        assert!(matches!(result, Err(Error::Full { need: 301, have: 299 })), "{result:?}");
    }
}
