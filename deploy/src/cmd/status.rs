//! `host status`, `kargs`: verbs that only look.

use ::deploy::{json, status};
use serde_json::{Value, json};
use sys::Exit;

use super::print_json;
use super::session::{Access, Root, Session};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show everything that is known.
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct KargsArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(root: &Root, args: Args) -> anyhow::Result<Exit> {
    let status = match Session::open(root, "status", Access::Read) {
        Ok(session) => status::json(&session.machine),
        // The ESP is root's alone; what root saw last is there for everybody.
        Err(error) => match json::read::<Value>(&root.paths().status())? {
            Some(status) if !rustix::process::geteuid().is_root() => status,
            _ => return Err(error),
        },
    };
    if args.json {
        print_json(&status);
    } else {
        print!("{}", status::text(&status, args.verbose));
    }
    Ok(Exit::Done)
}

pub fn kargs(root: &Root, args: KargsArgs) -> anyhow::Result<Exit> {
    let session = Session::open(root, "kargs", Access::Read)?;
    let kargs = session
        .machine
        .booted_deployment()
        .and_then(|d| d.entries.first())
        .map(|found| found.entry.kargs())
        .unwrap_or_default();
    if args.json {
        print_json(&json!({"kargs": kargs.words()}));
    } else {
        println!("{kargs}");
    }
    Ok(Exit::Done)
}
