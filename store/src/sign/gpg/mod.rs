//! OpenPGP signatures, as remotes of the stock tools use them. Checking and signing is GnuPG's work: `gpgv`, `gpg`.
//!
//! ```text
//! commitmeta, summary.sig       "ostree.gpgsigs": aay of detached signatures, binary
//! REPO/REMOTE.trustedkeys.gpg   the keys of one remote: OpenPGP packets, one key after the other
//! /usr/share/ostree/trusted.gpg.d/*     the keys for remotes that have none of their own ($OSTREE_GPG_HOME: elsewhere)
//! ```
//! A signature counts when `gpgv` calls it good: valid, by a key in these files that is neither expired nor revoked.

mod keys;
mod report;

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sys::{Cmd, CmdError};

use super::MAX_SIGNATURES;
use crate::value::Dict;

pub use keys::{Key, Subkey, Uid};
pub use report::{Report, Verdict};

/// The key of detached metadata that holds signatures.
pub const KEY: &str = "ostree.gpgsigs";

/// Why signatures could not be made or checked.
#[derive(Debug, thiserror::Error)]
pub enum GpgError {
    /// A file of keys cannot be read or written.
    #[error("{what}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of keys holds none.
    #[error("{0} holds no OpenPGP keys: export them with `gpg --export`")]
    NoKeys(String),
    /// None of the keys is the one that was named.
    #[error("there is no OpenPGP key {0:?} among those that were given")]
    NoSuchKey(String),
    /// GnuPG cannot read keys.
    #[error("listing OpenPGP keys")]
    List(#[source] CmdError),
    /// GnuPG is not there.
    #[error("{program} is needed for OpenPGP signatures and cannot be run; the package {program} has it")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// The cause.
        #[source]
        source: CmdError,
    },
    /// GnuPG did not do it.
    #[error("signing with the OpenPGP key {0:?}")]
    Sign(String, #[source] CmdError),
}

impl GpgError {
    fn io(what: String) -> impl FnOnce(io::Error) -> GpgError {
        |source| GpgError::Io { what, source }
    }
}

/// The files whose keys are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    /// OpenPGP packets, not armored.
    keys: Vec<Vec<u8>>,
}

/// Bytes that a child process reads under a name.
struct Handed {
    fd: OwnedFd,
}

