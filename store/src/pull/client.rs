//! HTTP: one request, tried again; a stream that survives its connection.
//!
//! What fails for a passing reason (connection lost, no answer in time, the server overloaded: 408, 425, 429, 5xx) is
//! tried again, later each time and not before the server wants it (`Retry-After`); what is wrong (missing, refused,
//! tampered with) is not.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Uri;
use ureq::http::uri::Authority;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, Transport as Connection};

use super::Transport;
use super::names::KnownNames;
use crate::cookies::Jar;
use crate::import::lock;

/// How a server wants to know who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password.
    Basic(String, String),
    /// A token.
    Bearer(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Login::Basic(..) => "Basic",
            Login::Bearer(_) => "Bearer",
        })
    }
}

impl Login {
    fn header(&self) -> String {
        match self {
            Login::Basic(name, password) => format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))),
            Login::Bearer(token) => format!("Bearer {token}"),
        }
    }
}

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct Network {
    /// Connections that are used at the same time.
    pub connections: usize,
    /// How often something that fails for a passing reason is tried again.
    pub retries: u32,
    /// Seconds without a byte after which a connection is given up.
    pub stall_seconds: u64,
    /// Certificates to trust instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The certificate, and the key that belongs to it, by which the server knows who asks.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Accept any certificate: whoever is in between can then see what is fetched. Signatures still hold.
    pub tls_permissive: bool,
    /// A proxy; without one the environment says (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`).
    pub proxy: Option<String>,
    /// Who asks. A name in the address (`https://name:password@host`) does the same.
    pub login: Option<Login>,
    /// More headers for each request.
    pub headers: Vec<(String, String)>,
    /// Cookies for the requests that they fit.
    pub cookies: Jar,
    /// What follows the program's own name where it says who asks.
    pub agent: Option<String>,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            connections: 8,
            retries: 4,
            stall_seconds: 60,
            ca_file: None,
            client_cert: None,
            tls_permissive: false,
            proxy: None,
            login: None,
            headers: Vec::new(),
            cookies: Jar::default(),
            agent: None,
        }
    }
}

impl Network {
    /// Who asks: the header `User-Agent`.
    fn user_agent(&self) -> String {
        self.agent.as_ref().map_or_else(|| AGENT.to_owned(), |more| format!("{AGENT} {more}"))
    }
}

/// Connections to one or a few servers.
pub(super) struct Client {
    agent: ureq::Agent,
    /// Opens connections and does nothing with them.
    opener: ureq::Agent,
    opened: Opened,
    stall: Duration,
    retries: u32,
    user_agent: String,
    headers: Vec<(String, String)>,
    cookies: Jar,
}

/// Connections that were opened, encrypted and through a proxy where need be, for others to talk over.
#[derive(Clone, Debug, Default)]
struct Opened {
    /// Whom somebody wants to talk to; a proxy on the way is none of them.
    wanted: Arc<Mutex<HashSet<Authority>>>,
    connections: Arc<Mutex<Vec<To>>>,
}

/// A connection, and whom it leads to.
type To = (Authority, Box<dyn Connection>);

impl<In: Connection> Connector<In> for Opened {
    type Out = In;

    /// Keeps the connection, so that the agent believes that there is none.
    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<In>, ureq::Error> {
        match (chained, details.uri.authority()) {
            (Some(connection), Some(authority)) if lock(&self.wanted).contains(authority) => {
                lock(&self.connections).push((authority.clone(), Box::new(connection)));
                Ok(None)
            }
            (chained, _) => Ok(chained),
        }
    }
}

/// One answer with a body.
struct Answer {
    body: ureq::BodyReader<'static>,
    /// Where in the file the body begins.
    at: u64,
    /// Where the body ends, where it is known.
    end: Option<u64>,
    /// The size of the whole file, where it is known.
    size: Option<u64>,
    etag: Option<String>,
}

