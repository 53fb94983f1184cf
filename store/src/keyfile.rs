//! Key files: the form of a repository's `config`.
//!
//! ```text
//! # a comment
//! [core]
//! mode=bare-user
//! [remote "origin"]
//! branches=a;b;
//! ```
//! A change leaves every other line as it was, comments included.

use std::io;
use std::path::Path;

use crate::Error;

/// A key file, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFile {
    lines: Vec<String>,
}

fn group_of(line: &str) -> Option<&str> {
    line.trim_ascii().strip_prefix('[')?.strip_suffix(']')
}

fn entry_of(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_ascii();
    if line.starts_with('#') {
        return None;
    }
    line.split_once('=').map(|(key, value)| (key.trim_ascii(), value.trim_ascii()))
}

/// Undoes `\s \n \t \r \\`.
fn unescape(text: &str) -> String {
    let mut result = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            result.push(character);
            continue;
        }
        match characters.next() {
            Some('s') => result.push(' '),
            Some('n') => result.push('\n'),
            Some('t') => result.push('\t'),
            Some('r') => result.push('\r'),
            Some('\\') | None => result.push('\\'),
            Some(other) => result.extend(['\\', other]),
        }
    }
    result
}

fn escape(text: &str) -> String {
    let mut result = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
    let spaces = result.len() - result.trim_start_matches(' ').len();
    result.replace_range(..spaces, &"\\s".repeat(spaces));
    result
}

impl KeyFile {
    /// Takes a text apart. Lines that mean nothing are kept and never found.
    pub fn parse(text: &str) -> KeyFile {
        KeyFile { lines: text.lines().map(str::to_owned).collect() }
    }

    /// Reads a file; one that is not there is empty.
    pub fn load(path: &Path) -> Result<KeyFile, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(KeyFile::parse(&text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(KeyFile::default()),
            Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
        }
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The groups, in order.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for group in self.lines.iter().filter_map(|line| group_of(line)) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }

    fn numbered<'a>(&'a self, group: &'a str) -> impl Iterator<Item = (usize, &'a str, &'a str)> {
        let mut inside = false;
        self.lines.iter().enumerate().filter_map(move |(number, line)| {
            if let Some(name) = group_of(line) {
                inside = name == group;
                return None;
            }
            if inside { entry_of(line).map(|(key, value)| (number, key, value)) } else { None }
        })
    }

    /// The keys of a group and their values. Of a key that is there twice, the last value counts.
    pub fn entries(&self, group: &str) -> Vec<(String, String)> {
        let mut entries: Vec<(String, String)> = Vec::new();
        for (_, key, value) in self.numbered(group) {
            match entries.iter_mut().find(|(known, _)| known == key) {
                Some((_, old)) => *old = unescape(value),
                None => entries.push((key.to_owned(), unescape(value))),
            }
        }
        entries
    }

    /// A value.
    pub fn get(&self, group: &str, key: &str) -> Option<String> {
        self.numbered(group).filter(|(_, name, _)| *name == key).last().map(|(_, _, value)| unescape(value))
    }

    /// Sets a value; a group that is not there is added at the end.
    pub fn set(&mut self, group: &str, key: &str, value: &str) {
        let line = format!("{key}={}", escape(value));
        let known = self.numbered(group).filter(|(_, name, _)| *name == key).last().map(|(number, ..)| number);
        if let Some(number) = known {
            self.lines[number] = line;
            return;
        }
        let Some(start) = self.lines.iter().rposition(|line| group_of(line) == Some(group)) else {
            if self.lines.last().is_some_and(|last| !last.trim().is_empty()) {
                self.lines.push(String::new());
            }
            self.lines.extend([format!("[{group}]"), line]);
            return;
        };
        let after = &self.lines[start + 1..];
        let mut end = after.iter().position(|line| group_of(line).is_some()).unwrap_or(after.len());
        while end > 0 && after[end - 1].trim().is_empty() {
            end -= 1;
        }
        self.lines.insert(start + 1 + end, line);
    }

    /// Removes a value; tells whether it was there.
    pub fn remove(&mut self, group: &str, key: &str) -> bool {
        let numbers: Vec<usize> =
            self.numbered(group).filter(|(_, name, _)| *name == key).map(|(number, ..)| number).collect();
        for number in numbers.iter().rev() {
            self.lines.remove(*number);
        }
        !numbers.is_empty()
    }

    /// Removes a group with all it holds; tells whether it was there.
    pub fn remove_group(&mut self, group: &str) -> bool {
        let before = self.lines.len();
        let mut inside = false;
        self.lines.retain(|line| {
            if let Some(name) = group_of(line) {
                inside = name == group;
            }
            !inside
        });
        let removed = before != self.lines.len();
        // The last group has no empty line behind it.
        while removed && self.lines.last().is_some_and(|last| last.trim().is_empty()) {
            self.lines.pop();
        }
        removed
    }
}

/// `true`, `yes`, `1` and their opposites.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "yes" | "1" => Some(true),
        "false" | "no" | "0" | "none" => Some(false),
        _ => None,
    }
}

/// The members of a list: `a;b;` or `a,b`.
pub fn parse_list(text: &str) -> Vec<String> {
    text.split([';', ',']).map(str::trim).filter(|member| !member.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "# mine\n[core]\nmode=bare\n\n[remote \"a\"]\nurl = http://a/ \n#url=no\n\n[x]\ny=1\n";

    #[test]
    fn a_change_leaves_the_rest() {
        let mut file = KeyFile::parse(TEXT);
        assert_eq!(file.groups(), ["core", "remote \"a\"", "x"]);
        assert_eq!(file.get("remote \"a\"", "url").as_deref(), Some("http://a/"));
        assert_eq!(file.get("core", "url"), None);
        file.set("remote \"a\"", "proxy", "p");
        file.set("core", "mode", "archive-z2");
        file.set("new", "k", " v\n");
        let expected =
            TEXT.replace("#url=no\n", "#url=no\nproxy=p\n").replace("=bare", "=archive-z2") + "\n[new]\nk=\\sv\\n\n";
        assert_eq!(file.render(), expected);
        assert_eq!(file.get("new", "k").as_deref(), Some(" v\n"));
        assert!(file.remove_group("remote \"a\"") && !file.remove_group("remote \"a\""));
        assert!(file.remove("x", "y") && !file.remove("x", "y"));
        assert!(file.render().starts_with("# mine\n[core]\n"));
    }

    #[test]
    fn lists_and_switches() {
        assert_eq!(parse_list("a;b; c;"), ["a", "b", "c"]);
        assert_eq!((parse_bool("yes"), parse_bool("0"), parse_bool("x")), (Some(true), Some(false), None));
    }

    proptest! {
        #[test]
        fn what_is_set_is_found(values in proptest::collection::vec(("[a-z]{1,3}", "[a-z]{1,3}", "\\PC{0,20}"), 1..8)) {
            let mut file = KeyFile::default();
            let mut known = std::collections::BTreeMap::new();
            for (group, key, value) in values {
                let value = value.trim_end().to_owned();
                file.set(&group, &key, &value);
                known.insert((group, key), value);
            }
            let again = KeyFile::parse(&file.render());
            for ((group, key), value) in known {
                prop_assert_eq!(again.get(&group, &key), Some(value));
            }
        }
    }
}
