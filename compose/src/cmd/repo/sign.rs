//! `repo sign`: signatures of a commit that are not GPG's.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use store::sign::Signs as _;
use store::{Checksum, Dict, Repo, Value};
use sys::Exit;

use super::At;
use super::signer::{Kind, Public, Secret};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    commit: String,
    /// Secret keys to sign with, public keys to check with (base64). Every user of a machine can see them.
    #[arg(value_name = "KEY-ID")]
    keys: Vec<String>,
    /// Take away the signatures by these public keys.
    #[arg(short, long)]
    delete: bool,
    /// Check: one valid signature by one of the keys is enough.
    #[arg(long)]
    verify: bool,
    /// ed25519 or spki (or dummy, for tests).
    #[arg(short, long, default_value = "ed25519")]
    sign_type: String,
    /// Read keys from this file.
    #[arg(long, value_name = "NAME")]
    keys_file: Option<PathBuf>,
    /// Trusted and revoked keys are here, and not where the machine has them.
    #[arg(long, value_name = "NAME")]
    keys_dir: Option<PathBuf>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    if !args.verify && args.keys.is_empty() && args.keys_file.is_none() {
        bail!("no key to sign with");
    }
    let commit = &repo.resolve(&args.commit)?;
    let kind: Kind = args.sign_type.parse()?;
    let public = || Public::read(kind, &args.keys, args.keys_file.as_deref(), args.keys_dir.as_deref());
    if args.verify {
        let (bytes, signatures) = signed(repo, commit)?;
        println!("{}", public()?.find(&bytes, &signatures)?);
    } else if args.delete {
        delete(repo, commit, kind, &public()?)?;
    } else {
        add(repo, commit, &kind.secrets(&args.keys, args.keys_file.as_deref())?)?;
    }
    Ok(Exit::Done)
}

fn signed(repo: &Repo, commit: &Checksum) -> anyhow::Result<(Vec<u8>, Dict)> {
    Ok((repo.load_commit(commit)?.bytes, repo.load_detached(commit)?.unwrap_or_default()))
}

/// Signs a commit with every key, or with none if one of them cannot.
pub fn add(repo: &Repo, commit: &Checksum, keys: &[Secret]) -> anyhow::Result<()> {
    let (bytes, mut signatures) = signed(repo, commit)?;
    for key in keys {
        key.sign_into(&mut signatures, &bytes).map_err(|why| anyhow!("signing commit {commit}: {why}"))?;
    }
    if !keys.is_empty() {
        repo.write_detached(commit, &signatures)?;
    }
    Ok(())
}

/// Takes away the signatures by these keys.
fn delete(repo: &Repo, commit: &Checksum, kind: Kind, keys: &Public) -> anyhow::Result<()> {
    let (bytes, mut metadata) = signed(repo, commit)?;
    let name = kind.metadata_key();
    let all = metadata.get(name).and_then(|found| found.as_bytes_array()).unwrap_or_default().to_vec();
    let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|signature| keys.made(&bytes, signature));
    if gone.is_empty() {
        bail!("commit {commit} has no signature by one of these keys");
    }
    match kept.is_empty() {
        true => metadata.remove(name),
        false => metadata.insert(name.to_owned(), Value::BytesArray(kept)),
    };
    Ok(repo.write_detached(commit, &metadata)?)
}

