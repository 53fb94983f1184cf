//! From a directory that an HTTP server serves.
//!
//! ```text
//! GET URL/refs/heads/REF                   64 digits and a newline
//! GET URL/objects/ab/cdef….commit          then .commitmeta, .dirtree, .dirmeta, .filez
//! ```
//! Several connections are kept open. What fails for a passing reason (connection lost, server overloaded) is tried
//! again, later each time; what is wrong (missing, tampered with) is not.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::local::Counting;
use super::{Missing, OnProgress, Outcome, PullError, Rules, Source, Transport, Verified};
use crate::commit::Size;
use crate::object::{MAX_METADATA, ObjectType, path_with_extension};
use crate::repo::{FilezError, Staging, Verity};
use crate::sign::Keyring;
use crate::{Checksum, Error, Repo};

/// What to pull from where, and what to accept.
#[derive(Clone)]
pub struct Options<'a> {
    /// The directory that holds `objects/` and `refs/`.
    pub url: String,
    /// Refs, or commits by checksum.
    pub refs: Vec<String>,
    /// Where the refs are remembered: `refs/remotes/REMOTE/REF`, or `refs/heads/REF` without one (a mirror).
    pub remote: Option<String>,
    /// Accept only commits signed by one of these keys; `None` accepts unsigned ones.
    pub keyring: Option<Keyring>,
    /// Accept a commit older than the one the ref points to here.
    pub allow_downgrade: bool,
    /// Accept no commit made before this time, whatever the refs here say.
    pub not_older_than: Option<u64>,
    /// fs-verity on file objects.
    pub verity: Verity,
    /// Connections.
    pub connections: usize,
    /// How often something that fails for a passing reason is tried again.
    pub retries: u32,
    /// Seconds without a byte after which a connection is given up.
    pub stall_seconds: u64,
    /// Certificates to trust instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Told how far it is.
    pub progress: Option<OnProgress<'a>>,
}

impl Options<'_> {
    /// Pulls one ref and accepts only what `keyring` signed.
    pub fn new(url: impl Into<String>, name: impl Into<String>, keyring: Option<Keyring>) -> Self {
        Options {
            url: url.into(),
            refs: vec![name.into()],
            remote: None,
            keyring,
            allow_downgrade: false,
            not_older_than: None,
            verity: Verity::Off,
            connections: 8,
            retries: 4,
            stall_seconds: 60,
            ca_file: None,
            progress: None,
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            keyring: self.keyring.as_ref(),
            verity: self.verity,
            threads: self.connections.max(1),
            progress: self.progress,
        }
    }
}

/// Pulls: commit, signature, directories, files, commit, ref. See the module above for what holds when it fails.
pub fn http(options: &Options<'_>, repo: &Repo) -> Result<Outcome, PullError> {
    let remote = Remote::open(options)?;
    let mut commits = BTreeMap::new();
    let mut whole: Option<Outcome> = None;
    for name in &options.refs {
        let verified = remote.commit(name, repo)?;
        let outcome = remote.fetch(name, &verified, repo)?;
        commits.insert(name.clone(), outcome.commit);
        match &mut whole {
            None => whole = Some(outcome),
            Some(whole) => {
                whole.fetched += outcome.fetched;
                whole.bytes += outcome.bytes;
                whole.present += outcome.present;
            }
        }
    }
    let mut outcome = whole.ok_or_else(|| Error::invalid("no ref to pull was named"))?;
    outcome.commits = commits;
    Ok(outcome)
}

/// A repository behind a URL, for callers that look before they fetch.
pub struct Remote<'a> {
    options: &'a Options<'a>,
    base: String,
    agent: ureq::Agent,
}

impl<'a> Remote<'a> {
    /// Prepares the connections; nothing is fetched.
    pub fn open(options: &'a Options<'a>) -> Result<Self, PullError> {
        let client = |why: String| PullError::Fetch {
            what: "anything".into(),
            from: options.url.clone(),
            source: Transport::Client(why),
        };
        if !options.url.starts_with("http://") && !options.url.starts_with("https://") {
            return Err(client("the address must begin with http:// or https://".into()));
        }
        let roots = roots(options.ca_file.as_deref()).map_err(client)?;
        let stall = Some(Duration::from_secs(options.stall_seconds.max(1)));
        let config = ureq::Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(options.connections.max(1))
            .max_idle_connections_per_host(options.connections.max(1))
            .timeout_connect(Some(Duration::from_secs(options.stall_seconds.clamp(1, 30))))
            .timeout_per_read(stall)
            .timeout_recv_response(stall)
            .build();
        let connector = ureq::unversioned::transport::DefaultConnector::new();
        let agent = ureq::Agent::with_parts(config, connector, super::names::KnownNames::default());
        Ok(Remote { options, base: options.url.trim_end_matches('/').to_owned(), agent })
    }

    /// The commit that a ref (or a checksum) names there: its signature has been accepted, and it is neither another
    /// ref's nor older than what is here, unless that was allowed.
    pub fn commit(&self, name: &str, repo: &Repo) -> Result<Verified, PullError> {
        let options = self.options;
        if let Ok(checksum) = name.parse::<Checksum>() {
            return super::fetch_commit(self, &checksum, &options.rules());
        }
        let checksum = self.read_ref(name)?;
        let verified = super::fetch_commit(self, &checksum, &options.rules())?;
        let current = if options.allow_downgrade { None } else { repo.read_ref(&self.local_ref(name))? };
        let floor = options.not_older_than.filter(|_| !options.allow_downgrade);
        super::check_commit(repo, &verified, name, current, floor)?;
        Ok(verified)
    }

