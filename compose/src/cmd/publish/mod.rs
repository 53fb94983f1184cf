//! `slipway publish`: a commit becomes available in a directory that any HTTP server can serve, here or on another
//! machine.
//!
//! ```text
//! objects → commit → signatures → sizes, deltas, updates → ref → the summary's signature, summary → prune → other machine
//! ```
//! A reader sees the old version or the new one whole: nothing that it begins with names what is not there yet.
//! Interrupted, the next run goes on where this one ended. Pruning spares what a client may still be reading.

pub mod grace;
mod nginx;
mod rsync;
mod s3;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use store::pull::{self, LocalOptions, PullError};
use store::sign::{self, Keyring, SecretKey};
use store::{Checksum, Commit, Mode, Repo, summary, update};
use sys::{Exit, Refused, Reporter};

use super::accept::Accept;
use super::updates;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The ref to publish.
    #[arg(value_name = "REF")]
    name: String,
    /// The repository it is in.
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// The directory to publish into; an archive repository is created where there is none. Or a place on another
    /// machine (rsync://host/module, user@host:dir) or in an object store (s3://bucket/prefix).
    #[arg(value_name = "DIR")]
    target: String,
    /// The published repository on this machine, of which the other place gets a copy.
    #[arg(long, value_name = "DIR")]
    local: Option<PathBuf>,
    /// The address of the object store, if it is not Amazon's.
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    #[command(flatten)]
    accept: Accept,
    /// File with the secret key that signs the summary.
    #[arg(long, value_name = "FILE")]
    summary_key: Option<PathBuf>,
    /// Make the update that machines take from here: `auto` (what is published now), `never`, `empty` (for new
    /// machines), `last:N` versions, a version, or a commit.
    #[arg(long = "from", value_name = "VERSION", value_parser = updates::parse, default_value = "auto")]
    updates: Vec<updates::From>,
    /// Delete what no ref needs any more. Refs below `tags/` keep their commits.
    #[arg(long)]
    prune: bool,
    /// Commits of each ref that stay besides the newest.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "prune")]
    history: u64,
    /// Hours that what was replaced stays all the same: someone may be reading it.
    #[arg(long, value_name = "HOURS", default_value_t = 24, requires = "prune")]
    grace: u64,
    /// Write a configuration for nginx to this file.
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// Print what would be done.
    #[arg(long)]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let (dir, remote) = places(&args)?;
    let remote = remote.map(|to| Remote::open(to, args.s3_endpoint.as_deref())).transpose()?;
    let source = Repo::open(&args.repo)?;
    let commit = source.read_ref(&args.name)?.ok_or_else(|| {
        let why = format!("there is no ref {} in {}", args.name, args.repo.display());
        Refused::with_hint(why, format!("see `slipway repo refs --repo {}`", args.repo.display()))
    })?;
    let keyring = args.accept.keyring()?;
    let key = args.summary_key.as_deref().map(SecretKey::load).transpose().context("the key of the summary")?;
    check(&args, &source, &commit, &dir, keyring.as_ref())?;
    check_summary_key(&dir, key.as_ref())?;

    let objects = source.objects_of(&commit)?;
    let here = dir.join("objects").is_dir().then(|| Repo::open(&dir)).transpose()?;
    let new: Vec<_> = objects.iter().filter(|(k, c)| here.as_ref().is_none_or(|r| !r.has(*k, c))).collect();
    eprintln!("publish {} -> {}", args.name, args.target);
    eprintln!("  commit {commit}: {} objects, {} new", objects.len(), new.len());
    if args.dry_run {
        return Ok(Exit::Done);
    }

    let reporter = Reporter::new();
    let target = Repo::create(&dir, Mode::Archive)?;
    let step = reporter.step("publish", new.len() as u64);
    // Until the ref is set nothing needs the new objects: another prune waits.
    let shared = target.lock_shared()?;
    let progress = |p: &pull::Progress| step.reach(p.objects, None);
    let options = LocalOptions { keyring: keyring.as_ref(), progress: Some(&progress), ..LocalOptions::default() };
    let outcome = pull::local_with(&source, &target, &commit, &options)?;
    update::record_sizes(&target, &commit)?;
    let now = sys::clock::now();
    let published = target.read_ref(&args.name)?;
    let updates = updates::make(&source, &target, &args.updates, &commit, published, &reporter)?;
    grace::replaced(&target, &args.name, published.as_ref(), &commit, now)?;
    point(&target, &args.name, &commit, key.as_ref())?;
    drop(shared);
    step.transferred(outcome.fetched, outcome.bytes);
    let pruned = if args.prune {
        let step = reporter.step("prune", 0);
        let pruned = grace::prune(&target, args.history, args.grace.saturating_mul(3600), now)?;
        // A delta that went is in the summary no more.
        sign_summary(&target, key.as_ref())?;
        step.done(format!("{} of {} objects, {}", pruned.deleted, pruned.total, sys::size(pruned.bytes)));
        Some(pruned)
    } else {
        None
    };
    if let Some(remote) = remote {
        let step = reporter.step(format!("send to {}", args.target), 0);
        remote.send(&dir, args.prune)?;
        step.done(String::new());
    }
    if let Some(file) = &args.nginx {
        let root = std::fs::canonicalize(&dir).with_context(|| format!("resolving {}", dir.display()))?;
        sys::file::replace(file, nginx::config(&root).as_bytes(), 0o644)
            .with_context(|| format!("writing {}", file.display()))?;
    }
    if args.json {
        let result = serde_json::json!({
            "ref": args.name, "commit": commit, "objects": outcome.fetched, "bytes": outcome.bytes, "updates": updates,
            "signer": outcome.signer.map(|key| key.to_string()), "pruned": pruned,
        });
        println!("{result}");
    } else {
        println!("{commit}");
    }
    Ok(Exit::Done)
}

