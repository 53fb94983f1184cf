//! What is damaged, and what is missing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::import::{lock, threads};
use crate::object::{DirMeta, DirTree, ObjectType};
use crate::{Checksum, Commit, Error, Repo};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// `file`, `dirtree`, `dirmeta` or `commit`.
    pub kind: String,
    /// The object's name.
    pub checksum: Checksum,
    /// What is wrong with it.
    pub why: String,
    /// Whether it is there at all.
    pub missing: bool,
    /// Whether it was deleted, so that a pull fetches it again.
    pub deleted: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Commits that were looked at.
    pub commits: u64,
    /// Commits of which only a part was ever fetched; what they lack is no problem.
    pub partial: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

/// How a repository is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Delete damaged objects, so that a pull fetches them again.
    pub delete: bool,
    /// Threads; 0 uses every core.
    pub threads: usize,
}

/// Reads every object and compares its checksum; then looks for what commits need and do not find.
pub fn fsck(repo: &Repo, options: &Options) -> Result<Report, Error> {
    let _lock = if options.delete { repo.lock_exclusive()? } else { repo.lock_shared()? };
    let mut report = Report::default();
    let objects = repo.all_objects()?;
    report.objects = objects.len() as u64;

    let problems = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads(options.threads) {
            scope.spawn(|| {
                while let Some((kind, checksum)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = check(repo, *kind, checksum) {
                        lock(&problems).push(problem(*kind, checksum, &error));
                    }
                }
            });
        }
    });
    let mut problems = problems.into_inner().unwrap_or_default();
    if options.delete {
        for problem in &mut problems {
            problem.deleted = delete(repo, problem)?;
        }
    }
    let bad: HashSet<Checksum> = problems.iter().map(|p| p.checksum).collect();
    find_missing(repo, &objects, &bad, &mut report, &mut problems)?;
    problems.sort();
    report.problems = problems;
    Ok(report)
}

fn problem(kind: ObjectType, checksum: &Checksum, error: &Error) -> Problem {
    let why = match error {
        Error::Mismatch { found, .. } => format!("its content has the checksum {found}"),
        Error::Missing { .. } => "it is missing".to_owned(),
        other => {
            let cause = std::error::Error::source(other);
            cause.map_or_else(|| other.to_string(), |cause| format!("{cause}"))
        }
    };
    let missing = matches!(error, Error::Missing { .. });
    Problem { kind: kind.to_string(), checksum: *checksum, why, missing, deleted: false }
}

fn check(repo: &Repo, kind: ObjectType, checksum: &Checksum) -> Result<(), Error> {
    match kind {
        ObjectType::File => repo.verify_file(checksum).map(|_| ()),
        ObjectType::DirTree => repo.load_dirtree(checksum).map(|_: DirTree| ()),
        ObjectType::DirMeta => repo.load_dirmeta(checksum).map(|_: DirMeta| ()),
        ObjectType::Commit => repo.load_commit(checksum).map(|_: Commit| ()),
    }
}

fn delete(repo: &Repo, problem: &Problem) -> Result<bool, Error> {
    let kinds = [ObjectType::File, ObjectType::DirTree, ObjectType::DirMeta, ObjectType::Commit];
    let kind = kinds.into_iter().find(|kind| kind.to_string() == problem.kind);
    match kind {
        // A damaged commit stays: deleting it would make a ref point nowhere. A pull replaces it.
        Some(kind) if kind != ObjectType::Commit => repo.delete_object(kind, &problem.checksum).map(|()| true),
        _ => Ok(false),
    }
}

fn find_missing(
    repo: &Repo,
    objects: &[(ObjectType, Checksum)],
    bad: &HashSet<Checksum>,
    report: &mut Report,
    problems: &mut Vec<Problem>,
) -> Result<(), Error> {
    let here: HashSet<&(ObjectType, Checksum)> = objects.iter().collect();
    let mut wanted: BTreeMap<(ObjectType, Checksum), ()> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (_, checksum) in objects.iter().filter(|(kind, _)| *kind == ObjectType::Commit) {
        report.commits += 1;
        if repo.is_partial(checksum) {
            report.partial += 1;
            continue;
        }
        let Ok(commit) = repo.load_commit(checksum) else { continue };
        wanted.insert((ObjectType::DirMeta, commit.root_meta), ());
        let mut todo = vec![commit.root_tree];
        while let Some(tree) = todo.pop() {
            if !seen.insert(tree) {
                continue;
            }
            wanted.insert((ObjectType::DirTree, tree), ());
            let Ok(tree) = repo.load_dirtree(&tree) else { continue };
            wanted.extend(tree.files.iter().map(|f| ((ObjectType::File, f.1), ())));
            wanted.extend(tree.dirs.iter().map(|d| ((ObjectType::DirMeta, d.2), ())));
            todo.extend(tree.dirs.iter().map(|d| d.1));
        }
    }
    wanted.extend(repo.ref_targets()?.into_iter().map(|(_, commit)| ((ObjectType::Commit, commit), ())));
    for (kind, checksum) in wanted.into_keys().filter(|object| !here.contains(object)) {
        if !bad.contains(&checksum) {
            problems.push(problem(kind, &checksum, &Error::Missing { kind, checksum }));
        }
    }
    Ok(())
}
