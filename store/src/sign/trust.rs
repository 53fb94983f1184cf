//! What a remote's commits must be signed with.
//!
//! ```text
//! gpg-verify=true               a good OpenPGP signature                             \
//! sign-verify=true              a valid one of any kind of which there are keys       > every rule must hold
//! sign-verify=ed25519;spki      a valid one of each kind                             /
//! ```
//! A rule holds when at least one signature is valid and by a key that is trusted and not revoked.

use super::{PublicKey, VerifyError, gpg, spki};
use crate::value::Dict;

/// The trusted keys of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// libostree's ed25519 keys.
    Ed25519(super::Keyring),
    /// Keys of any kind in PEM.
    Spki(spki::Keyring),
    /// OpenPGP keys.
    Gpg(gpg::Keyring),
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// An ed25519 key.
    Ed25519(PublicKey),
    /// A key in PEM.
    Spki(spki::PublicKey),
    /// The fingerprint of an OpenPGP key.
    Gpg(String),
}

impl Keys {
    /// The kind, as configuration files call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Keys::Ed25519(_) => "ed25519",
            Keys::Spki(_) => "spki",
            Keys::Gpg(_) => "gpg",
        }
    }

    /// Who signed `message`, or why that is not known.
    pub fn verify(&self, message: &[u8], detached: &Dict) -> Result<Signer, VerifyError> {
        match self {
            Keys::Ed25519(keyring) => keyring.verify(message, detached).map(Signer::Ed25519),
            Keys::Spki(keyring) if keyring.is_empty() => Err(VerifyError::NoKeys),
            Keys::Spki(_) if !spki::signed(detached) => Err(VerifyError::Unsigned),
            Keys::Spki(keyring) => match keyring.verify(message, detached) {
                Some(key) => Ok(Signer::Spki(key.clone())),
                None => Err(VerifyError::Untrusted(count(detached, spki::KEY))),
            },
            Keys::Gpg(keyring) if keyring.is_empty() => Err(VerifyError::NoKeys),
            Keys::Gpg(_) if count(detached, gpg::KEY) == 0 => Err(VerifyError::Unsigned),
            Keys::Gpg(keyring) => match keyring.verify(message, detached) {
                Ok(Some(fingerprint)) => Ok(Signer::Gpg(fingerprint)),
                Ok(None) => Err(VerifyError::Untrusted(count(detached, gpg::KEY))),
                Err(error) => Err(VerifyError::Unable(crate::error::chain(&error))),
            },
        }
    }
}

fn count(detached: &Dict, key: &str) -> usize {
    detached.get(key).and_then(|value| value.as_bytes_array()).map_or(0, <[Vec<u8>]>::len)
}

/// Rules that must all hold; each is a choice of kinds of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    rules: Vec<Vec<Keys>>,
}

impl Trust {
    /// One rule with one kind of keys.
    pub fn of(keys: Keys) -> Trust {
        Trust { rules: vec![vec![keys]] }
    }

    /// Adds a rule: a valid signature of any of these kinds.
    pub fn require(&mut self, any_of: Vec<Keys>) {
        self.rules.push(any_of);
    }

    /// Whether nothing is asked for: then everything is accepted.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Who signed `message`: one signer for each rule. Where several kinds would do, the error is that of the kind that
    /// came nearest.
    pub fn verify(&self, message: &[u8], detached: &Dict) -> Result<Vec<Signer>, VerifyError> {
        let mut signers = Vec::new();
        for rule in &self.rules {
            let mut nearest = VerifyError::NoKeys;
            let signer = rule.iter().find_map(|keys| match keys.verify(message, detached) {
                Ok(signer) => Some(signer),
                Err(error) => {
                    if closeness(&error) > closeness(&nearest) {
                        nearest = error;
                    }
                    None
                }
            });
            signers.push(signer.ok_or(nearest)?);
        }
        Ok(signers)
    }
}

fn closeness(error: &VerifyError) -> u8 {
    match error {
        VerifyError::NoKeys => 0,
        VerifyError::Unsigned => 1,
        VerifyError::Malformed => 2,
        VerifyError::Unable(_) => 3,
        VerifyError::Untrusted(_) => 4,
        VerifyError::Revoked(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::{Keyring, SecretKey, add_signature};

    #[test]
    fn every_rule_must_hold_and_one_kind_of_each_is_enough() {
        let (one, two) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let keys = |key: &SecretKey| Keys::Ed25519(Keyring::of([key.public()]));
        let mut detached = Dict::new();
        add_signature(&mut detached, b"commit", &one);
        let mut trust = Trust::default();
        assert!(trust.is_empty());
        trust.require(vec![Keys::Spki(spki::Keyring::default()), keys(&one)]);
        assert_eq!(trust.verify(b"commit", &detached), Ok(vec![Signer::Ed25519(one.public())]));
        assert_eq!(trust.verify(b"other", &detached), Err(VerifyError::Untrusted(1)));
        trust.require(vec![keys(&two)]);
        assert_eq!(trust.verify(b"commit", &detached), Err(VerifyError::Untrusted(1)));
        add_signature(&mut detached, b"commit", &two);
        assert_eq!(trust.verify(b"commit", &detached).unwrap().len(), 2);
        let mut nobody = Trust::default();
        nobody.require(Vec::new());
        assert_eq!(nobody.verify(b"commit", &detached), Err(VerifyError::NoKeys), "a rule nothing can meet");
    }
}
