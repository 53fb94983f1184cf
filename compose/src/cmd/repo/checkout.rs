//! `repo checkout`: the files of a commit, in a directory.

use std::path::PathBuf;
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
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

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let commit = repo.resolve(&args.rev)?;
    let options = store::checkout::Options { user: args.user_mode, threads: 0 };
    store::checkout::checkout(repo, &commit, &args.subpath, &args.dir, &options)?;
    Ok(Exit::Done)
}
