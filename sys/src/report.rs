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
            ProgressBar::new(total).with_style(style()).with_message(name.clone())
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

fn style() -> ProgressStyle {
    ProgressStyle::with_template("  {msg:24} [{bar:30}] {percent:>3}% {elapsed:>4}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress {
    /// Advances the bar.
    pub fn inc(&self, amount: u64) {
        self.bar.inc(amount);
    }

    /// Moves the bar to `done` of `total`, which may become known, or larger, while the step runs. Threads may tell in
    /// any order: the bar never goes back.
    pub fn reach(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total.filter(|total| Some(*total) != self.bar.length()) {
            if self.bar.length().is_none() {
                self.bar.set_style(style());
            }
            self.bar.set_length(total);
        }
        self.bar.inc(done.saturating_sub(self.bar.position()));
    }

    /// Ends a step that moved objects from one repository to another.
    pub fn transferred(self, objects: u64, bytes: u64) {
        self.done(format!("{objects} objects, {}", size(bytes)));
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

/// A size as people read it: `1 byte`, `999 bytes`, `1.2 kB`: powers of 1000, one digit, and before them a space that no line breaks at.
pub fn size(bytes: u64) -> String {
    match bytes {
        1 => return "1 byte".to_owned(),
        0..1000 => return format!("{bytes} bytes"),
        _ => {}
    }
    let mut size = bytes as f64 / 1000.0;
    for unit in ["kB", "MB", "GB", "TB", "PB"] {
        if size < 1000.0 {
            return format!("{size:.1}\u{a0}{unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.1}\u{a0}EB")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_one_digit_and_a_unit() {
        let cases = [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (61_940_000, "61.9 MB")];
        for (bytes, text) in cases {
            assert_eq!(super::size(bytes).replace('\u{a0}', " "), text);
        }
    }
}
