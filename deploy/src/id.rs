//! Which deployment: `<commit>.<serial>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use store::Checksum;

/// A commit, and a number that tells several deployments of it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeploymentId {
    /// The commit.
    pub commit: Checksum,
    /// 0 for the first deployment of this commit.
    pub serial: u32,
}

/// A text that names no deployment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a deployment: want <commit>.<number>")]
pub struct BadId(String);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.commit, self.serial)
    }
}

impl FromStr for DeploymentId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.to_owned());
        let (commit, serial) = text.split_once('.').ok_or_else(bad)?;
        let commit = commit.parse().map_err(|_| bad())?;
        let plain = serial == "0" || (!serial.starts_with('0') && serial.bytes().all(|b| b.is_ascii_digit()));
        let serial = serial.parse().ok().filter(|_| plain).ok_or_else(bad)?;
        Ok(DeploymentId { commit, serial })
    }
}

impl Serialize for DeploymentId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeploymentId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl DeploymentId {
    /// As people read it: ten digits and the serial number.
    pub fn short(&self) -> String {
        format!("{}.{}", &self.commit.to_string()[..10], self.serial)
    }

    /// The entry name, without counter.
    pub fn entry_name(&self, os: &str) -> bootloader::EntryName {
        bootloader::EntryName::new(os, &self.commit.to_string(), self.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_what_it_prints() {
        let id = format!("{}.12", "ab".repeat(32));
        assert_eq!(id.parse::<DeploymentId>().unwrap().to_string(), id);
        for bad in [
            "",
            "ab.0",
            &"ab".repeat(32),
            &format!("{}.", "ab".repeat(32)),
            &format!("{}.01", "ab".repeat(32)),
            &format!("{}.+1", "ab".repeat(32)),
            &format!("{}/..", "ab".repeat(32)),
        ] {
            assert!(bad.parse::<DeploymentId>().is_err(), "{bad}");
        }
    }
}
