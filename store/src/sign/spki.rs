//! Signatures by keys of any common kind, in libostree's form `spki`.
//!
//! ```text
//! commitmeta          "ostree.sign.spki": aay     ed25519; ECDSA P-256 and P-384 or RSA with SHA-256
//! public keys         PEM "PUBLIC KEY": DER SubjectPublicKeyInfo; several in one file; or base64 of the DER
//! secret key          PEM "PRIVATE KEY": DER PKCS#8
//! trusted.spki{,.d/*} revoked.spki{,.d/*}         below usr/share/ostree and etc/ostree
//! ```
//! An error while checking is never "valid". (OpenSSL's check answers with a negative number then, which one well-known
//! reader takes for a yes.)

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey};

use super::MAX_SIGNATURES;
use crate::value::{Dict, Value};

/// The key of detached metadata that holds signatures.
pub const KEY: &str = "ostree.sign.spki";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Ed25519,
    P256,
    P384,
    Rsa,
}

const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Why a key is not one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("reading {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// What is in it is not a key.
    #[error("{0}: {1}")]
    File(PathBuf, &'static str),
    /// Not a key.
    #[error("{0}")]
    Text(&'static str),
}

/// The content of the next DER value with this tag, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let &[found, first, ref rest @ ..] = bytes else { return None };
    let mut rest = rest;
    if found != tag {
        return None;
    }
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 3 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = after;
    }
    rest.split_at_checked(length)
}

/// Algorithm and key material of a SubjectPublicKeyInfo.
fn parse(der: &[u8]) -> Option<(Algorithm, &[u8])> {
    let (info, rest) = take(der, 0x30)?;
    let (identifier, bits) = take(info, 0x30)?;
    let (oid, parameters) = take(identifier, 0x06)?;
    let (bits, after) = take(bits, 0x03)?;
    let (&0, material) = bits.split_first()? else { return None };
    if !rest.is_empty() || !after.is_empty() {
        return None;
    }
    let algorithm = match oid {
        ED25519 => Algorithm::Ed25519,
        RSA => Algorithm::Rsa,
        EC => match take(parameters, 0x06)?.0 {
            P256 => Algorithm::P256,
            P384 => Algorithm::P384,
            _ => return None,
        },
        _ => return None,
    };
    Some((algorithm, material))
}

/// A public key; shown as base64 of its DER form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    der: Vec<u8>,
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.der))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl std::str::FromStr for PublicKey {
    type Err = KeyError;

    /// Reads base64 of the DER form.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let der = STANDARD.decode(text.trim()).map_err(|_| KeyError::Text("not base64 of a public key"))?;
        PublicKey::from_der(der)
    }
}

impl PublicKey {
    /// A key in DER; of a kind that cannot be checked here it is refused.
    pub fn from_der(der: Vec<u8>) -> Result<Self, KeyError> {
        match parse(&der) {
            Some(_) => Ok(PublicKey { der }),
            None => Err(KeyError::Text("not a public key of a known kind (ed25519, ECDSA P-256 or P-384, RSA)")),
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let Some((algorithm, material)) = parse(&self.der) else { return false };
        let checked = match algorithm {
            Algorithm::Ed25519 => {
                let key = material.try_into().map(super::PublicKey::from_bytes);
                return key.is_ok_and(|key| key.verifies(message, signature));
            }
            Algorithm::P256 => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, material).verify(message, signature)
            }
            Algorithm::P384 => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA256_ASN1, material).verify(message, signature)
            }
            Algorithm::Rsa => {
                UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, material).verify(message, signature)
            }
        };
        checked.is_ok()
    }
}

/// The content of every PEM block with this label.
fn pem(text: &str, label: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        if line == begin {
            block = Some(String::new());
        } else if line == end {
            let base64 = block.take().ok_or("an END without a BEGIN")?;
            blocks.push(STANDARD.decode(base64).map_err(|_| "damaged base64")?);
        } else if let Some(block) = &mut block {
            block.push_str(line);
        }
    }
    if block.is_some() { Err("a BEGIN without an END") } else { Ok(blocks) }
}

/// The public keys that may sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    /// Whether a key is trusted; revoked is for ever.
    keys: BTreeMap<PublicKey, bool>,
}

impl Keyring {
    /// A keyring of these keys.
    pub fn of(trusted: impl IntoIterator<Item = PublicKey>) -> Self {
        Keyring { keys: trusted.into_iter().map(|key| (key, true)).collect() }
    }

