//! Unpacks packages into a root directory and configures them in a sandbox.
//!
//! The result is what `dpkg -i` of the same packages gives, only faster: archives are decompressed and files are placed on
//! all cores, and each `.deb` is decompressed once for ever. The records dpkg keeps about unpacked packages are written as
//! dpkg writes them, so that the root's own `dpkg --configure` takes over from there and runs the maintainer scripts.
//!
//! ```text
//! ar, tar, deb     one .deb: its control files, its files in the unpacked cache
//! control, order   who depends on whom; in which order to go
//! filter           which paths are left out
//! place            files into the root: diversions, overrides, Replaces, configuration files
//! dpkg             status, info, triggers
//! scripts          preinst, dpkg --configure
//! sandbox          bubblewrap
//! clean            what must not stay in the tree
//! ```
//!
//! No initramfs is made here, even where a package's script would: `INITRD=No` tells the kernel hooks of dracut and
//! initramfs-tools to wait. It is made once, when the tree has its final form.

mod ar;
mod clean;
mod control;
mod deb;
mod dpkg;
mod filter;
mod order;
mod place;
mod sandbox;
mod scripts;
mod source;
mod tar;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use sys::{Progress, Reporter};

use crate::packages::Package;

pub use ar::ArError;
pub use control::ControlError;
pub use deb::DebError;
pub use place::PlaceError;
pub use sandbox::{Sandbox, SandboxError};
pub use scripts::{RunError, ScriptError};
pub use tar::TarError;

use deb::{Data, Deb};
use dpkg::{Database, StatOverrides, Users};
use filter::Filter;
use order::Graph;
use place::{Conffiles, Item, Placer};

/// A `.deb` whose digest has been verified. That is all this module takes from the outside; everything else it reads in
/// the `.deb` itself.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where it lies.
    pub deb: PathBuf,
    /// Its sha256, 64 hex digits.
    pub sha256: String,
}

/// How a root is built.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether manual pages and the like are unpacked; copyright files always are.
    pub documentation: bool,
    /// Whether a root in which a script failed stays, to look around in.
    pub keep_sandbox: bool,
    /// Where decompressed packages are kept for the next time; `None` keeps nothing.
    pub cachedir: Option<PathBuf>,
    /// The time scripts are told.
    pub source_date_epoch: u64,
}

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for the root is not empty.
    #[error("{0} is not an empty directory")]
    NotEmpty(PathBuf),
    /// A package is damaged or hostile.
    #[error("{path}")]
    Deb {
        /// The `.deb`.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DebError,
    },
    /// The same package is there twice.
    #[error("the set holds {0} twice")]
    Twice(String),
    /// A package that a Debian system cannot be without is missing.
    #[error("the set holds no package {0}: maintainer scripts cannot run")]
    Missing(&'static str),
    /// Files could not be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A script failed, or the sandbox.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The sandbox does not work.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// After everything, packages are not installed.
    #[error("dpkg ended well, but these packages are not installed: {0}")]
    Unfinished(String),
    /// The file system refused.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    |source| Error::Io { what, source }
}

/// Builds a root directory from the packages of a tree. See [`build_from`].
pub fn build(packages: &[Package], root: &Path, options: &Options, reporter: &Reporter) -> Result<(), Error> {
    let inputs: Vec<Input> = packages.iter().map(|p| Input { deb: p.deb.clone(), sha256: p.sha256.clone() }).collect();
    build_from(&inputs, root, options, reporter)
}

/// Builds a root directory from a set of packages that is closed under dependencies. `root` must be an empty directory, or
/// not be there; its parent must be. Where something fails, what was built is removed, or kept where asked.
pub fn build_from(inputs: &[Input], root: &Path, options: &Options, reporter: &Reporter) -> Result<(), Error> {
    Sandbox::check()?;
    match fs::read_dir(root).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir(root).map_err(io_error(format!("making {}", root.display())))?;
        }
        Ok(false) => return Err(Error::NotEmpty(root.to_owned())),
        Err(e) => return Err(io_error(format!("reading {}", root.display()))(e)),
    }
    let result = fs::set_permissions(root, fs::Permissions::from_mode(0o755))
        .map_err(io_error(format!("setting the mode of {}", root.display())))
        .and_then(|()| build_in(inputs, root, options, reporter));
    if let Err(error) = &result {
        if options.keep_sandbox {
            reporter.note(format!("the sandbox is kept; a shell in it: {}", Sandbox::new(root).enter_line()));
        } else {
            if matches!(error, Error::Run(RunError::Script(_))) {
                reporter.note("the sandbox is removed; run again with --keep-workdir to look around in it");
            }
            sys::file::remove_tree(root).map_err(io_error(format!("removing {}", root.display())))?;
        }
    }
    result
}

