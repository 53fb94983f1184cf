//! `host deploy VERSION|COMMIT`: to a deployment that is here, or to an older commit of the remote's history.

use ::deploy::plan::{self, Bad, Downgrade, Staged};
use ::deploy::state::State;
use ::deploy::status;
use serde_json::json;
use store::Checksum;
use store::pull::{Remote, Verified};
use sys::{Exit, Refused};

use super::change::{carry_out, find, restart};
use super::session::{Access, Root, Session, refused};
use super::upgrade::{fetch, label, options, origin, pull_error, stage};
use super::{ChangeArgs, print_json};

/// How far back a version is looked for.
const HISTORY: usize = 200;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A version, or a commit (for one that is here, its beginning will do).
    #[arg(value_name = "VERSION|COMMIT")]
    target: String,
    /// Reboot at once.
    #[arg(long, short)]
    reboot: bool,
    /// Go there although it failed on this machine.
    #[arg(long)]
    allow_bad: bool,
    /// Fetch and stage it anew, with today's /etc, although it is here.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

pub fn run(root: &Root, args: Args) -> anyhow::Result<Exit> {
    let mut session = Session::open(root, "deploy", Access::Change)?;
    let here: Vec<_> = find(&session.machine, &args.target)
        .into_iter()
        .filter(|d| d.state.state != State::Staged && !args.fresh)
        .filter(|d| d.state.state != State::Bad || args.allow_bad)
        .map(|d| (d.generation(), d.id))
        .collect();
    if let Some((_, id)) = here.iter().max() {
        let plan = plan::switch_to(&session.machine, id, Staged::Hold).map_err(refused)?;
        carry_out(&mut session, &plan, &args.change)?;
    } else {
        from_remote(&mut session, &args)?;
    }
    if args.reboot && !args.change.dry_run {
        return restart(root, session);
    }
    Ok(Exit::Done)
}

fn from_remote(session: &mut Session, args: &Args) -> anyhow::Result<()> {
    let origin = origin(&session.machine)?;
    let options = options(session, &origin, true)?;
    let remote = Remote::open(&options).map_err(pull_error)?;
    let verified = search(&remote, session, &origin.name, &args.target)?;
    let label = label(&verified);
    if args.change.dry_run {
        eprintln!("pull {label} ({}) from {}, then stage it", verified.checksum.short(), origin.url);
        return Ok(());
    }
    // By its checksum: the remembered ref stays where the channel is.
    let by_commit = super::upgrade::Origin { url: origin.url.clone(), name: verified.checksum.to_string() };
    fetch(&options, &by_commit, &verified, session, &label)?;
    let bad = if args.allow_bad { Bad::Allow } else { Bad::Refuse };
    let changed = stage(session, &origin, &verified, Downgrade::Allow, bad)?;
    if args.change.json {
        print_json(&json!({"changed": changed, "status": status::json(&session.machine)}));
    }
    if changed && !args.reboot {
        eprintln!("{label} is staged: run `host reboot` to switch to it");
    }
    Ok(())
}

/// Walks the remote's history from its newest commit. Each commit on the way must be signed, too.
fn search(remote: &Remote<'_>, session: &Session, name: &str, target: &str) -> anyhow::Result<Verified> {
    if let Ok(commit) = target.parse::<Checksum>() {
        return remote.commit(&commit.to_string(), &session.repo).map_err(pull_error);
    }
    let mut verified = remote.commit(name, &session.repo).map_err(pull_error)?;
    let prefix = target.len() >= 4 && target.bytes().all(|b| b.is_ascii_hexdigit());
    for _ in 0..HISTORY {
        let commit = verified.checksum.to_string();
        if verified.commit.version() == Some(target) || (prefix && commit.starts_with(target)) {
            return Ok(verified);
        }
        let Some(parent) = verified.commit.parent else { break };
        match remote.commit(&parent.to_string(), &session.repo) {
            Ok(found) => verified = found,
            // Servers keep a part of the history.
            Err(error) => {
                tracing::debug!(%error, "the history ends at {commit}");
                break;
            }
        }
    }
    let hint = "name a version that `host status` or the remote's history shows, or a whole commit";
    Err(Refused::with_hint(format!("neither this machine nor the remote has a version `{target}`"), hint).into())
}
