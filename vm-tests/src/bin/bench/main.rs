//! `make bench` and `make bench-store`: each hot path against the tool a user would otherwise pick, in the same run, on
//! the demo's tree.
//!
//! ```text
//! bench                  every group
//! bench store [ROW…]     the store's table, or some of its rows: commit recommit recommit-cached bare-user pull
//!                        update delta delta-kernel fsck composefs
//! bench compose          a compose against mmdebstrap
//! ```
//! Prints a table and writes the same to `target/bench/<group>.json`; some rows alone go to `store-rows.json`. Right after
//! another bench it waits some minutes (see `used`).

mod compose;
mod floor;
mod measure;
mod row;
mod store;
mod used;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use sys::Exit;

use row::Row;

/// Measures hot paths against the tools a user would otherwise pick.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    group: Option<Group>,
    /// How often each side runs.
    #[arg(long, default_value_t = 7, global = true)]
    runs: usize,
    /// The `slipway` binary (a release build).
    #[arg(long, default_value = "target/release/slipway", global = true)]
    slipway: PathBuf,
    /// The demo's artifacts, whose repository is measured.
    #[arg(long, default_value = "target/demo", global = true)]
    artifacts: PathBuf,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench", global = true)]
    output: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Group {
    /// The store: commit, pull, updates, fsck.
    Store {
        /// Rows; all without one.
        rows: Vec<String>,
    },
    /// Composing a tree.
    Compose,
    /// What the rows are compared with; they run it themselves.
    #[command(hide = true)]
    Floor(floor::Args),
}

fn main() -> ExitCode {
    sys::main_exit("bench", run(&Args::parse()))
}

fn run(args: &Args) -> Result<Exit> {
    if let Some(Group::Floor(floor)) = &args.group {
        floor::run(floor)?;
        return Ok(Exit::Done);
    }
    fs::create_dir_all(&args.output)?;
    let output = args.output.canonicalize()?;
    let slipway = args.slipway.canonicalize().context("build first: cargo build --release -p compose")?;
    let artifacts = args.artifacts.canonicalize().context("run `make demo` first: its tree is measured")?;
    let used = used::Used::new(&output)?;
    let store = |only: &[String]| {
        let rows = store::rows(&slipway, &artifacts.join("repo"), &output, args.runs, &used, only)?;
        // A part of the table must not replace the whole one.
        save(&output, if only.is_empty() { "store" } else { "store-rows" }, &rows)
    };
    let compose = || save(&output, "compose", &compose::rows(&slipway, &artifacts, &output, args.runs, &used)?);
    match &args.group {
        Some(Group::Store { rows }) => store(rows)?,
        Some(Group::Compose) => compose()?,
        Some(Group::Floor(_)) => {}
        None => {
            store(&[])?;
            compose()?;
        }
    }
    Ok(Exit::Done)
}

fn save(output: &Path, group: &str, rows: &[Row]) -> Result<()> {
    row::print(rows);
    sys::file::replace(&output.join(format!("{group}.json")), &serde_json::to_vec_pretty(rows)?, 0o644)?;
    Ok(())
}
