//! `repo export`: the tree of a commit as a tar archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use store::{Checksum, Commit, Entry, Repo};
use sys::Exit;
use tar::{Builder, EntryType, Header};

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    commit: String,
    /// Leave extended attributes out. A GNU archive, which is what is written, has none anyway.
    #[arg(long)]
    no_xattrs: bool,
    /// Only this directory of the tree.
    #[arg(long, value_name = "PATH")]
    subpath: Option<String>,
    /// Put this before every name.
    #[arg(long, value_name = "PATH")]
    prefix: Option<String>,
    /// Write to this file and not to standard output.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let checksum = repo.resolve(&args.commit)?;
    let commit = repo.load_commit(&checksum)?;
    let path = args.subpath.as_deref().unwrap_or("/");
    let entry = repo.lookup(&checksum, path)?.with_context(|| format!("commit {checksum} has no {path}"))?;
    let out: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(File::create(path).with_context(|| format!("creating {}", path.display()))?),
        None => Box::new(io::stdout().lock()),
    };
    let mut archive = Archive {
        repo,
        commit: &commit,
        prefix: args.prefix.as_deref().unwrap_or(""),
        tar: Builder::new(BufWriter::with_capacity(1 << 20, out)),
        seen: HashMap::new(),
    };
    archive.entry("", entry)?;
    archive.tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.flush()?;
    Ok(Exit::Done)
}

struct Archive<'a> {
    repo: &'a Repo,
    commit: &'a Commit,
    prefix: &'a str,
    tar: Builder<BufWriter<Box<dyn Write>>>,
    /// Where a content was written first: every later file of the same object is a hard link to it.
    seen: HashMap<Checksum, String>,
}

impl Archive<'_> {
    fn name(&self, path: &str) -> String {
        let name = format!("{}{}", self.prefix, path.trim_start_matches('/'));
        if name.is_empty() { ".".to_owned() } else { name }
    }

    fn header(&self, kind: EntryType, mode: u32, uid: u32, gid: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode & 0o7777);
        header.set_uid(u64::from(uid));
        header.set_gid(u64::from(gid));
        header.set_size(size);
        header.set_mtime(self.commit.timestamp);
        header
    }

    fn entry(&mut self, path: &str, entry: Entry) -> anyhow::Result<()> {
        let name = self.name(path);
        match entry {
            Entry::Dir { tree, meta } => {
                let meta = self.repo.load_dirmeta(&meta)?;
                let mut header = self.header(EntryType::Directory, meta.mode, meta.uid, meta.gid, 0);
                let name = format!("{}/", name.trim_end_matches('/'));
                self.tar.append_data(&mut header, &name, io::empty())?;
                let tree = self.repo.load_dirtree(&tree)?;
                for (name, checksum) in tree.files {
                    self.entry(&format!("{path}/{name}"), Entry::File { checksum })?;
                }
                for (name, tree, meta) in tree.dirs {
                    self.entry(&format!("{path}/{name}"), Entry::Dir { tree, meta })?;
                }
            }
            Entry::File { checksum } => {
                let object = self.repo.open_file(&checksum)?;
                let meta = &object.meta;
                if let Some(target) = &meta.symlink {
                    let mut header = self.header(EntryType::Symlink, meta.mode, meta.uid, meta.gid, 0);
                    self.tar.append_link(&mut header, &name, target)?;
                } else if let Some(first) = self.seen.get(&checksum) {
                    let mut header = self.header(EntryType::Link, meta.mode, meta.uid, meta.gid, 0);
                    self.tar.append_link(&mut header, &name, first)?;
                } else {
                    let mut header = self.header(EntryType::Regular, meta.mode, meta.uid, meta.gid, meta.size);
                    self.tar.append_data(&mut header, &name, object.content)?;
                    self.seen.insert(checksum, name);
                }
            }
        }
        Ok(())
    }
}
