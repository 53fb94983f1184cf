//! From a treefile to a commit: what `slipway compose` does, in order.
//!
//! ```text
//! packages::plan    what apt chooses                          nothing of the repository has changed
//! Plan              version, parent, date: all decided here
//! fetch             CACHEDIR/debs
//! rootfs::build     WORKDIR/root                              a plain Debian tree
//! layout::apply     WORKDIR/root                              an image-mode tree
//! import            objects in the repository                 in use by no ref
//! composefs         digest of the image that machines mount
//! commit, sign      the commit and its signature
//! set_ref           the switch: until here the ref names its old commit
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use sha2::{Digest, Sha256};
use store::sign::SecretKey;
use store::{Checksum, Commit, Repo, Value, composefs, import};
use sys::{Refused, Reporter};

use crate::treefile::{Metadata, Require, Treefile, version};
use crate::{layout, packages, rootfs};

/// Metadata: the version.
pub const VERSION: &str = "version";
/// Metadata: names, versions and architectures of the packages.
pub const PACKAGES: &str = "slipway.packages";
/// Metadata: digest of the resolved treefile.
pub const TREEFILE_DIGEST: &str = "slipway.treefile-digest";
/// Metadata: digest of everything the tree was made from.
pub const INPUTS_DIGEST: &str = "slipway.inputs-digest";
/// Metadata: the date of the package sources.
pub const SOURCE_DATE: &str = "slipway.source-date";

/// Where to build and what to build upon.
#[derive(Debug)]
pub struct Options {
    /// The repository.
    pub repo: PathBuf,
    /// Where the root directory is built; used by one compose at a time.
    pub workdir: PathBuf,
    /// Keeps the root directory, also that of a compose that failed.
    pub keep_workdir: bool,
    /// The version; none: counted up from the parent's.
    pub version: Option<String>,
    /// What comes before the commit.
    pub parent: Parent,
    /// Signs the commit.
    pub key: Option<SecretKey>,
    /// Where to write the commit's checksum instead of moving the ref.
    pub write_commitid_to: Option<PathBuf>,
    /// Where packages and unpacked packages are kept.
    pub packages: packages::Options,
}

/// What comes before a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parent {
    /// The commit the ref names, if there is one.
    #[default]
    Head,
    /// This revision.
    Rev(String),
    /// Nothing.
    None,
}

/// Everything that is decided before anything is built.
#[derive(Debug)]
pub struct Plan {
    tree: Treefile,
    packages: packages::Plan,
    version: String,
    parent: Option<(Checksum, Commit)>,
    head: Option<Checksum>,
    timestamp: u64,
    inputs_digest: String,
}

/// What a compose made.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The commit.
    pub commit: Checksum,
    /// The commit before it.
    pub parent: Option<Checksum>,
    /// Its version.
    pub version: String,
    /// Its ref.
    #[serde(rename = "ref")]
    pub ref_name: String,
    /// The key that signed it, base64.
    pub signer: Option<String>,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// The fs-verity digest of its composefs image.
    pub composefs_digest: String,
    /// Digest of everything it was made from.
    pub inputs_digest: String,
    /// Version of its kernel.
    pub kernel: String,
    /// Names, versions, architectures.
    pub packages: Vec<PackageId>,
    /// Seconds, by phase.
    pub durations: serde_json::Map<String, serde_json::Value>,
    /// Bytes and counts.
    pub sizes: Sizes,
}

/// Which package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackageId {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub arch: String,
}

/// How large things are.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sizes {
    /// Bytes of all `.deb`s.
    pub packages_bytes: u64,
    /// Regular files of the tree.
    pub files: u64,
    /// Bytes of their content.
    pub tree_bytes: u64,
    /// File objects that were not in the repository.
    pub new_objects: u64,
    /// Their content.
    pub new_bytes: u64,
    /// The composefs image.
    pub composefs_bytes: u64,
    /// The initramfs.
    pub initramfs_bytes: u64,
}

