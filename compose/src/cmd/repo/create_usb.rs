//! `repo create-usb`: refs of a collection, in a repository on a removable disk, where finders look for it.
//!
//! ```text
//! MOUNT/.ostree/repo               an archive; with --destination-repo elsewhere, and then
//! MOUNT/.ostree/repos.d/NN-generated → it
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use store::pull::{self, LocalOptions};
use store::{Checksum, Mode, Repo, summary};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the disk is mounted.
    mount_path: PathBuf,
    /// COLLECTION-ID REF, and again.
    #[arg(required = true, value_name = "COLLECTION-ID REF")]
    refs: Vec<String>,
    /// Do not wait for the disk.
    #[arg(long)]
    disable_fsync: bool,
    /// The repository's place on the disk.
    #[arg(long, value_name = "DEST", default_value = ".ostree/repo")]
    destination_repo: String,
    /// This commit of the one ref.
    #[arg(long)]
    commit: Option<String>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let source = at.open()?;
    if args.refs.len() % 2 != 0 {
        bail!("refs are given as pairs: COLLECTION-ID REF");
    }
    if args.commit.is_some() && args.refs.len() > 2 {
        bail!("--commit is for one ref");
    }
    if Path::new(&args.destination_repo).is_absolute() || args.destination_repo.split('/').any(|part| part == "..") {
        bail!("--destination-repo must lie below the mount path");
    }
    let wanted: Vec<(&str, &str, Checksum)> =
        args.refs.chunks(2).map(|pair| find(&source, args, &pair[0], &pair[1])).collect::<Result<_, _>>()?;

    let path = args.mount_path.join(&args.destination_repo);
    fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut target = Repo::create(&path, Mode::Archive)?;
    if args.disable_fsync {
        target = target.without_fsync();
    }
    let _shared = target.lock_shared()?;
    for (id, name, commit) in &wanted {
        pull::local_with(&source, &target, commit, &LocalOptions::default())?;
        target.set_mirror_ref(id, name, commit)?;
    }
    summary::write(&target)?;
    link(args)?;
    let count = wanted.len();
    println!(
        "Copied {count}/{count} refs successfully from ‘{}’ to ‘{}’ repository in ‘{}’.",
        fs::canonicalize(source.path())?.display(),
        args.destination_repo,
        args.mount_path.display()
    );
    Ok(Exit::Done)
}

/// A ref of a collection: the repository's own, a mirrored one, or that of a remote.
fn find<'a>(source: &Repo, args: &Args, id: &'a str, name: &'a str) -> anyhow::Result<(&'a str, &'a str, Checksum)> {
    let refs = source.collection_refs()?;
    let found = refs.get(&(id.to_owned(), name.to_owned()));
    let commit = found.with_context(|| format!("there is no ref ({id}, {name})"))?;
    match &args.commit {
        Some(commit) => Ok((id, name, commit.parse().context("--commit wants a whole checksum")?)),
        None => Ok((id, name, *commit)),
    }
}

/// A name in `repos.d` for a repository that is not where finders look anyway.
fn link(args: &Args) -> anyhow::Result<()> {
    if matches!(args.destination_repo.as_str(), "ostree/repo" | ".ostree/repo") {
        return Ok(());
    }
    let dir = args.mount_path.join(".ostree/repos.d");
    fs::create_dir_all(&dir)?;
    let target = format!("../../{}", args.destination_repo);
    for number in 0..100 {
        let name = dir.join(format!("{number:02}-generated"));
        match std::os::unix::fs::symlink(&target, &name) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if fs::canonicalize(&name).ok() == fs::canonicalize(args.mount_path.join(&args.destination_repo)).ok() {
                    return Ok(());
                }
            }
            result => return result.with_context(|| format!("creating {}", name.display())),
        }
    }
    bail!("{} is full", dir.display())
}
