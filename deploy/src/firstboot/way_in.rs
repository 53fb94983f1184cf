//! Can anybody log in to this machine?

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// agetty shows what lies here above its prompt.
pub const ISSUE: &str = "run/issue.d/60-slipway-no-way-in.issue";

/// How somebody can enter the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WayIn {
    /// Accounts with a key.
    pub keys: Vec<String>,
    /// Accounts with a password.
    pub passwords: Vec<String>,
}

impl WayIn {
    /// Nobody can.
    pub fn is_none(&self) -> bool {
        self.keys.is_empty() && self.passwords.is_empty()
    }
}

/// Looks at every account that has a shell.
pub fn look(root: &Path) -> WayIn {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (passwd, shadow) = (read("etc/passwd"), read("etc/shadow"));
    let mut way_in = WayIn::default();
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, _, _, _, home, shell] = fields.as_slice() else { continue };
        if shell.ends_with("/nologin") || shell.ends_with("/false") || shell.is_empty() && name != "root" {
            continue;
        }
        let hash = shadow.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.split(':').next());
        // `!`, `*` and an empty field let nobody in: PAM refuses empty passwords.
        if hash.is_some_and(|h| h.starts_with('$')) {
            way_in.passwords.push(name.to_owned());
        }
        // Homes are links into /var, which an absolute link cannot show below another root.
        let home = match home.trim_start_matches('/') {
            "root" => "var/roothome".to_owned(),
            home => home.strip_prefix("home/").map_or_else(|| home.to_owned(), |rest| format!("var/home/{rest}")),
        };
        let has_keys = |file: &str| {
            let text = read(&format!("{home}/.ssh/{file}"));
            text.lines().any(|l| !l.trim().is_empty() && !l.trim().starts_with('#'))
        };
        if has_keys("authorized_keys") || has_keys("authorized_keys2") {
            way_in.keys.push(name.to_owned());
        }
    }
    way_in
}

/// Says on the console that nobody can log in, or stops saying it.
pub fn announce(root: &Path, way_in: &WayIn) -> io::Result<()> {
    let path = root.join(ISSUE);
    if !way_in.is_none() {
        return sys::file::remove(&path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let text = "Nobody can log in to this machine: no account has an SSH key or a password.\n\
        Give it the credential ssh.authorized_keys.root or passwd.hashed-password.root on its first boot:\n\
        as an SMBIOS string (io.systemd.credential:NAME=VALUE), or with `slipway image --credential NAME=FILE`.\n\n";
    fs::write(path, text)
}
