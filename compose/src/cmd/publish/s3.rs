//! Publishing to an object store that speaks S3: every file of the repository is an object, put in an order in which a
//! reader never misses anything.
//!
//! ```text
//! 1  objects but commits, deltas, updates       nobody asks for them yet
//! 2  commits                                     whole: everything they need is there
//! 3  signatures, config
//! 4  delta-indexes, summary.sig                  the signature is good for the old summary as well as for the new one
//! 5  refs, summary                               what readers begin with
//! 6  where pruning is wanted: delete what the local copy no longer has, refs first
//! ```
//! `state/s3-….sent` lists what was put: a line is added after each answer. What never changes is put once, so an
//! interrupted run goes on where it ended. Requests are signed with AWS Signature Version 4; the keys come from the environment
//! (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`), the region from `AWS_REGION`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

/// Requests at the same time.
const THREADS: usize = 8;
/// How often a request is tried.
const TRIES: u32 = 5;
/// How long a store may say and take nothing.
const SILENCE: Duration = Duration::from_secs(120);
/// The digest of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A bucket, and who writes to it.
#[derive(Clone)]
pub struct Store {
    agent: ureq::Agent,
    /// `https://host[:port]`; the bucket is the first part of the path.
    endpoint: String,
    bucket: String,
    /// Begins every name; empty, or ends in a slash.
    prefix: String,
    region: String,
    access: String,
    secret: String,
    token: Option<String>,
}

/// Whether a target is a bucket: `s3://BUCKET[/PREFIX]`.
pub fn is_bucket(target: &str) -> bool {
    target.starts_with("s3://")
}

