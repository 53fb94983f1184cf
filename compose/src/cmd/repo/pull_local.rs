//! `repo pull-local`: refs of another repository on this machine.

use std::path::PathBuf;

use store::pull::{self, LocalOptions};
use store::{Checksum, ObjectType, Repo, Verity};
use sys::Exit;

use super::{At, left_out, size};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository to copy from.
    #[arg(value_name = "SRC_REPO")]
    source: PathBuf,
    /// Refs, or commits by checksum; without any, every ref.
    refs: Vec<String>,
    /// Left out.
    #[arg(long, hide = true)]
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
    /// Left out.
    #[arg(long, hide = true)]
    bareuseronly_files: bool,
    /// Left out.
    #[arg(long, hide = true)]
    require_static_deltas: bool,
    /// Use no static deltas; between local repositories none are used.
    #[arg(long)]
    disable_static_deltas: bool,
    /// Left out.
    #[arg(long, hide = true)]
    gpg_verify: bool,
    /// Left out.
    #[arg(long, hide = true)]
    gpg_verify_summary: bool,
    /// Take commits that belong to other refs.
    #[arg(long)]
    disable_verify_bindings: bool,
    /// Parents to copy; -1 copies all.
    #[arg(long, default_value_t = 0)]
    depth: i64,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    left_out(&[
        ("pull-local --commit-metadata-only", args.commit_metadata_only),
        ("pull-local --bareuseronly-files", args.bareuseronly_files),
        ("pull-local --require-static-deltas", args.require_static_deltas),
        ("pull-local --gpg-verify", args.gpg_verify),
        ("pull-local --gpg-verify-summary", args.gpg_verify_summary),
    ])?;
    let mut repo = at.open()?;
    if args.disable_fsync {
        repo = repo.without_fsync();
    }
    let source = Repo::open(&args.source)?;
    let refs = if args.refs.is_empty() { source.refs()?.into_keys().collect() } else { args.refs.clone() };
    let mut counts = Counts::default();
    for name in refs {
        let is_commit = name.parse::<Checksum>().is_ok();
        let commit = source.resolve(&name)?;
        if !is_commit && !args.disable_verify_bindings {
            store::commit::check_binding(&source.load_commit(&commit)?, &name)?;
        }
        counts.pull(&source, &repo, commit, args.depth)?;
        if !is_commit {
            let target = args.remote.as_ref().map_or_else(|| name.clone(), |remote| format!("{remote}:{name}"));
            repo.set_ref(&target, &commit)?;
        }
    }
    let Counts { metadata, content, bytes } = counts;
    println!("{metadata} metadata, {content} content objects imported; {} content written", size::format(bytes));
    Ok(Exit::Done)
}

#[derive(Default)]
struct Counts {
    metadata: u64,
    content: u64,
    bytes: u64,
}

impl Counts {
    fn pull(&mut self, source: &Repo, repo: &Repo, commit: Checksum, depth: i64) -> anyhow::Result<()> {
        let options = LocalOptions { verity: Verity::default(), ..LocalOptions::default() };
        let (mut next, mut left) = (Some(commit), depth);
        while let Some(commit) = next {
            let missing: Vec<_> =
                source.objects_of(&commit)?.into_iter().filter(|(kind, sum)| !repo.has(*kind, sum)).collect();
            pull::local_with(source, repo, &commit, &options)?;
            for (kind, checksum) in missing {
                if kind == ObjectType::File {
                    self.content += 1;
                    self.bytes += repo.load_file_meta(&checksum)?.size;
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
