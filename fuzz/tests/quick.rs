//! Every target, a few thousand inputs each, the same every time.

use fuzz::{Limit, TARGETS, drive};

/// One after another: memory is counted for the whole process.
#[test]
fn no_decoder_panics_or_takes_too_much_memory() {
    for target in TARGETS {
        let slow = matches!(target.name, "tar" | "delta" | "update" | "bundle");
        let inputs = if slow { 60 } else { 1500 };
        match drive(target, 1, Limit::Inputs(inputs)) {
            Ok(summary) => {
                assert!(summary.outcomes > 2, "{}: no input came far: {summary:?}", target.name);
                eprintln!("{}: {summary:?}", target.name);
            }
            Err(failure) => panic!("{}: {}: {:?}", target.name, failure.why, failure.input),
        }
    }
}
