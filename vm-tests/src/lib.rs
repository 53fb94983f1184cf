//! Scenarios: what only a booted machine can show. One file per story under `scenarios/`.
//!
//! ```text
//! artifacts   what `make demo` leaves: the published repository, the image, the key, the commits
//! world       machines: cold boots of the image, and copies of two states that each took one boot
//!               booted     version 1, first boot done and blessed
//!               upgraded   the same machine after a user, a file and a container were added and `host upgrade` went by
//! context     one scenario's directory, its machines, its server
//! guest       a machine with the questions that scenarios ask
//! outcome     passed | failed | skipped with a reason;  junit  the report
//! ```
//! A scenario that starts from a state costs a few seconds; only the loader's work needs a boot of its own.

pub mod artifacts;
pub mod context;
pub mod guest;
pub mod junit;
pub mod outcome;
pub mod repository;
pub mod scenarios;
pub mod server;
pub mod world;
