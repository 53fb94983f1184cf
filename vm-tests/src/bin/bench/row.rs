//! One line of the table, and of `target/bench/<group>.json`.
//!
//! A row compares sides (ours, the peer's, the floor) that take turns, so that whatever else the machine does hits all
//! of them. What is wanted of it is a list of checks: a ratio, its limit, and whether it was met.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use sys::Cmd;

use crate::measure::{self, Run};

/// Where the wall clock is noisier than this, CPU time decides.
const NOISY: f64 = 0.25;

/// What one side does: prepare (not timed), then the command that is timed.
pub struct Side<'a> {
    /// Run before each timed command.
    pub prepare: Box<dyn Fn() -> Result<()> + 'a>,
    /// The command.
    pub cmd: Cmd,
}

impl<'a> Side<'a> {
    /// A command that needs no preparation.
    pub fn plain(cmd: Cmd) -> Self {
        Side { prepare: Box::new(|| Ok(())), cmd }
    }

    /// A command and what is done before each run of it.
    pub fn new(prepare: impl Fn() -> Result<()> + 'a, cmd: Cmd) -> Self {
        Side { prepare: Box::new(prepare), cmd }
    }
}

/// The figures of one side.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Who.
    pub name: String,
    /// Median of the wall-clock seconds.
    pub wall_s: f64,
    /// Median of user and system seconds together.
    pub cpu_s: f64,
    /// Median of the seconds in the kernel, which are part of those.
    pub system_s: f64,
    /// Largest peak of resident memory.
    pub peak_mib: f64,
    /// (largest − smallest) ÷ median of the wall-clock seconds.
    pub spread: f64,
    /// Runs.
    pub runs: usize,
}

impl Figures {
    fn of(name: &str, runs: &[Run]) -> Self {
        Figures {
            name: name.to_owned(),
            wall_s: measure::median(runs.iter().map(|r| r.wall)),
            cpu_s: measure::median(runs.iter().map(Run::cpu)),
            system_s: measure::median(runs.iter().map(|r| r.system)),
            peak_mib: runs.iter().map(|r| r.peak_mib).fold(0.0, f64::max),
            spread: measure::spread(runs),
            runs: runs.len(),
        }
    }
}

/// One thing that is wanted of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    what: String,
    value: f64,
    reach: f64,
    /// Whether `value` must be at most `reach`; else at least.
    at_most: bool,
    met: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Check {
    /// `value` must be at least `reach`.
    pub fn at_least(what: impl Into<String>, value: f64, reach: f64) -> Self {
        Check { what: what.into(), value, reach, at_most: false, met: value >= reach, note: None }
    }

    /// `value` must be at most `reach`.
    pub fn at_most(what: impl Into<String>, value: f64, reach: f64) -> Self {
        Check { what: what.into(), value, reach, at_most: true, met: value <= reach, note: None }
    }

    /// The peer's time ÷ ours must be at least `reach`.
    pub fn faster(ours: &Figures, peer: &Figures, reach: f64) -> Self {
        let (wall, cpu) = (peer.wall_s / ours.wall_s, peer.cpu_s / ours.cpu_s);
        let check = Check::at_least(format!("faster than {}", peer.name), wall, reach);
        check.judge(ours, peer, cpu, cpu >= reach)
    }

    /// Our time ÷ the floor's must be at most `reach`.
    pub fn near(ours: &Figures, floor: &Figures, reach: f64) -> Self {
        let (wall, cpu) = (ours.wall_s / floor.wall_s, ours.cpu_s / floor.cpu_s);
        Check::at_most("of the floor", wall, reach).judge(ours, floor, cpu, cpu <= reach)
    }

    fn judge(mut self, one: &Figures, other: &Figures, cpu: f64, met: bool) -> Self {
        if one.spread.max(other.spread) > NOISY {
            self.met = met;
            self.note = Some(format!("judged on CPU time, {cpu:.2}: the spread is over 25 %"));
        }
        self
    }
}

/// What keeps ours from being faster, and how near it is to that.
#[derive(Clone, Debug, Serialize)]
struct Limit {
    what: String,
    /// What `near` is a share of.
    of: &'static str,
    near: f64,
}

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    name: String,
    /// Ours first.
    sides: Vec<Figures>,
    checks: Vec<Check>,
    cores: usize,
    /// Bytes and other figures that belong to the row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<(String, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    /// Why it could not be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_yet: Option<String>,
}

