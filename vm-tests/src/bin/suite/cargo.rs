//! What `cargo test` prints, read line by line.
//!
//! ```text
//!      Running tests/one.rs (target/debug/deps/one-…)       a test binary: a suite of the report
//! test a::b ... ok                                           a case
//! successes: / failures:
//! ---- a::b stdout ----                                      what it printed: a failure's text, or its saying that it
//! …                                                          DID NOT RUN
//! test result: ok. 1 passed; … finished in 0.51s             how long all of the suite's cases took together
//! ```
//! How long one test took is not told.

use std::time::Duration;

use vm_tests::junit::Suite;
use vm_tests::outcome::{Case, Outcome};

/// What a test prints that cannot be tried here, anywhere in a line.
const DID_NOT_RUN: &str = "DID NOT RUN";
/// Bytes of a failure's text; the end of it says the most.
const LONGEST: usize = 64 * 1024;

/// The reader.
#[derive(Default)]
pub struct CargoOutput {
    /// Whether test binaries of the heavy tier were told to do their work; without that they have not been tried.
    heavy: bool,
    suites: Vec<Suite>,
    /// The test whose output is being shown, as its place in the last suite.
    shown: Option<usize>,
    /// What it has shown so far.
    text: String,
}

impl CargoOutput {
    /// Nothing read so far.
    pub fn new(heavy: bool) -> CargoOutput {
        CargoOutput { heavy, ..CargoOutput::default() }
    }

    /// Reads the next line.
    pub fn line(&mut self, line: &str) {
        if let Some(name) = target_of(line) {
            self.end_of_text();
            self.suites.push(Suite { name, ..Suite::default() });
            return;
        }
        let Some(suite) = self.suites.last_mut() else { return };
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            let found = suite.cases.iter().position(|c| c.name == name);
            self.end_of_text();
            self.shown = found;
        } else if let Some(took) = took_of(line) {
            suite.took = Some(took);
            self.end_of_text();
        } else if self.shown.is_some() {
            // Whatever it is: tests print lines of other tests, too.
            self.text.push_str(line);
            self.text.push('\n');
        } else if let Some((name, outcome)) = outcome_of(line) {
            let skipped = suite.name.starts_with("heavy_") && !self.heavy && outcome == Outcome::Passed;
            let outcome = if skipped { Outcome::Skipped("only in the shard `heavy`".into()) } else { outcome };
            suite.cases.push(Case { class: suite.name.clone(), name: name.to_owned(), outcome, took: None });
        }
    }

    /// All that was read.
    pub fn finish(mut self) -> Vec<Suite> {
        self.end_of_text();
        // Most binaries have no test at all.
        self.suites.retain(|s| !s.cases.is_empty());
        self.suites
    }

    /// The text of a test is complete: it says why that has failed, or that nothing was tried.
    fn end_of_text(&mut self) {
        let text = std::mem::take(&mut self.text);
        let Some(case) = self.shown.take().and_then(|at| self.suites.last_mut()?.cases.get_mut(at)) else { return };
        match &case.outcome {
            Outcome::Failed(_) => case.outcome = Outcome::Failed(failure(&text)),
            Outcome::Passed => {
                if let Some(line) = text.lines().find(|l| l.contains(DID_NOT_RUN)) {
                    case.outcome = Outcome::Skipped(line.trim().to_owned());
                }
            }
            Outcome::Skipped(_) => {}
        }
    }
}

/// A failure's text: one line that says what was wrong, then all that the test printed, or the end of it.
fn failure(text: &str) -> String {
    // The list of names that follows is not the last test's.
    let text = text.split("\nfailures:\n").next().unwrap_or(text).trim_end();
    let mut from = text.len().saturating_sub(LONGEST);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let mut lines = text.lines().skip_while(|l| !(l.starts_with("thread '") && l.contains("panicked at")));
    let place = lines.next().and_then(|l| l.split_once("panicked at ")).map_or("", |(_, place)| place);
    let first = match lines.next() {
        Some(message) => format!("{place} {message}"),
        None => text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("it printed nothing").to_owned(),
    };
    format!("{}\n{}", first.trim(), &text[from..])
}

/// The test binary that the lines to come are about.
fn target_of(line: &str) -> Option<String> {
    // Cargo indents them; a test that prints such words seldom does.
    let rest = line.strip_prefix("     Running ").or_else(|| line.strip_prefix("   Doc-tests ").map(|_| line))?;
    if let Some(name) = rest.trim_start().strip_prefix("Doc-tests ") {
        return Some(format!("{name}-doc"));
    }
    // "unittests src/lib.rs (target/debug/deps/store-0123456789abcdef)"
    let name = rest.rsplit(['(', '/']).next()?.trim_end_matches(')');
    Some(name.rsplit_once('-').map_or(name, |(name, _)| name).to_owned())
}

