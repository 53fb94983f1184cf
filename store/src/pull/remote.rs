//! Pulling refs from a remote: what to accept, and which ref remembers it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::client::Network;
use super::http::Http;
use super::local::Local;
use super::ways::Allowed;
use super::{Missing, OnProgress, Outcome, PullError, Rules, Session, Source, Transport, Verified};
use crate::repo::Verity;
use crate::sign::Keyring;
use crate::{Checksum, Error, Repo};

/// What to pull from where, and what to accept.
#[derive(Clone)]
pub struct Options<'a> {
    /// The directory that holds `objects/` and `refs/`: `http://…`, `https://…`, `file:///…`, `mirrorlist=http…`.
    pub url: String,
    /// Where objects and deltas lie, if elsewhere.
    pub content_url: Option<String>,
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
    /// How to talk to the server.
    pub network: Network,
    /// Which shorter ways than object by object may be taken.
    pub ways: Allowed,
    /// Told how far it is.
    pub progress: Option<OnProgress<'a>>,
}

impl Options<'_> {
    /// Pulls one ref and accepts only what `keyring` signed.
    pub fn new(url: impl Into<String>, name: impl Into<String>, keyring: Option<Keyring>) -> Self {
        Options {
            url: url.into(),
            content_url: None,
            refs: vec![name.into()],
            remote: None,
            keyring,
            allow_downgrade: false,
            not_older_than: None,
            verity: Verity::Off,
            network: Network::default(),
            ways: Allowed::default(),
            progress: None,
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            keyring: self.keyring.as_ref(),
            verity: self.verity,
            threads: self.network.connections.max(1),
            progress: self.progress,
            ways: self.ways,
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
    source: Box<dyn Source + 'a>,
}

impl<'a> Remote<'a> {
    /// Prepares the connections. Nothing is fetched but the list of mirrors, where one is named.
    pub fn open(options: &'a Options<'a>) -> Result<Self, PullError> {
        let source: Box<dyn Source> = match options.url.strip_prefix("file://") {
            Some(path) => Box::new(Local::open(&PathBuf::from(path))?),
            None => Box::new(Http::open(&options.url, options.content_url.as_deref(), &options.network)?),
        };
        Ok(Remote { options, source })
    }

    fn session<'s>(&'s self, repo: &'s Repo) -> Session<'s> {
        Session { source: &*self.source, repo, rules: self.options.rules() }
    }

    /// The commit that a ref (or a checksum) names there: its signature has been accepted, and it is neither another
    /// ref's nor older than what is here, unless that was allowed.
    pub fn commit(&self, name: &str, repo: &Repo) -> Result<Verified, PullError> {
        let options = self.options;
        if let Ok(checksum) = name.parse::<Checksum>() {
            return self.session(repo).commit(&checksum);
        }
        let checksum = self.read_ref(name)?;
        let verified = self.session(repo).commit(&checksum)?;
        let current = if options.allow_downgrade { None } else { self.current(name, repo)? };
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
        let mut outcome = self.session(repo).fetch(verified, self.current(name, repo)?)?;
        if name.parse::<Checksum>().is_err() {
            repo.set_ref(&self.local_ref(name), &verified.checksum)?;
        }
        outcome.commits.insert(name.to_owned(), verified.checksum);
        Ok(outcome)
    }

    fn local_ref(&self, name: &str) -> String {
        self.options.remote.as_ref().map_or_else(|| name.to_owned(), |remote| format!("{remote}:{name}"))
    }

    /// What the ref points to here.
    fn current(&self, name: &str, repo: &Repo) -> Result<Option<Checksum>, PullError> {
        if name.parse::<Checksum>().is_ok() { Ok(None) } else { Ok(repo.read_ref(&self.local_ref(name))?) }
    }

    /// The commit a ref points to there. Nothing vouches for it; the commit must.
    pub fn read_ref(&self, name: &str) -> Result<Checksum, PullError> {
        if !crate::valid_ref(name) {
            return Err(Error::RefName(name.to_owned()).into());
        }
        let (files, path) = (self.source.files(), format!("refs/heads/{name}"));
        let what = format!("ref {name}");
        let Some(bytes) = files.small(&path, 1024)? else {
            return Err(PullError::Fetch { what, from: files.locate(&path), source: Transport::NotFound });
        };
        let text = String::from_utf8_lossy(&bytes);
        text.trim_end().parse().map_err(|e| PullError::Malformed {
            what,
            from: files.locate(&path),
            source: crate::value::Malformed(format!("{e}")),
        })
    }
}
