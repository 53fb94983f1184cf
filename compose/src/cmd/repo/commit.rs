//! `repo commit`: directories, archives and other commits become a commit.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, bail};
use store::commit::{Builder, COMPOSEFS_DIGEST};
use store::object::{DirMeta, S_IFDIR, S_IFMT, S_IFREG};
use store::{Checksum, Commit, Dict, Entry, Mode, Repo, Value, import, merge};
use sys::Exit;

use super::rename::Rename;
use super::signer::Kind;
use super::{At, left_out, parse};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory. Default: this one.
    #[arg(value_name = "PATH")]
    dir: Option<PathBuf>,
    /// The commit before it; `none` for none. Default: what the branch points to.
    #[arg(long, value_name = "COMMIT")]
    parent: Option<String>,
    /// First line of the message.
    #[arg(short, long)]
    subject: Option<String>,
    /// The rest of the message.
    #[arg(short = 'm', long)]
    body: Option<String>,
    /// Read the rest of the message from a file.
    #[arg(short = 'F', long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// Write the message in an editor.
    #[arg(short, long)]
    editor: bool,
    /// The ref that will point to the commit.
    #[arg(short, long)]
    branch: Option<String>,
    /// No ref will.
    #[arg(long)]
    orphan: bool,
    /// Do not bind the commit to its branch.
    #[arg(long)]
    no_bindings: bool,
    /// Bind the commit to a further ref.
    #[arg(long, value_name = "BRANCH")]
    bind_ref: Vec<String>,
    /// Begin with the tree of this commit.
    #[arg(long, value_name = "REV")]
    base: Option<String>,
    /// A tree; each is laid over those before it.
    #[arg(long, value_name = "dir=PATH or tar=TARFILE or ref=COMMIT")]
    tree: Vec<String>,
    /// Metadata, a string.
    #[arg(long, value_name = "KEY=VALUE")]
    add_metadata_string: Vec<String>,
    /// Metadata, in GVariant's text format.
    #[arg(long, value_name = "KEY=VALUE")]
    add_metadata: Vec<String>,
    /// Metadata of the parent.
    #[arg(long, value_name = "KEY")]
    keep_metadata: Vec<String>,
    /// Detached metadata, a string.
    #[arg(long, value_name = "KEY=VALUE")]
    add_detached_metadata_string: Vec<String>,
    /// Every file belongs to this user; -1 leaves owners alone.
    #[arg(long, value_name = "UID", default_value_t = -1)]
    owner_uid: i64,
    /// Every file belongs to this group; -1 leaves groups alone.
    #[arg(long, value_name = "GID", default_value_t = -1)]
    owner_gid: i64,
    /// Root owns everything, and permissions are the plain ones.
    #[arg(long)]
    canonical_permissions: bool,
    /// Mark the commit as one that boots, with the version of its kernel.
    #[arg(long)]
    bootable: bool,
    /// Nobody may write to executables.
    #[arg(long)]
    mode_ro_executables: bool,
    /// Import no extended attributes.
    #[arg(long)]
    no_xattrs: bool,
    /// Left out.
    #[arg(long, hide = true, value_name = "PATH")]
    selinux_policy: Option<PathBuf>,
    /// Left out.
    #[arg(short = 'P', long, hide = true)]
    selinux_policy_from_base: bool,
    /// Left out.
    #[arg(long, hide = true, value_name = "N")]
    selinux_labeling_epoch: Option<i64>,
    /// Know files that are hard links to objects of the repository without reading them.
    #[arg(long)]
    link_checkout_speedup: bool,
    /// The same; what of such a file's metadata changed does not count.
    #[arg(short = 'I', long)]
    devino_canonical: bool,
    /// Make parent directories that a tar archive lacks.
    #[arg(long)]
    tar_autocreate_parents: bool,
    /// Replace what matches in the names of a tar archive.
    #[arg(long, value_name = "REGEX,REPLACEMENT")]
    tar_pathname_filter: Option<String>,
    /// Make no commit if the tree is the parent's.
    #[arg(long)]
    skip_if_unchanged: bool,
    /// File with permissions: `+MODE PATH` adds bits, `=MODE PATH` sets them.
    #[arg(long, value_name = "PATH")]
    statoverride: Option<PathBuf>,
    /// File with paths to leave out, one a line.
    #[arg(long, value_name = "PATH")]
    skip_list: Option<PathBuf>,
    /// Delete the directory's content once it is committed.
    #[arg(long)]
    consume: bool,
    /// Print how much there was to do.
    #[arg(long)]
    table_output: bool,
    /// Sign with this GPG key.
    #[arg(long, value_name = "KEY-ID")]
    gpg_sign: Vec<String>,
    /// GPG's directory.
    #[arg(long, value_name = "HOMEDIR")]
    gpg_homedir: Option<PathBuf>,
    /// Sign with this secret key (base64). Every user of a machine can see it; --sign-from-file is better.
    #[arg(long, value_name = "KEY_ID")]
    sign: Vec<String>,
    /// Sign with the secret key in this file.
    #[arg(long, value_name = "PATH")]
    sign_from_file: Vec<PathBuf>,
    /// The kind of those keys.
    #[arg(long, value_name = "NAME", default_value = "ed25519")]
    sign_type: String,
    /// Record the size of every object, so that a pull knows what it will fetch (archive only).
    #[arg(long)]
    generate_sizes: bool,
    /// Record the digest of the tree's composefs image.
    #[arg(long)]
    generate_composefs_metadata: bool,
    /// Do not wait for the disk.
    #[arg(long)]
    disable_fsync: bool,
    /// Whether to wait for the disk.
    #[arg(long, value_name = "POLICY", value_parser = parse::boolean)]
    fsync: Option<bool>,
    /// Default: SOURCE_DATE_EPOCH, else now.
    #[arg(long, value_name = "TIMESTAMP")]
    timestamp: Option<String>,
    /// Do not read again what has not changed since the last commit of this directory (not in the stock tool).
    #[arg(long)]
    stat_cache: bool,
    /// Compute fs-verity digests in the same read and remember them (not in the stock tool).
    #[arg(long)]
    verity: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    left_out(&[
        ("commit --selinux-policy", args.selinux_policy.is_some()),
        ("commit --selinux-policy-from-base", args.selinux_policy_from_base),
        ("commit --selinux-labeling-epoch", args.selinux_labeling_epoch.is_some_and(|epoch| epoch != 0)),
    ])?;
    let mut repo = at.open()?;
    if args.disable_fsync || args.fsync == Some(false) {
        repo = repo.without_fsync();
    }
    let repo = &repo;
    if args.branch.is_none() && !args.orphan {
        bail!("name a branch with --branch, or say --orphan");
    }
    if args.canonical_permissions && (args.owner_uid > 0 || args.owner_gid > 0) {
        bail!("--canonical-permissions and an owner other than root exclude each other");
    }
    let parent = match (args.parent.as_deref(), &args.branch) {
        (Some("none"), _) => None,
        (Some(rev), _) => Some(repo.resolve(rev)?),
        (None, Some(branch)) if !args.orphan => repo.read_ref(branch)?,
        _ => None,
    };
    let parent_commit = parent.map(|parent| repo.load_commit(&parent)).transpose()?;
    let metadata = metadata(repo, args, parent_commit.as_ref())?;
    let (subject, body) = message(args)?;

    // Until the ref is set nothing needs the new objects: a prune waits.
    let lock = repo.lock_shared()?;
    let (tree, stats) = import_all(repo, args)?;
    let unchanged = parent_commit.is_some_and(|p| (p.root_tree, p.root_meta) == tree);
    let commit = match parent.filter(|_| args.skip_if_unchanged && unchanged) {
        Some(parent) => parent,
        None => {
            let mut builder = Builder::new(tree.0, tree.1, timestamp(args)?);
            (builder.parent, builder.metadata, builder.subject, builder.body) = (parent, metadata, subject, body);
            builder.first_keys = order(args);
            if args.bootable {
                let kernel = kernel(repo, &tree.0)?.context("the tree has no /usr/lib/modules/VERSION/vmlinuz")?;
                builder.metadata.insert("ostree.bootable".to_owned(), Value::Bool(true));
                builder.metadata.insert("ostree.linux".to_owned(), Value::String(kernel));
            }
            if args.generate_composefs_metadata {
                let image = store::composefs::image_of_tree(repo, &tree.0, &tree.1)?;
                builder.metadata.insert(COMPOSEFS_DIGEST.to_owned(), Value::Bytes(image.digest.to_vec()));
            }
            if args.generate_sizes {
                builder.record_sizes(repo)?;
            }
            let commit = builder.write(repo)?;
            finish(repo, args, &commit)?;
            commit
        }
    };
    drop(lock);
    if args.consume {
        consume(args)?;
    }
    if args.table_output {
        println!("Commit: {commit}");
        println!("Metadata Total: {}\nMetadata Written: {}", stats.dirs, stats.dirs);
        println!("Content Total: {}\nContent Written: {}", stats.files + stats.symlinks, stats.new_files);
        println!("Content Cache Hits: 0\nContent Bytes Written: {}", stats.new_bytes);
    } else {
        eprintln!("{} files, {} bytes; {} new, {} bytes", stats.files, stats.bytes, stats.new_files, stats.new_bytes);
        println!("{commit}");
    }
    Ok(Exit::Done)
}

