//! `make test` and `make test-full`: every test, one closing line, JUnit files under `target/test/`.
//!
//! ```text
//! cargo.xml      unit and process tests of the workspace (`cargo test`)
//! demo.xml       the steps of `make demo`
//! scenarios.xml  what only a booted machine can show (written by `scenarios`)
//! ```

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use sys::{Cmd, Exit};

/// Runs the tests of one tier.
#[derive(Debug, Parser)]
struct Args {
    /// What to run.
    tier: Tier,
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
enum Tier {
    /// Everything that fits into 40 minutes on two cores.
    Quick,
    /// The heavy tier too.
    Full,
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// One test as JUnit shows it.
struct Case {
    class: String,
    name: String,
    seconds: f64,
    outcome: Outcome,
}

enum Outcome {
    Passed,
    Failed(String),
    Skipped,
}

fn main() -> ExitCode {
    sys::main_exit("suite", run(&Args::parse()))
}

fn run(args: &Args) -> Result<Exit> {
    fs::create_dir_all(&args.output).with_context(|| format!("creating {}", args.output.display()))?;
    let mut total = Count::default();
    let mut add = |name: &str, count: Count| {
        eprintln!("suite: {name}: {} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
        total.passed += count.passed;
        total.failed += count.failed;
        total.skipped += count.skipped;
    };
    add("cargo test", cargo_tests(args)?);
    let demo = demo(args)?;
    add("demo", demo);
    if demo.failed == 0 {
        add("scenarios", scenarios(args)?);
    } else {
        eprintln!("suite: the scenarios need the demo's artifacts and did not run");
        add("scenarios", Count { failed: 1, ..Count::default() });
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(if total.failed == 0 { Exit::Done } else { Exit::Failed })
}

/// Runs `cargo test` with its output shown, and reads the outcome of each test from it.
fn cargo_tests(args: &Args) -> Result<Count> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut cmd = Cmd::new("sh").arg("-c").arg(format!("exec {cargo} test --workspace --locked --no-fail-fast 2>&1"));
    if args.tier == Tier::Full {
        cmd = cmd.env("SLIPWAY_HEAVY", "1");
    }
    let start = Instant::now();
    let mut child = cmd.to_command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let (mut cases, mut class, mut text) = (Vec::new(), String::new(), String::new());
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            if let Some(name) = target_of(&line) {
                class = name;
            } else if let Some(case) = case_of(&class, &line) {
                cases.push(case);
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
    let status = child.wait()?;
    if !status.success() && cases.iter().all(|c| !matches!(c.outcome, Outcome::Failed(_))) {
        // A crate that does not build, or a test binary that died: never a green run.
        let outcome = Outcome::Failed(format!("cargo test ended with {status}"));
        cases.push(Case { class: "cargo".into(), name: "test".into(), seconds: 0.0, outcome });
    }
    fs::write(args.output.join("cargo.log"), text)?;
    write_junit(&args.output.join("cargo.xml"), "cargo", &cases, start.elapsed().as_secs_f64())
}

/// The test binary that the lines to come are about.
fn target_of(line: &str) -> Option<String> {
    let rest = line.trim_start();
    let rest = rest.strip_prefix("Running ").or_else(|| rest.strip_prefix("Doc-tests "))?;
    // "unittests src/lib.rs (target/debug/deps/store-0123456789abcdef)"
    let name = rest.rsplit(['(', '/']).next()?.trim_end_matches(')');
    Some(name.rsplit_once('-').map_or(name, |(name, _)| name).to_owned())
}

fn case_of(class: &str, line: &str) -> Option<Case> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match outcome {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed("see cargo.log".into()),
        o if o.starts_with("ignored") => Outcome::Skipped,
        _ => return None,
    };
    Some(Case { class: class.to_owned(), name: name.to_owned(), seconds: 0.0, outcome })
}

/// Runs the demo; each of its steps is a case.
fn demo(args: &Args) -> Result<Count> {
    let start = Instant::now();
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
            let text = step["outcome"].as_str().unwrap_or("no outcome");
            cases.push(Case {
                class: "demo".into(),
                name: step["name"].as_str().unwrap_or("?").to_owned(),
                seconds: step["seconds"].as_f64().unwrap_or(0.0),
                outcome: if text == "ok" { Outcome::Passed } else { Outcome::Failed(text.to_owned()) },
            });
        }
    }
    if let Err(error) = outcome {
        if cases.iter().all(|c| !matches!(c.outcome, Outcome::Failed(_))) {
            let outcome = Outcome::Failed(error.to_string());
            cases.push(Case { class: "demo".into(), name: "demo".into(), seconds: 0.0, outcome });
        }
    }
    write_junit(&args.output.join("demo.xml"), "demo", &cases, start.elapsed().as_secs_f64())
}

/// Runs the scenarios, which write their own JUnit file and end with the closing line.
fn scenarios(args: &Args) -> Result<Count> {
    let cmd = Cmd::new(args.bin.join("scenarios"))
        .args(["--tier", if args.tier == Tier::Full { "full" } else { "quick" }])
        .arg("--artifacts")
        .arg(&args.artifacts)
        .arg("--slipway")
        .arg(args.bin.join("slipway"))
        .arg("--junit")
        .arg(args.output.join("scenarios.xml"));
    let mut child =
        cmd.to_command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting scenarios")?;
    let mut count = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            match closing_line(&line) {
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

fn closing_line(line: &str) -> Option<Count> {
    let mut count = Count::default();
    for part in line.split(", ") {
        let (number, word) = part.split_once(' ')?;
        let number = number.parse().ok()?;
        match word {
            "passed" => count.passed = number,
            "failed" => count.failed = number,
            "skipped" => count.skipped = number,
            _ => return None,
        }
    }
    Some(count)
}

fn write_junit(path: &Path, suite: &str, cases: &[Case], seconds: f64) -> Result<Count> {
    let mut count = Count::default();
    let mut body = String::new();
    for case in cases {
        let inner = match &case.outcome {
            Outcome::Passed => {
                count.passed += 1;
                String::new()
            }
            Outcome::Failed(why) => {
                count.failed += 1;
                format!("<failure message=\"{}\"/>", escape(why))
            }
            Outcome::Skipped => {
                count.skipped += 1;
                "<skipped/>".to_owned()
            }
        };
        let (class, name) = (escape(&case.class), escape(&case.name));
        body += &format!(
            "  <testcase classname=\"{class}\" name=\"{name}\" time=\"{:.1}\">{inner}</testcase>\n",
            case.seconds
        );
    }
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{suite}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" \
         time=\"{seconds:.1}\">\n{body}</testsuite>\n",
        cases.len(),
        count.failed,
        count.skipped
    );
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(count)
}

fn escape(text: &str) -> String {
    let control = |c: char| c.is_control() && c != '\n';
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace(control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_from_what_cargo_prints() {
        let target = target_of("     Running unittests src/lib.rs (target/debug/deps/store-0123456789abcdef)");
        assert_eq!(target.as_deref(), Some("store"));
        assert!(matches!(case_of("store", "test a::b ... ok").unwrap().outcome, Outcome::Passed));
        assert!(matches!(case_of("store", "test a::b ... FAILED").unwrap().outcome, Outcome::Failed(_)));
        assert!(case_of("store", "test result: ok. 3 passed").is_none());
    }

    #[test]
    fn the_closing_line_is_read() {
        assert_eq!(closing_line("3 passed, 1 failed, 0 skipped").map(|c| (c.passed, c.failed)), Some((3, 1)));
        assert!(closing_line("3 passed, 1 lost").is_none());
    }
}
