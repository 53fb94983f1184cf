//! The sandbox programs of a root run in: `bwrap`, without network, with the root's own files.
//!
//! ```text
//! /              the root, read-write, real owners
//! /proc /dev     new; /dev holds null, zero, full, random, urandom, tty, pts, shm
//! /tmp /run      empty, gone afterwards
//! ```
//!
//! Processes, IPC and the host name are the sandbox's own, the network is gone, and the environment starts empty: nothing
//! of the build machine reaches the tree. Nothing in the sandbox waits for a disk: `fsync` and its kin are answered by a
//! seccomp filter, because a root that is being built has nothing to lose in a power cut, and dpkg syncs hundreds of times.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sys::{Cmd, CmdError, Output};

/// Host name inside.
const HOSTNAME: &str = "slipway";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program could not be run in the sandbox, or failed there.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The sandbox itself does not work on this machine.
    #[error(
        "the sandbox does not work here: {0}\nMaintainer scripts run in bubblewrap as root. Install `bubblewrap`; inside a \
         container, allow nested namespaces (for Podman and Docker: --privileged)"
    )]
    Unusable(String),
    /// The program ended with another code than 0.
    #[error("`{line}` ended with {code} in {root}{}", shown(.output))]
    Failed {
        /// The program and its arguments.
        line: String,
        /// Exit code, 128 + signal for a signal.
        code: i32,
        /// The root it ran in.
        root: PathBuf,
        /// The end of what it wrote.
        output: String,
    },
    /// The sandbox could not be set up.
    #[error("preparing the sandbox")]
    Io(#[from] std::io::Error),
    /// `bwrap` could not be started.
    #[error(transparent)]
    Cmd(#[from] CmdError),
}

fn shown(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(":\n{output}") }
}

/// Runs programs of a root directory, inside it.
#[derive(Clone, Debug)]
pub struct Sandbox {
    root: PathBuf,
    env: Vec<(OsString, OsString)>,
    binds: Vec<(PathBuf, PathBuf)>,
}

impl Sandbox {
    /// A sandbox on `root`. Its environment holds `PATH`, `HOME=/root`, `LC_ALL=C.UTF-8` and `TERM=dumb`.
    pub fn new(root: impl AsRef<Path>) -> Self {
        let env = [("PATH", PATH), ("HOME", "/root"), ("LC_ALL", "C.UTF-8"), ("TERM", "dumb"), ("TMPDIR", "/tmp")];
        Sandbox {
            root: root.as_ref().to_owned(),
            env: env.iter().map(|(k, v)| (k.into(), v.into())).collect(),
            binds: Vec::new(),
        }
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Shows a file or directory of the build machine at `inside`, read-only. `inside` must exist in the root, or a
    /// mount point is left behind.
    #[must_use]
    pub fn bind(mut self, outside: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.binds.push((outside.into(), inside.into()));
        self
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether sandboxes work on this machine: runs `true` of the machine in one.
    pub fn check() -> Result<(), SandboxError> {
        if !rustix::process::geteuid().is_root() {
            return Err(SandboxError::Unusable("this is not root".into()));
        }
        let output = Sandbox::new("/").output(&["true"]);
        match output {
            Ok(Output { code: 0, .. }) => Ok(()),
            Ok(output) => Err(SandboxError::Unusable(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
            Err(SandboxError::Cmd(error)) => Err(SandboxError::Unusable(error.to_string())),
            Err(other) => Err(other),
        }
    }

    /// Runs a program and wants exit code 0.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<Output, SandboxError> {
        let output = self.output(args)?;
        if output.code == 0 {
            return Ok(output);
        }
        let mut text = output.stdout;
        text.extend(output.stderr);
        Err(self.failed(args, output.code, &text))
    }

    /// Runs a program; any exit code is fine.
    pub fn output<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<Output, SandboxError> {
        let (cmd, _filter) = self.cmd(args)?;
        Ok(cmd.output()?)
    }

    /// Runs a program with stdout and stderr in one stream, as a terminal would show them; `line` sees each line as it
    /// comes. Returns the exit code and all lines.
    pub fn stream<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: &[S],
        mut line: impl FnMut(&str),
    ) -> Result<(i32, String), SandboxError> {
        let (cmd, _filter) = self.cmd(args)?;
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let mut command = cmd.to_command();
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn().map_err(|e| SandboxError::Unusable(format!("cannot run bwrap: {e}")))?;
        // The command keeps the pipe's writing end open; without this the reading end never sees its end.
        drop(command);
        let mut all = String::new();
        let mut reader = BufReader::new(File::from(reader));
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes)? > 0 {
            let text = String::from_utf8_lossy(&bytes);
            line(text.trim_end());
            all.push_str(&text);
            bytes.clear();
        }
        use std::os::unix::process::ExitStatusExt;
        let status = child.wait()?;
        Ok((status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), all))
    }

