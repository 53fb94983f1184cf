//! Runs the scenarios, one after the other.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use sys::Exit;
use vm_tests::artifacts::Artifacts;
use vm_tests::context::Context;
use vm_tests::junit::{self, Suite};
use vm_tests::outcome::{Case, Count, Outcome};
use vm_tests::scenarios::{ALL, Scenario, Tier};
use vm_tests::world::{World, emulator_lost_a_timer, set_aside};

/// Boots machines and checks what only a booted machine can show.
#[derive(Debug, Parser)]
struct Args {
    /// Lists the scenarios that would run.
    #[arg(long)]
    list: bool,
    /// Only scenarios whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    filter: Vec<String>,
    /// Only scenarios of this tier.
    #[arg(long, value_enum)]
    tier: Option<Tier>,
    /// What `make demo` left.
    #[arg(long, default_value = "target/demo")]
    artifacts: PathBuf,
    /// The `slipway` binary.
    #[arg(long, default_value = "target/debug/slipway")]
    slipway: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/test/scenarios.xml")]
    junit: PathBuf,
    /// Where machines and logs lie.
    #[arg(long, default_value = "target/test/scenarios")]
    dir: PathBuf,
    /// Continues the machines of an earlier run with the same artifacts instead of booting new ones first.
    #[arg(long)]
    reuse: bool,
}

fn main() -> ExitCode {
    sys::main_exit("scenarios", run(&Args::parse()))
}

fn run(args: &Args) -> Result<Exit> {
    let wanted = |s: &&Scenario| {
        args.tier.is_none_or(|tier| s.tier == tier)
            && (args.filter.is_empty() || args.filter.iter().any(|f| s.name.contains(f.as_str())))
    };
    let chosen: Vec<&Scenario> = ALL.iter().filter(wanted).collect();
    if args.list {
        for scenario in chosen {
            println!("{:<20} {}", scenario.name, scenario.story);
        }
        return Ok(Exit::Done);
    }
    std::fs::create_dir_all(&args.dir).with_context(|| format!("creating {}", args.dir.display()))?;
    let slipway = args.slipway.canonicalize().with_context(|| format!("finding {}", args.slipway.display()))?;
    let mut world = World::new(Artifacts::load(&args.artifacts)?, slipway, args.dir.canonicalize()?);
    world.reuse = args.reuse;
    let mut suite = Suite::of("scenarios", Vec::new());
    for scenario in chosen {
        let start = Instant::now();
        let mut context = Context::new(&world, scenario.name)?;
        let mut outcome = play(scenario, &context);
        if matches!(outcome, Outcome::Failed(_)) && emulator_lost_a_timer(&context.dir) {
            eprintln!("  (again: the emulator lost a processor's timer in {}: {outcome:?})", scenario.name);
            set_aside(&context.dir);
            context = Context::new(&world, scenario.name)?;
            outcome = play(scenario, &context);
        }
        let case = Case {
            class: "scenarios".to_owned(),
            name: scenario.name.to_owned(),
            outcome,
            took: Some(start.elapsed()),
        };
        tell(&case, &context);
        // Written each time: a run that is cut off still leaves a report.
        suite.cases.push(case);
        junit::write(&args.junit, "scenarios", std::slice::from_ref(&suite))?;
    }
    let count = Count::of(&suite.cases);
    println!("{count}");
    Ok(if count.failed > 0 { Exit::Failed } else { Exit::Done })
}

fn play(scenario: &Scenario, context: &Context<'_>) -> Outcome {
    // A panic in one scenario is that scenario's failure.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (scenario.run)(context)));
    match result {
        Ok(result) => Outcome::of(result),
        Err(_) => Outcome::Failed("it panicked; see above".to_owned()),
    }
}

fn tell(case: &Case, context: &Context<'_>) {
    let (name, seconds) = (&case.name, case.took.unwrap_or_default().as_secs_f64());
    match &case.outcome {
        Outcome::Passed => {
            println!("ok      {name:<20} {seconds:>6.1} s");
            context.tidy();
        }
        Outcome::Skipped(why) => println!("skipped {name:<20} {seconds:>6.1} s  {why}"),
        Outcome::Failed(why) => {
            println!("FAILED  {name:<20} {seconds:>6.1} s  {why}");
            println!("        logs: {}", context.dir.display());
        }
    }
}