/// The version of the kernel in a tree.
fn kernel(repo: &Repo, tree: &Checksum) -> anyhow::Result<Option<String>> {
    let mut tree = repo.load_dirtree(tree)?;
    for name in ["usr", "lib", "modules"] {
        let Some((_, below, _)) = tree.dirs.iter().find(|dir| dir.0 == name) else { return Ok(None) };
        tree = repo.load_dirtree(below)?;
    }
    for (version, below, _) in &tree.dirs {
        if repo.load_dirtree(below)?.files.iter().any(|file| file.0 == "vmlinuz") {
            return Ok(Some(version.clone()));
        }
    }
    Ok(None)
}

fn timestamp(args: &Args) -> anyhow::Result<u64> {
    match (&args.timestamp, std::env::var("SOURCE_DATE_EPOCH")) {
        (Some(time), _) => parse::time(time),
        (None, Ok(text)) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text:?} is not a number")),
        (None, Err(_)) => Ok(sys::clock::now()),
    }
}

fn metadata(repo: &Repo, args: &Args, parent: Option<&Commit>) -> anyhow::Result<Dict> {
    let mut metadata = Dict::new();
    for text in &args.add_metadata_string {
        parse::string_into(&mut metadata, text)?;
    }
    for text in &args.add_metadata {
        parse::value_into(&mut metadata, text)?;
    }
    for key in &args.keep_metadata {
        let parent = parent.context("--keep-metadata needs a parent")?;
        let value = parent.metadata.get(key).with_context(|| format!("the parent's metadata has no key {key}"))?;
        metadata.insert(key.clone(), value.clone());
    }
    if !args.no_bindings {
        let mut refs: Vec<String> = args.branch.iter().chain(&args.bind_ref).cloned().collect();
        refs.sort();
        metadata.insert(store::commit::REF_BINDING.to_owned(), Value::StringArray(refs));
        if let Some(id) = repo.config()?.get("core", "collection-id") {
            metadata.entry("ostree.collection-binding".to_owned()).or_insert(Value::String(id));
        }
    }
    Ok(metadata)
}

