//! Entry file names: `slipway-<os>-<commit12>.<n>[+tries[-done]].conf`.

use std::fmt;

/// The loader's boot counter, kept in the file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter {
    /// Boots left; an entry with none left sorts last.
    pub left: u32,
    /// Boots already tried.
    pub done: u32,
}

impl Counter {
    /// A counter nobody has touched.
    pub fn fresh(left: u32) -> Counter {
        Counter { left, done: 0 }
    }

    /// Parses `3` or `2-1`; as the loader reads it, leading zeros are fine.
    fn parse(text: &str) -> Option<Counter> {
        let number = |t: &str| if t.bytes().all(|b| b.is_ascii_digit()) { t.parse::<u32>().ok() } else { None };
        match text.split_once('-') {
            Some((left, done)) => Some(Counter { left: number(left)?, done: number(done)? }),
            None => Some(Counter { left: number(text)?, done: 0 }),
        }
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.done {
            0 => write!(f, "+{}", self.left),
            done => write!(f, "+{}-{done}", self.left),
        }
    }
}

/// The name of one deployment's entry file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName {
    /// The stateroot.
    pub os: String,
    /// The first 12 digits of the commit.
    pub commit12: String,
    /// The deployment's serial number.
    pub serial: u32,
    /// The boot counter; none once blessed.
    pub counter: Option<Counter>,
}

impl EntryName {
    /// A name without counter.
    pub fn new(os: &str, commit: &str, serial: u32) -> EntryName {
        let commit12 = commit.chars().take(12).collect();
        EntryName { os: os.to_owned(), commit12, serial, counter: None }
    }

    /// The same deployment with another counter.
    #[must_use]
    pub fn with(&self, counter: Option<Counter>) -> EntryName {
        EntryName { counter, ..self.clone() }
    }

    /// The loader's identifier: the file name without counter. This is what `LoaderEntrySelected` holds.
    pub fn id(&self) -> String {
        self.with(None).to_string()
    }

    /// Parses a file name; `None` is a file of somebody else.
    pub fn parse(file: &str) -> Option<EntryName> {
        let (stem, counter) = split_counter(file)?;
        let (os, deployment) = stem.strip_prefix("slipway-")?.rsplit_once('-')?;
        let (commit12, serial) = deployment.split_once('.')?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let plain = !serial.is_empty() && serial.bytes().all(|b| b.is_ascii_digit());
        if os.is_empty() || commit12.len() != 12 || !commit12.bytes().all(hex) || !plain {
            return None;
        }
        let serial = serial.parse().ok()?;
        Some(EntryName { os: os.to_owned(), commit12: commit12.to_owned(), serial, counter })
    }

    /// Whether the loader sorts it last.
    pub fn exhausted(&self) -> bool {
        self.counter.is_some_and(|c| c.left == 0)
    }
}

/// Splits `name+2-1.conf` into `name` and its counter. `None` when it does not end in `.conf`.
///
/// A `+…` that is no counter belongs to the name, as the loader sees it.
pub(crate) fn split_counter(file: &str) -> Option<(&str, Option<Counter>)> {
    let stem = file.strip_suffix(".conf")?;
    if let Some((name, counter)) = stem.rsplit_once('+') {
        if let Some(counter) = Counter::parse(counter) {
            return Some((name, Some(counter)));
        }
    }
    Some((stem, None))
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slipway-{}-{}.{}", self.os, self.commit12, self.serial)?;
        if let Some(counter) = self.counter {
            write!(f, "{counter}")?;
        }
        f.write_str(".conf")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_counters_as_the_loader_leaves_them() {
        for (file, counter) in [
            ("slipway-slipway-0123456789ab.0.conf", None),
            ("slipway-slipway-0123456789ab.0+3.conf", Some(Counter { left: 3, done: 0 })),
            ("slipway-slipway-0123456789ab.0+2-1.conf", Some(Counter { left: 2, done: 1 })),
            ("slipway-my-os-0123456789ab.12+0-4.conf", Some(Counter { left: 0, done: 4 })),
        ] {
            let name = EntryName::parse(file).unwrap();
            assert_eq!(name.counter, counter);
            assert_eq!(name.to_string(), file);
        }
    }

    #[test]
    fn leaves_other_files_alone() {
        for file in [
            "debian-6.12.conf",
            "slipway-slipway-0123456789ab.0",
            "slipway-slipway-0123456789ab.conf",
            "slipway-slipway-0123456789AB.0.conf",
            "slipway-slipway-0123456789ab.x.conf",
            "slipway-slipway-0123456789ab.+1.conf",
            "slipway--0123456789ab.0.conf",
            "slipway-slipway-0123456789ab.0+x.conf",
            "slipway-slipway-0123456789ab.0+1-.conf",
        ] {
            assert!(EntryName::parse(file).is_none_or(|n| n.to_string() != file) || file.contains('+'), "{file}");
        }
        assert_eq!(EntryName::parse("slipway-slipway-0123456789ab.0+x.conf"), None);
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(file in "(slipway-)?[a-z0-9.+-]{0,40}(\\.conf)?") {
            if let Some(name) = EntryName::parse(&file) {
                prop_assert_eq!(EntryName::parse(&name.to_string()), Some(name));
            }
        }
    }
}
