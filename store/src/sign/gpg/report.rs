//! What there is to say of each OpenPGP signature of a commit, for people who look at it.
//!
//! Nothing is decided here: what is accepted, `Keyring::verify` says.

use super::keys::{Key, Uid};
use super::{GpgError, KEY, Keyring, MAX_SIGNATURES, good, status};
use crate::value::Dict;

/// What a signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Good, by a key that is there.
    Good,
    /// By a key that is not there.
    KeyMissing,
    /// By a key that was revoked.
    KeyRevoked,
    /// Its time is over.
    Expired,
    /// Of something else, by a key whose time is over, or broken.
    Bad,
}

/// A signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it is.
    pub verdict: Verdict,
    /// The fingerprint of the key that made it, or its last 16 digits where no more is known.
    pub fingerprint: String,
    /// When it was made; 0 where that is not known.
    pub made: u64,
    /// When it ends; 0 is never.
    pub expires: u64,
    /// The kind of the key, where it is known.
    pub algorithm: Option<&'static str>,
    /// The key, where it is there.
    pub key: Option<Key>,
}

impl Report {
    /// The last 16 digits of the fingerprint.
    pub fn key_id(&self) -> &str {
        tail(&self.fingerprint)
    }

    /// The first name of the key.
    pub fn uid(&self) -> Uid {
        self.key.as_ref().and_then(|key| key.uids.first().cloned()).unwrap_or_default()
    }

    /// The fingerprint of the key that the key which signed is below of; its own if it is below none.
    pub fn primary(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.primary.fingerprint.as_str())
    }
}

fn tail(fingerprint: &str) -> &str {
    fingerprint.get(fingerprint.len().saturating_sub(16)..).unwrap_or(fingerprint)
}

impl Keyring {
    /// Every signature of `message`, in the order of the metadata.
    pub fn report(&self, message: &[u8], detached: &Dict) -> Result<Vec<Report>, GpgError> {
        let Some(signatures) = detached.get(KEY).and_then(|value| value.as_bytes_array()) else {
            return Ok(Vec::new());
        };
        let (listed, keys) = (self.list()?, self.handed()?);
        let report = |signature: &Vec<u8>| Ok(read(&status(&keys, signature, message)?.0, &listed));
        signatures.iter().take(MAX_SIGNATURES).map(report).collect()
    }
}

/// What the status of `gpgv` says.
fn read(status: &str, listed: &[Key]) -> Report {
    let mut report =
        Report { verdict: Verdict::Bad, fingerprint: String::new(), made: 0, expires: 0, algorithm: None, key: None };
    for line in status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        match word(0) {
            "VALIDSIG" => {
                word(1).clone_into(&mut report.fingerprint);
                (report.made, report.expires) = (number(word(3)), number(word(4)));
                report.algorithm = algorithm(word(7));
            }
            // Long key ID, kind of key, of digest, class, time, reason, fingerprint.
            "ERRSIG" => {
                let fingerprint = Some(word(7)).filter(|text| text.len() > 16).unwrap_or(word(1));
                fingerprint.clone_into(&mut report.fingerprint);
                (report.made, report.algorithm) = (number(word(5)), algorithm(word(2)));
            }
            "BADSIG" => word(1).clone_into(&mut report.fingerprint),
            "NO_PUBKEY" => report.verdict = Verdict::KeyMissing,
            "REVKEYSIG" => report.verdict = Verdict::KeyRevoked,
            "EXPSIG" => report.verdict = Verdict::Expired,
            _ => {}
        }
    }
    if good(status).is_some() {
        report.verdict = Verdict::Good;
    }
    let digits = report.fingerprint.as_str();
    let made_it = |key: &&Key| !digits.is_empty() && key.all().any(|key| key.fingerprint.ends_with(digits));
    report.key = listed.iter().find(made_it).cloned();
    report
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

/// The kinds of keys that sign, by their numbers in OpenPGP.
fn algorithm(number: &str) -> Option<&'static str> {
    match number {
        "1" => Some("RSA"),
        "3" => Some("RSA-S"),
        "17" => Some("DSA"),
        "19" => Some("ECDSA"),
        "22" => Some("EdDSA"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Report {
        let text: String = lines.iter().map(|line| format!("[GNUPG:] {line}\n")).collect();
        read(&text, &[])
    }

    #[test]
    fn a_status_says_what_a_signature_is() {
        let valid = "VALIDSIG 1E13B9241D477C4A7622B9CEBF88AA20E320B0E5 2026-11-21 17 99 4 0 22 8 00 1E13";
        let one = said(&["GOODSIG BF88AA20E320B0E5 One", valid]);
        assert_eq!((one.verdict, one.key_id(), one.made), (Verdict::Good, "BF88AA20E320B0E5", 17));
        assert_eq!((one.expires, one.algorithm, one.key), (99, Some("EdDSA"), None));
        assert_eq!(said(&["EXPKEYSIG 1 a", valid]).verdict, Verdict::Bad);
        assert_eq!(said(&["REVKEYSIG 1 a", valid]).verdict, Verdict::KeyRevoked);
        assert_eq!(said(&["EXPSIG 1 a", valid]).verdict, Verdict::Expired);
        let missing = said(&["ERRSIG 9753433CE6BF6417 1 10 00 5 9", "NO_PUBKEY 9753433CE6BF6417"]);
        assert_eq!((missing.verdict, missing.key_id(), missing.made), (Verdict::KeyMissing, "9753433CE6BF6417", 5));
        assert_eq!(said(&["BADSIG BF88AA20E320B0E5 One"]).verdict, Verdict::Bad);
        for nonsense in ["", "VALIDSIG", "ERRSIG", "GOODSIG 1 a", "NODATA 4"] {
            assert_eq!(said(&[nonsense]).verdict, Verdict::Bad, "{nonsense:?}");
        }
    }
}
