//! `repo cat`: files of a commit, on standard output.

use std::io;

use store::Entry;
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    rev: String,
    /// Files.
    #[arg(required = true)]
    paths: Vec<String>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let commit = repo.resolve(&args.rev)?;
    let mut out = io::stdout().lock();
    for path in &args.paths {
        match repo.lookup(&commit, path)? {
            Some(Entry::File { checksum }) => io::copy(&mut repo.open_file(&checksum)?.content, &mut out)?,
            Some(Entry::Dir { .. }) => anyhow::bail!("{path} is a directory"),
            None => anyhow::bail!("commit {commit} has no {path}"),
        };
    }
    Ok(Exit::Done)
}
