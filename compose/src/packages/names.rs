//! Host names are looked up once for all requests.
//!
//! The HTTP client asks for every request, even one that goes over an open connection. With several connections that is
//! a burst of queries, and a name server that drops one makes the C library wait five seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Remembers what the default resolver said.
#[derive(Debug, Default)]
pub struct Remembering {
    inner: DefaultResolver,
    known: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
}

impl Resolver for Remembering {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let key = format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |a| a.as_str()));
        // The lock is held during the lookup: the other connections wait for its answer instead of asking too.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(&key) {
            let found = self.inner.resolve(uri, config, timeout)?;
            known.insert(key.clone(), found.to_vec());
        }
        let mut addresses = self.empty();
        for address in known.get(&key).into_iter().flatten() {
            addresses.push(*address);
        }
        Ok(addresses)
    }
}
