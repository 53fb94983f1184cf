//! Carries out a plan, one function for each step. Chooses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use bootloader::{Esp, EspError};
use store::{Checksum, Repo, Verity, verity};

use crate::DeploymentId;
use crate::etc::{self, ApplyError, Sources};
use crate::first::{self, FirstError};
use crate::json::{self, JsonError};
use crate::paths::Paths;
use crate::plan::{Plan, Step};
use crate::tree::{Tree, TreeError};

/// The name of a deployment's image.
pub const IMAGE: &str = ".ostree.cfs";

/// Where a plan is carried out.
pub struct Context<'a> {
    /// The machine.
    pub paths: &'a Paths,
    /// The stateroot.
    pub os: String,
    /// Its repository.
    pub repo: &'a Repo,
    /// Whether images must have fs-verity.
    pub verity: Verity,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// Reading the commit.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The repository.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The EROFS image.
    #[error(transparent)]
    Image(#[from] FirstError),
    /// A state file.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The ESP.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The merge of `/etc`.
    #[error("merging /etc")]
    Etc(#[from] ApplyError),
    /// `/etc` changed in a way that has no answer since the deployment was staged.
    #[error("/etc cannot be merged: {0}")]
    Conflict(String),
    /// The image on disk is not the one that was meant.
    #[error("the image of {id} has digest {found} on disk, {wanted} is wanted")]
    Digest {
        /// The deployment.
        id: String,
        /// As measured.
        found: String,
        /// As planned.
        wanted: String,
    },
    /// The file system.
    #[error("{0}")]
    Io(String, #[source] io::Error),
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExecuteError {
    let what = format!("{what} {}", path.display());
    move |e| ExecuteError::Io(what, e)
}

/// Carries out all steps.
pub fn run(plan: &Plan, context: &Context<'_>) -> Result<(), ExecuteError> {
    plan.steps.iter().try_for_each(|step| run_step(step, context))
}

/// Carries out one step.
pub fn run_step(step: &Step, context: &Context<'_>) -> Result<(), ExecuteError> {
    tracing::debug!("{step}");
    let (paths, os) = (context.paths, context.os.as_str());
    let esp = Esp::new(paths.esp());
    match step {
        Step::KeepCommit { id } => Ok(context.repo.set_ref(&deployment_ref(os, id), &id.commit)?),
        Step::WriteImage { id, digest, .. } => write_image(context, id, digest.as_deref()),
        Step::InstallKernel { bootcsum, commit, .. } => install_kernel(context, &esp, bootcsum, commit),
        Step::WriteOrigin { id, ref_name } => {
            let path = paths.origin(os, id);
            sys::file::replace(&path, &first::origin(ref_name.as_deref()), 0o644).map_err(io("writing", &path))
        }
        Step::WriteState { id, state } => Ok(json::write(&paths.state(os, id), state)?),
        Step::MergeEtc { id } => merge_etc(context, id).map(drop),
        Step::RemoveStamps => {
            let path = paths.root().join("var/.updated");
            sys::file::remove(&path).map_err(io("removing", &path))
        }
        Step::Sync => {
            let sysroot = paths.sysroot();
            sys::file::sync_fs(&sysroot).map_err(io("syncing", &sysroot))?;
            Ok(esp.sync_all()?)
        }
        Step::WriteEntry { file, entry } => Ok(esp.write_entry(file, entry)?),
        Step::RemoveEntry { file } => Ok(esp.remove_entry(file)?),
        Step::WriteBadMarks { marks } => Ok(json::write(&paths.bad_marks(os), marks)?),
        Step::RemoveDeployment { id } => remove_deployment(context, id),
        Step::RemoveLeftover { name } => {
            let path = paths.deployments(os).join(name);
            remove_any(&path).map_err(io("removing", &path))?;
            match name.parse::<DeploymentId>() {
                Ok(id) => Ok(context.repo.delete_ref(&deployment_ref(os, &id))?),
                Err(_) => Ok(()),
            }
        }
        Step::RemoveKernel { bootcsum } => Ok(esp.remove_kernel(bootcsum)?),
        Step::CollectGarbage { keep, forget } => collect(context, keep, forget),
    }
}

/// The ref that keeps a deployment's objects.
pub fn deployment_ref(os: &str, id: &DeploymentId) -> String {
    format!("slipway/{os}/{id}")
}

fn write_image(context: &Context<'_>, id: &DeploymentId, wanted: Option<&str>) -> Result<(), ExecuteError> {
    let dir = context.paths.deployment(&context.os, id);
    fs::create_dir_all(&dir).map_err(io("creating", &dir))?;
    let path = dir.join(IMAGE);
    let tree = Tree::open(context.repo, &id.commit)?;
    let image = first::checked_image(&tree)?;
    let expected = wanted.map_or_else(|| hex::encode(image.digest), str::to_owned);
    if hex::encode(image.digest) != expected {
        let found = hex::encode(image.digest);
        return Err(ExecuteError::Digest { id: id.short(), found, wanted: expected });
    }
    // A file with fs-verity cannot be written to: an earlier try is replaced, not repaired.
    let temporary = dir.join(".ostree.cfs.new");
    sys::file::remove(&temporary).map_err(io("removing", &temporary))?;
    let mut file = fs::File::create(&temporary).map_err(io("creating", &temporary))?;
    file.write_all(&image.bytes).and_then(|()| file.sync_all()).map_err(io("writing", &temporary))?;
    drop(file);
    if context.verity != Verity::Off {
        let file = fs::File::open(&temporary).map_err(io("opening", &temporary))?;
        let sealed = verity::enable(&file).and_then(|()| verity::measure(&file));
        match sealed {
            Ok(digest) if digest != image.digest => {
                let found = hex::encode(digest);
                return Err(ExecuteError::Digest { id: id.short(), found, wanted: expected });
            }
            Ok(_) => {}
            Err(_) if context.verity == Verity::IfSupported => {}
            Err(e) => return Err(io("enabling fs-verity on", &temporary)(e)),
        }
    }
    fs::rename(&temporary, &path).map_err(io("renaming", &temporary))?;
    sys::file::sync_dir(&dir).map_err(io("syncing", &dir))
}

fn install_kernel(context: &Context<'_>, esp: &Esp, bootcsum: &str, commit: &Checksum) -> Result<(), ExecuteError> {
    let tree = Tree::open(context.repo, commit)?;
    let (_, [vmlinuz, initramfs]) = tree.kernel_paths()?;
    for (file, path) in [("linux", vmlinuz), ("initrd", initramfs)] {
        let (_, mut content) = tree.stream(&path)?;
        esp.install_kernel_file(bootcsum, file, &mut content)?;
    }
    Ok(())
}

/// Makes `etc` anew in a directory of its own and puts it in place whole.
fn merge_etc(context: &Context<'_>, id: &DeploymentId) -> Result<Vec<String>, ExecuteError> {
    let (merge, _) = preview_etc(context.paths, context.repo, id)?;
    if !merge.conflicts.is_empty() {
        let texts: Vec<&str> = merge.conflicts.iter().map(|c| c.text.as_str()).collect();
        return Err(ExecuteError::Conflict(texts.join("; ")));
    }
    let dir = context.paths.deployment(&context.os, id);
    let (new, final_) = (dir.join("etc.new"), dir.join("etc"));
    sys::file::remove_tree(&new).map_err(io("removing", &new))?;
    let tree = Tree::open(context.repo, &id.commit)?;
    let (old, live) = (context.paths.usr_etc(), context.paths.etc());
    let notes = etc::write(&merge, &Sources { old: &old, live: &live, new: &tree }, &new)?;
    sys::file::sync_fs(&dir).map_err(io("syncing", &dir))?;
    if final_.exists() {
        // An earlier finalize got this far; it has never booted.
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, &new, CWD, &final_, RenameFlags::EXCHANGE)
            .map_err(|e| io("exchanging", &final_)(e.into()))?;
        sys::file::remove_tree(&new).map_err(io("removing", &new))?;
    } else {
        fs::rename(&new, &final_).map_err(io("renaming", &new))?;
    }
    sys::file::sync_dir(&dir).map_err(io("syncing", &dir))?;
    Ok(notes)
}

/// What the merge would do, and what it would say about accounts. Writes nothing.
pub fn preview_etc(paths: &Paths, repo: &Repo, id: &DeploymentId) -> Result<(etc::Merge, Vec<String>), ExecuteError> {
    preview_commit(paths, repo, &id.commit)
}

/// The same for a commit that has no deployment yet.
pub fn preview_commit(
    paths: &Paths,
    repo: &Repo,
    commit: &Checksum,
) -> Result<(etc::Merge, Vec<String>), ExecuteError> {
    let tree = Tree::open(repo, commit)?;
    let (old_dir, live_dir) = (paths.usr_etc(), paths.etc());
    let old = etc::of_directory(&old_dir).map_err(io("reading", &old_dir))?;
    let live = etc::of_directory(&live_dir).map_err(io("reading", &live_dir))?;
    let new = etc::of_tree(&tree, "usr/etc")?;
    let sources = Sources { old: &old_dir, live: &live_dir, new: &tree };
    let notes = etc::account_notes(&sources)?;
    Ok((etc::merge(&old, &live, &new), notes))
}

fn remove_deployment(context: &Context<'_>, id: &DeploymentId) -> Result<(), ExecuteError> {
    // Without a state file it is a leftover, whatever else a crash leaves.
    for path in [context.paths.state(&context.os, id), context.paths.origin(&context.os, id)] {
        sys::file::remove(&path).map_err(io("removing", &path))?;
    }
    let parent = context.paths.deployments(&context.os);
    sys::file::sync_dir(&parent).map_err(io("syncing", &parent))?;
    let dir = context.paths.deployment(&context.os, id);
    remove_any(&dir).map_err(io("removing", &dir))?;
    Ok(context.repo.delete_ref(&deployment_ref(&context.os, id))?)
}

fn remove_any(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(m) if m.is_dir() => sys::file::remove_tree(path),
        Ok(_) => sys::file::remove(path),
    }
}

fn collect(context: &Context<'_>, keep: &[DeploymentId], forget: &[Checksum]) -> Result<(), ExecuteError> {
    // The first deployment came with the disk: nobody has made its ref yet.
    let wanted: BTreeMap<String, Checksum> =
        keep.iter().map(|id| (deployment_ref(&context.os, id), id.commit)).collect();
    let refs = context.repo.refs()?;
    for (name, commit) in &wanted {
        if refs.get(name) != Some(commit) {
            context.repo.set_ref(name, commit)?;
        }
    }
    let ours = format!("slipway/{}/", context.os);
    for name in refs.keys().filter(|n| n.starts_with(&ours) && !wanted.contains_key(*n)) {
        context.repo.delete_ref(name)?;
    }
    for (name, commit) in context.repo.remote_refs()? {
        if forget.contains(&commit) {
            context.repo.delete_ref(&name)?;
        }
    }
    // A machine keeps deployments, not history.
    let options = store::gc::Options { depth: Some(0), ..Default::default() };
    let pruned = store::gc::prune(context.repo, &options)?;
    tracing::debug!(objects = pruned.deleted, bytes = pruned.bytes, "collected");
    Ok(())
}

/// What a commit needs to become a deployment, read after it was pulled.
pub fn target(paths: &Paths, repo: &Repo, commit: &Checksum, came: Came) -> Result<crate::plan::Target, ExecuteError> {
    let tree = Tree::open(repo, commit)?;
    let info = tree.info()?;
    let kernel = tree.kernel()?;
    let image = first::checked_image(&tree)?;
    let (merge, _) = preview_commit(paths, repo, commit)?;
    let mut etc_size = 0;
    tree.walk::<TreeError>("usr/etc", &mut |_, item| {
        etc_size += 4096;
        if let crate::tree::Visited::File(checksum) = item {
            etc_size += repo.load_file_meta(checksum).map_err(TreeError::from)?.size;
        }
        Ok(())
    })?;
    Ok(crate::plan::Target {
        commit: *commit,
        os: info.os.clone(),
        version: tree.commit.version().map(str::to_owned),
        timestamp: tree.commit.timestamp,
        ref_name: came.ref_name,
        url: came.url,
        signer: came.signer,
        title: tree.title()?,
        bootcsum: kernel.bootcsum,
        kernel_size: kernel.size,
        image_size: image.bytes.len() as u64,
        etc_size,
        digest: tree.commit.composefs_digest().map(hex::encode),
        kargs: info.kargs,
        etc_conflicts: merge.conflicts.into_iter().map(|c| c.text).collect(),
    })
}

/// How a commit came to the machine.
#[derive(Clone, Debug, Default)]
pub struct Came {
    /// By which ref.
    pub ref_name: Option<String>,
    /// From where.
    pub url: Option<String>,
    /// Signed by which trusted key, base64.
    pub signer: Option<String>,
}
