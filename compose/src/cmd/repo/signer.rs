//! Signatures that are not GPG's, by the names that `--sign-type` gives them.
//!
//! ```text
//! ed25519   secret: base64 of 64 bytes      public: base64 of 32 bytes        a file has one a line
//! spki      secret: base64 of PKCS#8        public: base64 of the DER form    a file is PEM
//! dummy     the key is the signature: for tests of tools, and only where OSTREE_DUMMY_SIGN_ENABLED is 1
//! ```

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use store::Dict;
use store::sign::trust::{Keys, Signer};
use store::sign::{self, Keyring, PublicKey, SecretKey, Signs, Verifies, VerifyError, spki};

/// The key of detached metadata that holds signatures of the kind `dummy`.
const DUMMY: &str = "ostree.sign.dummy";

/// A kind of signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ed25519,
    Spki,
    Dummy,
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Kind> {
        match name {
            "ed25519" => Ok(Kind::Ed25519),
            "spki" => Ok(Kind::Spki),
            "dummy" => Ok(Kind::Dummy),
            other => bail!("signatures of the type {other} are not known (ed25519, spki, dummy)"),
        }
    }
}

fn dummy_enabled() -> anyhow::Result<()> {
    match std::env::var("OSTREE_DUMMY_SIGN_ENABLED").as_deref() {
        Ok("1") => Ok(()),
        _ => bail!("signatures of the type dummy are for tests alone (OSTREE_DUMMY_SIGN_ENABLED=1)"),
    }
}

/// A secret key.
pub enum Secret {
    Ed25519(SecretKey),
    Spki(spki::SecretKey),
    Dummy(String),
}

impl Kind {
    /// The detached metadata that holds signatures of this kind.
    pub fn metadata_key(self) -> &'static str {
        match self {
            Kind::Ed25519 => sign::KEY,
            Kind::Spki => spki::KEY,
            Kind::Dummy => DUMMY,
        }
    }

    /// A secret key from the command line.
    pub fn secret(self, text: &str) -> anyhow::Result<Secret> {
        Ok(match self {
            Kind::Ed25519 => Secret::Ed25519(text.trim().parse().context("the secret key")?),
            Kind::Spki => Secret::Spki(spki::SecretKey::parse(text).context("the secret key")?),
            Kind::Dummy => {
                dummy_enabled()?;
                Secret::Dummy(text.to_owned())
            }
        })
    }

    /// The secret keys of a file.
    pub fn secrets_in(self, file: &Path) -> anyhow::Result<Vec<Secret>> {
        let what = || format!("the secret key {}", file.display());
        match self {
            Kind::Ed25519 => {
                let text = std::fs::read_to_string(file).with_context(what)?;
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                let key = |line: &str| Ok(Secret::Ed25519(line.trim().parse().with_context(what)?));
                lines.map(key).collect()
            }
            Kind::Spki => Ok(vec![Secret::Spki(spki::SecretKey::load(file).with_context(what)?)]),
            Kind::Dummy => bail!("keys of the type dummy are in no files"),
        }
    }

    /// All secret keys that a command line names.
    pub fn secrets<'a>(
        self,
        keys: &[String],
        files: impl IntoIterator<Item = &'a Path>,
    ) -> anyhow::Result<Vec<Secret>> {
        let mut secrets: Vec<Secret> = keys.iter().map(|key| self.secret(key)).collect::<Result<_, _>>()?;
        for file in files {
            secrets.append(&mut self.secrets_in(file)?);
        }
        Ok(secrets)
    }
}

impl Signs for Secret {
    fn sign_into(&self, signatures: &mut Dict, message: &[u8]) -> Result<(), String> {
        match self {
            Secret::Ed25519(key) => key.sign_into(signatures, message),
            Secret::Spki(key) => key.sign_into(signatures, message),
            // The stock tool adds it each time.
            Secret::Dummy(key) => {
                let mut all =
                    signatures.get(DUMMY).and_then(|found| found.as_bytes_array()).unwrap_or_default().to_vec();
                all.push(key.as_bytes().to_vec());
                signatures.insert(DUMMY.to_owned(), store::Value::BytesArray(all));
                Ok(())
            }
        }
    }
}

