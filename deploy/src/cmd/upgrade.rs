//! `host upgrade`: look, fetch, stage.

use std::path::{Path, PathBuf};

use ::deploy::execute::{self, Came};
use ::deploy::plan::{self, Bad, Downgrade};
use ::deploy::{Machine, status};
use anyhow::Context;
use base64::Engine as _;
use serde_json::{Value, json};
use store::pull::{self, Ahead, Options, Outcome, PullError, Remote, Verified};
use sys::{Exit, Refused, Reporter};

use super::change::restart;
use super::session::{Access, Root, Session, refused};
use super::{ChangeArgs, keys, print_json};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say whether there is something new.
    #[arg(long, conflicts_with_all = ["download_only", "reboot", "dry_run"])]
    check: bool,
    /// Only fetch; stage nothing.
    #[arg(long, conflicts_with = "reboot")]
    download_only: bool,
    /// Reboot when it is staged.
    #[arg(long, short)]
    reboot: bool,
    /// Go to an older version, where the remote offers one.
    #[arg(long)]
    allow_downgrade: bool,
    /// Exit with 77 when there is nothing to do.
    #[arg(long)]
    unchanged_exit_77: bool,
    /// Take the update from a file that `slipway bundle` made, or from a repository on a disk. Every check is made that
    /// is made of what comes over the network.
    #[arg(long, value_name = "FILE|DIR")]
    from: Option<PathBuf>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Where updates come from, complete.
pub struct Origin {
    pub url: String,
    pub name: String,
}

/// The remote, or what to do without one.
pub fn origin(machine: &Machine) -> anyhow::Result<Origin> {
    let hint = "write {\"format\":\"1.0\",\"url\":\"http://…\",\"ref\":\"…\"} to /etc/slipway/remote.json";
    match (&machine.remote.url, &machine.remote.ref_name) {
        (Some(url), Some(name)) => Ok(Origin { url: url.clone(), name: name.clone() }),
        (None, _) => Err(Refused::with_hint("no update remote is configured", hint).into()),
        (_, None) => Err(Refused::with_hint("the update remote names no ref", hint).into()),
    }
}

/// Where an update comes from that was carried here: a repository, or a file that becomes one until the command ends.
fn carried(session: &Session, from: &Path) -> anyhow::Result<(Origin, Option<tempfile::TempDir>)> {
    let name = session.machine.remote.ref_name.clone();
    let name = name.ok_or_else(|| Refused::new("the update remote of this machine names no ref"))?;
    let path = std::fs::canonicalize(from).with_context(|| format!("looking for {}", from.display()))?;
    let origin = Origin { url: format!("file://{}", path.display()), name };
    if path.is_dir() {
        return Ok((origin, None));
    }
    let dir = tempfile::Builder::new().prefix("slipway-bundle-").tempdir_in(session.repo.path().join("tmp"));
    let dir = dir.context("making a directory for the bundle")?;
    store::bundle::unpack(&path, dir.path())?;
    Ok((origin, Some(dir)))
}

/// What to accept from the remote.
pub fn options<'a>(session: &Session, origin: &Origin, downgrade: bool) -> anyhow::Result<Options<'a>> {
    let keyring = session.keyring().context("reading the trusted keys of the running tree")?;
    // A tree made to run unsigned has no keys; every other one takes signed commits only.
    let unsigned = keyring.is_empty() && session.machine.booted.required.as_deref() != Some("verified");
    let mut options = Options::new(&origin.url, &origin.name, (!unsigned).then_some(keyring));
    options.remote = Some("default".to_owned());
    options.allow_downgrade = downgrade;
    options.verity = session.verity();
    Ok(options)
}

/// Turns a remote's unacceptable offer into a refusal; the rest stays a failure.
pub fn pull_error(error: PullError) -> anyhow::Error {
    let hint = match &error {
        PullError::Untrusted { .. } => {
            "nothing was changed; the commit must be signed by a key of the running tree (/usr/share/ostree)"
        }
        PullError::Binding { .. } => "nothing was changed; the server offers a commit of another ref",
        PullError::Downgrade { .. } => "run `host upgrade --allow-downgrade` to go there all the same",
        PullError::Space { .. } => "`host cleanup` removes what is no longer needed",
        _ => return anyhow::Error::new(error).context("what has arrived is kept; run `host upgrade` again to go on"),
    };
    Refused::with_hint(format!("{:#}", anyhow::Error::new(error)), hint).into()
}

/// The key that signed, as the status shows it.
pub fn signer(key: Option<&store::sign::PublicKey>) -> Option<String> {
    key.map(|k| base64::engine::general_purpose::STANDARD.encode(k.as_bytes()))
}

/// What the remote has.
pub fn offer(machine: &Machine, verified: &Verified, ahead: Option<Ahead>) -> Value {
    let objects = match ahead {
        Some(Ahead::Objects(missing)) => Some(missing.objects),
        _ => None,
    };
    json!({
        "commit": verified.checksum,
        "version": verified.commit.version(),
        "timestamp": verified.commit.timestamp,
        "signer": signer(verified.signer.as_ref()),
        "new": machine.booted.commit != verified.checksum
            && machine.staged().is_none_or(|d| d.id.commit != verified.checksum),
        "bad": machine.bad.commits.get(&verified.checksum.to_string()).map(|m| m.reason.clone()),
        "objects": objects,
        "bytes": ahead.map(Ahead::bytes),
    })
}

