//! `repo ls`: the files of a commit.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde_json::json;
use store::object::S_IFMT;
use store::{Checksum, Entry, Error, Repo, Xattrs};
use sys::Exit;

use super::{At, parse};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    #[arg(value_name = "COMMIT")]
    rev: String,
    /// Files or directories. Default: the root.
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// A directory, and not what is in it.
    #[arg(short, long)]
    dironly: bool,
    /// With everything below.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// With checksums: of a directory that of its names and that of its metadata.
    #[arg(short = 'C', long)]
    checksum: bool,
    /// With extended attributes.
    #[arg(short = 'X', long)]
    xattrs: bool,
    /// Only names, each with a NUL behind it.
    #[arg(long)]
    nul_filenames_only: bool,
    /// As JSON (not in the stock tool).
    #[arg(long)]
    json: bool,
}

struct Line {
    path: String,
    kind: char,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    checksum: Checksum,
    meta: Option<Checksum>,
    target: Option<String>,
    xattrs: Xattrs,
}

fn line(repo: &Repo, path: String, entry: Entry) -> Result<Line, Error> {
    Ok(match entry {
        Entry::Dir { tree, meta: checksum } => {
            let meta = repo.load_dirmeta(&checksum)?;
            let (mode, uid, gid, xattrs) = (meta.mode, meta.uid, meta.gid, meta.xattrs);
            let meta = Some(checksum);
            Line { path, kind: 'd', mode, uid, gid, size: 0, checksum: tree, meta, target: None, xattrs }
        }
        Entry::File { checksum } => {
            let meta = repo.load_file_meta(&checksum)?;
            let kind = if meta.symlink.is_some() { 'l' } else { '-' };
            let (mode, uid, gid, size, xattrs) = (meta.mode, meta.uid, meta.gid, meta.size, meta.xattrs);
            Line { path, kind, mode, uid, gid, size, checksum, meta: None, target: meta.symlink, xattrs }
        }
    })
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let commit = repo.resolve(&args.rev)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let root = ["/".to_owned()];
    let paths = if args.paths.is_empty() { root.as_slice() } else { &args.paths };
    let mut all = Vec::new();
    for path in paths {
        let lines = below(repo, args, &commit, path).with_context(|| format!("Inspecting path '{path}'"))?;
        if args.json {
            all.extend(lines.iter().map(json));
            continue;
        }
        for line in &lines {
            print(&mut out, args, line)?;
        }
    }
    if args.json {
        writeln!(out, "{}", json!(all))?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn json(l: &Line) -> serde_json::Value {
    json!({
        "path": l.path, "type": l.kind.to_string(), "mode": format!("{:05o}", l.mode & !S_IFMT),
        "uid": l.uid, "gid": l.gid, "size": l.size, "checksum": l.checksum, "target": l.target,
    })
}

fn print(out: &mut dyn io::Write, args: &Args, l: &Line) -> anyhow::Result<()> {
    if args.nul_filenames_only {
        write!(out, "{}\0", l.path)?;
        return Ok(());
    }
    write!(out, "{}0{:04o} {} {} {:>6} ", l.kind, l.mode & !S_IFMT, l.uid, l.gid, l.size)?;
    if args.checksum {
        write!(out, "{} ", l.checksum)?;
        if let Some(meta) = l.meta {
            write!(out, "{meta} ")?;
        }
    }
    if args.xattrs {
        write!(out, "{{ {} }} ", parse::xattrs(&l.xattrs)?)?;
    }
    match &l.target {
        Some(target) => writeln!(out, "{} -> {target}", l.path)?,
        None => writeln!(out, "{}", l.path)?,
    }
    Ok(())
}

/// What is printed for one path: itself, what is in it, or all below it, files before directories.
fn below(repo: &Repo, args: &Args, commit: &Checksum, path: &str) -> anyhow::Result<Vec<Line>> {
    let base = format!("/{}", path.trim_matches('/'));
    let base = base.trim_end_matches('/');
    let shown = if base.is_empty() { "/" } else { base };
    let entry = repo.lookup(commit, base)?.with_context(|| format!("commit {commit} has no {shown}"))?;
    let mut lines = vec![line(repo, shown.to_owned(), entry)?];
    let mut todo = Vec::new();
    if let Entry::Dir { tree, .. } = entry {
        if !args.dironly || args.recursive {
            todo.push((base.to_owned(), tree));
        }
    }
    // Paths of directories yet to be listed, each before what is in it; the stack holds them in reverse.
    let mut stack: Vec<(String, Entry)> = Vec::new();
    loop {
        if let Some((base, tree)) = todo.pop() {
            let tree = repo.load_dirtree(&tree)?;
            for (name, checksum) in tree.files {
                lines.push(line(repo, format!("{base}/{name}"), Entry::File { checksum })?);
            }
            for (name, tree, meta) in tree.dirs.into_iter().rev() {
                stack.push((format!("{base}/{name}"), Entry::Dir { tree, meta }));
            }
        }
        let Some((path, entry)) = stack.pop() else { return Ok(lines) };
        lines.push(line(repo, path.clone(), entry)?);
        if let (true, Entry::Dir { tree, .. }) = (args.recursive, entry) {
            todo.push((path, tree));
        }
    }
}
