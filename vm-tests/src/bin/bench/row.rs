//! One line of the table, and of `target/bench/<group>.json`.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use sys::Cmd;

use crate::measure::{self, Run};

/// A figure against a peer's, from the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    name: String,
    unit: &'static str,
    ours: f64,
    peer: f64,
    peer_name: String,
    /// The peer's time ÷ ours: above 1 is faster than the peer.
    ratio: f64,
    reach: f64,
    met: Option<bool>,
    peak_mib: f64,
    peer_peak_mib: f64,
    cpu_s: f64,
    peer_cpu_s: f64,
    spread: f64,
    cores: usize,
    note: String,
}

/// What one side of a row does: prepare (not timed), then the command that is timed.
pub struct Side<'a> {
    /// Run before each timed command.
    pub prepare: Box<dyn Fn() -> Result<()> + 'a>,
    /// The command.
    pub cmd: Cmd,
}

/// A row still to be measured.
pub struct Plan<'a> {
    /// What is done.
    pub name: &'a str,
    /// Who else does it.
    pub peer_name: &'a str,
    /// The ratio that is wanted.
    pub reach: f64,
    /// How often each side runs.
    pub runs: usize,
    /// Slipway.
    pub ours: Side<'a>,
    /// The other.
    pub peer: Side<'a>,
}

impl Plan<'_> {
    /// Runs both sides in turn and makes the row.
    pub fn measure(&self, scratch: &Path) -> Result<Row> {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            for (side, runs) in [(&self.ours, &mut ours), (&self.peer, &mut peer)] {
                (side.prepare)()?;
                runs.push(measure::once(&side.cmd, scratch)?);
            }
        }
        Ok(self.row(&ours, &peer))
    }

    fn row(&self, ours: &[Run], peer: &[Run]) -> Row {
        let wall = |runs: &[Run]| measure::median(runs.iter().map(|r| r.wall));
        let cpu = |runs: &[Run]| measure::median(runs.iter().map(|r| r.cpu));
        let peak = |runs: &[Run]| runs.iter().map(|r| r.peak_mib).fold(0.0, f64::max);
        let spread = measure::spread(ours).max(measure::spread(peer));
        let ratio = wall(peer) / wall(ours);
        // Where the clock is noisy, CPU time decides.
        let judged = if spread > 0.25 { cpu(peer) / cpu(ours) } else { ratio };
        Row {
            name: self.name.to_owned(),
            unit: "s",
            ours: wall(ours),
            peer: wall(peer),
            peer_name: self.peer_name.to_owned(),
            ratio,
            reach: self.reach,
            met: Some(judged >= self.reach),
            peak_mib: peak(ours),
            peer_peak_mib: peak(peer),
            cpu_s: cpu(ours),
            peer_cpu_s: cpu(peer),
            spread,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            note: if spread > 0.25 { "judged on CPU time: the spread is over 25 %".into() } else { String::new() },
        }
    }
}

/// Prints the rows as a table.
pub fn print(rows: &[Row]) {
    println!("{:<44} {:>8} {:>8} {:>7} {:>6} {:>4}  peer", "", "ours s", "peer s", "ratio", "reach", "met");
    for row in rows {
        let met = match row.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        println!(
            "{:<44} {:>8.2} {:>8.2} {:>6.1}x {:>5.1}x {:>4}  {} (MiB {:.0} / {:.0}; CPU s {:.1} / {:.1}; spread {:.0} %)",
            row.name,
            row.ours,
            row.peer,
            row.ratio,
            row.reach,
            met,
            row.peer_name,
            row.peak_mib,
            row.peer_peak_mib,
            row.cpu_s,
            row.peer_cpu_s,
            row.spread * 100.0
        );
    }
}
