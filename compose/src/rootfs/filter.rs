//! Which paths of a package are left out: dpkg's `path-exclude` and `path-include`.

use super::tar::{Entry, Kind};

/// A list of rules; the last one that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// (include, pattern)
    rules: Vec<(bool, &'static str)>,
}

/// What `documentation: false` leaves out. Copyright files stay: the licences ask for it.
const DOCUMENTATION: [(bool, &str); 9] = [
    (false, "/usr/share/doc/*"),
    (true, "/usr/share/doc/*/copyright"),
    (false, "/usr/share/man/*"),
    (false, "/usr/share/info/*"),
    (false, "/usr/share/groff/*"),
    (false, "/usr/share/gtk-doc/*"),
    (false, "/usr/share/doc-base/*"),
    (false, "/usr/share/lintian/*"),
    (false, "/usr/share/linda/*"),
];

impl Filter {
    /// Leaves nothing out.
    pub fn none() -> Self {
        Filter::default()
    }

    /// Leaves out documentation but copyright files.
    pub fn without_documentation() -> Self {
        Filter { rules: DOCUMENTATION.to_vec() }
    }

    /// The rules in the form of `/etc/dpkg/dpkg.cfg.d`; `None` where there are none.
    pub fn render(&self) -> Option<String> {
        let line = |(include, pattern): &(bool, &str)| {
            format!("path-{}={pattern}\n", if *include { "include" } else { "exclude" })
        };
        (!self.rules.is_empty()).then(|| self.rules.iter().map(line).collect())
    }

    /// Whether an entry is left out.
    pub fn skips(&self, entry: &Entry) -> bool {
        let path = format!("/{}", entry.path);
        let last = self.rules.iter().rev().find(|(_, pattern)| matches(pattern.as_bytes(), path.as_bytes()));
        let skip = last.is_some_and(|(include, _)| !include);
        if skip && matches!(entry.kind, Kind::Dir | Kind::Symlink(_)) {
            // A later include may name files below this directory, so it stays: dpkg looks at the fixed part of the
            // pattern only.
            return !self.rules.iter().filter(|(include, _)| *include).any(|(_, pattern)| {
                let fixed = pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len());
                path.starts_with(pattern[..fixed].trim_end_matches('/'))
            });
        }
        skip
    }
}

/// `fnmatch(3)` without flags: `*` matches slashes, too. Only `*` and `?` are special in our patterns.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        Some((b'?', rest)) => !text.is_empty() && matches(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && matches(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: "root".into(),
            group: "root".into(),
            mtime: 0,
        }
    }

    #[test]
    fn documentation_goes_and_copyright_files_and_their_directories_stay() {
        let filter = Filter::without_documentation();
        let file = || Kind::File { offset: 0, size: 0 };
        for (path, kind, skipped) in [
            ("usr/share/doc", Kind::Dir, false),
            ("usr/share/doc/bash", Kind::Dir, false),
            ("usr/share/doc/bash/README", file(), true),
            ("usr/share/doc/bash/copyright", file(), false),
            ("usr/share/doc/libx", Kind::Symlink("liby".into()), false),
            ("usr/share/man", Kind::Dir, false),
            ("usr/share/man/man1", Kind::Dir, true),
            ("usr/share/man/man1/bash.1.gz", file(), true),
            ("usr/share/manual", file(), false),
            ("usr/bin/bash", file(), false),
        ] {
            assert_eq!(filter.skips(&entry(path, kind)), skipped, "{path}");
        }
    }

    #[test]
    fn nothing_is_left_out_unless_asked() {
        assert!(!Filter::none().skips(&entry("usr/share/man/man1", Kind::Dir)));
        assert_eq!(Filter::none().render(), None);
    }
}
