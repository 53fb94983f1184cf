//! The command line: one module per verb, each with its `Args` and a `run`.

mod compose;
mod generate;
mod image;
mod key;
mod publish;
mod repo;
mod serve;
mod sign;
mod vm;

use clap::{CommandFactory, Parser, Subcommand};
use sys::Exit;

/// Builds immutable container hosts: treefile to commit, to disk image, to a directory that any HTTP server can serve.
#[derive(Debug, Parser)]
#[command(name = "slipway", version)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

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

/// Runs one verb.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.verb {
        Verb::Compose(args) => compose::run(args),
        Verb::Image(args) => image::run(args),
        Verb::Key(args) => key::run(args),
        Verb::Sign(args) => sign::run(args),
        Verb::Publish(args) => publish::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Repo(args) => repo::run(args),
        Verb::Generate(args) => generate::run(args, Cli::command()),
        Verb::Vm(args) => vm::run(args),
    }
}