/// The order in which the stock tool writes keys: as they are given, and then the bindings.
fn order(args: &Args) -> Vec<String> {
    let given = args.add_metadata_string.iter().chain(&args.add_metadata);
    let given = given.filter_map(|pair| pair.split_once('=')).map(|(key, _)| key.to_owned());
    let bindings = [store::commit::REF_BINDING, "ostree.collection-binding"].map(str::to_owned);
    given.chain(args.keep_metadata.iter().cloned()).chain(bindings).collect()
}

/// Subject and body.
fn message(args: &Args) -> anyhow::Result<(String, String)> {
    let subject = args.subject.clone().unwrap_or_default();
    let body = match &args.body_file {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?,
        None => args.body.clone().unwrap_or_default(),
    };
    if !args.editor {
        return Ok((subject, body));
    }
    let branch = args.branch.as_deref().unwrap_or("(none)");
    let hint = "The first line is the subject. Lines that begin with # do not count; without a subject there is no commit.";
    let file = tempfile::Builder::new().prefix("commit-").tempfile()?;
    std::fs::write(file.path(), format!("{subject}\n\n{body}\n# {hint}\n# Branch: {branch}\n"))?;
    let editor = ["OSTREE_EDITOR", "VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let mut shell = sys::Cmd::new("sh").args(["-c", &format!("{editor} \"$0\"")]).arg(file.path()).to_command();
    if !shell.status().with_context(|| format!("starting {editor}"))?.success() {
        bail!("{editor} failed");
    }
    let text = std::fs::read_to_string(file.path())?;
    let text: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.starts_with('#')).collect();
    let text = text.join("\n");
    let (subject, body) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
    if subject.is_empty() {
        bail!("no commit: the subject is empty");
    }
    Ok((subject.to_owned(), body.trim().to_owned()))
}