impl Store {
    /// The bucket of `s3://BUCKET[/PREFIX]`, with the environment's keys.
    pub fn open(target: &str, endpoint: Option<&str>) -> anyhow::Result<Store> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = target.strip_prefix("s3://").unwrap_or(target).trim_end_matches('/');
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            bail!("{target} names no bucket: s3://BUCKET/PREFIX");
        }
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = endpoint.map(str::to_owned).or_else(|| variable("AWS_ENDPOINT_URL"));
        Ok(Store {
            agent: agent(),
            endpoint: endpoint
                .unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"))
                .trim_end_matches('/')
                .into(),
            bucket: bucket.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            region,
            access: variable("AWS_ACCESS_KEY_ID").context("the environment has no AWS_ACCESS_KEY_ID")?,
            secret: variable("AWS_SECRET_ACCESS_KEY").context("the environment has no AWS_SECRET_ACCESS_KEY")?,
            token: variable("AWS_SESSION_TOKEN"),
        })
    }

    /// Sends the repository in `dir`.
    pub fn send(&self, dir: &Path, delete: bool) -> anyhow::Result<()> {
        let journal = dir.join("state").join(format!("s3-{}.sent", &self.name()[..16]));
        let sent = Mutex::new(Sent::load(&journal)?);
        for step in CLASSES {
            let files = files(dir, step)?;
            let todo: Vec<&String> =
                files.iter().filter(|f| !step.constant() || !lock(&sent).names.contains(*f)).collect();
            each(&todo, |name| {
                self.put(dir, name, step)?;
                lock(&sent).add(name)
            })?;
        }
        if !delete {
            return Ok(());
        }
        let gone: Vec<String> = lock(&sent).names.iter().filter(|name| !dir.join(name).exists()).cloned().collect();
        // What leads somewhere goes before what it leads to.
        for step in CLASSES.into_iter().rev() {
            let gone: Vec<&String> = gone.iter().filter(|name| Class::of(name) == Some(step)).collect();
            each(&gone, |name| self.request("DELETE", name, EMPTY, None).map(drop))?;
        }
        let mut sent = lock(&sent);
        gone.iter().for_each(|name| _ = sent.names.remove(name));
        sent.save(&journal)
    }

    /// What this store is, in one word.
    fn name(&self) -> String {
        hex::encode(Sha256::digest(format!("{}\n{}\n{}", self.endpoint, self.bucket, self.prefix)))
    }

    fn put(&self, dir: &Path, name: &str, class: Class) -> anyhow::Result<()> {
        let path = dir.join(name);
        let open = || File::open(&path).with_context(|| format!("opening {}", path.display()));
        let mut hasher = Sha256::new();
        io::copy(&mut open()?, &mut hasher).with_context(|| format!("reading {}", path.display()))?;
        let digest = hex::encode(hasher.finalize());
        let cache = if class.constant() { "public, max-age=31536000, immutable" } else { "no-cache" };
        self.request("PUT", name, &digest, Some((&path, cache)))
    }

    /// One request, tried again where that may help.
    fn request(&self, method: &str, name: &str, digest: &str, body: Option<(&Path, &str)>) -> anyhow::Result<()> {
        let mut wait = Duration::from_millis(200);
        for attempt in 1.. {
            match self.once(method, name, digest, body) {
                Ok(()) => return Ok(()),
                Err((error, again)) if !again || attempt >= TRIES => {
                    return Err(error).with_context(|| format!("{method} {name} in s3://{}", self.bucket));
                }
                Err(_) => std::thread::sleep(wait),
            }
            wait *= 2;
        }
        Ok(())
    }

    /// One request; an error comes with whether it may pass.
    fn once(
        &self,
        method: &str,
        name: &str,
        digest: &str,
        body: Option<(&Path, &str)>,
    ) -> Result<(), (anyhow::Error, bool)> {
        let path = format!("/{}/{}", encode(&self.bucket), encode(&format!("{}{name}", self.prefix)));
        let host = self.endpoint.split_once("://").map_or(self.endpoint.as_str(), |(_, host)| host);
        let mut headers = vec![
            ("host".to_owned(), host.to_owned()),
            ("x-amz-content-sha256".to_owned(), digest.to_owned()),
            ("x-amz-date".to_owned(), stamp(sys::clock::now())),
        ];
        headers.extend(self.token.iter().map(|token| ("x-amz-security-token".to_owned(), token.clone())));
        let authorization = self.authorization(method, &path, &headers, digest);
        let url = format!("{}{path}", self.endpoint);
        let fatal = |error: anyhow::Error| (error, false);
        let signed = headers.iter().filter(|(name, _)| name != "host");
        let answer = match body {
            Some((file, cache)) => {
                let mut request =
                    self.agent.put(&url).header("authorization", &authorization).header("cache-control", cache);
                for (name, value) in signed {
                    request = request.header(name, value);
                }
                let body = File::open(file).with_context(|| format!("opening {}", file.display())).map_err(fatal)?;
                request.content_type("application/octet-stream").send(body)
            }
            None => {
                let mut request = self.agent.delete(&url).header("authorization", &authorization);
                for (name, value) in signed {
                    request = request.header(name, value);
                }
                request.call()
            }
        };
        let mut answer = answer.map_err(|error| (error.into(), true))?;
        let status = answer.status().as_u16();
        if (200..300).contains(&status) || (method == "DELETE" && status == 404) {
            return Ok(());
        }
        let text = answer.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
        Err((anyhow::anyhow!("the store answers {status}: {}", text.trim()), status >= 500 || status == 429))
    }

    /// The header `Authorization` of a request without a query. `headers` are sorted and lower-case.
    fn authorization(&self, method: &str, path: &str, headers: &[(String, String)], digest: &str) -> String {
        let date = headers.iter().find(|(name, _)| name == "x-amz-date").map_or("", |(_, date)| date.as_str());
        let day = date.get(..8).unwrap_or_default();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let mut canonical = format!("{method}\n{path}\n\n");
        for (name, value) in headers {
            let _ = writeln!(canonical, "{name}:{}", value.trim());
        }
        let _ = write!(canonical, "\n{names}\n{digest}");
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
        let mut key = hmac(format!("AWS4{}", self.secret).as_bytes(), day.as_bytes());
        for part in [self.region.as_str(), "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        let signature = hex::encode(hmac(&key, text.as_bytes()));
        format!("AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}", self.access)
    }
}

/// Connections that are used again, and given up where nobody answers.
fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(THREADS)
        .max_idle_connections_per_host(THREADS)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_per_write(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE));
    config.build().into()
}

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

/// A path as S3 wants it signed: everything but unreserved characters and slashes in percent.
fn encode(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// `20130524T000000Z`.
fn stamp(seconds: u64) -> String {
    let date = crate::cmd::repo::date(seconds);
    date.replace(['-', ':'], "").replacen(' ', "T", 1).replace(" +0000", "Z")
}

/// What a file is for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Content,
    Commit,
    Signature,
    /// The signature of the summary, and indexes.
    Index,
    Entrance,
}

/// In the order in which they are put.
const CLASSES: [Class; 5] = [Class::Content, Class::Commit, Class::Signature, Class::Index, Class::Entrance];

impl Class {
    /// Whether such a file never changes.
    fn constant(self) -> bool {
        matches!(self, Class::Content | Class::Commit)
    }

