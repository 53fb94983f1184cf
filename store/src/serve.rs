//! A small HTTP/1.1 server for one directory: what tests, demonstrations and small fleets need.
//!
//! ```text
//! accept -> one thread a connection -> head (16 KiB at most) -> file beneath the root -> body, perhaps a range -> next
//! ```
//! It serves files below its root and nothing else: every path is opened by the kernel with the rule that no component,
//! symbolic links included, may leave the root. It can be slow, and it can fail, when asked to.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode as Bits, OFlags, ResolveFlags};

use crate::import::lock;

const MAX_HEAD: u64 = 16 << 10;
const MAX_CONNECTIONS: usize = 512;
const IDLE: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 << 10;

/// When a server stops working, as if its machine had gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailAfter {
    /// After so many requests were answered.
    Requests(u64),
    /// After so many bytes of bodies were sent, in the middle of one.
    Bytes(u64),
}

/// How a directory is served.
#[derive(Default)]
pub struct Options {
    /// Bytes a second, over all connections.
    pub throttle: Option<u64>,
    /// Stop working at some point.
    pub fail_after: Option<FailAfter>,
    /// Where a line of JSON goes for each request.
    pub log: Option<Box<dyn Write + Send>>,
}

struct Shared {
    root: OwnedFd,
    throttle: Option<u64>,
    /// When the next byte may be sent.
    free_at: Mutex<Instant>,
    requests_left: AtomicI64,
    bytes_left: AtomicI64,
    gone: AtomicBool,
    log: Mutex<Option<Box<dyn Write + Send>>>,
    connections: AtomicUsize,
    requests: AtomicU64,
    sent: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// A server that runs on a thread of its own until this is dropped.
pub struct Running {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Listens; port 0 takes a free one.
    pub fn bind(root: &Path, address: SocketAddr, options: Options) -> io::Result<Server> {
        let root = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Bits::empty())?;
        let left =
            |limit: Option<u64>| AtomicI64::new(limit.map_or(i64::MAX, |n| i64::try_from(n).unwrap_or(i64::MAX)));
        let (requests, bytes) = match options.fail_after {
            None => (None, None),
            Some(FailAfter::Requests(n)) => (Some(n), None),
            Some(FailAfter::Bytes(n)) => (None, Some(n)),
        };
        let shared = Shared {
            root,
            throttle: options.throttle.filter(|rate| *rate > 0),
            free_at: Mutex::new(Instant::now()),
            requests_left: left(requests),
            bytes_left: left(bytes),
            gone: AtomicBool::new(false),
            log: Mutex::new(options.log),
            connections: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            open: Mutex::default(),
        };
        Ok(Server { listener: TcpListener::bind(address)?, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends.
    pub fn run(self) {
        for stream in self.listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors: those that are open will be closed.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            if self.shared.gone.load(Ordering::Relaxed) {
                break;
            }
            if self.shared.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                self.shared.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            if let Ok(clone) = stream.try_clone() {
                let mut open = lock(&self.shared.open);
                open.retain(|s| s.peer_addr().is_ok());
                open.push(clone);
            }
            let shared = Arc::clone(&self.shared);
            std::thread::spawn(move || {
                // A connection that breaks is the client's business.
                let _ = connection(&shared, &stream);
                let _ = stream.shutdown(std::net::Shutdown::Both);
                shared.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// Serves on a thread of its own.
    pub fn spawn(self) -> io::Result<Running> {
        let (address, shared) = (self.address()?, Arc::clone(&self.shared));
        let thread = Some(std::thread::spawn(move || self.run()));
        Ok(Running { address, shared, thread })
    }
}

impl Running {
    /// The address for a client.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Bytes of bodies sent so far.
    pub fn bytes(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.vanish();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Every connection breaks, and no new one is served.
    fn vanish(&self) {
        self.gone.store(true, Ordering::Relaxed);
        for stream in lock(&self.open).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Waits until `bytes` may be sent.
    fn pace(&self, bytes: usize) {
        let Some(rate) = self.throttle else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let until = {
            let mut free_at = lock(&self.free_at);
            *free_at = (*free_at).max(Instant::now()) + cost;
            *free_at
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    fn write_log(&self, peer: Option<SocketAddr>, request: &Request, status: u16, bytes: u64) {
        let mut log = lock(&self.log);
        let Some(log) = log.as_mut() else { return };
        let line = serde_json::json!({
            "time": sys::clock::now(),
            "peer": peer.map(|p| canonical(p.ip()).to_string()),
            "method": request.method,
            "path": request.target,
            "range": request.range,
            "status": status,
            "bytes": bytes,
        });
        // A full disk must not end the service.
        let _ = writeln!(log, "{line}").and_then(|()| log.flush());
    }
}

fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[derive(Default)]
struct Request {
    method: String,
    target: String,
    range: Option<String>,
    none_match: Option<String>,
    close: bool,
    body: bool,
}

/// Reads the head of a request; `None` when the client is done, or makes no sense.
fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut head = reader.by_ref().take(MAX_HEAD);
    let mut line = Vec::new();
    head.read_until(b'\n', &mut line)?;
    let text = String::from_utf8_lossy(&line).into_owned();
    let mut words = text.split_ascii_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Ok(None);
    };
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        close: version != "HTTP/1.1",
        ..Request::default()
    };
    loop {
        line.clear();
        if head.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            return Ok(Some(request));
        }
        let Some((name, value)) = text.split_once(':') else { return Ok(None) };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.to_owned()),
            "if-none-match" => request.none_match = Some(value.to_owned()),
            "connection" => request.close |= value.eq_ignore_ascii_case("close"),
            "content-length" => request.body |= value != "0",
            "transfer-encoding" => request.body = true,
            _ => {}
        }
    }
}

fn connection(shared: &Shared, stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while !shared.gone.load(Ordering::Relaxed) {
        let Some(mut request) = read_request(&mut reader)? else { return Ok(()) };
        // A body would have to be read before the next request; nobody has a reason to send one.
        request.close |= request.body;
        if shared.requests_left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            shared.vanish();
            return Ok(());
        }
        let peer = stream.peer_addr().ok();
        // Before the answer: who has it may ask at once how many there were.
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let (status, bytes) = answer(shared, stream, &request)?;
        shared.write_log(peer, &request, status, bytes);
        if request.close {
            break;
        }
    }
    Ok(())
}

/// Percent-decodes the path of a request target.
fn decode_path(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next()?.strip_prefix('/')?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(first);
        }
    }
    let path = String::from_utf8(bytes).ok()?;
    let plain = path.split('/').all(|part| part != ".." && part != "." && !part.is_empty());
    (plain && !path.contains('\0')).then_some(path)
}

fn open(shared: &Shared, target: &str) -> Option<(File, u64, String)> {
    let path = decode_path(target)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // Not blocking: opening a pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::openat2(&shared.root, path, flags, Bits::empty(), resolve).ok()?);
    let stat = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let tag = format!("\"{:x}-{:x}-{:x}\"", stat.ino(), stat.mtime_nsec() ^ (stat.mtime() << 30), stat.len());
    Some((file, stat.len(), tag))
}

/// The bytes a range asks for; `Err` when there are none, `Ok(None)` when it is to be ignored.
fn parse_range(range: &str, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else { return Ok(None) };
    if last.contains(',') {
        return Ok(None);
    }
    let number = |text: &str| text.parse::<u64>().ok();
    match (number(first), number(last)) {
        (Some(start), end) if end.is_some() || last.is_empty() => {
            let end = end.map_or(size, |end| end.saturating_add(1).min(size));
            if start < end { Ok(Some((start, end))) } else { Err(()) }
        }
        (None, Some(suffix)) if first.is_empty() && suffix > 0 && size > 0 => {
            Ok(Some((size.saturating_sub(suffix), size)))
        }
        (None, Some(_)) if first.is_empty() => Err(()),
        _ => Ok(None),
    }
}

/// Answers one request: status and bytes of the body.
fn answer(shared: &Shared, mut stream: &TcpStream, request: &Request) -> io::Result<(u16, u64)> {
    let connection = if request.close { "close" } else { "keep-alive" };
    let mut plain = |status: u16, reason: &str, extra: &str| {
        let head =
            format!("HTTP/1.1 {status} {reason}\r\n{extra}Content-Length: 0\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(head.as_bytes()).map(|()| (status, 0))
    };
    if request.method != "GET" && request.method != "HEAD" {
        return plain(405, "Method Not Allowed", "Allow: GET, HEAD\r\n");
    }
    let Some((file, size, tag)) = open(shared, &request.target) else { return plain(404, "Not Found", "") };
    if request.none_match.as_ref().is_some_and(|tags| tags.split(',').any(|t| t.trim() == tag)) {
        let head = format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        return Ok((304, 0));
    }
    let range = match request.range.as_deref().map_or(Ok(None), |range| parse_range(range, size)) {
        Ok(range) => range,
        Err(()) => return plain(416, "Range Not Satisfiable", &format!("Content-Range: bytes */{size}\r\n")),
    };
    let (status, (start, end)) = range.map_or((200, (0, size)), |range| (206, range));
    let length = end - start;
    let mut head = format!("HTTP/1.1 {status} {}\r\n", if status == 206 { "Partial Content" } else { "OK" });
    if status == 206 {
        head += &format!("Content-Range: bytes {start}-{}/{size}\r\n", end - 1);
    }
    head += &format!(
        "Content-Type: application/octet-stream\r\nContent-Length: {length}\r\nAccept-Ranges: bytes\r\nETag: {tag}\r\n\
         Connection: {connection}\r\n\r\n"
    );
    if request.method == "HEAD" {
        stream.write_all(head.as_bytes())?;
        return Ok((status, 0));
    }
    (&file).seek(SeekFrom::Start(start))?;
    // Small files go out in one packet with their head.
    let mut buffer = head.into_bytes();
    let mut left = length;
    loop {
        let head = buffer.len();
        let want = left.min((CHUNK - head.min(CHUNK / 2)) as u64);
        if (&file).take(want).read_to_end(&mut buffer)? as u64 != want {
            // The file became shorter: the promised length cannot be kept.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        shared.pace(buffer.len());
        let allowed = shared.bytes_left.fetch_sub(i64::try_from(want).unwrap_or(i64::MAX), Ordering::Relaxed);
        if allowed < i64::try_from(want).unwrap_or(i64::MAX) {
            let part = usize::try_from(allowed.max(0)).unwrap_or(0);
            stream.write_all(&buffer[..head + part])?;
            shared.vanish();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        stream.write_all(&buffer)?;
        shared.sent.fetch_add(want, Ordering::Relaxed);
        left -= want;
        buffer.clear();
        if left == 0 {
            return Ok((status, length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn serve(options: Options) -> (tempfile::TempDir, Running) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), "0123456789").unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("../../secret", root.join("sub/out")).unwrap();
        symlink("/etc/passwd", root.join("sub/absolute")).unwrap();
        symlink("file", root.join("sub/in")).unwrap();
        let server = Server::bind(&root, SocketAddr::from(([127, 0, 0, 1], 0)), options).unwrap();
        (dir, server.spawn().unwrap())
    }

    fn ask(server: &Running, requests: &[&str]) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        for (index, request) in requests.iter().enumerate() {
            let close = if index + 1 == requests.len() { "Connection: close\r\n" } else { "" };
            stream.write_all(format!("{request}\r\nHost: x\r\n{close}\r\n").as_bytes()).unwrap();
        }
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }

    #[test]
    fn files_ranges_and_heads() {
        let (_dir, server) = serve(Options::default());
        assert!(ask(&server, &["GET /sub/file HTTP/1.1"]).ends_with("\r\n\r\n0123456789"));
        assert!(ask(&server, &["GET /sub/in HTTP/1.1"]).ends_with("0123456789"));
        assert!(ask(&server, &["GET /s%75b/file?x=1 HTTP/1.1"]).ends_with("0123456789"));
        let part = ask(&server, &["GET /sub/file HTTP/1.1\r\nRange: bytes=2-4"]);
        assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\n234"), "{part}");
        assert!(part.contains("Content-Range: bytes 2-4/10"), "{part}");
        assert!(ask(&server, &["GET /sub/file HTTP/1.1\r\nRange: bytes=-3"]).ends_with("\r\n\r\n789"));
        assert!(ask(&server, &["GET /sub/file HTTP/1.1\r\nRange: bytes=7-"]).ends_with("\r\n\r\n789"));
        assert!(ask(&server, &["GET /sub/file HTTP/1.1\r\nRange: bytes=10-"]).starts_with("HTTP/1.1 416"));
        let head = ask(&server, &["HEAD /sub/file HTTP/1.1"]);
        assert!(head.contains("Content-Length: 10") && head.ends_with("\r\n\r\n"), "{head}");
        let two = ask(&server, &["GET /sub/file HTTP/1.1", "GET /none HTTP/1.1"]);
        assert!(two.contains("0123456789HTTP/1.1 404"), "{two}");
        assert!(ask(&server, &["POST /sub/file HTTP/1.1"]).starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn nothing_outside_the_root_is_served() {
        let (_dir, server) = serve(Options::default());
        for path in [
            "/../secret",
            "/sub/../../secret",
            "/%2e%2e/secret",
            "/sub/%2e%2e%2f%2e%2e%2fsecret",
            "/sub/out",
            "/sub/absolute",
            "//etc/passwd",
            "/sub",
            "/",
            "secret",
            "/sub/file%00",
            "/sub/file%zz",
            "http://x/sub/file",
        ] {
            let text = ask(&server, &[&format!("GET {path} HTTP/1.1")]);
            assert!(text.starts_with("HTTP/1.1 404"), "{path}: {text}");
        }
    }

    #[test]
    fn garbage_does_not_stop_it() {
        let (_dir, server) = serve(Options::default());
        for garbage in [&b"\0\xff\n\n"[..], b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", &[b'a'; 40_000]] {
            let mut stream = TcpStream::connect(server.address).unwrap();
            let _ = stream.write_all(garbage);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        assert!(ask(&server, &["GET /sub/file HTTP/1.1"]).ends_with("0123456789"));
    }

    #[test]
    fn it_fails_when_asked_to() {
        let (_dir, server) = serve(Options { fail_after: Some(FailAfter::Bytes(14)), ..Options::default() });
        assert!(ask(&server, &["GET /sub/file HTTP/1.1"]).ends_with("0123456789"));
        assert!(ask(&server, &["GET /sub/file HTTP/1.1"]).ends_with("\r\n\r\n0123"));
        assert_eq!(ask(&server, &["GET /sub/file HTTP/1.1"]), "");
        let (_dir, server) = serve(Options { fail_after: Some(FailAfter::Requests(1)), ..Options::default() });
        assert!(ask(&server, &["GET /sub/file HTTP/1.1"]).ends_with("0123456789"));
        assert_eq!(ask(&server, &["GET /sub/file HTTP/1.1"]), "");
    }
}
