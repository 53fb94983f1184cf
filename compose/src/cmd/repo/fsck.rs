//! `repo fsck`: what is damaged, and what is missing.

use anyhow::{Context as _, bail};
use serde_json::json;
use store::{Checksum, Repo, fsck as repo_fsck, gc};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave a tombstone for each parent that is not here.
    #[arg(long)]
    add_tombstones: bool,
    /// Print errors only.
    #[arg(short, long)]
    quiet: bool,
    /// Go on after the first error; that is always so here.
    #[arg(short, long)]
    all: bool,
    /// Delete damaged objects, so that a pull fetches them again.
    #[arg(long)]
    delete: bool,
    /// Check that commits belong to the refs that point to them.
    #[arg(long)]
    verify_bindings: bool,
    /// Check that the refs a commit belongs to point to it.
    #[arg(long)]
    verify_back_refs: bool,
    /// As JSON (not in the stock tool).
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let say = |text: &str| {
        if !args.quiet && !args.json {
            println!("{text}");
        }
    };
    say("Validating refs...");
    if args.verify_bindings {
        bindings(repo)?;
    }
    say("Validating refs in collections...");
    say("Enumerating commits...");
    if args.verify_back_refs {
        back_refs(repo)?;
    }
    let whole = repo.commits()?.iter().filter(|commit| !repo.is_partial(commit)).count();
    say(&format!("Verifying content integrity of {whole} commit objects..."));
    let report = repo_fsck::fsck(repo, &repo_fsck::Options { delete: args.delete, ..Default::default() })?;
    if args.json {
        println!("{}", json!(report));
        return Ok(if report.problems.is_empty() { Exit::Done } else { Exit::Failed });
    }
    for p in &report.problems {
        eprintln!("{} {}: {}{}", p.kind, p.checksum, p.why, if p.deleted { "; deleted" } else { "" });
    }
    if args.add_tombstones {
        tombstones(repo)?;
    } else if report.partial > 0 {
        println!("{} partial commits not verified", report.partial);
    }
    if !report.problems.is_empty() {
        bail!("the repository is damaged: {} problems", report.problems.len());
    }
    println!("object fsck of {whole} commits completed successfully - no errors found.");
    Ok(Exit::Done)
}

fn bindings(repo: &Repo) -> anyhow::Result<()> {
    for (name, commit) in repo.ref_targets()? {
        let loaded = repo.load_commit(&commit).with_context(|| format!("the commit of ref {name}"))?;
        let name = name.split_once(':').map_or(name.as_str(), |(_, name)| name);
        store::commit::check_binding(&loaded, name)?;
    }
    Ok(())
}

fn back_refs(repo: &Repo) -> anyhow::Result<()> {
    for commit in repo.commits()? {
        for name in repo.load_commit(&commit)?.ref_bindings().unwrap_or_default() {
            match repo.resolve(name) {
                Ok(found) if found == commit => {}
                Ok(_) => bail!("ref {name}, which commit {commit} belongs to, points to another commit"),
                Err(_) => bail!("there is no ref {name}, which commit {commit} belongs to"),
            }
        }
    }
    Ok(())
}

/// The stock tool turns commits whose parent is missing into tombstones, as it did when histories were cut off by hand.
fn tombstones(repo: &Repo) -> anyhow::Result<()> {
    let here = repo.commits()?;
    let mut orphans: Vec<Checksum> = Vec::new();
    for commit in &here {
        let parent = repo.load_commit(commit)?.parent;
        if parent.is_some_and(|parent| here.binary_search(&parent).is_err()) {
            orphans.push(*commit);
        }
    }
    if !orphans.is_empty() {
        gc::enable_tombstones(repo)?;
    }
    for commit in orphans {
        println!("Adding tombstone for commit {commit}");
        repo.write_tombstone(&commit)?;
        repo.delete_object(store::ObjectType::Commit, &commit)?;
    }
    Ok(())
}
