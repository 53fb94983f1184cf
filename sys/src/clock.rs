//! Clocks are arguments everywhere else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970, UTC.
pub fn now() -> u64 {
    since_epoch().as_secs()
}

/// Time since 1970, UTC.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}
