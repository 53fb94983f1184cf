//! Metalinks (3.0): a small XML file says what the summary is and where it lies, and with it the whole repository.
//!
//! ```text
//! <metalink> <files> <file name="summary">
//!   <size>1234</size>
//!   <verification> <hash type="sha256">…</hash> <hash type="sha512">…</hash> </verification>
//!   <resources> <url protocol="https" preference="100">https://host/repo/summary</url> … </resources>
//! ```
//! The first address, by preference, whose summary has that size and that hash is taken; the repository is the directory
//! in which the summary lies. Sizes and numbers are bounded; `markup` reads the XML.

use sha2::{Digest as _, Sha256, Sha512};

use super::client::Client;
use super::markup::{Event, Markup};
use super::{PullError, Transport};
use crate::summary::MAX_SUMMARY;
use crate::value::Malformed;

/// What an address begins with that names a metalink.
pub const METALINK: &str = "metalink=";
/// A metalink names one file and some dozens of mirrors.
const MAX_METALINK: u64 = 1 << 20;
const MAX_URLS: usize = 256;
const FILE: &str = "summary";

/// What a metalink says of the summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Metalink {
    size: u64,
    sha256: Option<String>,
    sha512: Option<String>,
    /// Where it lies, the best address first.
    urls: Vec<String>,
}

/// A repository that was found.
pub(super) struct Found {
    /// Its address.
    pub base: String,
    /// Its summary, as the metalink says it is.
    pub summary: Vec<u8>,
}

/// Fetches a metalink, and the summary that it describes.
pub(super) fn fetch(client: &Client, url: &str) -> Result<Found, PullError> {
    let what = || "the metalink".to_owned();
    let failed = |source| PullError::Fetch { what: what(), from: url.to_owned(), source };
    let bytes = client.small(url, MAX_METALINK).and_then(|found| found.ok_or(Transport::NotFound)).map_err(failed)?;
    let malformed = |why| PullError::Malformed { what: what(), from: url.to_owned(), source: Malformed(why) };
    let metalink = Metalink::parse(&bytes).map_err(malformed)?;
    let mut last = None;
    for url in &metalink.urls {
        let summary = match client.small(url, metalink.size) {
            Ok(Some(summary)) => summary,
            Ok(None) => {
                last = Some((url, Transport::NotFound));
                continue;
            }
            Err(error) => {
                last = Some((url, error));
                continue;
            }
        };
        match (metalink.check(&summary), base(url)) {
            (Ok(()), Some(base)) => return Ok(Found { base: base.to_owned(), summary }),
            (Err(why), _) => last = Some((url, Transport::Client(why))),
            (_, None) => last = Some((url, Transport::Client("the summary lies in no directory".to_owned()))),
        }
    }
    let what =
        format!("the summary that the metalink {url} describes, from the last of {} places", metalink.urls.len());
    let (from, source) = last.map_or((url.to_owned(), Transport::NotFound), |(url, error)| (url.clone(), error));
    Err(PullError::Fetch { what, from, source })
}

/// The directory of a file behind an address.
fn base(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next()?;
    let start = path.find("://")? + 3;
    let slash = path[start..].rfind('/')?;
    let base = path[..start + slash].trim_end_matches('/');
    (base.len() > start).then_some(base)
}

impl Metalink {
    /// Reads the file; the error says what is wrong with it.
    fn parse(bytes: &[u8]) -> Result<Metalink, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut found = Reading::default();
        let mut markup = Markup::new(text);
        while let Some(event) = markup.next()? {
            match event {
                Event::Start(attributes) => found.start(markup.open(), &attributes)?,
                Event::Text(text) => found.text.push_str(&text),
                Event::End(name) => found.end(markup.open(), name)?,
            }
        }
        found.finish()
    }

    /// Compares a file with what is said of it.
    fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 != self.size {
            return Err(format!("it has {} bytes, not the {} that the metalink says", bytes.len(), self.size));
        }
        let (wanted, actual) = match (&self.sha512, &self.sha256) {
            (Some(wanted), _) => (wanted, hex::encode(Sha512::digest(bytes))),
            (None, Some(wanted)) => (wanted, hex::encode(Sha256::digest(bytes))),
            (None, None) => return Err("the metalink has no hash".to_owned()),
        };
        if *wanted == actual { Ok(()) } else { Err(format!("its hash is {actual}, not {wanted}")) }
    }
}

