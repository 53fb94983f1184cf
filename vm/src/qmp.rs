//! A small client of QEMU's control socket (QMP): one command at a time, events dropped.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A connection to QEMU's control socket.
#[derive(Debug)]
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and negotiates; `within` bounds that and each answer.
    pub(crate) fn connect(socket: &Path, within: Duration) -> std::io::Result<Qmp> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(within))?;
        let mut qmp = Qmp { reader: BufReader::new(stream) };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            return Err(std::io::Error::other("no QMP greeting"));
        }
        qmp.execute("qmp_capabilities", json!({})).map_err(|e| std::io::Error::other(e.to_string()))?;
        Ok(qmp)
    }

    fn line(&mut self) -> std::io::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "QEMU closed its control socket"));
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Runs one command and returns its `return` value.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let refused = |why: String| Error::Qmp { command: command.to_owned(), why };
        let request = json!({"execute": command, "arguments": arguments});
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes()).map_err(|e| refused(e.to_string()))?;
        loop {
            let mut answer = self.line().map_err(|e| refused(e.to_string()))?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(refused(error["desc"].as_str().unwrap_or("no reason given").to_owned()));
            }
            // Anything else is an event.
        }
    }

    /// Runs a command of the human monitor, which has what QMP lacks; any text it prints but `""` is an error.
    pub(crate) fn human(&mut self, line: &str) -> Result<()> {
        let text = self.execute("human-monitor-command", json!({"command-line": line}))?;
        match text.as_str().map(str::trim) {
            None | Some("") => Ok(()),
            Some(why) => Err(Error::Qmp { command: line.to_owned(), why: why.to_owned() }),
        }
    }

    /// Writes memory and devices to a file and waits until it is complete; the machine stands still from then on.
    pub(crate) fn suspend_to(&mut self, file: &Path, within: Duration) -> Result<()> {
        let failed = |why: String| Error::Qmp { command: "migrate".to_owned(), why };
        self.execute("stop", json!({}))?;
        // Without a limit: the default bandwidth is meant for networks.
        self.execute("migrate-set-parameters", json!({"max-bandwidth": 0}))?;
        self.execute("migrate", json!({"uri": format!("file:{}", file.display())}))?;
        let deadline = Instant::now() + within;
        loop {
            let state = self.execute("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    return Err(failed(state["error-desc"].as_str().unwrap_or("it failed").to_owned()));
                }
                _ if Instant::now() > deadline => return Err(failed(format!("not done after {} s", within.as_secs()))),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Waits until the machine runs (after an incoming state was loaded) and starts it where it stands still.
    pub(crate) fn resume(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let state = self.execute("query-status", json!({}))?;
            match state["status"].as_str() {
                Some("running") => return Ok(()),
                Some("paused" | "postmigrate" | "prelaunch") => {
                    self.execute("cont", json!({}))?;
                }
                _ if Instant::now() > deadline => {
                    return Err(Error::Qmp {
                        command: "cont".to_owned(),
                        why: format!("the machine is still {}", state["status"]),
                    });
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A control socket that greets and then answers each line with the next of `answers`.
    fn fake(answers: &'static [&'static str]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(b"{\"QMP\": {}}\n").unwrap();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            for answer in answers {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                socket.write_all(answer.as_bytes()).unwrap();
            }
        });
        (dir, path)
    }

    #[test]
    fn events_between_command_and_answer_are_dropped() {
        let (_dir, path) =
            fake(&["{\"return\": {}}\n", "{\"event\": \"RESET\"}\n{\"return\": {\"status\": \"running\"}}\n"]);
        let mut qmp = Qmp::connect(&path, Duration::from_secs(5)).unwrap();
        assert_eq!(qmp.execute("query-status", json!({})).unwrap()["status"], "running");
    }

    #[test]
    fn an_error_carries_the_commands_name() {
        let (_dir, path) = fake(&["{\"return\": {}}\n", "{\"return\": \"Error: no snapshot\\r\\n\"}\n"]);
        let mut qmp = Qmp::connect(&path, Duration::from_secs(5)).unwrap();
        let error = qmp.human("loadvm x").unwrap_err().to_string();
        assert_eq!(error, "QEMU refused loadvm x: Error: no snapshot");
    }

    #[test]
    fn qemu_gone_is_an_error_not_a_hang() {
        let (_dir, path) = fake(&["{\"return\": {}}\n"]);
        let mut qmp = Qmp::connect(&path, Duration::from_secs(5)).unwrap();
        assert!(qmp.execute("quit", json!({})).is_err());
    }
}
