//! `repo reset`: a ref points to an earlier commit.

use sys::{Exit, Refused};

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A ref that exists.
    #[arg(value_name = "REF")]
    name: String,
    /// Ref or commit.
    commit: String,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = at.open()?;
    if repo.read_ref(&args.name)?.is_none() {
        return Err(Refused::new(format!("there is no ref {}", args.name)).into());
    }
    repo.set_ref(&args.name, &repo.resolve(&args.commit)?)?;
    Ok(Exit::Done)
}
