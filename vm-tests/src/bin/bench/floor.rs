//! The floor: what nobody can do without. Two threads read every file and hash it; where the work writes, they also
//! create a file for each, write it, and set one attribute; then everything is synced.
//!
//! It is a process of its own (`bench floor …`), measured as the others are.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use rustix::fs::XattrFlags;
use sha2::{Digest as _, Sha256};

/// How many threads, whatever the machine has: the reaches are for two cores.
const THREADS: usize = 2;

/// Arguments of `bench floor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The tree to read.
    tree: PathBuf,
    /// Where to write it; nothing is written without.
    out: Option<PathBuf>,
}

/// Does the work.
pub fn run(args: &Args) -> Result<()> {
    let mut files = Vec::new();
    list(&args.tree, &mut files, &mut HashSet::new())?;
    files.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    if let Some(out) = &args.out {
        for dir in 0..256 {
            fs::create_dir_all(out.join(format!("{dir:02x}")))?;
        }
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work(&files, &next, args.out.as_deref()))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread of the floor died"))
    })?;
    if let Some(out) = &args.out {
        sys::file::sync_fs(out)?;
    }
    Ok(())
}

fn list(dir: &Path, files: &mut Vec<(u64, PathBuf)>, seen: &mut HashSet<u64>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let stat = entry.metadata()?;
        if stat.is_dir() {
            list(&entry.path(), files, seen)?;
        } else if stat.is_file() && (stat.nlink() == 1 || seen.insert(stat.ino())) {
            files.push((stat.len(), entry.path()));
        }
    }
    Ok(())
}

fn work(files: &[(u64, PathBuf)], next: &AtomicUsize, out: Option<&Path>) -> Result<()> {
    let mut content = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some((_, path)) = files.get(index) else { return Ok(()) };
        content.clear();
        File::open(path)?.read_to_end(&mut content)?;
        std::hint::black_box(Sha256::digest(&content));
        if let Some(out) = out {
            let mut file = File::create_new(out.join(format!("{:02x}/{index}", index % 256)))?;
            file.write_all(&content)?;
            rustix::fs::fsetxattr(&file, "user.floor", &[0; 20], XattrFlags::empty())?;
        }
    }
}
