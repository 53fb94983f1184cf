//! `slipway-prepare-root`: started by systemd in the initramfs, once the system's logical volume is there; and, under
//! the name `slipway-fresh-ids`, before dracut looks for it.
//!
//! An error ends in `emergency.target`, which reboots (`rd.emergency=reboot`); the boot loader then falls back to the
//! next entry. So every message must be readable on a console that scrolls by once.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    let result = match Path::new(&program).file_name().and_then(|name| name.to_str()) {
        Some("slipway-fresh-ids") => fresh_ids(),
        _ => prepare_root::prepare::run(&mut say).map(|_| ()).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn fresh_ids() -> Result<(), Box<dyn Error>> {
    let cmdline = std::fs::read_to_string("/proc/cmdline")?;
    let request = prepare_root::cmdline::Request::parse(&cmdline)?;
    let volume = request.volume.rsplit('/').next().unwrap_or("root");
    let done = prepare_root::fresh::run(Path::new("/"), volume, &mut say);
    if done.is_err() {
        say("this disk may still have the ids of its image; do not attach a second copy of it to this machine");
    }
    Ok(done?)
}

fn say(line: &str) {
    eprintln!("slipway: {line}");
}

/// `outer: inner: cause` on one line; sources that are part of the text already are not repeated.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
