//! How a scenario ended.

use std::time::Duration;

/// The end of one scenario.
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
    /// The scenario's name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
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

/// `N passed, N failed, N skipped`.
pub fn closing_line(cases: &[Case]) -> String {
    let count = |wanted: fn(&Outcome) -> bool| cases.iter().filter(|c| wanted(&c.outcome)).count();
    format!(
        "{} passed, {} failed, {} skipped",
        count(|o| *o == Outcome::Passed),
        count(|o| matches!(o, Outcome::Failed(_))),
        count(|o| matches!(o, Outcome::Skipped(_))),
    )
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
        let case = |outcome| Case { name: String::new(), outcome, took: Duration::ZERO };
        let cases = [case(Outcome::Passed), case(Outcome::Skipped("x".into())), case(Outcome::Passed)];
        assert_eq!(closing_line(&cases), "2 passed, 0 failed, 1 skipped");
    }
}
