//! The command line: one module per verb, each with its `Args` and a `run`.

mod accept;
mod bundle;
mod compose;
mod image;
mod key;
mod promote;
mod publish;
mod repo;
mod serve;
mod sign;
mod updates;
mod vm;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use deploy::generate;
use sys::Exit;

/// Builds immutable container hosts: treefile to commit, to disk image, to a directory that any HTTP server can serve.
#[derive(Debug, Parser)]
#[command(name = "slipway", version)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

// One command line is read in the life of the program: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds a commit from a treefile.
    Compose(compose::Args),
    /// Makes a disk image from a commit.
    Image(image::Args),
    /// Makes and shows signing keys.
    Key(key::Args),
    /// Signs a commit.
    Sign(sign::Args),
    /// Writes a commit into a directory that any HTTP server can serve.
    Publish(publish::Args),
    /// Publishes a commit that is published already under another ref.
    Promote(promote::Args),
    /// Writes a commit into one file, for machines without a network.
    Bundle(bundle::Args),
    /// Serves a directory over HTTP, for tests and demonstrations.
    Serve(serve::Args),
    /// Looks into a repository.
    Repo(repo::Args),
    /// Writes shell completions and manual pages.
    #[command(hide = true)]
    Generate(generate::Args),
    /// Boots and drives test machines.
    Vm(vm::Args),
}

/// Reads the command line and runs one verb.
pub fn main() -> ExitCode {
    // A key may have come as a descriptor; whether it stays with us must not hang on what is run.
    if let Err(error) = sys::keep_descriptors_from_children() {
        return sys::main_exit("slipway", Err(anyhow::Error::new(error).context("reading /proc/self/fd")));
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    // `repo` answers as the stock tool does, exit codes included.
    let repo = args.get(1).is_some_and(|verb| verb == "repo");
    if let Some(text) = repo.then(|| repo::version(&args)).flatten() {
        print!("{text}");
        return ExitCode::SUCCESS;
    }
    let command = Cli::command().mut_subcommand("repo", repo::habits);
    let cli = command.try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    match cli {
        Err(error) if repo => ExitCode::from(repo::usage(&error).code()),
        Err(error) => error.exit(),
        Ok(Cli { verb: Verb::Repo(args) }) => ExitCode::from(repo::exit(repo::run(args)).code()),
        Ok(cli) => sys::main_exit("slipway", run(cli)),
    }
}

/// Runs one verb.
fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.verb {
        Verb::Compose(args) => compose::run(args),
        Verb::Image(args) => image::run(args),
        Verb::Key(args) => key::run(args),
        Verb::Sign(args) => sign::run(args),
        Verb::Publish(args) => publish::run(args),
        Verb::Promote(args) => promote::run(args),
        Verb::Bundle(args) => bundle::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Repo(args) => repo::run(args),
        Verb::Generate(args) => generate::run(args, Cli::command()),
        Verb::Vm(args) => vm::run(args),
    }
}
