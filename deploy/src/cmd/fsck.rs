//! `host fsck`: reads everything; with `--repair` fetches again what is damaged.

use ::deploy::check::{self, Damaged, Finding, Report};
use ::deploy::plan::{Plan, Step};
use serde_json::json;
use store::Checksum;
use store::pull::Remote;
use sys::{Exit, Reporter};

use super::print_json;
use super::session::{Access, Root, Session};
use super::upgrade::{Origin, fetch, options, origin, pull_error};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove damaged objects and fetch them again from the update remote; write damaged kernels again.
    #[arg(long)]
    repair: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(root: &Root, args: Args) -> anyhow::Result<Exit> {
    // Nothing may be removed while it is read, and the repository's lock is a file that must be writable.
    let mut session = Session::open(root, "fsck", Access::Change)?;
    let mut report = look(&session, Damaged::Keep)?;
    let before = report.findings.len();
    if args.repair && before > 0 {
        report = repair(&mut session)?;
    }
    if args.json {
        print_json(&json!({
            "objects": report.objects,
            "commits": report.commits,
            "repaired": before - report.findings.len().min(before),
            "findings": report.findings,
        }));
    } else {
        for finding in &report.findings {
            show(finding);
        }
        if args.repair && before > 0 {
            println!(
                "{} of {before} findings repaired; reboot to be rid of copies in memory",
                before - report.findings.len()
            );
        } else if report.findings.is_empty() {
            println!("{} objects of {} commits are as they should be", report.objects, report.commits);
        } else {
            eprintln!("hint: `host fsck --repair` fetches what is damaged again");
        }
    }
    Ok(if report.findings.is_empty() { Exit::Done } else { Exit::Failed })
}

fn show(finding: &Finding) {
    println!("{} {}: {}", finding.kind, finding.name, finding.why);
    for path in &finding.paths {
        println!("    {path}");
    }
}

fn look(session: &Session, damaged: Damaged) -> anyhow::Result<Report> {
    let step = Reporter::new().step("check", 0);
    let report = check::check(&session.machine, &session.paths, &session.repo, damaged)?;
    step.done(format!("{} objects", report.objects));
    Ok(report)
}

/// Removes what is damaged only after the remote has shown that it can replace it.
fn repair(session: &mut Session) -> anyhow::Result<Report> {
    let origin = origin(&session.machine)?;
    let options = options(session, &origin, true)?;
    let remote = Remote::open(&options).map_err(pull_error)?;
    let mut commits: Vec<(Checksum, String)> =
        session.machine.deployments.iter().map(|d| (d.id.commit, d.label())).collect();
    commits.sort();
    commits.dedup_by_key(|c| c.0);
    let mut offered = Vec::new();
    for (commit, label) in commits {
        offered.push((remote.commit(&commit.to_string(), &session.repo).map_err(pull_error)?, label));
    }
    look(session, Damaged::Remove)?;
    for (verified, label) in &offered {
        let by_commit = Origin { url: origin.url.clone(), name: verified.checksum.to_string() };
        fetch(&options, &by_commit, verified, session, label)?;
    }
    let report = look(session, Damaged::Keep)?;
    let damaged = |kind: &str, name: &str| report.findings.iter().any(|f| f.kind == kind && f.name == name);
    let mut steps = Vec::new();
    for deployment in &session.machine.deployments {
        let (id, state) = (deployment.id, &deployment.state);
        if damaged("kernel", &state.bootcsum) {
            steps.push(Step::InstallKernel { bootcsum: state.bootcsum.clone(), commit: id.commit, size: 0 });
        }
        if damaged("image", &id.to_string()) {
            steps.push(Step::WriteImage { id, digest: state.digest.clone(), size: 0 });
        }
    }
    if steps.is_empty() {
        return Ok(report);
    }
    steps.push(Step::Sync);
    let plan = Plan::new("write again what is damaged", steps);
    eprint!("{plan}");
    session.execute(&plan)?;
    look(session, Damaged::Keep)
}
