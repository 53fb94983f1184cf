//! Which old file a new one is made from.
//!
//! ```text
//! same path  >  same name elsewhere, the most similar path  >  same name but for digits (versions)
//! ```

use std::collections::HashMap;

use crate::{Checksum, Entry, Error, Repo};

/// The files of the old tree, found by path and name.
#[derive(Default)]
pub(super) struct OldFiles {
    paths: HashMap<String, Checksum>,
    /// By name, and by name without digits.
    names: HashMap<String, Vec<String>>,
}

/// How many files of one name are compared.
const CANDIDATES: usize = 2000;

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A name in which every number is the same.
fn without_digits(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 1);
    for c in name.chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if !(c == '0' && text.ends_with('0')) {
            text.push(c);
        }
    }
    // Not to be mistaken for a name as it is.
    text.push('/');
    text
}

/// How alike two paths are: directories that agree from the end, then from the beginning, then letters.
fn likeness(one: &str, other: &str) -> (usize, usize, usize) {
    let back = one.rsplit('/').zip(other.rsplit('/')).skip(1).take_while(|(a, b)| a == b).count();
    let front = one.split('/').zip(other.split('/')).take_while(|(a, b)| a == b).count();
    let letters = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    (back, front, letters)
}

impl OldFiles {
    /// Lists the files of a commit.
    pub fn of(repo: &Repo, commit: &Checksum) -> Result<Self, Error> {
        let mut files = OldFiles::default();
        repo.walk(commit, |path, entry| {
            if let Entry::File { checksum } = entry {
                files.paths.insert(path.to_owned(), checksum);
                let name = name(path);
                files.names.entry(name.to_owned()).or_default().push(path.to_owned());
                files.names.entry(without_digits(name)).or_default().push(path.to_owned());
            }
            Ok(())
        })?;
        Ok(files)
    }

    /// Files that the one at `path` may be made from, the most promising first.
    pub fn candidates(&self, path: &str) -> Vec<Checksum> {
        let mut found = Vec::new();
        found.extend(self.paths.get(path));
        for key in [name(path).to_owned(), without_digits(name(path))] {
            let paths = self.names.get(&key).map_or(&[][..], Vec::as_slice);
            let best = paths.iter().take(CANDIDATES).max_by_key(|old| (likeness(old, path), std::cmp::Reverse(*old)));
            found.extend(best.and_then(|path| self.paths.get(path)));
        }
        let mut unique = Vec::new();
        for checksum in found {
            if !unique.contains(checksum) {
                unique.push(*checksum);
            }
        }
        unique
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_path_is_taken() {
        let sum = |path: &str| Checksum::of(path.as_bytes());
        let mut files = OldFiles::default();
        for path in [
            "/usr/bin/tool",
            "/usr/lib/libx.so.1.2.3",
            "/usr/lib/modules/6.12.107/kernel/net/core.ko",
            "/usr/lib/modules/6.12.107/kernel/drm/core.ko",
            "/usr/share/doc/core.ko",
        ] {
            files.paths.insert(path.to_owned(), sum(path));
            files.names.entry(name(path).to_owned()).or_default().push(path.to_owned());
            files.names.entry(without_digits(name(path))).or_default().push(path.to_owned());
        }
        assert_eq!(files.candidates("/usr/bin/tool"), [sum("/usr/bin/tool")]);
        assert_eq!(files.candidates("/usr/sbin/tool"), [sum("/usr/bin/tool")]);
        assert_eq!(files.candidates("/usr/lib/libx.so.1.10.0"), [sum("/usr/lib/libx.so.1.2.3")]);
        assert_eq!(
            files.candidates("/usr/lib/modules/6.12.117/kernel/drm/core.ko")[0],
            sum("/usr/lib/modules/6.12.107/kernel/drm/core.ko")
        );
        assert_eq!(files.candidates("/usr/bin/other"), []);
    }
}