type Tree = (Checksum, Checksum);

/// Imports all trees, each over those before it.
fn import_all(repo: &Repo, args: &Args) -> anyhow::Result<(Tree, import::Stats)> {
    let base = args.base.as_ref().map(|rev| repo.load_commit(&repo.resolve(rev)?)).transpose()?;
    let mut result = base.map(|commit| (commit.root_tree, commit.root_meta));
    let mut stats = import::Stats::default();
    let changes = Changes::load(args)?;
    let trees = match (args.tree.as_slice(), &args.dir) {
        ([], dir) => vec![format!("dir={}", dir.as_deref().unwrap_or(Path::new(".")).display())],
        (trees, _) => trees.to_vec(),
    };
    for tree in &trees {
        let (kind, name) = tree.split_once('=').with_context(|| format!("{tree} does not begin with dir=, tar= or ref="))?;
        let top = match kind {
            "dir" | "tar" => {
                let from = if kind == "dir" { From::Dir(Path::new(name)) } else { From::Tar(name) };
                let imported = changes.import(repo, &from, args, result)?;
                stats.files += imported.stats.files;
                stats.symlinks += imported.stats.symlinks;
                stats.dirs += imported.stats.dirs;
                stats.bytes += imported.stats.bytes;
                stats.new_files += imported.stats.new_files;
                stats.new_bytes += imported.stats.new_bytes;
                (imported.root_tree, imported.root_meta)
            }
            "ref" => {
                only_as_it_is(args)?;
                let commit = repo.load_commit(&repo.resolve(name)?)?;
                (commit.root_tree, commit.root_meta)
            }
            other => bail!("{other} is no kind of tree: dir, tar or ref"),
        };
        result = Some(match result {
            Some(base) => merge::over(repo, base, top)?,
            None => top,
        });
    }
    changes.all_met()?;
    Ok((result.context("there is no tree")?, stats))
}

/// Refuses options that would change the files of a commit that is taken over.
fn only_as_it_is(args: &Args) -> anyhow::Result<()> {
    left_out(&[
        ("commit --owner-uid with --tree=ref=", args.owner_uid >= 0),
        ("commit --owner-gid with --tree=ref=", args.owner_gid >= 0),
        ("commit --canonical-permissions with --tree=ref=", args.canonical_permissions),
        ("commit --no-xattrs with --tree=ref=", args.no_xattrs),
        ("commit --mode-ro-executables with --tree=ref=", args.mode_ro_executables),
        ("commit --statoverride with --tree=ref=", args.statoverride.is_some()),
        ("commit --skip-list with --tree=ref=", args.skip_list.is_some()),
    ])
}

