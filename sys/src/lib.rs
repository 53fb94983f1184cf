//! The one door to the global namespace: child processes, clocks, locks, durable file replacement, reporting.
//!
//! ```text
//! cmd      sys::Cmd        a child process; its error is a line that can be pasted into a shell, and the end of stderr
//! clock    sys::clock      the only place that reads the clock
//! file     sys::file       replace a file so that a crash shows the old content or the new
//! lock     sys::Lock       flock guard
//! report   sys::Reporter   step lines with durations, on stderr
//! inherit  sys::keep_descriptors_from_children   a key that came as a descriptor ends with us
//! exit     sys::Exit       0 done, 1 failed, 2 usage, 3 refused, 77 nothing to do
//! ```

pub mod clock;
mod cmd;
mod exit;
pub mod file;
mod inherited;
mod lock;
mod report;

pub use cmd::{Cmd, CmdError, Output};
pub use exit::{Exit, Refused, main_exit};
pub use inherited::keep_descriptors_from_children;
pub use lock::{Lock, LockError};
pub use report::{Progress, Reporter, size};