    /// Adds a trusted key, unless it is revoked.
    pub fn trust(&mut self, key: PublicKey) {
        self.keys.entry(key).or_insert(true);
    }

    /// Revokes a key.
    pub fn revoke(&mut self, key: PublicKey) {
        self.keys.insert(key, false);
    }

    /// Adds the trusted keys of a PEM file.
    pub fn add_file(&mut self, path: &Path) -> Result<(), KeyError> {
        read_file(path)?.into_iter().for_each(|key| self.trust(key));
        Ok(())
    }

    /// Adds the keys installed below `root`; `trusted` leaves the trusted ones out where a remote names its own.
    pub fn load(&mut self, root: &Path, trusted: bool) -> Result<(), KeyError> {
        super::KEY_DIRS.iter().try_for_each(|base| self.add_dir(&root.join(base), trusted))
    }

    /// Adds the keys of one directory; `trusted` as for [`load`](Keyring::load).
    pub fn add_dir(&mut self, dir: &Path, trusted: bool) -> Result<(), KeyError> {
        for (name, revoked) in [("trusted.spki", false), ("revoked.spki", true)] {
            if !revoked && !trusted {
                continue;
            }
            let found = super::key_files(dir, name);
            for path in found.map_err(|(path, error)| KeyError::Read(path, error))? {
                for key in read_file(&path)? {
                    if revoked { self.revoke(key) } else { self.trust(key) }
                }
            }
        }
        Ok(())
    }

    /// The keys that count.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().filter(|(_, trusted)| **trusted).map(|(key, _)| key)
    }

    /// Whether no key counts.
    pub fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    /// A key that counts and signed `message`.
    pub fn verify(&self, message: &[u8], detached: &Dict) -> Option<&PublicKey> {
        let signatures = detached.get(KEY)?.as_bytes_array()?;
        let valid = |key: &&PublicKey| signatures.iter().take(MAX_SIGNATURES).any(|s| key.verifies(message, s));
        self.keys().find(valid)
    }
}

fn read_file(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let file = |why| KeyError::File(path.to_owned(), why);
    let text = std::fs::read_to_string(path).map_err(|e| KeyError::Read(path.to_owned(), e))?;
    let blocks = pem(&text, "PUBLIC KEY").map_err(file)?;
    if blocks.is_empty() && !text.trim().is_empty() {
        return Err(file("no public key in PEM (BEGIN PUBLIC KEY)"));
    }
    let key = |der| PublicKey::from_der(der).map_err(|_| file("a public key of a kind that cannot be checked here"));
    blocks.into_iter().map(key).collect()
}

/// A secret key. Never shown.
pub struct SecretKey(Pair);

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// Reads PEM (`BEGIN PRIVATE KEY`), or base64 of the same DER.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let blocks = pem(text, "PRIVATE KEY").map_err(KeyError::Text)?;
        let der = match blocks.into_iter().next() {
            Some(der) => der,
            None => STANDARD.decode(text.split_whitespace().collect::<String>()).map_err(|_| {
                KeyError::Text(
                    "not a secret key in PKCS#8 (BEGIN PRIVATE KEY); `openssl pkcs8 -topk8 -nocrypt` makes one",
                )
            })?,
        };
        SecretKey::from_der(&der)
    }

    /// A key in DER (PKCS#8).
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(SecretKey(Pair::Ed25519(pair)));
        }
        let random = SystemRandom::new();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, der, &random) {
            return Ok(SecretKey(Pair::P256(Box::new(pair))));
        }
        let rsa = RsaKeyPair::from_pkcs8(der).map(|pair| SecretKey(Pair::Rsa(Box::new(pair))));
        rsa.map_err(|_| {
            KeyError::Text("not a secret key that can sign here (ed25519, ECDSA P-256, RSA of 2048 bits and more)")
        })
    }

    /// Reads a key file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        SecretKey::parse(&std::fs::read_to_string(path).map_err(|e| KeyError::Read(path.to_owned(), e))?)
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Text("the key could not sign");
        let random = SystemRandom::new();
        match &self.0 {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut bytes).map_err(failed)?;
                Ok(bytes)
            }
        }
    }
}

/// Adds a signature to detached metadata; signatures of other keys stay.
pub fn add_signature(detached: &mut Dict, message: &[u8], key: &SecretKey) -> Result<(), KeyError> {
    let signature = key.sign(message)?;
    super::push_signature(detached, KEY, signature);
    Ok(())
}

