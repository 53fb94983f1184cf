//! ed25519 signatures over commits, in libostree's form.
//!
//! ```text
//! objects/ab/cdef….commitmeta   a{sv}   "ostree.sign.ed25519": aay of 64-byte signatures over the commit's bytes
//! usr/share/ostree/ etc/ostree/
//!   trusted.ed25519  trusted.ed25519.d/*    public keys, one a line, base64 of 32 bytes
//!   revoked.ed25519  revoked.ed25519.d/*    the same; a revoked key is never valid
//! secret key file                           base64 of 64 bytes: seed, public key
//! ```
//! One valid signature by a trusted key that is not revoked is enough. Everything else, errors included, is "no".
//! Other kinds of keys: [`spki`], [`gpg`]; what a remote asks for: [`trust`].

#[cfg(feature = "full")]
pub mod gpg;
#[cfg(feature = "full")]
mod kinds;
#[cfg(feature = "full")]
pub mod spki;
#[cfg(feature = "full")]
pub mod trust;

#[cfg(feature = "full")]
pub use kinds::{Signs, Verifies};

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::value::{Dict, Value};

/// The key of detached metadata that holds signatures.
pub const KEY: &str = "ostree.sign.ed25519";

/// Each check costs a curve operation; a commit has a few signatures, not thousands.
pub(crate) const MAX_SIGNATURES: usize = 64;
/// Where keys are installed.
pub(crate) const KEY_DIRS: [&str; 2] = ["usr/share/ostree", "etc/ostree"];

/// A public key; shown as base64, as in libostree's key files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// A secret key. Never shown.
pub struct SecretKey(SigningKey);

