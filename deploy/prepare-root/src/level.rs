//! How far a deployment can be trusted, and whether that is enough.
//!
//! ```text
//!  key in the initramfs --ed25519--> commit --digest--> .ostree.cfs --digest of each file--> every read   "verified"
//!                                    commit --digest--> .ostree.cfs --digest of each file--> every read   "verity"
//! ```
//!
//! What a tree requires is built into its initramfs (`/usr/lib/slipway/tree.json`). A deployment that reaches less is
//! refused; there is no argument on the command line that lowers it.

use std::fmt;

use serde::{Deserialize, Serialize};
use store::Checksum;

/// How far a deployment was checked before it was mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The kernel checks each file against a commit that nobody vouches for.
    Verity,
    /// The kernel checks each file against a commit that a trusted key has signed.
    Verified,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Verity => "verity",
            Level::Verified => "verified",
        })
    }
}

/// What was found on the disk.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The checksum of the commit object as it lies there.
    pub commit: Checksum,
    /// The digest of the image that the commit names.
    pub wanted: Option<[u8; 32]>,
    /// The digest the kernel enforces on the image, or why there is none.
    pub measured: Result<[u8; 32], String>,
    /// The key that signed the commit (base64), or why no signature counts.
    pub signer: Result<String, String>,
}

/// A deployment that may be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The level reached.
    pub level: Level,
    /// The digest of the image, in hexadecimal.
    pub digest: String,
    /// The key that signed the commit, in base64.
    pub signer: Option<String>,
    /// Why the commit counts as unsigned, where it does.
    pub unsigned: Option<String>,
}

/// Why a deployment is not mounted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The commit object is damaged or was replaced.
    #[error("the commit object has the checksum {found} instead of {wanted}: it is damaged or was replaced")]
    Commit {
        /// The name of the deployment.
        wanted: Checksum,
        /// What lies there.
        found: Checksum,
    },
    /// The commit was made without an image digest.
    #[error("the commit has no ostree.composefs.digest.v0, so nothing says what its image must be")]
    NoDigest,
    /// The image is not protected.
    #[error("the deployment's image (.ostree.cfs) has no fs-verity: {0}")]
    NoVerity(String),
    /// The image is another one.
    #[error("the deployment's image (.ostree.cfs) has the digest {found}, the commit wants {wanted}: it was replaced")]
    Digest {
        /// From the commit.
        wanted: String,
        /// From the kernel.
        found: String,
    },
    /// Nobody who is trusted has signed the commit.
    #[error("no trusted key has signed the commit ({0}), and this tree requires it")]
    Unsigned(String),
}

/// Judges the evidence for the deployment of `name`.
pub fn decide(name: &Checksum, required: Level, evidence: &Evidence) -> Result<Verdict, Refusal> {
    if evidence.commit != *name {
        return Err(Refusal::Commit { wanted: *name, found: evidence.commit });
    }
    // The signature comes first: what an untrusted commit says about its image is of no interest.
    let (level, signer, unsigned) = match &evidence.signer {
        Ok(key) => (Level::Verified, Some(key.clone()), None),
        Err(why) if required > Level::Verity => return Err(Refusal::Unsigned(why.clone())),
        Err(why) => (Level::Verity, None, Some(why.clone())),
    };
    let wanted = evidence.wanted.ok_or(Refusal::NoDigest)?;
    let found = evidence.measured.clone().map_err(Refusal::NoVerity)?;
    if wanted != found {
        return Err(Refusal::Digest { wanted: Checksum(wanted).to_string(), found: Checksum(found).to_string() });
    }
    Ok(Verdict { level, digest: Checksum(found).to_string(), signer, unsigned })
}

/// `require` of `/usr/lib/slipway/tree.json`. A tree that does not say it requires everything.
pub fn required(tree_json: Option<&[u8]>) -> Result<Level, String> {
    #[derive(Deserialize)]
    struct Tree {
        require: Option<Level>,
    }
    let Some(bytes) = tree_json else { return Ok(Level::Verified) };
    let tree: Tree = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    Ok(tree.require.unwrap_or(Level::Verified))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Checksum = Checksum([7; 32]);

    fn good() -> Evidence {
        Evidence { commit: NAME, wanted: Some([1; 32]), measured: Ok([1; 32]), signer: Ok("KEY".to_owned()) }
    }

    #[test]
    fn signed_and_intact_is_verified_whatever_is_required() {
        for required in [Level::Verified, Level::Verity] {
            let verdict = decide(&NAME, required, &good()).unwrap();
            assert_eq!((verdict.level, verdict.signer.as_deref()), (Level::Verified, Some("KEY")));
            assert_eq!(verdict.digest, "01".repeat(32));
        }
    }

    #[test]
    fn an_unsigned_commit_boots_only_where_verity_is_enough_and_says_so() {
        let unsigned = Evidence { signer: Err("no signature".to_owned()), ..good() };
        assert_eq!(decide(&NAME, Level::Verified, &unsigned), Err(Refusal::Unsigned("no signature".to_owned())));
        let verdict = decide(&NAME, Level::Verity, &unsigned).unwrap();
        assert_eq!((verdict.level, verdict.unsigned.as_deref()), (Level::Verity, Some("no signature")));
    }

    #[test]
    fn a_signature_does_not_excuse_anything_else() {
        for (evidence, refusal) in [
            (
                Evidence { commit: Checksum([8; 32]), ..good() },
                Refusal::Commit { wanted: NAME, found: Checksum([8; 32]) },
            ),
            (Evidence { wanted: None, ..good() }, Refusal::NoDigest),
            (Evidence { measured: Err("off".to_owned()), ..good() }, Refusal::NoVerity("off".to_owned())),
            (
                Evidence { measured: Ok([2; 32]), ..good() },
                Refusal::Digest { wanted: "01".repeat(32), found: "02".repeat(32) },
            ),
        ] {
            for required in [Level::Verified, Level::Verity] {
                assert_eq!(decide(&NAME, required, &evidence), Err(refusal.clone()));
            }
        }
    }

    #[test]
    fn a_tree_that_does_not_say_requires_everything() {
        assert_eq!(required(None), Ok(Level::Verified));
        assert_eq!(required(Some(b"{\"format\":\"1.0\"}")), Ok(Level::Verified));
        assert_eq!(required(Some(b"{\"require\":\"verified\"}")), Ok(Level::Verified));
        assert_eq!(required(Some(b"{\"require\":\"verity\",\"later\":1}")), Ok(Level::Verity));
        for bad in ["{\"require\":\"none\"}", "{\"require\":0}", "{", ""] {
            assert!(required(Some(bad.as_bytes())).is_err(), "{bad}");
        }
    }
}
