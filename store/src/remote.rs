//! The remotes that a repository knows.
//!
//! ```text
//! REPO/config
//!   [remote "origin"]
//!   url=https://host/repo                   or file:///…, mirrorlist=https://…
//!   metalink=https://host/file              instead of url: says what the summary is and where
//!   contenturl=…                            where objects and deltas lie, if elsewhere
//!   branches=a;b;                           what a pull without names pulls
//!   gpg-verify, sign-verify                 what commits must be signed with (see `sign::trust`)
//!   gpg-verify-summary, sign-verify-summary the same for the summary; then refs are taken from it alone
//!   gpgkeypath                              OpenPGP keys: files, directories
//!   verification-{ed25519,spki}-{key,file}  keys of this remote, instead of those that are installed
//!   tls-ca-path, tls-client-cert-path, tls-client-key-path, tls-permissive, proxy
//!   bearer-token-path                       a file with a token
//!   unconfigured-state                      why it cannot be used yet
//!   custom-backend                          who fetches it instead
//! REPO/REMOTE.trustedkeys.gpg               OpenPGP keys of the remote
//! REPO/REMOTE.cookies.txt                   see `cookies`
//! ```

use std::path::{Path, PathBuf};

use crate::keyfile::{KeyFile, parse_bool, parse_list};
use crate::pull::{Login, METALINK, Network, Options};
use crate::sign::trust::{Keys, Trust};
use crate::sign::{self, gpg, spki};
use crate::{Error, Repo};

/// A remote as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its name.
    pub name: String,
    values: Vec<(String, String)>,
}

fn group(name: &str) -> String {
    format!("remote \"{name}\"")
}

fn check_name(name: &str) -> Result<(), Error> {
    if crate::valid_ref(name) && !name.contains('/') {
        return Ok(());
    }
    Err(Error::invalid(format!("{name:?} cannot be the name of a remote (letters, digits, - _ .)")))
}

impl Repo {
    /// The file `config`.
    pub fn config(&self) -> Result<KeyFile, Error> {
        KeyFile::load(&self.path().join("config"))
    }

    /// Replaces the file `config`.
    pub fn write_config(&self, config: &KeyFile) -> Result<(), Error> {
        let path = self.path().join("config");
        let written = sys::file::replace(&path, config.render().as_bytes(), 0o644);
        written.map_err(|e| Error::io(format!("writing {}", path.display()), e))
    }

    /// Whether commits that are deleted leave a tombstone.
    pub fn tombstones(&self) -> Result<bool, Error> {
        Ok(self.config()?.get("core", "tombstone-commits").and_then(|text| parse_bool(&text)).unwrap_or(false))
    }

    /// The remotes, by name.
    pub fn remotes(&self) -> Result<Vec<Config>, Error> {
        let config = self.config()?;
        let named =
            |group: &str| group.strip_prefix("remote \"").and_then(|name| name.strip_suffix('"')).map(str::to_owned);
        let mut names: Vec<String> = config.groups().into_iter().filter_map(named).collect();
        names.sort();
        let of = |name: String| Config { values: config.entries(&group(&name)), name };
        Ok(names.into_iter().map(of).collect())
    }

    /// A remote by its name.
    pub fn remote(&self, name: &str) -> Result<Config, Error> {
        let found = self.remotes()?.into_iter().find(|remote| remote.name == name);
        found.ok_or_else(|| Error::invalid(format!("Remote \"{name}\" not found")))
    }

    /// Adds a remote, or replaces the one of that name.
    pub fn set_remote(&self, remote: &Config) -> Result<(), Error> {
        check_name(&remote.name)?;
        let mut config = self.config()?;
        let group = group(&remote.name);
        config.remove_group(&group);
        for (key, value) in &remote.values {
            config.set(&group, key, value);
        }
        self.write_config(&config)
    }

