//! Step lines and progress bars, on stderr.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Prints what a long command is doing: one line for each step, with its duration, when the step ends.
/// On a terminal a bar shows the step while it runs. Clones share the record of steps.
#[derive(Clone, Debug, Default)]
pub struct Reporter {
    quiet: bool,
    steps: Arc<Mutex<Vec<(String, Duration)>>>,
}

/// The step that is running. Dropping it without `done` leaves no line: the error that follows says what happened.
#[derive(Debug)]
pub struct Progress {
    name: String,
    start: Instant,
    bar: ProgressBar,
    reporter: Reporter,
}

impl Reporter {
    /// A reporter that writes to stderr.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reporter that only records.
    pub fn quiet() -> Self {
        Reporter { quiet: true, ..Self::default() }
    }

    /// Starts a step. `total` is in whatever unit `Progress::inc` will be given; 0 shows a spinner.
    pub fn step(&self, name: impl Into<String>, total: u64) -> Progress {
        let name = name.into();
        let bar = if self.quiet || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else if total == 0 {
            ProgressBar::new_spinner().with_message(name.clone())
        } else {
            let style = ProgressStyle::with_template("  {msg:24} [{bar:30}] {percent:>3}% {elapsed:>4}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_message(name.clone())
        };
        if total == 0 {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Progress { name, start: Instant::now(), bar, reporter: self.clone() }
    }

    /// Prints one line of information.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("  {}", text.as_ref());
        }
    }

    /// The steps that are done, in order.
    pub fn steps(&self) -> Vec<(String, Duration)> {
        self.steps.lock().map(|s| s.clone()).unwrap_or_default()
    }
}

impl Progress {
    /// Advances the bar.
    pub fn inc(&self, amount: u64) {
        self.bar.inc(amount);
    }

    /// Ends the step: its line is printed with `detail` and the time it took.
    pub fn done(self, detail: impl AsRef<str>) {
        let took = self.start.elapsed();
        self.bar.finish_and_clear();
        if !self.reporter.quiet {
            eprintln!("  {:<24} {:>7.1} s  {}", self.name, took.as_secs_f64(), detail.as_ref());
        }
        if let Ok(mut steps) = self.reporter.steps.lock() {
            steps.push((self.name.clone(), took));
        }
    }
}
