//! Keys that change: the way from a version that knows the old one to a version that is signed by the new one.
//!
//! ```text
//! version 1    trusts A       signed by A
//! version 2    trusts A, B    signed by A and B     the stepping stone: 1 accepts it, and it accepts 3
//! version 3    trusts B       signed by B
//! ```

use store::pull::{PullError, Remote, Verified};
use store::sign::{Keyring, VerifyError};
use store::value::Dict;
use store::{Entry, Repo};
use sys::Refused;

use super::session::Session;
use super::upgrade::{label, pull_error};

/// Where a tree keeps the keys that its initramfs knows.
const TRUSTED: &str = "/usr/share/ostree/trusted.ed25519.d";
const REVOKED: &str = "/usr/share/ostree/revoked.ed25519.d";
/// No key file is larger.
const MAX_FILE: u64 = 64 << 10;

/// Tells the way to a machine that has skipped the version in which the keys changed.
pub fn rotated(error: PullError, remote: &Remote<'_>, session: &Session) -> anyhow::Error {
    let PullError::Untrusted { commit, source: VerifyError::Untrusted(_) | VerifyError::Revoked(_), .. } = &error
    else {
        return pull_error(error);
    };
    let booted = &session.machine.booted.commit;
    let Some(stone) = remote.stepping_stone(commit, booted, &session.repo) else { return pull_error(error) };
    let hint = format!(
        "nothing was changed; version {} on the way there is signed by a key that is trusted here and may know the new \
         ones: run `host deploy --reboot {}`, then `host upgrade`",
        label(&stone),
        stone.checksum
    );
    Refused::with_hint(format!("{:#}", anyhow::Error::new(error)), hint).into()
}

/// Refuses a version whose own initramfs would refuse it: none of the keys in its tree signed it.
pub fn would_boot(repo: &Repo, verified: &Verified) -> anyhow::Result<()> {
    if verified.signer.is_none() {
        return Ok(());
    }
    let mut keyring = Keyring::default();
    for (dir, revoked) in [(TRUSTED, false), (REVOKED, true)] {
        for text in files(repo, verified, dir)? {
            for key in text.lines().filter_map(|line| line.trim().parse().ok()) {
                if revoked { keyring.revoke(key) } else { keyring.trust(key) }
            }
        }
    }
    // A tree that was made to run unsigned trusts nobody.
    if keyring.is_empty() && keyring.revoked().next().is_none() {
        return Ok(());
    }
    let empty = Dict::new();
    let detached = verified.detached.as_ref().unwrap_or(&empty);
    match keyring.verify(&verified.commit.bytes, detached) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = format!("version {} would not boot: its own keys do not accept it: {error}", label(verified));
            let hint = "nothing was changed; whoever publishes it has to sign it with a key that its tree trusts";
            Err(Refused::with_hint(why, hint).into())
        }
    }
}

/// The texts of the files in a directory of a tree.
fn files(repo: &Repo, verified: &Verified, dir: &str) -> anyhow::Result<Vec<String>> {
    let Some(Entry::Dir { tree, .. }) = repo.lookup(&verified.checksum, dir)? else { return Ok(Vec::new()) };
    let mut texts = Vec::new();
    for (_, checksum) in &repo.load_dirtree(&tree)?.files {
        let object = repo.open_file(checksum)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(object.content, MAX_FILE), &mut text)?;
        texts.push(text);
    }
    Ok(texts)
}
