//! The verbs that only read.

use std::io::{self, Write as _};

use serde_json::json;
use store::object::S_IFMT;
use store::sign::PublicKey;
use store::{Checksum, Commit, Entry, Error, Repo, Value, diff as tree_diff, fsck as repo_fsck};
use sys::Exit;

#[derive(Debug, clap::Args)]
pub struct Refs {
    /// Only refs that begin with this.
    prefix: Option<String>,
    /// Delete the ref of this name (the commit stays until a prune).
    #[arg(long)]
    delete: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn refs(repo: &Repo, args: &Refs) -> anyhow::Result<Exit> {
    if args.delete {
        let name = args.prefix.as_deref().ok_or_else(|| sys::Refused::new("which ref? Give its name"))?;
        if repo.read_ref(name)?.is_none() {
            return Err(sys::Refused::new(format!("there is no ref {name}")).into());
        }
        repo.delete_ref(name)?;
        return Ok(Exit::Done);
    }
    let prefix = args.prefix.as_deref().unwrap_or("");
    let refs = repo.ref_targets()?.into_iter().filter(|(name, _)| name.starts_with(prefix));
    if args.json {
        let map: serde_json::Map<_, _> = refs.map(|(name, commit)| (name, json!(commit))).collect();
        println!("{}", json!(map));
    } else {
        for (name, commit) in refs {
            println!("{commit} {name}");
        }
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct Log {
    /// Ref or commit.
    rev: String,
    /// As JSON, newest first.
    #[arg(long)]
    json: bool,
}

pub fn log(repo: &Repo, args: &Log) -> anyhow::Result<Exit> {
    let mut next = Some(repo.resolve(&args.rev)?);
    let mut all = Vec::new();
    while let Some(checksum) = next {
        let commit = match repo.load_commit(&checksum) {
            // Pulled without its history.
            Err(Error::Missing { .. }) if !all.is_empty() => {
                if !args.json {
                    println!("<< the history goes on at {checksum}, which is not here >>");
                }
                break;
            }
            commit => commit?,
        };
        next = commit.parent;
        if args.json {
            all.push(commit_json(repo, &checksum, &commit)?);
        } else {
            print_commit(&checksum, &commit);
            all.push(json!(null));
        }
    }
    if args.json {
        println!("{}", json!(all));
    }
    Ok(Exit::Done)
}

fn print_commit(checksum: &Checksum, commit: &Commit) {
    println!("commit {checksum}");
    if let Some(parent) = commit.parent {
        println!("Parent:  {parent}");
    }
    println!("Date:    {}", date(commit.timestamp));
    if let Some(version) = commit.version() {
        println!("Version: {version}");
    }
    for line in commit.subject.lines().chain(commit.body.lines()) {
        println!("    {line}");
    }
    println!();
}

/// `2023-11-14 22:13:20 +0000`, from the days since 1970 (proleptic Gregorian calendar).
fn date(timestamp: u64) -> String {
    let (days, seconds) = (timestamp / 86400, timestamp % 86400);
    // Years that begin in March: the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day = shifted % 146_097;
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + late;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000")
}

fn value_json(key: &str, value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(truth) => json!(truth),
        Value::Byte(number) => json!(number),
        Value::U32(number) => json!(number),
        Value::I32(number) => json!(number),
        Value::U64(number) => json!(number),
        Value::I64(number) => json!(number),
        Value::String(text) => json!(text),
        Value::Bytes(bytes) => json!(hex::encode(bytes)),
        Value::StringArray(strings) => json!(strings),
        // One entry for each object: the number is what a person wants.
        Value::BytesArray(arrays) if key == store::commit::SIZES => json!(arrays.len()),
        Value::BytesArray(arrays) => json!(arrays.iter().map(hex::encode).collect::<Vec<_>>()),
        Value::Dict(dict) => {
            json!(dict.iter().map(|(k, v)| (k.clone(), value_json(k, v))).collect::<serde_json::Map<_, _>>())
        }
        Value::Other(ty, bytes) => json!({ "type": ty, "bytes": hex::encode(bytes) }),
    }
}

fn commit_json(repo: &Repo, checksum: &Checksum, commit: &Commit) -> anyhow::Result<serde_json::Value> {
    let metadata: serde_json::Map<_, _> =
        commit.metadata.iter().map(|(key, value)| (key.clone(), value_json(key, value))).collect();
    Ok(json!({
        "commit": checksum,
        "parent": commit.parent,
        "timestamp": commit.timestamp,
        "version": commit.version(),
        "subject": commit.subject,
        "body": commit.body,
        "root_tree": commit.root_tree,
        "root_meta": commit.root_meta,
        "metadata": metadata,
        "signatures": signatures(repo, checksum)?,
        "partial": repo.is_partial(checksum),
    }))
}

fn signatures(repo: &Repo, checksum: &Checksum) -> anyhow::Result<usize> {
    let detached = repo.load_detached(checksum)?.unwrap_or_default();
    Ok(detached.get(store::sign::KEY).and_then(|v| v.as_bytes_array()).map_or(0, <[_]>::len))
}

#[derive(Debug, clap::Args)]
pub struct Show {
    /// Ref or commit.
    rev: String,
    /// Say whether this public key (base64) signed it.
    #[arg(long, value_name = "KEY")]
    verify: Option<PublicKey>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn show(repo: &Repo, args: &Show) -> anyhow::Result<Exit> {
    let checksum = repo.resolve(&args.rev)?;
    let commit = repo.load_commit(&checksum)?;
    let verified = match &args.verify {
        None => None,
        Some(key) => {
            let detached = repo.load_detached(&checksum)?.unwrap_or_default();
            Some(store::sign::Keyring::of([*key]).verify(&commit.bytes, &detached))
        }
    };
    if args.json {
        let mut object = commit_json(repo, &checksum, &commit)?;
        if let Some(verified) = &verified {
            object["verified"] = json!(verified.is_ok());
        }
        println!("{object}");
    } else {
        print_commit(&checksum, &commit);
        for (key, value) in &commit.metadata {
            println!("{key}: {}", value_json(key, value));
        }
        println!("signatures: {}", signatures(repo, &checksum)?);
        match &verified {
            Some(Ok(key)) => println!("signed by {key}"),
            Some(Err(error)) => println!("not verified: {error}"),
            None => {}
        }
    }
    Ok(if matches!(verified, Some(Err(_))) { Exit::Failed } else { Exit::Done })
}

#[derive(Debug, clap::Args)]
pub struct Ls {
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

pub fn ls(repo: &Repo, args: &Ls) -> anyhow::Result<Exit> {
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

#[derive(Debug, clap::Args)]
pub struct Cat {
    /// Ref or commit.
    rev: String,
    /// Files.
    #[arg(required = true)]
    paths: Vec<String>,
}

pub fn cat(repo: &Repo, args: &Cat) -> anyhow::Result<Exit> {
    let commit = repo.resolve(&args.rev)?;
    let mut out = io::stdout().lock();
    for path in &args.paths {
        match repo.lookup(&commit, path)? {
            Some(Entry::File { checksum }) => io::copy(&mut repo.open_file(&checksum)?.content, &mut out)?,
            Some(Entry::Dir { .. }) => anyhow::bail!("{path} is a directory"),
            None => anyhow::bail!("commit {commit} has no {path}"),
        };
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct Diff {
    /// Ref or commit before.
    from: String,
    /// Ref or commit after; without it FROM is compared with its parent.
    to: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn diff(repo: &Repo, args: &Diff) -> anyhow::Result<Exit> {
    let first = repo.resolve(&args.from)?;
    let (from, to) = match &args.to {
        Some(to) => (first, repo.resolve(to)?),
        None => (repo.resolve(&format!("{}^", args.from))?, first),
    };
    let changes = tree_diff::diff(repo, &from, &to)?;
    if args.json {
        let list: Vec<_> = changes.iter().map(|(path, change)| json!({ "path": path, "change": change })).collect();
        println!("{}", json!(list));
    } else {
        for (path, change) in changes {
            let letter = match change {
                tree_diff::Change::Added => 'A',
                tree_diff::Change::Removed => 'D',
                tree_diff::Change::Modified => 'M',
            };
            println!("{letter}    {path}");
        }
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct Fsck {
    /// Delete damaged objects, so that a pull fetches them again.
    #[arg(long)]
    delete: bool,
    /// Print nothing if all is well.
    #[arg(short, long)]
    quiet: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn fsck(repo: &Repo, args: &Fsck) -> anyhow::Result<Exit> {
    let report = repo_fsck::fsck(repo, &repo_fsck::Options { delete: args.delete, threads: 0 })?;
    if args.json {
        println!("{}", json!(report));
    } else {
        for p in &report.problems {
            println!("{} {}: {}{}", p.kind, p.checksum, p.why, if p.deleted { "; deleted" } else { "" });
        }
        if !args.quiet || !report.problems.is_empty() {
            let partial = if report.partial > 0 { format!(" ({} partial)", report.partial) } else { String::new() };
            let (commits, objects) = (report.commits, report.objects);
            eprintln!("{objects} objects, {commits} commits{partial}: {} problems", report.problems.len());
        }
    }
    Ok(if report.problems.is_empty() { Exit::Done } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 +0000");
        assert_eq!(date(1_700_000_000), "2023-11-14 22:13:20 +0000");
        assert_eq!(date(1_709_164_800), "2024-02-29 00:00:00 +0000");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59:59 +0000");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00:00 +0000");
    }
}
