//! Fetches packages: several connections, each kept open, every byte hashed as it arrives.
//!
//! ```text
//! debs/<sha256>.part    what has arrived; a later run goes on from there
//! debs/<sha256>.deb     complete, and it had this digest when it was renamed
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{PackagesError, deb_path};

/// How often one package is tried.
const TRIES: u32 = 3;

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `http://`, `https://` or `file:`.
    pub url: String,
    /// Hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Packages that were not in the cache.
    pub packages: usize,
    /// Their bytes that came over the network.
    pub bytes: u64,
}

/// Makes sure that every item lies in `cachedir/debs` and has its digest. `progress` gets the bytes of each item as they come.
pub fn all(
    items: &[Item],
    cachedir: &Path,
    connections: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Fetched, PackagesError> {
    // Large ones first: no connection is left with one at the end.
    let mut queue: Vec<&Item> = items.iter().collect();
    queue.sort_by_key(|i| (i.size, &i.sha256));
    let queue = Mutex::new(queue);
    let result = Mutex::new((Fetched::default(), None::<PackagesError>));
    let stop = AtomicBool::new(false);
    let agent = agent();
    std::thread::scope(|scope| {
        for _ in 0..connections.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(item) = queue.lock().ok().and_then(|mut q| q.pop()) else { break };
                    let outcome = one(&agent, item, cachedir, progress, &stop);
                    let Ok(mut result) = result.lock() else { break };
                    match outcome {
                        Ok(None) => {}
                        Ok(Some(bytes)) => {
                            result.0.packages += 1;
                            result.0.bytes += bytes;
                        }
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            result.1.get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    match result.into_inner() {
        Ok((fetched, None)) => Ok(fetched),
        Ok((_, Some(error))) => Err(error),
        Err(_) => Err(PackagesError::Answer("a fetching thread panicked".to_owned())),
    }
}

fn agent() -> ureq::Agent {
    let mut config = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .max_idle_connections_per_host(16)
        .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = super::apt::proxy().and_then(|p| ureq::Proxy::new(&p).ok()) {
        config = config.proxy(Some(proxy));
    }
    let connector = ureq::unversioned::transport::DefaultConnector::default();
    ureq::Agent::with_parts(config.build(), connector, store::pull::KnownNames::default())
}

/// None: it was there.
fn one(
    agent: &ureq::Agent,
    item: &Item,
    cachedir: &Path,
    progress: &(dyn Fn(u64) + Sync),
    stop: &AtomicBool,
) -> Result<Option<u64>, PackagesError> {
    let path = deb_path(cachedir, &item.sha256);
    if fs::metadata(&path).is_ok_and(|m| m.len() == item.size) && digest_of(&path).is_ok_and(|d| d == item.sha256) {
        progress(item.size);
        return Ok(None);
    }
    let part = path.with_extension("part");
    let mut tries = 0;
    let received = loop {
        tries += 1;
        match attempt(agent, item, &part, progress, stop) {
            Ok(received) => break received,
            Err(error @ Failure::Final(_)) => return Err(error.into_error(item)),
            Err(error) if tries == TRIES || stop.load(Ordering::Relaxed) => return Err(error.into_error(item)),
            Err(_) => std::thread::sleep(Duration::from_millis(500 * u64::from(tries))),
        }
    };
    fs::rename(&part, &path).map_err(|e| PackagesError::Io(path, e))?;
    Ok(Some(received))
}

enum Failure {
    /// Worth another try.
    Passing(String),
    /// Not worth it.
    Final(PackagesError),
}

impl Failure {
    fn into_error(self, item: &Item) -> PackagesError {
        match self {
            Failure::Passing(reason) => PackagesError::Fetch { url: item.url.clone(), reason },
            Failure::Final(error) => error,
        }
    }
}

/// Completes `part`. The bytes that are there already are hashed first and asked for no more.
fn attempt(
    agent: &ureq::Agent,
    item: &Item,
    part: &Path,
    progress: &(dyn Fn(u64) + Sync),
    stop: &AtomicBool,
) -> Result<u64, Failure> {
    let local = |e: io::Error| Failure::Final(PackagesError::Io(part.to_owned(), e));
    let (mut hash, mut have) = match File::open(part) {
        Ok(file) => {
            let mut hash = Sha256::new();
            let have = io::copy(&mut file.take(item.size), &mut hash).map_err(local)?;
            if have < item.size { (hash, have) } else { (Sha256::new(), 0) }
        }
        Err(_) => (Sha256::new(), 0),
    };
    let passing = |e: &dyn std::fmt::Display| Failure::Passing(e.to_string());
    let mut body: Box<dyn Read> = if let Some(file) = item.url.strip_prefix("file:") {
        have = 0;
        hash = Sha256::new();
        let file = percent_decode(file.strip_prefix("//").filter(|f| f.starts_with('/')).unwrap_or(file));
        Box::new(File::open(file).map_err(|e| passing(&e))?)
    } else {
        let mut request = agent.get(&item.url);
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let response = request.call().map_err(|e| passing(&e))?;
        match response.status().as_u16() {
            206 => {}
            200 => {
                have = 0;
                hash = Sha256::new();
            }
            status @ (408 | 416 | 429 | 500..=599) => {
                let _ = sys::file::remove(part);
                return Err(Failure::Passing(format!("the server answers {status}")));
            }
            status => {
                let reason = format!("the server answers {status}");
                return Err(Failure::Final(PackagesError::Fetch { url: item.url.clone(), reason }));
            }
        }
        Box::new(response.into_body().into_with_config().limit(u64::MAX).reader())
    };
    let mut file =
        OpenOptions::new().create(true).truncate(have == 0).append(have > 0).write(true).open(part).map_err(local)?;
    progress(have);
    let mut buffer = vec![0; 128 * 1024];
    let mut received = 0;
    loop {
        let count = body.read(&mut buffer).map_err(|e| passing(&e))?;
        if count == 0 {
            break;
        }
        received += count as u64;
        if have + received > item.size {
            break;
        }
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(local)?;
        progress(count as u64);
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Passing("stopped, another package failed".to_owned()));
        }
    }
    drop(file);
    if have + received < item.size {
        return Err(Failure::Passing(format!("the connection ended after {} of {} bytes", have + received, item.size)));
    }
    let found = hex::encode(hash.finalize());
    if have + received > item.size || found != item.sha256 {
        let _ = sys::file::remove(part);
        let found = if have + received > item.size { "of a longer file".to_owned() } else { found };
        return Err(Failure::Final(PackagesError::Digest {
            url: item.url.clone(),
            wanted: item.sha256.clone(),
            found,
        }));
    }
    Ok(received)
}

fn digest_of(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// `%2b` and its kin as bytes.
pub fn percent_decode(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(decoded).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(url: String, content: &[u8]) -> Item {
        Item { url, sha256: hex::encode(Sha256::digest(content)), size: content.len() as u64 }
    }

    #[test]
    fn files_are_copied_checked_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("debs")).unwrap();
        let source = dir.path().join("a+b.deb");
        fs::write(&source, b"content").unwrap();
        let url = format!("file:{}/a%2bb.deb", dir.path().display());
        let items = [item(url, b"content")];
        let fetched = all(&items, dir.path(), 4, &|_| {}).unwrap();
        assert_eq!(fetched, Fetched { packages: 1, bytes: 7 });
        assert_eq!(all(&items, dir.path(), 4, &|_| {}).unwrap(), Fetched::default());
        // A cached file that was damaged is fetched again.
        fs::write(deb_path(dir.path(), &items[0].sha256), b"damaged").unwrap();
        assert_eq!(all(&items, dir.path(), 4, &|_| {}).unwrap().packages, 1);
    }

    #[test]
    fn another_content_than_the_index_promises_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("debs")).unwrap();
        fs::write(dir.path().join("x.deb"), b"evil--!").unwrap();
        let items = [item(format!("file:{}/x.deb", dir.path().display()), b"content")];
        assert!(matches!(all(&items, dir.path(), 1, &|_| {}), Err(PackagesError::Digest { .. })));
        assert_eq!(fs::read_dir(dir.path().join("debs")).unwrap().count(), 0);
    }
}
