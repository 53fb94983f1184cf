//! YAML as a tree whose every node knows its line, so that every complaint can name one.
//!
//! JSON is read by the same parser: it is a subset of YAML once tabs between tokens are spaces (a JSON string holds no tab).

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::TScalarStyle;

/// How deep sequences and mappings may nest. A treefile needs four.
const DEPTH: usize = 32;

/// One value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Line in the file, from 1.
    pub line: usize,
    /// The value.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing: `key:` with no value, `~` or `null`.
    Null,
    /// Text as written. `quoted` tells `"true"` from `true`.
    Scalar {
        /// The text.
        text: String,
        /// Written in quotes or as a block.
        quoted: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys in the order of the file, each with its line; no key occurs twice.
    Mapping(Vec<(String, usize, Node)>),
}

/// A complaint at a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Complaint {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub text: String,
}

impl Complaint {
    pub fn new(line: usize, text: impl Into<String>) -> Self {
        Complaint { line, text: text.into() }
    }
}

impl Node {
    /// What it is, for "expected a list, found …".
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a mapping",
        }
    }
}

enum Open {
    Sequence(usize, Vec<Node>),
    Mapping(usize, Vec<(String, usize, Node)>, Option<(String, usize)>),
}

/// Parses one document. `json` allows tabs between tokens.
pub fn parse(text: &str, json: bool) -> Result<Node, Complaint> {
    let spaced;
    let text = if json {
        spaced = text.replace('\t', " ");
        &spaced
    } else {
        text
    };
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    loop {
        let (event, mark) =
            parser.next_token().map_err(|e| Complaint::new(e.marker().line().max(1), e.info().to_owned()))?;
        let line = mark.line().max(1);
        let node = match event {
            Event::StreamEnd => break,
            Event::DocumentStart if root.is_some() => {
                return Err(Complaint::new(line, "a second document; a treefile holds one"));
            }
            Event::Nothing | Event::StreamStart | Event::DocumentStart | Event::DocumentEnd => continue,
            Event::Alias(_) => return Err(Complaint::new(line, "aliases (`*name`) are not supported; use `include`")),
            Event::Scalar(text, style, anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                Node { line, kind: scalar(text, style) }
            }
            Event::SequenceStart(anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                room(&open, line)?;
                open.push(Open::Sequence(line, Vec::new()));
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                plain(line, anchor, tag.is_some())?;
                room(&open, line)?;
                open.push(Open::Mapping(line, Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence(line, items)) => Node { line, kind: Kind::Sequence(items) },
                Some(Open::Mapping(line, entries, _)) => Node { line, kind: Kind::Mapping(entries) },
                None => return Err(Complaint::new(line, "unbalanced brackets")),
            },
        };
        match open.last_mut() {
            None => root = Some(node),
            Some(Open::Sequence(_, items)) => items.push(node),
            Some(Open::Mapping(_, entries, key @ None)) => match node.kind {
                Kind::Scalar { text, .. } => {
                    if let Some((_, first, _)) = entries.iter().find(|(k, ..)| *k == text) {
                        return Err(Complaint::new(line, format!("`{text}` is given twice, first in line {first}")));
                    }
                    *key = Some((text, line));
                }
                _ => return Err(Complaint::new(line, "a key must be a plain word")),
            },
            Some(Open::Mapping(_, entries, key @ Some(_))) => {
                if let Some((name, at)) = key.take() {
                    entries.push((name, at, node));
                }
            }
        }
    }
    Ok(root.unwrap_or(Node { line: 1, kind: Kind::Null }))
}

fn scalar(text: String, style: TScalarStyle) -> Kind {
    let quoted = style != TScalarStyle::Plain;
    if !quoted && matches!(text.as_str(), "" | "~" | "null") { Kind::Null } else { Kind::Scalar { text, quoted } }
}

fn plain(line: usize, anchor: usize, tag: bool) -> Result<(), Complaint> {
    if anchor > 0 || tag {
        return Err(Complaint::new(line, "anchors (`&name`) and tags (`!name`) are not supported"));
    }
    Ok(())
}

fn room(open: &[Open], line: usize) -> Result<(), Complaint> {
    if open.len() >= DEPTH {
        return Err(Complaint::new(line, format!("nested more than {DEPTH} deep")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_those_of_the_file() {
        let node = parse("# comment\nref: a\n\npackages:\n  - bash\n  - podman\n", false).unwrap();
        let Kind::Mapping(entries) = node.kind else { panic!() };
        assert_eq!((entries[0].0.as_str(), entries[0].1), ("ref", 2));
        assert_eq!((entries[1].0.as_str(), entries[1].1), ("packages", 4));
        let Kind::Sequence(items) = &entries[1].2.kind else { panic!() };
        assert_eq!(items[1].line, 6);
    }

    #[test]
    fn json_with_tabs_reads_like_yaml() {
        let json =
            parse("{\n\t\"ref\": \"a/b\",\n\t\"packages\": [\"x\"],\n\t\"recommends\": false\n}\n", true).unwrap();
        let Kind::Mapping(entries) = json.kind else { panic!() };
        assert_eq!(
            entries.iter().map(|(k, l, _)| (k.as_str(), *l)).collect::<Vec<_>>(),
            [("ref", 2), ("packages", 3), ("recommends", 4)]
        );
    }

    #[test]
    fn hostile_documents_are_refused() {
        for (text, word) in [
            ("a: 1\na: 2\n", "twice"),
            ("a: &x 1\nb: *x\n", "anchors"),
            ("a: !!binary aGk=\n", "tags"),
            ("a: 1\n---\nb: 2\n", "second document"),
            ("? [a, b]\n: c\n", "plain word"),
            (&"[".repeat(100_000), "recursion limit"),
            (&format!("{}{}", "[".repeat(40), "]".repeat(40)), "nested"),
            (&format!("{}{}", "a: ".repeat(3), "{"), ""),
        ] {
            let complaint = parse(text, false).expect_err(word);
            assert!(complaint.text.contains(word), "{complaint:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = parse(&text, false);
        }

        #[test]
        fn no_text_of_yaml_signs_makes_the_parser_panic(text in "[-:\\[\\]{},?&*!|>'\"%#@`a1 \n\t]{0,60}") {
            let _ = parse(&text, false);
            let _ = parse(&text, true);
        }
    }
}
