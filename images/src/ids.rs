//! Identifiers that follow from the commit: the same commit gives the same disk.
//!
//! Every machine made from an image begins with the same ones; the first boot replaces them before anything is activated.

use sha2::{Digest, Sha256};

/// 32 bytes for one purpose.
fn derive(seed: &[u8], purpose: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"slipway image\0");
    hash.update(purpose.as_bytes());
    hash.update([0]);
    hash.update(seed);
    hash.finalize().into()
}

/// A UUID in network order (RFC 9562, version 8: made by a private rule).
pub fn uuid(seed: &[u8], purpose: &str) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&derive(seed, purpose)[..16]);
    uuid[6] = uuid[6] & 0x0F | 0x80;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}

/// A FAT volume serial number.
pub fn serial(seed: &[u8], purpose: &str) -> u32 {
    let bytes = derive(seed, purpose);
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// 32 characters, as LVM2 names volumes.
pub fn lvm(seed: &[u8], purpose: &str) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    derive(seed, purpose).iter().map(|b| char::from(ALPHABET[usize::from(*b) % 62])).collect()
}
