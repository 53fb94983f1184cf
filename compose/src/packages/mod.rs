//! Which packages, and their files: real apt resolves with private directories; fetching and verifying are ours.
//!
//! ```text
//! treefile, mirrors ──▶ apt (private directories): update, signatures, solver ──▶ names, digests, addresses
//!                                                                                        │
//!                                               several connections, hashed on the way ◀─┘
//! CACHEDIR/apt/<key>/           apt's own directories for one set of sources: configuration, lists, an empty dpkg status
//! CACHEDIR/debs/<sha256>.deb    each package once, under the digest that the signed index gives it
//! ```

pub mod apt;
pub mod dates;
pub mod deb822;
mod error;
pub mod fetch;
mod local;
pub mod mirrors;
mod order;
mod resolve;

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sys::Reporter;

use crate::treefile::Treefile;
use apt::{Apt, Source};
use deb822::Stanza;
pub use error::PackagesError;

/// The keyring that signs Debian, on the build machine.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package of the tree, its file at hand and verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture: the tree's, or `all`.
    pub arch: String,
    /// Marked `Essential: yes`.
    pub essential: bool,
    /// The `.deb`.
    pub deb: PathBuf,
    /// SHA-256 of the `.deb`, hex.
    pub sha256: String,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Its stanza of the index: `Pre-Depends`, `Depends` and so on.
    pub control: Stanza,
}

/// The packages of a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    /// In an order in which they can be unpacked: what a package pre-depends on comes before it.
    pub packages: Vec<Package>,
    /// Seconds since 1970: the newest date of the sources, or `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: u64,
    /// SHA-256 over names, versions and digests of the packages.
    pub inputs_digest: [u8; 32],
}

/// What the command line and the environment say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where lists and packages are kept between runs.
    pub cachedir: PathBuf,
    /// Address of the Debian archive, then of its security archive; empty: the build machine's.
    pub mirrors: Vec<String>,
    /// More of our own `.deb`s, or directories of them.
    pub local_packages: Vec<PathBuf>,
    /// Overrides the date of the sources.
    pub source_date_epoch: Option<u64>,
    /// Connections to fetch over.
    pub connections: usize,
    /// The build machine's apt configuration: `/etc/apt`.
    pub apt_etc: PathBuf,
}

impl Options {
    /// The defaults.
    pub fn new(cachedir: impl Into<PathBuf>) -> Self {
        Options {
            cachedir: cachedir.into(),
            mirrors: Vec::new(),
            local_packages: Vec::new(),
            source_date_epoch: None,
            connections: 6,
            apt_etc: "/etc/apt".into(),
        }
    }
}

/// Where a package lies in the cache.
pub(crate) fn deb_path(cachedir: &Path, sha256: &str) -> PathBuf {
    cachedir.join("debs").join(format!("{sha256}.deb"))
}

/// What apt chose; nothing is fetched yet.
#[derive(Debug)]
pub struct Plan {
    set: Set,
    items: Vec<fetch::Item>,
    cachedir: PathBuf,
    connections: usize,
    /// apt's directories are used by one process at a time.
    _lock: sys::Lock,
}

/// Updates the lists, resolves the treefile's packages, fetches what is not in the cache.
pub fn prepare(tree: &Treefile, options: &Options, reporter: &Reporter) -> Result<Set, PackagesError> {
    plan(tree, options, reporter)?.fetch(reporter)
}

/// Updates the lists and resolves the treefile's packages.
pub fn plan(tree: &Treefile, options: &Options, reporter: &Reporter) -> Result<Plan, PackagesError> {
    let io = |e| PackagesError::Io(options.cachedir.clone(), e);
    fs::create_dir_all(options.cachedir.join("debs")).map_err(io)?;
    let cachedir = options.cachedir.canonicalize().map_err(io)?;
    let lock = sys::Lock::exclusive(&cachedir.join("lock"))?;

    let step = reporter.step("package lists", 0);
    let apt = Apt::new(&cachedir.join("apt"), sources(tree, options)?, &tree.basearch, tree.recommends);
    let mut paths = tree.local_package_paths().to_vec();
    paths.extend(options.local_packages.iter().cloned());
    local::write(&apt, &cachedir, &paths)?;
    apt.configure()?;
    apt.update()?;
    let date = apt.newest_date()?;
    let source_date_epoch = options.source_date_epoch.or(date).ok_or(PackagesError::NoDate)?;
    step.done(apt.describe());

    let step = reporter.step("resolve", 0);
    let chosen = resolve::run(&apt, tree, &cachedir)?;
    step.done(format!("{} packages", chosen.len()));

    let (packages, items): (Vec<Package>, Vec<fetch::Item>) = chosen.into_iter().unzip();
    let set = Set { inputs_digest: inputs_digest(&packages), packages, source_date_epoch };
    Ok(Plan { set, items, cachedir, connections: options.connections, _lock: lock })
}

