//! Pulling refs from a remote: what to accept, and which ref remembers it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::client::Network;
use super::http::Http;
use super::local::Local;
use super::metalink::METALINK;
use super::select::Select;
use super::sizes::Sizes;
use super::summary::Fetched;
use super::ways::{self, Allowed};
use super::{Ahead, Missing, OnProgress, Outcome, PullError, Rules, Session, Source, Transport, Verified};
use crate::object::ObjectType;
use crate::repo::Verity;
use crate::sign::Keyring;
use crate::sign::trust::Trust;
use crate::{Checksum, Error, Repo};

/// How far back a commit is looked for.
const HISTORY: usize = 64;

/// What to pull from where, and what to accept.
#[derive(Clone)]
pub struct Options<'a> {
    /// The directory that holds `objects/` and `refs/`: `http://…`, `https://…`, `file:///…`, `mirrorlist=http…`; or a
    /// file that says where it is, `metalink=http…`.
    pub url: String,
    /// Where objects and deltas lie, if elsewhere.
    pub content_url: Option<String>,
    /// Refs, or commits by checksum.
    pub refs: Vec<String>,
    /// Where the refs are remembered: `refs/remotes/REMOTE/REF`, or `refs/heads/REF` without one (a mirror).
    pub remote: Option<String>,
    /// Accept only commits signed by one of these keys; `None` accepts unsigned ones.
    pub keyring: Option<Keyring>,
    /// More rules, all of which must hold.
    pub trust: Trust,
    /// What the summary must be signed with. With a rule, refs are taken from the summary and from nowhere else.
    pub summary_trust: Trust,
    /// Where accepted summaries are remembered, if not in the repository.
    pub cache: Option<PathBuf>,
    /// Accept a commit older than the one the ref points to here.
    pub allow_downgrade: bool,
    /// Accept no commit made before this time, whatever the refs here say.
    pub not_older_than: Option<u64>,
    /// Refuse a commit that is bound to other refs.
    pub check_bindings: bool,
    /// Pull every ref (where none is named), write them to refs/heads, and keep summary and signature as they are there.
    pub mirror: bool,
    /// What of each commit is wanted.
    pub select: Select,
    /// Repositories on this machine that are asked for objects first.
    pub caches: Vec<PathBuf>,
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
            trust: Trust::default(),
            summary_trust: Trust::default(),
            cache: None,
            allow_downgrade: false,
            not_older_than: None,
            check_bindings: true,
            mirror: false,
            select: Select::default(),
            caches: Vec::new(),
            verity: Verity::Off,
            network: Network::default(),
            ways: Allowed::default(),
            progress: None,
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            keyring: self.keyring.as_ref(),
            trust: Some(&self.trust),
            select: &self.select,
            verity: self.verity,
            threads: self.network.connections.max(1),
            progress: self.progress,
            ways: self.ways,
        }
    }
}

/// Pulls: commit, signature, directories, files, commit, ref. See the module above for what holds when it fails.
/// Every commit is accepted before the first is fetched, and no ref changes before all are here.
pub fn http(options: &Options<'_>, repo: &Repo) -> Result<Outcome, PullError> {
    // Until the refs say so nothing needs what arrives: who deletes objects waits.
    let _shared = repo.lock_shared()?;
    let remote = Remote::open(options)?;
    let refs = match &options.refs[..] {
        [] if options.mirror => remote.refs(repo)?.into_keys().collect(),
        refs => refs.to_vec(),
    };
    let accepted = refs.into_iter().map(|name| Ok((remote.commit(&name, repo)?, name)));
    let accepted: Vec<(Verified, String)> = accepted.collect::<Result<_, PullError>>()?;
    let mut whole: Option<Outcome> = None;
    for (verified, name) in &accepted {
        let outcome = remote.objects(name, verified, repo)?;
        match &mut whole {
            None => whole = Some(outcome),
            Some(whole) => whole.add(outcome),
        }
    }
    let whole = whole.ok_or_else(|| Error::invalid("no ref to pull was named"))?;
    for (verified, name) in &accepted {
        remote.remember(name, verified, repo)?;
    }
    if options.mirror {
        remote.mirror_summary(repo)?;
    }
    Ok(whole)
}

