//! The server's name is looked up once in a pull, not once for each of thousands of requests.

use std::net::SocketAddr;
use std::sync::Mutex;

use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::import::lock;

/// Keeps the answers of the system's resolver; a pull talks to one server, or to a few after redirects.
#[derive(Debug, Default)]
pub(super) struct Once {
    system: DefaultResolver,
    answers: Mutex<Vec<(String, Vec<SocketAddr>)>>,
}

impl Resolver for Once {
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
