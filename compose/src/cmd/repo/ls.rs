//! `repo ls`: the files of a commit.

use std::io::{self, Write as _};

use serde_json::json;
use store::object::S_IFMT;
use store::{Checksum, Entry, Error, Repo};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    rev: String,
    /// File or directory.
    #[arg(default_value = "/")]
    path: String,
    /// With everything below.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// With checksums.
    #[arg(short = 'C', long)]
    checksum: bool,
    /// As JSON.
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
    target: Option<String>,
}

fn line(repo: &Repo, path: String, entry: Entry) -> Result<Line, Error> {
    Ok(match entry {
        Entry::Dir { tree, meta } => {
            let meta = repo.load_dirmeta(&meta)?;
            let (mode, uid, gid) = (meta.mode, meta.uid, meta.gid);
            Line { path, kind: 'd', mode, uid, gid, size: 0, checksum: tree, target: None }
        }
        Entry::File { checksum } => {
            let meta = repo.load_file_meta(&checksum)?;
            let kind = if meta.symlink.is_some() { 'l' } else { '-' };
            let (mode, uid, gid, size) = (meta.mode, meta.uid, meta.gid, meta.size);
            Line { path, kind, mode, uid, gid, size, checksum, target: meta.symlink }
        }
    })
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let commit = repo.resolve(&args.rev)?;
    let base = format!("/{}", args.path.trim_matches('/'));
    let base = base.trim_end_matches('/');
    let shown = if base.is_empty() { "/" } else { base };
    let entry = repo.lookup(&commit, base)?.ok_or_else(|| anyhow::anyhow!("commit {commit} has no {shown}"))?;
    let mut lines = Vec::new();
    match entry {
        Entry::File { .. } => lines.push(line(repo, shown.to_owned(), entry)?),
        Entry::Dir { tree, meta } if args.recursive => repo.walk_tree(&tree, &meta, &mut |path, entry| {
            let path = if path == "/" { shown.to_owned() } else { format!("{base}{path}") };
            lines.push(line(repo, path, entry)?);
            Ok(())
        })?,
        Entry::Dir { tree, .. } => {
            lines.push(line(repo, shown.to_owned(), entry)?);
            let tree = repo.load_dirtree(&tree)?;
            for (name, checksum) in tree.files {
                lines.push(line(repo, format!("{base}/{name}"), Entry::File { checksum })?);
            }
            for (name, tree, meta) in tree.dirs {
                lines.push(line(repo, format!("{base}/{name}"), Entry::Dir { tree, meta })?);
            }
        }
    }
    if args.json {
        let entry = |l: &Line| {
            json!({
                "path": l.path, "type": l.kind.to_string(), "mode": format!("{:05o}", l.mode & !S_IFMT),
                "uid": l.uid, "gid": l.gid, "size": l.size, "checksum": l.checksum, "target": l.target,
            })
        };
        println!("{}", json!(lines.iter().map(entry).collect::<Vec<_>>()));
        return Ok(Exit::Done);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    for l in &lines {
        let checksum = if args.checksum { format!(" {}", l.checksum) } else { String::new() };
        let target = l.target.as_ref().map_or_else(String::new, |t| format!(" -> {t}"));
        let mode = l.mode & !S_IFMT;
        writeln!(out, "{}{mode:05o} {} {} {:>6}{checksum} {}{target}", l.kind, l.uid, l.gid, l.size, l.path)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}