/// Loads what there is and decides; changes nothing but caches.
pub fn plan(mut tree: Treefile, options: &Options, reporter: &Reporter) -> anyhow::Result<Plan> {
    trust_signer(&mut tree, options.key.as_ref(), reporter)?;
    let repo = open(&options.repo)?;
    let head = repo.as_ref().map(|r| r.read_ref(&tree.ref_name)).transpose()?.flatten();
    let parent = match (&options.parent, &repo) {
        (Parent::None, _) | (Parent::Head, None) => None,
        (Parent::Head, Some(_)) => head,
        (Parent::Rev(rev), Some(repo)) => Some(repo.resolve(rev)?),
        (Parent::Rev(rev), None) => {
            let text = format!("--parent {rev}: there is no repository {} yet", options.repo.display());
            return Err(Refused::new(text).into());
        }
    };
    let parent = match (parent, &repo) {
        (Some(checksum), Some(repo)) => {
            let commit = repo.load_commit(&checksum).with_context(|| format!("loading the parent {checksum}"))?;
            Some((checksum, commit))
        }
        _ => None,
    };
    let packages = packages::plan(&tree, &options.packages, reporter)?;
    let date = packages.set().source_date_epoch;
    let last = parent.as_ref().and_then(|(_, c)| c.metadata.get(VERSION)).and_then(Value::as_str);
    let version = match (&options.version, &tree.automatic_version_prefix) {
        (Some(version), _) => version.clone(),
        (None, Some(prefix)) => version::next(prefix, tree.automatic_version_suffix, last, date)?,
        (None, None) => {
            let hint = "add `automatic-version-prefix: \"13\"` to the treefile, or give --version";
            return Err(Refused::with_hint("nothing says which version this is", hint).into());
        }
    };
    if version.is_empty() || version.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(Refused::new(format!("`{version}` is no version: it must be a word")).into());
    }
    // History goes forward, also where an older mirror was used than last time.
    let timestamp = parent.as_ref().map_or(date, |(_, c)| c.timestamp.max(date));
    let inputs_digest = inputs_digest(&tree, packages.set());
    Ok(Plan { tree, packages, version, parent, head, timestamp, inputs_digest })
}

impl Plan {
    /// The packages, without their files.
    pub fn packages(&self) -> &packages::Set {
        self.packages.set()
    }

    /// Whether the parent was made from the same treefile and packages.
    pub fn unchanged(&self) -> bool {
        let digest = self.parent.as_ref().and_then(|(_, c)| c.metadata.get(INPUTS_DIGEST)).and_then(Value::as_str);
        digest == Some(self.inputs_digest.as_str())
    }

    /// One line: what will be made from what.
    pub fn describe(&self) -> String {
        let parent = self.parent.as_ref().map_or("no parent".to_owned(), |(checksum, commit)| {
            let version = commit.metadata.get(VERSION).and_then(Value::as_str).unwrap_or("?");
            format!("after {version} ({})", &checksum.to_string()[..12])
        });
        let total = self.packages.total() as f64 / 1e6;
        let count = self.packages.set().packages.len();
        format!("{} {}, {parent}: {count} packages, {total:.1} MB", self.tree.ref_name, self.version)
    }