    fn of(path: &str) -> Option<Class> {
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
        Some(match (path.split('/').next().unwrap_or_default(), extension) {
            ("objects", "filez" | "dirtree" | "dirmeta") | ("deltas" | "updates", _) => Class::Content,
            ("objects", "commit") => Class::Commit,
            ("objects", "commitmeta") | ("config", _) => Class::Signature,
            ("delta-indexes" | "summary.sig", _) => Class::Index,
            ("summary", _) => Class::Entrance,
            ("refs", _) if path.starts_with("refs/heads/") => Class::Entrance,
            _ => return None,
        })
    }
}

/// The files of one class, below `dir`, sorted: the summary after the refs.
fn files(dir: &Path, class: Class) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut todo = vec![String::new()];
    while let Some(below) = todo.pop() {
        for entry in std::fs::read_dir(dir.join(&below)).with_context(|| format!("reading {below}"))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if entry.file_type()?.is_dir() {
                todo.push(path);
            } else if Class::of(&path) == Some(class) && !path.rsplit('/').next().unwrap_or(&path).starts_with('.') {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Does something with each name, several at a time; the first error ends it. Entrances are few and go in order.
fn each(names: &[&String], work: impl Fn(&str) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let threads = if names.iter().any(|name| Class::of(name) == Some(Class::Entrance)) { 1 } else { THREADS };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = work(name) {
                        next.store(names.len(), Ordering::Relaxed);
                        lock(&failure).get_or_insert(error);
                    }
                }
            });
        }
    });
    match lock(&failure).take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// What is in the store already.
struct Sent {
    names: BTreeSet<String>,
    file: File,
}

impl Sent {
    fn load(path: &Path) -> anyhow::Result<Sent> {
        let what = || format!("the list of what was sent, {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.with_context(what)?,
        };
        // A line that was cut off names nothing that exists, and what it stood for is sent again.
        let names = text.lines().map(str::to_owned).collect();
        let file = File::options().append(true).create(true).open(path).with_context(what)?;
        if !text.is_empty() && !text.ends_with('\n') {
            writeln!(&file).with_context(what)?;
        }
        Ok(Sent { names, file })
    }

    fn add(&mut self, name: &str) -> anyhow::Result<()> {
        if self.names.contains(name) {
            return Ok(());
        }
        writeln!(self.file, "{name}").context("noting what was sent")?;
        self.names.insert(name.to_owned());
        Ok(())
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text: String = self.names.iter().map(|name| format!("{name}\n")).collect();
        sys::file::replace(path, text.as_bytes(), 0o644).context("noting what was sent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::net::TcpListener;
    use std::sync::Arc;

    fn store(endpoint: &str) -> Store {
        Store {
            agent: agent(),
            endpoint: endpoint.to_owned(),
            bucket: "examplebucket".to_owned(),
            prefix: String::new(),
            region: "us-east-1".to_owned(),
            access: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            token: None,
        }
    }

    /// The example of a GET in Amazon's own description of the signature.
    #[test]
    fn requests_are_signed_as_the_specification_says() {
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let header = store("").authorization("GET", "/test.txt", &headers, EMPTY);
        let expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(header.ends_with(&format!("Signature={expected}")), "{header}");
        assert_eq!(stamp(1_369_353_600), "20130524T000000Z");
        assert_eq!(encode("a b/c+d"), "a%20b/c%2Bd");
    }

    /// A store that is gone in the middle: what was put by then is not put again, and no ref was put before its content.
    #[test]
    fn an_interrupted_copy_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        };
        (0..40).for_each(|n| file(&format!("objects/ab/{n:02}.filez")));
        ["objects/ab/e.commit", "refs/heads/os/x", "summary"].iter().for_each(|name| file(name));
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let bucket = Bucket::default();
        let endpoint = serve(bucket.clone());
        bucket.lock().unwrap().3 = Some(20);
        let error = store(&endpoint).send(dir.path(), false).unwrap_err();
        assert!(format!("{error:#}").contains("403"), "{error:#}");
        let first = {
            let mut state = bucket.lock().unwrap();
            state.3 = None;
            std::mem::take(&mut state.1)
        };
        assert!(first.len() == 20 && first.iter().all(|path| path.ends_with(".filez")), "{first:?}");
        store(&endpoint).send(dir.path(), false).unwrap();
        let state = bucket.lock().unwrap();
        assert!(state.1.iter().all(|path| !first.contains(path)), "sent twice: {:?}", state.1);
        assert_eq!((state.0.len(), state.1.last().unwrap().as_str()), (43, "/examplebucket/summary"));
    }