fn outcome_of(line: &str) -> Option<(&str, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match outcome {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed("it printed nothing; see the log beside this report".into()),
        o if o.starts_with("ignored") => Outcome::Skipped(o.to_owned()),
        _ => return None,
    };
    // "src/lib.rs - sum (line 3)" and "it - should panic" are names, too.
    Some((name.strip_suffix(" - should panic").unwrap_or(name), outcome))
}

/// From "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.51s".
fn took_of(line: &str) -> Option<Duration> {
    let (_, seconds) = line.strip_prefix("test result: ")?.rsplit_once("; finished in ")?;
    Duration::try_from_secs_f64(seconds.strip_suffix('s')?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_tests::outcome::Count;

    const OUTPUT: &str = "\
   Compiling store v0.1.0
     Running unittests src/lib.rs (target/debug/deps/store-0123456789abcdef)

running 3 tests
test a::b ... ok
test a::c ... FAILED
test a::d - should panic ... ok

successes:

---- a::b stdout ----
a::b: DID NOT RUN: needs root

---- a::d stdout ----
test a::x ... FAILED
what did not run elsewhere


successes:
    a::b
    a::d

failures:

---- a::c stdout ----
before

thread 'a::c' panicked at store/src/a.rs:7:5:
left is not right
note: run with `RUST_BACKTRACE=1`


failures:
    a::c

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s

     Running tests/heavy_oracle.rs (target/debug/deps/heavy_oracle-0123456789abcdef)
test one ... ok
test two ... ok

successes:

---- two stdout ----
two DID NOT RUN: no such release


successes:
    one
    two

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 60.00s

     Running unittests src/main.rs (target/debug/deps/empty-0123456789abcdef)

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests store

running 1 test
test store/src/lib.rs - sum (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
";

    fn read(heavy: bool) -> Vec<Suite> {
        let mut output = CargoOutput::new(heavy);
        OUTPUT.lines().for_each(|line| output.line(line));
        output.finish()
    }

    fn count(suites: &[Suite]) -> Count {
        let mut count = Count::default();
        suites.iter().for_each(|s| count += Count::of(&s.cases));
        count
    }

    #[test]
    fn outcomes_and_times_are_read_from_what_cargo_prints() {
        let suites = read(true);
        assert_eq!(count(&suites), Count { passed: 3, failed: 1, skipped: 2 });
        let told: Vec<(&str, usize, f64)> =
            suites.iter().map(|s| (&*s.name, s.cases.len(), s.took.unwrap().as_secs_f64())).collect();
        assert_eq!(told, [("store", 3, 1.25), ("heavy_oracle", 2, 60.0), ("store-doc", 1, 0.2)]);
        assert_eq!((&*suites[0].cases[2].name, &suites[0].cases[2].outcome), ("a::d", &Outcome::Passed));
        assert_eq!(suites[1].cases[1].outcome, Outcome::Skipped("two DID NOT RUN: no such release".into()));
    }

    #[test]
    fn a_test_that_did_not_run_is_not_green_in_any_shard() {
        let why = Outcome::Skipped("a::b: DID NOT RUN: needs root".into());
        assert_eq!((&read(true)[0].cases[0].outcome, &read(false)[0].cases[0].outcome), (&why, &why));
    }

    #[test]
    fn a_heavy_test_that_was_not_told_to_work_is_not_green() {
        assert_eq!(count(&read(false)), Count { passed: 2, failed: 1, skipped: 3 });
    }

    #[test]
    fn a_failure_says_what_the_test_printed() {
        let suites = read(true);
        let Outcome::Failed(text) = &suites[0].cases[1].outcome else { panic!("{:?}", suites[0].cases[1]) };
        assert_eq!(text.lines().next(), Some("store/src/a.rs:7:5: left is not right"));
        assert!(text.contains("\nbefore\n") && text.ends_with("RUST_BACKTRACE=1`"), "{text}");
    }

    #[test]
    fn a_test_that_never_ends_printing_keeps_its_end() {
        let text = failure(&format!("{}é the end", "ü".repeat(LONGEST)));
        assert!(text.ends_with("é the end") && text.len() < 4 * LONGEST);
        assert_eq!(failure("").lines().next(), Some("it printed nothing"));
    }

    #[test]
    fn a_binary_that_dies_keeps_what_was_read_of_it() {
        let mut output = CargoOutput::new(true);
        OUTPUT.lines().take_while(|l| !l.starts_with("left")).for_each(|line| output.line(line));
        let suites = output.finish();
        assert!(matches!(&suites[0].cases[1].outcome, Outcome::Failed(text) if text.contains("before")));
        assert_eq!(suites[0].took, None);
    }
}