fn build_in(inputs: &[Input], root: &Path, options: &Options, reporter: &Reporter) -> Result<(), Error> {
    let step = reporter.step("read packages", inputs.len() as u64);
    let debs = parallel(inputs, |input| {
        let deb = Deb::open(&input.deb, &input.sha256);
        step.inc(1);
        deb.map_err(|source| Error::Deb { path: input.deb.clone(), source })
    })?;
    let mut seen = HashSet::new();
    for deb in &debs {
        if !seen.insert((&deb.control.name, &deb.control.arch)) {
            return Err(Error::Twice(deb.control.record()));
        }
    }
    let graph = Graph::new(&debs.iter().map(|d| &d.control).collect::<Vec<_>>());
    step.done(format!("{} packages, {} of them essential or needed by those", debs.len(), graph.essential().len()));

    // Without a cache directory the decompressed packages live beside the root while it is built.
    let temporary;
    let cache = match &options.cachedir {
        Some(dir) => deb::cache_dir(dir).map_err(io_error(format!("making a cache in {}", dir.display())))?,
        None => {
            let beside = root.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            temporary = tempfile::Builder::new().prefix(".slipway-unpack-").tempdir_in(beside);
            let dir = temporary.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()));
            dir.map_err(io_error("making a temporary directory"))?.path().to_owned()
        }
    };
    let mut build = Build::new(&debs, &graph, root, options)?;
    let unpack = |number: &usize| {
        let deb = &debs[*number];
        deb.unpack(&cache).map(|data| (*number, data)).map_err(|source| Error::Deb { path: deb.path.clone(), source })
    };
    std::thread::scope(|scope| {
        let essential: HashMap<usize, Data> = parallel(graph.essential(), unpack)?.into_iter().collect();
        // The base system is configured by one process after the other; meanwhile the rest is decompressed.
        let rest = scope.spawn(|| {
            let mut rest: Vec<usize> = (0..debs.len()).filter(|n| !graph.essential().contains(n)).collect();
            rest.sort_by_key(|n| (std::cmp::Reverse(debs[*n].size), *n));
            parallel(&rest, unpack)
        });
        let step = reporter.step("base system", graph.essential().len() as u64);
        build.base(&essential, &step)?;
        step.done("unpacked and configured");
        let step = reporter.step("decompress packages", 0);
        let rest: HashMap<usize, Data> =
            rest.join().unwrap_or_else(|p| std::panic::resume_unwind(p))?.into_iter().collect();
        step.done("the rest of it, after the base system");
        let step = reporter.step("unpack packages", rest.len() as u64);
        let scripts = build.rounds(&rest, &step)?;
        step.done(format!("{} packages, {scripts} preinst scripts", rest.len()));
        let step = reporter.step("configure packages", rest.len() as u64);
        build.finish(&step)?;
        step.done("maintainer scripts and triggers");
        Ok(())
    })
}

/// A root on its way.
struct Build<'a> {
    debs: &'a [Deb],
    graph: &'a Graph,
    root: &'a Path,
    database: Database,
    placer: Placer,
    sandbox: Sandbox,
    filter: Filter,
    dpkg_version: &'a str,
    configured: HashSet<usize>,
    /// The paths each package has.
    lists: HashMap<usize, Vec<String>>,
    /// Paths that packages lost to others, not yet recorded.
    taken: HashMap<usize, Vec<String>>,
}

/// Tells scripts that want to start a service that they may not.
const POLICY: &str = "usr/sbin/policy-rc.d";

/// Called by the trigger of initramfs-tools, which does not know `INITRD=No`: while scripts run, `true` lies over it.
const UPDATE_INITRAMFS: &str = "usr/sbin/update-initramfs";

