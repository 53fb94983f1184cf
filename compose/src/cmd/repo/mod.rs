//! `slipway repo`: looks into a repository, and works on one as the stock tools do, with their options' names.

mod change;
mod look;

use std::path::PathBuf;

use store::Repo;
use sys::{Exit, Refused};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository.
    #[arg(long, value_name = "DIR", global = true)]
    repo: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Creates an empty repository.
    Init(change::Init),
    /// Lists refs, or deletes one.
    Refs(look::Refs),
    /// Shows a commit and those before it.
    Log(look::Log),
    /// Lists the files of a commit.
    Ls(look::Ls),
    /// Prints files of a commit.
    Cat(look::Cat),
    /// Shows what a commit says, and who signed it.
    Show(look::Show),
    /// Shows the paths that differ between two commits.
    Diff(look::Diff),
    /// Reads every object and reports all that is damaged or missing.
    Fsck(look::Fsck),
    /// Deletes what no ref needs.
    Prune(change::Prune),
    /// Commits a directory.
    Commit(change::Commit),
    /// Fetches a ref from a remote or an address.
    Pull(change::Pull),
    /// Copies a ref or commit from another repository on this machine.
    PullLocal(change::PullLocal),
    /// Writes a commit's files to a directory.
    Checkout(change::Checkout),
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let Some(path) = args.repo else {
        return Err(Refused::new("which repository? Give --repo DIR").into());
    };
    if let Verb::Init(args) = args.verb {
        return change::init(&path, &args);
    }
    let repo = Repo::open(&path)?;
    match args.verb {
        Verb::Init(_) => Ok(Exit::Usage),
        Verb::Refs(args) => look::refs(&repo, &args),
        Verb::Log(args) => look::log(&repo, &args),
        Verb::Ls(args) => look::ls(&repo, &args),
        Verb::Cat(args) => look::cat(&repo, &args),
        Verb::Show(args) => look::show(&repo, &args),
        Verb::Diff(args) => look::diff(&repo, &args),
        Verb::Fsck(args) => look::fsck(&repo, &args),
        Verb::Prune(args) => change::prune(&repo, &args),
        Verb::Commit(args) => change::commit(&repo, &args),
        Verb::Pull(args) => change::pull(&repo, &args),
        Verb::PullLocal(args) => change::pull_local(&repo, &args),
        Verb::Checkout(args) => change::checkout(&repo, &args),
    }
}