impl Handed {
    /// Without the flag that would close it in the child.
    fn new(bytes: &[u8]) -> Result<Handed, GpgError> {
        let give = || {
            let fd = rustix::fs::memfd_create("slipway", rustix::fs::MemfdFlags::empty())?;
            let mut file = fs::File::from(fd);
            file.write_all(bytes)?;
            Ok(Handed { fd: file.into() })
        };
        give().map_err(GpgError::io("handing bytes to gpgv".to_owned()))
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

impl Keyring {
    /// Keys in memory, armored or not.
    pub fn of(bytes: &[u8]) -> Result<Self, GpgError> {
        let mut keyring = Keyring::default();
        keyring.add(bytes, "what was given")?;
        Ok(keyring)
    }

    fn add(&mut self, bytes: &[u8], name: &str) -> Result<(), GpgError> {
        let packets = dearmor(bytes).ok_or_else(|| GpgError::NoKeys(name.to_owned()))?;
        if count_keys(&packets) == Some(0) || packets.is_empty() {
            return Err(GpgError::NoKeys(name.to_owned()));
        }
        self.keys.push(packets);
        Ok(())
    }

    /// Adds the keys of a file, or of the files of a directory.
    pub fn add_path(&mut self, path: &Path) -> Result<(), GpgError> {
        let reading = || format!("reading {}", path.display());
        if !path.is_dir() {
            let bytes = fs::read(path).map_err(GpgError::io(reading()))?;
            return self.add(&bytes, &path.display().to_string());
        }
        for entry in fs::read_dir(path).map_err(GpgError::io(reading()))? {
            let path = entry.map_err(GpgError::io(reading()))?.path();
            if path.extension().is_some_and(|extension| extension == "gpg" || extension == "asc") {
                self.add_path(&path)?;
            }
        }
        Ok(())
    }

    /// The keys of a remote: its own file, else those that are installed for all below `root`; and `more`.
    pub fn of_remote(repo: &Path, remote: &str, root: &Path, more: &[PathBuf]) -> Result<Self, GpgError> {
        let mut keyring = Keyring::default();
        let own = trusted_keys(repo, remote);
        if own.exists() {
            keyring.add_path(&own)?;
        } else if more.is_empty() {
            keyring = Keyring::of_all(root)?;
        }
        more.iter().try_for_each(|path| keyring.add_path(path))?;
        Ok(keyring)
    }

    /// The keys that are installed for all remotes below `root`, or where `$OSTREE_GPG_HOME` says.
    pub fn of_all(root: &Path) -> Result<Self, GpgError> {
        let mut keyring = Keyring::default();
        let named = std::env::var_os("OSTREE_GPG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let dir = named.unwrap_or_else(|| root.join("usr/share/ostree/trusted.gpg.d"));
        if dir.is_dir() {
            keyring.add_path(&dir)?;
        }
        Ok(keyring)
    }

    /// The keys of another keyring as well.
    pub fn add_all(&mut self, other: Keyring) {
        self.keys.extend(other.keys);
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The fingerprint of a key that signed `message`. No signature, or none that is good, is `None`.
    pub fn verify(&self, message: &[u8], detached: &Dict) -> Result<Option<String>, GpgError> {
        let Some(signatures) = detached.get(KEY).and_then(|value| value.as_bytes_array()) else { return Ok(None) };
        let keys = self.handed()?;
        for signature in signatures.iter().take(MAX_SIGNATURES) {
            let (status, code) = status(&keys, signature, message)?;
            if let Some(fingerprint) = good(&status).filter(|_| code == 0) {
                return Ok(Some(fingerprint));
            }
        }
        Ok(None)
    }

    fn handed(&self) -> Result<Vec<Handed>, GpgError> {
        self.keys.iter().map(|bytes| Handed::new(bytes)).collect()
    }
}

/// What `gpgv` says of a signature, for programs to read, and its exit code: not 0 for every signature that is not good.
fn status(keys: &[Handed], signature: &[u8], message: &[u8]) -> Result<(String, i32), GpgError> {
    let signature = Handed::new(signature)?;
    let mut command = Cmd::new("gpgv").args(["--status-fd", "1"]);
    for key in keys {
        command = command.arg("--keyring").arg(key.path());
    }
    let command = command.args([signature.path(), "-".to_owned()]).stdin(message);
    let output = command.output().map_err(|source| GpgError::NotInstalled { program: "gpgv", source })?;
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), output.code))
}

/// The fingerprint, where GnuPG's status says that the signature is good and nothing else.
fn good(status: &str) -> Option<String> {
    let words = |line: &str| line.strip_prefix("[GNUPG:] ").map(str::to_owned);
    let lines: Vec<String> = status.lines().filter_map(words).collect();
    let bad = ["BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA"];
    if lines.iter().any(|line| bad.iter().any(|word| line.starts_with(word))) {
        return None;
    }
    lines.iter().find(|line| line.starts_with("GOODSIG "))?;
    let valid = lines.iter().find_map(|line| line.strip_prefix("VALIDSIG "))?;
    valid.split(' ').next().map(str::to_owned)
}

/// The keys of one remote.
pub fn trusted_keys(repo: &Path, remote: &str) -> PathBuf {
    repo.join(format!("{remote}.trustedkeys.gpg"))
}

/// Adds the keys of files to those of a remote, all or those that are named (as `gpg` names keys); returns how many were new.
pub fn import(repo: &Path, remote: &str, files: &[&[u8]], only: &[String]) -> Result<usize, GpgError> {
    let path = trusted_keys(repo, remote);
    let name = || "what was given".to_owned();
    let packets = files.iter().map(|file| dearmor(file).ok_or_else(|| GpgError::NoKeys(name())));
    let packets = packets.collect::<Result<Vec<_>, _>>()?.concat();
    let mut new = split_keys(&packets).ok_or_else(|| GpgError::NoKeys(name()))?;
    if new.is_empty() {
        return Err(GpgError::NoKeys(name()));
    }
    if !only.is_empty() {
        let mut chosen = Vec::new();
        let listed = new.iter().map(|bytes| keys::list(bytes)).collect::<Result<Vec<_>, _>>()?;
        for key in only {
            let at = listed.iter().position(|listed| listed.iter().any(|listed| listed.is_called(key)));
            chosen.push(new[at.ok_or_else(|| GpgError::NoSuchKey(key.clone()))?]);
        }
        new = chosen;
    }
    let mut all = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes.map_err(GpgError::io(format!("reading {}", path.display())))?,
    };
    let known: Vec<Vec<u8>> = split_keys(&all).unwrap_or_default().into_iter().map(<[u8]>::to_vec).collect();
    let new: Vec<&[u8]> = new.into_iter().filter(|key| !known.iter().any(|known| known == key)).collect();
    new.iter().for_each(|key| all.extend_from_slice(key));
    sys::file::replace(&path, &all, 0o644).map_err(GpgError::io(format!("writing {}", path.display())))?;
    Ok(new.len())
}