impl Row {
    /// Runs the sides in turn, `runs` times each.
    pub fn measure(name: &str, runs: usize, scratch: &Path, sides: &[(&str, Side<'_>)]) -> Result<Row> {
        eprintln!("bench: {name}");
        let mut all: Vec<Vec<Run>> = vec![Vec::new(); sides.len()];
        for round in 0..runs {
            // Each round another side begins, so that none is always the one that runs after the largest.
            for turn in 0..sides.len() {
                let number = (round + turn) % sides.len();
                let (_, side) = &sides[number];
                (side.prepare)()?;
                all[number].push(measure::once(&side.cmd, scratch)?);
            }
        }
        let sides = sides.iter().zip(&all).map(|((name, _), runs)| Figures::of(name, runs)).collect();
        Ok(Row { sides, ..Row::empty(name) })
    }

    /// A row that cannot be measured here, and why.
    pub fn not_yet(name: &str, why: impl Into<String>) -> Row {
        Row { not_yet: Some(why.into()), ..Row::empty(name) }
    }

    fn empty(name: &str) -> Row {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (sides, checks, facts) = (Vec::new(), Vec::new(), Vec::new());
        Row { name: name.to_owned(), sides, checks, cores, facts, limit: None, not_yet: None }
    }

    /// The figures of a side, ours first.
    pub fn side(&self, number: usize) -> &Figures {
        &self.sides[number]
    }

    /// Adds what is wanted.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Wants ours (side 0) to be `reach` times as fast as the peer (side 1).
    #[must_use]
    pub fn faster(self, reach: f64) -> Self {
        let check = Check::faster(&self.sides[0], &self.sides[1], reach);
        self.check(check)
    }

    /// Wants ours (side 0) to take at most `reach` times what the floor (side 2) takes.
    #[must_use]
    pub fn near_floor(self, reach: f64) -> Self {
        let check = Check::near(&self.sides[0], &self.sides[2], reach);
        self.check(check)
    }

    /// Says what the processors do for ours (side 0) nearly all the time; how much of their time is measured.
    #[must_use]
    pub fn limited_by_cores(self, what: &str) -> Self {
        let ours = &self.sides[0];
        let near = ours.cpu_s / (ours.wall_s * self.cores as f64);
        Row { limit: Some(Limit { what: what.to_owned(), of: "of the time of all cores is used", near }), ..self }
    }

    /// Says what ours (side 0) shares with the floor (side 2), whose time is part of its own.
    #[must_use]
    pub fn limited_by_floor(self, what: &str) -> Self {
        let near = self.sides[2].wall_s / self.sides[0].wall_s;
        Row { limit: Some(Limit { what: what.to_owned(), of: "of its time is the floor's", near }), ..self }
    }

    /// Records a further figure.
    #[must_use]
    pub fn fact(mut self, what: &str, value: f64) -> Self {
        self.facts.push((what.to_owned(), value));
        self
    }
}

/// Prints the rows as a table.
pub fn print(rows: &[Row]) {
    for row in rows {
        println!("{}", row.name);
        if let Some(why) = &row.not_yet {
            println!("    not yet: {why}");
        }
        for side in &row.sides {
            println!(
                "    {:<22} {:>8.2} s   CPU {:>7.2} s, {:>6.2} in the kernel   peak {:>6.0} MiB   spread {:>3.0} %   {} runs",
                side.name,
                side.wall_s,
                side.cpu_s,
                side.system_s,
                side.peak_mib,
                side.spread * 100.0,
                side.runs
            );
        }
        for (what, value) in &row.facts {
            println!("    {what}: {value}");
        }
        if let Some(Limit { what, of, near }) = &row.limit {
            println!("    limited by {what}: {:.0} % {of}", near * 100.0);
        }
        for check in &row.checks {
            println!(
                "    {:<6} {:.2} x {} (reach: {} {} x){}",
                if check.met { "met" } else { "missed" },
                check.value,
                check.what,
                if check.at_most { "at most" } else { "at least" },
                check.reach,
                check.note.as_deref().map(|note| format!("; {note}")).unwrap_or_default()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(wall_s: f64, cpu_s: f64, spread: f64) -> Figures {
        Figures { name: "x".into(), wall_s, cpu_s, spread, ..Figures::default() }
    }

    #[test]
    fn a_quiet_row_is_judged_on_the_wall_clock() {
        let (ours, peer) = (figures(1.0, 2.0, 0.1), figures(5.0, 5.0, 0.1));
        assert!(Check::faster(&ours, &peer, 5.0).met);
        assert!(!Check::faster(&ours, &peer, 5.1).met);
        assert!(Check::near(&ours, &figures(0.8, 9.0, 0.0), 1.3).met);
    }

    #[test]
    fn a_noisy_row_is_judged_on_cpu_time() {
        let (ours, peer) = (figures(1.0, 2.0, 0.1), figures(5.0, 5.0, 0.3));
        let check = Check::faster(&ours, &peer, 3.0);
        assert!(!check.met && check.note.is_some());
    }
}
