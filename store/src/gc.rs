//! Deleting what nobody needs.

use crate::object::ObjectType;
use crate::repo::Objects;
use crate::{Checksum, Error, Repo};

/// What a prune keeps and does.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Commits to keep besides those that refs point to.
    pub keep: Vec<Checksum>,
    /// How many parents of each kept commit stay; `None` keeps all that are there.
    pub depth: Option<u64>,
    /// Only count.
    pub dry_run: bool,
}

/// What a prune found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pruned {
    /// Objects that were there.
    pub total: u64,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Bytes that they occupied.
    pub bytes: u64,
}

/// Deletes every object that no ref and no commit in `keep` needs. It may be interrupted and repeated: commits go
/// first, so what is left of an interrupted prune is never a commit without its objects.
pub fn prune(repo: &Repo, options: &Options) -> Result<Pruned, Error> {
    let _lock = repo.lock_exclusive()?;
    let mut commits = std::collections::HashSet::new();
    let mut needed = Objects::default();
    let roots = repo.ref_targets()?.into_iter().map(|(_, commit)| commit).chain(options.keep.iter().copied());
    for root in roots {
        let mut next = Some((root, 0u64));
        while let Some((checksum, distance)) = next.take() {
            let commit = match repo.load_commit(&checksum) {
                Ok(commit) => commit,
                // The parent of a commit that was pulled without its history.
                Err(Error::Missing { .. }) if distance > 0 => break,
                Err(error) => return Err(error),
            };
            // A commit seen at a greater distance may stop too early; go on from here all the same.
            commits.insert(checksum);
            reach(repo, &checksum, &commit, &mut needed)?;
            if options.depth.is_none_or(|depth| distance < depth) {
                next = commit.parent.map(|parent| (parent, distance + 1));
            }
        }
    }
    let mut pruned = Pruned::default();
    let mut objects = repo.all_objects()?;
    objects.sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
    for (kind, checksum) in objects {
        pruned.total += 1;
        let keep = match kind {
            ObjectType::Commit => commits.contains(&checksum),
            ObjectType::DirTree => needed.dirtrees.contains(&checksum),
            ObjectType::DirMeta => needed.dirmetas.contains(&checksum),
            ObjectType::File => needed.files.contains(&checksum),
        };
        if !keep {
            pruned.deleted += 1;
            pruned.bytes += repo.stored_size(kind, &checksum).unwrap_or(0);
            if !options.dry_run {
                repo.delete_object(kind, &checksum)?;
            }
        }
    }
    Ok(pruned)
}

fn reach(repo: &Repo, checksum: &Checksum, commit: &crate::Commit, needed: &mut Objects) -> Result<(), Error> {
    match repo.reach(&commit.root_tree, &commit.root_meta, needed) {
        // What was fetched of a commit whose pull was interrupted is kept as far as it is known.
        Err(Error::Missing { .. }) if repo.is_partial(checksum) => Ok(()),
        result => result,
    }
}
