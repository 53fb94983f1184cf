//! A machine that runs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sys::{Cmd, Output};
use tempfile::TempDir;

use crate::accel::{self, Choice, QEMU};
use crate::builder::Builder;
use crate::channel::{Channel, Stop, Stream, first_line};
use crate::error::{Error, Result, Tail, io};
use crate::firmware::Firmware;
use crate::process::Process;
use crate::qmp::Qmp;

/// How long QEMU may take to open its sockets.
const START: Duration = Duration::from_secs(20);
/// How long QEMU may take for one answer on its control socket; `savevm` answers when it is done.
const ANSWER: Duration = Duration::from_secs(120);

/// A command for the guest's shell.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A script for bash, run as root in a subshell.
    pub script: &'a str,
    /// Its standard input.
    pub input: &'a [u8],
    /// How long it may take; afterwards it is killed.
    pub timeout: Duration,
}

/// A machine: QEMU, its sockets, its files. Dropping it ends it, unless it was told to outlive us.
#[derive(Debug)]
pub struct Machine {
    builder: Builder,
    choice: Choice,
    firmware: Option<Firmware>,
    dir: PathBuf,
    sockets: PathBuf,
    running: Option<Running>,
    /// Where `dir` and `sockets` are ours to remove.
    _temporary: Vec<TempDir>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    /// Connected when first used: QEMU serves one client at a time, and others may want to talk too.
    qmp: Mutex<Option<Qmp>>,
    channel: Mutex<Option<Channel>>,
}

impl Machine {
    pub(crate) fn start(mut builder: Builder) -> Result<Machine> {
        let firmware = Firmware::find(Path::new("/"))?;
        let choice = accel::choose(&firmware)?;
        let firmware = builder.kernel.is_none().then_some(firmware);
        let mut temporary = Vec::new();
        let mut place = |wanted: &Option<PathBuf>, parent: &Path| -> Result<PathBuf> {
            if let Some(dir) = wanted {
                std::fs::create_dir_all(dir).map_err(io("making", dir))?;
                return std::fs::canonicalize(dir).map_err(io("opening", dir));
            }
            let dir = tempfile::Builder::new().prefix("slipway-vm-").tempdir_in(parent);
            let dir = dir.map_err(io("making a directory in", parent))?;
            temporary.push(dir);
            Ok(temporary[temporary.len() - 1].path().to_owned())
        };
        // Disks do not belong in memory: /var/tmp is on a disk where /tmp often is not.
        let dir = place(&builder.dir, &disk_temp())?;
        let sockets = place(&builder.sockets, Path::new("/tmp"))?;
        builder.prepare(&dir, firmware.as_ref())?;
        let mut machine = Machine { builder, choice, firmware, dir, sockets, running: None, _temporary: temporary };
        machine.launch()?;
        Ok(machine)
    }

    /// Joins a machine that another process started with [`Builder::outlives_us`].
    pub(crate) fn join(name: &str, dir: &Path, sockets: &Path, process: Process, choice: Choice) -> Result<Machine> {
        let builder = Builder::new(name).dir(dir).sockets(sockets).outlives_us();
        let mut machine = Machine {
            builder,
            choice,
            firmware: None,
            dir: dir.to_owned(),
            sockets: sockets.to_owned(),
            running: None,
            _temporary: Vec::new(),
        };
        machine.connect(process)?;
        Ok(machine)
    }

    fn launch(&mut self) -> Result<()> {
        for name in crate::channel::PORTS.iter().chain(&["qmp"]) {
            let socket = self.sockets.join(format!("{name}.sock"));
            sys::file::remove(&socket).map_err(io("removing", &socket))?;
        }
        let arguments = self.builder.arguments(&self.dir, &self.sockets, self.firmware.as_ref(), &self.choice)?;
        let wrapper: &[&str] = if self.builder.outlives_us { &["setsid"] } else { &["setpriv", "--pdeathsig", "KILL"] };
        let command = Cmd::new(wrapper[0]).args(&wrapper[1..]).arg(QEMU).args(arguments);
        tracing::debug!("{}", command.line());
        let mut command = command.to_command();
        let log = self.dir.join("qemu.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).map_err(io("opening", &log))?;
        if self.builder.console == crate::builder::Console::Log {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        command.stderr(file);
        let child = crate::spawn::spawn(command).map_err(|_| Error::QemuMissing(QEMU))?;
        let process = Process::ours(child, self.builder.outlives_us);
        self.connect(process)?;
        if self.builder.resume.take().is_some() {
            self.with_qmp(|qmp| qmp.resume(ANSWER))?;
        }
        Ok(())
    }

    /// Waits until QEMU answers on its control socket, which proves that it has accepted its command line.
    fn connect(&mut self, process: Process) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(how) = process.ended() {
                return Err(self.exited("starting", &how));
            }
            match Qmp::connect(&self.sockets.join("qmp.sock"), ANSWER) {
                Ok(qmp) => {
                    let (qmp, channel) = (Mutex::new(Some(qmp)), Mutex::new(None));
                    self.running = Some(Running { process, qmp, channel });
                    return Ok(());
                }
                Err(_) if start.elapsed() < START => std::thread::sleep(Duration::from_millis(20)),
                Err(source) => {
                    return Err(Error::Io { what: "connecting to QEMU in", path: self.sockets.clone(), source });
                }
            }
        }
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().ok_or_else(|| Error::Config(format!("the machine {} is switched off", self.builder.name)))
    }

