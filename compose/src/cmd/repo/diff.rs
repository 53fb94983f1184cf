//! `repo diff`: what differs between two commits.

use serde_json::json;
use store::diff as tree_diff;
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit before.
    from: String,
    /// Ref or commit after; without it FROM is compared with its parent.
    to: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let first = repo.resolve(&args.from)?;
    let (from, to) = match &args.to {
        Some(to) => (first, repo.resolve(to)?),
        None => (repo.resolve(&format!("{}^", args.from))?, first),
    };
    let changes = tree_diff::diff(repo, &from, &to)?;
    if args.json {
        let list: Vec<_> = changes.iter().map(|(path, change)| json!({ "path": path, "change": change })).collect();
        println!("{}", json!(list));
    } else {
        for (path, change) in changes {
            let letter = match change {
                tree_diff::Change::Added => 'A',
                tree_diff::Change::Removed => 'D',
                tree_diff::Change::Modified => 'M',
            };
            println!("{letter}    {path}");
        }
    }
    Ok(Exit::Done)
}
