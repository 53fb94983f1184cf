//! Every target for a minute each, from other random numbers every time.

use std::time::Duration;

use fuzz::{Limit, TARGETS, drive};

#[test]
fn a_minute_for_each_decoder() {
    if std::env::var_os("SLIPWAY_HEAVY").is_none() {
        eprintln!("a_minute_for_each_decoder DID NOT RUN: set SLIPWAY_HEAVY=1 to fuzz for minutes");
        return;
    }
    for target in TARGETS {
        let seed = sys::clock::now();
        match drive(target, seed, Limit::Time(Duration::from_secs(60))) {
            Ok(summary) => eprintln!("{}: {summary:?}", target.name),
            Err(failure) => panic!("{}, seed {seed}: {}: {:?}", target.name, failure.why, failure.input),
        }
    }
}
