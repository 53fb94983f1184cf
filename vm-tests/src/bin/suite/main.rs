//! `make test` and `make test-full`: every test, one closing line, JUnit files under `target/test/`.
//!
//! ```text
//! shard        what                                                          report
//! quick        unit and process tests of the workspace (`cargo test`)        cargo.xml
//!   (= make    the steps of `make demo`                                      demo.xml
//!      test)   what only a booted machine can show                           scenarios.xml
//! heavy        test binaries called heavy_*: other tools as oracles, peers   heavy.xml
//! clean-trees  set-up, build and packages in clean Debian 12 and 13 trees    clean-trees.xml
//! scenarios    the longer half of the scenarios                              scenarios-full.xml
//! ```
//! `make test-full` is all four; each takes at most 80 minutes on two cores.

mod cargo;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use cargo::CargoOutput;
use clap::{Parser, ValueEnum};
use sys::{Cmd, Exit};
use vm_tests::junit::{self, Suite};
use vm_tests::outcome::{Case, Count, Outcome};

/// Runs the tests.
#[derive(Debug, Parser)]
struct Args {
    /// What to run.
    #[arg(required = true)]
    shards: Vec<Shard>,
    /// Where the binaries are.
    #[arg(long, default_value = "target/debug")]
    bin: PathBuf,
    /// Where the JUnit files go.
    #[arg(long, default_value = "target/test")]
    output: PathBuf,
    /// Artifacts of the demo, which the scenarios boot.
    #[arg(long, default_value = "target/demo")]
    artifacts: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shard {
    /// Everything that fits into 40 minutes on two cores.
    Quick,
    /// Comparisons with other tools, which take long or need other releases of Debian.
    Heavy,
    /// Clean Debian 12 and 13 root trees.
    CleanTrees,
    /// The longer half of the scenarios.
    Scenarios,
}

/// The test binary of the shard of that name.
const CLEAN_TREES: &str = "heavy_clean_trees";

fn main() -> ExitCode {
    sys::main_exit("suite", run(&Args::parse()))
}

fn run(args: &Args) -> Result<Exit> {
    fs::create_dir_all(&args.output).with_context(|| format!("creating {}", args.output.display()))?;
    let mut total = Count::default();
    let mut add = |name: &str, count: Count| {
        eprintln!("suite: {name}: {count}");
        total += count;
    };
    for shard in &args.shards {
        match shard {
            Shard::Quick => {
                add("cargo test", cargo_tests(args, "cargo", &["--workspace"], &[])?);
                let demo = demo(args)?;
                add("demo", demo);
                if demo.failed == 0 {
                    add("scenarios", scenarios(args, "quick", "scenarios")?);
                } else {
                    eprintln!("suite: the scenarios need the demo's artifacts and did not run");
                    add("scenarios", Count { failed: 1, ..Count::default() });
                }
            }
            Shard::Heavy => {
                let tests = ["--workspace", "--test", "heavy_*"];
                add("heavy", cargo_tests(args, "heavy", &tests, &["--skip", "clean_tree"])?);
            }
            Shard::CleanTrees => {
                add("clean-trees", cargo_tests(args, "clean-trees", &["-p", "vm-tests", "--test", CLEAN_TREES], &[])?);
            }
            Shard::Scenarios => {
                if !args.artifacts.join("result.json").exists() {
                    add("demo", demo(args)?);
                }
                add("scenarios", scenarios(args, "full", "scenarios-full")?);
            }
        }
    }
    let not_run = |shard: &&Shard| !args.shards.contains(shard);
    for shard in Shard::value_variants().iter().filter(not_run) {
        if let Some(name) = shard.to_possible_value() {
            eprintln!("suite: shard not run: {}", name.get_name());
        }
    }
    println!("{total}");
    Ok(if total.failed == 0 { Exit::Done } else { Exit::Failed })
}

/// Runs `cargo test` with its output shown, and reads the outcome of each test from it.
fn cargo_tests(args: &Args, report: &str, targets: &[&str], options: &[&str]) -> Result<Count> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let heavy = report != "cargo";
    let mut cmd = Cmd::new("sh").args(["-c", "exec \"$@\" 2>&1", "sh", &cargo, "test", "--locked", "--no-fail-fast"]);
    // What a test prints is looked through for its saying that it did not run.
    cmd = cmd.args(targets).arg("--").arg("--show-output").args(options);
    if heavy {
        cmd = cmd.env("SLIPWAY_HEAVY", "1");
    }
    let mut child = cmd.to_command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let (mut reader, mut text) = (CargoOutput::new(heavy), String::new());
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            reader.line(&line);
            text.push_str(&line);
            text.push('\n');
        }
    }
    let status = child.wait()?;
    let mut suites = reader.finish();
    if !status.success() && junit::count(&suites).failed == 0 {
        // A crate that does not build, or a test binary that died: never a green run.
        let last: Vec<&str> = text.lines().rev().take(40).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        let why = Outcome::Failed(format!("cargo test ended with {status}\n{last}"));
        suites.push(Suite::of("cargo", vec![case("cargo", "test", why)]));
    }
    fs::write(args.output.join(format!("{report}.log")), text)?;
    junit::write(&args.output.join(format!("{report}.xml")), report, &suites)?;
    Ok(junit::count(&suites))
}

