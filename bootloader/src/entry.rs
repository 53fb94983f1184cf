//! A Boot Loader Specification type 1 entry. Lines that we do not know are kept where they are.

/// One entry: what `NAME.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Pair {
        key: String,
        value: String,
    },
    /// A comment, an empty line, a key without value.
    Other(String),
}

/// Why a text is no entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The text boots nothing.
    #[error("no `linux` line")]
    NoKernel,
}

impl Entry {
    /// Parses the text of an entry.
    pub fn parse(text: &str) -> Result<Entry, EntryError> {
        let mut entry = Entry::default();
        for line in text.lines() {
            let trimmed = line.trim();
            match trimmed.split_once(|c: char| c.is_ascii_whitespace()) {
                Some((key, value)) if !trimmed.starts_with('#') => {
                    entry.lines.push(Line::Pair { key: key.to_owned(), value: value.trim().to_owned() });
                }
                // The loader skips a key without value, too.
                _ => entry.lines.push(Line::Other(line.trim_end().to_owned())),
            }
        }
        if entry.get("linux").is_none() {
            return Err(EntryError::NoKernel);
        }
        Ok(entry)
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Pair { key, value } => {
                    text.push_str(key);
                    text.push(' ');
                    text.push_str(value);
                }
                Line::Other(line) => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| match line {
            Line::Pair { key: k, value } if k == key => Some(value.as_str()),
            _ => None,
        })
    }

    /// Sets the first `key`, or appends it. Line breaks in the value become spaces.
    pub fn set(&mut self, key: &str, value: &str) {
        let value = value.replace(['\n', '\r'], " ").trim().to_owned();
        for line in &mut self.lines {
            if let Line::Pair { key: k, value: v } = line {
                if k == key {
                    *v = value;
                    return;
                }
            }
        }
        self.lines.push(Line::Pair { key: key.to_owned(), value });
    }

    /// The same with another value.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Entry {
        self.set(key, value);
        self
    }

    /// The generation number, where `version` is one.
    pub fn generation(&self) -> Option<u64> {
        self.get("version")?.parse().ok()
    }

    /// The kernel arguments; several `options` lines add up.
    pub fn kargs(&self) -> crate::Kargs {
        let options: Vec<&str> = self
            .lines
            .iter()
            .filter_map(|line| match line {
                Line::Pair { key, value } if key == "options" => Some(value.as_str()),
                _ => None,
            })
            .collect();
        crate::Kargs::parse(&options.join(" "))
    }

    /// The deployment it boots, as `<os>/<commit>.<n>`.
    pub fn deployment(&self) -> Option<String> {
        self.kargs().get("slipway.deployment").map(str::to_owned)
    }

    /// The entry of a deployment. Paths are relative to the ESP.
    pub fn of_deployment(title: &str, os: &str, generation: u64, bootcsum: &str, options: &crate::Kargs) -> Entry {
        Entry::default()
            .with("title", title)
            .with("sort-key", &format!("slipway-{os}"))
            .with("version", &generation.to_string())
            .with("linux", &format!("/slipway/{bootcsum}/linux"))
            .with("initrd", &format!("/slipway/{bootcsum}/initrd"))
            .with("options", &options.to_string())
    }

    /// The kernel directory it needs, when it is one of ours.
    pub fn bootcsum(&self) -> Option<&str> {
        self.get("linux")?.strip_prefix("/slipway/")?.strip_suffix("/linux")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_what_it_does_not_know() {
        let text = "# by hand\ntitle Slipway 1\nsort-key slipway-slipway\nversion 7\nlinux /slipway/ab/linux\n\
                    devicetree-overlay /a /b\n\noptions a=1\noptions b\n";
        let entry = Entry::parse(text).unwrap();
        assert_eq!(entry.render(), text);
        assert_eq!(entry.generation(), Some(7));
        assert_eq!(entry.kargs().to_string(), "a=1 b");
        assert_eq!(entry.bootcsum(), Some("ab"));
        let changed = entry.with("version", "8").render();
        assert_eq!(changed, text.replace("version 7", "version 8"));
    }

    #[test]
    fn tabs_and_spaces_separate() {
        let entry = Entry::parse("linux\t/a\n  title   Two  words \n").unwrap();
        assert_eq!((entry.get("linux"), entry.get("title")), (Some("/a"), Some("Two  words")));
    }

    #[test]
    fn refuses_what_boots_nothing() {
        assert_eq!(Entry::parse("title x\n"), Err(EntryError::NoKernel));
        assert_eq!(Entry::parse("linux\n"), Err(EntryError::NoKernel));
        assert_eq!(Entry::parse("linux /a\noptions\n").unwrap().kargs(), crate::Kargs::default());
    }

    #[test]
    fn a_deployment_entry_reads_like_this() {
        let options = crate::Kargs::parse("slipway.deployment=slipway/ab.0 quiet");
        let entry = Entry::of_deployment("Slipway\n1", "slipway", 3, "c0ffee", &options);
        assert_eq!(
            entry.render(),
            "title Slipway 1\nsort-key slipway-slipway\nversion 3\nlinux /slipway/c0ffee/linux\n\
             initrd /slipway/c0ffee/initrd\noptions slipway.deployment=slipway/ab.0 quiet\n"
        );
        assert_eq!(entry.deployment().as_deref(), Some("slipway/ab.0"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            if let Ok(entry) = Entry::parse(&format!("linux /a\n{text}")) {
                prop_assert_eq!(Entry::parse(&entry.render()).map(|e| e.render()), Ok(entry.render()));
            }
        }
    }
}
