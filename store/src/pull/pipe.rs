//! Requests that are sent ahead on one connection, so that nobody waits for a server that is far away, and neither side
//! sleeps between small objects (RFC 9112, section 9.3.2).
//!
//! ```text
//! GET a  GET b  GET c  ------>
//!                      <------  200 a, 200 b
//! GET d  GET e         ------>
//!                      <------  200 c, …
//! ```
//! Only plain answers are taken here: 200, of a known length. Whatever else comes (nothing there, an error, a redirect, a
//! body in chunks) is left to a request of its own, which knows what to do about it, and ends the sending ahead. A server
//! that closes a connection after a hundred answers or a thousand is common: what it has not answered is asked again on
//! another one. One that closes after a few is asked for one file at a time.

use std::collections::VecDeque;
use std::io::{self, Read};

use ureq::unversioned::transport::time::Duration as Limit;
use ureq::unversioned::transport::{NextTimeout, Transport as Connection};

use super::client::{Client, Stream};

/// The longest head of an answer.
const MAX_HEAD: usize = 32 << 10;
/// What is left of a body that nobody wants is read away up to here; beyond it the connection is closed.
const MAX_REST: u64 = 256 << 10;
/// A connection that gave so many answers was worth opening, and another one is opened after it.
const WORTH: u64 = 16;

/// One connection, and what was asked on it.
pub(super) struct Pipe<'a> {
    client: &'a Client,
    base: String,
    /// What comes before and after the path of each request; nothing where nothing can be sent ahead.
    frame: Option<(String, String)>,
    connection: Option<Box<dyn Connection>>,
    timeout: NextTimeout,
    /// Requests that have not been sent.
    output: Vec<u8>,
    /// Paths whose answers have not begun.
    asked: VecDeque<String>,
    /// Answers on this connection.
    answers: u64,
    /// Bytes of the present answer that are still to come.
    left: u64,
    /// The server closes the connection after the present answer.
    last: bool,
}

/// The head of an answer that can be used.
struct Head {
    length: u64,
    etag: Option<String>,
    last: bool,
}

impl<'a> Pipe<'a> {
    /// Prepares a connection to whoever serves `base`. Nothing is opened before something is asked.
    pub fn new(client: &'a Client, base: &str) -> Self {
        let stall = Limit::Exact(client.stall());
        Pipe {
            client,
            base: base.to_owned(),
            frame: client.frame(base),
            connection: None,
            timeout: NextTimeout { after: stall, reason: ureq::Timeout::PerRead, ..NextTimeout::default() },
            output: Vec::new(),
            asked: VecDeque::new(),
            answers: 0,
            left: 0,
            last: false,
        }
    }

    /// Asks for a file below the base. The request goes out with the next answer that is waited for.
    pub fn ask(&mut self, path: &str) {
        if let Some((before, after)) = &self.frame {
            write_request(&mut self.output, before, path, after);
            self.asked.push_back(path.to_owned());
        }
    }

    /// The answer to a request that was sent ahead; `None` where it has to be asked for otherwise. Files are to be taken
    /// in the order in which they were asked for: one that is passed over cannot be had any more.
    pub fn answer(&mut self, path: &str) -> Option<Body<'_, 'a>> {
        if !self.asked.iter().any(|asked| asked == path) {
            return None;
        }
        loop {
            let found = self.next();
            let asked = self.asked.pop_front()?;
            if asked == path {
                let head = found?;
                let url = format!("{}/{path}", self.base);
                return Some(Body { pipe: self, url, size: head.length, etag: head.etag, at: 0, stream: None });
            }
        }
    }

    /// The next answer on the connection, if it is one that can be used.
    fn next(&mut self) -> Option<Head> {
        if self.finish().is_err() {
            self.lost();
        }
        loop {
            self.frame.as_ref()?;
            match self.head() {
                Ok(head) => {
                    self.answers += 1;
                    return head.inspect(|head| (self.left, self.last) = (head.length, head.last));
                }
                Err(error) => {
                    tracing::debug!(%error, base = self.base, answers = self.answers, "a connection was lost");
                    self.lost();
                }
            }
        }
    }