    /// Closes the connections to QEMU, so that other processes can talk to the machine; they are made again when needed.
    pub fn release(&self) {
        if let Some(running) = &self.running {
            *running.qmp.lock().unwrap_or_else(PoisonError::into_inner) = None;
            *running.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn with_channel<T>(
        &self,
        deadline: Instant,
        job: impl FnOnce(&mut Channel) -> std::result::Result<T, Stop>,
    ) -> Result<std::result::Result<T, Stop>> {
        // A panic in a test that held the lock left no half-done state: a request names its own frames.
        let mut slot = self.running()?.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            match Channel::connect(&self.sockets, deadline) {
                Ok(channel) => *slot = Some(channel),
                Err(_) if self.running()?.process.ended().is_some() => return Ok(Err(Stop::Closed)),
                Err(source) => {
                    return Err(Error::Io { what: "connecting to the guest in", path: self.sockets.clone(), source });
                }
            }
        }
        match slot.as_mut() {
            Some(channel) => Ok(job(channel)),
            None => Ok(Err(Stop::Closed)),
        }
    }

    fn with_qmp<T>(&self, job: impl FnOnce(&mut Qmp) -> Result<T>) -> Result<T> {
        let mut slot = self.running()?.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            let socket = self.sockets.join("qmp.sock");
            *slot = Some(Qmp::connect(&socket, ANSWER).map_err(io("connecting to QEMU in", &socket))?);
        }
        match slot.as_mut() {
            Some(qmp) => job(qmp),
            None => Err(Error::Config("no connection to QEMU".to_owned())),
        }
    }

    /// Runs a command on QEMU's control socket (QMP).
    pub fn qmp(&self, command: &str, arguments: serde_json::Value) -> Result<serde_json::Value> {
        self.with_qmp(|qmp| qmp.execute(command, arguments))
    }

    fn exited(&self, during: &str, how: &str) -> Error {
        let log = std::fs::read(self.dir.join("qemu.log")).unwrap_or_default();
        let how = format!("{how}{}", Tail::of(&log, 5));
        Error::Exited { during: during.to_owned(), how, tail: self.tail() }
    }

    fn tail(&self) -> Tail {
        Tail::of(self.serial_log().as_bytes(), 15)
    }

    /// Turns the end of a wait into an error that says what the machine did last.
    fn stopped(&self, stop: Stop, what: &str, after: Duration) -> Error {
        match stop {
            Stop::Error(error) => error,
            Stop::Late => match self.running.as_ref().and_then(|r| r.process.ended()) {
                Some(how) => self.exited(&format!("waiting for {what}"), &how),
                None => Error::Timeout { what: what.to_owned(), after, tail: self.tail() },
            },
            Stop::Closed => {
                // The sockets close a moment before the process can be waited for.
                let how = self.running.as_ref().and_then(|r| r.process.wait(Duration::from_secs(5)));
                self.exited(&format!("waiting for {what}"), how.as_deref().unwrap_or("its sockets are closed"))
            }
        }
    }

    /// The name it was built with.
    pub fn name(&self) -> &str {
        &self.builder.name
    }

