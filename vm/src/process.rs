//! QEMU's process: a child of ours, or one that an earlier process left running.

use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A process that can be waited for and killed.
#[derive(Debug)]
pub(crate) enum Process {
    /// Our child.
    Child { child: Mutex<Child>, detached: bool },
    /// Somebody else's. The start time tells it from a later process with the same number.
    Other { pid: u32, started: u64 },
}

impl Process {
    pub(crate) fn ours(child: Child, detached: bool) -> Process {
        Process::Child { child: Mutex::new(child), detached }
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Process::Child { child, .. } => child.lock().unwrap_or_else(PoisonError::into_inner).id(),
            Process::Other { pid, .. } => *pid,
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        match self {
            Process::Child { child, .. } => match child.lock().unwrap_or_else(PoisonError::into_inner).try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(e) => Some(e.to_string()),
            },
            Process::Other { pid, started } => {
                (start_time(*pid) != Some(*started)).then(|| "the process is gone".to_owned())
            }
        }
    }

    /// Waits for the end; `None` if it is still running after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.ended() {
                Some(how) => return Some(how),
                None if Instant::now() > deadline => return None,
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Ends it at once and waits until it is gone.
    pub(crate) fn kill(&self) {
        match self {
            Process::Child { child, .. } => {
                let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
                // Fails only where it has ended already.
                let _ = child.kill();
                let _ = child.wait();
            }
            Process::Other { pid, .. } => {
                if self.ended().is_none() {
                    if let Some(pid) = Pid::from_raw(*pid as i32) {
                        let _ = kill_process(pid, Signal::KILL);
                    }
                    self.wait(Duration::from_secs(5));
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A machine that fails before it is whole must not stay behind either.
        if let Process::Child { detached: false, .. } = self {
            self.kill();
        }
    }
}

/// When a process started, in clock ticks since boot; `None` if there is no such process (a zombie counts as gone).
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    test_kill_process(Pid::from_raw(i32::try_from(pid).ok()?)?).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_its_successor_by_its_start_time() {
        let mut command = sys::Cmd::new("sleep").arg("60").to_command();
        let child = command.stdin(std::process::Stdio::null()).spawn().unwrap();
        let pid = child.id();
        let started = start_time(pid).unwrap();
        let other = Process::Other { pid, started };
        assert_eq!(other.ended(), None);
        assert!(Process::Other { pid, started: started + 1 }.ended().is_some());
        Process::ours(child, false).kill();
        assert!(other.ended().is_some());
        assert_eq!(start_time(pid), None);
    }

    #[test]
    fn dropping_a_child_ends_it() {
        let child = sys::Cmd::new("sleep").arg("60").to_command().spawn().unwrap();
        let pid = child.id();
        drop(Process::ours(child, false));
        assert_eq!(start_time(pid), None);
    }
}
