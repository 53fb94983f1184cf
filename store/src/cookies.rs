//! The cookies of a remote, in the format of Netscape's `cookies.txt`.
//!
//! ```text
//! REPO/REMOTE.cookies.txt     one cookie a line, seven fields between tabs
//!   DOMAIN  FLAG  PATH  SECURE  EXPIRY  NAME  VALUE
//!   FLAG    TRUE: hosts below DOMAIN count as well
//!   SECURE  TRUE: over https (or to this machine itself) only
//!   EXPIRY  seconds since 1970; 0: no end
//!   #HttpOnly_DOMAIN is a cookie too, any other # begins a comment
//! ```
//! A request carries the cookies whose domain, path, security and expiry fit: the longest path first, as browsers and
//! libostree do. What servers set is not kept, and a redirect to another address carries none.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::{Error, Repo};

/// A jar is written by hand or by scripts: it holds a few cookies.
const MAX_JAR: u64 = 1 << 20;
/// Servers refuse headers that are longer.
const MAX_HEADER: usize = 8190;
const MAX_SENT: usize = 150;
const HTTP_ONLY: &str = "#HttpOnly_";

/// One cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The host it is for, without a dot before it.
    pub domain: String,
    /// Whether hosts below that one count.
    pub below: bool,
    /// It is for this path and those below.
    pub path: String,
    /// Whether it needs a connection that nobody can listen to.
    pub secure: bool,
    /// Seconds since 1970; 0 for one without an end.
    pub expires: u64,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A line as `list-cookies` shows it: fields between any white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The host, as it stands there.
    pub domain: &'a str,
    /// The path.
    pub path: &'a str,
    /// `TRUE` or `FALSE`.
    pub secure: &'a str,
    /// Seconds since 1970.
    pub expires: u64,
    /// The name.
    pub name: &'a str,
    /// The value, to the first white space.
    pub value: &'a str,
}

impl<'a> Listed<'a> {
    /// Reads a line; `None` if it is none with a cookie.
    pub fn parse(line: &'a str) -> Option<Listed<'a>> {
        let mut fields = line.split_ascii_whitespace();
        let mut next = || fields.next();
        let (domain, _flag, path, secure) = (next()?, next()?, next()?, next()?);
        let expires = next()?.parse().ok()?;
        Some(Listed { domain, path, secure, expires, name: next()?, value: next()? })
    }
}

/// The cookies of a remote.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Jar {
    cookies: Vec<Cookie>,
}

impl std::fmt::Debug for Jar {
    /// Cookies are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jar({})", self.cookies.len())
    }
}

impl Cookie {
    /// Reads a line.
    fn parse(line: &str) -> Option<Cookie> {
        let line = line.strip_prefix(HTTP_ONLY).unwrap_or(line);
        if line.starts_with('#') {
            return None;
        }
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        let (domain, flag, path, secure) = (next()?, next()?, next()?, next()?);
        let (expires, name, value) = (next()?.parse().ok()?, next()?, next().unwrap_or_default());
        let domain = domain.strip_prefix('.').unwrap_or(domain);
        if domain.is_empty() || name.is_empty() || !sendable(name) || !sendable(value) {
            return None;
        }
        Some(Cookie {
            domain: domain.to_ascii_lowercase(),
            below: flag.eq_ignore_ascii_case("true"),
            path: if path.starts_with('/') { path } else { "/" }.to_owned(),
            secure: secure.eq_ignore_ascii_case("true"),
            expires,
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }

    fn fits(&self, to: &Target<'_>, now: u64) -> bool {
        let host = to.host.as_str();
        // A number is not below another one.
        let below = || {
            let rest = host.strip_suffix(&self.domain).filter(|_| self.below);
            rest.is_some_and(|rest| rest.ends_with('.')) && to.host.parse::<std::net::IpAddr>().is_err()
        };
        let path = to.path.strip_prefix(&self.path);
        (host == self.domain || below())
            && path.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/'))
            && (!self.secure || to.secure)
            && (self.expires == 0 || self.expires > now)
    }
}

/// Whether text can stand in a header of a request.
fn sendable(text: &str) -> bool {
    !text.chars().any(|letter| letter.is_control() || letter == ';')
}

/// Where a request goes.
struct Target<'a> {
    host: String,
    path: &'a str,
    secure: bool,
}

impl<'a> Target<'a> {
    fn of(url: &'a str) -> Option<Target<'a>> {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split(['?', '#']).next().filter(|path| !path.is_empty()).unwrap_or("/");
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = match host.strip_prefix('[') {
            Some(host) => host.split_once(']')?.0,
            None => host.split(':').next().unwrap_or(host),
        };
        let host = host.to_ascii_lowercase();
        let itself = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
        Some(Target { secure: itself || scheme.eq_ignore_ascii_case("https"), host, path })
    }
}

impl Jar {
    /// Reads a jar. Lines that are no cookies are passed over; of two for the same place the last counts.
    pub fn parse(text: &str) -> Jar {
        let mut jar = Jar::default();
        for cookie in text.lines().filter_map(Cookie::parse) {
            let same = |old: &&mut Cookie| {
                (&old.domain, old.below, &old.path, &old.name)
                    == (&cookie.domain, cookie.below, &cookie.path, &cookie.name)
            };
            match jar.cookies.iter_mut().find(same) {
                Some(old) => *old = cookie,
                None => jar.cookies.push(cookie),
            }
        }
        let lengths = |cookie: &Cookie| (cookie.path.len(), cookie.domain.len(), cookie.name.len());
        jar.cookies.sort_by_key(|cookie| std::cmp::Reverse(lengths(cookie)));
        jar
    }