impl Client {
    /// Prepares the connections; nothing is fetched. The error is a sentence.
    pub fn new(network: &Network, login: Option<Login>) -> Result<Client, String> {
        let stall = Duration::from_secs(network.stall_seconds.max(1));
        let connections = network.connections.max(1);
        let mut tls = TlsConfig::builder().root_certs(roots(network.ca_file.as_deref())?);
        if let Some((chain, key)) = &network.client_cert {
            tls = tls.client_cert(Some(client_cert(chain, key)?));
        }
        let user_agent = network.user_agent();
        ureq::http::HeaderValue::try_from(&user_agent)
            .map_err(|_| format!("{user_agent:?} cannot be sent as User-Agent"))?;
        let mut config = ureq::Agent::config_builder()
            .tls_config(tls.disable_verification(network.tls_permissive).build())
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(&user_agent)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .timeout_connect(Some(Duration::from_secs(network.stall_seconds.clamp(1, 30))))
            .timeout_per_read(Some(stall))
            .timeout_recv_response(Some(stall));
        if let Some(proxy) = &network.proxy {
            let proxy = ureq::Proxy::new(proxy).map_err(|e| format!("the proxy {proxy:?}: {e}"))?;
            config = config.proxy(Some(proxy));
        }
        let config = config.build();
        let opened = Opened::default();
        let opener = DefaultConnector::new().chain(opened.clone());
        let opener = ureq::Agent::with_parts(config.clone(), opener, KnownNames::default());
        let agent = ureq::Agent::with_parts(config, DefaultConnector::new(), KnownNames::default());
        let mut headers = network.headers.clone();
        if let Some(login) = login.as_ref().or(network.login.as_ref()) {
            headers.push(("Authorization".to_owned(), login.header()));
        }
        for (name, value) in &headers {
            let bad = |what| format!("the header {name:?} cannot be sent: its {what} is not valid");
            ureq::http::HeaderName::try_from(name.as_str()).map_err(|_| bad("name"))?;
            ureq::http::HeaderValue::try_from(value.as_str()).map_err(|_| bad("value"))?;
        }
        let cookies = network.cookies.clone();
        Ok(Client { agent, opener, opened, stall, retries: network.retries, user_agent, headers, cookies })
    }

    /// How long a connection may be silent.
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// What a request for a file below `base` consists of, before and after what names the file; `None` where the
    /// address is none that a request can be made of by hand.
    pub fn frame(&self, base: &str) -> Option<(String, String)> {
        let uri = Uri::try_from(base).ok().filter(|uri| uri.query().is_none())?;
        let host = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let mut after = format!(" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}\r\nAccept: */*\r\n", self.user_agent);
        after.push_str("Accept-Encoding: identity\r\n");
        // What is asked for by hand are objects: no cookie is for some of them alone.
        if let Some(cookies) = self.cookies.header(&format!("{base}/objects/"), sys::clock::now()) {
            after.push_str(&format!("Cookie: {cookies}\r\n"));
        }
        for (name, value) in &self.headers {
            after.push_str(&format!("{name}: {value}\r\n"));
        }
        after.push_str("\r\n");
        Some((format!("GET {}", uri.path().trim_end_matches('/')), after))
    }

