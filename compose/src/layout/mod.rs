//! Turns a plain Debian tree into an image-mode tree, in place.
//!
//! ```text
//!  1 etc         nothing of the build machine: hostname, fstab, resolv.conf, keys, machine-id
//!  2 files       add-files
//!  3 units       enable, default-target; masks
//!  4 accounts    what sysusers.d asks for                                 (in the sandbox)
//!    files       remove-files, postprocess scripts                        (in the sandbox)
//!  5 ids         accounts keep the ids they have in the parent commit
//!    etc         identities again; what tmpfiles.d would make in /etc     (in the sandbox)
//!  6 kernel      /usr/lib/modules/$kver/{vmlinuz,config,System.map}, /boot empty
//!  7 identity    keys and the short tree.json, which the initramfs takes along
//!  8 initramfs   dracut, once                                             (in the sandbox)
//!  9 identity    os-release, tree.json, treefile.json: all that carries the version
//! 10 accounts    a fixed id for each system account, in sysusers.d
//! 11 var         /home, /opt, /root, /srv, /usr/local below /var; package database to /usr; the rest as tmpfiles.d
//! 12 toplevel    mount points and symlinks; caches removed
//! 13 etc         /etc → /usr/etc
//! 14 lint        a last look: dangling symlinks, files that everybody may write, identities
//! ```
//!
//! Each pass is a file. The order matters: scripts need a normal system (2–5 before 11–13), dracut must see the final
//! configuration but no version (4–7 before 8 before 9), tmpfiles.d needs the accounts of the last script (4 before 10, 11).
//! Times do not matter: OSTree keeps none. The same tree gives the same bytes.

mod accounts;
mod etc;
mod files;
mod identity;
mod ids;
mod initramfs;
mod kernel;
mod lint;
mod toplevel;
mod tree;
mod units;
mod var;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tree::Tree;

use crate::rootfs::Sandbox;
use crate::treefile::{Require, Treefile};

/// Runs a program inside the tree: what [`arrange`] needs of a sandbox.
pub trait Runner {
    /// Runs `args` with `env` added to a clean environment. Returns what it wrote to stdout and stderr; another exit
    /// code than 0 is an [`Error::Run`].
    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Result<String, Error>;
}

impl Runner for Sandbox {
    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Result<String, Error> {
        let mut sandbox = self.clone();
        for (key, value) in env {
            sandbox = sandbox.env(key, value);
        }
        let line = || args.join(" ");
        let (code, log) =
            sandbox.stream(args, |_| {}).map_err(|e| Error::Run { line: line(), code: None, log: e.to_string() })?;
        if code == 0 { Ok(log) } else { Err(Error::Run { line: line(), code: Some(code), log }) }
    }
}

/// What a layout depends on besides the tree.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Name of the operating system, which is also the stateroot.
    pub os: String,
    /// The branch.
    pub reference: String,
    /// The version of this tree.
    pub version: String,
    /// Where updates come from, by name.
    pub remotes: BTreeMap<String, Remote>,
    /// Kernel arguments beside those that every entry has.
    pub kargs: Vec<String>,
    /// Trusted public keys: a name for the file, and its text (a base64 key a line).
    pub keys: Vec<(String, String)>,
    /// Units to enable.
    pub units: Vec<String>,
    /// The target to boot into; none: what systemd's package says.
    pub default_target: Option<String>,
    /// Files to copy in.
    pub add_files: Vec<NewFile>,
    /// Absolute paths to delete.
    pub remove_files: Vec<String>,
    /// Scripts to run in the tree.
    pub postprocess: Vec<String>,
    /// What the initramfs demands of a deployment.
    pub require: Require,
    /// Text in os-release that the version replaces.
    pub mutate_os_release: Option<String>,
    /// The resolved treefile, kept in the tree.
    pub treefile: serde_json::Value,
    /// The one time that generated files may carry.
    pub source_date_epoch: u64,
    /// Accounts of the parent commit.
    pub previous: Previous,
}

