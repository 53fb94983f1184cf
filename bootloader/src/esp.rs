//! The EFI system partition: what is written there, and in which order.
//!
//! FAT has no atomic rename: it changes two directory sectors, and a power cut may leave both names, sharing their
//! clusters, or (for a file being replaced) neither. So an entry is never renamed: a new name is written in full and
//! made durable before an old one is unlinked, and whoever cleans up two names of one deployment writes a third first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::{Entry, EntryName, Ranked, order};

/// Where entries lie, relative to the ESP.
pub const ENTRIES_DIR: &str = "loader/entries";

/// Where kernels lie, relative to the ESP.
pub const KERNELS_DIR: &str = "slipway";

/// `loader/loader.conf`: no `default`, so the first of the sorted list boots.
pub const LOADER_CONF: &str = "timeout 1\nconsole-mode keep\neditor no\n";

/// `loader/entries.srel`: which standard the entries follow.
pub const ENTRIES_SREL: &str = "type1\n";

/// The directory of a kernel, relative to the ESP.
pub fn boot_directory(bootcsum: &str) -> String {
    format!("{KERNELS_DIR}/{bootcsum}")
}

/// A mounted ESP.
#[derive(Clone, Debug)]
pub struct Esp {
    root: PathBuf,
}

/// One file in `loader/entries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file name.
    pub file: String,
    /// What the name says, when it is one of ours.
    pub name: Option<EntryName>,
    /// The content.
    pub entry: Entry,
}

impl Ranked for Found {
    fn file_name(&self) -> &str {
        &self.file
    }
    fn entry(&self) -> &Entry {
        &self.entry
    }
}

/// Why something on the ESP failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path} on the EFI system partition")]
pub struct EspError {
    doing: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

fn failed(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> EspError {
    let path = path.as_ref().display().to_string();
    move |source| EspError { doing, path, source }
}

impl Esp {
    /// The ESP mounted at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Esp {
        Esp { root: root.into() }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// All entries, as the loader sorts them. Files it would not show are left out.
    pub fn entries(&self) -> Result<Vec<Found>, EspError> {
        let dir = self.root.join(ENTRIES_DIR);
        let listing = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("reading", ENTRIES_DIR))?,
        };
        let mut found = Vec::new();
        for item in listing {
            let item = item.map_err(failed("reading", ENTRIES_DIR))?;
            let file = item.file_name().to_string_lossy().into_owned();
            if !file.ends_with(".conf") || file.starts_with('.') {
                continue;
            }
            let bytes = fs::read(item.path()).map_err(failed("reading", format!("{ENTRIES_DIR}/{file}")))?;
            // An entry that is not text or boots nothing is none; a half-written one of ours gets written again.
            let Some(entry) = std::str::from_utf8(&bytes).ok().and_then(|t| Entry::parse(t).ok()) else { continue };
            found.push(Found { name: EntryName::parse(&file), file, entry });
        }
        // Directory order must not matter where the loader sees a tie.
        found.sort_by(|a, b| a.file.cmp(&b.file));
        order::sort(&mut found);
        Ok(found)
    }