/// Undoes ASCII armor (several blocks, too). Bytes that are not text are taken as they are.
fn dearmor(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN PGP ") => text,
        _ => return (!bytes.is_empty() && bytes[0] & 0x80 != 0).then(|| bytes.to_vec()),
    };
    let mut packets = Vec::new();
    let mut block: Option<String> = None;
    let mut headers = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN PGP ") {
            (block, headers) = (Some(String::new()), true);
        } else if line.starts_with("-----END PGP ") {
            packets.extend(STANDARD.decode(block.take()?).ok()?);
        } else if let Some(base64) = &mut block {
            // Headers end with an empty line; the checksum line begins with a sign that base64 only ends with.
            if headers {
                headers = !line.is_empty();
            } else if !line.starts_with('=') {
                base64.push_str(line);
            }
        }
    }
    block.is_none().then_some(packets)
}

/// Tag and length of each packet, headers included. `None` where the bytes are not packets of known lengths.
fn packets(mut bytes: &[u8]) -> Option<Vec<(u8, usize)>> {
    let mut all = Vec::new();
    while let Some(&first) = bytes.first() {
        let byte = |at: usize| bytes.get(at).map(|byte| usize::from(*byte));
        let big = |at: usize, count: usize| {
            Some(bytes.get(at..at + count)?.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)))
        };
        let (tag, head, length): (u8, usize, usize) = match first {
            0xc0.. => match byte(1)? {
                length @ 0..192 => (first & 0x3f, 2, length),
                high @ 192..224 => (first & 0x3f, 3, ((high - 192) << 8) + byte(2)? + 192),
                255 => (first & 0x3f, 6, big(2, 4)?),
                _ => return None,
            },
            0x80.. => match first & 3 {
                0 => ((first >> 2) & 0xf, 2, byte(1)?),
                1 => ((first >> 2) & 0xf, 3, big(1, 2)?),
                2 => ((first >> 2) & 0xf, 5, big(1, 4)?),
                _ => return None,
            },
            _ => return None,
        };
        bytes = bytes.get(head.checked_add(length)?..)?;
        all.push((tag, head + length));
    }
    Some(all)
}

/// A public key, and what belongs to it, begins with a packet of this kind.
const PUBLIC_KEY: u8 = 6;

fn count_keys(bytes: &[u8]) -> Option<usize> {
    Some(packets(bytes)?.iter().filter(|(tag, _)| *tag == PUBLIC_KEY).count())
}

/// Key after key.
fn split_keys(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut starts = Vec::new();
    let mut at = 0;
    for (tag, length) in packets(bytes)? {
        if tag == PUBLIC_KEY {
            starts.push(at);
        }
        at += length;
    }
    starts.push(at);
    Some(starts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect())
}