/// Public keys to check signatures with.
pub enum Public {
    Of(Keys),
    Dummy(Vec<String>),
}

impl Public {
    /// The keys that a command line names; without any, those of the directory, or those that are installed.
    pub fn read(kind: Kind, keys: &[String], file: Option<&Path>, dir: Option<&Path>) -> anyhow::Result<Public> {
        let named = !keys.is_empty() || file.is_some();
        Ok(match kind {
            Kind::Ed25519 => {
                let mut keyring = Keyring::default();
                for key in keys {
                    keyring.trust(key.parse::<PublicKey>().context("the public key")?);
                }
                if let Some(file) = file {
                    keyring.add_file(file)?;
                }
                match dir {
                    Some(dir) => keyring.add_dir(dir)?,
                    None if !named => keyring = Keyring::load(Path::new("/"))?,
                    None => {}
                }
                Public::Of(Keys::Ed25519(keyring))
            }
            Kind::Spki => {
                let mut keyring = spki::Keyring::default();
                for key in keys {
                    keyring.trust(key.parse::<spki::PublicKey>().context("the public key")?);
                }
                if let Some(file) = file {
                    keyring.add_file(file)?;
                }
                match dir {
                    Some(dir) => keyring.add_dir(dir, true)?,
                    None => keyring.load(Path::new("/"), !named)?,
                }
                Public::Of(Keys::Spki(keyring))
            }
            Kind::Dummy => {
                dummy_enabled()?;
                if file.is_some() || dir.is_some() || keys.is_empty() {
                    bail!("keys of the type dummy are on the command line, and nowhere else");
                }
                Public::Dummy(keys.to_vec())
            }
        })
    }

    /// Whether there is no key that counts.
    pub fn is_empty(&self) -> bool {
        match self {
            Public::Of(Keys::Ed25519(keyring)) => keyring.is_empty(),
            Public::Of(Keys::Spki(keyring)) => keyring.is_empty(),
            Public::Of(Keys::Gpg(keyring)) => keyring.is_empty(),
            Public::Dummy(keys) => keys.is_empty(),
        }
    }

    /// Finds a valid signature by one of the keys, and says so in the stock tool's words.
    pub fn find(&self, message: &[u8], signatures: &Dict) -> Result<String, VerifyError> {
        let good = |kind, key| format!("{kind}: Signature verified successfully with key '{key}'");
        match self {
            Public::Of(keys) => Ok(match keys.verify(message, signatures)? {
                Signer::Ed25519(key) => good("ed25519", hex::encode(key.as_bytes())),
                Signer::Spki(key) => good("spki", key.to_string()),
                Signer::Gpg(key) => good("gpg", key),
            }),
            Public::Dummy(keys) => {
                let all = signatures.get(DUMMY).and_then(|found| found.as_bytes_array()).unwrap_or_default();
                match all.iter().any(|one| keys.iter().any(|key| key.as_bytes() == one)) {
                    true => Ok("dummy: Signature verified".to_owned()),
                    false if all.is_empty() => Err(VerifyError::Unsigned),
                    false => Err(VerifyError::Untrusted(all.len())),
                }
            }
        }
    }

    /// Whether a signature is by one of the keys.
    pub fn made(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Public::Of(Keys::Ed25519(keyring)) => keyring.keys().any(|key| key.verifies(message, signature)),
            Public::Of(Keys::Spki(keyring)) => keyring.keys().any(|key| key.verifies(message, signature)),
            Public::Of(Keys::Gpg(_)) => false,
            Public::Dummy(keys) => keys.iter().any(|key| key.as_bytes() == signature),
        }
    }
}

impl Verifies for Public {
    fn check(&self, message: &[u8], signatures: &Dict) -> Result<(), VerifyError> {
        self.find(message, signatures).map(drop)
    }
}
