//! From credentials to what is to be done: pure.

use std::collections::BTreeMap;
use std::fmt;

use super::{Credential, Entry, Source};

/// A value that no message, log or plan shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let these keys log in as root.
    RootKeys(Vec<String>),
    /// Set root's password hash.
    RootPassword(Secret),
    /// Set the host's name.
    Hostname(String),
    /// Write a file below `/etc`.
    File {
        /// Its path, relative to `/`.
        path: String,
        /// Its content.
        content: Secret,
        /// Its mode.
        mode: u32,
    },
    /// Run these lines through systemd-tmpfiles.
    Tmpfiles(Secret),
    /// Write a unit below `/etc`; enable and start it if it says where it belongs.
    Unit {
        /// Its name.
        name: String,
        /// Its content.
        content: Secret,
    },
    /// Nothing: systemd itself applies it, at each boot on which it is given.
    Systemd,
    /// Write where updates come from.
    Remote {
        /// The URL.
        url: Option<String>,
        /// The ref.
        reference: Option<String>,
    },
}

/// Everything a first boot does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is done, each with the credential it comes from.
    pub actions: Vec<(Entry, Action)>,
    /// What is not done, and why.
    pub ignored: Vec<Entry>,
}

impl Plan {
    /// The credentials that are applied.
    pub fn applied(&self) -> Vec<Entry> {
        self.actions.iter().map(|(entry, _)| entry.clone()).collect()
    }
}

/// Decides what each credential means.
pub fn plan(credentials: &BTreeMap<String, Credential>) -> Plan {
    let mut plan = Plan::default();
    for (name, credential) in credentials {
        let entry = |what: String| Entry { name: name.clone(), source: credential.source, what };
        match action(name, credential) {
            Some(Ok((what, action))) => plan.actions.push((entry(what), action)),
            Some(Err(why)) => plan.ignored.push(entry(why)),
            // PID 1 has many credentials for others; a file on our ESP is meant for us.
            None if credential.source == Source::Esp => {
                plan.ignored.push(entry("no credential of this name is known; see `host firstboot --help`".to_owned()));
            }
            None => {}
        }
    }
    plan
}

type Meaning = Result<(String, Action), String>;

fn action(name: &str, credential: &Credential) -> Option<Meaning> {
    let text = || {
        let text = String::from_utf8(credential.value.clone()).map_err(|_| "it is not UTF-8".to_owned())?;
        if text.contains('\0') { Err("it contains a zero byte".to_owned()) } else { Ok(text) }
    };
    let from_esp = credential.source == Source::Esp;
    Some(match name {
        "ssh.authorized_keys.root" => text().and_then(|t| root_keys(&t)),
        "passwd.hashed-password.root" => text().and_then(|t| root_password(&t)),
        "firstboot.hostname" | "system.hostname" => text().and_then(|t| hostname(&t)),
        "slipway.remote-url" => text().and_then(|t| remote_url(&t)),
        "slipway.remote-ref" => text().and_then(|t| remote_ref(&t)),
        "tmpfiles.extra" if !from_esp => by_systemd(),
        "tmpfiles.extra" => text().map(|t| ("lines for systemd-tmpfiles".to_owned(), Action::Tmpfiles(Secret(t)))),
        _ => {
            let (prefix, rest) = ["network.network.", "network.netdev.", "network.link.", "systemd.extra-unit."]
                .into_iter()
                .chain(["systemd.unit-dropin."])
                .find_map(|prefix| name.strip_prefix(prefix).map(|rest| (prefix, rest)))?;
            let kind = prefix.split('.').nth(1).unwrap_or_default();
            match kind {
                "network" | "netdev" | "link" => text().and_then(|t| network(kind, rest, t)),
                _ if !from_esp => by_systemd(),
                "extra-unit" => text().and_then(|t| unit(rest, t)),
                _ => text().and_then(|t| drop_in(rest, t)),
            }
        }
    })
}

/// What PID 1 was given itself is systemd's to apply; the record says so, for whoever looks for the file's origin.
fn by_systemd() -> Meaning {
    Ok(("systemd applies it at each boot".to_owned(), Action::Systemd))
}

