//! Where the build machine itself gets Debian from: nothing in this repository names a mirror.

use std::fs;
use std::path::Path;

use super::PackagesError;
use super::deb822;

/// The two archives of Debian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// The archive.
    pub main: String,
    /// The security archive.
    pub security: String,
}

/// One entry of apt's sources.
#[derive(Debug, Default)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
}

/// `given` wins: the archive, then optionally the security archive (default: the archive's address with `-security`).
/// Else the Debian entries of apt's configuration in `etc` (`/etc/apt`).
pub fn find(etc: &Path, given: &[String]) -> Result<Mirrors, PackagesError> {
    if let Some(main) = given.first() {
        let main = main.trim_end_matches('/').to_owned();
        let security = given.get(1).map(|s| s.trim_end_matches('/').to_owned());
        return Ok(Mirrors { security: security.unwrap_or_else(|| format!("{main}-security")), main });
    }
    let (mut main, mut security) = (None, None);
    for entry in entries(etc) {
        if !entry.is_debian() {
            continue;
        }
        let is_security = entry.suites.iter().any(|s| s.ends_with("-security") || s.ends_with("/updates"));
        let place = if is_security { &mut security } else { &mut main };
        if place.is_none() {
            *place = entry.uris.iter().find_map(|uri| real_address(uri));
        }
    }
    let main = main.ok_or(PackagesError::NoMirror)?;
    let security = security.unwrap_or_else(|| format!("{main}-security"));
    Ok(Mirrors { main, security })
}

impl Entry {
    /// Debian's own archive, not another one that is made for a Debian suite.
    fn is_debian(&self) -> bool {
        const SUITES: [&str; 12] = [
            "stable",
            "oldstable",
            "oldoldstable",
            "testing",
            "unstable",
            "sid",
            "bullseye",
            "bookworm",
            "trixie",
            "forky",
            "duke",
            "experimental",
        ];
        const SUFFIXES: [&str; 5] = ["-updates", "-security", "/updates", "-proposed-updates", "-backports"];
        let suite = |suite: &String| {
            let base = SUFFIXES.iter().find_map(|s| suite.strip_suffix(s)).unwrap_or(suite);
            SUITES.contains(&base)
        };
        let address = |uri: &String| {
            matches!(uri.trim_end_matches('/').rsplit('/').next(), Some("debian" | "debian-security" | "debian.list"))
                || uri.ends_with("/debian-security.list")
        };
        self.components.iter().any(|c| c == "main")
            && self.suites.iter().any(suite)
            && (self.uris.iter().any(address) || self.signed_by.contains("debian-archive"))
    }
}

/// The address that both apt and our fetcher understand: a `mirror+file:` list stands for its first line.
fn real_address(uri: &str) -> Option<String> {
    let trimmed = |uri: &str| Some(uri.trim_end_matches('/').to_owned());
    if let Some(list) = uri.strip_prefix("mirror+file:") {
        let text = fs::read_to_string(list).ok()?;
        let first = text.lines().map(str::trim).find(|l| l.starts_with("http"))?;
        return trimmed(first.split_whitespace().next()?);
    }
    if ["http://", "https://", "file:/"].iter().any(|s| uri.starts_with(s)) { trimmed(uri) } else { None }
}

/// Every enabled binary entry: `sources.list`, then the parts in name order, as apt reads them.
/// What cannot be read is passed over: another entry may do, and if none does the error says how to go on.
fn entries(etc: &Path) -> Vec<Entry> {
    let mut parts: Vec<_> =
        fs::read_dir(etc.join("sources.list.d")).into_iter().flatten().flatten().map(|e| e.path()).collect();
    parts.sort();
    let mut found = Vec::new();
    for path in std::iter::once(etc.join("sources.list")).chain(parts) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        match path.extension().and_then(|e| e.to_str()) {
            Some("list") => found.extend(text.lines().filter_map(one_line)),
            Some("sources") => found.extend(deb822::stanzas(&text).iter().filter_map(stanza)),
            _ => {}
        }
    }
    found
}

/// `deb [signed-by=… arch=…] URI SUITE COMPONENT…`
fn one_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut entry = Entry::default();
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        for option in options.split_whitespace() {
            if let Some(key) = option.strip_prefix("signed-by=") {
                key.clone_into(&mut entry.signed_by);
            }
        }
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    entry.uris.push(words.next()?);
    entry.suites.push(words.next()?);
    entry.components = words.collect();
    Some(entry)
}

fn stanza(stanza: &deb822::Stanza) -> Option<Entry> {
    let words = |key: &str| -> Vec<String> {
        stanza.get(key).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let off = matches!(stanza.get("Enabled"), Some("no" | "false"));
    if off || !words("Types").iter().any(|t| t == "deb") {
        return None;
    }
    Some(Entry {
        uris: words("URIs"),
        suites: words("Suites"),
        components: words("Components"),
        signed_by: stanza.get("Signed-By").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etc(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn one_line_entries() {
        let etc = etc(&[(
            "sources.list",
            "# deb http://no/debian trixie main\ndeb-src http://no/debian trixie main\n\
             deb [arch=amd64 signed-by=/k] http://m/debian/ bookworm main contrib\ndeb http://s/debian-security bookworm-security main\n",
        )]);
        let found = find(etc.path(), &[]).unwrap();
        assert_eq!((found.main.as_str(), found.security.as_str()), ("http://m/debian", "http://s/debian-security"));
    }

    #[test]
    fn deb822_entries_and_other_archives() {
        let etc = etc(&[
            (
                "sources.list.d/a-vendor.list",
                "deb https://vendor/linux/debian bookworm stable\ndeb https://v/debian/12/prod bookworm main\n",
            ),
            (
                "sources.list.d/debian.sources",
                "Types: deb deb-src\nURIs: http://m/debian\nSuites: trixie trixie-updates\nComponents: main\n\n\
              Types: deb\nEnabled: no\nURIs: http://off/debian-security\nSuites: trixie-security\nComponents: main\n",
            ),
        ]);
        let found = find(etc.path(), &[]).unwrap();
        assert_eq!((found.main.as_str(), found.security.as_str()), ("http://m/debian", "http://m/debian-security"));
    }

    #[test]
    fn a_list_of_mirrors_stands_for_its_first() {
        let etc = etc(&[]);
        let list = etc.path().join("debian.list");
        fs::write(&list, "# mirrors\nhttps://first/debian\nhttps://second/debian\n").unwrap();
        let text = format!("Types: deb\nURIs: mirror+file:{}\nSuites: bookworm\nComponents: main\n", list.display());
        fs::write(etc.path().join("sources.list.d/d.sources"), text).unwrap();
        assert_eq!(find(etc.path(), &[]).unwrap().main, "https://first/debian");
    }

    #[test]
    fn an_address_that_is_given_wins() {
        let etc = etc(&[("sources.list", "deb http://m/debian trixie main\n")]);
        let given =
            |list: &[&str]| find(etc.path(), &list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap();
        assert_eq!(given(&["http://x/debian/"]).security, "http://x/debian-security");
        assert_eq!(given(&["http://x/debian", "http://y/s"]).security, "http://y/s");
    }

    #[test]
    fn no_debian_entry_says_what_to_do() {
        let etc = etc(&[("sources.list", "deb http://archive/ubuntu noble main\n")]);
        assert!(find(etc.path(), &[]).unwrap_err().to_string().contains("--mirror"));
    }
}
