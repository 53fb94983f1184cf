//! What can go wrong with packages, and what to do about it.

use std::path::PathBuf;

use crate::treefile::Place;
use crate::treefile::near::suggestion;

/// Why there is no set of packages.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// No address of a Debian archive.
    #[error(
        "apt's sources on this machine name no Debian archive; give one with --mirror URL or in the treefile's `repos`"
    )]
    NoMirror,
    /// No suite.
    #[error("the treefile names no Debian suite; add `releasever: trixie`, or `suites` to the repository `{0}`")]
    NoSuite(String),
    /// No keyring.
    #[error("there is no keyring {}; install the package debian-archive-keyring or name one with `signed-by`", .0.display())]
    NoKeyring(PathBuf),
    /// A repository that does not answer.
    #[error(
        "repository {url} cannot be reached: {reason}; check the address and the network, or choose another with --mirror"
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// apt's words.
        reason: String,
    },
    /// A repository without a signature by a trusted key.
    #[error(
        "repository {url} is not signed by a trusted key: {reason}; nothing of it was used; name its keyring with `signed-by`"
    )]
    BadSignature {
        /// The repository.
        url: String,
        /// apt's words.
        reason: String,
    },
    /// Metadata past its date.
    #[error(
        "repository {url} has expired ({reason}): it is an old copy, or the clock is wrong; choose an up-to-date mirror, \
         or set `check-valid-until: false` on this repository"
    )]
    Expired {
        /// The repository.
        url: String,
        /// apt's words.
        reason: String,
    },
    /// Indexes that do not match their signed digests.
    #[error(
        "repository {url} does not hold what its signed index says: {reason}; it may be in the middle of an update: try again"
    )]
    Mismatch {
        /// The repository.
        url: String,
        /// apt's words.
        reason: String,
    },
    /// Anything else that `apt-get update` says.
    #[error("apt-get update failed:\n{0}")]
    Update(String),
    /// A package that no repository has.
    #[error("{}no package `{name}` in {repos}{}", at(.place), suggestion(.near))]
    Missing {
        /// The name.
        name: String,
        /// Where the treefile asks for it.
        place: Option<Place>,
        /// The repositories.
        repos: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A version or suite of a package that no repository has.
    #[error("{}{reason}", at(.place))]
    NoSuchVersion {
        /// Where the treefile asks for it.
        place: Option<Place>,
        /// apt's words.
        reason: String,
    },
    /// A name that several packages provide.
    #[error("{}`{name}` is a virtual package; ask for one of {}", at(.place), .providers.join(", "))]
    Virtual {
        /// The name.
        name: String,
        /// Where the treefile asks for it.
        place: Option<Place>,
        /// Who provides it.
        providers: Vec<String>,
    },
    /// An excluded package that another needs.
    #[error("{}exclude-packages: `{name}` cannot be left out: {why}", at(.place))]
    Excluded {
        /// The excluded package.
        name: String,
        /// Where it is excluded.
        place: Option<Place>,
        /// Who needs it.
        why: String,
    },
    /// Dependencies that cannot be met.
    #[error("these packages cannot be installed together:\n{0}")]
    Unresolvable(String),
    /// An answer of apt that makes no sense.
    #[error("apt's answer is not understood: {0}")]
    Answer(String),
    /// A `.deb` of our own that is none.
    #[error("local package {}: {reason}", .path.display())]
    Local {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A package that could not be fetched.
    #[error("fetching {url}: {reason}; what arrived is kept: run the command again to go on")]
    Fetch {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
    /// A package that is not what the signed index says.
    #[error(
        "{url} has the digest {found}, the signed index says {wanted}; it was thrown away: try again, or choose another mirror"
    )]
    Digest {
        /// The address.
        url: String,
        /// The index's digest.
        wanted: String,
        /// The digest of what arrived.
        found: String,
    },
    /// No date.
    #[error("no repository says when it was made; set SOURCE_DATE_EPOCH")]
    NoDate,
    /// A program that is missing or broken.
    #[error(transparent)]
    Cmd(#[from] sys::CmdError),
    /// The cache directory.
    #[error("package cache {}", .0.display())]
    Io(PathBuf, #[source] std::io::Error),
    /// Two at once.
    #[error(transparent)]
    Lock(#[from] sys::LockError),
}

fn at(place: &Option<Place>) -> String {
    place.as_ref().map(|p| format!("{p}: ")).unwrap_or_default()
}