/// A repository behind a URL, for callers that look before they fetch.
pub struct Remote<'a> {
    options: &'a Options<'a>,
    source: Box<dyn Source + 'a>,
    caches: Vec<Local<'static>>,
    /// The summary, once it was asked for.
    summary: OnceLock<Option<Fetched>>,
}

impl<'a> Remote<'a> {
    /// Prepares the connections. Nothing is fetched but the list of mirrors, where one is named.
    pub fn open(options: &'a Options<'a>) -> Result<Self, PullError> {
        let source: Box<dyn Source> = match options.url.strip_prefix("file://") {
            Some(path) => Box::new(Local::open(&PathBuf::from(path))?),
            None => Box::new(Http::open(&options.url, options.content_url.as_deref(), &options.network)?),
        };
        let caches = options.caches.iter().map(|path| Local::open(path)).collect::<Result<_, _>>()?;
        Ok(Remote { options, source, caches, summary: OnceLock::new() })
    }

    fn session<'s>(&'s self, repo: &'s Repo) -> Session<'s> {
        Session { source: &*self.source, caches: &self.caches, repo, rules: self.options.rules() }
    }

    /// The commit that a ref (or a checksum) names there: its signature has been accepted, and it is neither another
    /// ref's nor older than what is here, unless that was allowed.
    pub fn commit(&self, name: &str, repo: &Repo) -> Result<Verified, PullError> {
        let options = self.options;
        if let Ok(checksum) = name.parse::<Checksum>() {
            return self.session(repo).commit(&checksum);
        }
        let checksum = self.resolve(name, repo)?;
        let verified = self.session(repo).commit(&checksum)?;
        let current = if options.allow_downgrade { None } else { self.current(name, repo)? };
        if options.check_bindings {
            super::check_binding(&verified, name)?;
        }
        super::check_age(repo, &verified, current, options.not_older_than)?;
        Ok(verified)
    }

    /// The newest commit before `untrusted` that a trusted key did sign: where keys are rotated, the version on the way
    /// that knows the old keys and the new ones. The untrusted commits in between are asked for their parent and for
    /// nothing else, and the search ends at `current`, and at what is older.
    pub fn stepping_stone(&self, untrusted: &Checksum, current: &Checksum, repo: &Repo) -> Option<Verified> {
        let floor = repo.load_commit(current).map_or(0, |commit| commit.timestamp);
        let session = self.session(repo);
        let mut unchecked = self.session(repo);
        unchecked.rules.keyring = None;
        unchecked.rules.trust = None;
        let mut next = unchecked.commit(untrusted).ok()?.commit.parent;
        for _ in 0..HISTORY {
            let checksum = next?;
            let commit = unchecked.commit(&checksum).ok()?.commit;
            if checksum == *current || commit.timestamp < floor {
                return None;
            }
            if let Ok(verified) = session.commit(&checksum) {
                return Some(verified);
            }
            next = commit.parent;
        }
        None
    }

    /// What a pull of `name` would fetch: the update where there is one, else the objects where somebody says their sizes.
    /// What an interrupted pull brought already counts as if it were missing.
    pub fn ahead(&self, name: &str, verified: &Verified, repo: &Repo) -> Result<Option<Ahead>, PullError> {
        if repo.has(ObjectType::Commit, &verified.checksum) && !repo.is_partial(&verified.checksum) {
            return Ok(Some(Ahead::Objects(Missing::default())));
        }
        let files = self.source.files();
        if self.options.ways.updates && self.options.select.whole() && !self.options.select.bareuseronly {
            let bases = ways::bases(repo, self.current(name, repo)?, verified)?;
            let offered = crate::update::offered(files, &bases, &verified.checksum)?;
            if let Some(size) = offered.and_then(|update| update.size) {
                return Ok(Some(Ahead::Update(size)));
            }
        }
        let sizes = Sizes::recorded(verified).or_else(|| Sizes::published(files, &verified.checksum));
        sizes.map(|sizes| Ok(Ahead::Objects(sizes.missing(repo)?))).transpose()
    }

