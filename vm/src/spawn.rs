//! Children that must not outlive us.
//!
//! The kernel sends the parent-death signal when the *thread* that made the child ends, so every child is made by one
//! thread that never ends; callers may come and go.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

type Job = (Command, Sender<io::Result<Child>>);

/// Starts `command` from the thread that lives as long as the process.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static JOBS: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let gone = || io::Error::other("the spawning thread is gone");
    let jobs = JOBS.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        // If the thread cannot be made, the first send fails.
        let _ = std::thread::Builder::new().name("vm-spawn".to_owned()).spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = channel();
    jobs.lock().map_err(|_| gone())?.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}
