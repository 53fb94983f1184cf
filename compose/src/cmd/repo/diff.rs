//! `repo diff`: what differs between two commits or directories, in files or in packages.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::json;
use store::diff::{self as tree_diff, Change, Side};
use store::{Checksum, Entry, ObjectType, Repo};
use sys::Exit;

use super::{At, size};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Commit before, or a directory (begins with / or ./).
    from: String,
    /// The same after; without it FROM is compared with its parent.
    to: Option<String>,
    /// How many objects they have in common.
    #[arg(long)]
    stats: bool,
    /// The paths that differ; that is the default.
    #[arg(long)]
    fs_diff: bool,
    /// Leave extended attributes out.
    #[arg(long)]
    no_xattrs: bool,
    /// The owner of files in directories; -1 is their own.
    #[arg(long, value_name = "UID", default_value_t = -1)]
    owner_uid: i64,
    /// The group of files in directories; -1 is their own.
    #[arg(long, value_name = "GID", default_value_t = -1)]
    owner_gid: i64,
    /// The Debian packages that differ (not in the stock tool).
    #[arg(long)]
    packages: bool,
    /// As JSON (not in the stock tool).
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let (from, to) = match &args.to {
        Some(to) => (args.from.clone(), to.clone()),
        None => (format!("{}^", args.from), args.from.clone()),
    };
    let side = |name: &str| -> anyhow::Result<Side> {
        if name.starts_with('/') || name.starts_with("./") {
            Ok(Side::Directory(name.into()))
        } else {
            Ok(Side::Commit(repo.resolve(name)?))
        }
    };
    if args.packages {
        return packages(repo, args, &repo.resolve(&from)?, &repo.resolve(&to)?);
    }
    if args.fs_diff || !args.stats {
        let (uid, gid) = (u32::try_from(args.owner_uid).ok(), u32::try_from(args.owner_gid).ok());
        let options = tree_diff::Options { ignore_xattrs: args.no_xattrs, uid, gid };
        let (from, to) = (side(&from)?, side(&to)?);
        print(args, &from, &to, &tree_diff::walk(repo, &from, &to, &options)?);
    }
    if args.stats {
        stats(repo, &repo.resolve(&from)?, &repo.resolve(&to)?)?;
    }
    Ok(Exit::Done)
}

fn print(args: &Args, from: &Side, to: &Side, changes: &[(String, Change)]) {
    if args.json {
        let mut changes = changes.to_vec();
        changes.sort();
        let list: Vec<_> = changes.iter().map(|(path, change)| json!({ "path": path, "change": change })).collect();
        println!("{}", json!(list));
        return;
    }
    // Modified, removed, added. A path of a directory has no root before it.
    for (wanted, letter, side) in
        [(Change::Modified, 'M', from), (Change::Removed, 'D', from), (Change::Added, 'A', to)]
    {
        for (path, _) in changes.iter().filter(|(_, change)| *change == wanted) {
            let path = if matches!(side, Side::Directory(_)) { &path[1..] } else { path };
            println!("{letter}    {path}");
        }
    }
}

fn stats(repo: &Repo, from: &Checksum, to: &Checksum) -> anyhow::Result<()> {
    let (a, b) = (repo.objects_of(from)?, repo.objects_of(to)?);
    let common: Vec<&(ObjectType, Checksum)> = a.iter().filter(|object| b.binary_search(object).is_ok()).collect();
    let mut bytes = 0;
    for (kind, checksum) in &common {
        bytes += repo.stored_size(*kind, checksum)?;
    }
    println!("[A] Object Count: {}\n[B] Object Count: {}", a.len(), b.len());
    println!("Common Object Count: {}\nCommon Object Size: {}", common.len(), size::format(bytes));
    Ok(())
}

/// Where the list of packages may lie in a tree.
const STATUS: [&str; 2] = ["/usr/lib/sysimage/dpkg/status", "/var/lib/dpkg/status"];

fn packages(repo: &Repo, args: &Args, from: &Checksum, to: &Checksum) -> anyhow::Result<Exit> {
    let (from, to) = (installed(repo, from)?, installed(repo, to)?);
    let mut names: Vec<&String> = from.keys().chain(to.keys()).collect();
    names.sort();
    names.dedup();
    let mut list = Vec::new();
    for name in names.into_iter().filter(|name| from.get(*name) != to.get(*name)) {
        let (old, new) = (from.get(name), to.get(name));
        if args.json {
            list.push(json!({ "package": name, "from": old, "to": new }));
            continue;
        }
        match (old, new) {
            (Some(old), Some(new)) => println!("M    {name} {old} -> {new}"),
            (Some(old), None) => println!("D    {name} {old}"),
            (None, new) => println!("A    {name} {}", new.map_or("", String::as_str)),
        }
    }
    if args.json {
        println!("{}", json!(list));
    }
    Ok(Exit::Done)
}

/// The packages of a tree with their versions, as dpkg's own list has them.
fn installed(repo: &Repo, commit: &Checksum) -> anyhow::Result<BTreeMap<String, String>> {
    for path in STATUS {
        let Some(Entry::File { checksum }) = repo.lookup(commit, path)? else { continue };
        let mut text = String::new();
        repo.open_file(&checksum)?.content.read_to_string(&mut text)?;
        let field = |block: &str, name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let package = |block: &str| {
            let installed = field(block, "Status:")?.ends_with(" installed");
            installed.then_some((field(block, "Package:")?, field(block, "Version:")?))
        };
        return Ok(text.split("\n\n").filter_map(package).collect());
    }
    anyhow::bail!("commit {commit} has no list of packages ({})", STATUS.join(" or "))
}
