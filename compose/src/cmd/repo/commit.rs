//! `repo commit`: a directory becomes a commit.

use std::path::PathBuf;

use anyhow::Context as _;
use store::commit::Builder;
use store::{Value, import};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory.
    #[arg(required_unless_present = "tree", conflicts_with = "tree")]
    dir: Option<PathBuf>,
    /// The directory, as dir=DIR.
    #[arg(long, value_name = "dir=DIR", value_parser = tree)]
    tree: Option<PathBuf>,
    /// The ref that will point to the commit.
    #[arg(short, long)]
    branch: Option<String>,
    /// First line of the message.
    #[arg(short, long, default_value = "")]
    subject: String,
    /// The rest of the message.
    #[arg(short = 'm', long, default_value = "")]
    body: String,
    /// The commit before it; `none` for none. Default: what the branch points to.
    #[arg(long, value_name = "REV")]
    parent: Option<String>,
    /// Seconds since 1970. Default: SOURCE_DATE_EPOCH, else now.
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<u64>,
    /// Metadata; several times.
    #[arg(long, value_name = "KEY=VALUE")]
    add_metadata_string: Vec<String>,
    /// Bind the commit to a further ref.
    #[arg(long, value_name = "REF")]
    bind_ref: Vec<String>,
    /// Do not bind the commit to its branch.
    #[arg(long)]
    no_bindings: bool,
    /// Every file belongs to this user.
    #[arg(long, value_name = "UID")]
    owner_uid: Option<u32>,
    /// Every file belongs to this group.
    #[arg(long, value_name = "GID")]
    owner_gid: Option<u32>,
    /// Import no extended attributes.
    #[arg(long)]
    no_xattrs: bool,
    /// Record the size of every object, so that a pull knows what it will fetch (archive only).
    #[arg(long)]
    generate_sizes: bool,
    /// Do not read again what has not changed since the last commit of this directory.
    #[arg(long)]
    stat_cache: bool,
    /// Know files that are hard links to objects of the repository, as a checkout's are, without reading them.
    #[arg(long)]
    link_checkout_speedup: bool,
    /// Compute fs-verity digests in the same read and remember them.
    #[arg(long)]
    verity: bool,
}

fn tree(text: &str) -> Result<PathBuf, String> {
    text.strip_prefix("dir=").map(PathBuf::from).ok_or_else(|| "dir=DIR".to_owned())
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let dir = args.dir.as_ref().or(args.tree.as_ref()).context("which directory?")?;
    let parent = match (args.parent.as_deref(), &args.branch) {
        (Some("none"), _) => None,
        (Some(rev), _) => Some(repo.resolve(rev)?),
        (None, Some(branch)) => repo.read_ref(branch)?,
        (None, None) => None,
    };
    let timestamp = match (args.timestamp, std::env::var("SOURCE_DATE_EPOCH")) {
        (Some(seconds), _) => seconds,
        (None, Ok(text)) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text:?} is not a number"))?,
        (None, Err(_)) => sys::clock::now(),
    };
    let modify = |_: &str, attributes: &mut import::Attributes| {
        attributes.uid = args.owner_uid.unwrap_or(attributes.uid);
        attributes.gid = args.owner_gid.unwrap_or(attributes.gid);
        if args.no_xattrs {
            attributes.xattrs.clear();
        }
    };
    let changes = args.owner_uid.is_some() || args.owner_gid.is_some() || args.no_xattrs;
    let modify: Option<import::Modify<'_>> = if changes { Some(&modify) } else { None };
    let (cache, links) = (args.stat_cache, args.link_checkout_speedup);
    let options = import::Options { modify, verity: args.verity, cache, links, ..import::Options::default() };
    let imported = import::directory(repo, dir, &options)?;

    let mut builder = Builder::new(imported.root_tree, imported.root_meta, timestamp);
    builder.parent = parent;
    builder.subject.clone_from(&args.subject);
    builder.body.clone_from(&args.body);
    for pair in &args.add_metadata_string {
        let (key, value) = pair.split_once('=').with_context(|| format!("{pair:?} is not KEY=VALUE"))?;
        builder.metadata.insert(key.to_owned(), Value::String(value.to_owned()));
    }
    for name in args.branch.iter().filter(|_| !args.no_bindings).chain(&args.bind_ref) {
        builder = builder.bind(name);
    }
    if args.generate_sizes {
        builder.record_sizes(repo)?;
    }
    let commit = builder.write(repo)?;
    if let Some(branch) = &args.branch {
        repo.set_ref(branch, &commit)?;
    }
    let stats = imported.stats;
    eprintln!("{} files, {} bytes; {} files, {} bytes new", stats.files, stats.bytes, stats.new_files, stats.new_bytes);
    println!("{commit}");
    Ok(Exit::Done)
}