/// Why a key is not one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not base64 of the right length.
    #[error("not {0}")]
    Text(&'static str),
    /// The public half of a secret key does not belong to it.
    #[error("the two halves of the secret key do not belong together")]
    Halves,
    /// The file cannot be read.
    #[error("reading {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A line of a key file is not a key.
    #[error("{path}:{line}: not a public key (base64 of 32 bytes)")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

impl PublicKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        PublicKey(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`. Strict: small-order keys and malleable signatures are refused.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(&self.0), Signature::from_slice(signature)) else {
            return false;
        };
        key.verify_strict(message, &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(PublicKey).ok_or(KeyError::Text("a public key (base64 of 32 bytes)"))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    /// Reads base64 of 64 bytes (seed, public key) or of the 32-byte seed alone.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        if let Some(seed) = decode::<32>(text) {
            return Ok(SecretKey(SigningKey::from_bytes(&seed)));
        }
        let pair = decode::<64>(text).ok_or(KeyError::Text("a secret key (base64 of 64 bytes)"))?;
        SigningKey::from_keypair_bytes(&pair).map(SecretKey).map_err(|_| KeyError::Halves)
    }
}

impl SecretKey {
    /// A new key from the kernel's random numbers.
    pub fn generate() -> io::Result<Self> {
        let mut seed = [0; 32];
        let mut filled = 0;
        while filled < seed.len() {
            filled += rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self::from_seed(&seed))
    }

    /// The key that belongs to a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// Reads a key file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        fs::read_to_string(path).map_err(|e| KeyError::Read(path.to_owned(), e))?.parse()
    }

    /// The text of a key file: base64 of seed and public key.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0.to_keypair_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// The public keys that may sign commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    trusted: BTreeSet<PublicKey>,
    revoked: BTreeSet<PublicKey>,
}

/// Why a commit is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing to check against.
    #[error("no trusted key is installed")]
    NoKeys,
    /// The commit carries no ed25519 signature.
    #[error("the commit is not signed")]
    Unsigned,
    /// The detached metadata holds something else where signatures belong.
    #[error("the commit's signatures cannot be read")]
    Malformed,
    /// No signature is by a trusted key.
    #[error("none of the commit's {0} signatures is valid and by a trusted key")]
    Untrusted(usize),
    /// The only valid signatures are by revoked keys.
    #[error("the commit is signed by the revoked key {0}")]
    Revoked(PublicKey),
    /// The program that checks signatures of this kind did not work.
    #[error("the signatures cannot be checked: {0}")]
    Unable(String),
}

impl Keyring {
    /// A keyring of these keys.
    pub fn of(trusted: impl IntoIterator<Item = PublicKey>) -> Self {
        Keyring { trusted: trusted.into_iter().collect(), revoked: BTreeSet::new() }
    }

    /// Reads the keys installed below `root`. A missing directory holds no keys; an unreadable file or a line that is
    /// not a key is an error, because skipping it could bring a revoked key back.
    pub fn load(root: &Path) -> Result<Self, KeyError> {
        let mut keyring = Keyring::default();
        for base in KEY_DIRS {
            let base = root.join(base);
            read_keys(&base, "trusted.ed25519", &mut keyring.trusted)?;
            read_keys(&base, "revoked.ed25519", &mut keyring.revoked)?;
        }
        Ok(keyring)
    }

    /// Adds the keys of one directory: `trusted.ed25519`, `trusted.ed25519.d/*`, and the same for `revoked`.
    pub fn add_dir(&mut self, dir: &Path) -> Result<(), KeyError> {
        read_keys(dir, "trusted.ed25519", &mut self.trusted)?;
        read_keys(dir, "revoked.ed25519", &mut self.revoked)
    }

    /// Adds the trusted keys of one file.
    pub fn add_file(&mut self, path: &Path) -> Result<(), KeyError> {
        read_file(path, &mut self.trusted)
    }

    /// Adds a trusted key.
    pub fn trust(&mut self, key: PublicKey) {
        self.trusted.insert(key);
    }

    /// Revokes a key: it is no longer valid even if trusted.
    pub fn revoke(&mut self, key: PublicKey) {
        self.revoked.insert(key);
    }

    /// Adds everything another keyring trusts and revokes.
    pub fn extend(&mut self, other: &Keyring) {
        self.trusted.extend(&other.trusted);
        self.revoked.extend(&other.revoked);
    }

    /// The keys that count: trusted and not revoked.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.trusted.difference(&self.revoked)
    }

    /// The revoked keys.
    pub fn revoked(&self) -> impl Iterator<Item = &PublicKey> {
        self.revoked.iter()
    }

    /// Whether no key counts.
    pub fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    /// Finds a valid signature over `commit_bytes` by a key that counts, and returns that key.
    pub fn verify(&self, commit_bytes: &[u8], detached: &Dict) -> Result<PublicKey, VerifyError> {
        if self.is_empty() {
            return Err(VerifyError::NoKeys);
        }
        let signatures = match detached.get(KEY) {
            None => return Err(VerifyError::Unsigned),
            Some(Value::BytesArray(signatures)) if signatures.is_empty() => return Err(VerifyError::Unsigned),
            Some(Value::BytesArray(signatures)) => signatures,
            Some(_) => return Err(VerifyError::Malformed),
        };
        for signature in signatures.iter().take(MAX_SIGNATURES) {
            if let Some(key) = self.keys().find(|key| key.verifies(commit_bytes, signature)) {
                return Ok(*key);
            }
        }
        let by = |key: &&PublicKey| signatures.iter().take(MAX_SIGNATURES).any(|s| key.verifies(commit_bytes, s));
        let revoked = self.revoked.iter().find(by);
        Err(revoked.map_or(VerifyError::Untrusted(signatures.len()), |key| VerifyError::Revoked(*key)))
    }
}

fn read_keys(base: &Path, name: &str, keys: &mut BTreeSet<PublicKey>) -> Result<(), KeyError> {
    let files = key_files(base, name).map_err(|(path, error)| KeyError::Read(path, error))?;
    files.iter().try_for_each(|path| read_file(path, keys))
}

/// The file `base/name` and those in `base/name.d`, as far as they are there.
pub(crate) fn key_files(base: &Path, name: &str) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let file = base.join(name);
    let mut files = Vec::new();
    if file.exists() {
        files.push(file);
    }
    let dir = base.join(format!("{name}.d"));
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries.map_err(|e| (dir.clone(), e))?,
    };
    for entry in entries {
        let path = entry.map_err(|e| (dir.clone(), e))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn read_file(path: &Path, keys: &mut BTreeSet<PublicKey>) -> Result<(), KeyError> {
    let text = fs::read_to_string(path).map_err(|e| KeyError::Read(path.to_owned(), e))?;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let key = line.parse().map_err(|_| KeyError::Line { path: path.to_owned(), line: index + 1 })?;
        keys.insert(key);
    }
    Ok(())
}

/// Adds a signature to detached metadata; signatures of other keys stay. Signing twice changes nothing.
pub fn add_signature(detached: &mut Dict, commit_bytes: &[u8], key: &SecretKey) {
    push_signature(detached, KEY, key.sign(commit_bytes).to_vec());
}

/// Adds a signature to those below `key`, once.
pub(crate) fn push_signature(detached: &mut Dict, key: &str, signature: Vec<u8>) {
    match detached.entry(key.to_owned()).or_insert_with(|| Value::BytesArray(Vec::new())) {
        Value::BytesArray(signatures) => {
            if !signatures.contains(&signature) {
                signatures.push(signature);
            }
        }
        other => *other = Value::BytesArray(vec![signature]),
    }
}

/// Signs a commit of `repo`: the signature joins those in its detached metadata.
#[cfg(feature = "full")]
pub fn sign_commit(repo: &crate::Repo, commit: &crate::Checksum, key: &SecretKey) -> Result<(), crate::Error> {
    let bytes = repo.load_metadata(crate::ObjectType::Commit, commit)?;
    let mut detached = repo.load_detached(commit)?.unwrap_or_default();
    add_signature(&mut detached, &bytes, key);
    repo.write_detached(commit, &detached)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn signed(message: &[u8], keys: &[&SecretKey]) -> Dict {
        let mut detached = Dict::new();
        for key in keys {
            add_signature(&mut detached, message, key);
        }
        detached
    }

    #[test]
    fn one_valid_signature_is_enough() {
        let (old, new, other) = (key(1), key(2), key(3));
        let detached = signed(b"commit", &[&old, &new]);
        assert_eq!(Keyring::of([new.public()]).verify(b"commit", &detached), Ok(new.public()));
        assert_eq!(Keyring::of([old.public()]).verify(b"commit", &detached), Ok(old.public()));
        assert_eq!(Keyring::of([other.public()]).verify(b"commit", &detached), Err(VerifyError::Untrusted(2)));
        assert_eq!(Keyring::of([old.public()]).verify(b"Commit", &detached), Err(VerifyError::Untrusted(2)));
        assert_eq!(Keyring::default().verify(b"commit", &detached), Err(VerifyError::NoKeys));
        assert_eq!(Keyring::of([old.public()]).verify(b"commit", &Dict::new()), Err(VerifyError::Unsigned));
    }

    #[test]
    fn a_revoked_key_is_never_valid() {
        let (old, new) = (key(1), key(2));
        let mut keyring = Keyring::of([old.public(), new.public()]);
        keyring.revoke(old.public());
        let by_old = signed(b"commit", &[&old]);
        assert_eq!(keyring.verify(b"commit", &by_old), Err(VerifyError::Revoked(old.public())));
        assert_eq!(keyring.verify(b"commit", &signed(b"commit", &[&old, &new])), Ok(new.public()));
    }

    #[test]
    fn garbage_is_not_valid() {
        let key = key(1);
        let keyring = Keyring::of([key.public(), PublicKey([0; 32]), PublicKey([0xff; 32])]);
        for signature in [vec![], vec![0; 64], vec![0xff; 64], vec![1; 63], vec![1; 65]] {
            let detached = Dict::from([(KEY.to_owned(), Value::BytesArray(vec![signature]))]);
            assert_eq!(keyring.verify(b"", &detached), Err(VerifyError::Untrusted(1)));
        }
        let detached = Dict::from([(KEY.to_owned(), Value::Bytes(key.sign(b"").to_vec()))]);
        assert_eq!(keyring.verify(b"", &detached), Err(VerifyError::Malformed));
    }

    #[test]
    fn key_files_are_those_of_libostree() {
        let secret = key(7);
        assert_eq!(STANDARD.decode(secret.to_text()).unwrap().len(), 64);
        let again: SecretKey = secret.to_text().parse().unwrap();
        assert_eq!(again.public(), secret.public());
        let mut pair = STANDARD.decode(secret.to_text()).unwrap();
        pair[40] ^= 1;
        assert!(matches!(STANDARD.encode(pair).parse::<SecretKey>(), Err(KeyError::Halves)));
        assert!(!format!("{secret:?}").contains(&secret.to_text()[..20]));
    }

    #[test]
    fn keyrings_are_read_from_both_trees_and_errors_are_errors() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (key(1).public(), key(2).public());
        let usr = root.path().join("usr/share/ostree/trusted.ed25519.d");
        let etc = root.path().join("etc/ostree");
        fs::create_dir_all(&usr).unwrap();
        fs::create_dir_all(&etc).unwrap();
        assert!(Keyring::load(root.path()).unwrap().is_empty());
        fs::write(usr.join("a.ed25519"), format!("{one}\n\n{two}\n")).unwrap();
        fs::write(etc.join("revoked.ed25519"), format!("{two}")).unwrap();
        let keyring = Keyring::load(root.path()).unwrap();
        assert_eq!(keyring.keys().collect::<Vec<_>>(), [&one]);
        fs::write(usr.join("b"), "no key\n").unwrap();
        assert!(matches!(Keyring::load(root.path()), Err(KeyError::Line { line: 1, .. })));
    }
}
