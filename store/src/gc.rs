//! Deleting what nobody needs.
//!
//! ```text
//! roots    refs, those mirrored of other collections too (each to its own depth or age), commits that are named, or
//!          every commit there is
//! reach    commits and all below them → a set
//! sweep    commits first, then the rest: an interrupted prune never leaves a commit without its objects
//! ```

use std::collections::{BTreeMap, HashSet};

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
    /// Refs with a depth of their own.
    pub branches: BTreeMap<String, Option<u64>>,
    /// For refs without a depth of their own: keep what is not older than this, and always the commit a ref points to.
    pub younger_than: Option<u64>,
    /// Keep the commit of each ref below this name whatever else is said, and nothing before it: releases.
    pub tags: Option<String>,
    /// Keep every commit; only what no commit needs goes.
    pub all_commits: bool,
    /// Look at commits only, and delete no other object.
    pub commits_only: bool,
    /// Only count.
    pub dry_run: bool,
    /// Delete no object that came here after this time, in seconds since 1970: someone may be writing the commit that
    /// needs it, or reading one that was replaced.
    pub not_after: Option<u64>,
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

/// Deletes every object that nothing to be kept needs. It may be interrupted and repeated: commits go first, so what is
/// left of an interrupted prune is never a commit without its objects.
pub fn prune(repo: &Repo, options: &Options) -> Result<Pruned, Error> {
    let _lock = repo.lock_exclusive()?;
    let mut kept = Kept { repo, options, commits: HashSet::new(), needed: Objects::default() };
    for (name, commit) in repo.ref_roots()? {
        let tag = options.tags.as_ref().and_then(|tags| name.strip_prefix(tags.as_str()));
        if tag.is_some_and(|rest| rest.starts_with('/')) {
            kept.history(commit, Some(0))?;
        } else if let Some(depth) = options.branches.get(&name) {
            kept.history(commit, *depth)?;
        } else if let Some(time) = options.younger_than {
            kept.younger(commit, time)?;
        } else {
            kept.history(commit, options.depth)?;
        }
    }
    for commit in &options.keep {
        kept.history(*commit, options.depth)?;
    }
    if options.all_commits {
        for commit in repo.commits()? {
            kept.history(commit, Some(0))?;
        }
    }
    sweep(repo, options, &kept)
}

struct Kept<'a> {
    repo: &'a Repo,
    options: &'a Options,
    commits: HashSet<Checksum>,
    needed: Objects,
}

impl Kept<'_> {
    /// Keeps a commit and as many of its parents.
    fn history(&mut self, root: Checksum, depth: Option<u64>) -> Result<(), Error> {
        let mut next = Some((root, 0u64));
        while let Some((checksum, distance)) = next.take() {
            // A commit seen at a greater distance may have stopped too early; go on from here all the same.
            let Some(commit) = self.commit(&checksum, distance > 0)? else { break };
            if depth.is_none_or(|depth| distance < depth) {
                next = commit.parent.map(|parent| (parent, distance + 1));
            }
        }
        Ok(())
    }

    /// Keeps a commit, and its parents down to the first that is older than `time`.
    fn younger(&mut self, root: Checksum, time: u64) -> Result<(), Error> {
        let mut next = Some(root);
        while let Some(checksum) = next.take() {
            let first = checksum == root;
            let commit = match self.repo.load_commit(&checksum) {
                Err(Error::Missing { .. }) if !first => break,
                commit => commit?,
            };
            if !first && commit.timestamp < time {
                break;
            }
            self.commit(&checksum, true)?;
            next = commit.parent.filter(|_| commit.timestamp >= time);
        }
        Ok(())
    }

    fn commit(&mut self, checksum: &Checksum, may_miss: bool) -> Result<Option<crate::Commit>, Error> {
        let commit = match self.repo.load_commit(checksum) {
            // The parent of a commit that was pulled without its history.
            Err(Error::Missing { .. }) if may_miss => return Ok(None),
            commit => commit?,
        };
        if self.commits.insert(*checksum) && !self.options.commits_only {
            match self.repo.reach(&commit.root_tree, &commit.root_meta, &mut self.needed) {
                // What was fetched of a commit whose pull was interrupted is kept as far as it is known.
                Err(Error::Missing { .. }) if self.repo.is_partial(checksum) => {}
                result => result?,
            }
        }
        Ok(Some(commit))
    }
}

