//! An ed25519 key pair for each machine, in OpenSSH's file formats.
//!
//! ```text
//! "openssh-key-v1\0" str "none" str "none" str "" u32 1 str PUBLIC str PRIVATE
//! PUBLIC  = str "ssh-ed25519" str key
//! PRIVATE = u32 check, u32 check, str "ssh-ed25519" str key str (secret ‖ key) str comment, padding 1 2 3 … to 8
//! ```
//! (PROTOCOL.key in OpenSSH's sources.)

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::SigningKey;

use crate::error::{Error, Result, io};

const KIND: &[u8] = b"ssh-ed25519";

/// Writes `path` (the private key, mode 0600) and `path`.pub; returns the public line.
pub(crate) fn write_new(path: &Path, comment: &str) -> Result<String> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| Error::Config(format!("no random numbers: {e}")))?;
    let (private, public) = render(&SigningKey::from_bytes(&secret), comment);
    sys::file::replace(path, private.as_bytes(), 0o600).map_err(io("writing", path))?;
    let beside = path.with_extension("pub");
    sys::file::replace(&beside, public.as_bytes(), 0o644).map_err(io("writing", &beside))?;
    Ok(public)
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn render(key: &SigningKey, comment: &str) -> (String, String) {
    let public_key = key.verifying_key();
    let mut public = Vec::new();
    string(&mut public, KIND);
    string(&mut public, public_key.as_bytes());

    let mut private = Vec::new();
    // The two check words only have to be equal: nothing is encrypted.
    private.extend_from_slice(&[0; 8]);
    string(&mut private, KIND);
    string(&mut private, public_key.as_bytes());
    string(&mut private, &key.to_keypair_bytes());
    string(&mut private, comment.as_bytes());
    for pad in 1..=(8 - private.len() % 8) % 8 {
        private.push(pad as u8);
    }

    let mut blob = b"openssh-key-v1\0".to_vec();
    for word in [&b"none"[..], b"none", b""] {
        string(&mut blob, word);
    }
    blob.extend_from_slice(&1u32.to_be_bytes());
    string(&mut blob, &public);
    string(&mut blob, &private);

    let mut text = "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned();
    for line in BASE64.encode(blob).as_bytes().chunks(70) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    (text, format!("ssh-ed25519 {} {comment}\n", BASE64.encode(public)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_derives_the_same_public_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for comment in ["slipway", "a", "ab", "abcdefgh"] {
            let public = write_new(&path, comment).unwrap();
            let derived = sys::Cmd::new("ssh-keygen").args(["-y", "-f"]).arg(&path).run().unwrap();
            assert_eq!(derived.text(), public.trim_end());
        }
    }
}