fn case(class: &str, name: &str, outcome: Outcome) -> Case {
    Case { class: class.to_owned(), name: name.to_owned(), outcome, took: None }
}

/// Runs the demo; each of its steps is a case.
fn demo(args: &Args) -> Result<Count> {
    // Its exit code says no more than result.json, but a demo that dies before the first step must count.
    let outcome = Cmd::new(args.bin.join("demo"))
        .arg("--dir")
        .arg(&args.artifacts)
        .arg("--slipway")
        .arg(args.bin.join("slipway"))
        .run_shown();
    let mut cases = Vec::new();
    if let Ok(bytes) = fs::read(args.artifacts.join("result.json")) {
        let result: serde_json::Value = serde_json::from_slice(&bytes).context("reading result.json")?;
        for step in result["steps"].as_array().into_iter().flatten() {
            let outcome = match step["outcome"].as_str().unwrap_or("no outcome") {
                "ok" => Outcome::Passed,
                other => Outcome::Failed(other.to_owned()),
            };
            let took = step["seconds"].as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok());
            cases.push(Case { took, ..case("demo", step["name"].as_str().unwrap_or("?"), outcome) });
        }
    }
    if let Err(error) = outcome {
        if Count::of(&cases).failed == 0 {
            cases.push(case("demo", "demo", Outcome::Failed(error.to_string())));
        }
    }
    let suites = [Suite::of("demo", cases)];
    junit::write(&args.output.join("demo.xml"), "demo", &suites)?;
    Ok(junit::count(&suites))
}

/// Runs the scenarios of one tier, which write their own JUnit file and end with the closing line.
fn scenarios(args: &Args, tier: &str, report: &str) -> Result<Count> {
    let cmd = Cmd::new(args.bin.join("scenarios"))
        .args(["--tier", tier])
        .arg("--artifacts")
        .arg(&args.artifacts)
        .arg("--slipway")
        .arg(args.bin.join("slipway"))
        .arg("--dir")
        .arg(args.output.join(report))
        .arg("--junit")
        .arg(args.output.join(format!("{report}.xml")));
    let mut child =
        cmd.to_command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting scenarios")?;
    let mut count = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            match Count::parse(&line) {
                // Printed once, at the end, for all groups together.
                Some(found) => count = Some(found),
                None => println!("{line}"),
            }
        }
    }
    let status = child.wait()?;
    let mut count = count.unwrap_or(Count { failed: 1, ..Count::default() });
    if !status.success() && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}