fn sweep(repo: &Repo, options: &Options, kept: &Kept<'_>) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    let mut objects = repo.all_objects()?;
    objects.sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
    let tombstones = repo.tombstones()?;
    for (kind, checksum) in objects {
        if options.commits_only && kind != ObjectType::Commit {
            continue;
        }
        pruned.total += 1;
        let keep = match kind {
            ObjectType::Commit => kept.commits.contains(&checksum),
            ObjectType::DirTree => kept.needed.dirtrees.contains(&checksum),
            ObjectType::DirMeta => kept.needed.dirmetas.contains(&checksum),
            ObjectType::File => kept.needed.files.contains(&checksum),
        };
        if keep || options.not_after.is_some_and(|time| repo.arrived(kind, &checksum).is_none_or(|at| at > time)) {
            continue;
        }
        pruned.deleted += 1;
        pruned.bytes += repo.stored_size(kind, &checksum).unwrap_or(0);
        if !options.dry_run {
            if kind == ObjectType::Commit && tombstones {
                repo.write_tombstone(&checksum)?;
            }
            repo.delete_object(kind, &checksum)?;
        }
    }
    Ok(pruned)
}

/// Deletes one commit that no ref points to, and remembers that it was deleted on purpose: its name becomes a
/// tombstone, and so do those of all commits that are deleted from now on.
pub fn delete_commit(repo: &Repo, commit: &Checksum) -> Result<(), Error> {
    let _lock = repo.lock_exclusive()?;
    if let Some((name, _)) = repo.ref_roots()?.into_iter().find(|(_, target)| target == commit) {
        return Err(Error::invalid(format!("commit {commit} is what ref {name} points to")));
    }
    if !repo.has(ObjectType::Commit, commit) {
        return Err(Error::Missing { kind: ObjectType::Commit, checksum: *commit });
    }
    enable_tombstones(repo)?;
    repo.write_tombstone(commit)?;
    repo.delete_object(ObjectType::Commit, commit)
}