/// A metalink that is being read.
#[derive(Default)]
struct Reading {
    /// Text of the innermost element.
    text: String,
    any_file: bool,
    /// Whether the element `file` that counts is open, or behind us.
    state: FileState,
    size: Option<u64>,
    hash: Option<String>,
    hashes: Vec<(String, String)>,
    preference: Option<i64>,
    urls: Vec<(i64, String)>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum FileState {
    #[default]
    Wanted,
    Open,
    Done,
}

impl Reading {
    fn start(&mut self, open: &[&str], attributes: &[(&str, String)]) -> Result<(), String> {
        let get = |name: &str| attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        self.text.clear();
        match open {
            ["metalink", "files", "file"] => {
                self.any_file = true;
                let name = get("name").ok_or("an element file has no name")?;
                if self.state == FileState::Wanted && name == FILE {
                    self.state = FileState::Open;
                }
            }
            ["metalink", "files", "file", "verification", "hash"] => {
                self.hash = Some(get("type").ok_or("an element hash has no type")?.to_owned());
            }
            ["metalink", "files", "file", "resources", "url"] => {
                let http = matches!(get("protocol"), Some("http" | "https"));
                let preference = get("preference").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
                self.preference = http.then_some(preference);
            }
            _ => {}
        }
        Ok(())
    }

