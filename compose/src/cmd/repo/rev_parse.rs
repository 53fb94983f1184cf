//! `repo rev-parse`: the commits that names stand for.

use anyhow::bail;
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Refs, or the beginnings of checksums.
    #[arg(value_name = "REV")]
    revs: Vec<String>,
    /// Print the only commit of the repository.
    #[arg(short = 'S', long)]
    single: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = at.open()?;
    if args.single {
        match (repo.commits()?.as_slice(), args.revs.is_empty()) {
            (_, false) => bail!("--single takes no names"),
            ([commit], _) => println!("{commit}"),
            ([], _) => bail!("there is no commit"),
            _ => bail!("there are several commits"),
        }
        return Ok(Exit::Done);
    }
    if args.revs.is_empty() {
        bail!("which REV?");
    }
    for rev in &args.revs {
        println!("{}", repo.resolve(rev)?);
    }
    Ok(Exit::Done)
}
