//! Whether a machine would trust a commit. The keys are those of its own tree, which its initramfs carries.

use std::io::Read;

use store::sign::{Keyring, PublicKey, VerifyError};
use store::{Checksum, Entry, Repo};

use crate::Error;

/// A key file is a few lines.
const KEY_FILE_MAX: u64 = 1 << 20;

/// Who signed a commit, by the keys in its tree.
pub(crate) fn signer(repo: &Repo, commit: &Checksum) -> Result<Result<PublicKey, VerifyError>, Error> {
    let keyring = keyring(repo, commit)?;
    let bytes = repo.load_commit(commit)?.bytes;
    let detached = repo.load_detached(commit)?.unwrap_or_default();
    Ok(keyring.verify(&bytes, &detached))
}

fn keyring(repo: &Repo, commit: &Checksum) -> Result<Keyring, Error> {
    let mut keyring = Keyring::default();
    for base in ["usr/share/ostree", "usr/etc/ostree"] {
        for key in keys(repo, commit, &format!("{base}/trusted.ed25519"))? {
            keyring.trust(key);
        }
        for key in keys(repo, commit, &format!("{base}/revoked.ed25519"))? {
            keyring.revoke(key);
        }
    }
    Ok(keyring)
}

/// The keys in the file `name` and in the directory `name.d`.
fn keys(repo: &Repo, commit: &Checksum, name: &str) -> Result<Vec<PublicKey>, Error> {
    let mut files = Vec::new();
    if let Some(Entry::File { checksum }) = repo.lookup(commit, name)? {
        files.push((name.to_owned(), checksum));
    }
    let dir = format!("{name}.d");
    if let Some(Entry::Dir { tree, .. }) = repo.lookup(commit, &dir)? {
        files.extend(repo.load_dirtree(&tree)?.files.into_iter().map(|(file, sum)| (format!("{dir}/{file}"), sum)));
    }
    let mut keys = Vec::new();
    for (path, checksum) in files {
        let mut text = String::new();
        let content = repo.open_file(&checksum)?.content;
        content
            .take(KEY_FILE_MAX)
            .read_to_string(&mut text)
            .map_err(|source| Error::Read { what: path.clone(), source })?;
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let key = line.parse().map_err(|_| Error::Key { path: path.clone(), line: index + 1 })?;
            keys.push(key);
        }
    }
    Ok(keys)
}
