//! The command channel: a shell in the guest, reached over three virtio-serial ports.
//!
//! ```text
//! host                                      guest
//! control.sock ── org.slipway.control ──  agent.sh: one loop, one request at a time
//! stdout.sock  ── org.slipway.stdout  ──  what the request writes, raw, between two marks
//! stderr.sock  ── org.slipway.stderr  ──  the same for standard error
//! ```
//! Nothing of it is in the image: the unit and the script enter as SMBIOS credentials (`systemd.extra-unit.*`), which
//! systemd reads at each boot. It needs no network, no D-Bus, no udev and no login, and starts before `sysinit.target`,
//! so a machine that never reaches `multi-user.target` can still be asked why.
//!
//! The sockets outlive a restart of the guest. Each boot says hello with its boot id, and a request carries the session
//! that its sender attached with: a request that a restart cut off is never run by the next boot.

mod wire;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use base64::Engine;

use crate::error::{Error, Result};
use wire::{Frame, Lines, Message};

/// The guest's half.
const AGENT: &str = include_str!("agent.sh");
/// Where the agent lies in the guest.
const AGENT_CREDENTIAL: &str = "slipway.exec";

const UNIT: &str = "\
[Unit]
Description=Slipway command channel
DefaultDependencies=no
IgnoreOnIsolate=yes
ConditionPathExists=!/etc/initrd-release
After=systemd-remount-fs.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=exec
ExecStart=/bin/bash /run/credentials/@system/slipway.exec
Restart=on-failure
RestartSec=1
KillMode=control-group
TimeoutStopSec=5
OOMScoreAdjust=-900
";

/// The names of the ports, in the order of the sockets.
pub(crate) const PORTS: [&str; 3] = ["control", "stdout", "stderr"];

/// The credentials that bring the guest's half into the machine.
pub(crate) fn credentials() -> Vec<(String, Vec<u8>)> {
    vec![
        (AGENT_CREDENTIAL.to_owned(), AGENT.as_bytes().to_vec()),
        ("systemd.extra-unit.slipway-exec.service".to_owned(), UNIT.as_bytes().to_vec()),
        ("systemd.unit-dropin.sysinit.target".to_owned(), b"[Unit]\nWants=slipway-exec.service\n".to_vec()),
    ]
}

/// Which of a command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

#[derive(Debug)]
enum Event {
    Message(Message),
    Output(Stream, Vec<u8>),
    Closed,
}

/// The host's half: one connection to a machine's three sockets.
#[derive(Debug)]
pub(crate) struct Channel {
    control: UnixStream,
    outputs: [UnixStream; 2],
    events: Receiver<Event>,
    session: String,
    /// The boot that knows our session.
    boot: Option<String>,
    next: u64,
    /// QEMU serves one client of each socket: two clients that got two of three each would wait for ever.
    _alone: sys::Lock,
}

/// Why a wait ended without its event. The caller knows the machine and makes an `Error` of it.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The deadline has passed.
    Late,
    /// QEMU has closed the sockets.
    Closed,
    /// Anything else.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

