//! `repo gpg-sign`: adds GPG signatures to a commit, or takes them away.

use std::path::PathBuf;

use store::sign::gpg::{self as openpgp, KEY};
use store::{Checksum, Repo, Value};
use sys::Exit;

use super::{At, gpg};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    commit: String,
    /// Keys of GnuPG.
    #[arg(required = true, value_name = "KEY-ID")]
    keys: Vec<String>,
    /// Take away the signatures of these keys.
    #[arg(short, long)]
    delete: bool,
    /// GnuPG's directory.
    #[arg(long, value_name = "HOMEDIR")]
    gpg_homedir: Option<PathBuf>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = at.open()?;
    let commit = repo.resolve(&args.commit)?;
    if args.delete {
        println!("Signatures deleted: {}", delete(&repo, &commit, &args.keys)?);
    } else {
        sign(&repo, &commit, &args.keys, args.gpg_homedir.as_deref())?;
    }
    Ok(Exit::Done)
}

/// Signs a commit with each key.
pub fn sign(repo: &Repo, commit: &Checksum, keys: &[String], home: Option<&std::path::Path>) -> anyhow::Result<()> {
    let bytes = repo.load_commit(commit)?.bytes;
    let mut detached = repo.load_detached(commit)?.unwrap_or_default();
    gpg::refuse_second(&bytes, &detached, keys)?;
    for key in keys {
        openpgp::add_signature(&mut detached, &bytes, key, home)?;
    }
    repo.write_detached(commit, &detached)?;
    Ok(())
}

/// Takes away the signatures of keys that remotes or all of them trust: whose a signature is, its key tells.
fn delete(repo: &Repo, commit: &Checksum, names: &[String]) -> anyhow::Result<usize> {
    let bytes = repo.load_commit(commit)?.bytes;
    let mut detached = repo.load_detached(commit)?.unwrap_or_default();
    let keyring = gpg::all_keys(repo, None)?;
    let reports = keyring.report(&bytes, &detached)?;
    let keys = gpg::fingerprints(&keyring, names)?;
    let Some(Value::BytesArray(signatures)) = detached.get_mut(KEY) else { return Ok(0) };
    let of_these = |at: usize| {
        let primary = reports.get(at).and_then(|report| report.primary());
        primary.is_some_and(|primary| keys.iter().flatten().any(|key| key == primary))
    };
    let before = signatures.len();
    let kept = std::mem::take(signatures).into_iter().enumerate().filter(|(at, _)| !of_these(*at));
    *signatures = kept.map(|(_, signature)| signature).collect();
    let deleted = before - signatures.len();
    if signatures.is_empty() {
        detached.remove(KEY);
    }
    if deleted > 0 {
        repo.write_detached(commit, &detached)?;
    }
    Ok(deleted)
}
