//! What is damaged, and what is missing.

mod repair;

pub use repair::{Origin, repair};

use std::collections::{BTreeSet, HashSet};
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
    /// Whether a good copy was put in its place.
    pub repaired: bool,
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
    for (_, checksum) in objects.iter().filter(|(kind, _)| *kind == ObjectType::Commit) {
        report.commits += 1;
        report.partial += u64::from(repo.is_partial(checksum));
    }
    for (kind, checksum) in missing(repo, &objects)? {
        if !bad.contains(&checksum) {
            problems.push(problem(kind, &checksum, &Error::Missing { kind, checksum }));
        }
    }
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
    Problem { kind: kind.to_string(), checksum: *checksum, why, missing, deleted: false, repaired: false }
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

/// Objects that a commit or ref needs and that are not there, sorted. A directory that cannot be read needs nothing.
fn missing(repo: &Repo, objects: &[(ObjectType, Checksum)]) -> Result<Vec<(ObjectType, Checksum)>, Error> {
    let here: HashSet<&(ObjectType, Checksum)> = objects.iter().collect();
    let mut wanted: BTreeSet<(ObjectType, Checksum)> = BTreeSet::new();
    let mut seen = HashSet::new();
    for (_, checksum) in objects.iter().filter(|(kind, _)| *kind == ObjectType::Commit) {
        if repo.is_partial(checksum) {
            continue;
        }
        let Ok(commit) = repo.load_commit(checksum) else { continue };
        wanted.insert((ObjectType::DirMeta, commit.root_meta));
        let mut todo = vec![commit.root_tree];
        while let Some(tree) = todo.pop() {
            if !seen.insert(tree) {
                continue;
            }
            wanted.insert((ObjectType::DirTree, tree));
            let Ok(tree) = repo.load_dirtree(&tree) else { continue };
            wanted.extend(tree.files.iter().map(|f| (ObjectType::File, f.1)));
            wanted.extend(tree.dirs.iter().map(|d| (ObjectType::DirMeta, d.2)));
            todo.extend(tree.dirs.iter().map(|d| d.1));
        }
    }
    wanted.extend(repo.ref_roots()?.into_iter().map(|(_, commit)| (ObjectType::Commit, commit)));
    Ok(wanted.into_iter().filter(|object| !here.contains(object)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{self, Node};
    use crate::{DirMeta, FileMeta, Mode, commit::Builder, pull};
    use std::fs;
    use std::path::{Path, PathBuf};

    fn file(content: &str) -> Node {
        Node::File(FileMeta::regular(0o644, 0), content.as_bytes().to_vec())
    }

    fn dir(nodes: Vec<(&str, Node)>) -> Node {
        Node::Dir(DirMeta::root(0o755), nodes.into_iter().map(|(name, node)| (name.to_owned(), node)).collect())
    }

    fn sample(path: &Path, mode: Mode) -> Repo {
        let repo = Repo::create(path, mode).unwrap().without_fsync();
        let deep = dir(vec![("b", dir(vec![("c", file("deep")), ("d", file(&"long ".repeat(20_000)))]))]);
        let tree = import::tree(&repo, &dir(vec![("a", deep), ("f", file("x"))])).unwrap();
        let commit = Builder::new(tree.root_tree, tree.root_meta, 1).write(&repo).unwrap();
        repo.set_ref("os", &commit).unwrap();
        repo
    }

    fn object(repo: &Repo, kind: ObjectType, checksum: &Checksum) -> PathBuf {
        repo.path().join("objects").join(repo.loose_path(kind, checksum))
    }

    /// Removes a third of the objects and damages another third.
    fn damage(repo: &Repo, spare: Option<ObjectType>) {
        for (number, (kind, checksum)) in repo.all_objects().unwrap().iter().enumerate() {
            let path = object(repo, *kind, checksum);
            if Some(*kind) == spare {
                continue;
            }
            match number % 3 {
                0 => fs::remove_file(path).unwrap(),
                1 => fs::write(&path, &fs::read(&path).unwrap()[1..]).unwrap(),
                _ => {}
            }
        }
    }

    fn serve(repo: &Repo) -> crate::serve::Running {
        let address = ([127, 0, 0, 1], 0).into();
        crate::serve::Server::bind(repo.path(), address, crate::serve::Options::default()).unwrap().spawn().unwrap()
    }

    #[test]
    fn everything_is_found_and_repaired_from_another_repository() {
        for modes in [(Mode::Archive, Mode::BareUser), (Mode::BareUser, Mode::Archive)] {
            let temp = tempfile::tempdir_in("/var/tmp").unwrap();
            let (repo, good) = (sample(&temp.path().join("a"), modes.0), sample(&temp.path().join("b"), modes.1));
            damage(&repo, Some(ObjectType::Commit));
            let mut report = fsck(&repo, &Options::default()).unwrap();
            assert!(report.problems.iter().any(|p| p.missing) && report.problems.iter().any(|p| !p.missing));
            // Without a word nothing is touched.
            let again = fsck(&repo, &Options::default()).unwrap();
            assert_eq!(again.problems, report.problems);
            let count = repair(&repo, &mut report, Origin::Repo(&good)).unwrap();
            assert!(count >= again.problems.len() as u64, "{count}");
            assert_eq!(fsck(&repo, &Options::default()).unwrap().problems, []);
            assert_eq!(repo.all_objects().unwrap(), good.all_objects().unwrap());
        }
    }

    #[test]
    fn a_remote_repairs_too_and_a_bad_one_changes_nothing() {
        let temp = tempfile::tempdir_in("/var/tmp").unwrap();
        let (repo, good) =
            (sample(&temp.path().join("a"), Mode::BareUser), sample(&temp.path().join("b"), Mode::Archive));
        // The commit too: what is missing below it shows only when it is back.
        damage(&repo, None);
        let broken = sample(&temp.path().join("c"), Mode::Archive);
        for (kind, checksum) in broken.all_objects().unwrap() {
            fs::write(object(&broken, kind, &checksum), "nonsense").unwrap();
        }
        let mut report = fsck(&repo, &Options::default()).unwrap();
        let before = report.clone();
        let bad = serve(&broken);
        assert_eq!(repair(&repo, &mut report, Origin::Url(&bad.url(), &pull::Network::default())).unwrap(), 0);
        assert!(report.problems[0].why.contains("no good copy"), "{}", report.problems[0].why);
        assert_eq!(fsck(&repo, &Options::default()).unwrap(), before);
        let server = serve(&good);
        let mut report = before;
        repair(&repo, &mut report, Origin::Url(&server.url(), &pull::Network::default())).unwrap();
        assert_eq!(fsck(&repo, &Options::default()).unwrap().problems, []);
    }
}
