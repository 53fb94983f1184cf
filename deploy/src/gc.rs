//! Removes objects that nothing refers to.

use std::collections::HashSet;
use std::fs;
use std::io;

use store::{Checksum, Error, ObjectType, Objects, Repo};

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects.
    pub objects: u64,
    /// Bytes of content that they held.
    pub bytes: u64,
}

/// Removes every object that no ref, local or remote, leads to. Parents of commits are not followed: a machine keeps
/// deployments, not history.
pub fn collect(repo: &Repo) -> Result<Collected, Error> {
    let _exclusive = repo.lock_exclusive()?;
    let mut commits: HashSet<Checksum> = repo.refs()?.into_values().collect();
    commits.extend(repo.remote_refs()?.into_values());
    let mut reached = Objects::default();
    for commit in &commits {
        if repo.has(ObjectType::Commit, commit) {
            let commit = repo.load_commit(commit)?;
            repo.reach(&commit.root_tree, &commit.root_meta, &mut reached)?;
        }
    }
    let mut collected = Collected::default();
    let objects = repo.path().join("objects");
    let error = |e: io::Error| Error::io(format!("removing objects below {}", objects.display()), e);
    for prefix in fs::read_dir(&objects).map_err(error)? {
        let prefix = prefix.map_err(error)?;
        let first = prefix.file_name().to_string_lossy().into_owned();
        if first.len() != 2 || !prefix.file_type().map_err(error)?.is_dir() {
            continue;
        }
        for object in fs::read_dir(prefix.path()).map_err(error)? {
            let object = object.map_err(error)?;
            let name = object.file_name().to_string_lossy().into_owned();
            let Some((rest, kind)) = name.split_once('.') else { continue };
            // What is not named like an object is not ours to judge.
            let Ok(checksum) = format!("{first}{rest}").parse::<Checksum>() else { continue };
            let wanted = match kind {
                "file" | "filez" => reached.files.contains(&checksum),
                "dirtree" => reached.dirtrees.contains(&checksum),
                "dirmeta" => reached.dirmetas.contains(&checksum),
                "commit" | "commitmeta" => commits.contains(&checksum),
                _ => true,
            };
            if !wanted {
                collected.objects += 1;
                collected.bytes += object.metadata().map_err(error)?.len();
                fs::remove_file(object.path()).map_err(error)?;
            }
        }
    }
    Ok(collected)
}