/// Signs with a key of the user's GnuPG, or of the one in `home`.
pub fn sign(message: &[u8], key: &str, home: Option<&Path>) -> Result<Vec<u8>, GpgError> {
    let mut command = Cmd::new("gpg").args(["--batch", "--no-tty", "--quiet"]);
    if let Some(home) = home {
        command = command.arg("--homedir").arg(home);
    }
    let command = command.args(["--detach-sign", "--local-user", key, "--output", "-"]).stdin(message);
    match command.run() {
        Ok(output) => Ok(output.stdout),
        Err(source @ CmdError::Start { .. }) => Err(GpgError::NotInstalled { program: "gpg", source }),
        Err(source) => Err(GpgError::Sign(key.to_owned(), source)),
    }
}

/// Adds a signature to detached metadata; signatures of other keys stay.
pub fn add_signature(detached: &mut Dict, message: &[u8], key: &str, home: Option<&Path>) -> Result<(), GpgError> {
    super::push_signature(detached, KEY, sign(message, key, home)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A GnuPG of its own with one key, and that key exported.
    fn home(name: &str) -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let gpg = |args: &[&str]| {
            Cmd::new("gpg").args(["--batch", "--homedir"]).arg(dir.path()).args(args).run().unwrap().stdout
        };
        gpg(&["--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never"]);
        let key = gpg(&["--armor", "--export", name]);
        (dir, key)
    }

    #[test]
    fn good_signatures_by_trusted_keys_count_and_no_others() {
        let (dir, key) = home("one@example.org");
        let (other_dir, other) = home("two@example.org");
        let mut detached = Dict::new();
        add_signature(&mut detached, b"commit", "one@example.org", Some(dir.path())).unwrap();
        let keyring = Keyring::of(&key).unwrap();
        assert!(keyring.verify(b"commit", &detached).unwrap().is_some());
        assert_eq!(keyring.verify(b"Commit", &detached).unwrap(), None);
        assert_eq!(Keyring::of(&other).unwrap().verify(b"commit", &detached).unwrap(), None);
        assert_eq!(keyring.verify(b"commit", &Dict::new()).unwrap(), None);
        add_signature(&mut detached, b"commit", "two@example.org", Some(other_dir.path())).unwrap();
        assert!(Keyring::of(&other).unwrap().verify(b"commit", &detached).unwrap().is_some(), "the second of two");
        assert!(matches!(sign(b"", "nobody@example.org", Some(dir.path())), Err(GpgError::Sign(..))));

        let repo = tempfile::tempdir().unwrap();
        assert_eq!(import(repo.path(), "r", &[&key], &[]).unwrap(), 1);
        assert_eq!(import(repo.path(), "r", &[&key], &[]).unwrap(), 0, "known");
        assert_eq!(import(repo.path(), "r", &[&other], &["two@EXAMPLE.org".to_owned()]).unwrap(), 1);
        let of_remote = Keyring::of_remote(repo.path(), "r", repo.path(), &[]).unwrap();
        assert!(of_remote.verify(b"commit", &detached).unwrap().is_some());
        assert!(Keyring::of_remote(repo.path(), "s", repo.path(), &[]).unwrap().is_empty());
        assert!(import(repo.path(), "r", &[b"no key"], &[]).is_err());
    }

    #[test]
    fn what_gnupg_says_of_a_revoked_or_expired_key_is_a_no() {
        let valid = "[GNUPG:] GOODSIG 1 a\n[GNUPG:] VALIDSIG ABCD 2020\n";
        assert_eq!(good(valid).as_deref(), Some("ABCD"));
        for word in ["REVKEYSIG 1 a", "EXPKEYSIG 1 a", "EXPSIG 1 a", "BADSIG 1 a", "ERRSIG 1 a"] {
            assert_eq!(good(&format!("[GNUPG:] {word}\n{valid}")), None, "{word}");
        }
        assert_eq!(good("[GNUPG:] VALIDSIG ABCD 2020\n"), None);
        assert_eq!(good("GOODSIG 1\nVALIDSIG ABCD\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_packets_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(found) = packets(&bytes) {
                prop_assert_eq!(found.iter().map(|(_, length)| length).sum::<usize>(), bytes.len());
            }
            let _ = (dearmor(&bytes), split_keys(&bytes));
        }
    }
}