/// What is imported.
#[derive(Debug)]
enum From<'a> {
    /// A directory.
    Dir(&'a Path),
    /// A tar archive; `-` is standard input.
    Tar(&'a str),
}

/// What an import changes of the files it finds.
struct Changes {
    /// Bits to add.
    add: Mutex<BTreeMap<String, u32>>,
    /// Bits to set.
    set: BTreeMap<String, u32>,
    /// Paths to leave out.
    skip: HashSet<String>,
    skipped: Mutex<HashSet<String>>,
}

impl Changes {
    fn load(args: &Args) -> anyhow::Result<Changes> {
        let (mut add, mut set) = (BTreeMap::new(), BTreeMap::new());
        for line in args.statoverride.as_deref().map(parse::lines).transpose()?.unwrap_or_default() {
            let (mode, path) = line.split_once(' ').with_context(|| format!("{line:?} is not MODE PATH"))?;
            let (map, mode) = match mode.strip_prefix('=') {
                Some(mode) => (&mut set, mode),
                None => (&mut add, mode.strip_prefix('+').unwrap_or(mode)),
            };
            map.insert(path.to_owned(), mode.parse().with_context(|| format!("{mode:?} is not a (decimal) mode"))?);
        }
        let skip = args.skip_list.as_deref().map(parse::lines).transpose()?.unwrap_or_default();
        Ok(Changes { add: Mutex::new(add), set, skip, skipped: Mutex::default() })
    }

    /// Imports one tree; `below` is what it will be laid over.
    fn import(
        &self,
        repo: &Repo,
        from: &From<'_>,
        args: &Args,
        below: Option<Tree>,
    ) -> anyhow::Result<import::Imported> {
        // Such a repository keeps no other files.
        let user_only = repo.mode() == Mode::BareUserOnly;
        let owner = |id: i64| u32::try_from(id).ok().filter(|_| !user_only);
        let (uid, gid) = (owner(args.owner_uid), owner(args.owner_gid));
        let (canonical, no_xattrs) = (args.canonical_permissions || user_only, args.no_xattrs || user_only);
        let modify = |path: &str, attributes: &mut import::Attributes| {
            let regular = attributes.mode & S_IFMT == S_IFREG;
            if canonical {
                (attributes.uid, attributes.gid) = (0, 0);
                if regular {
                    attributes.mode &= S_IFREG | 0o755;
                } else if attributes.mode & S_IFMT == S_IFDIR {
                    attributes.mode &= S_IFDIR | 0o755;
                }
            }
            attributes.uid = uid.unwrap_or(attributes.uid);
            attributes.gid = gid.unwrap_or(attributes.gid);
            if no_xattrs {
                attributes.xattrs.clear();
            }
            if regular && args.mode_ro_executables && attributes.mode & 0o111 != 0 {
                attributes.mode &= !0o222;
            }
            if let Some(bits) = self.add.lock().unwrap_or_else(|e| e.into_inner()).remove(path) {
                attributes.mode |= bits;
            } else if let Some(mode) = self.set.get(path) {
                attributes.mode = (attributes.mode & S_IFMT) | mode;
            }
        };
        let skip = |path: &str| {
            let skip = self.skip.contains(path);
            if skip {
                self.skipped.lock().unwrap_or_else(|e| e.into_inner()).insert(path.to_owned());
            }
            skip
        };
        let changes = uid.is_some()
            || gid.is_some()
            || no_xattrs
            || canonical
            || args.mode_ro_executables
            || args.statoverride.is_some();
        let modify: Option<import::Modify<'_>> = if changes { Some(&modify) } else { None };
        let skip: Option<import::Filter<'_>> = if self.skip.is_empty() { None } else { Some(&skip) };
        let stream: Box<dyn Read> = match from {
            From::Dir(dir) => {
                let (cache, links) = (args.stat_cache, args.link_checkout_speedup || args.devino_canonical);
                let verity = args.verity;
                let options = import::Options { modify, skip, verity, cache, links, ..import::Options::default() };
                return Ok(import::directory(repo, dir, &options)?);
            }
            From::Tar("-") => Box::new(std::io::stdin().lock()),
            From::Tar(file) => Box::new(File::open(file).with_context(|| format!("opening {file}"))?),
        };
        let base = |path: &str| -> Result<Option<DirMeta>, store::Error> {
            let Some((tree, meta)) = below else { return Ok(None) };
            match repo.lookup_in(&tree, &meta, path)? {
                Some(Entry::Dir { meta, .. }) => repo.load_dirmeta(&meta).map(Some),
                _ => Ok(None),
            }
        };
        let make_parents = args.tar_autocreate_parents;
        let base: Option<import::Base<'_>> = if below.is_some() { Some(&base) } else { None };
        let filter = args.tar_pathname_filter.as_deref().map(Rename::parse).transpose()?;
        let rename = filter.as_ref().map(|filter| |name: &str| filter.apply(name));
        let rename: Option<import::Rename<'_>> = rename.as_ref().map(|rename| rename as _);
        let options = import::TarOptions { make_parents, base, rename, skip, modify, ..import::TarOptions::default() };
        import::tar(repo, stream, &options).with_context(|| format!("importing {from:?}"))
    }

    /// A path that was named and never found is a mistake.
    fn all_met(self) -> anyhow::Result<()> {
        let add = self.add.into_inner().unwrap_or_else(|e| e.into_inner());
        let skipped = self.skipped.into_inner().unwrap_or_else(|e| e.into_inner());
        let unmet = add.keys().map(|path| ("statoverride", path));
        let unmet: Vec<_> = unmet.chain(self.skip.difference(&skipped).map(|path| ("skip-list", path))).collect();
        for (list, path) in &unmet {
            eprintln!("Unmatched {list} path: {path}");
        }
        if unmet.is_empty() { Ok(()) } else { bail!("the tree has no such paths") }
    }
}

/// Detached metadata, signatures, the ref.
fn finish(repo: &Repo, args: &Args, commit: &Checksum) -> anyhow::Result<()> {
    if !args.add_detached_metadata_string.is_empty() {
        let mut detached = repo.load_detached(commit)?.unwrap_or_default();
        for text in &args.add_detached_metadata_string {
            parse::string_into(&mut detached, text)?;
        }
        repo.write_detached(commit, &detached)?;
    }
    if !(args.sign.is_empty() && args.sign_from_file.is_empty()) {
        let files = args.sign_from_file.iter().map(PathBuf::as_path);
        super::sign::add(repo, commit, &args.sign_type.parse::<Kind>()?.secrets(&args.sign, files)?)?;
    }
    if !args.gpg_sign.is_empty() {
        super::gpg_sign::sign(repo, commit, &args.gpg_sign, args.gpg_homedir.as_deref())?;
    }
    if let Some(branch) = &args.branch {
        repo.set_ref(branch, commit)?;
    }
    Ok(())
}

/// Deletes what was committed.
fn consume(args: &Args) -> anyhow::Result<()> {
    let named = args.tree.iter().filter_map(|tree| tree.strip_prefix("dir=")).map(Path::new);
    let alone = args.dir.as_deref().or(args.tree.is_empty().then_some(Path::new(".")));
    for dir in named.chain(alone) {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            sys::file::remove_tree(&path).or_else(|_| sys::file::remove(&path))?;
        }
        // The directory itself goes, too, unless somebody is in it.
        if dir.file_name().is_some() {
            std::fs::remove_dir(dir).with_context(|| format!("deleting {}", dir.display()))?;
        }
    }
    Ok(())
}
