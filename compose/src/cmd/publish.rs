//! `slipway publish`: a commit becomes available in a directory that any HTTP server can serve.

use std::path::PathBuf;

use anyhow::Context as _;
use store::commit::SIZES;
use store::pull::{self, LocalOptions, PullError};
use store::sign::Keyring;
use store::{Checksum, Mode, Repo, Value, summary};
use sys::{Exit, Refused, Reporter};

use super::updates;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The ref to publish.
    #[arg(value_name = "REF")]
    name: String,
    /// The repository it is in.
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// The directory to publish into; an archive repository is created where there is none.
    dir: PathBuf,
    /// File with public keys: publish only what one of them signed.
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// Publish a commit that nobody signed.
    #[arg(long)]
    allow_unsigned: bool,
    /// Publish a commit older than the one that is published.
    #[arg(long)]
    allow_downgrade: bool,
    /// Make the update that machines take from here: `auto` (what is published now), `never`, `empty` (for new
    /// machines), `last:N` versions, a version, or a commit.
    #[arg(long = "from", value_name = "VERSION", value_parser = updates::parse, default_value = "auto")]
    updates: Vec<updates::From>,
    /// Print what would be done.
    #[arg(long)]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let source = Repo::open(&args.repo)?;
    let commit = source.read_ref(&args.name)?.ok_or_else(|| {
        let why = format!("there is no ref {} in {}", args.name, args.repo.display());
        Refused::with_hint(why, format!("see `slipway repo refs --repo {}`", args.repo.display()))
    })?;
    let keyring = keyring(&args.keyring)?;
    check(&args, &source, &commit, keyring.as_ref())?;

    let objects = source.objects_of(&commit)?;
    let here = args.dir.join("objects").is_dir().then(|| Repo::open(&args.dir)).transpose()?;
    let new: Vec<_> = objects.iter().filter(|(k, c)| here.as_ref().is_none_or(|r| !r.has(*k, c))).collect();
    eprintln!("publish {} -> {}", args.name, args.dir.display());
    eprintln!("  commit {commit}: {} objects, {} new", objects.len(), new.len());
    if args.dry_run {
        return Ok(Exit::Done);
    }

    let reporter = Reporter::new();
    let target = Repo::create(&args.dir, Mode::Archive)?;
    let step = reporter.step("publish", new.len() as u64);
    let seen = std::sync::atomic::AtomicU64::new(0);
    let progress = |p: &pull::Progress| {
        let before = seen.fetch_max(p.objects, std::sync::atomic::Ordering::Relaxed);
        step.inc(p.objects.saturating_sub(before));
    };
    let options = LocalOptions { keyring: keyring.as_ref(), progress: Some(&progress), ..LocalOptions::default() };
    let outcome = pull::local_with(&source, &target, &commit, &options)?;
    record_sizes(&target, &commit)?;
    let published = target.read_ref(&args.name)?;
    let updates = updates::make(&source, &target, &args.updates, &commit, published, &reporter)?;
    // Clients that read the summary find every object of what it names; those that read the ref do as well.
    target.set_ref(&args.name, &commit)?;
    summary::write(&target)?;
    step.done(format!("{} objects, {} bytes", outcome.fetched, outcome.bytes));
    if args.json {
        let result = serde_json::json!({
            "ref": args.name, "commit": commit, "objects": outcome.fetched, "bytes": outcome.bytes, "updates": updates,
            "signer": outcome.signer.map(|key| key.to_string()),
        });
        println!("{result}");
    } else {
        println!("{commit}");
    }
    Ok(Exit::Done)
}

/// Writes the sizes of all objects beside the signatures, where the commit itself could not know them: a machine then
/// says how much it will fetch before it begins.
fn record_sizes(target: &Repo, commit: &Checksum) -> anyhow::Result<()> {
    let loaded = target.load_commit(commit)?;
    let mut detached = target.load_detached(commit)?.unwrap_or_default();
    if !loaded.metadata.contains_key(SIZES) && !detached.contains_key(SIZES) {
        let sizes = store::commit::sizes(target, &loaded.root_tree, &loaded.root_meta)?;
        detached.insert(SIZES.to_owned(), Value::BytesArray(sizes));
        target.write_detached(commit, &detached)?;
    }
    Ok(())
}

fn keyring(files: &[PathBuf]) -> anyhow::Result<Option<Keyring>> {
    let mut keyring = Keyring::default();
    for file in files {
        keyring.add_file(file)?;
    }
    Ok((!files.is_empty()).then_some(keyring))
}

/// Refuses what no machine would take.
fn check(args: &Args, source: &Repo, commit: &Checksum, keyring: Option<&Keyring>) -> anyhow::Result<()> {
    let loaded = source.load_commit(commit)?;
    let detached = source.load_detached(commit)?.unwrap_or_default();
    let signed = detached.get(store::sign::KEY).and_then(|v| v.as_bytes_array()).is_some_and(|s| !s.is_empty());
    let hint = format!("sign it: `slipway sign {commit} --repo {} --key FILE`", args.repo.display());
    if !signed && !args.allow_unsigned {
        return Err(Refused::with_hint(format!("commit {commit} is not signed"), hint).into());
    }
    if let Some(keyring) = keyring {
        keyring.verify(&loaded.bytes, &detached).map_err(|e| Refused::with_hint(e.to_string(), hint))?;
    }
    store::commit::check_binding(&loaded, &args.name).map_err(|e| Refused::new(e.to_string()))?;
    if args.allow_downgrade || !args.dir.join("objects").is_dir() {
        return Ok(());
    }
    let target = Repo::open(&args.dir)?;
    if let Some(current) = target.read_ref(&args.name)?.filter(|current| current != commit) {
        let current = target.load_commit(&current).context("reading what is published")?;
        if current.timestamp > loaded.timestamp {
            let downgrade = PullError::Downgrade {
                commit: *commit,
                timestamp: loaded.timestamp,
                than: current.checksum().to_string(),
                current: current.timestamp,
            };
            let hint = "machines refuse it too; --allow-downgrade publishes it all the same";
            return Err(Refused::with_hint(downgrade.to_string(), hint).into());
        }
    }
    Ok(())
}
