//! Debian's control format: stanzas of `Key: value`, continued on lines that begin with white space.

/// One stanza. Keys are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// The value of a field; continuation lines are joined by line feeds.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.as_str())
    }

    /// The fields in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

/// The stanzas of `text`. Comment lines (`#`) and lines that are no field are passed over.
pub fn stanzas(text: &str) -> Vec<Stanza> {
    let mut found = Vec::new();
    let mut current = Stanza::default();
    for line in text.lines() {
        if line.trim().is_empty() {
            if !current.fields.is_empty() {
                found.push(std::mem::take(&mut current));
            }
        } else if line.starts_with('#') {
            continue;
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = current.fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            current.fields.push((key.to_owned(), value.trim().to_owned()));
        }
    }
    if !current.fields.is_empty() {
        found.push(current);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_with_comments_and_continuations() {
        let text = "Types: deb\n# a comment\nURIs: http://a/\n http://b/\n\n\nPackage: x\nnonsense\nEmpty:\n";
        let found = stanzas(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("uris"), Some("http://a/\nhttp://b/"));
        assert_eq!(found[1].get("Package"), Some("x"));
        assert_eq!(found[1].get("Empty"), Some(""));
        assert_eq!(found[1].get("None"), None);
    }
}