pub fn run(root: &Root, args: Args) -> anyhow::Result<Exit> {
    let access = if args.check { Access::Read } else { Access::Change };
    let mut session = Session::open(root, "upgrade", access)?;
    let (origin, unpacked) = match &args.from {
        None => (origin(&session.machine)?, None),
        Some(from) => carried(&session, from)?,
    };
    let mut options = options(&session, &origin, args.allow_downgrade)?;
    if let Some(dir) = &unpacked {
        options.url = format!("file://{}", dir.path().display());
    }
    let remote = Remote::open(&options).map_err(pull_error)?;
    let verified =
        remote.commit(&origin.name, &session.repo).map_err(|error| keys::rotated(error, &remote, &session))?;
    // Asked only by who looks and does not fetch: a pull finds it out on its way.
    let looks = args.check || args.change.dry_run;
    let ahead = if looks { remote.ahead(&origin.name, &verified, &session.repo).map_err(pull_error)? } else { None };
    let offer = offer(&session.machine, &verified, ahead);
    let label = label(&verified);
    let is_new = offer["new"].as_bool().unwrap_or(true);
    if args.check {
        if args.change.json {
            print_json(&offer);
        } else if is_new {
            println!("{label} is available{}", to_fetch(ahead));
        } else {
            println!("{label} is the newest, and here");
        }
        return Ok(if is_new || !args.unchanged_exit_77 { Exit::Done } else { Exit::Nothing });
    }
    // Known before anything is fetched; the planner says it again when all is here.
    if let Some(reason) = offer["bad"].as_str() {
        return Err(refused(plan::Refusal::MarkedBad { label, reason: reason.to_owned() }));
    }
    if args.change.dry_run {
        if is_new {
            eprintln!("pull {label} from {} {}{}, then stage it", origin.url, origin.name, to_fetch(ahead));
        } else {
            eprintln!("nothing to do: {label} is here");
        }
        if args.change.json {
            print_json(&json!({"offer": offer, "changed": false, "status": status::json(&session.machine)}));
        }
        return Ok(Exit::Done);
    }
    let outcome = fetch(&options, &origin, &verified, &session, &label)?;
    if args.download_only {
        eprintln!("{label} is here; `host upgrade` stages it");
        if args.change.json {
            print_json(&json!({"offer": offer, "fetched": outcome.fetched, "bytes": outcome.bytes}));
        }
        return Ok(Exit::Done);
    }
    let downgrade = if args.allow_downgrade { Downgrade::Allow } else { Downgrade::Refuse };
    let changed = stage(&mut session, &origin, &verified, downgrade, Bad::Refuse)?;
    if args.change.json {
        print_json(&json!({
            "offer": offer,
            "fetched": outcome.fetched,
            "bytes": outcome.bytes,
            "changed": changed,
            "status": status::json(&session.machine),
        }));
    }
    if args.reboot && session.machine.staged().is_some() {
        return restart(root, session);
    }
    if changed {
        eprintln!("{label} is staged: run `host reboot` to switch to it");
    }
    Ok(if changed || !args.unchanged_exit_77 { Exit::Done } else { Exit::Nothing })
}

pub fn label(verified: &Verified) -> String {
    verified.commit.version().map_or_else(|| verified.checksum.to_string()[..10].to_owned(), str::to_owned)
}

fn to_fetch(ahead: Option<Ahead>) -> String {
    match ahead {
        Some(Ahead::Objects(missing)) => {
            format!(": {} objects, {} to fetch", missing.objects, sys::size(missing.bytes))
        }
        Some(Ahead::Update(bytes)) => format!(": an update of {} to fetch", sys::size(bytes)),
        None => String::new(),
    }
}

/// Fetches with a progress bar whose total is known before the first file comes.
pub fn fetch(
    options: &Options<'_>,
    origin: &Origin,
    verified: &Verified,
    session: &Session,
    label: &str,
) -> anyhow::Result<Outcome> {
    let step = Reporter::new().step(format!("pull {label}"), 0);
    let progress = |now: &pull::Progress| step.reach(now.bytes, now.bytes_total);
    let mut options = options.clone();
    options.progress = Some(&progress);
    let remote = Remote::open(&options).map_err(pull_error)?;
    let outcome = remote.fetch(&origin.name, verified, &session.repo).map_err(pull_error)?;
    drop(remote);
    step.transferred(outcome.fetched, outcome.bytes);
    Ok(outcome)
}

/// Stages what was fetched. Says whether anything changed.
pub fn stage(
    session: &mut Session,
    origin: &Origin,
    verified: &Verified,
    downgrade: Downgrade,
    bad: Bad,
) -> anyhow::Result<bool> {
    let came = Came {
        ref_name: Some(origin.name.clone()),
        url: Some(origin.url.clone()),
        signer: signer(verified.signer.as_ref()),
    };
    let step = Reporter::new().step("examine", 0);
    let target = execute::target(&session.paths, &session.repo, &verified.checksum, came)?;
    step.done(format!("image {:.1} MB, kernel {}", target.image_size as f64 / 1e6, &target.bootcsum[..10]));
    keys::would_boot(&session.repo, verified)?;
    let plan = plan::stage(&session.machine, &target, downgrade, bad).map_err(refused)?;
    eprint!("{plan}");
    if plan.is_empty() {
        return Ok(false);
    }
    let step = Reporter::new().step("stage", 0);
    session.execute(&plan)?;
    step.done(format!("{} steps", plan.steps.len()));
    Ok(true)
}