impl<'a> Build<'a> {
    fn new(debs: &'a [Deb], graph: &'a Graph, root: &'a Path, options: &Options) -> Result<Self, Error> {
        let dpkg = debs.iter().find(|d| d.control.name == "dpkg").ok_or(Error::Missing("dpkg"))?;
        let filter = if options.documentation { Filter::none() } else { Filter::without_documentation() };
        Ok(Build {
            debs,
            graph,
            root,
            database: Database::create(root, &dpkg.control.arch).map_err(io_error("making dpkg's records"))?,
            placer: Placer::new(root, filter.clone()).map_err(io_error(format!("opening {}", root.display())))?,
            sandbox: scripts::sandbox(root, options.source_date_epoch),
            filter,
            dpkg_version: &dpkg.control.version,
            configured: HashSet::new(),
            lists: HashMap::new(),
            taken: HashMap::new(),
        })
    }

    /// The essential set: its files first, so that its scripts have something to run with.
    fn base(&mut self, data: &HashMap<usize, Data>, step: &Progress) -> Result<(), Error> {
        let numbers = self.graph.essential();
        self.merge_usr(data)?;
        let overrides = StatOverrides::default();
        self.place(numbers, data, Conffiles::Both, &overrides)?;
        self.write(POLICY, "#!/bin/sh\nexit 101\n", 0o755)?;
        self.preinst(numbers)?;
        // A preinst may divert what has been placed already.
        let diversions = self.database.diversions().map_err(io_error("reading the diversions"))?;
        if self.placer.touched_by(&diversions) {
            self.place(numbers, data, Conffiles::Both, &overrides)?;
        }
        self.record(numbers, data)?;
        self.configure(&["--force-depends", "--configure", "-a"], || step.inc(1))?;
        self.configured.extend(numbers);
        Ok(())
    }

    /// Everything else, in rounds. Returns how many preinst scripts ran.
    fn rounds(&mut self, data: &HashMap<usize, Data>, step: &Progress) -> Result<usize, Error> {
        let has_preinst = |n: usize| self.debs[n].files.contains_key("preinst");
        let mut waiting: Vec<usize> = self.graph.order.iter().copied().filter(|n| data.contains_key(n)).collect();
        let scripts = waiting.iter().filter(|n| has_preinst(**n)).count();
        while !waiting.is_empty() {
            let (now, configure) = self.graph.round(&waiting, &self.configured, has_preinst);
            // dpkg reads them when it starts: what a preinst adds counts for the next run.
            let overrides = self.database.stat_overrides(&Users::load(self.root));
            let overrides = overrides.map_err(io_error("reading the overrides"))?;
            self.preinst(&now)?;
            self.place(&now, data, Conffiles::Beside, &overrides)?;
            self.record(&now, data)?;
            step.inc(now.len() as u64);
            waiting.retain(|n| !now.contains(n));
            if !configure.is_empty() {
                let records: Vec<String> = configure.iter().map(|n| self.debs[*n].control.record()).collect();
                // Triggers can wait for the end: a package with pending triggers counts as configured.
                let mut args = vec!["--no-triggers", "--configure"];
                args.extend(records.iter().map(String::as_str));
                self.configure(&args, || ())?;
                self.configured.extend(configure);
            }
        }
        Ok(scripts)
    }

    fn preinst(&self, numbers: &[usize]) -> Result<(), Error> {
        let run = |n: &usize| scripts::preinst(&self.sandbox, &self.database, &self.debs[*n], self.dpkg_version);
        Ok(numbers.iter().try_for_each(run)?)
    }

    fn configure(&self, args: &[&str], progress: impl FnMut()) -> Result<(), Error> {
        let mut sandbox = self.sandbox.clone();
        if self.root.join(UPDATE_INITRAMFS).is_file() {
            sandbox = sandbox.bind(self.root.join("usr/bin/true"), Path::new("/").join(UPDATE_INITRAMFS));
        }
        Ok(scripts::configure(&sandbox, args, progress)?)
    }

    /// Configures what is left, and leaves nothing behind.
    fn finish(&mut self, step: &Progress) -> Result<(), Error> {
        self.configure(&["--configure", "-a"], || step.inc(1))?;
        let status = self.database.read("status").map_err(io_error("reading dpkg's status"))?;
        let unfinished: Vec<&str> = status
            .split("\n\n")
            .filter(|stanza| !stanza.trim().is_empty() && !stanza.contains("\nStatus: install ok installed\n"))
            .filter_map(|stanza| stanza.lines().find_map(|l| l.strip_prefix("Package: ")))
            .collect();
        if !unfinished.is_empty() {
            return Err(Error::Unfinished(unfinished.join(", ")));
        }
        sys::file::remove(&self.root.join(POLICY)).map_err(io_error("removing policy-rc.d"))?;
        if let Some(rules) = self.filter.render() {
            self.write("etc/dpkg/dpkg.cfg.d/no-documentation", &rules, 0o644)?;
        }
        clean::clean(self.root).map_err(io_error("cleaning up"))
    }

