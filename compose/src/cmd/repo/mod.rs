//! `slipway repo`: looks into a repository, and works on one as the stock tools do, with their options' names.
//!
//! One file for each verb, with its `Args` and a `run`; the table below is the list of them.

mod describe;

use std::path::{Path, PathBuf};

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

/// What every verb is told besides its own arguments.
#[derive(Debug)]
pub struct At {
    path: Option<PathBuf>,
}

impl At {
    /// The directory of the repository.
    pub fn path(&self) -> anyhow::Result<&Path> {
        let refused = || Refused::new("which repository? Give --repo DIR");
        Ok(self.path.as_deref().ok_or_else(refused)?)
    }

    /// The repository.
    pub fn open(&self) -> anyhow::Result<Repo> {
        Ok(Repo::open(self.path()?)?)
    }
}

/// Makes of the table of verbs their modules, the command line, and the way from one to the other.
macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident($module:ident),)*) => {
        $(mod $module;)*

        #[derive(Debug, clap::Subcommand)]
        enum Verb {
            $($(#[$doc])* $verb($module::Args),)*
        }

        pub fn run(args: Args) -> anyhow::Result<Exit> {
            let at = At { path: args.repo };
            match &args.verb {
                $(Verb::$verb(args) => $module::run(&at, args),)*
            }
        }
    };
}

verbs! {
    /// Prints files of a commit.
    Cat(cat),
    /// Writes a commit's files to a directory.
    Checkout(checkout),
    /// Commits a directory.
    Commit(commit),
    /// Shows the paths that differ between two commits.
    Diff(diff),
    /// Reads every object and reports all that is damaged or missing.
    Fsck(fsck),
    /// Creates an empty repository.
    Init(init),
    /// Shows a commit and those before it.
    Log(log),
    /// Lists the files of a commit.
    Ls(ls),
    /// Deletes what no ref needs.
    Prune(prune),
    /// Fetches a ref from a remote or an address.
    Pull(pull),
    /// Copies a ref or commit from another repository on this machine.
    PullLocal(pull_local),
    /// Lists refs, or deletes one.
    Refs(refs),
    /// Shows what a commit says, and who signed it.
    Show(show),
    /// Makes, applies and lists static deltas.
    StaticDelta(static_delta),
}
