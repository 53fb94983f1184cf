//! `slipway serve`: a directory over HTTP, for tests and demonstrations.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use store::serve::{FailAfter, Options, Server};
use sys::Exit;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory; nothing outside of it is served, whatever symbolic links say.
    dir: PathBuf,
    /// Address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Bytes a second, over all connections (1000, 64k, 5M).
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    throttle: Option<u64>,
    /// Vanish after N requests, or after N bytes where N ends in B (20, 5000B, 5MB), in the middle of an answer.
    #[arg(long, value_name = "N", value_parser = fail_after)]
    fail_after: Option<FailAfter>,
    /// Append a line of JSON for each request.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// `1000`, `64k`, `5M`, `1G`: powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a number of bytes"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

fn fail_after(text: &str) -> Result<FailAfter, String> {
    match text.strip_suffix(['b', 'B']) {
        Some(number) => bytes(number).map(FailAfter::Bytes),
        None => text.parse().map(FailAfter::Requests).map_err(|_| format!("{text:?} is not a number")),
    }
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let log = match &args.log {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let file = file.with_context(|| format!("opening {}", path.display()))?;
            Some(Box::new(file) as Box<dyn std::io::Write + Send>)
        }
    };
    let options = Options { throttle: args.throttle, fail_after: args.fail_after, log };
    let server = Server::bind(&args.dir, args.listen, options)
        .with_context(|| format!("serving {} on {}", args.dir.display(), args.listen))?;
    // The first line, at once: whoever started this waits for it.
    let mut stdout = std::io::stdout();
    writeln!(stdout, "http://{}", server.address()?)?;
    stdout.flush()?;
    server.run();
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_failures_are_read() {
        assert_eq!(bytes("64k"), Ok(65536));
        assert_eq!(bytes("5M"), Ok(5 << 20));
        assert!(bytes("five").is_err() && bytes("").is_err() && bytes("99999999999G").is_err());
        assert_eq!(fail_after("20"), Ok(FailAfter::Requests(20)));
        assert_eq!(fail_after("5000B"), Ok(FailAfter::Bytes(5000)));
        assert_eq!(fail_after("5MB"), Ok(FailAfter::Bytes(5 << 20)));
    }
}