impl Plan {
    /// The packages. Their files need not be there.
    pub fn set(&self) -> &Set {
        &self.set
    }

    /// Bytes of all packages.
    pub fn total(&self) -> u64 {
        self.items.iter().map(|i| i.size).sum()
    }

    /// Makes sure that every package is in the cache and is what the signed index says.
    pub fn fetch(self, reporter: &Reporter) -> Result<Set, PackagesError> {
        let total = self.total();
        let step = reporter.step("fetch", total);
        let fetched = fetch::all(&self.items, &self.cachedir, self.connections, &|bytes| step.inc(bytes))?;
        step.done(format!(
            "{} of {} packages, {:.1} of {:.1} MB",
            fetched.packages,
            self.items.len(),
            fetched.bytes as f64 / 1e6,
            total as f64 / 1e6
        ));
        Ok(self.set)
    }
}

fn inputs_digest(packages: &[Package]) -> [u8; 32] {
    let mut lines: Vec<String> =
        packages.iter().map(|p| format!("{} {} {} {}\n", p.name, p.version, p.arch, p.sha256)).collect();
    lines.sort_unstable();
    let mut digest = Sha256::new();
    for line in lines {
        digest.update(line);
    }
    digest.finalize().into()
}

/// The treefile's repositories as apt gets them.
fn sources(tree: &Treefile, options: &Options) -> Result<Vec<Source>, PackagesError> {
    let default = [crate::treefile::Repository::debian("debian")];
    let repos = if tree.repos.is_empty() { &default[..] } else { &tree.repos };
    let mut sources = Vec::new();
    for repo in repos {
        let suite = || tree.releasever.clone().ok_or_else(|| PackagesError::NoSuite(repo.name.clone()));
        let signed_by = match &repo.signed_by {
            Some(path) => path.canonicalize().map_err(|_| PackagesError::NoKeyring(path.clone()))?,
            None if Path::new(KEYRING).exists() => KEYRING.into(),
            None => return Err(PackagesError::NoKeyring(KEYRING.into())),
        };
        let source = |uri: &str, suites: Vec<String>| Source {
            uri: uri.to_owned(),
            suites,
            components: repo.components.clone(),
            signed_by: signed_by.clone(),
            check_valid_until: repo.check_valid_until,
        };
        if !repo.uris.is_empty() {
            let suites = if repo.suites.is_empty() { vec![suite()?] } else { repo.suites.clone() };
            sources.extend(repo.uris.iter().map(|uri| source(uri, suites.clone())));
            continue;
        }
        let mirrors = mirrors::find(&options.apt_etc, &options.mirrors)?;
        if !repo.suites.is_empty() {
            let (security, main): (Vec<String>, Vec<String>) =
                repo.suites.iter().cloned().partition(|s| s.ends_with("-security"));
            if !main.is_empty() {
                sources.push(source(&mirrors.main, main));
            }
            if !security.is_empty() {
                sources.push(source(&mirrors.security, security));
            }
            continue;
        }
        let suite = suite()?;
        // Unstable has neither updates nor a security archive.
        if matches!(suite.as_str(), "sid" | "unstable" | "experimental") {
            sources.push(source(&mirrors.main, vec![suite]));
        } else {
            sources.push(source(&mirrors.main, vec![suite.clone(), format!("{suite}-updates")]));
            sources.push(source(&mirrors.security, vec![format!("{suite}-security")]));
        }
    }
    Ok(sources)
}