    /// Fetches what is missing of a commit, and remembers the ref.
    pub fn fetch(&self, name: &str, verified: &Verified, repo: &Repo) -> Result<Outcome, PullError> {
        let _shared = repo.lock_shared()?;
        let outcome = self.objects(name, verified, repo)?;
        self.remember(name, verified, repo)?;
        Ok(outcome)
    }

    /// Fetches what is missing of a commit, and of those before it as far as was asked for.
    fn objects(&self, name: &str, verified: &Verified, repo: &Repo) -> Result<Outcome, PullError> {
        let session = self.session(repo);
        let mut outcome = session.fetch(verified, self.current(name, repo)?)?;
        session.history(verified, &mut outcome)?;
        outcome.commits.insert(name.to_owned(), verified.checksum);
        Ok(outcome)
    }

    fn remember(&self, name: &str, verified: &Verified, repo: &Repo) -> Result<(), PullError> {
        if name.parse::<Checksum>().is_err() {
            repo.set_ref(&self.local_ref(name), &verified.checksum)?;
        }
        Ok(())
    }

    fn local_ref(&self, name: &str) -> String {
        match &self.options.remote {
            Some(remote) if !self.options.mirror => format!("{remote}:{name}"),
            _ => name.to_owned(),
        }
    }

    /// What the ref points to here.
    fn current(&self, name: &str, repo: &Repo) -> Result<Option<Checksum>, PullError> {
        if name.parse::<Checksum>().is_ok() { Ok(None) } else { Ok(repo.read_ref(&self.local_ref(name))?) }
    }

    /// The commit a ref points to there, from the summary where that must be signed.
    fn resolve(&self, name: &str, repo: &Repo) -> Result<Checksum, PullError> {
        // A metalink vouches for the summary, and for nothing else.
        let described = self.options.url.starts_with(METALINK);
        if self.options.summary_trust.is_empty() && self.summary.get().is_none() && !described {
            return self.read_ref(name);
        }
        let from = || self.source.files().locate("summary");
        match self.summary(repo)? {
            Some(fetched) => fetched.summary.commit(name).ok_or_else(|| PullError::Fetch {
                what: format!("ref {name}"),
                from: from(),
                source: Transport::NotFound,
            }),
            None => self.read_ref(name),
        }
    }

    /// The summary there, accepted as `summary_trust` says; `None` where there is none and none is needed.
    pub fn summary(&self, repo: &Repo) -> Result<Option<&Fetched>, PullError> {
        if let Some(known) = self.summary.get() {
            return Ok(known.as_ref());
        }
        let (trust, cache) = (&self.options.summary_trust, self.options.cache.as_deref());
        let fetched = super::summary::fetch(self.source.files(), trust, self.options.remote.as_deref(), cache, repo)?;
        Ok(self.summary.get_or_init(|| fetched).as_ref())
    }

    /// The refs there, from the summary.
    pub fn refs(&self, repo: &Repo) -> Result<BTreeMap<String, Checksum>, PullError> {
        let Some(fetched) = self.summary(repo)? else {
            let (what, from) = ("the summary".to_owned(), self.source.files().locate("summary"));
            return Err(PullError::Fetch { what, from, source: Transport::NotFound });
        };
        Ok(fetched.summary.refs.iter().map(|entry| (entry.name.clone(), entry.commit)).collect())
    }

    /// Keeps the summary and its signature as they are there, where every ref is mirrored.
    fn mirror_summary(&self, repo: &Repo) -> Result<(), PullError> {
        if !self.options.refs.is_empty() {
            return Ok(());
        }
        let Some(fetched) = self.summary(repo)? else { return Ok(()) };
        crate::summary::write_bytes(repo, &fetched.bytes)?;
        if let Some(signatures) = &fetched.signatures {
            let path = repo.path().join("summary.sig");
            let written = sys::file::replace(&path, signatures, 0o644);
            written.map_err(|e| Error::io(format!("writing {}", path.display()), e))?;
        }
        Ok(())
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
