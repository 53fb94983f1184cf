//! The verbs that write.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use store::commit::Builder;
use store::pull::{self, LocalOptions, Options, Remote};
use store::sign::Keyring;
use store::{Checksum, Mode, Repo, Value, gc, import};
use sys::{Exit, Refused, Reporter};

#[derive(Debug, clap::Args)]
pub struct Init {
    /// archive or bare-user.
    #[arg(long, default_value = "archive", value_parser = mode)]
    mode: Mode,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "archive" | "archive-z2" => Ok(Mode::Archive),
        "bare-user" => Ok(Mode::BareUser),
        _ => Err("archive or bare-user".to_owned()),
    }
}

pub fn init(path: &Path, args: &Init) -> anyhow::Result<Exit> {
    Repo::create(path, args.mode)?;
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Parents of each ref's commit to keep; -1 keeps all.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    depth: i64,
    /// Commits to keep besides.
    #[arg(long, value_name = "REV")]
    keep: Vec<String>,
    /// Only say what would go.
    #[arg(long, visible_alias = "no-prune")]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn prune(repo: &Repo, args: &Prune) -> anyhow::Result<Exit> {
    let keep = args.keep.iter().map(|rev| repo.resolve(rev)).collect::<Result<_, _>>()?;
    let options = gc::Options { keep, depth: u64::try_from(args.depth).ok(), dry_run: args.dry_run };
    let pruned = gc::prune(repo, &options)?;
    if args.json {
        println!("{}", serde_json::json!(pruned));
    } else {
        let verb = if args.dry_run { "would be deleted" } else { "deleted" };
        eprintln!("{} of {} objects {verb}, {} bytes", pruned.deleted, pruned.total, pruned.bytes);
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct Commit {
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
    /// Compute fs-verity digests in the same read and remember them.
    #[arg(long)]
    verity: bool,
}

fn tree(text: &str) -> Result<PathBuf, String> {
    text.strip_prefix("dir=").map(PathBuf::from).ok_or_else(|| "dir=DIR".to_owned())
}

pub fn commit(repo: &Repo, args: &Commit) -> anyhow::Result<Exit> {
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
    let options = import::Options { modify, verity: args.verity, ..import::Options::default() };
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

#[derive(Debug, clap::Args)]
pub struct Pull {
    /// A remote of the file config, or an address.
    remote: String,
    /// Refs, or commits by checksum.
    #[arg(required = true)]
    refs: Vec<String>,
    /// File with public keys: accept only what one of them signed.
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// Accept commits that nobody signed.
    #[arg(long)]
    allow_unsigned: bool,
    /// Accept a commit older than the one that is here.
    #[arg(long)]
    allow_downgrade: bool,
    /// Write refs/heads, as in a copy of the remote, and not refs/remotes.
    #[arg(long)]
    mirror: bool,
    /// Only say what would be fetched.
    #[arg(long)]
    dry_run: bool,
}

/// The address of a remote, and the keys its configuration asks for. Unsigned commits are accepted where the
/// configuration says that signatures are not to be checked.
fn remote(repo: &Repo, args: &Pull) -> anyhow::Result<(String, Option<Keyring>, bool)> {
    let mut keyring = Keyring::default();
    for file in &args.keyring {
        keyring.add_file(file)?;
    }
    let given = (!args.keyring.is_empty()).then_some(keyring);
    if args.remote.contains("://") {
        return Ok((args.remote.clone(), given, args.allow_unsigned));
    }
    let section = format!("remote \"{}\"", args.remote);
    let value = |key: &str| repo.config_value(&section, key);
    let url = value("url")?.ok_or_else(|| Refused::new(format!("there is no remote {} in config", args.remote)))?;
    let wanted = value("sign-verify")?.is_some_and(|v| v != "false");
    let unchecked = !wanted && value("gpg-verify")?.as_deref() == Some("false");
    let keyring = match given {
        Some(keyring) => Some(keyring),
        None if wanted => {
            let mut keyring = Keyring::load(Path::new("/"))?;
            if let Some(key) = value("verification-ed25519-key")? {
                keyring.trust(key.parse().with_context(|| format!("verification-ed25519-key of {}", args.remote))?);
            }
            if let Some(file) = value("verification-ed25519-file")? {
                keyring.add_file(Path::new(&file))?;
            }
            Some(keyring)
        }
        None => None,
    };
    Ok((url, keyring, args.allow_unsigned || unchecked))
}

pub fn pull(repo: &Repo, args: &Pull) -> anyhow::Result<Exit> {
    let (url, keyring, unsigned) = remote(repo, args)?;
    if keyring.is_none() && !unsigned {
        let hint = "name the keys with --keyring FILE, or accept unsigned commits with --allow-unsigned";
        return Err(Refused::with_hint("there is no key to check the commit's signature with", hint).into());
    }
    let name = (!args.mirror && !args.remote.contains("://")).then(|| args.remote.clone());
    let options = Options {
        refs: args.refs.clone(),
        remote: name,
        allow_downgrade: args.allow_downgrade,
        ..Options::new(url, "", keyring)
    };
    let mut plan = Vec::new();
    {
        let remote = Remote::open(&options)?;
        for name in &args.refs {
            let verified = remote.commit(name, repo)?;
            let missing = remote.missing(&verified, repo);
            let size = missing.map_or_else(String::new, |m| format!(": {} objects, {} bytes", m.objects, m.bytes));
            eprintln!("{name} {}{size}", verified.checksum);
            plan.push((name.clone(), verified, missing));
        }
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    let reporter = Reporter::new();
    for (name, verified, missing) in plan {
        let step = reporter.step(format!("pull {name}"), missing.map_or(0, |m| m.bytes));
        let seen = AtomicU64::new(0);
        let progress = |p: &pull::Progress| {
            let before = seen.fetch_max(p.bytes, Ordering::Relaxed);
            step.inc(p.bytes.saturating_sub(before));
        };
        let options = Options { progress: Some(&progress), ..options.clone() };
        let outcome = Remote::open(&options)?.fetch(&name, &verified, repo)?;
        println!("{}", outcome.commit);
        step.done(format!("{} objects, {} bytes", outcome.fetched, outcome.bytes));
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct PullLocal {
    /// The repository to copy from.
    source: PathBuf,
    /// Refs, or commits by checksum; without any, every ref.
    refs: Vec<String>,
    /// Write refs/remotes/NAME, and not refs/heads.
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
}

pub fn pull_local(repo: &Repo, args: &PullLocal) -> anyhow::Result<Exit> {
    let source = Repo::open(&args.source)?;
    let refs = if args.refs.is_empty() { source.refs()?.into_keys().collect() } else { args.refs.clone() };
    for name in refs {
        let commit = source.resolve(&name)?;
        let outcome = pull::local_with(&source, repo, &commit, &LocalOptions::default())?;
        if name.parse::<Checksum>().is_err() {
            let target = args.remote.as_ref().map_or_else(|| name.clone(), |remote| format!("{remote}:{name}"));
            repo.set_ref(&target, &commit)?;
        }
        eprintln!("{name}: {} objects, {} bytes", outcome.fetched, outcome.bytes);
        println!("{commit}");
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct Checkout {
    /// Ref or commit.
    rev: String,
    /// Where the files go; it must not exist.
    dir: PathBuf,
    /// Only this directory of the tree.
    #[arg(long, default_value = "/")]
    subpath: String,
    /// Leave owners and xattrs alone: what an ordinary user can do.
    #[arg(short = 'U', long)]
    user_mode: bool,
}

pub fn checkout(repo: &Repo, args: &Checkout) -> anyhow::Result<Exit> {
    let commit = repo.resolve(&args.rev)?;
    let options = store::checkout::Options { user: args.user_mode, threads: 0 };
    store::checkout::checkout(repo, &commit, &args.subpath, &args.dir, &options)?;
    Ok(Exit::Done)
}
