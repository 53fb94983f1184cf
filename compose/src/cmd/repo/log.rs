//! `repo log`: a commit and those before it.

use serde_json::json;
use store::{Error, ObjectType};
use sys::Exit;

use super::At;
use super::describe::{commit_json, print_commit, raw_object};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    rev: String,
    /// The objects as they are.
    #[arg(long)]
    raw: bool,
    /// As JSON, newest first (not in the stock tool).
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let mut next = Some(repo.resolve(&args.rev)?);
    let mut all = Vec::new();
    let mut first = true;
    while let Some(checksum) = next {
        let commit = match repo.load_commit(&checksum) {
            // Pulled without its history.
            Err(Error::Missing { .. }) if !first => {
                if !args.json {
                    println!("<< History beyond this commit not fetched >>");
                }
                break;
            }
            commit => commit?,
        };
        first = false;
        next = commit.parent;
        if args.json {
            all.push(commit_json(repo, &checksum, &commit)?);
        } else if args.raw {
            println!("commit {checksum}");
            println!("{}", raw_object(ObjectType::Commit, &commit.bytes, store::text::Order::Big)?);
        } else {
            print_commit(&checksum, &commit);
        }
    }
    if args.json {
        println!("{}", json!(all));
    }
    Ok(Exit::Done)
}
