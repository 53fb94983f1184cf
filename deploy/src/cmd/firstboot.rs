//! `host firstboot`: run by `slipway-firstboot.service` at each boot.

use ::deploy::firstboot;
use sys::{Exit, clock};

use super::print_json;
use super::session::Root;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print what was applied as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(root: &Root, args: Args) -> anyhow::Result<Exit> {
    let outcome = firstboot::run(root.paths().root(), clock::now())?;
    for entry in outcome.record.ignored.iter().filter(|_| outcome.first) {
        eprintln!("credential {} ({}) is ignored: {}", entry.name, entry.source, entry.what);
    }
    if outcome.way_in.is_none() {
        eprintln!("nobody can log in to this machine: no account has an SSH key or a password");
    }
    if args.json {
        let mut value = serde_json::to_value(&outcome.record)?;
        value["first"] = outcome.first.into();
        value["way_in"] = serde_json::to_value(&outcome.way_in)?;
        print_json(&value);
    }
    Ok(Exit::Done)
}