    /// The connection is gone. What it has not answered is asked once more on another, if it answered enough.
    fn lost(&mut self) {
        (self.connection, self.left, self.last) = (None, 0, false);
        self.output.clear();
        match &self.frame {
            Some((before, after)) if std::mem::take(&mut self.answers) >= WORTH => {
                for path in &self.asked {
                    write_request(&mut self.output, before, path, after);
                }
            }
            _ => self.frame = None,
        }
    }

    /// Comes to the end of the present answer.
    fn finish(&mut self) -> io::Result<()> {
        if self.left > MAX_REST || (self.last && self.connection.is_some()) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut sink = [0; 4096];
        while self.left > 0 {
            self.body(&mut sink)?;
        }
        Ok(())
    }

    fn connect(&mut self) -> io::Result<&mut Box<dyn Connection>> {
        if self.connection.is_none() {
            self.connection = Some(self.client.connect(&self.base)?);
        }
        self.connection.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn send(&mut self) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        let timeout = self.timeout;
        let connection = self.connect()?;
        let mut rest = output.as_slice();
        while !rest.is_empty() {
            let buffer = connection.buffers().output();
            let count = buffer.len().min(rest.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            connection.transmit_output(count, timeout).map_err(other)?;
            rest = &rest[count..];
        }
        self.output = output;
        self.output.clear();
        Ok(())
    }

    /// More input; an error where there will be none.
    fn more(&mut self) -> io::Result<()> {
        let timeout = self.timeout;
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let before = connection.buffers().input().len();
        connection.await_input(timeout).map_err(other)?;
        if connection.buffers().input().len() == before { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Reads the head of the next answer; `None` for one that is left to others.
    fn head(&mut self) -> io::Result<Option<Head>> {
        if !self.output.is_empty() {
            self.send()?;
        }
        loop {
            let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            let input = connection.buffers().input();
            match parse(input)? {
                Some((head, used)) => {
                    connection.buffers().input_consume(used);
                    return match head {
                        Parsed::Plain(head) => Ok(Some(head)),
                        Parsed::Missing { length, last } => {
                            (self.left, self.last) = (length, last);
                            Ok(None)
                        }
                        Parsed::Other => {
                            self.answers = 0;
                            Err(io::Error::other("an answer that is none to a request sent ahead"))
                        }
                    };
                }
                None if input.len() >= MAX_HEAD => return Err(io::Error::other("the head of an answer is too long")),
                None => self.more()?,
            }
        }
    }

    /// Bytes of the present answer.
    fn body(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.left.min(buffer.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            let input = connection.buffers().input();
            let count = input.len().min(wanted);
            if count > 0 {
                buffer[..count].copy_from_slice(&input[..count]);
                connection.buffers().input_consume(count);
                self.left -= count as u64;
                return Ok(count);
            }
            self.more()?;
        }
    }
}

/// One request, framed as [`Client::frame`] says.
fn write_request(output: &mut Vec<u8>, before: &str, path: &str, after: &str) {
    [before, "/", path, after].iter().for_each(|part| output.extend_from_slice(part.as_bytes()));
}

/// The content of a file. Where the connection is lost in its middle, another one goes on from the same byte.
pub(super) struct Body<'p, 'a> {
    pipe: &'p mut Pipe<'a>,
    url: String,
    /// Bytes of the whole file.
    pub size: u64,
    etag: Option<String>,
    at: u64,
    stream: Option<Stream<'a>>,
}

impl Body<'_, '_> {
    /// Where it comes from.
    pub fn url(&self) -> String {
        self.url.clone()
    }
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(stream) = &mut self.stream {
            return stream.read(buffer);
        }
        match self.pipe.body(buffer) {
            Ok(count) => {
                self.at += count as u64;
                Ok(count)
            }
            Err(error) => {
                tracing::debug!(%error, url = self.url, at = self.at, "going on with another connection");
                self.pipe.lost();
                let stream = self.pipe.client.resume(&self.url, self.size, self.etag.take(), self.at);
                self.stream.insert(stream).read(buffer)
            }
        }
    }
}

enum Parsed {
    /// The file.
    Plain(Head),
    /// There is no such file; a body says so to people.
    Missing { length: u64, last: bool },
    /// Anything else.
    Other,
}

/// The head of an answer and its length; `None` where more is to come.
fn parse(input: &[u8]) -> io::Result<Option<(Parsed, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(used) = response.parse(input).map_err(io::Error::other)? else { return Ok(None) };
    let header = |name: &str| {
        let found = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let mut values = found.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim());
        (values.next(), values.next().is_some())
    };
    let (length, twice) = header("content-length");
    let length = length.filter(|text| !twice && text.bytes().all(|digit| digit.is_ascii_digit()));
    let encoded = ["transfer-encoding", "content-encoding"].iter().any(|name| header(name).0.is_some());
    let length = length.filter(|_| !encoded).and_then(|text| text.parse().ok());
    let closes = header("connection").0.is_some_and(|text| text.to_ascii_lowercase().contains("close"));
    let last = closes || response.version != Some(1);
    let parsed = match (response.code, length) {
        (Some(200), Some(length)) => {
            let etag = header("etag").0.filter(|tag| !tag.is_empty() && !tag.starts_with("W/")).map(str::to_owned);
            Parsed::Plain(Head { length, etag, last })
        }
        (Some(404 | 410), Some(length)) => Parsed::Missing { length, last },
        // An interim answer too: it is followed by another one to the same request.
        _ => Parsed::Other,
    };
    Ok(Some((parsed, used)))
}

fn other(error: ureq::Error) -> io::Error {
    match error {
        ureq::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Option<(u64, Option<String>, bool)> {
        match parse(text.as_bytes()).unwrap()?.0 {
            Parsed::Plain(head) => Some((head.length, head.etag, head.last)),
            _ => None,
        }
    }

    #[test]
    fn plain_answers_are_taken() {
        let tag = Some("\"a-1\"".to_owned());
        let text = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\nETag: \"a-1\"\r\n\r\nrest";
        assert_eq!(plain(text), Some((12, tag, false)));
        assert_eq!(parse(text.as_bytes()).unwrap().unwrap().1, text.len() - 4);
        let closing = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: Keep-Alive, Close\r\nETag: W/\"1\"\r\n\r\n";
        assert_eq!(plain(closing), Some((0, None, true)));
        assert_eq!(plain("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n"), Some((1, None, true)));
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Len").unwrap().is_none());
    }

    #[test]
    fn answers_that_could_be_understood_in_two_ways_are_not() {
        let two_lengths = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n";
        let signed_length = "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n";
        let chunks_and_length = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        let compressed = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-encoding: gzip\r\n\r\n";
        let no_length = "HTTP/1.1 200 OK\r\n\r\n";
        let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n";
        for text in [two_lengths, signed_length, chunks_and_length, compressed, no_length, early] {
            assert!(matches!(parse(text.as_bytes()).unwrap().unwrap().0, Parsed::Other), "{text}");
        }
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_head_ends_within_what_came(bytes: Vec<u8>, lines in "(HTTP/1.[01] [0-9]{3} \\PC{0,9}\r\n)?(\\PC{0,20}: ?\\PC{0,20}\r\n){0,4}\r\n") {
            for input in [bytes.clone(), [lines.into_bytes(), bytes].concat()] {
                if let Ok(Some((_, used))) = parse(&input) {
                    proptest::prop_assert!(used <= input.len());
                }
            }
        }
    }
}