    /// Places the files of packages.
    fn place(
        &mut self,
        numbers: &[usize],
        data: &HashMap<usize, Data>,
        conffiles: Conffiles,
        overrides: &StatOverrides,
    ) -> Result<(), Error> {
        let users = Users::load(self.root);
        let diversions = self.database.diversions().map_err(io_error("reading the diversions"))?;
        let item = |n: &usize| Some(Item { number: *n, deb: &self.debs[*n], data: data.get(n)? });
        let items: Vec<Item> = numbers.iter().filter_map(item).collect();
        let placed = self.placer.place(&items, conffiles, self.debs, &diversions, overrides, &users)?;
        for (from, path) in placed.taken {
            self.taken.entry(from).or_default().push(path);
        }
        self.lists.extend(placed.lists);
        Ok(())
    }

    /// Writes dpkg's records of packages that have been placed.
    fn record(&mut self, numbers: &[usize], data: &HashMap<usize, Data>) -> Result<(), Error> {
        let name = |n: usize| self.debs[n].control.record();
        let list = |n: usize| self.lists.get(&n).map(Vec::as_slice).unwrap_or_default();
        let packages: Vec<_> = numbers.iter().filter_map(|n| Some((&self.debs[*n], data.get(n)?, list(*n)))).collect();
        self.database.unpacked(&packages, &self.filter).map_err(io_error("writing dpkg's records"))?;
        for (from, paths) in std::mem::take(&mut self.taken) {
            self.database.take_from_list(&name(from), &paths).map_err(io_error("writing dpkg's records"))?;
        }
        let installed: HashSet<String> = self.configured.iter().map(|n| name(*n)).collect();
        let unpacked: Vec<(String, &[String])> = numbers.iter().map(|n| (name(*n), list(*n))).collect();
        self.database
            .activate(|record| installed.contains(record), unpacked.iter().map(|(r, l)| (r.as_str(), *l)))
            .map_err(io_error("writing dpkg's triggers"))
    }

    /// Makes `/bin` and its kin links into `/usr` where no package of the set brings them: Debian 12 and older.
    fn merge_usr(&self, data: &HashMap<usize, Data>) -> Result<(), Error> {
        let ships =
            |path: &str| data.values().any(|d| d.entries.iter().any(|e| e.path == path && e.kind != tar::Kind::Dir));
        if ships("bin") {
            return Ok(());
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            let make = || -> io::Result<()> {
                fs::create_dir_all(self.root.join("usr").join(name))?;
                std::os::unix::fs::symlink(format!("usr/{name}"), self.root.join(name))
            };
            make().map_err(io_error(format!("making /{name}")))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), Error> {
        let path = self.root.join(name);
        let write = || -> io::Result<()> {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        write().map_err(io_error(format!("writing /{name}")))
    }
}

/// Applies `work` to every item on all cores; results in the order of the items. The first error ends it.
fn parallel<T: Sync, R: Send, E: Send>(items: &[T], work: impl Fn(&T) -> Result<R, E> + Sync) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(items.len().max(1));
    let run = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { return Ok(done) };
            match work(item) {
                Ok(result) => done.push((i, result)),
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err((i, error));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let mut all = Vec::with_capacity(items.len());
        let mut first: Option<(usize, E)> = None;
        for handle in handles {
            match handle.join().unwrap_or_else(|p| std::panic::resume_unwind(p)) {
                Ok(done) => all.extend(done),
                // Of several errors the one of the earliest item, so that the same input gives the same message.
                Err((i, error)) if first.as_ref().is_none_or(|(j, _)| i < *j) => first = Some((i, error)),
                Err(_) => {}
            }
        }
        match first {
            Some((_, error)) => Err(error),
            None => {
                all.sort_by_key(|(i, _)| *i);
                Ok(all.into_iter().map(|(_, r)| r).collect())
            }
        }
    })
}
