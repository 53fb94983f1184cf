//! `slipway vm list|logs`.

use std::io::{Read, Seek, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use sys::Exit;

use super::registry;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Lists the machines of this user.
pub fn list(args: ListArgs) -> Result<Exit> {
    let entries = registry()?.list()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(Exit::Done);
    }
    if entries.is_empty() {
        eprintln!("no machines; to boot one: slipway vm run IMAGE");
        return Ok(Exit::Done);
    }
    println!("{:<24} {:<8} {:>6} {:>5} {:>6}  IMAGE", "NAME", "STATE", "MIB", "CPUS", "SSH");
    for entry in entries {
        let ssh = entry.ssh_port.filter(|_| entry.running).map(|p| p.to_string()).unwrap_or_else(|| "-".to_owned());
        let state = if entry.running { "running" } else { "off" };
        let image = entry.image.display();
        println!("{:<24} {state:<8} {:>6} {:>5} {ssh:>6}  {image}", entry.name, entry.memory, entry.cpus);
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// The machine; may be left out where only one runs.
    name: Option<String>,
    /// Goes on until the machine ends.
    #[arg(long, short)]
    follow: bool,
}

/// Shows the serial console's log.
pub fn logs(args: LogsArgs) -> Result<Exit> {
    let registry = registry()?;
    let entry = registry.find(args.name.as_deref())?;
    let path = entry.dir.join("serial.log");
    let mut file = std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let mut stdout = std::io::stdout().lock();
    let mut pending = Vec::new();
    loop {
        let running = args.follow && registry.find(Some(&entry.name)).is_ok_and(|e| e.running);
        let read = file.read_to_end(&mut pending)?;
        // A control sequence may be cut in two at the end: lines only, but for the last piece of all.
        let whole = match pending.iter().rposition(|b| *b == b'\n') {
            Some(end) if running => end + 1,
            None if running => 0,
            _ => pending.len(),
        };
        let text = vm::plain(&pending[..whole]);
        pending.drain(..whole);
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
            result => result?,
        }
        if !running {
            return Ok(Exit::Done);
        }
        if read == 0 {
            std::thread::sleep(Duration::from_millis(200));
            // The log was begun anew.
            if file.metadata()?.len() < file.stream_position()? {
                file.rewind()?;
            }
        }
    }
}