    type Bucket = Arc<Mutex<(BTreeMap<String, Vec<u8>>, Vec<String>, usize, Option<usize>)>>;

    /// A store that checks signatures, keeps what is put, and fails where it is told to: once, or from some request on for
    /// good.
    fn serve(bucket: Bucket) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let known = store(&endpoint);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (known, bucket) = (known.clone(), bucket.clone());
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    let mut reader = BufReader::new(&stream);
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let mut words = line.split(' ').map(str::to_owned);
                    let (method, path) = (words.next().unwrap(), words.next().unwrap());
                    let mut headers = BTreeMap::new();
                    loop {
                        let mut line = String::new();
                        reader.read_line(&mut line).unwrap();
                        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                        headers.insert(name.to_lowercase(), value.to_owned());
                    }
                    let mut body = vec![0; headers.get("content-length").map_or(0, |n| n.parse().unwrap())];
                    reader.read_exact(&mut body).unwrap();
                    let digest = hex::encode(Sha256::digest(&body));
                    let signed = ["host", "x-amz-content-sha256", "x-amz-date"];
                    let signed = signed.map(|name| (name.to_owned(), headers[name].clone()));
                    let good = headers["authorization"] == known.authorization(&method, &path, &signed, &digest);
                    let mut bucket = bucket.lock().unwrap();
                    bucket.2 = bucket.2.saturating_sub(1);
                    let status = if !good {
                        "403 Forbidden"
                    } else if bucket.2 == 1 {
                        "503 Slow Down"
                    } else if bucket.3 == Some(0) {
                        "403 Forbidden"
                    } else if method == "PUT" {
                        bucket.3 = bucket.3.map(|left| left - 1);
                        bucket.0.insert(path.clone(), body);
                        bucket.1.push(path);
                        "200 OK"
                    } else {
                        bucket.0.remove(&path);
                        bucket.1.push(format!("-{path}"));
                        "204 No Content"
                    };
                    drop(bucket);
                    write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
                });
            }
        });
        endpoint
    }

    #[test]
    fn a_repository_is_put_in_order_once_and_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        let constant = ["objects/ab/c.filez", "objects/ab/d.dirtree", "objects/ab/e.commit"];
        for name in
            constant.iter().chain(&["objects/ab/e.commitmeta", "config", "refs/heads/os/x", "summary", "summary.sig"])
        {
            file(name, name);
        }
        file("tmp/x", "not served");
        file("state/y", "not served");
        let bucket = Bucket::default();
        let store = store(&serve(bucket.clone()));
        bucket.lock().unwrap().2 = 4;
        store.send(dir.path(), false).unwrap();
        let order = std::mem::take(&mut bucket.lock().unwrap().1);
        let at = |name: &str| order.iter().position(|path| path.ends_with(&format!("/{name}"))).unwrap();
        assert_eq!(order.len(), 8, "{order:?}");
        assert!(at("objects/ab/c.filez") < at("objects/ab/e.commit"));
        assert!(at("objects/ab/e.commit") < at("objects/ab/e.commitmeta"));
        assert!(at("objects/ab/e.commitmeta") < at("summary.sig") && at("summary.sig") < at("refs/heads/os/x"));
        assert_eq!(order.last().unwrap(), "/examplebucket/summary");

        // A ref that was deleted, its commit and what only that needs: first the ref goes, then the commit, then the rest.
        let gone = ["refs/heads/os/x", "objects/ab/e.commitmeta", "objects/ab/e.commit", "objects/ab/c.filez"];
        gone.iter().for_each(|name| std::fs::remove_file(dir.path().join(name)).unwrap());
        store.send(dir.path(), true).unwrap();
        let state = std::mem::take(&mut *bucket.lock().unwrap());
        let put = |path: &&String| path.starts_with('/') && constant.iter().any(|name| path.ends_with(name));
        assert_eq!(state.1.iter().find(put), None, "put once");
        let deleted: Vec<_> = state.1.iter().filter_map(|path| path.strip_prefix("-/examplebucket/")).collect();
        assert_eq!(deleted, gone);
        assert_eq!(state.0.len(), 4, "{:?}", state.0.keys());
        store.send(dir.path(), true).unwrap();
        assert!(bucket.lock().unwrap().1.iter().all(|path| !path.starts_with('-')), "deleted once");

        let stranger = Store { secret: "wrong".to_owned(), ..store };
        file("objects/ab/f.filez", "new");
        let error = format!("{:#}", stranger.send(dir.path(), false).unwrap_err());
        assert!(error.contains("objects/ab/f.filez") && error.contains("403"), "{error}");
    }
}
