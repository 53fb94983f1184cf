//! `host rollback`, `reboot`, `pin`, `unpin`, `cleanup`: plans that need nothing from outside.

use ::deploy::plan::{self, Plan, Staged, Step};
use ::deploy::{Deployment, Machine, status};
use serde_json::json;
use sys::{Cmd, Exit, Refused};

use super::session::{Access, Root, Session, refused};
use super::{ChangeArgs, print_json};

#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// Reboot at once.
    #[arg(long, short)]
    reboot: bool,
    /// Remove what is staged; it stays otherwise, and is not switched to until an upgrade says so.
    #[arg(long)]
    drop_staged: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
pub struct RebootArgs {
    /// Print what would boot, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// Version, commit or its beginning; the running deployment when not given.
    deployment: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
pub struct CleanupArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

/// Prints a plan, carries it out, prints what is true then.
pub fn carry_out(session: &mut Session, plan: &Plan, args: &ChangeArgs) -> anyhow::Result<()> {
    if plan.is_empty() || args.dry_run || !args.json {
        eprint!("{plan}");
    }
    if !args.dry_run && !plan.is_empty() {
        session.execute(plan)?;
    }
    if args.json {
        print_json(&json!({
            "plan": plan.json(),
            "changed": !args.dry_run && !plan.is_empty(),
            "status": status::json(&session.machine),
        }));
    }
    Ok(())
}

pub fn rollback(root: &Root, args: RollbackArgs) -> anyhow::Result<Exit> {
    let mut session = Session::open(root, "rollback", Access::Change)?;
    let staged = if args.drop_staged { Staged::Drop } else { Staged::Hold };
    let plan = plan::rollback(&session.machine, staged).map_err(refused)?;
    carry_out(&mut session, &plan, &args.change)?;
    if !args.change.dry_run {
        if args.reboot {
            return restart(root, session);
        }
        eprintln!("run `host reboot` to go there");
    }
    Ok(Exit::Done)
}

/// Reboots the machine. The lock is given back first: finalize needs it on the way down.
pub fn restart(root: &Root, session: Session) -> anyhow::Result<Exit> {
    drop(session);
    if root.real() {
        Cmd::new("systemctl").arg("reboot").run()?;
    } else {
        eprintln!("not rebooting: this is not the machine's own root");
    }
    Ok(Exit::Done)
}

pub fn reboot(root: &Root, args: RebootArgs) -> anyhow::Result<Exit> {
    // A command at work would be killed half-way: safe, but not what anybody wants.
    let session = Session::open(root, "reboot", Access::Change)?;
    let next = session.machine.staged().filter(|d| !d.state.hold).or(session.machine.default());
    eprintln!("booting {} next", next.map_or_else(|| "nothing known".to_owned(), Deployment::label));
    if args.dry_run {
        return Ok(Exit::Done);
    }
    restart(root, session)
}

/// Finds deployments by version, commit, the beginning of a commit, or `<commit>.<n>`.
pub fn find<'m>(machine: &'m Machine, name: &str) -> Vec<&'m Deployment> {
    let by_version: Vec<_> = machine.deployments.iter().filter(|d| d.state.version.as_deref() == Some(name)).collect();
    if !by_version.is_empty() {
        return by_version;
    }
    let hex = name.split('.').next().unwrap_or_default();
    let plausible = hex.len() >= 4 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    machine
        .deployments
        .iter()
        .filter(|d| plausible && (d.id.to_string().starts_with(name) || d.id.short() == name))
        .collect()
}

pub fn pin(root: &Root, args: PinArgs, pinned: bool) -> anyhow::Result<Exit> {
    let mut session = Session::open(root, if pinned { "pin" } else { "unpin" }, Access::Change)?;
    let id = match &args.deployment {
        None => session.machine.booted.deployment,
        Some(name) => match find(&session.machine, name).as_slice() {
            [one] => one.id,
            [] => return Err(refused(plan::Refusal::Unknown(name.clone()))),
            several => {
                let names: Vec<String> = several.iter().map(|d| d.id.short()).collect();
                let hint = format!("name one of {}", names.join(", "));
                return Err(Refused::with_hint(format!("`{name}` is several deployments"), hint).into());
            }
        },
    };
    let plan = plan::pin(&session.machine, &id, pinned).map_err(refused)?;
    carry_out(&mut session, &plan, &args.change)?;
    Ok(Exit::Done)
}

pub fn cleanup(root: &Root, args: CleanupArgs) -> anyhow::Result<Exit> {
    let mut session = Session::open(root, "cleanup", Access::Change)?;
    let mut plan = plan::prune(&session.machine);
    // An operator who asks wants the objects of interrupted pulls gone as well.
    if !plan.steps.iter().any(|s| matches!(s, Step::CollectGarbage { .. })) {
        plan.steps.push(plan::collect(&session.machine));
        plan.title = "remove what is no longer needed".to_owned();
        plan.nothing = None;
    }
    carry_out(&mut session, &plan, &args.change)?;
    Ok(Exit::Done)
}
