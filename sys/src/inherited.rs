//! What the program that started us left open.

use std::fs;
use std::io;
use std::os::fd::RawFd;

/// Marks every descriptor above standard error that we were started with, so that it ends with us: a secret key that came
/// as a descriptor must not reach the programs we start, maintainer scripts of packages among them. They stay readable
/// for us. To be called at the start of `main`, before anything is opened to be inherited on purpose.
///
/// # Errors
/// `/proc` cannot be read.
pub fn keep_descriptors_from_children() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(fd) = number.filter(|fd| *fd > 2) {
            close_on_exec(fd);
        }
    }
    Ok(())
}

#[allow(unsafe_code, reason = "the descriptor is a number only: nothing in this process owns it")]
fn close_on_exec(fd: RawFd) {
    // SAFETY: the call changes a flag of the descriptor; where it is closed by now, EBADF is as good.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_child_does_not_see_what_we_were_started_with() {
        let secret = rustix::fs::memfd_create("secret", rustix::fs::MemfdFlags::empty()).unwrap();
        let fd = secret.as_raw_fd();
        let seen = || crate::Cmd::new("test").arg("-e").arg(format!("/proc/self/fd/{fd}")).output().unwrap().code == 0;
        assert!(seen(), "the test shows nothing");
        keep_descriptors_from_children().unwrap();
        assert!(!seen());
        assert!(fs::metadata(format!("/proc/self/fd/{fd}")).is_ok(), "we ourselves still read it");
    }
}