impl Channel {
    /// Connects to the sockets in `dir` and asks the guest for a session; the answer comes when the guest is up.
    pub(crate) fn connect(dir: &Path, deadline: Instant) -> std::io::Result<Channel> {
        let alone = alone(&dir.join("channel.lock"), deadline)?;
        let open = |name: &str| UnixStream::connect(dir.join(format!("{name}.sock")));
        let (control, stdout, stderr) = (open(PORTS[0])?, open(PORTS[1])?, open(PORTS[2])?);
        let (sender, events) = channel();
        let (reader, lines) = (control.try_clone()?, sender.clone());
        let outputs = [stdout.try_clone()?, stderr.try_clone()?];
        let name = |what: &str| std::thread::Builder::new().name(format!("vm-{what}"));
        name("control").spawn(move || read_control(reader, &lines))?;
        let output = sender.clone();
        name("stdout").spawn(move || read_output(stdout, Stream::Stdout, &output))?;
        name("stderr").spawn(move || read_output(stderr, Stream::Stderr, &sender))?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|e| std::io::Error::other(e.to_string()))?;
        let channel =
            Channel { control, outputs, events, session: hex::encode(random), boot: None, next: 1, _alone: alone };
        // A guest that is not up yet leaves the control socket unread; one line fits.
        channel.attach()?;
        Ok(channel)
    }

    fn attach(&self) -> std::io::Result<()> {
        (&self.control).write_all(format!("\nattach {}\n", self.session).as_bytes())
    }

    /// The boot that answers at the moment.
    pub(crate) fn boot(&self) -> Option<&str> {
        self.boot.as_deref()
    }

    /// Forgets which boot answers: after a snapshot was loaded, the guest knows an older session or none.
    pub(crate) fn rewound(&mut self) -> std::io::Result<()> {
        self.boot = None;
        self.attach()
    }

    /// Takes note of a hello; true when this boot now knows our session.
    fn hello(&mut self, boot: String, session: &str) -> Result<bool> {
        if session != self.session {
            self.boot = None;
            self.attach().map_err(|e| Error::Channel(format!("attaching: {e}")))?;
            return Ok(false);
        }
        self.boot = Some(boot);
        Ok(true)
    }

    fn next_event(&mut self, deadline: Instant) -> std::result::Result<Event, Stop> {
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => Err(Stop::Closed),
            Ok(event) => Ok(event),
            Err(RecvTimeoutError::Timeout) => Err(Stop::Late),
        }
    }

    /// Waits until a boot other than `than` answers; returns its id.
    pub(crate) fn wait_boot(&mut self, than: Option<&str>, deadline: Instant) -> std::result::Result<String, Stop> {
        loop {
            if let Some(boot) = &self.boot {
                if than != Some(boot) {
                    return Ok(boot.clone());
                }
            }
            if let Event::Message(Message::Hello { boot, session }) = self.next_event(deadline)? {
                self.hello(boot, &session)?;
            }
        }
    }

    /// Runs a script; `sink` gets its output as it comes. Returns the exit code.
    pub(crate) fn run(
        &mut self,
        script: &str,
        input: &[u8],
        deadline: Instant,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> std::result::Result<i32, Stop> {
        let boot = self.wait_boot(None, deadline)?;
        let id = self.next;
        self.next += 1;
        let mut frames = [Frame::new(&self.session, id), Frame::new(&self.session, id)];
        self.send(script, input, id, deadline)?;
        let mut code = None;
        loop {
            if let Some(code) = code {
                if frames.iter().all(Frame::ended) {
                    return Ok(code);
                }
            }
            let event = match self.next_event(deadline) {
                Err(Stop::Late) => {
                    let _ = (&self.control).write_all(format!("\nkill {}\n", self.session).as_bytes());
                    return Err(Stop::Late);
                }
                event => event?,
            };
            match event {
                Event::Output(stream, bytes) => {
                    let bytes = frames[stream as usize].feed(&bytes);
                    if !bytes.is_empty() {
                        sink(stream, &bytes);
                    }
                }
                Event::Message(Message::Done { id: of, code: ended }) if of == id => code = Some(ended),
                Event::Message(Message::Refused { id: of, why }) if of == id => {
                    return Err(Error::Channel(why).into());
                }
                Event::Message(Message::Hello { boot: other, session }) => {
                    // The agent of the same boot may have been restarted; its worker is gone all the same.
                    let known = self.hello(other, &session)?;
                    if !known || self.boot() != Some(&boot) {
                        return Err(Error::Rebooted(first_line(script)).into());
                    }
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, script: &str, input: &[u8], id: u64, deadline: Instant) -> std::result::Result<(), Stop> {
        let escaped = wire::escape(script)
            .ok_or_else(|| Error::Channel("a script cannot contain a zero byte; pass it as input".to_owned()))?;
        let mut encoded = base64::engine::general_purpose::STANDARD.encode(input);
        if !encoded.is_empty() {
            encoded.push('\n');
        }
        let request = format!("\nrun {} {id} {}\n{escaped}\n{encoded}", self.session, encoded.len());
        let mut rest = request.as_bytes();
        let _ = self.control.set_write_timeout(Some(Duration::from_secs(1)));
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(32 << 10)];
            match (&self.control).write(piece) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    if Instant::now() > deadline {
                        return Err(Stop::Late);
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Err(Stop::Closed),
                Err(e) => return Err(Error::Channel(format!("sending a request: {e}")).into()),
            }
        }
        Ok(())
    }
}

/// Waits for the lock that makes us the channel's only user.
fn alone(path: &Path, deadline: Instant) -> std::io::Result<sys::Lock> {
    loop {
        match sys::Lock::try_exclusive(path) {
            Ok(lock) => return Ok(lock),
            Err(sys::LockError::Held(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(sys::LockError::Held(_)) => {
                return Err(std::io::Error::other("another command is running in this machine"));
            }
            Err(sys::LockError::Io(_, source)) => return Err(source),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The reading threads hold clones of the sockets: end their reads.
        for socket in [&self.control, &self.outputs[0], &self.outputs[1]] {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn read_control(mut socket: UnixStream, events: &Sender<Event>) {
    let (mut lines, mut buffer) = (Lines::default(), [0; 4096]);
    while let Ok(n) = socket.read(&mut buffer) {
        if n == 0 {
            break;
        }
        for message in lines.feed(&buffer[..n]) {
            if events.send(Event::Message(message)).is_err() {
                return;
            }
        }
    }
    let _ = events.send(Event::Closed);
}

fn read_output(mut socket: UnixStream, stream: Stream, events: &Sender<Event>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = socket.read(&mut buffer) {
        if n == 0 || events.send(Event::Output(stream, buffer[..n].to_vec())).is_err() {
            return;
        }
    }
}

/// The first line of a script, for messages.
pub(crate) fn first_line(script: &str) -> String {
    let line = script.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with("set -")).unwrap_or("");
    let mut short: String = line.chars().take(100).collect();
    if !script.trim().ends_with(&short) {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest that answers each `run` with what `answer` makes of the script, over real sockets.
    struct Fake {
        dir: tempfile::TempDir,
    }

    /// What a fake guest does with one request.
    enum Answer {
        /// Writes this to standard output and ends with the code.
        Ends(&'static str, i32),
        /// Restarts in the middle of the output.
        Restarts,
        /// Says nothing.
        Hangs,
    }

    fn fake(answers: Vec<Answer>) -> Fake {
        use std::io::BufRead;
        let dir = tempfile::tempdir().unwrap();
        let bind =
            |name: &str| std::os::unix::net::UnixListener::bind(dir.path().join(format!("{name}.sock"))).unwrap();
        let listeners = PORTS.map(bind);
        std::thread::spawn(move || {
            let [mut control, mut out, mut err] = listeners.map(|l| l.accept().unwrap().0);
            let mut lines = std::io::BufReader::new(control.try_clone().unwrap()).lines();
            let (mut boot, mut session, mut answers) = (1, "-".to_owned(), answers.into_iter());
            while let Some(Ok(line)) = lines.next() {
                let words: Vec<&str> = line.split(' ').collect();
                match words[..] {
                    ["attach", new] => {
                        session = new.to_owned();
                        control.write_all(format!("\nhello 1 b{boot} {session}\n").as_bytes()).unwrap();
                    }
                    ["run", of, id, _size] if of == session => {
                        let _script = lines.next();
                        let mark = |end: char| format!("\x1e{session}.{id}{end}\x1e");
                        for port in [&mut out, &mut err] {
                            port.write_all(mark('+').as_bytes()).unwrap();
                        }
                        match answers.next() {
                            Some(Answer::Ends(text, code)) => {
                                out.write_all(format!("{text}{}", mark('-')).as_bytes()).unwrap();
                                err.write_all(mark('-').as_bytes()).unwrap();
                                control.write_all(format!("\ndone {id} {code}\n").as_bytes()).unwrap();
                            }
                            Some(Answer::Restarts) => {
                                boot += 1;
                                session = "-".to_owned();
                                out.write_all(b"half a li").unwrap();
                                control.write_all(format!("\ndone\nhello 1 b{boot} -\n").as_bytes()).unwrap();
                            }
                            Some(Answer::Hangs) | None => {}
                        }
                    }
                    _ => {}
                }
            }
        });
        Fake { dir }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn run(channel: &mut Channel, script: &str, deadline: Instant) -> std::result::Result<(i32, Vec<u8>), Stop> {
        let mut written = Vec::new();
        let code = channel.run(script, b"", deadline, &mut |_, bytes| written.extend_from_slice(bytes))?;
        Ok((code, written))
    }

    #[test]
    fn a_restart_ends_the_request_and_the_next_boot_takes_the_next_one() {
        let guest = fake(vec![Answer::Ends("one", 3), Answer::Restarts, Answer::Ends("two", 0)]);
        let mut channel = Channel::connect(guest.dir.path(), soon()).unwrap();
        assert_eq!(run(&mut channel, "first", soon()).unwrap(), (3, b"one".to_vec()));
        assert_eq!(channel.boot(), Some("b1"));
        let stop = run(&mut channel, "second", soon()).unwrap_err();
        assert!(matches!(stop, Stop::Error(Error::Rebooted(ref script)) if script == "second"), "{stop:?}");
        assert_eq!(channel.wait_boot(Some("b1"), soon()).unwrap(), "b2");
        assert_eq!(run(&mut channel, "third", soon()).unwrap(), (0, b"two".to_vec()));
    }

    #[test]
    fn a_request_that_hangs_ends_at_its_deadline_and_leaves_the_channel_usable() {
        let guest = fake(vec![Answer::Hangs, Answer::Ends("after", 0)]);
        let mut channel = Channel::connect(guest.dir.path(), soon()).unwrap();
        let stop = run(&mut channel, "hang", Instant::now() + Duration::from_millis(300)).unwrap_err();
        assert!(matches!(stop, Stop::Late), "{stop:?}");
        assert_eq!(run(&mut channel, "next", soon()).unwrap(), (0, b"after".to_vec()));
    }

    #[test]
    fn two_clients_do_not_share_a_machine() {
        let guest = fake(vec![]);
        let _first = Channel::connect(guest.dir.path(), soon()).unwrap();
        let error = Channel::connect(guest.dir.path(), Instant::now()).unwrap_err();
        assert!(error.to_string().contains("another command"), "{error}");
    }

    #[test]
    fn the_agent_is_valid_bash() {
        sys::Cmd::new("bash").args(["-n", "/dev/stdin"]).stdin(AGENT).run().unwrap();
    }

    #[test]
    fn a_script_is_named_by_its_first_line() {
        assert_eq!(first_line("\n  true\nfalse\n"), "true…");
        assert_eq!(first_line("set -e\nhost status"), "host status");
    }
}