/// Whether detached metadata holds signatures of this kind at all.
pub fn signed(detached: &Dict) -> bool {
    matches!(detached.get(KEY), Some(Value::BytesArray(signatures)) if !signatures.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sys::Cmd;

    fn openssl(dir: &Path, args: &str) {
        Cmd::new("openssl").args(args.split(' ')).dir(dir).run().unwrap();
    }

    /// Each kind of key, made by openssl: signed here and checked there, signed there and checked here.
    #[test]
    fn openssl_and_we_accept_each_others_signatures() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::fs::write(dir.join("message"), "a commit").unwrap();
        let kinds = [
            ("ed25519", "genpkey -algorithm ed25519 -out k", "-rawin"),
            ("P-256", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out k", "-rawin -digest sha256"),
            ("RSA", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out k", "-rawin -digest sha256"),
        ];
        for (kind, generate, how) in kinds {
            openssl(dir, generate);
            openssl(dir, "pkey -in k -pubout -out k.pub");
            openssl(dir, &format!("pkeyutl -sign -inkey k {how} -in message -out theirs"));
            let mut keyring = Keyring::default();
            keyring.add_file(&dir.join("k.pub")).unwrap();
            let key = keyring.keys().next().unwrap().clone();
            assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
            let theirs = std::fs::read(dir.join("theirs")).unwrap();
            assert!(key.verifies(b"a commit", &theirs), "{kind}");
            assert!(!key.verifies(b"a Commit", &theirs), "{kind}");
            for damaged in [&theirs[1..], &theirs[..theirs.len() - 1], &[], &[0; 64], &[0xff; 256]] {
                assert!(!key.verifies(b"a commit", damaged), "{kind}");
            }

            let ours = SecretKey::load(&dir.join("k")).unwrap();
            std::fs::write(dir.join("ours"), ours.sign(b"a commit").unwrap()).unwrap();
            openssl(dir, &format!("pkeyutl -verify -pubin -inkey k.pub {how} -in message -sigfile ours"));

            let mut detached = Dict::new();
            add_signature(&mut detached, b"a commit", &ours).unwrap();
            assert_eq!(keyring.verify(b"a commit", &detached), Some(&key));
            keyring.revoke(key.clone());
            keyring.trust(key);
            assert_eq!(keyring.verify(b"a commit", &detached), None, "{kind}: revoked is for ever");
        }
        openssl(dir, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out k");
        openssl(dir, "pkey -in k -pubout -out k.pub");
        openssl(dir, "pkeyutl -sign -inkey k -rawin -digest sha256 -in message -out theirs");
        let key = read_file(&dir.join("k.pub")).unwrap().remove(0);
        assert!(key.verifies(b"a commit", &std::fs::read(dir.join("theirs")).unwrap()));
        openssl(dir, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out k");
        openssl(dir, "pkey -in k -pubout -out k.pub");
        assert!(matches!(read_file(&dir.join("k.pub")), Err(KeyError::File(..))));
        assert!(SecretKey::parse("no key").is_err());
    }

    #[test]
    fn installed_keys_are_read_from_both_trees() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc/ostree");
        let usr = root.path().join("usr/share/ostree/trusted.spki.d");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::create_dir_all(&usr).unwrap();
        for name in ["one", "two"] {
            openssl(root.path(), &format!("genpkey -algorithm ed25519 -out {name}"));
            openssl(root.path(), &format!("pkey -in {name} -pubout -out {name}.pem"));
        }
        let pem = |name: &str| std::fs::read_to_string(root.path().join(format!("{name}.pem"))).unwrap();
        std::fs::write(usr.join("both.pem"), pem("one") + &pem("two")).unwrap();
        std::fs::write(etc.join("revoked.spki"), pem("two")).unwrap();
        let mut keyring = Keyring::default();
        keyring.load(root.path(), true).unwrap();
        assert_eq!(keyring.keys().count(), 1);
        let mut revoked = Keyring::default();
        revoked.load(root.path(), false).unwrap();
        assert!(revoked.is_empty());
        std::fs::write(etc.join("trusted.spki"), "-----BEGIN PUBLIC KEY-----\nAAAA\n").unwrap();
        assert!(Keyring::default().load(root.path(), true).is_err(), "an unreadable key is an error");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..44) {
            let _ = parse(&bytes);
            let mut key = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
            key.extend([7; 32]);
            prop_assert!(parse(&key).is_some());
            if let Some(byte) = bytes.first() {
                key[at] = *byte;
            }
            if let Ok(key) = PublicKey::from_der(key) {
                prop_assert!(!key.verifies(b"", &bytes));
            }
        }
    }
}
