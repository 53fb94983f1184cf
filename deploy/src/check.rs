//! `host fsck`: everything that a deployment stands on, read and compared.
//!
//! ```text
//! objects      read on all cores; checksum compared, fs-verity there where the machine relies on it
//! images       .ostree.cfs has the digest that the commit names
//! kernels      linux and initrd on the ESP hash to the name of their directory
//! deployments  have an /etc, and an entry unless they are staged
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};

use serde::Serialize;
use sha2::{Digest, Sha256};
use store::fsck::{self, Options};
use store::{Checksum, Entry, ObjectType, Repo, object_path, verity};

use crate::Machine;
use crate::execute::IMAGE;
use crate::paths::Paths;
use crate::state::State;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// `file`, `dirtree`, `dirmeta`, `commit`, `image`, `kernel`, `etc`, `entry`.
    pub kind: String,
    /// The object, deployment or directory.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
    /// Where people meet it: `2: /usr/bin/true`.
    pub paths: Vec<String>,
    /// Whether it was removed, so that a repair fetches it again.
    pub removed: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Objects that were read.
    pub objects: u64,
    /// Commits that were followed.
    pub commits: u64,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

/// Whether damaged objects are removed, so that a pull fetches them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// They stay.
    Keep,
    /// They go.
    Remove,
}

/// How many paths of one damaged object are named.
const MAX_PATHS: usize = 20;

/// Checks everything.
pub fn check(machine: &Machine, paths: &Paths, repo: &Repo, damaged: Damaged) -> Result<Report, store::Error> {
    let options = Options { delete: damaged == Damaged::Remove, threads: 0 };
    let checked = fsck::fsck(repo, &options)?;
    let mut report = Report { objects: checked.objects, commits: checked.commits, findings: Vec::new() };
    for problem in checked.problems {
        report.findings.push(Finding {
            kind: problem.kind,
            name: problem.checksum.to_string(),
            why: problem.why,
            paths: Vec::new(),
            removed: problem.deleted,
        });
    }
    let relies_on_verity = machine.booted.level != "unverified";
    if relies_on_verity {
        unsealed(repo, damaged, &mut report)?;
    }
    name_paths(machine, repo, &mut report);
    for deployment in &machine.deployments {
        let label = deployment.label();
        let mut add = |kind: &str, why: String| {
            let (kind, name) = (kind.to_owned(), deployment.id.to_string());
            report.findings.push(Finding {
                kind,
                name,
                why: format!("{label}: {why}"),
                paths: Vec::new(),
                removed: false,
            });
        };
        let dir = paths.deployment(&machine.os, &deployment.id);
        if let Some(why) = image(&dir.join(IMAGE), deployment.state.digest.as_deref(), relies_on_verity) {
            add("image", why);
        }
        if deployment.state.state == State::Staged {
            continue;
        }
        if !dir.join("etc").is_dir() {
            add("etc", "it has no /etc".to_owned());
        }
        if deployment.entries.is_empty() && deployment.state.state != State::Bad {
            add("entry", "it has no boot entry; `host bless` writes it".to_owned());
        }
    }
    kernels(machine, paths, &mut report);
    report.findings.sort();
    Ok(report)
}

/// File objects without fs-verity cannot be read through the mounted tree.
fn unsealed(repo: &Repo, damaged: Damaged, report: &mut Report) -> Result<(), store::Error> {
    let known: HashSet<String> = report.findings.iter().map(|f| f.name.clone()).collect();
    for (kind, checksum) in repo.all_objects()? {
        if kind != ObjectType::File || known.contains(&checksum.to_string()) {
            continue;
        }
        let path = repo.path().join("objects").join(object_path(kind, &checksum));
        let Err(error) = File::open(&path).and_then(|file| verity::measure(&file)) else { continue };
        let removed = damaged == Damaged::Remove && sys::file::remove(&path).is_ok();
        report.findings.push(Finding {
            kind: kind.to_string(),
            name: checksum.to_string(),
            why: format!("it has no fs-verity: {error}"),
            paths: Vec::new(),
            removed,
        });
    }
    Ok(())
}

/// Finds the paths that damaged file objects have in deployments.
fn name_paths(machine: &Machine, repo: &Repo, report: &mut Report) {
    let mut wanted: BTreeMap<Checksum, Vec<String>> = report
        .findings
        .iter()
        .filter(|f| f.kind == "file")
        .filter_map(|f| f.name.parse().ok())
        .map(|checksum| (checksum, Vec::new()))
        .collect();
    if wanted.is_empty() {
        return;
    }
    for deployment in &machine.deployments {
        let label = deployment.label();
        // A damaged directory hides what is in it; it is a finding of its own.
        let _ = repo.walk(&deployment.id.commit, |path, entry| {
            if let Entry::File { checksum } = entry {
                if let Some(paths) = wanted.get_mut(&checksum).filter(|p| p.len() < MAX_PATHS) {
                    paths.push(format!("{label}: {path}"));
                }
            }
            Ok(())
        });
    }
    for finding in &mut report.findings {
        if let Some(paths) = finding.name.parse().ok().and_then(|c: Checksum| wanted.get(&c)) {
            finding.paths.clone_from(paths);
        }
    }
}

fn image(path: &std::path::Path, wanted: Option<&str>, sealed: bool) -> Option<String> {
    let digest =
        File::open(path).and_then(|file| if sealed { verity::measure(&file) } else { verity::digest_of(file) });
    match digest {
        Err(error) => Some(format!("{IMAGE}: {error}")),
        Ok(found) => {
            let found = hex::encode(found);
            let wanted = wanted.filter(|w| *w != found)?;
            Some(format!("{IMAGE} has digest {found}, the commit says {wanted}"))
        }
    }
}

fn kernels(machine: &Machine, paths: &Paths, report: &mut Report) {
    let used: HashSet<&str> = machine.deployments.iter().map(|d| d.state.bootcsum.as_str()).collect();
    for bootcsum in used.into_iter().filter(|b| !b.is_empty()) {
        let dir = paths.esp().join(bootloader::boot_directory(bootcsum));
        let why = match hash(&dir) {
            Ok(found) if found == bootcsum => continue,
            Ok(found) => format!("linux and initrd hash to {found}"),
            Err(error) => error.to_string(),
        };
        let (kind, name) = ("kernel".to_owned(), bootcsum.to_owned());
        report.findings.push(Finding { kind, name, why, paths: vec![dir.display().to_string()], removed: false });
    }
}

fn hash(dir: &std::path::Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    for name in ["linux", "initrd"] {
        let mut file = File::open(dir.join(name))?;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
        }
    }
    Ok(hex::encode(hasher.finalize()))
}