    /// The cookies, in the order in which they are sent.
    pub fn cookies(&self) -> &[Cookie] {
        &self.cookies
    }

    /// The header `Cookie` of a request, if there is something for it.
    pub fn header(&self, url: &str, now: u64) -> Option<String> {
        if self.cookies.is_empty() {
            return None;
        }
        let to = Target::of(url)?;
        let mut text = String::new();
        for cookie in self.cookies.iter().filter(|cookie| cookie.fits(&to, now)).take(MAX_SENT) {
            if text.len() + cookie.name.len() + cookie.value.len() + 3 > MAX_HEADER {
                break;
            }
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&cookie.name);
            text.push('=');
            text.push_str(&cookie.value);
        }
        (!text.is_empty()).then_some(text)
    }
}

fn path_of(repo: &Repo, remote: &str) -> Result<PathBuf, Error> {
    if remote.is_empty() || remote.contains(['/', '\0']) {
        return Err(Error::invalid(format!("{remote:?} cannot be the name of a remote")));
    }
    Ok(repo.path().join(format!("{remote}.cookies.txt")))
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |e| Error::io(format!("reading {}", path.display()), e);
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        meta if meta.as_ref().is_ok_and(|meta| meta.len() > MAX_JAR) => {
            let path = path.display();
            return Err(Error::invalid(format!("{path} is larger than {MAX_JAR} bytes: no jar of cookies is")));
        }
        meta => meta.map_err(failed)?,
    };
    let bytes = fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| Error::invalid(format!("{} is not text", path.display())))
}

impl Repo {
    /// The jar of a remote as text; empty where there is none.
    pub fn cookies_text(&self, remote: &str) -> Result<String, Error> {
        read(&path_of(self, remote)?)
    }

    /// The cookies that requests to a remote carry.
    pub fn cookies(&self, remote: &str) -> Result<Jar, Error> {
        Ok(Jar::parse(&self.cookies_text(remote)?))
    }

    /// Adds a cookie behind those that are there. A dot before the domain includes the hosts below it.
    pub fn add_cookie(
        &self,
        remote: &str,
        domain: &str,
        path: &str,
        (name, value): (&str, &str),
        expires: u64,
    ) -> Result<(), Error> {
        let file = path_of(self, remote)?;
        for (what, text) in [("domain", domain), ("path", path), ("name", name), ("value", value)] {
            if !sendable(text) {
                return Err(Error::invalid(format!("the {what} of a cookie has no tabs, line ends or semicolons")));
            }
        }
        let flag = if domain.starts_with('.') { "TRUE" } else { "FALSE" };
        let line = format!("{domain}\t{flag}\t{path}\tFALSE\t{expires}\t{name}\t{value}\n");
        let failed = |e| Error::io(format!("writing {}", file.display()), e);
        let mut options = fs::OpenOptions::new();
        let mut jar = options.append(true).create(true).mode(0o644).open(&file).map_err(failed)?;
        jar.write_all(line.as_bytes()).map_err(failed)
    }

    /// Removes the cookies of this name there. Tells whether there was one; if not, nothing is written.
    pub fn delete_cookie(&self, remote: &str, domain: &str, path: &str, name: &str) -> Result<bool, Error> {
        let file = path_of(self, remote)?;
        let text = read(&file)?;
        let is_it =
            |line: &str| Listed::parse(line).is_some_and(|it| (it.domain, it.path, it.name) == (domain, path, name));
        let (gone, kept): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| is_it(line));
        if gone.is_empty() {
            return Ok(false);
        }
        let kept: String = kept.iter().flat_map(|line| [*line, "\n"]).collect();
        let written = sys::file::replace(&file, kept.as_bytes(), 0o600);
        written.map_err(|e| Error::io(format!("writing {}", file.display()), e))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn line(domain: &str, flag: &str, path: &str, secure: &str, expires: u64, name: &str) -> String {
        format!("{domain}\t{flag}\t{path}\t{secure}\t{expires}\t{name}\tv\n")
    }

    /// Whether a request to `url` carries the one cookie.
    fn sent(line: &str, url: &str) -> bool {
        Jar::parse(line).header(url, NOW).is_some()
    }