    /// Names of kernel directories, sorted.
    pub fn kernels(&self) -> Result<Vec<String>, EspError> {
        let mut names = Vec::new();
        match fs::read_dir(self.root.join(KERNELS_DIR)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("reading", KERNELS_DIR)(e)),
            Ok(listing) => {
                for item in listing {
                    let item = item.map_err(failed("reading", KERNELS_DIR))?;
                    let name = item.file_name().to_string_lossy().into_owned();
                    if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
                        names.push(name);
                    }
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// Bytes that one kernel directory takes.
    pub fn kernel_size(&self, bootcsum: &str) -> u64 {
        ["linux", "initrd"]
            .iter()
            .filter_map(|f| fs::metadata(self.root.join(boot_directory(bootcsum)).join(f)).ok())
            .map(|m| m.len())
            .sum()
    }

    /// Whether both files of a kernel directory are there under their final names.
    pub fn has_kernel(&self, bootcsum: &str) -> bool {
        ["linux", "initrd"].iter().all(|f| self.root.join(boot_directory(bootcsum)).join(f).is_file())
    }

    /// Writes one file of a kernel directory: temporary name, content, sync, final name. Nothing refers to it yet, so
    /// a crash leaves at most a leftover.
    pub fn install_kernel_file(&self, bootcsum: &str, file: &str, content: &mut dyn Read) -> Result<u64, EspError> {
        let dir = self.root.join(boot_directory(bootcsum));
        let label = format!("{}/{file}", boot_directory(bootcsum));
        (|| {
            fs::create_dir_all(&dir)?;
            let temporary = dir.join(format!("{file}.new"));
            let mut out = File::create(&temporary)?;
            let written = io::copy(content, &mut out)?;
            out.sync_all()?;
            drop(out);
            fs::rename(&temporary, dir.join(file))?;
            Ok(written)
        })()
        .map_err(failed("writing", label))
    }

    /// Removes a kernel directory; a missing one is fine.
    pub fn remove_kernel(&self, bootcsum: &str) -> Result<(), EspError> {
        sys::file::remove_tree(&self.root.join(boot_directory(bootcsum)))
            .map_err(failed("removing", boot_directory(bootcsum)))
    }

    /// Writes an entry in full and makes it durable. Writing the same again changes nothing.
    pub fn write_entry(&self, file: &str, entry: &Entry) -> Result<(), EspError> {
        let dir = self.root.join(ENTRIES_DIR);
        let label = format!("{ENTRIES_DIR}/{file}");
        let text = entry.render();
        (|| {
            fs::create_dir_all(&dir)?;
            let path = dir.join(file);
            if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
                return self.sync();
            }
            let mut out = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
            out.write_all(text.as_bytes())?;
            out.sync_all()?;
            self.sync()
        })()
        .map_err(failed("writing", label))
    }

    /// Unlinks an entry and makes that durable; a missing one is fine. The caller has written another one first, or
    /// gives the deployment up.
    pub fn remove_entry(&self, file: &str) -> Result<(), EspError> {
        sys::file::remove(&self.root.join(ENTRIES_DIR).join(file))
            .and_then(|()| self.sync())
            .map_err(failed("removing", format!("{ENTRIES_DIR}/{file}")))
    }

    fn sync(&self) -> io::Result<()> {
        sys::file::sync_fs(&self.root)
    }

    /// Makes everything written so far durable.
    pub fn sync_all(&self) -> Result<(), EspError> {
        self.sync().map_err(failed("syncing", "everything"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counter, Kargs};

    fn entry(version: u64) -> Entry {
        Entry::of_deployment("t", "slipway", version, &"a".repeat(64), &Kargs::default())
    }

    #[test]
    fn lists_entries_in_boot_order_and_skips_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let esp = Esp::new(dir.path());
        assert!(esp.entries().unwrap().is_empty());
        let old = EntryName::new("slipway", "0123456789abcdef", 0);
        let new = EntryName::new("slipway", "fedcba987654", 0).with(Some(Counter::fresh(3)));
        esp.write_entry(&old.to_string(), &entry(1)).unwrap();
        esp.write_entry(&new.to_string(), &entry(2)).unwrap();
        fs::write(dir.path().join(ENTRIES_DIR).join("cut.conf"), b"").unwrap();
        fs::write(dir.path().join(ENTRIES_DIR).join("bin.conf"), b"\xff\xfe").unwrap();
        let files: Vec<String> = esp.entries().unwrap().into_iter().map(|f| f.file).collect();
        assert_eq!(files, [new.to_string(), old.to_string()]);
        esp.remove_entry(&new.to_string()).unwrap();
        esp.remove_entry(&new.to_string()).unwrap();
        assert_eq!(esp.entries().unwrap().len(), 1);
    }

    #[test]
    fn a_kernel_counts_only_under_its_final_name() {
        let dir = tempfile::tempdir().unwrap();
        let esp = Esp::new(dir.path());
        let sum = "c".repeat(64);
        esp.install_kernel_file(&sum, "linux", &mut &b"kernel"[..]).unwrap();
        assert!(!esp.has_kernel(&sum));
        esp.install_kernel_file(&sum, "initrd", &mut &b"ram"[..]).unwrap();
        assert!(esp.has_kernel(&sum));
        assert_eq!((esp.kernels().unwrap(), esp.kernel_size(&sum)), (vec![sum.clone()], 9));
        esp.remove_kernel(&sum).unwrap();
        assert!(esp.kernels().unwrap().is_empty());
    }
}