    /// `open` holds what is still open, without the element that ends.
    fn end(&mut self, open: &[&str], name: &str) -> Result<(), String> {
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        if matches!((open, name), (["metalink", "files"], "file")) && self.state == FileState::Open {
            self.state = FileState::Done;
        }
        if self.state != FileState::Open {
            return Ok(());
        }
        match (open, name) {
            (["metalink", "files", "file"], "size") => {
                let size = text.parse().map_err(|_| format!("the size {text:?} is not a number"))?;
                self.size = Some(size);
            }
            (["metalink", "files", "file", "verification"], "hash") => {
                if let Some(kind) = self.hash.take().filter(|kind| matches!(kind.as_str(), "sha256" | "sha512")) {
                    self.hashes.push((kind, text.to_owned()));
                }
            }
            (["metalink", "files", "file", "resources"], "url") => {
                let http = text.starts_with("http://") || text.starts_with("https://");
                let Some(preference) = self.preference.take().filter(|_| http) else { return Ok(()) };
                if self.urls.len() == MAX_URLS {
                    return Err(format!("it names more than {MAX_URLS} addresses"));
                }
                self.urls.push((preference, text.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Metalink, String> {
        if !self.any_file {
            return Err("it has no element file".to_owned());
        }
        if self.state == FileState::Wanted {
            return Err(format!("it names no file {FILE:?}"));
        }
        let size = self.size.filter(|size| *size > 0).ok_or("it has no element size, or it is zero")?;
        if size > MAX_SUMMARY {
            return Err(format!("the summary has {size} bytes, more than the {MAX_SUMMARY} that are taken"));
        }
        let hash = |kind: &str, length: usize| {
            let Some((_, text)) = self.hashes.iter().rev().find(|(found, _)| found == kind) else { return Ok(None) };
            let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            match text.len() == length && text.bytes().all(digits) {
                true => Ok(Some(text.clone())),
                false => Err(format!("its hash of the type {kind} is not {length} digits")),
            }
        };
        let (sha256, sha512) = (hash("sha256", 64)?, hash("sha512", 128)?);
        if sha256.is_none() && sha512.is_none() {
            return Err("it has no hash of the type sha256 or sha512".to_owned());
        }
        if self.urls.is_empty() {
            return Err("it names no address that begins with http:// or https://".to_owned());
        }
        self.urls.sort_by_key(|(preference, _)| std::cmp::Reverse(*preference));
        let urls = self.urls.into_iter().map(|(_, url)| url).collect();
        Ok(Metalink { size, sha256, sha512, urls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// A metalink with these parts of the element `file`.
    fn of(size: &str, hashes: &str, urls: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<!-- made by hand -->\n<metalink version='3.0' xmlns=\"http://x/\">\n<files>\
             <file name='other'><size>1</size></file>\n<file name=\"summary\">{size}\
             <verification>{hashes}</verification>\n<resources>{urls}</resources></file></files></metalink>\n"
        )
    }

    fn good() -> String {
        let url = |preference: u32, host: &str| {
            format!("<url protocol='https' type='https' location='AQ' preference='{preference}'>https://{host}</url>\n")
        };
        let hash = format!("<hash type='md5'>00</hash><hash type='sha256'>{HASH}</hash>");
        let ftp = "<url protocol='ftp' type='ftp' location='AQ' preference='200'>ftp://c/r/summary</url>";
        of("<size>5</size>", &hash, &format!("{}{ftp}{}", url(9, "a/r/summary"), url(100, "b/r/summary")))
    }

    #[test]
    fn a_metalink_is_read_and_the_best_address_comes_first() {
        let found = Metalink::parse(good().as_bytes()).unwrap();
        let urls = ["https://b/r/summary", "https://a/r/summary"].map(str::to_owned).to_vec();
        assert_eq!(found, Metalink { size: 5, sha256: Some(HASH.to_owned()), sha512: None, urls });
    }

    #[test]
    fn the_summary_must_have_the_size_and_the_strongest_hash() {
        let digest = |text: &str| (hex::encode(Sha256::digest(text)), hex::encode(Sha512::digest(text)));
        let (sha256, sha512) = digest("hello");
        let metalink = Metalink { size: 5, sha256: Some(sha256), sha512: None, urls: Vec::new() };
        assert!(metalink.check(b"hello").is_ok());
        assert!(metalink.check(b"hellO").is_err() && metalink.check(b"hello ").is_err());
        let strong = Metalink { sha512: Some(sha512), sha256: Some(digest("other").0), ..metalink };
        assert!(strong.check(b"hello").is_ok());
        assert!(Metalink { sha512: None, ..strong }.check(b"hello").is_err());
    }

    #[test]
    fn the_repository_is_the_directory_of_the_summary() {
        assert_eq!(base("http://host:80/a/repo/summary?x=/y"), Some("http://host:80/a/repo"));
        assert_eq!(base("http://host/summary"), Some("http://host"));
        for bad in ["http://summary", "summary", "http:///summary"] {
            assert_eq!(base(bad), None, "{bad}");
        }
    }

    /// The attack, a metalink, and what the refusal says.
    #[test]
    fn hostile_metalinks_are_refused() {
        let change = |from: &str, to: &str| good().replace(from, to);
        let entity = "<!DOCTYPE m [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><metalink><files>&b;</files></metalink>";
        let many = "<url protocol='http' preference='1'>http://h/summary</url>".repeat(MAX_URLS + 1);
        for (attack, text, wanted) in [
            ("entities-that-expand", entity.to_owned(), "entity"),
            ("entity-of-a-file", change("https://a", "&xxe;"), "entity"),
            ("nested-for-ever", "<a>".repeat(100_000), "deep"),
            ("attributes-for-ever", format!("<metalink {}>", "a='' ".repeat(100_000)), "attributes"),
            (
                "mirrors-for-ever",
                of("<size>5</size>", &format!("<hash type='sha256'>{HASH}</hash>"), &many),
                "more than",
            ),
            ("size-of-everything", change("<size>5", "<size>18446744073709551615"), "more than"),
            ("size-that-overflows", change("<size>5", "<size>18446744073709551616"), "number"),
            ("size-zero", change("<size>5", "<size>0"), "size"),
            ("no-hash", change("sha256", "md5"), "no hash"),
            ("hash-of-another-length", change(HASH, &HASH[1..]), "64 digits"),
            ("hash-with-a-path", change(HASH, &format!("../{}", &HASH[3..])), "64 digits"),
            ("no-summary", change("name=\"summary\"", "name='../summary'"), "names no file"),
            ("files-on-this-machine", change("https://", "file:///"), "no address"),
            ("ends-in-the-middle", good()[..200].to_owned(), ""),
            ("ends-crossed", "<metalink><files></metalink></files>".to_owned(), "another element"),
            ("nothing", String::new(), "no element file"),
            ("not-text", "\u{fffd}\0\0".to_owned(), "no element file"),
        ] {
            let error = Metalink::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(wanted), "{attack}: {error}");
        }
        assert!(Metalink::parse(b"<metalink>\xff</metalink>").is_err());
    }

    proptest! {
        #[test]
        fn any_damage_is_an_error_or_a_metalink(at in 0usize..900, with in "\\PC{0,4}|<|>|&|\"|'|/") {
            let mut text = good();
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            text.insert_str(at, &with);
            let _ = Metalink::parse(text.as_bytes());
            text.truncate(at);
            prop_assert!(Metalink::parse(text.as_bytes()).is_err() || at + 3 > good().len());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(text in "(<|>|/|a|=|'|\"|&|;|!|\\?|-|#|x|1| |\\PC){0,60}") {
            let _ = Metalink::parse(text.as_bytes());
        }
    }
}
