//! `repo log`: a commit and those before it.

use serde_json::json;
use store::Error;

use super::describe::{commit_json, print_commit};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    rev: String,
    /// As JSON, newest first.
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let mut next = Some(repo.resolve(&args.rev)?);
    let mut all = Vec::new();
    while let Some(checksum) = next {
        let commit = match repo.load_commit(&checksum) {
            // Pulled without its history.
            Err(Error::Missing { .. }) if !all.is_empty() => {
                if !args.json {
                    println!("<< the history goes on at {checksum}, which is not here >>");
                }
                break;
            }
            commit => commit?,
        };
        next = commit.parent;
        if args.json {
            all.push(commit_json(repo, &checksum, &commit)?);
        } else {
            print_commit(&checksum, &commit);
            all.push(json!(null));
        }
    }
    if args.json {
        println!("{}", json!(all));
    }
    Ok(Exit::Done)
}