    /// Builds the tree and commits it.
    pub fn execute(self, options: &Options, reporter: &Reporter) -> anyhow::Result<Outcome> {
        check_root()?;
        let work = Workdir::take(&options.workdir, options.keep_workdir)?;
        let Plan { tree, packages, version, parent, head, timestamp, inputs_digest } = self;
        let packages_bytes = packages.total();
        let set = packages.fetch(reporter)?;

        let root = work.root();
        let how = rootfs::Options {
            documentation: tree.documentation,
            keep_sandbox: options.keep_workdir,
            cachedir: Some(options.packages.cachedir.clone()),
            source_date_epoch: set.source_date_epoch,
        };
        rootfs::build(&set.packages, &root, &how, reporter).context("building the root")?;
        let previous = match (&parent, open(&options.repo)?) {
            (Some((_, commit)), Some(repo)) => layout::Previous::load(&repo, commit)?,
            _ => layout::Previous::default(),
        };
        let facts = layout::Facts { version: version.clone(), source_date_epoch: set.source_date_epoch, previous };
        let summary = layout::apply(&root, &tree, &facts, &rootfs::Sandbox::new(&root), reporter)
            .context("laying out the tree")?;

        let repo = open_or_create(&options.repo)?;
        let lock = repo.lock_shared()?;
        let step = reporter.step("import", 0);
        let imported = import::directory(&repo, &root, &import::Options { verity: true, ..Default::default() })
            .context("importing the tree")?;
        let stats = imported.stats;
        step.done(format!(
            "{} files, {:.1} MB; new: {} objects, {:.1} MB",
            stats.files,
            stats.bytes as f64 / 1e6,
            stats.new_files,
            stats.new_bytes as f64 / 1e6
        ));
        let step = reporter.step("composefs", 0);
        let image = composefs::image_of_tree(&repo, &imported.root_tree, &imported.root_meta)
            .context("making the composefs image")?;
        step.done(format!("{:.1} MB, {}", image.bytes.len() as f64 / 1e6, &hex::encode(image.digest)[..12]));

        let step = reporter.step("commit", 0);
        let mut builder =
            store::commit::Builder::new(imported.root_tree, imported.root_meta, timestamp).bind(&tree.ref_name);
        for name in &tree.ref_bindings {
            builder = builder.bind(name);
        }
        builder.parent = parent.as_ref().map(|(checksum, _)| *checksum);
        for (key, value) in &tree.add_commit_metadata {
            let value = match value {
                Metadata::Bool(value) => Value::Bool(*value),
                Metadata::Text(text) => Value::String(text.clone()),
            };
            builder.metadata.insert(key.clone(), value);
        }
        let ids: Vec<PackageId> = package_ids(&set);
        let lines = ids.iter().map(|p| format!("{} {} {}", p.name, p.version, p.arch)).collect();
        for (key, value) in [
            (VERSION, Value::String(version.clone())),
            (store::commit::COMPOSEFS_DIGEST, Value::Bytes(image.digest.to_vec())),
            ("ostree.bootable", Value::Bool(true)),
            ("ostree.linux", Value::String(summary.kernel_version.clone())),
            (PACKAGES, Value::StringArray(lines)),
            (TREEFILE_DIGEST, Value::String(hex::encode(tree.digest()))),
            (INPUTS_DIGEST, Value::String(inputs_digest.clone())),
            (SOURCE_DATE, Value::U64(set.source_date_epoch)),
        ] {
            builder.metadata.insert(key.to_owned(), value);
        }
        let commit = builder.write(&repo).context("writing the commit")?;
        if let Some(key) = &options.key {
            store::sign::sign_commit(&repo, &commit, key).context("signing the commit")?;
        }
        match &options.write_commitid_to {
            Some(path) => {
                fs::write(path, format!("{commit}\n")).with_context(|| format!("writing {}", path.display()))?
            }
            None => {
                if repo.read_ref(&tree.ref_name)? != head {
                    let text = format!("{} has moved while this was built; the commit is {commit}", tree.ref_name);
                    return Err(Refused::with_hint(text, "compose again, upon the new head").into());
                }
                repo.set_ref(&tree.ref_name, &commit)?;
            }
        }
        drop(lock);
        step.done(format!("{} {version} {commit}", tree.ref_name));
        work.finish();
        Ok(Outcome {
            commit,
            parent: builder.parent,
            version,
            ref_name: tree.ref_name.clone(),
            signer: options.key.as_ref().map(|k| k.public().to_string()),
            timestamp,
            composefs_digest: hex::encode(image.digest),
            inputs_digest,
            kernel: summary.kernel_version,
            packages: ids,
            durations: durations(reporter),
            sizes: Sizes {
                packages_bytes,
                files: stats.files,
                tree_bytes: stats.bytes,
                new_objects: stats.new_files,
                new_bytes: stats.new_bytes,
                composefs_bytes: image.bytes.len() as u64,
                initramfs_bytes: summary.initramfs_bytes,
            },
        })
    }
}

