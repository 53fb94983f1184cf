//! The command line: one module for each verb, or for a few that belong together.

mod boot;
mod change;
mod deploy;
mod firstboot;
mod fsck;
mod keys;
mod session;
mod status;
mod storage;
mod upgrade;

use std::path::PathBuf;

use ::deploy::generate;
use clap::{CommandFactory, Parser, Subcommand};
use sys::Exit;

use session::Root;

/// Keeps this machine running: verified updates that switch at a reboot, and the way back.
#[derive(Debug, Parser)]
#[command(name = "host", version, propagate_version = true)]
pub struct Cli {
    /// A directory laid out like a machine's `/`, for tests.
    #[arg(long, global = true, hide = true, default_value = "/", value_name = "PATH")]
    root: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows what runs, what boots next, what to go back to.
    Status(status::Args),
    /// Fetches the newest version and stages it for the next reboot.
    Upgrade(upgrade::Args),
    /// Makes the other deployment boot first.
    Rollback(change::RollbackArgs),
    /// Goes to a version or commit, on this machine or from the remote.
    Deploy(deploy::Args),
    /// Reboots; what is staged is switched to on the way.
    Reboot(change::RebootArgs),
    /// Keeps a deployment from being removed.
    Pin(change::PinArgs),
    /// Lets a pinned deployment go.
    Unpin(change::PinArgs),
    /// Removes deployments, kernels and objects that are no longer needed.
    Cleanup(change::CleanupArgs),
    /// Shows the kernel arguments.
    Kargs(status::KargsArgs),
    /// Reads every object, image and kernel, and says what is damaged.
    Fsck(fsck::Args),
    /// Shows or sets up the storage for containers.
    Storage(storage::Args),
    /// Applies first-boot credentials, and looks whether anybody can log in (done by a unit at each boot).
    #[command(name = "firstboot", after_long_help = firstboot::CREDENTIALS)]
    FirstBoot(firstboot::Args),
    /// Declares the running deployment good (done by a unit after each boot).
    Bless(boot::BlessArgs),
    /// Declares the running deployment bad and goes back to the other.
    Reject(boot::RejectArgs),
    /// Merges /etc and switches to what is staged (done by a unit at shutdown).
    Finalize(boot::FinalizeArgs),
    /// Reboots if another try may do better (done by units when a boot fails).
    #[command(hide = true)]
    BootFallback(boot::FallbackArgs),
    /// Writes shell completions and manual pages.
    #[command(hide = true)]
    Generate(generate::Args),
}

/// Runs one verb.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    let root = Root::new(cli.root);
    match cli.verb {
        Verb::Status(args) => status::run(&root, args),
        Verb::Upgrade(args) => upgrade::run(&root, args),
        Verb::Rollback(args) => change::rollback(&root, args),
        Verb::Deploy(args) => deploy::run(&root, args),
        Verb::Reboot(args) => change::reboot(&root, args),
        Verb::Pin(args) => change::pin(&root, args, true),
        Verb::Unpin(args) => change::pin(&root, args, false),
        Verb::Cleanup(args) => change::cleanup(&root, args),
        Verb::Kargs(args) => status::kargs(&root, args),
        Verb::Storage(args) => storage::run(&root, args),
        Verb::FirstBoot(args) => firstboot::run(&root, args),
        Verb::Fsck(args) => fsck::run(&root, args),
        Verb::Bless(args) => boot::bless(&root, args),
        Verb::Reject(args) => boot::reject(&root, args),
        Verb::Finalize(args) => boot::finalize(&root, args),
        Verb::BootFallback(args) => boot::fallback(&root, args),
        Verb::Generate(args) => generate::run(args, Cli::command()),
    }
}

/// What is common to verbs that change something.
#[derive(Clone, Debug, clap::Args)]
pub struct ChangeArgs {
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints JSON on stdout.
fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}