    /// Removes a remote and its OpenPGP keys; its refs stay. Tells whether it was there.
    pub fn delete_remote(&self, name: &str) -> Result<bool, Error> {
        check_name(name)?;
        let mut config = self.config()?;
        if !config.remove_group(&group(name)) {
            return Ok(false);
        }
        self.write_config(&config)?;
        let keys = gpg::trusted_keys(self.path(), name);
        sys::file::remove(&keys).map_err(|e| Error::io(format!("removing {}", keys.display()), e))?;
        Ok(true)
    }
}

impl Config {
    /// A remote at an address. `metalink=URL` is noted as such.
    pub fn new(name: &str, url: &str) -> Result<Config, Error> {
        let mut remote = Config::named(name)?;
        let (key, url) = url.strip_prefix(METALINK).map_or(("url", url), |url| ("metalink", url));
        remote.set(key, url);
        Ok(remote)
    }

    /// A remote of which nothing is known but its name.
    pub fn named(name: &str) -> Result<Config, Error> {
        check_name(name)?;
        Ok(Config { name: name.to_owned(), values: Vec::new() })
    }

    /// The keys and values, in the order of the file.
    pub fn values(&self) -> &[(String, String)] {
        &self.values
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Sets a value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        match self.values.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value.into(),
            None => self.values.push((key.to_owned(), value.into())),
        }
    }

    fn invalid(&self, key: &str, why: impl std::fmt::Display) -> Error {
        Error::invalid(format!("remote \"{}\", {key}: {why}", self.name))
    }

    fn switch(&self, key: &str, default: bool) -> Result<bool, Error> {
        let Some(text) = self.get(key) else { return Ok(default) };
        parse_bool(text).ok_or_else(|| self.invalid(key, format!("{text:?} is neither true nor false")))
    }

    /// The address.
    pub fn url(&self) -> Result<&str, Error> {
        self.get("url").ok_or_else(|| self.invalid("url", "there is none"))
    }

    /// Where a pull begins: a metalink counts before an address.
    pub fn source(&self) -> Result<String, Error> {
        match self.get("metalink") {
            Some(url) => Ok(format!("{METALINK}{url}")),
            None => Ok(self.url()?.to_owned()),
        }
    }

    /// What a pull without names pulls.
    pub fn branches(&self) -> Vec<String> {
        self.get("branches").map(parse_list).unwrap_or_default()
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.get(key).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// How to talk to its server.
    pub fn network(&self) -> Result<Network, Error> {
        let client_cert = match (self.path("tls-client-cert-path"), self.path("tls-client-key-path")) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            _ => return Err(self.invalid("tls-client-cert-path", "certificate and key are needed, or neither")),
        };
        let token = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Login::Bearer(text.trim().to_owned())),
            Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
        };
        Ok(Network {
            ca_file: self.path("tls-ca-path"),
            client_cert,
            tls_permissive: self.switch("tls-permissive", false)?,
            proxy: self.get("proxy").filter(|proxy| !proxy.is_empty()).map(str::to_owned),
            login: self.path("bearer-token-path").map(token).transpose()?,
            ..Network::default()
        })
    }

    /// What commits must be signed with. `root` is where keys are installed.
    pub fn trust(&self, repo: &Repo, root: &Path) -> Result<Trust, Error> {
        self.trust_by("gpg-verify", true, "sign-verify", repo, root)
    }

    /// What the summary must be signed with; without a rule it is not needed.
    pub fn summary_trust(&self, repo: &Repo, root: &Path) -> Result<Trust, Error> {
        self.trust_by("gpg-verify-summary", false, "sign-verify-summary", repo, root)
    }

    /// Whether the summary needs an OpenPGP signature.
    pub fn wants_gpg_summary(&self) -> Result<bool, Error> {
        self.switch("gpg-verify-summary", false)
    }

    fn trust_by(&self, gpg: &str, default: bool, signed: &str, repo: &Repo, root: &Path) -> Result<Trust, Error> {
        let mut trust = Trust::default();
        if self.switch(gpg, default)? {
            trust.require(vec![Keys::Gpg(self.gpg_keys(repo, root)?)]);
        }
        let Some(text) = self.get(signed) else { return Ok(trust) };
        match parse_bool(text) {
            Some(false) => {}
            Some(true) => {
                let both = [self.keys("ed25519", root)?, self.keys("spki", root)?];
                let with_keys: Vec<Keys> = both.into_iter().filter(|keys| !is_empty(keys)).collect();
                if with_keys.is_empty() {
                    return Err(self.invalid(signed, "there are no keys to check signatures with"));
                }
                trust.require(with_keys);
            }
            None => {
                for kind in parse_list(text) {
                    let keys = self.keys(&kind, root)?;
                    if is_empty(&keys) {
                        return Err(self.invalid(signed, format!("there are no {kind} keys")));
                    }
                    trust.require(vec![keys]);
                }
            }
        }
        Ok(trust)
    }

    /// The OpenPGP keys that count for it.
    pub fn gpg_keys(&self, repo: &Repo, root: &Path) -> Result<gpg::Keyring, Error> {
        let more: Vec<PathBuf> =
            self.get("gpgkeypath").map(parse_list).unwrap_or_default().into_iter().map(PathBuf::from).collect();
        let keys = gpg::Keyring::of_remote(repo.path(), &self.name, root, &more);
        keys.map_err(|e| self.invalid("gpg-verify", crate::error::chain(&e)))
    }

    /// The keys of one kind: the remote's own, else those that are installed. Revoked are those that are installed so.
    fn keys(&self, kind: &str, root: &Path) -> Result<Keys, Error> {
        let (key, file) = (format!("verification-{kind}-key"), format!("verification-{kind}-file"));
        let (inline, path) = (self.get(&key), self.path(&file));
        let own = inline.is_some() || path.is_some();
        match kind {
            "ed25519" => {
                let installed = sign::Keyring::load(root).map_err(|e| self.invalid(kind, crate::error::chain(&e)))?;
                let mut keyring = if own { sign::Keyring::default() } else { installed.clone() };
                installed.revoked().for_each(|key| keyring.revoke(*key));
                if let Some(text) = inline {
                    keyring.trust(text.parse().map_err(|e| self.invalid(&key, e))?);
                }
                if let Some(path) = path {
                    keyring.add_file(&path).map_err(|e| self.invalid(&file, crate::error::chain(&e)))?;
                }
                Ok(Keys::Ed25519(keyring))
            }
            "spki" => {
                let mut keyring = spki::Keyring::default();
                keyring.load(root, !own).map_err(|e| self.invalid(kind, crate::error::chain(&e)))?;
                if let Some(text) = inline {
                    keyring.trust(text.parse().map_err(|e| self.invalid(&key, e))?);
                }
                if let Some(path) = path {
                    keyring.add_file(&path).map_err(|e| self.invalid(&file, crate::error::chain(&e)))?;
                }
                Ok(Keys::Spki(keyring))
            }
            other => Err(self.invalid("sign-verify", format!("signatures of the kind {other:?} are not known"))),
        }
    }

    /// Everything a pull of `refs` needs to know. `root` is where keys are installed.
    pub fn pull_options(&self, repo: &Repo, root: &Path, refs: Vec<String>) -> Result<Options<'static>, Error> {
        if let Some(why) = self.get("unconfigured-state") {
            return Err(self.invalid("unconfigured-state", why));
        }
        if let Some(backend) = self.get("custom-backend") {
            return Err(
                self.invalid("custom-backend", format!("{backend:?} fetches what it has, and not this program"))
            );
        }
        let mut options = Options::new(&self.source()?, "", None);
        options.refs = refs;
        options.content_url = self.get("contenturl").map(str::to_owned);
        options.remote = Some(self.name.clone());
        options.trust = self.trust(repo, root)?;
        options.summary_trust = self.summary_trust(repo, root)?;
        options.network = self.network()?;
        options.network.cookies = repo.cookies(&self.name)?;
        Ok(options)
    }

    /// Adds the OpenPGP keys of files to the remote's, all or those that are named; returns how many were new.
    pub fn import_gpg_keys(&self, repo: &Repo, files: &[&[u8]], only: &[String]) -> Result<usize, gpg::GpgError> {
        gpg::import(repo.path(), &self.name, files, only)
    }
}

