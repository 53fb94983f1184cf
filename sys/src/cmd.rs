//! Child processes.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// A child process to run: arguments, environment, directory, standard input.
///
/// Every way of running it returns an error that shows the command as a line that can be pasted into a shell, and the
/// end of what it wrote to stderr.
#[derive(Clone, Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    clear_env: bool,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
}

/// What a command left behind: a child process here, or one in a virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 + signal number where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without trailing white space.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without trailing white space.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

/// Why a child process did not do its job.
#[derive(Debug, thiserror::Error)]
pub enum CmdError {
    /// It could not be started.
    #[error("cannot run `{line}`")]
    Start {
        /// The command as a shell line.
        line: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It ended with another exit code than 0.
    #[error("`{line}` ended with {code}{}", tail_text(.stderr))]
    Failed {
        /// The command as a shell line.
        line: String,
        /// Exit code, 128 + signal for a signal.
        code: i32,
        /// The end of its standard error.
        stderr: String,
    },
}

fn tail_text(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(":\n{stderr}") }
}

impl Cmd {
    /// A command that runs `program`, looked up in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Cmd {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            clear_env: false,
            dir: None,
            stdin: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), None));
        self
    }

    /// Starts from an empty environment.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Runs in `dir`.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Feeds `bytes` to standard input (default: nothing).
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The command as a line for a shell.
    pub fn line(&self) -> String {
        let mut words = Vec::new();
        for (key, value) in &self.env {
            if let Some(value) = value {
                words.push(format!("{}={}", key.to_string_lossy(), quote(value)));
            }
        }
        words.push(quote(&self.program));
        words.extend(self.args.iter().map(|a| quote(a)));
        words.join(" ")
    }

    /// The `std` command, for callers that manage the child themselves (long-running ones, inherited descriptors).
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn to_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        if self.clear_env {
            command.env_clear();
        }
        for (key, value) in &self.env {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn start_error(&self, source: std::io::Error) -> CmdError {
        CmdError::Start { line: self.line(), source }
    }

    /// Runs it, collects stdout and stderr; any exit code is fine.
    pub fn output(&self) -> Result<Output, CmdError> {
        let mut command = self.to_command();
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| self.start_error(e))?;
        let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = std::thread::scope(|scope| {
            if let (Some(pipe), Some(bytes)) = (stdin.take(), self.stdin.as_deref()) {
                scope.spawn(move || {
                    let mut pipe = pipe;
                    // The child may close its end early; its exit code tells what matters.
                    let _ = pipe.write_all(bytes);
                });
            }
            let err = scope.spawn(move || read_all(stderr));
            (read_all(stdout), err.join().unwrap_or_default())
        });
        let status = child.wait().map_err(|e| self.start_error(e))?;
        Ok(Output { code: code_of(status), stdout, stderr })
    }

    /// Runs it and wants exit code 0; returns what it wrote.
    pub fn run(&self) -> Result<Output, CmdError> {
        let output = self.output()?;
        if output.code == 0 { Ok(output) } else { Err(self.failed(output.code, &output.stderr)) }
    }

    /// Runs it with stdout and stderr inherited (stdout goes to our stderr: data alone belongs on stdout).
    pub fn run_shown(&self) -> Result<(), CmdError> {
        let mut command = self.to_command();
        command.stdin(Stdio::null());
        if let Ok(stderr) = rustix::io::dup(rustix::stdio::stderr()) {
            command.stdout(Stdio::from(stderr));
        }
        let status = command.status().map_err(|e| self.start_error(e))?;
        if status.success() { Ok(()) } else { Err(self.failed(code_of(status), b"")) }
    }

    fn failed(&self, code: i32, stderr: &[u8]) -> CmdError {
        CmdError::Failed { line: self.line(), code, stderr: tail(stderr) }
    }
}

fn read_all(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // A read error ends the text early; the exit code still decides.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The last 30 lines.
fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_a_line_for_the_shell_and_the_end_of_stderr() {
        let error = Cmd::new("sh").args(["-c", "echo bad luck >&2; exit 3"]).run().unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'echo bad luck >&2; exit 3'` ended with 3:\nbad luck");
    }

    #[test]
    fn large_input_and_output_do_not_deadlock() {
        let bytes = vec![b'x'; 4 << 20];
        assert_eq!(Cmd::new("cat").stdin(bytes.clone()).run().unwrap().stdout, bytes);
    }

    #[test]
    fn a_signal_counts_from_128() {
        assert_eq!(Cmd::new("sh").args(["-c", "kill -9 $$"]).output().unwrap().code, 137);
    }
}
