//! What units run: `host finalize` at shutdown, `bless` or `reject` after a boot, `boot-fallback` when one failed.

use ::deploy::machine::LoadError;
use ::deploy::plan::{self, Facts, Fallback, Plan};
use ::deploy::{Machine, execute};
use anyhow::Context;
use bootloader::{BootVariables, Esp};
use sys::{Cmd, Exit, clock};

use super::ChangeArgs;
use super::change::{carry_out, restart};
use super::session::{Access, Root, Session, refused};

/// `WDIOF_CARDRESET`: the watchdog reset the machine.
const CARD_RESET: u64 = 0x20;

#[derive(Debug, clap::Args)]
pub struct BlessArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
pub struct RejectArgs {
    /// Why, for `host status`.
    #[arg(long, default_value = "rejected by the operator")]
    reason: String,
    /// Do nothing when the running deployment was blessed before.
    #[arg(long)]
    only_trial: bool,
    /// Reboot at once.
    #[arg(long, short)]
    reboot: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
pub struct FinalizeArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
pub struct FallbackArgs {
    /// Print the decision, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub fn bless(root: &Root, args: BlessArgs) -> anyhow::Result<Exit> {
    let mut session = Session::open(root, "bless", Access::ChangeWait)?;
    let facts = Facts { now: clock::now(), watchdog: watchdog_reset(&session) };
    let plan = plan::bless(&session.machine, facts);
    carry_out(&mut session, &plan, &args.change)?;
    session.publish()?;
    Ok(Exit::Done)
}

fn watchdog_reset(session: &Session) -> bool {
    let path = session.paths.root().join("sys/class/watchdog/watchdog0/bootstatus");
    let status = std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<u64>().ok());
    status.is_some_and(|s| s & CARD_RESET != 0)
}

pub fn reject(root: &Root, args: RejectArgs) -> anyhow::Result<Exit> {
    let mut session = Session::open(root, "reject", Access::ChangeWait)?;
    let trial = session.machine.booted_deployment().is_some_and(|d| d.counter().is_some());
    if args.only_trial && !trial {
        eprint!("{}", Plan::nothing("the running deployment was blessed before; a reboot would boot it again"));
        return Ok(Exit::Done);
    }
    let plan = plan::reject(&session.machine, &args.reason, clock::now()).map_err(refused)?;
    carry_out(&mut session, &plan, &args.change)?;
    if args.reboot && !args.change.dry_run {
        return restart(root, session);
    }
    Ok(Exit::Done)
}

pub fn finalize(root: &Root, args: FinalizeArgs) -> anyhow::Result<Exit> {
    let failure = root.paths().finalize_failure();
    let mut session = match Session::open(root, "finalize", Access::ChangeWait) {
        Ok(session) => session,
        Err(error) => {
            // There is no state file to write it into; a shutdown's journal may be lost.
            if let Some(parent) = failure.parent().filter(|_| !args.change.dry_run) {
                let written = std::fs::create_dir_all(parent)
                    .and_then(|()| sys::file::replace(&failure, format!("{error:#}\n").as_bytes(), 0o644));
                if let Err(error) = written {
                    tracing::warn!("writing {}: {error}", failure.display());
                }
            }
            return Err(error);
        }
    };
    if !args.change.dry_run {
        sys::file::remove(&failure).with_context(|| format!("removing {}", failure.display()))?;
    }
    let now = clock::now();
    if !args.change.dry_run {
        if let Some(step) = plan::finalize_started(&session.machine, now) {
            session.execute(&Plan::new("begin to switch", vec![step]))?;
        }
    }
    let Err(error) = switch(&mut session, &args, now) else { return Ok(Exit::Done) };
    // The next boot's `host status` shows it; a failure at shutdown is seen by nobody else.
    let text = format!("{error:#}");
    if let Some(step) = plan::finalize_failed(&session.machine, now, text) {
        session.execute(&Plan::new("write down what failed", vec![step])).context("writing down what failed")?;
    }
    Err(error)
}

fn switch(session: &mut Session, args: &FinalizeArgs, now: u64) -> anyhow::Result<()> {
    let notes = match session.machine.staged().filter(|d| !d.state.hold) {
        Some(staged) => {
            let (merge, accounts) = execute::preview_etc(&session.paths, &session.repo, &staged.id)?;
            merge.notes.into_iter().chain(accounts).collect()
        }
        None => Vec::new(),
    };
    let plan = plan::finalize(&session.machine, now, notes);
    carry_out(session, &plan, &args.change)
}

pub fn fallback(root: &Root, args: FallbackArgs) -> anyhow::Result<Exit> {
    let paths = root.paths();
    match Machine::booted(&paths) {
        Ok(_) => {}
        Err(LoadError::NotAHost(_)) => return Ok(Exit::Done),
        Err(error) => return Err(error.into()),
    }
    let boot = BootVariables::load(paths.root()).context("reading the boot loader's variables")?;
    let esp = Esp::new(paths.esp());
    let mut entries = esp.entries().ok().filter(|e| !e.is_empty());
    if entries.is_none() && root.real() {
        // Emergency mode comes from a mount that failed, and this may be it.
        let mounted = Cmd::new("mount").args(["-t", "vfat", "-o", "ro,umask=0077"]).arg(ESP_DEVICE).arg("/efi").run();
        if let Err(error) = mounted {
            tracing::warn!("{error}");
        }
        entries = esp.entries().ok().filter(|e| !e.is_empty());
    }
    match plan::fallback(&boot, entries.as_deref()) {
        Fallback::Stay => {
            eprintln!("staying up: a reboot would boot nothing better");
        }
        Fallback::Reboot => {
            eprintln!("this boot failed: rebooting, another try or another entry may do better");
            if root.real() && !args.dry_run {
                Cmd::new("systemctl").args(["--force", "reboot"]).run()?;
            }
        }
    }
    Ok(Exit::Done)
}

const ESP_DEVICE: &str = "/dev/disk/by-partlabel/slipway-esp";
