//! `repo fsck`: what is damaged, and what is missing.

use serde_json::json;
use store::fsck as repo_fsck;
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Delete damaged objects, so that a pull fetches them again.
    #[arg(long)]
    delete: bool,
    /// Print nothing if all is well.
    #[arg(short, long)]
    quiet: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let report = repo_fsck::fsck(repo, &repo_fsck::Options { delete: args.delete, threads: 0 })?;
    if args.json {
        println!("{}", json!(report));
    } else {
        for p in &report.problems {
            println!("{} {}: {}{}", p.kind, p.checksum, p.why, if p.deleted { "; deleted" } else { "" });
        }
        if !args.quiet || !report.problems.is_empty() {
            let partial = if report.partial > 0 { format!(" ({} partial)", report.partial) } else { String::new() };
            let (commits, objects) = (report.commits, report.objects);
            eprintln!("{objects} objects, {commits} commits{partial}: {} problems", report.problems.len());
        }
    }
    Ok(if report.problems.is_empty() { Exit::Done } else { Exit::Failed })
}
