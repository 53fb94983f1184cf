//! `repo pull-local`: refs of another repository on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use store::pull::{self, Depth, LocalOptions, Options, Select};
use store::sign::trust::{Keys, Trust};
use store::{Checksum, ObjectType, Repo};
use sys::Exit;

use super::{At, size};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository to copy from.
    #[arg(value_name = "SRC_REPO")]
    source: PathBuf,
    /// Refs, or commits by checksum; without any, every ref.
    refs: Vec<String>,
    /// Only the commits themselves.
    #[arg(long)]
    commit_metadata_only: bool,
    /// Write refs/remotes/REMOTE, and not refs/heads.
    #[arg(long, value_name = "REMOTE")]
    remote: Option<String>,
    /// Do not wait for the disk.
    #[arg(long)]
    disable_fsync: bool,
    /// Objects are always synced all at once, which stalls nobody.
    #[arg(long)]
    per_object_fsync: bool,
    /// Compare checksums; that is always done.
    #[arg(long)]
    untrusted: bool,
    /// Refuse files that are setuid, setgid or writable for all.
    #[arg(long)]
    bareuseronly_files: bool,
    /// Use static deltas only.
    #[arg(long)]
    require_static_deltas: bool,
    /// Use no static deltas; between local repositories none are used unless they are required.
    #[arg(long)]
    disable_static_deltas: bool,
    /// Commits need a GPG signature by a key of --remote.
    #[arg(long)]
    gpg_verify: bool,
    /// The summary of the source needs one, and says what its refs point to.
    #[arg(long)]
    gpg_verify_summary: bool,
    /// Take commits that belong to other refs.
    #[arg(long)]
    disable_verify_bindings: bool,
    /// Parents to copy; -1 copies all.
    #[arg(long, default_value_t = 0)]
    depth: i64,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    if args.require_static_deltas && args.disable_static_deltas {
        bail!("--require-static-deltas and --disable-static-deltas are opposites");
    }
    let mut repo = at.open()?;
    if args.disable_fsync {
        repo = repo.without_fsync();
    }
    let source = Repo::open(&args.source)?;
    if args.require_static_deltas {
        deltas_of(&source)?;
    }
    let trust = trust(&repo, &source, args)?;
    let refs = if args.refs.is_empty() { source.refs()?.into_keys().collect() } else { args.refs.clone() };
    let select = Select {
        commit_only: args.commit_metadata_only,
        bareuseronly: args.bareuseronly_files,
        ..Select::default()
    };
    let options = LocalOptions { trust: Some(&trust), select: Some(&select), ..LocalOptions::default() };
    let mut counts = Counts::default();
    // Until their refs are set nothing needs the new objects: a prune waits.
    let _shared = repo.lock_shared()?;
    for name in refs {
        let is_commit = name.parse::<Checksum>().is_ok();
        let commit = source.resolve(&name)?;
        if !is_commit && !args.disable_verify_bindings {
            store::commit::check_binding(&source.load_commit(&commit)?, &name)?;
        }
        match args.require_static_deltas {
            true => counts.pull_deltas(&source, &repo, commit, args, &trust)?,
            false => counts.pull(&source, &repo, commit, args.depth, &options)?,
        }
        if !is_commit {
            let target = args.remote.as_ref().map_or_else(|| name.clone(), |remote| format!("{remote}:{name}"));
            repo.set_ref(&target, &commit)?;
        }
    }
    let Counts { metadata, content, bytes } = counts;
    println!("{metadata} metadata, {content} content objects imported; {} content written", size::format(bytes));
    Ok(Exit::Done)
}

/// Refuses a source whose summary says nothing of static deltas.
fn deltas_of(source: &Repo) -> anyhow::Result<()> {
    let facts = match store::summary::read(source.path())?.0 {
        Some(bytes) => store::summary::Summary::decode(&bytes)?.facts,
        None => Default::default(),
    };
    let indexed = facts.get(store::summary::INDEXED_DELTAS).and_then(|value| value.as_bool()) == Some(true);
    if !indexed && !facts.contains_key(store::summary::STATIC_DELTAS) {
        bail!("static deltas are required, and the summary of {} knows of none", source.path().display());
    }
    Ok(())
}

/// What commits must be signed with. The summary is checked here and now.
fn trust(repo: &Repo, source: &Repo, args: &Args) -> anyhow::Result<Trust> {
    let mut trust = Trust::default();
    if !args.gpg_verify && !args.gpg_verify_summary {
        return Ok(trust);
    }
    let remote = args.remote.as_ref().context("name the remote whose keys are trusted with --remote")?;
    let keys = || -> anyhow::Result<Keys> { Ok(Keys::Gpg(repo.remote(remote)?.gpg_keys(repo, Path::new("/"))?)) };
    if args.gpg_verify_summary {
        let (bytes, signatures) = store::summary::read(source.path())?;
        let bytes = bytes.context("the source has no summary, and it must be signed")?;
        Trust::of(keys()?).verify(&bytes, &signatures).context("the summary of the source")?;
    }
    if args.gpg_verify {
        trust.require(vec![keys()?]);
    }
    Ok(trust)
}

#[derive(Default)]
struct Counts {
    metadata: u64,
    content: u64,
    bytes: u64,
}

impl Counts {
    /// Gets a commit by static deltas, or not at all.
    fn pull_deltas(
        &mut self,
        source: &Repo,
        repo: &Repo,
        commit: Checksum,
        args: &Args,
        trust: &Trust,
    ) -> anyhow::Result<()> {
        let url = format!("file://{}", source.path().canonicalize()?.display());
        let mut options = Options::new(url, "", None);
        options.refs = vec![commit.to_string()];
        options.trust = trust.clone();
        (options.ways.updates, options.ways.objects) = (false, false);
        options.select = Select {
            depth: u32::try_from(args.depth).map_or(Depth::All, Depth::Parents),
            commit_only: args.commit_metadata_only,
            bareuseronly: args.bareuseronly_files,
            ..Select::default()
        };
        let outcome = pull::http(&options, repo)?;
        self.metadata += outcome.fetched.saturating_sub(outcome.files) + outcome.new_commits;
        self.content += outcome.files;
        self.bytes += outcome.bytes;
        Ok(())
    }

    fn pull(
        &mut self,
        source: &Repo,
        repo: &Repo,
        commit: Checksum,
        depth: i64,
        options: &LocalOptions<'_>,
    ) -> anyhow::Result<()> {
        let (mut next, mut left) = (Some(commit), depth);
        while let Some(commit) = next {
            let mut wanted = source.objects_of(&commit)?;
            wanted.retain(|(kind, sum)| !repo.has(*kind, sum));
            pull::local_with(source, repo, &commit, options)?;
            for (kind, checksum) in wanted.into_iter().filter(|(kind, sum)| repo.has(*kind, sum)) {
                if kind == ObjectType::File {
                    self.content += 1;
                    // What both keep alike is copied as it is; the stock tool makes links, and counts nothing.
                    if source.mode() != repo.mode() {
                        self.bytes += repo.load_file_meta(&checksum)?.size;
                    }
                } else {
                    self.metadata += 1;
                }
            }
            let parent = source.load_commit(&commit)?.parent;
            next = parent.filter(|parent| left != 0 && source.has(ObjectType::Commit, parent));
            left -= 1;
        }
        Ok(())
    }
}
