//! `repo gpg-sign`: adds GPG signatures to a commit.

use std::path::PathBuf;

use store::Repo;
use store::sign::gpg;
use sys::Exit;

use super::{At, left_out};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    commit: String,
    /// Keys of GnuPG.
    #[arg(required = true, value_name = "KEY-ID")]
    keys: Vec<String>,
    /// Left out.
    #[arg(short, long, hide = true)]
    delete: bool,
    /// GnuPG's directory.
    #[arg(long, value_name = "HOMEDIR")]
    gpg_homedir: Option<PathBuf>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    left_out(&[("gpg-sign --delete", args.delete)])?;
    let repo = at.open()?;
    sign(&repo, &repo.resolve(&args.commit)?, &args.keys, args.gpg_homedir.as_deref())?;
    Ok(Exit::Done)
}

/// Signs a commit with each key.
pub fn sign(
    repo: &Repo,
    commit: &store::Checksum,
    keys: &[String],
    home: Option<&std::path::Path>,
) -> anyhow::Result<()> {
    let bytes = repo.load_commit(commit)?.bytes;
    let mut detached = repo.load_detached(commit)?.unwrap_or_default();
    for key in keys {
        gpg::add_signature(&mut detached, &bytes, key, home)?;
    }
    repo.write_detached(commit, &detached)?;
    Ok(())
}
