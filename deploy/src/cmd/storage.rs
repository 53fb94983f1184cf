//! `host storage`: the thin pool and the volume below `/var/lib/containers`.

use anyhow::Context;
use clap::Subcommand;
use runtime::storage::{self, execute, lvm, plan, status};
use sys::{Exit, Refused};

use super::session::Root;
use super::{ChangeArgs, print_json};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes what is missing: pool, volume, file system, mount (done by a unit at each boot).
    Setup(ChangeArgs),
    /// Shows how much there is and how full it is.
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(root: &Root, args: Args) -> anyhow::Result<Exit> {
    if !root.real() {
        return Err(Refused::new("storage is that of the running machine; it cannot be used with --root").into());
    }
    match args.verb {
        Verb::Setup(args) => setup(&args),
        Verb::Status(args) => show(&args),
    }
}

fn load() -> anyhow::Result<storage::Machine> {
    match lvm::load() {
        Ok(machine) => Ok(machine),
        Err(lvm::LoadError::NotLvm(path)) => Err(Refused::with_hint(
            format!("{path} is not on a logical volume, so this machine was not made from a Slipway image"),
            "run this on a Slipway host",
        )
        .into()),
        Err(lvm::LoadError::Io(path, _)) if path == "/sysroot" => {
            Err(Refused::with_hint("there is no /sysroot: this is not a Slipway host", "run this on a Slipway host")
                .into())
        }
        Err(error) => Err(error).context("reading the state of storage"),
    }
}

fn setup(args: &ChangeArgs) -> anyhow::Result<Exit> {
    let plan = plan::plan(&load()?)?;
    eprint!("{plan}");
    if !args.dry_run {
        execute::run(&plan).context("setting up container storage; `host storage setup` goes on where it stopped")?;
    }
    if args.json {
        print_json(&serde_json::to_value(&plan)?);
    }
    Ok(Exit::Done)
}

fn show(args: &StatusArgs) -> anyhow::Result<Exit> {
    let status = status::status(&load()?);
    if args.json {
        print_json(&serde_json::to_value(&status)?);
    } else {
        print!("{}", status::text(&status));
    }
    Ok(Exit::Done)
}
