//! Fuzz targets, and what drives them.
//!
//! ```text
//! fuzz_targets/NAME.rs   one decoder: seeds() are valid inputs, run() decodes and says how it ended
//! targets                the list of them
//! mutate                 changes of an input, from a seed, so that a failure can be repeated
//! drive                  runs a target; keeps inputs that end in a new way, and mutates those further
//! memory                 the allocator: counts what a run takes
//! ```
//! A target must not panic, must not take much more memory than its input has bytes, and must not hand out a name that
//! leads out of a directory. A new target is a file here and a line in `TARGETS`.
//!
//! `fuzz NAME --seconds 60` runs one; `fuzz NAME FILE` runs it on one input. The function `run` of a target is what a
//! `libfuzzer` target calls, should a nightly compiler be at hand.

mod drive;
mod memory;
mod mutate;

pub use drive::{Failure, Limit, Summary, drive, one};

/// A decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Decodes; the text says how it ended, and is used to tell inputs apart.
    pub run: fn(&[u8]) -> String,
}

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        $(mod $name { include!(concat!("../fuzz_targets/", stringify!($name), ".rs")); })+
        /// Every target.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), seeds: $name::seeds, run: $name::run }),+];
    };
}

targets!(
    commit, detached, dirmeta, dirtree, filez, superblock, delta, part, summary, tar, update, sizes, bundle, config,
    key
);

/// How something ended, without what differs from input to input.
fn outcome<T>(result: Result<T, impl std::error::Error>) -> String {
    let Err(error) = result else { return "ok".to_owned() };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    // Paths, checksums and quoted names differ every time.
    let same = |word: &&str| !word.contains(['/', '"']) && word.len() < 24;
    text = text.split_whitespace().filter(same).collect::<Vec<_>>().join(" ");
    text.retain(|c| !c.is_ascii_digit());
    text
}
