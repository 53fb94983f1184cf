//! Putting good copies in the place of what is damaged or missing.
//!
//! ```text
//! problems of a report  ->  fetch from the source, verify  ->  rename over what is there
//!        ^                                  |
//!        '--- what a repaired directory or commit needs, at any depth, and does not find
//! ```
//! The old object stays until the good one has its name: at no moment is there less than before.

use std::collections::HashSet;

use super::{Problem, Report, missing, problem};
use crate::object::{Commit, DirTree, ObjectType};
use crate::pull::{self, PullError, Source};
use crate::repo::Staging;
use crate::{Checksum, Error, Repo};

/// Where good copies come from.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// A repository on this machine, whatever its mode.
    Repo(&'a Repo),
    /// The address of one that is served over HTTP.
    Url(&'a str, &'a pull::Network),
}

/// Repairs what a report says is damaged or missing, and what turns out to be missing below that. What the source does
/// not have stays a problem. Returns how many objects were repaired.
pub fn repair(repo: &Repo, report: &mut Report, from: Origin<'_>) -> Result<u64, PullError> {
    match from {
        Origin::Repo(other) => with_source(repo, report, &pull::local_source(other)),
        Origin::Url(url, network) => with_source(repo, report, &pull::http_source(url, network)?),
    }
}

fn with_source(repo: &Repo, report: &mut Report, source: &dyn Source) -> Result<u64, PullError> {
    let staging = repo.stage()?;
    let mut seen: HashSet<(ObjectType, Checksum)> = HashSet::new();
    let mut next = 0;
    loop {
        while next < report.problems.len() {
            let mut found = Vec::new();
            let problem = &mut report.problems[next];
            let object = problem.object_type().map(|kind| (kind, problem.checksum));
            if let Some((kind, checksum)) = object.filter(|object| seen.insert(*object)) {
                match fetch(&staging, source, kind, &checksum) {
                    Ok(needs) => {
                        problem.repaired = true;
                        found = needs;
                    }
                    // Another source may have it; the report says that it is still a problem.
                    Err(error) => problem.why = format!("{}; no good copy: {error}", problem.why),
                }
            }
            let missing = found.into_iter().filter(|(kind, sum)| !staging.has(*kind, sum));
            report.problems.extend(missing.map(gone));
            next += 1;
        }
        staging.flush()?;
        // What is below a commit that is back, and was never looked at.
        let more: Vec<_> = missing(repo, &repo.all_objects()?)?.into_iter().filter(|o| !seen.contains(o)).collect();
        if more.is_empty() {
            break;
        }
        report.problems.extend(more.into_iter().map(gone));
    }
    report.problems.sort();
    Ok(report.problems.iter().filter(|p| p.repaired).count() as u64)
}

fn gone((kind, checksum): (ObjectType, Checksum)) -> Problem {
    problem(kind, &checksum, &Error::Missing { kind, checksum })
}

/// Fetches one object into the batch; returns what it needs.
fn fetch(
    staging: &Staging<'_>,
    source: &dyn Source,
    kind: ObjectType,
    checksum: &Checksum,
) -> Result<Vec<(ObjectType, Checksum)>, PullError> {
    if kind == ObjectType::File {
        staging.replace(checksum);
        let accept = pull::Accept { size: None, bareuseronly: false };
        source.file(checksum, accept, staging, &|_| {})?;
        return Ok(Vec::new());
    }
    let bytes = source.metadata(kind, checksum)?;
    let found = Checksum::of(&bytes);
    if found != *checksum {
        return Err(Error::Mismatch { kind, expected: *checksum, found }.into());
    }
    let malformed = |source| Error::Malformed { kind, checksum: *checksum, source };
    let mut needs = Vec::new();
    match kind {
        ObjectType::DirTree => {
            let tree = DirTree::decode(&bytes).map_err(malformed)?;
            needs.extend(tree.files.iter().map(|f| (ObjectType::File, f.1)));
            needs.extend(tree.dirs.iter().flat_map(|d| [(ObjectType::DirTree, d.1), (ObjectType::DirMeta, d.2)]));
        }
        ObjectType::Commit => {
            let commit = Commit::decode(&bytes).map_err(malformed)?;
            needs.extend([(ObjectType::DirTree, commit.root_tree), (ObjectType::DirMeta, commit.root_meta)]);
        }
        ObjectType::DirMeta | ObjectType::File => {}
    }
    staging.replace_metadata(kind, checksum, &bytes)?;
    Ok(needs)
}

impl Problem {
    fn object_type(&self) -> Option<ObjectType> {
        let kinds = [ObjectType::File, ObjectType::DirTree, ObjectType::DirMeta, ObjectType::Commit];
        kinds.into_iter().find(|kind| kind.to_string() == self.kind)
    }
}
