//! `repo pull-local`: refs of another repository on this machine.

use std::path::PathBuf;

use store::pull::{self, LocalOptions};
use store::{Checksum, Repo};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository to copy from.
    source: PathBuf,
    /// Refs, or commits by checksum; without any, every ref.
    refs: Vec<String>,
    /// Write refs/remotes/NAME, and not refs/heads.
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
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
