//! `slipway promote`: the commit that was tested is published under another ref. Nothing is built again and no object is
//! copied: the ref moves, and the summary with it.

use std::path::PathBuf;

use anyhow::Context as _;
use store::Repo;
use store::sign::SecretKey;
use sys::{Exit, Refused};

use super::accept::Accept;
use super::publish::{self, Age, Remote};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The commit: a ref, a checksum or the unique beginning of one.
    commit: String,
    /// The ref it is published under; the commit must say that it belongs to it (`ref-bindings` in the treefile).
    #[arg(long, value_name = "REF")]
    to: String,
    /// The published repository.
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    #[command(flatten)]
    accept: Accept,
    /// File with the secret key that signs the summary.
    #[arg(long, value_name = "FILE")]
    summary_key: Option<PathBuf>,
    /// Send the repository on to another machine (rsync://host/module, user@host:dir) or an object store (s3://bucket/prefix).
    #[arg(long, value_name = "TARGET")]
    send: Option<String>,
    /// The address of the object store, if it is not Amazon's.
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Print what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let repo = Repo::open(&args.repo)?;
    let key = args.summary_key.as_deref().map(SecretKey::load).transpose().context("the key of the summary")?;
    let remote = args.send.as_deref().map(|to| Remote::open(to, args.s3_endpoint.as_deref())).transpose()?;
    // Nobody prunes the commit before the ref keeps it.
    let shared = repo.lock_shared()?;
    let commit = repo.resolve(&args.commit)?;
    let loaded = repo.load_commit(&commit)?;
    publish::signed(&repo, &commit, &args.repo, args.accept.allow_unsigned)?;
    if let Some(keyring) = args.accept.keyring()? {
        let detached = repo.load_detached(&commit)?.unwrap_or_default();
        keyring.verify(&loaded.bytes, &detached).map_err(|e| Refused::new(e.to_string()))?;
    }
    let hint = "list the ref under `ref-bindings` in the treefile: a signed commit cannot be changed afterwards";
    store::commit::check_binding(&loaded, &args.to).map_err(|e| Refused::with_hint(e.to_string(), hint))?;
    if repo.is_partial(&commit) {
        return Err(Refused::new(format!("commit {commit} is not here whole")).into());
    }
    publish::check_age(&repo, &loaded, &args.to, Age::of(&args.accept))?;
    publish::check_summary_key(&args.repo, key.as_ref())?;
    let old = repo.read_ref(&args.to)?;
    eprintln!("promote {commit} -> {}", args.to);
    if args.dry_run {
        return Ok(Exit::Done);
    }
    publish::grace::replaced(&repo, &args.to, old.as_ref(), &commit, sys::clock::now())?;
    publish::point(&repo, &args.to, &commit, key.as_ref()).context("publishing the ref")?;
    drop(shared);
    if let Some(remote) = remote {
        remote.send(&args.repo, false)?;
    }
    println!("{commit}");
    Ok(Exit::Done)
}
