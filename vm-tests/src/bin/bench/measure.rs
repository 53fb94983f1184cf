//! One command, measured as a whole process by GNU time: seconds, CPU seconds, peak memory.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sys::Cmd;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Wall-clock seconds.
    pub wall: f64,
    /// Seconds in the processes themselves.
    pub user: f64,
    /// Seconds in the kernel for them.
    pub system: f64,
    /// Peak resident memory, MiB.
    pub peak_mib: f64,
}

impl Run {
    /// User and system seconds together.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// Runs a command once. It must succeed: a failed run is not a fast one.
pub fn once(cmd: &Cmd, scratch: &Path) -> Result<Run> {
    let report = scratch.join("time.txt");
    let timed = Cmd::new("/usr/bin/time").args(["-f", "%e %U %S %M", "-o"]).arg(&report).args(["sh", "-c"]);
    // `env`, because the line begins with the command's variables where it has some.
    let output = timed.arg(format!("exec env {}", cmd.line())).run()?;
    drop(output);
    let text = std::fs::read_to_string(&report).context("reading what time wrote")?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    ensure!(numbers.len() == 4, "time wrote {text:?}");
    Ok(Run { wall: numbers[0], user: numbers[1], system: numbers[2], peak_mib: numbers[3] / 1024.0 })
}

/// The middle value.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { values[values.len() / 2] }
}

/// (largest − smallest) ÷ median of the wall-clock times.
pub fn spread(runs: &[Run]) -> f64 {
    let walls = || runs.iter().map(|r| r.wall);
    (walls().fold(f64::MIN, f64::max) - walls().fold(f64::MAX, f64::min)) / median(walls())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_relative_to_the_median() {
        let run = |wall| Run { wall, user: wall, system: 0.0, peak_mib: 1.0 };
        assert_eq!(spread(&[run(1.0), run(2.0), run(3.0)]), 1.0);
    }
}