    #[test]
    fn a_cookie_goes_where_its_domain_path_and_expiry_say() {
        let host = line("Host.example", "FALSE", "/repo", "FALSE", 0, "n");
        for (url, wanted) in [
            ("http://host.example/repo", true),
            ("http://HOST.example:8080/repo/config?x", true),
            ("http://name:password@host.example/repo/config", true),
            ("http://host.example/repository", false),
            ("http://host.example/", false),
            ("http://host.example", false),
            ("http://sub.host.example/repo", false),
            ("http://host.example.org/repo", false),
            ("http://other.example/repo", false),
            ("http://other.example/@host.example/repo", false),
            ("no address", false),
        ] {
            assert_eq!(sent(&host, url), wanted, "{url}");
        }
        let below = line(".host.example", "TRUE", "/", "FALSE", 0, "n");
        assert!(sent(&below, "http://host.example") && sent(&below, "https://a.b.host.example/x?y"));
        assert!(!sent(&below, "http://badhost.example/"));
        // Numbers have no hosts below them.
        assert!(!sent(&line(".0.0.1", "TRUE", "/", "FALSE", 0, "n"), "http://127.0.0.1/"));
        assert!(sent(&line("::1", "FALSE", "/", "FALSE", 0, "n"), "http://[::1]:80/"));
        let secure = line("host.example", "FALSE", "/", "TRUE", 0, "n");
        assert!(sent(&secure, "https://host.example/") && !sent(&secure, "http://host.example/"));
        assert!(sent(&line("127.0.0.1", "FALSE", "/", "TRUE", 0, "n"), "http://127.0.0.1:1/"));
        assert!(sent(&line("host.example", "FALSE", "/", "FALSE", NOW + 1, "n"), "http://host.example/"));
        assert!(!sent(&line("host.example", "FALSE", "/", "FALSE", NOW, "n"), "http://host.example/"));
    }

    #[test]
    fn the_header_is_in_the_order_of_browsers() {
        let jar = [
            "# a comment\n\nhost\tFALSE\t/\tFALSE\t0\ta\t1\n",
            "host\tFALSE\t/repo/\tFALSE\t0\tb\t2\nhost\tFALSE\t/\tFALSE\t0\ta\t3\n",
            "#HttpOnly_host\tFALSE\t/\tFALSE\t0\tlonger\tx y\nhost\tFALSE\t/\tFALSE\tnever\tc\t4\n",
            "host\tFALSE\t/\tFALSE\t0\te\n",
        ];
        let jar = Jar::parse(&jar.concat());
        assert_eq!(jar.header("http://host/repo/x", NOW).unwrap(), "b=2; longer=x y; a=3; e=");
        assert_eq!(format!("{jar:?}"), "Jar(4)");
    }

    #[test]
    fn header_that_smuggles_another_is_not_sent() {
        for name in ["n\r\nX: y", "n\0", "n;m=1"] {
            let text = format!("host\tFALSE\t/\tFALSE\t0\t{name}\tv");
            let header = Jar::parse(&text).header("http://host/", NOW);
            assert!(header.is_none_or(|header| !header.contains(['\r', '\n', '\0', ';'])), "{name:?}");
        }
        let many: String =
            (0..1000).map(|n| format!("host\tFALSE\t/\tFALSE\t0\tn{n}\t{}\n", "x".repeat(100))).collect();
        assert!(Jar::parse(&many).header("http://host/", NOW).unwrap().len() <= MAX_HEADER);
    }

    #[test]
    fn cookies_are_added_and_removed_and_other_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap();
        let file = repo.path().join("r.cookies.txt");
        assert!(!repo.delete_cookie("r", "host", "/", "n").unwrap() && !file.exists());
        fs::write(&file, "# mine\n").unwrap();
        repo.add_cookie("r", ".host", "/", ("n", "v w"), 7).unwrap();
        repo.add_cookie("r", "host", "/", ("m", "v"), 7).unwrap();
        let both = "# mine\n.host\tTRUE\t/\tFALSE\t7\tn\tv w\nhost\tFALSE\t/\tFALSE\t7\tm\tv\n";
        assert_eq!(repo.cookies_text("r").unwrap(), both);
        assert_eq!(Listed::parse(both.lines().nth(1).unwrap()).unwrap().value, "v");
        assert!(!repo.delete_cookie("r", "host", "/", "n").unwrap());
        assert!(repo.delete_cookie("r", ".host", "/", "n").unwrap());
        assert_eq!(repo.cookies_text("r").unwrap(), "# mine\nhost\tFALSE\t/\tFALSE\t7\tm\tv\n");
        for bad in ["", "../x", "a/b"] {
            assert!(repo.add_cookie(bad, "host", "/", ("n", "v"), 7).is_err(), "{bad:?}");
        }
        for bad in ["a\tb", "a\nb", "a;b"] {
            assert!(repo.add_cookie("r", "host", "/", ("n", bad), 7).is_err(), "{bad:?}");
        }
        fs::write(&file, vec![b'x'; MAX_JAR as usize + 1]).unwrap();
        assert!(repo.cookies("r").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_jar_and_any_address_is_asked_for(text in "(\\PC|[\t\n#.]){0,200}", url in "\\PC{0,60}") {
            if let Some(header) = Jar::parse(&text).header(&url, NOW) {
                prop_assert!(!header.chars().any(char::is_control));
            }
            prop_assert!(text.lines().filter_map(Listed::parse).all(|listed| !listed.name.is_empty()));
        }
    }
}
