//! `/run/slipway/booted.json`: the only record of what was mounted.
//!
//! `/proc/mounts` goes on showing the paths of the initramfs (`datadir+=/sysroot.tmp/…`), so nobody may parse it.

use serde::{Deserialize, Serialize};

use crate::cmdline::Deployment;
use crate::level::{Level, Verdict};

/// Where the record lies; `/run` survives the switch of the root.
pub const PATH: &str = "/run/slipway/booted.json";

/// What was booted, and how far it was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    /// Version of this file's form.
    pub format: String,
    /// The operating system's name.
    pub os: String,
    /// `<commit>.<n>`.
    pub deployment: String,
    /// The commit.
    pub commit: String,
    /// fs-verity digest of the image of names.
    pub digest: String,
    /// The level reached.
    pub level: Level,
    /// The level the tree requires.
    pub required: Level,
    /// The key that signed the commit, base64.
    pub signer: Option<String>,
    /// Why the commit counts as unsigned, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsigned: Option<String>,
}

impl Booted {
    /// The record of a deployment that was mounted.
    pub fn new(deployment: &Deployment, required: Level, verdict: &Verdict) -> Booted {
        Booted {
            format: "1.0".to_owned(),
            os: deployment.os.clone(),
            deployment: deployment.dir_name(),
            commit: deployment.commit.to_string(),
            digest: verdict.digest.clone(),
            level: verdict.level,
            required,
            signer: verdict.signer.clone(),
            unsigned: verdict.unsigned.clone(),
        }
    }

    /// The file's content.
    pub fn render(&self) -> Vec<u8> {
        // A struct of strings always has a JSON form.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_the_names_other_programs_read() {
        let commit = "0123456789abcdef".repeat(4);
        let deployment = Deployment::parse(&format!("slipway/{commit}.3")).unwrap();
        let verdict = Verdict {
            level: Level::Verified,
            digest: "d1".repeat(32),
            signer: Some("KEY=".to_owned()),
            unsigned: None,
        };
        let booted = Booted::new(&deployment, Level::Verity, &verdict);
        let value: serde_json::Value = serde_json::from_slice(&booted.render()).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "format": "1.0", "os": "slipway", "deployment": format!("{commit}.3"), "commit": commit,
                "digest": "d1".repeat(32), "level": "verified", "required": "verity", "signer": "KEY="
            })
        );
        assert_eq!(serde_json::from_value::<Booted>(value).unwrap(), booted);
    }
}
