//! A directory that HTTP servers serve, as a source of objects.
//!
//! ```text
//! GET BASE/refs/heads/REF                  64 digits and a newline
//! GET BASE/objects/ab/cdef….commit         then .commitmeta, .dirtree, .dirmeta, .filez
//! GET BASE/summary, deltas/…               what else there is
//! ```
//! Several bases may serve the same content (`mirrorlist`), and objects may lie elsewhere than refs (`contenturl`).

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::{Client, Login, Network};
use super::local::Counting;
use super::metalink::{self, METALINK};
use super::pipe::Pipe;
use super::ways::{Files, Opened};
use super::{Accept, Lane, PullError, Source, Transport};
use crate::object::{MAX_METADATA, ObjectType, path_with_extension};
use crate::repo::{FilezError, Staging};
use crate::{Checksum, Error};

/// A list of mirrors is text of a few lines.
const MAX_MIRRORLIST: u64 = 64 << 10;
/// What an address begins with that names a list of addresses.
const MIRRORLIST: &str = "mirrorlist=";

/// Addresses that serve the same. The one that answered last is asked first.
struct Mirrors {
    bases: Vec<String>,
    good: AtomicUsize,
}

/// Why a file did not come, and from where.
type Failure = (String, Transport);

impl Mirrors {
    fn new(bases: Vec<String>) -> Mirrors {
        Mirrors { bases, good: AtomicUsize::new(0) }
    }

    fn url(&self, path: &str) -> String {
        let good = self.good.load(Ordering::Relaxed);
        self.bases.get(good).map_or_else(|| path.to_owned(), |base| format!("{base}/{path}"))
    }

