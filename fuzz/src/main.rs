//! `fuzz NAME --seconds 60`: runs a target; `fuzz NAME FILE`: runs it on one input.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use fuzz::{Limit, TARGETS, drive, one};
use sys::Exit;

/// Fuzzes decoders.
#[derive(Debug, Parser)]
struct Args {
    /// The target; without it they are listed.
    target: Option<String>,
    /// An input to run instead.
    input: Option<PathBuf>,
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the random numbers begin; the time without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Where an input goes that fails.
    #[arg(long, default_value = "fuzz-failure")]
    save: PathBuf,
}

fn main() -> ExitCode {
    sys::main_exit("fuzz", run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<Exit> {
    let Some(name) = &args.target else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return Ok(Exit::Done);
    };
    let target = TARGETS.iter().find(|target| target.name == name).with_context(|| format!("no target {name}"))?;
    if let Some(path) = &args.input {
        let input = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        match one(target, &input) {
            Ok((outcome, peak)) => println!("{outcome} ({peak} bytes of memory)"),
            Err(failure) => bail!("{}", failure.why),
        }
        return Ok(Exit::Done);
    }
    let seed = args.seed.unwrap_or_else(sys::clock::now);
    match drive(target, seed, Limit::Time(Duration::from_secs(args.seconds))) {
        Ok(summary) => println!("{name}: {summary:?}"),
        Err(failure) => {
            std::fs::write(&args.save, &failure.input)?;
            bail!("{name}, seed {seed}: {}; the input is in {}", failure.why, args.save.display());
        }
    }
    Ok(Exit::Done)
}
