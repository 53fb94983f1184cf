//! `slipway vm`: boots and drives test machines.

mod drive;
mod list;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sys::Exit;
use vm::registry::Registry;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Boots a machine from a disk image, or from a ref or commit of a repository.
    Run(run::Args),
    /// Opens an SSH session, or runs one command over SSH.
    Ssh(drive::SshArgs),
    /// Runs a command in the machine without its network and passes its exit code on.
    Exec(drive::ExecArgs),
    /// Waits until the machine has come up.
    Wait(drive::WaitArgs),
    /// Lists the machines.
    List(list::ListArgs),
    /// Shows what the machine printed on its console.
    Logs(list::LogsArgs),
    /// Shuts a machine down.
    Stop(drive::StopArgs),
    /// Removes a kept machine that is off, with its disks.
    Rm(drive::RmArgs),
    /// Joins standard input and output with a TCP connection (QEMU runs this for `--guest-forward`).
    #[command(hide = true)]
    Connect(ConnectArgs),
}

#[derive(Debug, Parser)]
struct ConnectArgs {
    /// HOST:PORT
    address: String,
}

pub fn run(args: Args) -> Result<Exit> {
    match args.verb {
        Verb::Run(args) => run::run(args),
        Verb::Ssh(args) => drive::ssh(args),
        Verb::Exec(args) => drive::exec(args),
        Verb::Wait(args) => drive::wait(args),
        Verb::List(args) => list::list(args),
        Verb::Logs(args) => list::logs(args),
        Verb::Stop(args) => drive::stop(args),
        Verb::Rm(args) => drive::rm(args),
        Verb::Connect(args) => {
            vm::connect(&args.address)?;
            Ok(Exit::Done)
        }
    }
}

fn registry() -> Result<Registry> {
    Ok(Registry::of_user()?)
}

/// A duration in whole seconds, as in `--timeout 300`.
fn seconds(text: &str) -> Result<Duration, String> {
    text.trim_end_matches('s').parse().map(Duration::from_secs).map_err(|_| "a number of seconds".to_owned())
}

/// `NAME=FILE`.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("wanted NAME=FILE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Verb, clap::Error> {
        Ok(Line::try_parse_from(std::iter::once("vm").chain(line.split(' ')))?.args.verb)
    }

    #[test]
    fn a_command_stands_behind_two_dashes() {
        let Ok(Verb::Exec(args)) = parse("exec demo -- host status --json") else { panic!("not exec") };
        assert_eq!(args.name.as_deref(), Some("demo"));
        assert_eq!(args.command, ["host", "status", "--json"]);
        let Ok(Verb::Exec(args)) = parse("exec -- true") else { panic!("not exec") };
        assert_eq!((args.name, args.command.len()), (None, 1));
        assert!(parse("exec demo").is_err());
    }

    #[test]
    fn ephemeral_and_kept_exclude_each_other() {
        assert!(parse("run x.raw --ephemeral --keep").is_err());
        assert!(parse("run x.raw --keep --name a --forward 8080:80 --credential a=b --disk d.raw").is_ok());
        assert!(parse("run x.raw --forward 80").is_err());
        assert!(parse("run x.raw --credential a").is_err());
        assert!(parse("run x.raw --guest-forward 10.0.2.100:80=127.0.0.1:8080").is_ok());
        assert!(parse("run x.raw --guest-forward nowhere=127.0.0.1:8080").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(seconds("90"), Ok(Duration::from_secs(90)));
        assert_eq!(seconds("90s"), Ok(Duration::from_secs(90)));
        assert!(seconds("soon").is_err());
    }
}