    /// Asks one after the other. Nothing anywhere is `None`; where one failed that is the answer.
    fn ask<T>(
        &self,
        path: &str,
        request: impl Fn(&str) -> Result<Option<T>, Transport>,
    ) -> Result<Option<(T, String)>, Failure> {
        let first = self.good.load(Ordering::Relaxed);
        let mut failure = None;
        for turn in 0..self.bases.len() {
            let index = (first + turn) % self.bases.len();
            let url = format!("{}/{path}", self.bases[index]);
            match request(&url) {
                Ok(Some(found)) => {
                    self.good.store(index, Ordering::Relaxed);
                    return Ok(Some((found, url)));
                }
                Ok(None) => {}
                Err(error) => failure = Some((url, error)),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

/// A repository behind one or several addresses.
pub(super) struct Http {
    client: Client,
    /// Refs and summary.
    names: Mirrors,
    /// Objects and deltas, where they lie elsewhere.
    content: Option<Mirrors>,
    /// The summary, where a metalink says what it is.
    summary: Option<Vec<u8>>,
}

/// Whether an address can be fetched from here.
pub(super) fn is_http(url: &str) -> bool {
    let url = url.strip_prefix(MIRRORLIST).or_else(|| url.strip_prefix(METALINK)).unwrap_or(url);
    url.starts_with("http://") || url.starts_with("https://")
}

/// Takes name and password out of an address.
fn split_login(url: &str) -> (String, Option<Login>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let authority = rest.split('/').next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else { return (url.to_owned(), None) };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let login = Login::Basic(unescape(name), unescape(password));
    (format!("{scheme}://{}", &rest[user.len() + 1..]), Some(login))
}

/// Undoes `%41`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let code = (byte == b'%').then(|| more.get(..2)).flatten().and_then(|digits| hex::decode(digits).ok());
        match code.as_deref() {
            Some(&[code]) => (bytes.push(code), rest = &more[2..]),
            _ => (bytes.push(byte), rest = more),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Http {
    /// Prepares the connections. Only lists of mirrors and metalinks are fetched, where they were named.
    pub fn open(url: &str, content: Option<&str>, network: &Network) -> Result<Http, PullError> {
        let refused = |from: &str, why: String| PullError::Fetch {
            what: "anything".into(),
            from: from.into(),
            source: Transport::Client(why),
        };
        let (url, login) = split_login(url);
        let content = content.map(split_login);
        let login = login.or_else(|| content.as_ref().and_then(|(_, login)| login.clone()));
        let client = Client::new(network, login).map_err(|why| refused(&url, why))?;
        let bases = |url: &str| {
            if !is_http(url) {
                return Err(refused(url, "the address must begin with http:// or https://".into()));
            }
            let Some(list) = url.strip_prefix(MIRRORLIST) else {
                return Ok(vec![url.trim_end_matches('/').to_owned()]);
            };
            let failed =
                |source| PullError::Fetch { what: "the list of mirrors".into(), from: list.to_owned(), source };
            let text = client.small(list, MAX_MIRRORLIST).and_then(|found| found.ok_or(Transport::NotFound));
            let text = String::from_utf8_lossy(&text.map_err(failed)?).into_owned();
            let mirror = |line: &str| {
                let line = line.trim();
                (is_http(line) && !line.starts_with(MIRRORLIST)).then(|| line.trim_end_matches('/').to_owned())
            };
            let found: Vec<String> = text.lines().filter_map(mirror).take(64).collect();
            if found.is_empty() {
                return Err(refused(list, "the list of mirrors names none".into()));
            }
            Ok(found)
        };
        let (names, summary) = match url.strip_prefix(METALINK) {
            Some(link) => metalink::fetch(&client, link).map(|found| (vec![found.base], Some(found.summary)))?,
            None => (bases(&url)?, None),
        };
        let names = Mirrors::new(names);
        let content = content.map(|(url, _)| bases(&url)).transpose()?.map(Mirrors::new);
        Ok(Http { client, names, content, summary })
    }

    /// Who serves a path. The configuration, refs and the summary lie with the address itself.
    fn mirrors(&self, path: &str) -> &Mirrors {
        match &self.content {
            Some(content) if ["objects/", "deltas/", "updates/"].iter().any(|dir| path.starts_with(dir)) => content,
            _ => &self.names,
        }
    }

    fn object(kind: ObjectType, checksum: &Checksum) -> String {
        let extension = if kind == ObjectType::File { "filez" } else { kind.extension() };
        format!("objects/{}", path_with_extension(checksum, extension))
    }

    fn whole(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let found = self.mirrors(path).ask(path, |url| self.client.small(url, limit))?;
        Ok(found.map(|(bytes, _)| bytes))
    }
}

impl Files for Http {
    fn locate(&self, path: &str) -> String {
        self.mirrors(path).url(path)
    }

    fn small(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, PullError> {
        if let (Some(summary), "summary") = (&self.summary, path) {
            return Ok(Some(summary.clone()));
        }
        self.whole(path, limit).map_err(|(from, source)| PullError::Fetch { what: path.to_owned(), from, source })
    }

    fn open(&self, path: &str, from: u64, length: Option<u64>) -> Result<Option<Opened<'_>>, PullError> {
        let found = self.mirrors(path).ask(path, |url| self.client.stream(url, from, length));
        let found = found.map_err(|(from, source)| PullError::Fetch { what: path.to_owned(), from, source })?;
        Ok(found.map(|(stream, _)| Opened { size: stream.size, reader: Box::new(stream) }))
    }
}

impl Source for Http {
    fn address(&self, kind: ObjectType, checksum: &Checksum) -> String {
        self.locate(&Self::object(kind, checksum))
    }

    fn metadata(&self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError> {
        let path = Self::object(kind, checksum);
        let found = self.whole(&path, MAX_METADATA);
        let (from, source) = match found {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => (self.locate(&path), Transport::NotFound),
            Err(failure) => failure,
        };
        Err(PullError::Fetch { what: format!("{kind} {checksum}"), from, source })
    }

    fn detached(&self, commit: &Checksum) -> Result<Option<Vec<u8>>, PullError> {
        let path = format!("objects/{}", path_with_extension(commit, "commitmeta"));
        self.whole(&path, MAX_METADATA).map_err(|(from, source)| PullError::Fetch {
            what: format!("the signatures of commit {commit}"),
            from,
            source,
        })
    }

    fn file(
        &self,
        checksum: &Checksum,
        accept: Accept<'_>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError> {
        let path = Self::object(ObjectType::File, checksum);
        let found = self.mirrors(&path).ask(&path, |url| {
            let Some(stream) = self.client.stream(url, 0, None)? else { return Ok(None) };
            store(checksum, accept, stream, url, staging, count).map(Some)
        });
        let failed = |from, source| PullError::Fetch { what: format!("file {checksum}"), from, source };
        match found {
            Ok(Some((result, _))) => result,
            Ok(None) => Err(failed(self.locate(&path), Transport::NotFound)),
            Err((from, source)) => Err(failed(from, source)),
        }
    }

    fn files(&self) -> &dyn Files {
        self
    }

    fn lane(&self) -> Box<dyn Lane + '_> {
        let mirrors = self.content.as_ref().unwrap_or(&self.names);
        let base = mirrors.bases.get(mirrors.good.load(Ordering::Relaxed)).map_or("", String::as_str);
        Box::new(Ahead { http: self, pipe: Pipe::new(&self.client, base) })
    }
}

/// Writes the `.filez` that comes from `url` to the batch; the bytes that were fetched. What went wrong on the way is the
/// outer error.
fn store(
    checksum: &Checksum,
    accept: Accept<'_>,
    stream: impl Read,
    url: &str,
    staging: &Staging<'_>,
    count: &(dyn Fn(u64) + Sync),
) -> Result<Result<u64, PullError>, Transport> {
    // What a commit records is signed; compressed again by a mirror it may differ somewhat.
    let size = accept.size;
    let limit = size.map_or(u64::MAX, |s| s.archived.max(s.unpacked).saturating_mul(2).saturating_add(1 << 20));
    let mut raw = Counting::new(stream.take(limit), count);
    let written = match accept.look(checksum, &mut raw) {
        Ok(mut raw) => staging.write_filez(checksum, &mut raw, size.map(|s| s.unpacked)),
        Err(error) => return Ok(Err(error)),
    };
    match written {
        Ok(_) => Ok(Ok(raw.total)),
        Err(FilezError::Stream(error)) => Err(Transport::Io(error)),
        Err(FilezError::Store(Error::Mismatch { kind, expected, found })) => {
            Ok(Err(PullError::Mismatch { kind, expected, found, from: url.to_owned() }))
        }
        Err(FilezError::Store(error)) => Ok(Err(error.into())),
    }
}

/// Objects over one connection, asked for ahead. What does not come that way is asked for as anything else is.
struct Ahead<'a> {
    http: &'a Http,
    pipe: Pipe<'a>,
}

impl Lane for Ahead<'_> {
    fn ahead(&mut self, kind: ObjectType, checksum: &Checksum) {
        self.pipe.ask(&Http::object(kind, checksum));
    }

    fn metadata(&mut self, kind: ObjectType, checksum: &Checksum) -> Result<Vec<u8>, PullError> {
        if let Some(body) = self.pipe.answer(&Http::object(kind, checksum)).filter(|body| body.size <= MAX_METADATA) {
            let mut bytes = Vec::with_capacity(body.size.min(1 << 20) as usize + 1);
            if body.take(MAX_METADATA).read_to_end(&mut bytes).is_ok() {
                return Ok(bytes);
            }
        }
        self.http.metadata(kind, checksum)
    }

    fn file(
        &mut self,
        checksum: &Checksum,
        accept: Accept<'_>,
        staging: &Staging<'_>,
        count: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, PullError> {
        if let Some(body) = self.pipe.answer(&Http::object(ObjectType::File, checksum)) {
            let url = body.url();
            if let Ok(result) = store(checksum, accept, body, &url, staging, count) {
                return result;
            }
        }
        self.http.file(checksum, accept, staging, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_are_taken_out_of_addresses() {
        let login = |name: &str, password: &str| Some(Login::Basic(name.into(), password.into()));
        let cases = [
            ("https://host/repo", "https://host/repo", None),
            ("https://me:se%3Acret@host:1/r@x", "https://host:1/r@x", login("me", "se:cret")),
            ("http://me@host", "http://host", login("me", "")),
            ("mirrorlist=https://a:b@host/list", "mirrorlist=https://host/list", login("a", "b")),
            ("http://host/a@b", "http://host/a@b", None),
            ("http://50%@host", "http://host", login("50%", "")),
        ];
        for (url, rest, login) in cases {
            assert_eq!(split_login(url), (rest.to_owned(), login), "{url}");
        }
    }
}