    /// The error for a program that ended with `code`.
    pub fn failed<S: AsRef<std::ffi::OsStr>>(&self, args: &[S], code: i32, output: &[u8]) -> SandboxError {
        let text = String::from_utf8_lossy(output);
        if let Some(reason) = text.lines().find_map(|l| l.strip_prefix("bwrap: ")) {
            // bwrap speaks only when it could not start the program.
            if !reason.starts_with("execvp") {
                return SandboxError::Unusable(reason.to_owned());
            }
        }
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let words: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        SandboxError::Failed {
            line: words.join(" "),
            code,
            root: self.root.clone(),
            output: lines[lines.len().saturating_sub(40)..].join("\n"),
        }
    }

    /// A line for a shell that opens a shell in this sandbox, for the reader of an error.
    pub fn enter_line(&self) -> String {
        format!(
            "bwrap --bind {} / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run --unshare-net --unshare-pid bash",
            self.root.display()
        )
    }

    /// The command, and the descriptor it inherits, which must live until it has started.
    fn cmd<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<(Cmd, Option<OwnedFd>), SandboxError> {
        // --clearenv is for the program. bwrap itself is PID 1 in there, and what it was started with can be read in
        // /proc/1/environ: a key that came in a variable among it.
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        let mut cmd = Cmd::new("bwrap").env_clear().env("PATH", path).arg("--bind").arg(&self.root).arg("/");
        cmd = cmd.args(["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp", "--tmpfs", "/run"]);
        cmd = cmd.args(["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", HOSTNAME]);
        cmd = cmd.args(["--die-with-parent", "--new-session", "--chdir", "/", "--clearenv"]);
        for (outside, inside) in &self.binds {
            cmd = cmd.arg("--ro-bind").arg(outside).arg(inside);
        }
        for (key, value) in &self.env {
            cmd = cmd.arg("--setenv").arg(key).arg(value);
        }
        let filter = no_sync()?;
        if let Some(fd) = &filter {
            cmd = cmd.arg("--seccomp").arg(fd.as_raw_fd().to_string());
        }
        Ok((cmd.arg("--").args(args), filter))
    }
}

/// A seccomp program that answers `fsync` and its kin with success, in a descriptor that child processes inherit.
fn no_sync() -> Result<Option<OwnedFd>, std::io::Error> {
    // AUDIT_ARCH of the machine, and its numbers of fsync, fdatasync, sync, syncfs, sync_file_range.
    let (arch, numbers): (u32, [u32; 5]) = match std::env::consts::ARCH {
        "x86_64" => (0xc000_003e, [74, 75, 162, 306, 277]),
        "aarch64" => (0xc000_00b7, [82, 83, 81, 267, 84]),
        _ => return Ok(None),
    };
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ALLOW: u32 = 0x7fff_0000;
    const SUCCESS: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO with errno 0
    let count = numbers.len() as u8;
    // seccomp_data: the call's number at byte 0, the architecture at byte 4.
    let mut program = vec![(LOAD, 0, 0, 4), (EQUAL, 0, count + 1, arch), (LOAD, 0, 0, 0)];
    for (i, number) in numbers.iter().enumerate() {
        program.push((EQUAL, count - i as u8, 0, *number));
    }
    program.extend([(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, SUCCESS)]);
    let mut bytes = Vec::new();
    for (code, yes, no, k) in program {
        bytes.extend(u16::to_ne_bytes(code));
        bytes.extend([yes, no]);
        bytes.extend(u32::to_ne_bytes(k));
    }
    let fd = rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::empty())?;
    let mut file = File::from(fd);
    file.write_all(&bytes)?;
    file.rewind()?;
    Ok(Some(file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bwrap_that_cannot_start_is_told_apart_from_a_program_that_fails() {
        let sandbox = Sandbox::new("/x");
        let error =
            sandbox.failed(&["dpkg", "-i"], 1, b"bwrap: Creating new namespace failed: Operation not permitted\n");
        assert!(error.to_string().contains("--privileged"), "{error}");
        let error = sandbox.failed(&["dpkg", "-i"], 2, b"some text\n");
        assert_eq!(error.to_string(), "`dpkg -i` ended with 2 in /x:\nsome text");
    }
}