fn root_keys(text: &str) -> Meaning {
    let keys: Vec<String> =
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect();
    match keys.iter().position(|k| k.split_whitespace().count() < 2 || k.chars().any(char::is_control)) {
        _ if keys.is_empty() => Err("it has no key".to_owned()),
        Some(line) => Err(format!("key {} is not of the form `TYPE BASE64 COMMENT`", line + 1)),
        None if keys.len() == 1 => Ok(("1 key may log in as root".to_owned(), Action::RootKeys(keys))),
        None => Ok((format!("{} keys may log in as root", keys.len()), Action::RootKeys(keys))),
    }
}

fn root_password(text: &str) -> Meaning {
    let hash = text.trim_end_matches(['\r', '\n']);
    let hashed = hash.starts_with('$') && hash.matches('$').count() >= 3 && hash.len() < 512;
    if !hashed || !hash.chars().all(|c| c.is_ascii_graphic() && c != ':' && c != '!' && c != '*') {
        return Err("it is not a hash as crypt(5) describes; make one with `openssl passwd -6`".to_owned());
    }
    Ok(("root has this password".to_owned(), Action::RootPassword(Secret(hash.to_owned()))))
}

fn hostname(text: &str) -> Meaning {
    let name = text.trim();
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if name.len() > 64 || !name.split('.').all(label) {
        return Err("it is not a host name".to_owned());
    }
    Ok((format!("the host's name is {name}"), Action::Hostname(name.to_owned())))
}

fn remote_url(text: &str) -> Meaning {
    let url = text.trim();
    let plain = !url.contains(|c: char| c.is_whitespace() || c.is_control());
    if !plain || !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err("it is not an http:// or https:// URL".to_owned());
    }
    // A URL may carry a password: the record and the journal do not repeat it.
    Ok(("updates come from another URL".to_owned(), Action::Remote { url: Some(url.to_owned()), reference: None }))
}

fn remote_ref(text: &str) -> Meaning {
    let name = text.trim();
    let part = |p: &str| {
        !p.is_empty() && !p.starts_with('.') && p.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    if !name.split('/').all(part) {
        return Err("it is not the name of a ref".to_owned());
    }
    Ok((format!("updates follow {name}"), Action::Remote { url: None, reference: Some(name.to_owned()) }))
}

fn network(kind: &str, name: &str, content: String) -> Meaning {
    if !is_file_name(name) {
        return Err("its name is not one for a file".to_owned());
    }
    let path = format!("etc/systemd/network/{name}.{kind}");
    // A .netdev may hold keys; systemd-networkd reads it as a member of the group.
    let mode = if kind == "netdev" { 0o640 } else { 0o644 };
    Ok((format!("written to /{path}"), Action::File { path, content: Secret(content), mode }))
}

fn unit(name: &str, content: String) -> Meaning {
    if !is_unit_name(name) {
        return Err("it does not name a unit".to_owned());
    }
    let what = format!("written to /etc/systemd/system/{name}");
    Ok((what, Action::Unit { name: name.to_owned(), content: Secret(content) }))
}

fn drop_in(name: &str, content: String) -> Meaning {
    // systemd allows `UNIT~NAME`.
    let (unit, file) = name.split_once('~').unwrap_or((name, "50-credential"));
    if !is_unit_name(unit) || !is_file_name(file) {
        return Err("it does not name a unit".to_owned());
    }
    let path = format!("etc/systemd/system/{unit}.d/{}.conf", file.trim_end_matches(".conf"));
    Ok((format!("written to /{path}"), Action::File { path, content: Secret(content), mode: 0o644 }))
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-@:".contains(c))
}

fn is_unit_name(name: &str) -> bool {
    let kinds = ["service", "socket", "target", "timer", "path", "mount", "slice"];
    let escaped = name.replace('\\', "_");
    is_file_name(&escaped) && name.rsplit_once('.').is_some_and(|(_, kind)| kinds.contains(&kind))
}
