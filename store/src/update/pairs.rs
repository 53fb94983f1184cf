//! Which old file a new one is made from.
//!
//! The same path first; then the same path but for the digits in it (`modules/6.12.117/…`, `libcurl.so.4.8.0`); then the
//! same name in another directory, where only one old file has it.

use std::collections::{BTreeMap, HashMap};

use crate::Checksum;

/// The path with each run of digits as one sign.
fn shape(path: &str) -> String {
    let mut shape = String::with_capacity(path.len());
    for c in path.chars() {
        if !c.is_ascii_digit() {
            shape.push(c);
        } else if !shape.ends_with('#') {
            shape.push('#');
        }
    }
    shape
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// How much two paths have in common: the name first, then the bytes at both ends.
fn likeness(a: &str, b: &str) -> (bool, usize) {
    let front = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let back = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    (name(a) == name(b), front + back)
}

/// The old files, by everything they are looked up by.
pub(crate) struct Olds {
    paths: BTreeMap<String, Checksum>,
    /// `raid1` and `raid10` have one shape.
    shapes: HashMap<String, Vec<String>>,
    names: HashMap<String, Option<Checksum>>,
}

impl Olds {
    pub fn new(paths: BTreeMap<String, Checksum>) -> Self {
        let (mut shapes, mut names) = (HashMap::<_, Vec<_>>::new(), HashMap::new());
        for (path, checksum) in &paths {
            shapes.entry(shape(path)).or_default().push(path.clone());
            let only = names.entry(shape(name(path))).or_insert(Some(*checksum));
            *only = only.filter(|other| other == checksum);
        }
        Olds { paths, shapes, names }
    }

    /// The old file that a new one at `path` resembles most.
    pub fn like(&self, path: &str) -> Option<Checksum> {
        if let Some(checksum) = self.paths.get(path) {
            return Some(*checksum);
        }
        let alike = self.shapes.get(&shape(path)).into_iter().flatten().max_by_key(|old| likeness(old, path));
        let found = alike.and_then(|old| self.paths.get(old)).copied();
        found.or_else(|| self.names.get(&shape(name(path))).copied().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_paths_do_not_hide_what_belongs_together() {
        let sum = |text: &str| Checksum::of(text.as_bytes());
        let paths = [
            "/lib/modules/6.12.107/a.ko",
            "/lib/m/6.1/raid1.ko",
            "/lib/m/6.1/raid10.ko",
            "/lib/libcurl.so.4.8.0",
            "/bin/ls",
            "/x/readme",
            "/y/readme",
            "/x/only",
        ];
        let olds = Olds::new(paths.iter().map(|p| ((*p).to_owned(), sum(p))).collect());
        let like = |path: &str| olds.like(path);
        assert_eq!(like("/lib/modules/6.12.117/a.ko"), Some(sum("/lib/modules/6.12.107/a.ko")));
        assert_eq!(like("/lib/m/6.2/raid1.ko"), Some(sum("/lib/m/6.1/raid1.ko")));
        assert_eq!(like("/lib/m/6.2/raid10.ko"), Some(sum("/lib/m/6.1/raid10.ko")));
        assert_eq!(like("/lib/libcurl.so.4.10.12"), Some(sum("/lib/libcurl.so.4.8.0")));
        assert_eq!(like("/bin/ls"), Some(sum("/bin/ls")));
        assert_eq!(like("/elsewhere/only"), Some(sum("/x/only")));
        assert_eq!(like("/elsewhere/readme"), None);
        assert_eq!(like("/new"), None);
    }
}