    /// What is missing here of a commit, where its sizes were recorded.
    pub fn missing(&self, verified: &Verified, repo: &Repo) -> Option<Missing> {
        verified.missing(repo)
    }

    /// Fetches what is missing of a commit, and remembers the ref.
    pub fn fetch(&self, name: &str, verified: &Verified, repo: &Repo) -> Result<Outcome, PullError> {
        let mut outcome = super::fetch_objects(self, repo, verified, &self.options.rules())?;
        if name.parse::<Checksum>().is_err() {
            repo.set_ref(&self.local_ref(name), &verified.checksum)?;
        }
        outcome.commits.insert(name.to_owned(), verified.checksum);
        Ok(outcome)
    }

    fn local_ref(&self, name: &str) -> String {
        self.options.remote.as_ref().map_or_else(|| name.to_owned(), |remote| format!("{remote}:{name}"))
    }

    /// The commit a ref points to there. Nothing vouches for it; the commit must.
    pub fn read_ref(&self, name: &str) -> Result<Checksum, PullError> {
        if !crate::valid_ref(name) {
            return Err(Error::RefName(name.to_owned()).into());
        }
        let url = format!("{}/refs/heads/{name}", self.base);
        let what = format!("ref {name}");
        let error = |source| PullError::Fetch { what: what.clone(), from: url.clone(), source };
        let bytes = self.small(&url, 1024).map_err(error)?.ok_or(error(Transport::NotFound))?;
        let text = String::from_utf8_lossy(&bytes);
        text.trim_end().parse().map_err(|e| PullError::Malformed {
            what: what.clone(),
            from: url.clone(),
            source: crate::value::Malformed(format!("{e}")),
        })
    }

    /// One request; the answer's body, or `None` where there is nothing.
    fn get(&self, url: &str) -> Result<Option<ureq::BodyReader<'static>>, Transport> {
        let response = self.agent.get(url).call().map_err(transport)?;
        match response.status().as_u16() {
            200 => Ok(Some(response.into_body().into_with_config().limit(u64::MAX).reader())),
            404 | 410 => Ok(None),
            status => Err(Transport::Status(status)),
        }
    }

    /// Something that fits in memory.
    fn small(&self, url: &str, limit: u64) -> Result<Option<Vec<u8>>, Transport> {
        self.again(|| {
            let Some(body) = self.get(url)? else { return Ok(None) };
            let mut bytes = Vec::new();
            body.take(limit + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit { Err(Transport::TooLarge(limit)) } else { Ok(Some(bytes)) }
        })
    }

    /// Tries again what failed for a passing reason.
    fn again<T>(&self, attempt: impl Fn() -> Result<T, Transport>) -> Result<T, Transport> {
        let mut pause = Duration::from_millis(200);
        let mut left = self.options.retries;
        loop {
            match attempt() {
                Err(error) if left > 0 && passing(&error) => {
                    tracing::debug!(%error, left, "trying again");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(5));
                    left -= 1;
                }
                result => return result,
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/objects/{path}", self.base)
    }
}

/// Whether it may work the next time.
fn passing(error: &Transport) -> bool {
    match error {
        Transport::Io(e) => e.kind() != io::ErrorKind::InvalidData,
        Transport::Status(status) => matches!(status, 408 | 425 | 429 | 500..=599),
        _ => false,
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

fn roots(ca_file: Option<&Path>) -> Result<RootCerts, String> {
    let system = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let path = match ca_file {
        Some(path) => path,
        None if system.exists() => system,
        None => return Ok(RootCerts::WebPki),
    };
    let pem = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

impl Source for Remote<'_> {
    fn address(&self, kind: ObjectType, checksum: &Checksum) -> String {
        let extension = if kind == ObjectType::File { "filez" } else { kind.extension() };
        self.url(&path_with_extension(checksum, extension))
    }

    fn metadata(&self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError> {
        let from = self.address(kind, checksum);
        let result = self.small(&from, MAX_METADATA).and_then(|bytes| bytes.ok_or(Transport::NotFound));
        result.map_err(|source| PullError::Fetch { what: format!("{kind} {checksum}"), from, source })
    }

    fn detached(&self, commit: &Checksum) -> Result<Option<Vec<u8>>, PullError> {
        let from = self.url(&path_with_extension(commit, "commitmeta"));
        self.small(&from, MAX_METADATA).map_err(|source| PullError::Fetch {
            what: format!("the signatures of commit {commit}"),
            from,
            source,
        })
    }

    fn file(
        &self,
        checksum: &Checksum,
        size: Option<&Size>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError> {
        let from = self.address(ObjectType::File, checksum);
        // What a commit records is signed; compressed again by a mirror it may differ somewhat.
        let limit = size.map_or(u64::MAX, |s| s.archived.max(s.unpacked).saturating_mul(2).saturating_add(1 << 20));
        let reported = AtomicU64::new(0);
        let result = self.again(|| {
            let body = self.get(&from)?.ok_or(Transport::NotFound)?;
            let mut raw = Counting { inner: body.take(limit), count, reported: &reported, total: 0 };
            match staging.write_filez(checksum, &mut raw, size.map(|s| s.unpacked)) {
                Ok(_) => Ok(Ok(raw.total)),
                Err(FilezError::Stream(error)) => Err(Transport::Io(error)),
                Err(FilezError::Store(error)) => Ok(Err(error)),
            }
        });
        match result {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(Error::Mismatch { kind, expected, found })) => {
                Err(PullError::Mismatch { kind, expected, found, from })
            }
            Ok(Err(error)) => Err(error.into()),
            Err(source) => Err(PullError::Fetch { what: format!("file {checksum}"), from, source }),
        }
    }
}