    /// A connection to the server of `base`, over which nothing has been said.
    pub fn connect(&self, base: &str) -> io::Result<Box<dyn Connection>> {
        let uri = Uri::try_from(base).map_err(io::Error::other)?;
        let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?.clone();
        lock(&self.opened.wanted).insert(authority.clone());
        let answer = self.opener.get(uri).call();
        let mut connections = lock(&self.opened.connections);
        match (connections.iter().position(|(to, _)| *to == authority), answer) {
            (Some(index), _) => Ok(connections.swap_remove(index).1),
            (None, Err(error)) => Err(into_io(transport(error))),
            (None, Ok(_)) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Goes on with a file of which `at` bytes have come.
    pub fn resume(&self, url: &str, size: u64, etag: Option<String>, at: u64) -> Stream<'_> {
        Stream {
            client: self,
            url: url.to_owned(),
            size: Some(size),
            etag,
            at,
            end: Some(size),
            answer: None,
            left: self.retries,
            pause: PAUSE,
            since: 0,
        }
    }

    /// One request, for a range that is not the whole file if `from` or `end` say so; `None` where there is nothing.
    fn get(&self, url: &str, from: u64, end: Option<u64>, etag: Option<&str>) -> Result<Option<Answer>, Transport> {
        let mut request = self.agent.get(url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(cookies) = self.cookies.header(url, sys::clock::now()) {
            request = request.header("Cookie", cookies);
        }
        if from > 0 || end.is_some() {
            let last = end.map_or_else(String::new, |end| end.saturating_sub(1).to_string());
            request = request.header("Range", format!("bytes={from}-{last}"));
            if let Some(etag) = etag {
                request = request.header("If-Range", etag);
            }
        }
        let response = request.call().map_err(transport)?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let length = header("content-length").and_then(|text| text.parse::<u64>().ok());
        let found = header("etag").filter(|tag| !tag.starts_with("W/")).map(str::to_owned);
        let (at, size) = match response.status().as_u16() {
            200 => (0, length),
            206 => match header("content-range").and_then(content_range) {
                Some((at, size)) if at <= from => (at, size),
                _ => return Err(Transport::Client("the server answered with a range nobody asked for".into())),
            },
            404 | 410 => return Ok(None),
            status => {
                // A date instead of a number of seconds is not looked at: clocks differ.
                let seconds = header("retry-after").and_then(|text| text.trim().parse().ok());
                return Err(seconds.map_or(Transport::Status(status), |seconds| Transport::Busy { status, seconds }));
            }
        };
        if etag.is_some() && found.is_some() && etag != found.as_deref() {
            return Err(Transport::Client("the file was replaced while it was fetched".into()));
        }
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Some(Answer { body, at, end: length.map(|length| at.saturating_add(length)), size, etag: found }))
    }

    /// Something that fits in memory.
    pub fn small(&self, url: &str, limit: u64) -> Result<Option<Vec<u8>>, Transport> {
        self.again(|| {
            let Some(answer) = self.get(url, 0, None, None)? else { return Ok(None) };
            if answer.size.is_some_and(|size| size > limit) {
                return Err(Transport::TooLarge(limit));
            }
            let mut bytes = Vec::with_capacity(answer.size.map_or(0, |size| size.min(1 << 20) as usize + 1));
            answer.body.take(limit + 1).read_to_end(&mut bytes)?;
            match answer.size {
                _ if bytes.len() as u64 > limit => Err(Transport::TooLarge(limit)),
                Some(size) if size != bytes.len() as u64 => Err(Transport::Io(cut_short())),
                _ => Ok(Some(bytes)),
            }
        })
    }

    /// A file from `from` on, for `length` bytes or to its end.
    pub fn stream(&self, url: &str, from: u64, length: Option<u64>) -> Result<Option<Stream<'_>>, Transport> {
        let asked = length.map(|length| from.saturating_add(length));
        let Some(answer) = self.again(|| self.get(url, from, asked, None))? else { return Ok(None) };
        let end = match (asked, answer.size) {
            (Some(asked), Some(size)) => Some(asked.min(size)),
            (asked, size) => asked.or(size),
        };
        Ok(Some(Stream {
            client: self,
            url: url.to_owned(),
            size: answer.size,
            etag: answer.etag.clone(),
            at: from,
            end,
            answer: Some(answer),
            left: self.retries,
            pause: PAUSE,
            since: 0,
        }))
    }

    /// Tries again what failed for a passing reason.
    fn again<T>(&self, attempt: impl Fn() -> Result<T, Transport>) -> Result<T, Transport> {
        let mut pause = PAUSE;
        let mut left = self.retries;
        loop {
            match attempt() {
                Err(error) if left > 0 && passing(&error) => {
                    tracing::debug!(%error, left, "trying again");
                    std::thread::sleep(pause.max(asked(&error)));
                    pause = (pause * 2).min(LONGEST);
                    left -= 1;
                }
                result => return result,
            }
        }
    }
}

/// Who asks.
const AGENT: &str = concat!("slipway/", env!("CARGO_PKG_VERSION"));
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// Who sends so much after a failure gets the full number of attempts again.
const PROGRESS: u64 = 256 << 10;

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed in the middle")
}

/// `bytes 5-9/100` begins at 5, of 100.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()))
}

/// A file that is being fetched. Where its connection is lost, another one goes on from the same byte.
pub(super) struct Stream<'a> {
    client: &'a Client,
    url: String,
    /// Bytes of the whole file, where they are known.
    pub size: Option<u64>,
    etag: Option<String>,
    at: u64,
    end: Option<u64>,
    answer: Option<Answer>,
    left: u32,
    pause: Duration,
    /// Bytes since the last failure.
    since: u64,
}