/// From now on a deleted commit leaves a tombstone.
pub fn enable_tombstones(repo: &Repo) -> Result<(), Error> {
    if !repo.tombstones()? {
        let mut config = repo.config()?;
        config.set("core", "tombstone-commits", "true");
        repo.write_config(&config)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Builder;
    use crate::import::{self, Node};
    use crate::object::FileMeta;
    use crate::{DirMeta, Mode};

    /// A history of commits, each with one file of its own, made at the times 100, 200, …
    fn history(dir: &std::path::Path, count: u64) -> (Repo, Vec<Checksum>) {
        let repo = Repo::create(dir, Mode::Archive).unwrap().without_fsync();
        let mut commits: Vec<Checksum> = Vec::new();
        for n in 1..=count {
            let file = Node::File(FileMeta::regular(0o644, 0), n.to_string().into_bytes());
            let tree = Node::Dir(DirMeta::root(0o755), BTreeMap::from([("f".into(), file)]));
            let tree = import::tree(&repo, &tree).unwrap();
            let mut builder = Builder::new(tree.root_tree, tree.root_meta, n * 100);
            builder.parent = commits.last().copied();
            commits.push(builder.write(&repo).unwrap());
        }
        repo.set_ref("os/main", commits.last().unwrap()).unwrap();
        (repo, commits)
    }

    fn left(repo: &Repo, commits: &[Checksum]) -> Vec<usize> {
        let here = |at: &usize| repo.has(ObjectType::Commit, &commits[*at]);
        (0..commits.len()).filter(here).collect()
    }

    #[test]
    fn depth_age_and_tags_say_what_stays() {
        let cases: [(Options, &[usize]); 6] = [
            (Options::default(), &[0, 1, 2, 3, 4]),
            (Options { depth: Some(1), ..Options::default() }, &[3, 4]),
            (Options { younger_than: Some(250), ..Options::default() }, &[2, 3, 4]),
            (Options { younger_than: Some(900), ..Options::default() }, &[4]),
            (Options { depth: Some(0), tags: Some("tags".into()), ..Options::default() }, &[1, 4]),
            (Options { depth: Some(0), all_commits: true, ..Options::default() }, &[0, 1, 2, 3, 4]),
        ];
        for (options, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let (repo, commits) = history(&dir.path().join("repo"), 5);
            if options.tags.is_some() {
                repo.set_ref("tags/1", &commits[1]).unwrap();
            }
            let dry = prune(&repo, &Options { dry_run: true, ..options.clone() }).unwrap();
            assert_eq!(left(&repo, &commits).len(), 5, "nothing was deleted: {options:?}");
            assert_eq!(prune(&repo, &options).unwrap(), dry, "{options:?}");
            assert_eq!(left(&repo, &commits), expected, "{options:?}");
            let report = crate::fsck::fsck(&repo, &crate::fsck::Options::default()).unwrap();
            assert_eq!(report.problems, [], "{options:?}");
        }
    }

    #[test]
    fn a_branch_has_its_own_depth() {
        let dir = tempfile::tempdir().unwrap();
        let (repo, commits) = history(&dir.path().join("repo"), 4);
        repo.set_ref("os/old", &commits[1]).unwrap();
        let branches = BTreeMap::from([("os/old".to_owned(), None)]);
        prune(&repo, &Options { depth: Some(0), branches, ..Options::default() }).unwrap();
        assert_eq!(left(&repo, &commits), [0, 1, 3]);
    }

    #[test]
    fn what_came_lately_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (repo, commits) = history(&dir.path().join("repo"), 3);
        let recent = Options { depth: Some(0), not_after: Some(sys::clock::now() - 3600), ..Options::default() };
        assert_eq!(prune(&repo, &recent).unwrap().deleted, 0);
        let all = Options { not_after: Some(sys::clock::now() + 3600), ..recent };
        assert_eq!(prune(&repo, &all).unwrap().deleted, 6);
        assert_eq!(left(&repo, &commits), [2]);
    }

    /// A repository on a stick holds nothing but such refs.
    #[test]
    fn what_is_mirrored_of_another_collection_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (repo, commits) = history(&dir.path().join("repo"), 3);
        repo.set_mirror_ref("org.example.Os", "os/main", &commits[0]).unwrap();
        let options = Options { depth: Some(0), ..Options::default() };
        prune(&repo, &options).unwrap();
        assert_eq!(left(&repo, &commits), [0, 2]);
        let error = delete_commit(&repo, &commits[0]).unwrap_err().to_string();
        assert!(error.contains("(org.example.Os, os/main)"), "{error}");
        prune(&repo, &Options { younger_than: Some(900), ..Options::default() }).unwrap();
        assert_eq!(left(&repo, &commits), [0, 2]);
        // One whose commit went is what a check finds.
        repo.delete_object(ObjectType::Commit, &commits[0]).unwrap();
        let report = crate::fsck::fsck(&repo, &crate::fsck::Options::default()).unwrap();
        assert!(report.problems.iter().any(|problem| problem.missing && problem.checksum == commits[0]));
    }

    #[test]
    fn a_deleted_commit_leaves_a_tombstone() {
        let dir = tempfile::tempdir().unwrap();
        let (repo, commits) = history(&dir.path().join("repo"), 2);
        let error = delete_commit(&repo, &commits[1]).unwrap_err().to_string();
        assert!(error.contains("ref os/main"), "{error}");
        delete_commit(&repo, &commits[0]).unwrap();
        let path = crate::object::path_with_extension(&commits[0], "tombstone-commit");
        assert!(repo.path().join("objects").join(path).is_file());
        assert_eq!(repo.config_value("core", "tombstone-commits").unwrap().as_deref(), Some("true"));
    }
}
