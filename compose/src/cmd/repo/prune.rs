//! `repo prune`: what no ref needs goes.

use store::gc;
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Parents of each ref's commit to keep; -1 keeps all.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    depth: i64,
    /// Commits to keep besides.
    #[arg(long, value_name = "REV")]
    keep: Vec<String>,
    /// Only say what would go.
    #[arg(long, visible_alias = "no-prune")]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let keep = args.keep.iter().map(|rev| repo.resolve(rev)).collect::<Result<_, _>>()?;
    let options = gc::Options { keep, depth: u64::try_from(args.depth).ok(), dry_run: args.dry_run };
    let pruned = gc::prune(repo, &options)?;
    if args.json {
        println!("{}", serde_json::json!(pruned));
    } else {
        let verb = if args.dry_run { "would be deleted" } else { "deleted" };
        eprintln!("{} of {} objects {verb}, {} bytes", pruned.deleted, pruned.total, pruned.bytes);
    }
    Ok(Exit::Done)
}
