//! `repo prune`: what no commit or ref needs goes.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use store::{Checksum, ObjectType, gc};
use sys::Exit;

use super::{At, parse, size};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what would go.
    #[arg(long, visible_alias = "dry-run")]
    no_prune: bool,
    /// Keep only what refs need; without this, every commit is kept.
    #[arg(long)]
    refs_only: bool,
    /// Parents of each kept commit to keep; -1 keeps all.
    #[arg(long, default_value_t = -1)]
    depth: i64,
    /// Delete this commit first.
    #[arg(long, value_name = "COMMIT")]
    delete_commit: Option<String>,
    /// Of each ref's history keep what is not older than this.
    #[arg(long, value_name = "DATE")]
    keep_younger_than: Option<String>,
    /// With --delete-commit: delete the static deltas to the commit, and not the commit.
    #[arg(long)]
    static_deltas_only: bool,
    /// A depth for one ref.
    #[arg(long, value_name = "BRANCH=DEPTH")]
    retain_branch_depth: Vec<String>,
    /// Prune the history of this ref only.
    #[arg(long, value_name = "BRANCH")]
    only_branch: Vec<String>,
    /// Look at commits only, and delete no other object.
    #[arg(long)]
    commit_only: bool,
    /// Commits to keep besides (not in the stock tool).
    #[arg(long, value_name = "REV")]
    keep: Vec<String>,
    /// Keep the commit of every ref below NAME, and nothing before it (not in the stock tool).
    #[arg(long, value_name = "NAME")]
    keep_tagged: Option<String>,
    /// As JSON (not in the stock tool).
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    match &args.delete_commit {
        Some(_) if args.no_prune => bail!("--delete-commit and --no-prune exclude each other"),
        Some(commit) => {
            let commit: Checksum = commit.parse().context("--delete-commit wants a whole checksum")?;
            if args.static_deltas_only {
                for name in store::delta::list(repo)?.into_iter().filter(|name| name.to == commit) {
                    store::delta::delete(repo, &name)?;
                }
            } else {
                gc::delete_commit(repo, &commit)?;
            }
        }
        None if args.static_deltas_only => bail!("--static-deltas-only needs --delete-commit"),
        None => {}
    }
    let keep = args.keep.iter().map(|rev| repo.resolve(rev)).collect::<Result<_, _>>()?;
    let younger_than = args.keep_younger_than.as_deref().map(parse::time).transpose()?;
    let branches = branches(args, repo)?;
    // These say what refs keep; they would say nothing if every commit were kept.
    let by_ref = !branches.is_empty() || younger_than.is_some() || !args.only_branch.is_empty();
    let options = gc::Options {
        keep,
        depth: u64::try_from(args.depth).ok(),
        branches,
        younger_than,
        tags: args.keep_tagged.as_ref().map(|name| name.trim_end_matches('/').to_owned()),
        all_commits: !args.refs_only && !by_ref && args.keep_tagged.is_none(),
        commits_only: args.commit_only,
        dry_run: args.no_prune,
        not_after: None,
    };
    let pruned = gc::prune(repo, &options)?;
    if !args.no_prune {
        // A delta to a commit that is gone serves nobody.
        for name in store::delta::list(repo)? {
            if !repo.has(ObjectType::Commit, &name.to) {
                store::delta::delete(repo, &name)?;
            }
        }
        // Nor does an update to one.
        store::update::prune(repo)?;
    }
    if args.json {
        println!("{}", serde_json::json!(pruned));
        return Ok(Exit::Done);
    }
    let what = if args.commit_only { " (commit only)" } else { "" };
    println!("Total{what} objects: {}", pruned.total);
    match (pruned.deleted, args.no_prune) {
        (0, _) => println!("No unreachable objects"),
        (n, true) => println!("Would delete: {n} objects, freeing {}", size::format(pruned.bytes)),
        (n, false) => println!("Deleted {n} objects, {} freed", size::format(pruned.bytes)),
    }
    Ok(Exit::Done)
}

/// The refs that have a depth of their own.
fn branches(args: &Args, repo: &store::Repo) -> anyhow::Result<BTreeMap<String, Option<u64>>> {
    let mut branches = BTreeMap::new();
    for text in &args.retain_branch_depth {
        let (name, depth) = text.rsplit_once('=').with_context(|| format!("{text} is not BRANCH=DEPTH"))?;
        let depth: i64 = depth.parse().with_context(|| format!("the depth of {text}"))?;
        branches.insert(name.to_owned(), u64::try_from(depth).ok());
    }
    if args.only_branch.is_empty() {
        return Ok(branches);
    }
    for name in &args.only_branch {
        repo.resolve(name)?;
    }
    for (name, _) in repo.ref_targets()? {
        if !args.only_branch.contains(&name) {
            branches.entry(name).or_insert(None);
        }
    }
    Ok(branches)
}
