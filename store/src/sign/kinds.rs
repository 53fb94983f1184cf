//! Keys of any kind: what signs, and what checks.

use super::trust::Keys;
use super::{Keyring, SecretKey, VerifyError, spki};
use crate::value::Dict;

/// Something that signs, such as a secret key.
pub trait Signs: Sync {
    /// Adds a signature over `message` to those that are there. The error is a sentence.
    fn sign_into(&self, signatures: &mut Dict, message: &[u8]) -> Result<(), String>;
}

/// Something that checks signatures, such as a keyring.
pub trait Verifies: Sync {
    /// Finds a valid signature over `message` by a key that counts.
    fn check(&self, message: &[u8], signatures: &Dict) -> Result<(), VerifyError>;
}

impl Signs for SecretKey {
    fn sign_into(&self, signatures: &mut Dict, message: &[u8]) -> Result<(), String> {
        super::add_signature(signatures, message, self);
        Ok(())
    }
}

impl Signs for spki::SecretKey {
    fn sign_into(&self, signatures: &mut Dict, message: &[u8]) -> Result<(), String> {
        spki::add_signature(signatures, message, self).map_err(|e| e.to_string())
    }
}

impl Verifies for Keyring {
    fn check(&self, message: &[u8], signatures: &Dict) -> Result<(), VerifyError> {
        self.verify(message, signatures).map(drop)
    }
}

impl Verifies for Keys {
    fn check(&self, message: &[u8], signatures: &Dict) -> Result<(), VerifyError> {
        self.verify(message, signatures).map(drop)
    }
}
