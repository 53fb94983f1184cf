//! What a delta is called, and where it lies.
//!
//! ```text
//! deltas/AB/CDEF…-ABCD…/superblock    from one commit to another; 0, 1, … beside it are its parts
//! deltas/AB/CDEF…/superblock          from nothing
//! delta-indexes/AB/CDEF….index        all deltas to one commit
//! ```
//! The letters are base64 without padding, with `_` for `/`: 43 of them for a checksum.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::Alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

use crate::{Checksum, Error};

/// The two ends of a delta. Shown as `FROM-TO`, or `TO` from nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeltaName {
    /// The commit that must be there; `None` when nothing has to be.
    pub from: Option<Checksum>,
    /// The commit that it makes.
    pub to: Checksum,
}

fn engine() -> Option<GeneralPurpose> {
    let alphabet = Alphabet::new("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+_");
    alphabet.ok().map(|alphabet| GeneralPurpose::new(&alphabet, NO_PAD))
}

/// A checksum in 43 letters.
fn letters(checksum: &Checksum) -> String {
    engine().map(|engine| engine.encode(checksum.0)).unwrap_or_default()
}

fn from_letters(text: &str) -> Option<Checksum> {
    Checksum::from_bytes(&engine()?.decode(text).ok()?)
}

impl DeltaName {
    /// The directory, below the repository.
    pub fn dir(&self) -> String {
        let name = match &self.from {
            Some(from) => format!("{}-{}", letters(from), letters(&self.to)),
            None => letters(&self.to),
        };
        format!("deltas/{}/{}", &name[..2], &name[2..])
    }

    /// The superblock, below the repository.
    pub fn superblock(&self) -> String {
        format!("{}/superblock", self.dir())
    }

    /// A part, below the repository; also its key when it lies in the superblock.
    pub fn part(&self, index: usize) -> String {
        format!("{}/{index}", self.dir())
    }

    /// The key of the commit's detached metadata in the superblock.
    pub(super) fn commitmeta(&self) -> String {
        format!("{}/commitmeta", self.dir())
    }

    /// The delta in `deltas/FIRST/REST`, if that is the directory of one.
    pub(super) fn from_dir(first: &str, rest: &str) -> Option<DeltaName> {
        let whole = format!("{first}{rest}");
        let (from, to) = match whole.split_once('-') {
            Some((from, to)) => (Some(from_letters(from)?), to),
            None => (None, whole.as_str()),
        };
        let name = DeltaName { from, to: from_letters(to)? };
        // One directory for each delta: a second spelling is none.
        (name.dir() == format!("deltas/{first}/{rest}")).then_some(name)
    }
}

/// The index of the deltas to a commit, below the repository.
pub fn index_path(to: &Checksum) -> String {
    let name = letters(to);
    format!("delta-indexes/{}/{}.index", &name[..2], &name[2..])
}

/// The commit whose index is `delta-indexes/FIRST/FILE`.
pub(super) fn from_index(first: &str, file: &str) -> Option<Checksum> {
    let to = from_letters(&format!("{first}{}", file.strip_suffix(".index")?))?;
    (index_path(&to) == format!("delta-indexes/{first}/{file}")).then_some(to)
}

impl fmt::Display for DeltaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => write!(f, "{from}-{}", self.to),
            None => self.to.fmt(f),
        }
    }
}

impl FromStr for DeltaName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let end = |end: &str| end.parse::<Checksum>().map_err(|_| Error::invalid(format!("Invalid rev {end}")));
        match text.split_once('-') {
            Some((from, to)) => Ok(DeltaName { from: Some(end(from)?), to: end(to)? }),
            None => Ok(DeltaName { from: None, to: end(text)? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_directories_agree() {
        let (from, to) = (Checksum::of(b"from"), Checksum([0xff; 32]));
        for name in [DeltaName { from: None, to }, DeltaName { from: Some(from), to }] {
            let dir = name.dir();
            let mut parts = dir.split('/').skip(1);
            assert_eq!(DeltaName::from_dir(parts.next().unwrap(), parts.next().unwrap()), Some(name));
            assert_eq!(name.to_string().parse::<DeltaName>().unwrap(), name);
        }
        assert!(DeltaName { from: None, to }.dir().starts_with("deltas/__/____"));
        let index = index_path(&to);
        let mut parts = index.split('/').skip(1);
        assert_eq!(from_index(parts.next().unwrap(), parts.next().unwrap()), Some(to));
    }

    #[test]
    fn a_name_never_leads_out_of_the_directory() {
        for (first, rest) in [("..", "x"), ("AB", "../../x"), ("", ""), ("AB", "-"), ("--", "--")] {
            assert_eq!(DeltaName::from_dir(first, rest), None, "{first}/{rest}");
            assert_eq!(from_index(first, &format!("{rest}.index")), None, "{first}/{rest}");
        }
        let error = "GARBAGE".parse::<DeltaName>().unwrap_err().to_string();
        assert_eq!(error, "Invalid rev GARBAGE");
    }
}
