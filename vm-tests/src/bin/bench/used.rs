//! Directories that runs wrote into. They are not removed but emptied and kept, until the whole bench is done.
//!
//! ```text
//! target/bench/ours      what the next run writes into: always new
//! target/bench/used/N    what earlier runs wrote: every file there, its content cut off
//! target/bench/removed   its time of modification says when the last of them went
//! ```
//! A file system does not like to give away again what it has just taken back: ext4 looks at each inode that was freed
//! in the last minutes before it hands one out. With the files of the run before removed, creating as many takes four
//! times as much system time, differently at every run. Cut off, the files give their space back and keep their inodes.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long ext4 avoids an inode: a minute, and five more while the change is not yet written where it belongs.
const AVOIDED: Duration = Duration::from_secs(360);

/// The directories of one bench; removed when this is dropped.
pub struct Used {
    dir: PathBuf,
    stamp: PathBuf,
    count: Cell<usize>,
}

impl Used {
    /// Removes what a killed bench left, and waits until nothing that was removed can matter.
    pub fn new(output: &Path) -> Result<Used> {
        let used = Used { dir: output.join("used"), stamp: output.join("removed"), count: Cell::new(0) };
        if used.dir.exists() {
            used.remove()?;
        }
        let age = fs::metadata(&used.stamp).and_then(|stat| stat.modified()).ok().and_then(|time| time.elapsed().ok());
        if let Some(left) = age.and_then(|age| AVOIDED.checked_sub(age)) {
            eprintln!("bench: waiting {} s, until the file system has got over what was removed", left.as_secs());
            std::thread::sleep(left);
        }
        fs::create_dir_all(&used.dir).with_context(|| used.dir.display().to_string())?;
        Ok(used)
    }

    /// Makes room for something new at `path`.
    pub fn take(&self, path: &Path) -> Result<()> {
        if path.exists() {
            let kept = self.dir.join(self.count.replace(self.count.get() + 1).to_string());
            fs::rename(path, &kept).with_context(|| format!("moving {} aside", path.display()))?;
            cut_off(&kept).with_context(|| kept.display().to_string())?;
        }
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        sys::file::remove_tree(&self.dir)?;
        sys::file::replace(&self.stamp, b"", 0o644)?;
        Ok(())
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("bench: {error:#}");
        }
    }
}

fn cut_off(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            cut_off(&entry.path())?;
            continue;
        }
        let stat = entry.metadata()?;
        // A further name of a file of another repository, which still needs it, is no copy.
        if stat.is_file() && stat.nlink() == 1 && stat.len() > 0 {
            File::options().write(true).open(entry.path())?.set_len(0)?;
        }
    }
    Ok(())
}