/// The published repository on this machine, and the place on another one that gets a copy.
fn places(args: &Args) -> anyhow::Result<(PathBuf, Option<&str>)> {
    match (&args.local, rsync::is_remote(&args.target) || s3::is_bucket(&args.target)) {
        (None, false) => Ok((args.target.clone().into(), None)),
        (Some(dir), true) => Ok((dir.clone(), Some(&args.target))),
        (None, true) => {
            let hint = "name the published repository on this machine with --local DIR; it is made where there is none";
            Err(Refused::with_hint(format!("{} is not on this machine", args.target), hint).into())
        }
        (Some(_), false) => Err(Refused::new("--local is for publishing to another place").into()),
    }
}

/// A place on another machine.
pub enum Remote {
    /// A directory there.
    Rsync(String),
    /// An object store.
    Bucket(s3::Store),
}

impl Remote {
    /// Understands its name; nothing is sent.
    pub fn open(target: &str, s3_endpoint: Option<&str>) -> anyhow::Result<Remote> {
        match (s3::is_bucket(target), rsync::is_remote(target)) {
            (true, _) => Ok(Remote::Bucket(s3::Store::open(target, s3_endpoint)?)),
            (false, true) => Ok(Remote::Rsync(target.to_owned())),
            (false, false) => Err(Refused::new(format!("{target} is not on another machine")).into()),
        }
    }

    /// Sends the published repository in `dir`; deletes there what is no longer here, where that is wanted.
    pub fn send(&self, dir: &Path, delete: bool) -> anyhow::Result<()> {
        match self {
            Remote::Rsync(target) => rsync::send(dir, target, delete),
            Remote::Bucket(store) => store.send(dir, delete),
        }
    }
}

/// Points a ref at a commit that is whole, and writes the summary. Clients that read the summary find every object of
/// what it names; those that read the ref do as well.
pub fn point(target: &Repo, name: &str, commit: &Checksum, key: Option<&SecretKey>) -> anyhow::Result<()> {
    target.set_ref(name, commit)?;
    sign_summary(target, key)
}

fn sign_summary(target: &Repo, key: Option<&SecretKey>) -> anyhow::Result<()> {
    let written = match key {
        Some(key) => summary::write_signed(target, key),
        None => summary::write(target),
    };
    written.context("writing the summary")
}

/// Refuses to write a summary without a signature over one that has some: whoever asks for one would be left outside.
pub fn check_summary_key(dir: &Path, key: Option<&SecretKey>) -> anyhow::Result<()> {
    if key.is_some() || !dir.join("summary.sig").exists() {
        return Ok(());
    }
    let hint = "name the key with --summary-key FILE; or delete summary.sig, if no machine asks for it";
    Err(Refused::with_hint(format!("the summary in {} is signed", dir.display()), hint).into())
}

fn sign_hint(commit: &Checksum, repo: &Path) -> String {
    format!("sign it: `slipway sign {commit} --repo {} --key FILE`", repo.display())
}

/// Refuses a commit that nobody signed.
pub fn signed(source: &Repo, commit: &Checksum, repo: &Path, allow_unsigned: bool) -> anyhow::Result<()> {
    let detached = source.load_detached(commit)?.unwrap_or_default();
    let signed = detached.get(sign::KEY).and_then(|v| v.as_bytes_array()).is_some_and(|s| !s.is_empty());
    if signed || allow_unsigned {
        return Ok(());
    }
    Err(Refused::with_hint(format!("commit {commit} is not signed"), sign_hint(commit, repo)).into())
}

/// Whether a ref may go back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It may.
    Any,
    /// It may not.
    NotOlder,
}

impl Age {
    /// What the command line says.
    pub fn of(accept: &Accept) -> Age {
        if accept.allow_downgrade { Age::Any } else { Age::NotOlder }
    }
}

/// Refuses a commit older than the one the ref points to.
pub fn check_age(target: &Repo, commit: &Commit, name: &str, age: Age) -> anyhow::Result<()> {
    let checksum = commit.checksum();
    let Some(current) = target.read_ref(name)?.filter(|current| age == Age::NotOlder && *current != checksum) else {
        return Ok(());
    };
    let current = target.load_commit(&current).context("reading what is published")?;
    if current.timestamp <= commit.timestamp {
        return Ok(());
    }
    let downgrade = PullError::Downgrade {
        commit: checksum,
        timestamp: commit.timestamp,
        than: current.checksum().to_string(),
        current: current.timestamp,
    };
    let hint = "machines refuse it too; --allow-downgrade publishes it all the same";
    Err(Refused::with_hint(downgrade.to_string(), hint).into())
}

/// Refuses what no machine would take.
fn check(args: &Args, source: &Repo, commit: &Checksum, dir: &Path, keyring: Option<&Keyring>) -> anyhow::Result<()> {
    let loaded = source.load_commit(commit)?;
    signed(source, commit, &args.repo, args.accept.allow_unsigned)?;
    if let Some(keyring) = keyring {
        let detached = source.load_detached(commit)?.unwrap_or_default();
        let hint = sign_hint(commit, &args.repo);
        keyring.verify(&loaded.bytes, &detached).map_err(|e| Refused::with_hint(e.to_string(), hint))?;
    }
    store::commit::check_binding(&loaded, &args.name).map_err(|e| Refused::new(e.to_string()))?;
    if !dir.join("objects").is_dir() {
        return Ok(());
    }
    check_age(&Repo::open(dir)?, &loaded, &args.name, Age::of(&args.accept))
}
