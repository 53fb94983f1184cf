//! Runs a target on ever other inputs.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::mutate::{Random, mutate};
use crate::{Target, memory};

/// Memory that any run may take.
const ROOM: usize = 24 << 20;
/// And for each byte of input: deflate makes up to 1032 of one, and some hold it twice.
const FACTOR: usize = 2200;
/// Inputs that are kept for further changes.
const KEPT: usize = 4096;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// After so many inputs.
    Inputs(u64),
    /// After so long.
    Time(Duration),
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Inputs.
    pub inputs: u64,
    /// Different ways in which they ended.
    pub outcomes: usize,
    /// Most memory that one took.
    pub peak: usize,
}

/// An input that must not do what it did.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What it did.
    pub why: String,
    /// The input.
    pub input: Vec<u8>,
}

/// Runs a target on one input; returns how it ended and the memory it took.
pub fn one(target: &Target, input: &[u8]) -> Result<(String, usize), Failure> {
    let failure = |why: String| Failure { why, input: input.to_vec() };
    let (result, peak) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    let outcome = result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        failure(text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default())
    })?;
    if peak > ROOM + FACTOR * input.len() {
        return Err(failure(format!("{peak} bytes of memory for {} bytes of input", input.len())));
    }
    Ok((outcome, peak))
}

/// Runs a target on its seeds, which must be valid, and on changes of them.
pub fn drive(target: &Target, seed: u64, limit: Limit) -> Result<Summary, Failure> {
    let mut random = Random::new(seed);
    let mut kept = (target.seeds)();
    let mut outcomes = BTreeSet::new();
    let mut summary = Summary { inputs: 0, outcomes: 0, peak: 0 };
    for input in &kept {
        let (outcome, _) = one(target, input)?;
        if outcome != "ok" {
            return Err(Failure { why: format!("a seed is not valid: {outcome}"), input: input.clone() });
        }
        outcomes.insert(outcome);
    }
    let start = Instant::now();
    loop {
        let more = match limit {
            Limit::Inputs(count) => summary.inputs < count,
            Limit::Time(time) => start.elapsed() < time,
        };
        if !more {
            break;
        }
        let (input, other) = (&kept[random.below(kept.len())], &kept[random.below(kept.len())]);
        let input = mutate(&mut random, input, other);
        let (outcome, peak) = one(target, &input)?;
        summary.inputs += 1;
        summary.peak = summary.peak.max(peak);
        if outcomes.insert(outcome) && kept.len() < KEPT {
            kept.push(input);
        }
    }
    summary.outcomes = outcomes.len();
    Ok(summary)
}
