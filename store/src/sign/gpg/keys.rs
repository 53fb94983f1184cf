//! Keys as GnuPG lists them (`gpg --show-keys --with-colons`): fields by number, records that belong to the one before.
//!
//! ```text
//! pub:VALIDITY:BITS:ALGORITHM:KEYID:CREATED:EXPIRES:…     a key; fpr: its fingerprint, in field 10
//! uid:VALIDITY:…:…:…:CREATED:…:HASH::USER-ID:…            a name of it, with \xNN for colons and control characters
//! sub:…                                                   a key below it; fpr: that one's fingerprint
//! ```
//! VALIDITY begins with r for what is revoked, e for what has expired.

use sys::{Cmd, CmdError};

use super::{GpgError, Keyring};

/// A key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// Its fingerprint, times and state.
    pub primary: Subkey,
    /// Its names, the first one first.
    pub uids: Vec<Uid>,
    /// The keys below it.
    pub subkeys: Vec<Subkey>,
}

/// A key, or one below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subkey {
    /// 40 hexadecimal digits or more, in capitals.
    pub fingerprint: String,
    /// When it was made.
    pub created: u64,
    /// When it ends; 0 is never.
    pub expires: u64,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Whether its time is over.
    pub expired: bool,
}

/// A name of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uid {
    /// The whole of it: `Name (comment) <mail@host>`.
    pub text: String,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl Uid {
    /// The name in it.
    pub fn name(&self) -> &str {
        if self.mail() == self.text {
            return "";
        }
        self.text.split(['(', '<']).next().unwrap_or_default().trim()
    }

    /// The address in it; empty where there is none.
    pub fn mail(&self) -> &str {
        let inside = self.text.rsplit_once('<').and_then(|(_, mail)| mail.split_once('>')).map(|(mail, _)| mail);
        let bare = Some(self.text.as_str()).filter(|text| text.contains('@') && !text.contains([' ', '<', '(']));
        inside.or(bare).unwrap_or_default()
    }
}

impl Key {
    /// Whether somebody who names a key means this one: by its fingerprint or the end of it, by a mail address in angle
    /// brackets, or by a part of one of its names.
    pub fn is_called(&self, name: &str) -> bool {
        let digits = name.strip_prefix("0x").unwrap_or(name).to_ascii_uppercase();
        if digits.len() >= 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return self.all().any(|key| key.fingerprint.ends_with(&digits));
        }
        let wanted = name.to_lowercase();
        match wanted.strip_prefix('<').and_then(|mail| mail.strip_suffix('>')) {
            Some(mail) => self.uids.iter().any(|uid| uid.mail().to_lowercase() == mail),
            None => !wanted.is_empty() && self.uids.iter().any(|uid| uid.text.to_lowercase().contains(&wanted)),
        }
    }

    /// The key and those below it.
    pub fn all(&self) -> impl Iterator<Item = &Subkey> {
        std::iter::once(&self.primary).chain(&self.subkeys)
    }
}

impl Keyring {
    /// The keys, in the order of the files.
    pub fn list(&self) -> Result<Vec<Key>, GpgError> {
        list(&self.keys.concat())
    }
}

/// The keys in these packets.
pub(super) fn list(packets: &[u8]) -> Result<Vec<Key>, GpgError> {
    if packets.is_empty() {
        return Ok(Vec::new());
    }
    // It insists on a directory of its own, and writes to it.
    let home = tempfile::tempdir().map_err(GpgError::io("making a directory for gpg".to_owned()))?;
    let command = Cmd::new("gpg").args(["--batch", "--quiet", "--no-options", "--homedir"]).arg(home.path());
    let output = command.args(["--with-colons", "--show-keys"]).env("LC_ALL", "C.UTF-8").stdin(packets).run();
    let output = output.map_err(|error| match error {
        source @ CmdError::Start { .. } => GpgError::NotInstalled { program: "gpg", source },
        error => GpgError::List(error),
    })?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(text: &str) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        let number = |at: usize| field(at).parse().unwrap_or_default();
        let (revoked, expired) = (field(1).starts_with('r'), field(1).starts_with('e'));
        let subkey = || Subkey { created: number(5), expires: number(6), revoked, expired, ..Subkey::default() };
        if field(0) == "pub" {
            keys.push(Key { primary: subkey(), ..Key::default() });
        }
        let Some(key) = keys.last_mut() else { continue };
        match field(0) {
            "sub" => key.subkeys.push(subkey()),
            "uid" => key.uids.push(Uid { text: unescape(field(9)), revoked }),
            "fpr" => field(9).clone_into(&mut key.subkeys.last_mut().unwrap_or(&mut key.primary).fingerprint),
            _ => {}
        }
    }
    keys
}

/// Undoes `\xNN`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "pub:-:255:22:7DA9D2EEF74111CD:1795285720:::-:::cESC:::::ed25519:::0:
fpr:::::::::2123816A10D61AC2E0E4A80C7DA9D2EEF74111CD:
uid:-::::1795285720::19::Sub Key (a\\x3ab) <Sub@example.org>::::::::::0:
uid:r::::1795285720::58::Plain Name::::::::::0:
sub:-:255:22:4182AFC73EF74EBF:1795285720:1858357720:::::s:::::ed25519::
fpr:::::::::395EBC3654510997894E472E4182AFC73EF74EBF:
pub:e:255:22:20516919496FD764:1577836800:1577923200::-:::sc:::::ed25519:::0:
fpr:::::::::FAD44225E7D2773D18F5D88A20516919496FD764:
uid:e::::1577836800::54::old@example.org::::::::::0:
";

    #[test]
    fn what_gnupg_lists_is_read_and_keys_are_found_by_name() {
        let keys = parse(LISTED);
        assert_eq!((keys.len(), keys[0].uids.len(), keys[0].subkeys.len()), (2, 2, 1));
        assert_eq!(keys[0].subkeys[0].expires, 1_858_357_720);
        assert_eq!(keys[0].uids[0].text, "Sub Key (a:b) <Sub@example.org>");
        assert_eq!((keys[0].uids[0].name(), keys[0].uids[0].mail()), ("Sub Key", "Sub@example.org"));
        assert_eq!((keys[0].uids[1].name(), keys[0].uids[1].mail()), ("Plain Name", ""));
        assert_eq!((keys[1].uids[0].name(), keys[1].uids[0].mail()), ("", "old@example.org"));
        assert!(keys[0].uids[1].revoked && keys[1].primary.expired);
        for name in ["4182AFC73EF74EBF", "0xf74111cd", "<sub@EXAMPLE.org>", "sub key", "plain"] {
            assert!(keys[0].is_called(name) && !keys[1].is_called(name), "{name}");
        }
        for name in ["", "<example.org>", "nobody", "00000000"] {
            assert!(!keys[0].is_called(name), "{name}");
        }
    }

    #[test]
    fn nonsense_lists_nothing() {
        for text in ["", "fpr:::::::::AB", "uid", "::::", "pub"] {
            assert!(parse(text).iter().all(|key| key.uids.is_empty()), "{text}");
        }
        assert_eq!(unescape("a\\xzz\\x4"), "a\\xzz\\x4");
        assert_eq!(list(b"").unwrap(), []);
        assert!(list(b"no keys").is_err());
    }
}