    /// QEMU's process id.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|r| r.process.pid())
    }

    /// Which accelerator it runs on, and why.
    pub fn accelerator(&self) -> &Choice {
        &self.choice
    }

    /// The directory with overlays, variables and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The overlay that holds what the guest wrote to the disk with this serial number.
    pub fn overlay(&self, serial: &str) -> PathBuf {
        self.dir.join(format!("{serial}.qcow2"))
    }

    /// Everything the serial console has printed, over all boots, as plain text.
    pub fn serial_log(&self) -> String {
        crate::serial::plain(&std::fs::read(self.dir.join("serial.log")).unwrap_or_default())
    }

    /// Waits until a boot answers on the command channel; returns its boot id. That is early: see [`Self::wait_ready`].
    pub fn wait_boot(&self, timeout: Duration) -> Result<String> {
        self.wait_other_boot(None, timeout)
    }

    /// Waits until a boot other than `than` answers.
    pub fn wait_other_boot(&self, than: Option<&str>, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let result = self.with_channel(deadline, |channel| channel.wait_boot(than, deadline))?;
        result.map_err(|stop| self.stopped(stop, "answer from the guest", timeout))
    }

    /// Waits until the guest has come up and systemd has nothing left to start; returns `systemctl is-system-running`'s
    /// word (`running`, or `degraded` where a unit failed).
    pub fn wait_ready(&self, timeout: Duration) -> Result<String> {
        let start = Instant::now();
        self.wait_boot(timeout)?;
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            let request = Request { script: "systemctl is-system-running --wait", input: b"", timeout: left };
            match self.request(request)?.text().as_str() {
                state @ ("running" | "degraded" | "maintenance" | "stopping") => return Ok(state.to_owned()),
                // Too early to ask, or a start job was replaced under `--wait`.
                _ if start.elapsed() < timeout => std::thread::sleep(Duration::from_millis(200)),
                state => {
                    let what = format!("end of the boot (systemd says {state:?})");
                    return Err(Error::Timeout { what, after: timeout, tail: self.tail() });
                }
            }
        }
    }

    /// Runs a command and hands its output to `sink` as it comes; returns the exit code.
    pub fn stream(&self, request: Request<'_>, sink: &mut dyn FnMut(Stream, &[u8])) -> Result<i32> {
        let deadline = Instant::now() + request.timeout;
        let result =
            self.with_channel(deadline, |channel| channel.run(request.script, request.input, deadline, sink))?;
        result.map_err(|stop| self.stopped(stop, &format!("end of `{}`", first_line(request.script)), request.timeout))
    }

    /// Runs a command; any exit code is fine.
    pub fn request(&self, request: Request<'_>) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = self.stream(request, &mut |stream, bytes| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        })?;
        Ok(Output { code, stdout, stderr })
    }

    /// Runs a bash script; any exit code is fine.
    pub fn exec(&self, script: &str) -> Result<Output> {
        self.request(Request { script, input: b"", timeout: self.builder.command_timeout })
    }

    /// Runs a bash script that has to succeed (it runs with `-e` and `-o pipefail`); returns its standard output
    /// without trailing white space.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.shell_within(script, self.builder.command_timeout)
    }

    /// [`Self::shell`] with its own timeout.
    pub fn shell_within(&self, script: &str, timeout: Duration) -> Result<String> {
        let strict = format!("set -e -o pipefail\n{script}");
        let output = self.request(Request { script: &strict, input: b"", timeout })?;
        if output.code == 0 {
            return Ok(output.text());
        }
        let mut all = output.stdout;
        all.extend_from_slice(&output.stderr);
        Err(Error::Failed { script: first_line(script), code: output.code, output: Tail::of(&all, 20) })
    }

    /// Writes a file in the guest.
    pub fn push(&self, bytes: &[u8], path: &str, mode: u32) -> Result<()> {
        let quoted = quote(path);
        // In pieces: the input of a request lies in the guest's memory until it has run.
        const PIECE: usize = 4 << 20;
        let mut pieces = bytes.chunks(PIECE);
        let first = pieces.next().unwrap_or_default();
        let create = format!("set -e; rm -f -- {quoted}; (umask 077; cat >{quoted}); chmod {mode:o} {quoted}");
        let append = format!("cat >>{quoted}");
        for (script, input) in std::iter::once((&create, first)).chain(pieces.map(|piece| (&append, piece))) {
            let output = self.request(Request { script, input, timeout: self.builder.command_timeout })?;
            if output.code != 0 {
                let tail = Tail::of(&output.stderr, 5);
                return Err(Error::Failed { script: format!("writing {path}"), code: output.code, output: tail });
            }
        }
        Ok(())
    }

    /// Reads a file in the guest.
    pub fn pull(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.exec(&format!("cat -- {}", quote(path)))?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        let tail = Tail::of(&output.stderr, 5);
        Err(Error::Failed { script: format!("reading {path}"), code: output.code, output: tail })
    }

    /// Restarts the guest from inside and waits for the next boot's first answer.
    pub fn reboot(&self, timeout: Duration) -> Result<String> {
        self.restart_by("systemctl --no-block reboot", timeout)
    }

    /// Runs a script that ends in a restart of the guest and waits for the next boot's first answer. A script that ends
    /// with another exit code than 0 before the restart is an error.
    pub fn restart_by(&self, script: &str, timeout: Duration) -> Result<String> {
        let start = Instant::now();
        let before = self.wait_boot(timeout)?;
        match self.request(Request { script, input: b"", timeout }) {
            // Services end one by one at shutdown: the command may be killed (by SIGTERM or SIGKILL) or just cut off.
            Ok(Output { code: 0 | 137 | 143, .. }) | Err(Error::Rebooted(_)) => {}
            Ok(output) => {
                let mut all = output.stdout;
                all.extend_from_slice(&output.stderr);
                let output_tail = Tail::of(&all, 20);
                return Err(Error::Failed { script: first_line(script), code: output.code, output: output_tail });
            }
            Err(error) => return Err(error),
        }
        self.wait_other_boot(Some(&before), timeout.saturating_sub(start.elapsed()))
    }

    /// Resets the machine as a button would: no shutdown, what the guest had not written is gone. The next boot follows.
    pub fn reset(&self) -> Result<()> {
        self.qmp("system_reset", serde_json::json!({})).map(drop)
    }

    /// Shuts the guest down cleanly and waits until the machine is off. It can be started again with [`Self::power_on`].
    pub fn power_off(&mut self, timeout: Duration) -> Result<()> {
        // The command itself may be ended by the shutdown it asks for.
        match self.exec("systemctl --no-block poweroff") {
            Ok(_) | Err(Error::Rebooted(_) | Error::Exited { .. }) => {}
            Err(error) => return Err(error),
        }
        let running = self.running()?;
        if running.process.wait(timeout).is_none() {
            return Err(Error::Timeout { what: "end of the shutdown".to_owned(), after: timeout, tail: self.tail() });
        }
        self.running = None;
        Ok(())
    }

    /// Presses the power button (ACPI): the guest decides.
    pub fn press_power_button(&self) -> Result<()> {
        self.qmp("system_powerdown", serde_json::json!({})).map(drop)
    }

    /// Waits until the machine has switched itself off.
    pub fn wait_off(&mut self, timeout: Duration) -> Result<()> {
        if self.running()?.process.wait(timeout).is_none() {
            return Err(Error::Timeout { what: "power-off".to_owned(), after: timeout, tail: self.tail() });
        }
        self.running = None;
        Ok(())
    }

    /// Pulls the plug. It can be started again with [`Self::power_on`].
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.process.kill();
        }
    }

    /// Starts a machine that is off, with the disks as they are.
    pub fn power_on(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Err(Error::Config(format!("the machine {} is running", self.builder.name)));
        }
        self.launch()
    }

    /// Stores memory, devices and disks under a name, inside the overlays; the guest goes on.
    pub fn save(&self, name: &str) -> Result<()> {
        self.with_qmp(|qmp| qmp.human(&format!("savevm {name}")))
    }

    /// Goes back to what [`Self::save`] stored.
    pub fn load(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + ANSWER;
        // Nobody may use the channel while the guest changes under it.
        let loaded = self.with_channel(deadline, |channel| {
            self.with_qmp(|qmp| qmp.human(&format!("loadvm {name}")))?;
            Ok(channel.rewound().map_err(|e| Error::Channel(format!("attaching again: {e}")))?)
        })?;
        loaded.map_err(|stop| self.stopped(stop, "answer from QEMU", ANSWER))
    }

    /// Writes memory and devices to `state` and ends the machine, leaving its directory. Others may continue from there
    /// with [`Builder::resume`], each with overlays on this machine's overlays.
    pub fn suspend(mut self, state: &Path) -> Result<()> {
        self.with_qmp(|qmp| qmp.suspend_to(state, ANSWER))?;
        // An orderly end: QEMU writes back what it still holds of the overlays.
        let _ = self.qmp("quit", serde_json::json!({}));
        if let Some(running) = self.running.take() {
            if running.process.wait(Duration::from_secs(20)).is_none() {
                running.process.kill();
            }
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.builder.outlives_us {
            self.kill();
        }
    }
}

fn disk_temp() -> PathBuf {
    match std::env::var_os("TMPDIR") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from("/var/tmp"),
    }
}

/// One word for a shell.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