impl Stream<'_> {
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<usize, Transport> {
        if self.answer.is_none() {
            let end = self.end.filter(|end| Some(*end) != self.size);
            let answer = self.client.get(&self.url, self.at, end, self.etag.as_deref())?;
            self.answer = Some(answer.ok_or(Transport::NotFound)?);
        }
        let Some(answer) = &mut self.answer else { return Ok(0) };
        // A server that knows no ranges sends what is here already once more.
        while answer.at < self.at {
            let skip = (self.at - answer.at).min(64 << 10);
            let skipped = io::copy(&mut (&mut answer.body).take(skip), &mut io::sink())?;
            if skipped == 0 {
                return Err(Transport::Io(cut_short()));
            }
            answer.at += skipped;
        }
        let wanted = self.end.map_or(u64::MAX, |end| end - self.at).min(buffer.len() as u64) as usize;
        let count = answer.body.read(&mut buffer[..wanted])?;
        answer.at += count as u64;
        self.at += count as u64;
        self.since += count as u64;
        if count == 0 && wanted > 0 && (self.end.is_some() || answer.end.is_some_and(|end| self.at < end)) {
            return Err(Transport::Io(cut_short()));
        }
        Ok(count)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.end.is_some_and(|end| self.at >= end) {
            // The connection can be used again once it has been seen that nothing more comes.
            if let Some(mut answer) = self.answer.take().filter(|answer| answer.end == Some(self.at)) {
                let _ = answer.body.read(&mut [0]);
            }
            return Ok(0);
        }
        loop {
            match self.attempt(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if passing(&error) => {
                    if self.since >= PROGRESS {
                        (self.left, self.pause) = (self.client.retries, PAUSE);
                    }
                    if self.left == 0 {
                        return Err(into_io(error));
                    }
                    tracing::debug!(%error, url = self.url, at = self.at, left = self.left, "going on");
                    self.answer = None;
                    self.since = 0;
                    std::thread::sleep(self.pause.max(asked(&error)));
                    self.pause = (self.pause * 2).min(LONGEST);
                    self.left -= 1;
                }
                Err(error) => return Err(into_io(error)),
            }
        }
    }
}

fn into_io(error: Transport) -> io::Error {
    match error {
        Transport::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Whether it may work the next time.
fn passing(error: &Transport) -> bool {
    match error {
        Transport::Io(e) => e.kind() != io::ErrorKind::InvalidData,
        Transport::Status(status) | Transport::Busy { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
        _ => false,
    }
}

/// How long the server wants to be left alone; one that asks for more than a minute is asked again after it.
fn asked(error: &Transport) -> Duration {
    match error {
        Transport::Busy { seconds, .. } => Duration::from_secs((*seconds).min(60)),
        _ => Duration::ZERO,
    }
}

fn transport(error: ureq::Error) -> Transport {
    match error {
        ureq::Error::Io(error) => Transport::Io(error),
        ureq::Error::StatusCode(status) => Transport::Status(status),
        ureq::Error::Timeout(what) => {
            Transport::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in time ({what})")))
        }
        ureq::Error::HostNotFound => Transport::Io(io::Error::other("the host name is not known")),
        ureq::Error::ConnectionFailed => Transport::Io(io::ErrorKind::ConnectionRefused.into()),
        // The peer broke the protocol, most often by closing the connection in the middle.
        ureq::Error::Protocol(error) => Transport::Io(io::Error::new(io::ErrorKind::ConnectionAborted, error)),
        other => Transport::Client(other.to_string()),
    }
}

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(ureq::tls::parse_pem(&bytes).filter_map(Result::ok).collect())
}

fn certificates(items: Vec<PemItem<'static>>) -> Vec<Certificate<'static>> {
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    items.into_iter().filter_map(certificate).collect()
}

fn roots(ca_file: Option<&Path>) -> Result<RootCerts, String> {
    let system = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let path = match ca_file {
        Some(path) => path,
        None if system.exists() => system,
        None => return Ok(RootCerts::WebPki),
    };
    let certificates = certificates(pem(path)?);
    if ca_file.is_some() && certificates.is_empty() {
        return Err(format!("{}: there is no certificate in it", path.display()));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

fn client_cert(chain: &Path, key: &Path) -> Result<ClientCert, String> {
    let certificates = certificates(pem(chain)?);
    if certificates.is_empty() {
        return Err(format!("{}: there is no certificate in it", chain.display()));
    }
    let bytes = std::fs::read(key).map_err(|e| format!("{}: {e}", key.display()))?;
    let key = PrivateKey::from_pem(&bytes).map_err(|e| format!("{}: {e}", key.display()))?;
    Ok(ClientCert::new_with_certs(&certificates, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_answers() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5, Some(100))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */100", "5-9/100", "bytes -9/100", "bytes 5/100"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = Login::Basic("me".into(), "hidden".into());
        assert_eq!(login.header(), "Basic bWU6aGlkZGVu");
        assert!(!format!("{:?}", Network { login: Some(login), ..Network::default() }).contains("hidden"));
    }
}
