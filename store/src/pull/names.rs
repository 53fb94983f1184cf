//! A server's name is looked up once, not once for each of thousands of requests: the HTTP client asks even where a
//! connection is open, and a name server that drops one query of a burst makes the C library wait five seconds.

use std::net::SocketAddr;
use std::sync::Mutex;

use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::import::lock;

/// Keeps the answers of the system's resolver, for a program that talks to one server or to a few.
#[derive(Debug, Default)]
pub struct KnownNames {
    system: DefaultResolver,
    answers: Mutex<Vec<(String, Vec<SocketAddr>)>>,
}

impl Resolver for KnownNames {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let name = format!("{:?} {:?}", uri.scheme(), uri.authority());
        // Held during the question: the other connections wait for its answer.
        let mut answers = lock(&self.answers);
        if let Some((_, known)) = answers.iter().find(|(of, _)| *of == name) {
            let mut addresses = self.empty();
            known.iter().for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        let found = self.system.resolve(uri, config, timeout)?;
        answers.push((name, found.to_vec()));
        Ok(found)
    }
}