/// The accounts of the parent commit; empty texts where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// Its `/usr/etc/passwd`.
    pub passwd: String,
    /// Its `/usr/etc/group`.
    pub group: String,
}

/// Where updates come from, as `tree.json` says it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Remote {
    /// Address of a directory with a repository; none: the machine must be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The branch to follow.
    #[serde(rename = "ref")]
    pub reference: String,
}

/// A file to copy into the tree.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Where its bytes are.
    pub source: PathBuf,
    /// Absolute path in the tree.
    pub destination: String,
    /// Permission bits.
    pub mode: u32,
}

/// What a layout found and did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Version of the only kernel.
    pub kernel_version: String,
    /// Size of the initramfs.
    pub initramfs_bytes: u64,
    /// System users and groups, each with a fixed id in sysusers.d.
    pub pinned_accounts: usize,
    /// Lines that describe `/var`.
    pub tmpfiles_lines: usize,
    /// Files of `/var` that are copied from `/usr/share/factory` where a machine has none.
    pub factory: Vec<String>,
    /// What looks wrong but stops nothing.
    pub warnings: Vec<String>,
}

impl Summary {
    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }
}

/// Why a tree cannot become an image-mode tree. Paths are inside the tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{doing} {path} in the tree")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file name that is no text.
    #[error("{0}/{1:?}: file names must be UTF-8")]
    Name(String, std::ffi::OsString),
    /// A broken line in `passwd` or `group`.
    #[error("{0}:{1}: not an account: {2}")]
    Line(&'static str, usize, String),
    /// A program in the tree failed.
    #[error("`{line}` in the tree {}{}", .code.map_or_else(|| "did not start".to_owned(), |c| format!("ended with {c}")), log_end(.log))]
    Run {
        /// The command as a shell line.
        line: String,
        /// Its exit code.
        code: Option<i32>,
        /// The end of what it wrote.
        log: String,
    },
    /// A script of the treefile failed.
    #[error("postprocess script {0}")]
    Postprocess(usize, #[source] Box<Error>),
    /// dracut left something out.
    #[error("dracut made an incomplete initramfs: {0}")]
    Dracut(String),
    /// Something that a package of the treefile should have brought.
    #[error("{path} is missing: add the package {package} to the treefile")]
    Missing {
        /// What is missing.
        path: String,
        /// Who has it.
        package: &'static str,
    },
    /// No kernel.
    #[error("the tree has no kernel: add linux-image-cloud-amd64 or linux-image-amd64 to the treefile's packages")]
    NoKernel,
    /// More than one kernel.
    #[error(
        "the tree has more than one kernel ({0}): an image boots one; take all but one out of the treefile's packages"
    )]
    Kernels(String),
    /// Modules, but no kernel.
    #[error("/boot/vmlinuz-{0} is missing, while /usr/lib/modules/{0} is there")]
    NoImage(String),
    /// `depmod` did not run.
    #[error("/usr/lib/modules/{0}/modules.dep is missing: the kernel package is not configured")]
    NoModulesDep(String),
    /// A unit of the treefile that no package has.
    #[error("unit {0} is not in the tree: check its name in the treefile, or add the package that has it")]
    Unit(String),
    /// A socket, device or FIFO in `/var`.
    #[error("{0} is neither file, directory nor symlink, and cannot be shipped")]
    Special(String),
    /// A path of the treefile that leaves the tree.
    #[error("{0} does not name a file inside the tree")]
    Outside(String),
    /// A file of the treefile would replace a directory.
    #[error("add-files: {0} is a directory in the tree")]
    IsDirectory(String),
    /// Both `/etc` and `/usr/etc`.
    #[error("the tree already has /usr/etc: no package and no script may make it")]
    UsrEtc,
    /// `/bin` and its like are directories.
    #[error("/{0} is not a symlink into /usr: the tree's suite is too old (Debian 12 or newer has a merged /usr)")]
    NotMerged(&'static str),
    /// Something in `/media`.
    #[error("/media is not empty: it belongs to the machine")]
    Media,
    /// Trust that nothing could ever earn.
    #[error("the treefile says `require: verified` and names no keys in `remotes`: no deployment of it would boot")]
    NoKeys,
    /// The parent commit cannot be read.
    #[error("reading the accounts of the parent commit")]
    Parent(#[source] store::Error),
    /// The resolved treefile cannot be written.
    #[error("writing the resolved treefile")]
    Treefile(#[source] serde_json::Error),
    /// A name for a key file that is no file name.
    #[error("{0:?} cannot name a key: letters, digits, - _ . only")]
    KeyName(String),
    /// A key file that is not what it should be.
    #[error("key {name} {why}")]
    Key {
        /// Name of the key.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
}

fn log_end(log: &str) -> String {
    let lines: Vec<&str> = log.trim_end().lines().collect();
    let end = &lines[lines.len().saturating_sub(20)..];
    if end.is_empty() { String::new() } else { format!(":\n{}", end.join("\n")) }
}

impl Error {
    fn io(doing: &'static str, path: &str, source: std::io::Error) -> Self {
        Error::Io { doing, path: path.to_owned(), source }
    }
}

/// What a layout depends on besides the tree and the treefile.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The version of this tree.
    pub version: String,
    /// The one time that generated files may carry.
    pub source_date_epoch: u64,
    /// Accounts of the parent commit.
    pub previous: Previous,
}

impl Settings {
    /// What a treefile says. A treefile without keys gets `require: verity`: there is nobody whose signature could be asked for.
    pub fn new(treefile: &Treefile, facts: &Facts) -> Result<Self, Error> {
        let mut keys = Vec::new();
        let mut remotes = BTreeMap::new();
        for (name, remote) in &treefile.remotes {
            if !remote.keys.is_empty() {
                keys.push((name.clone(), remote.keys.join("\n")));
            }
            let reference = remote.ref_name.clone().unwrap_or_else(|| treefile.ref_name.clone());
            remotes.insert(name.clone(), Remote { url: remote.url.clone(), reference });
        }
        let require = match treefile.require {
            Require::Verified if keys.is_empty() && treefile.origins.contains_key("require/") => {
                return Err(Error::NoKeys);
            }
            Require::Verified if keys.is_empty() => Require::Verity,
            other => other,
        };
        let new_file = |f: &crate::treefile::AddFile| NewFile {
            source: f.path.clone(),
            destination: f.destination.clone(),
            mode: f.mode,
        };
        Ok(Settings {
            os: treefile.stateroot.clone(),
            reference: treefile.ref_name.clone(),
            version: facts.version.clone(),
            remotes,
            kargs: treefile.kargs.clone(),
            keys,
            units: treefile.units.clone(),
            default_target: treefile.default_target.clone(),
            add_files: treefile.add_files.iter().map(new_file).collect(),
            remove_files: treefile.remove_files.clone(),
            postprocess: treefile.postprocess.clone(),
            require,
            mutate_os_release: treefile.mutate_os_release.clone(),
            treefile: serde_json::to_value(treefile).map_err(Error::Treefile)?,
            source_date_epoch: facts.source_date_epoch,
            previous: facts.previous.clone(),
        })
    }
}

/// Turns the plain Debian tree under `root` into the image-mode tree that `treefile` describes.
pub fn apply(
    root: &Path,
    treefile: &Treefile,
    facts: &Facts,
    runner: &dyn Runner,
    reporter: &sys::Reporter,
) -> Result<Summary, Error> {
    let settings = Settings::new(treefile, facts)?;
    let summary = arrange(root, &settings, runner, reporter)?;
    for warning in &summary.warnings {
        reporter.note(format!("warning: {warning}"));
    }
    if settings.keys.is_empty() {
        reporter.note("no keys in `remotes`: the initramfs will check that files match the commit, not who made it");
    }
    Ok(summary)
}

/// Turns the plain Debian tree under `root` into an image-mode tree.
pub fn arrange(
    root: &Path,
    settings: &Settings,
    runner: &dyn Runner,
    reporter: &sys::Reporter,
) -> Result<Summary, Error> {
    let tree = &Tree::new(root);
    let summary = &mut Summary::default();
    let epoch = settings.source_date_epoch;

    let step = reporter.step("layout: configuration", 0);
    etc::clean(tree)?;
    files::add(tree, &settings.add_files)?;
    units::enable(tree, &settings.units, runner)?;
    if let Some(target) = &settings.default_target {
        units::default_target(tree, target)?;
    }
    units::mask(tree)?;
    files::remove(tree, &settings.remove_files, summary)?;
    accounts::create(tree, epoch, runner)?;
    files::postprocess(tree, &settings.postprocess, epoch, runner)?;
    ids::keep(tree, &settings.previous)?;
    etc::identity(tree)?;
    etc::settle(tree, runner)?;
    units::lint_first_boot(tree, summary)?;
    step.done(format!("{} units enabled, {} files added", settings.units.len(), settings.add_files.len()));

    let step = reporter.step("layout: initramfs", 0);
    summary.kernel_version = kernel::version(tree)?;
    kernel::install(tree, &summary.kernel_version)?;
    identity::before_initramfs(tree, settings)?;
    summary.initramfs_bytes = initramfs::make(tree, &summary.kernel_version, epoch, runner)?;
    step.done(format!("kernel {}, {:.1} MB", summary.kernel_version, summary.initramfs_bytes as f64 / 1e6));

    let step = reporter.step("layout: tree", 0);
    identity::after_initramfs(tree, settings)?;
    let accounts = accounts::Accounts::load(tree)?;
    accounts::pin(tree, &accounts, epoch, summary)?;
    var::move_top_level(tree, summary)?;
    var::move_package_database(tree)?;
    var::mend_tmpfiles(tree)?;
    var::describe(tree, &accounts, summary)?;
    toplevel::clean(tree)?;
    toplevel::shape(tree, summary)?;
    etc::to_usr(tree)?;
    lint::check(tree, summary)?;
    step.done(format!("{} accounts pinned, {} lines for /var", summary.pinned_accounts, summary.tmpfiles_lines));
    Ok(std::mem::take(summary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::treefile::Remote as TreefileRemote;

    fn treefile(keys: &[&str]) -> Treefile {
        let remote = TreefileRemote { url: None, ref_name: None, keys: keys.iter().map(|k| (*k).to_owned()).collect() };
        Treefile {
            ref_name: "a/b".into(),
            stateroot: "slipway".into(),
            remotes: BTreeMap::from([("default".into(), remote)]),
            ..Treefile::default()
        }
    }

    fn facts() -> Facts {
        Facts { version: "1".into(), source_date_epoch: 1, previous: Previous::default() }
    }

    #[test]
    fn keys_decide_what_is_required_where_the_treefile_does_not() {
        let with = Settings::new(&treefile(&["AAAA"]), &facts()).unwrap();
        assert_eq!(
            (with.require, with.keys.len(), with.remotes["default"].reference.as_str()),
            (Require::Verified, 1, "a/b")
        );
        assert_eq!(Settings::new(&treefile(&[]), &facts()).unwrap().require, Require::Verity);
        let weaker = Treefile { require: Require::Verity, ..treefile(&["AAAA"]) };
        assert_eq!(Settings::new(&weaker, &facts()).unwrap().require, Require::Verity);
    }

    #[test]
    fn verified_without_any_key_is_refused() {
        let place = crate::treefile::Place { file: "x.yaml".into(), line: 1 };
        let asked = Treefile { origins: BTreeMap::from([("require/".to_owned(), place)]), ..treefile(&[]) };
        assert!(matches!(Settings::new(&asked, &facts()), Err(Error::NoKeys)));
    }
}