fn is_empty(keys: &Keys) -> bool {
    match keys {
        Keys::Ed25519(keyring) => keyring.is_empty(),
        Keys::Spki(keyring) => keyring.is_empty(),
        Keys::Gpg(keyring) => keyring.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    #[test]
    fn remotes_are_added_shown_and_removed_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let before = std::fs::read_to_string(repo.path().join("config")).unwrap();
        let mut remote = Config::new("origin", "https://host/repo").unwrap();
        remote.set("gpg-verify", "false");
        remote.set("branches", "a;b;");
        repo.set_remote(&remote).unwrap();
        repo.set_remote(&Config::new("b", "file:///x").unwrap()).unwrap();
        assert_eq!(repo.remotes().unwrap().iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["b", "origin"]);
        let found = repo.remote("origin").unwrap();
        assert_eq!(
            (found.url().unwrap(), found.branches()),
            ("https://host/repo", vec!["a".to_owned(), "b".to_owned()])
        );
        assert!(found.trust(&repo, dir.path()).unwrap().is_empty());
        assert!(repo.delete_remote("origin").unwrap() && repo.delete_remote("b").unwrap());
        assert!(!repo.delete_remote("b").unwrap());
        assert_eq!(std::fs::read_to_string(repo.path().join("config")).unwrap().trim(), before.trim());
        for bad in ["../x", "a/b", "", "a b", "a\"]"] {
            assert!(Config::new(bad, "http://x").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_signatures_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let key = sign::SecretKey::from_seed(&[1; 32]).public();
        let trust = |values: &[(&str, &str)]| {
            let mut remote = Config::new("r", "http://x").unwrap();
            values.iter().for_each(|(key, value)| remote.set(key, *value));
            remote.trust(&repo, dir.path())
        };
        assert!(!trust(&[]).unwrap().is_empty(), "OpenPGP is asked for unless it is switched off");
        assert!(trust(&[("gpg-verify", "maybe")]).is_err());
        let off = ("gpg-verify", "false");
        assert!(trust(&[off, ("sign-verify", "true")]).unwrap_err().to_string().contains("no keys"));
        assert!(trust(&[off, ("sign-verify", "dummy")]).is_err());
        let own = ("verification-ed25519-key", &*key.to_string());
        assert!(!trust(&[off, own, ("sign-verify", "true")]).unwrap().is_empty());
        assert!(!trust(&[off, own, ("sign-verify", "ed25519")]).unwrap().is_empty());
        assert!(trust(&[off, own, ("sign-verify", "ed25519;spki")]).is_err());
        // Revoked for the machine is revoked for the remote.
        std::fs::create_dir_all(dir.path().join("etc/ostree")).unwrap();
        std::fs::write(dir.path().join("etc/ostree/revoked.ed25519"), key.to_string()).unwrap();
        assert!(trust(&[off, own, ("sign-verify", "true")]).is_err());
    }

    #[test]
    fn a_remote_that_is_not_configured_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let mut remote = Config::new("r", "http://x").unwrap();
        remote.set("unconfigured-state", "register this machine first");
        let error = remote.pull_options(&repo, dir.path(), Vec::new()).err().unwrap().to_string();
        assert!(error.contains("register this machine first"), "{error}");
        let mut remote = Config::named("r").unwrap();
        assert!(remote.pull_options(&repo, dir.path(), Vec::new()).is_err());
        remote.set("url", "http://x");
        remote.set("custom-backend", "another");
        let error = remote.pull_options(&repo, dir.path(), Vec::new()).err().unwrap().to_string();
        assert!(error.contains("another"), "{error}");
        let metalink = Config::new("r", "metalink=http://x").unwrap();
        assert_eq!(metalink.source().unwrap(), "metalink=http://x");
        assert!(metalink.url().is_err());
    }
}
