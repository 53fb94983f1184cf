//! How a test ended: a scenario, a step of the demo, a test of cargo's.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// The end of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was as it should be.
    Passed,
    /// Something was not; the text says what.
    Failed(String),
    /// It could not be tried, for a reason that the reader can judge.
    Skipped(String),
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it belongs to: `scenarios`, `demo`, or the test binary.
    pub class: String,
    /// Its own name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, where that is known.
    pub took: Option<Duration>,
}

/// Returned as an error by a scenario that cannot be tried here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

impl Outcome {
    /// From what a scenario returned.
    pub fn of(result: anyhow::Result<()>) -> Outcome {
        match result {
            Ok(()) => Outcome::Passed,
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(Skip(reason)) => Outcome::Skipped(reason.clone()),
                None => Outcome::Failed(format!("{error:#}")),
            },
        }
    }
}

/// How many ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// As it should be.
    pub passed: usize,
    /// Not as it should be.
    pub failed: usize,
    /// Not tried.
    pub skipped: usize,
}

impl Count {
    /// Counts `cases`.
    pub fn of(cases: &[Case]) -> Count {
        let mut count = Count::default();
        for case in cases {
            match case.outcome {
                Outcome::Passed => count.passed += 1,
                Outcome::Failed(_) => count.failed += 1,
                Outcome::Skipped(_) => count.skipped += 1,
            }
        }
        count
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(line: &str) -> Option<Count> {
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
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// `N passed, N failed, N skipped`: the closing line.
impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_skip_is_neither_passed_nor_failed() {
        assert_eq!(Outcome::of(Err(Skip("no such tool".into()).into())), Outcome::Skipped("no such tool".into()));
        let wrapped: anyhow::Result<()> = Err(std::io::Error::other("cause")).context("outer");
        assert_eq!(Outcome::of(wrapped), Outcome::Failed("outer: cause".into()));
    }

    #[test]
    fn the_closing_line_counts_each() {
        let case = |outcome| Case { class: String::new(), name: String::new(), outcome, took: None };
        let cases = [case(Outcome::Passed), case(Outcome::Skipped("x".into())), case(Outcome::Passed)];
        let line = Count::of(&cases).to_string();
        assert_eq!(line, "2 passed, 0 failed, 1 skipped");
        assert_eq!(Count::parse(&line), Some(Count::of(&cases)));
        assert_eq!(Count::parse("3 passed, 1 lost"), None);
    }
}
