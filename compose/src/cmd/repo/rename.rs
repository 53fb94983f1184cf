//! `--tar-pathname-filter=REGEX,REPLACEMENT`: other names for what a tar archive holds.
//!
//! ```text
//! REGEX         searched in each name, without ./ or / before it; every place that matches is replaced
//! REPLACEMENT   text, in which \0 to \9 and \g<NAME> are what matched, and \\ \n \t … are characters
//! ```
//! Expressions are those of finite automata: no name takes longer than its length allows, and what needs more (looking
//! around, going back to what matched) is refused.

use anyhow::{Context as _, bail};
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;

/// A piece of the replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
    Named(String),
}

/// What is searched, and what is put in its place.
#[derive(Debug)]
pub struct Rename {
    regex: Regex,
    replacement: Vec<Piece>,
}

impl Rename {
    /// Reads the option's value.
    pub fn parse(text: &str) -> anyhow::Result<Rename> {
        let (regex, replacement) = text.split_once(',').context("--tar-pathname-filter has no comma")?;
        let regex = Regex::new(regex).with_context(|| format!("the expression {regex:?} of --tar-pathname-filter"))?;
        Ok(Rename { regex, replacement: pieces(replacement)? })
    }

    /// The new name.
    pub fn apply(&self, name: &str) -> String {
        let mut new = String::new();
        let mut end = 0;
        for found in self.regex.captures_iter(name) {
            let Some(whole) = found.get_match() else { continue };
            new.push_str(&name[end..whole.start()]);
            self.replacement.iter().for_each(|piece| new.push_str(piece_text(piece, &found, name)));
            end = whole.end();
        }
        new.push_str(&name[end..]);
        new
    }
}

fn piece_text<'a>(piece: &'a Piece, found: &Captures, name: &'a str) -> &'a str {
    let span = match piece {
        Piece::Text(text) => return text,
        Piece::Group(number) => found.get_group(*number),
        Piece::Named(group) => found.get_group_by_name(group),
    };
    span.map_or("", |span| &name[span.start..span.end])
}

fn pieces(text: &str) -> anyhow::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        let group = match rest.next() {
            Some(digit @ '0'..='9') => Piece::Group(digit as usize - '0' as usize),
            Some('g') => {
                let (name, after) = rest.as_str().strip_prefix('<').and_then(|rest| rest.split_once('>')).context(
                    "the replacement of --tar-pathname-filter has \\g without a name in angle brackets behind it",
                )?;
                rest = after.chars();
                name.parse().map_or_else(|_| Piece::Named(name.to_owned()), Piece::Group)
            }
            Some(letter) => {
                plain.push(character(letter)?);
                continue;
            }
            None => bail!("the replacement of --tar-pathname-filter ends in a backslash"),
        };
        pieces.push(Piece::Text(std::mem::take(&mut plain)));
        pieces.push(group);
    }
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

fn character(letter: char) -> anyhow::Result<char> {
    Ok(match letter {
        '\\' => '\\',
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        other => bail!("\\{other} in the replacement of --tar-pathname-filter is left out (docs/ostree.md)"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn renamed(filter: &str, name: &str) -> String {
        Rename::parse(filter).unwrap().apply(name)
    }

    #[test]
    fn names_are_replaced_as_the_expression_says() {
        for (filter, name, new) in [
            ("^etc,usr/etc", "etc/passwd", "usr/etc/passwd"),
            ("^etc,usr/etc", "var/etc", "var/etc"),
            ("b,", "abba", "aa"),
            ("(a+)(b),\\2\\1\\0", "aab!", "baaaab!"),
            ("(?<dir>[^/]+)/,\\g<dir>-\\g<1>_", "x/y", "x-x_y"),
            ("(a)|b,[\\1]", "ab", "[a][]"),
            ("x,a,b", "x", "a,b"),
            ("/,\\\\\\t", "a/b", "a\\\tb"),
        ] {
            assert_eq!(renamed(filter, name), new, "{filter} {name}");
        }
        for bad in ["no comma", "(,x", "(?=a)b,x", "a,\\", "a,\\g", "a,\\g<x", "a,\\U1", ""] {
            assert!(Rename::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_filter_and_any_name_are_handled(filter in "\\PC{0,20}", name in "\\PC{0,30}") {
            if let Ok(rename) = Rename::parse(&filter) {
                let _ = rename.apply(&name);
            }
        }
    }
}
