//! Exit codes and the last line of a failed program.

use std::process::ExitCode;

/// How a program ended. The numbers are part of the command-line interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: something failed.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: the request was understood and refused; nothing has changed.
    Refused,
    /// 77: nothing to do, where the caller asked to be told.
    Nothing,
    /// Another program's exit code, passed on (`slipway vm exec`).
    Child(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Nothing => 77,
            Exit::Child(code) => code,
        }
    }
}

/// An expected "no": the request was understood, and nothing has changed. Exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Why, in one sentence.
    pub reason: String,
    /// What to do about it, printed on a line of its own.
    pub hint: Option<String>,
}

impl Refused {
    /// A refusal with nothing to suggest.
    pub fn new(reason: impl Into<String>) -> Self {
        Refused { reason: reason.into(), hint: None }
    }

    /// A refusal with a suggestion.
    pub fn with_hint(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Refused { reason: reason.into(), hint: Some(hint.into()) }
    }
}

/// Prints an error once, as `program: outer: inner: cause`, and chooses the exit code.
pub fn main_exit(program: &str, result: anyhow::Result<Exit>) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        eprintln!("{program}: {error:#}");
        match error.downcast_ref::<Refused>() {
            Some(refused) => {
                if let Some(hint) = &refused.hint {
                    eprintln!("hint: {hint}");
                }
                Exit::Refused
            }
            None => Exit::Failed,
        }
    });
    ExitCode::from(exit.code())
}