/// Refuses to go on where the files of a tree could not get their owners.
pub fn check_root() -> Result<(), Refused> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let hint = "run it with sudo, or as root in a container that may make mounts";
    Err(Refused::with_hint("composing needs root: a tree has files of many owners", hint))
}

/// Sorted by name: the order of unpacking is nobody's business.
fn package_ids(set: &packages::Set) -> Vec<PackageId> {
    let id =
        |p: &packages::Package| PackageId { name: p.name.clone(), version: p.version.clone(), arch: p.arch.clone() };
    let mut ids: Vec<PackageId> = set.packages.iter().map(id).collect();
    ids.sort_by(|a, b| (&a.name, &a.arch).cmp(&(&b.name, &b.arch)));
    ids
}

/// A tree that demands signatures must trust the key that signs it, or no machine would ever boot it.
fn trust_signer(tree: &mut Treefile, key: Option<&SecretKey>, reporter: &Reporter) -> anyhow::Result<()> {
    let Some(key) = key else { return Ok(()) };
    let public = key.public().to_string();
    let named = tree.remotes.values().flat_map(|r| &r.keys).count();
    if tree.remotes.values().any(|r| r.keys.contains(&public)) || tree.require == Require::Verity {
        return Ok(());
    }
    if named > 0 {
        let text = format!("the signing key (public half {public}) is none of the keys in the treefile's `remotes`");
        return Err(Refused::with_hint(text, "add it to `keys`, or sign with one that is there").into());
    }
    reporter.note(format!("the treefile names no keys: the tree will trust the signing key, {public}"));
    tree.remotes.entry("default".to_owned()).or_default().keys.push(public);
    Ok(())
}

/// None: there is nothing yet.
fn open(path: &Path) -> anyhow::Result<Option<Repo>> {
    let empty = fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    if empty {
        return Ok(None);
    }
    Repo::open(path).with_context(|| format!("opening the repository {}", path.display())).map(Some)
}

fn open_or_create(path: &Path) -> anyhow::Result<Repo> {
    match open(path)? {
        Some(repo) => Ok(repo),
        // Images and machines hold bare-user repositories; `publish` makes the archive.
        None => Repo::create(path, store::Mode::BareUser)
            .with_context(|| format!("creating the repository {}", path.display())),
    }
}

/// The same treefile, packages and program give the same digest.
fn inputs_digest(tree: &Treefile, set: &packages::Set) -> String {
    let mut digest = Sha256::new();
    digest.update(concat!("slipway ", env!("CARGO_PKG_VERSION"), "\n"));
    digest.update(tree.digest());
    digest.update(set.inputs_digest);
    hex::encode(digest.finalize())
}

fn durations(reporter: &Reporter) -> serde_json::Map<String, serde_json::Value> {
    let seconds = |d: std::time::Duration| (d.as_secs_f64() * 1000.0).round() / 1000.0;
    reporter.steps().into_iter().map(|(name, took)| (name, seconds(took).into())).collect()
}

/// The directory a compose works in: one at a time, cleared before and after.
struct Workdir {
    path: PathBuf,
    keep: bool,
    _lock: sys::Lock,
}

impl Workdir {
    fn take(path: &Path, keep: bool) -> anyhow::Result<Self> {
        let doing = || format!("working directory {}", path.display());
        fs::create_dir_all(path).with_context(doing)?;
        let path = path.canonicalize().with_context(doing)?;
        let lock = match sys::Lock::try_exclusive(&path.join("lock")) {
            Ok(lock) => lock,
            Err(sys::LockError::Held(_)) => {
                let text = format!("another compose works in {}", path.display());
                return Err(Refused::with_hint(text, "wait for it, or give another --workdir").into());
            }
            Err(error) => return Err(error.into()),
        };
        sys::file::remove_tree(&path.join("root")).with_context(doing)?;
        Ok(Workdir { path, keep, _lock: lock })
    }

    fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    fn finish(self) {}
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if !self.keep {
            // What stays behind is removed by the next compose.
            let _ = sys::file::remove_tree(&self.root());
        }
    }
}
