//! `repo pull`: refs of a remote, over HTTP.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use store::pull::{self, Ahead, Depth, Options, Select};
use store::{Checksum, Repo};
use sys::{Exit, Refused, Reporter};

use super::{At, left_out, parse, size};
use crate::cmd::accept::Accept;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A remote of the file config, REMOTE:REF, or an address.
    remote: String,
    /// Refs (REF@COMMIT for a commit of one), or commits by checksum. Default: what the configuration names.
    #[arg(value_name = "BRANCH")]
    refs: Vec<String>,
    /// Only the commits themselves.
    #[arg(long)]
    commit_metadata_only: bool,
    /// Remember accepted summaries here, and not in the repository.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Do not wait for the disk.
    #[arg(long)]
    disable_fsync: bool,
    /// Objects are always synced all at once, which stalls nobody.
    #[arg(long)]
    per_object_fsync: bool,
    /// Use no static deltas.
    #[arg(long)]
    disable_static_deltas: bool,
    /// Use static deltas only.
    #[arg(long)]
    require_static_deltas: bool,
    /// Fail at the first fault of the network.
    #[arg(long)]
    disable_retry_on_network_errors: bool,
    /// Write refs/heads, as in a copy of the remote, and not refs/remotes; every ref if none is named.
    #[arg(long)]
    mirror: bool,
    /// Only this directory or file.
    #[arg(long, value_name = "PATH")]
    subpath: Vec<String>,
    /// Compare checksums; that is always done.
    #[arg(long)]
    untrusted: bool,
    /// Trust the server; checksums are compared all the same.
    #[arg(long)]
    http_trusted: bool,
    /// Refuse files that are setuid, setgid or writable for all.
    #[arg(long)]
    bareuseronly_files: bool,
    /// Only say what would be fetched.
    #[arg(long)]
    dry_run: bool,
    /// Parents to fetch; -1 fetches all.
    #[arg(long, default_value_t = 0)]
    depth: i64,
    /// Fetch from this address and not from the remote's.
    #[arg(long)]
    url: Option<String>,
    /// A header for every request.
    #[arg(long, value_name = "NAME=VALUE")]
    http_header: Vec<String>,
    /// How often progress is shown; that is on standard error, and as it likes.
    #[arg(long, value_name = "FREQUENCY")]
    update_frequency: Option<u64>,
    /// How often what fails for a passing reason is tried again.
    #[arg(long, value_name = "N")]
    network_retries: Option<u32>,
    /// Left out.
    #[arg(long, hide = true, value_name = "N")]
    low_speed_limit_bytes: Option<u64>,
    /// Seconds without a byte after which a connection is given up.
    #[arg(long, value_name = "N")]
    low_speed_time_seconds: Option<u64>,
    /// Connections at the same time.
    #[arg(long, value_name = "N")]
    max_outstanding_fetcher_requests: Option<usize>,
    /// Ask this repository on this machine for objects first.
    #[arg(short = 'L', long, value_name = "REPO")]
    localcache_repo: Vec<PathBuf>,
    /// Accept no commit older than what is here. That is always so; see --allow-downgrade.
    #[arg(short = 'T', long)]
    timestamp_check: bool,
    /// Accept no commit older than this one.
    #[arg(long, value_name = "REV")]
    timestamp_check_from_rev: Option<String>,
    /// Take commits that belong to other refs.
    #[arg(long)]
    disable_verify_bindings: bool,
    /// Say this, too, where servers are told who asks.
    #[arg(long, value_name = "TEXT")]
    append_user_agent: Option<String>,
    // Not in the stock tool.
    #[command(flatten)]
    accept: Accept,
}

/// What is asked for, from the configuration of the remote and the command line.
fn options(repo: &Repo, args: &Args) -> anyhow::Result<(Options<'static>, Vec<Override>)> {
    let keyring = args.accept.keyring()?;
    let (mut refs, overrides) = wanted(args)?;
    let mut options = if args.remote.contains("://") {
        if keyring.is_none() && !args.accept.allow_unsigned {
            let hint = "name the keys with --keyring FILE, or accept unsigned commits with --allow-unsigned";
            return Err(Refused::with_hint("there is no key to check the commit's signature with", hint).into());
        }
        let mut options = Options::new(&args.remote, "", None);
        options.refs = refs;
        options
    } else {
        let name = args.remote.split_once(':').map_or(args.remote.as_str(), |(name, _)| name);
        let remote = repo.remote(name)?;
        if refs.is_empty() && !args.mirror {
            refs = remote.branches();
            if refs.is_empty() {
                bail!("no ref was named, and the remote {name} has no branches in config");
            }
        }
        let mut remote = remote;
        if args.accept.allow_unsigned || keyring.is_some() {
            // What is said here counts and not what the configuration says of keys.
            remote.set("gpg-verify", "false");
            remote.set("sign-verify", "false");
        }
        if let Some(url) = &args.url {
            remote.set("url", url);
        }
        remote.pull_options(repo, Path::new("/"), refs)?
    };
    options.keyring = keyring;
    options.allow_downgrade = args.accept.allow_downgrade;
    options.check_bindings = !args.disable_verify_bindings;
    options.mirror = args.mirror;
    options.select = Select {
        subpaths: args.subpath.clone(),
        commit_only: args.commit_metadata_only,
        depth: u32::try_from(args.depth).map_or(Depth::All, Depth::Parents),
        bareuseronly: args.bareuseronly_files,
    };
    options.cache = parse::directory(args.cache_dir.as_deref())?;
    options.caches.clone_from(&args.localcache_repo);
    options.ways.deltas = !args.disable_static_deltas;
    if args.require_static_deltas {
        (options.ways.updates, options.ways.objects) = (false, false);
    }
    if let Some(rev) = &args.timestamp_check_from_rev {
        options.not_older_than = Some(repo.load_commit(&repo.resolve(rev)?)?.timestamp);
    }
    let network = &mut options.network;
    network.retries = args.network_retries.unwrap_or(network.retries);
    if args.disable_retry_on_network_errors {
        network.retries = 0;
    }
    network.stall_seconds = args.low_speed_time_seconds.unwrap_or(network.stall_seconds);
    network.connections = args.max_outstanding_fetcher_requests.unwrap_or(network.connections).max(1);
    network.agent.clone_from(&args.append_user_agent);
    for header in &args.http_header {
        let (name, value) = parse::pair(header)?;
        network.headers.push((name.to_owned(), value.to_owned()));
    }
    Ok((options, overrides))
}

/// A ref that is to point to a commit that was named.
type Override = (String, Checksum);

/// What is pulled, and the refs that were given with a commit.
fn wanted(args: &Args) -> anyhow::Result<(Vec<String>, Vec<Override>)> {
    let mut refs = Vec::new();
    let mut overrides = Vec::new();
    let first = args.remote.split_once(':').filter(|_| !args.remote.contains("://"));
    for name in first.iter().map(|(_, name)| *name).chain(args.refs.iter().map(String::as_str)) {
        match name.rsplit_once('@') {
            Some((name, commit)) => {
                let commit: Checksum = commit.parse().with_context(|| format!("the commit of {name}"))?;
                refs.push(commit.to_string());
                overrides.push((name.to_owned(), commit));
            }
            None => refs.push(name.to_owned()),
        }
    }
    Ok((refs, overrides))
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    left_out(&[
        ("pull --low-speed-limit-bytes", args.low_speed_limit_bytes.is_some()),
    ])?;
    let mut repo = at.open()?;
    if args.disable_fsync {
        repo = repo.without_fsync();
    }
    let repo = &repo;
    let (options, overrides) = options(repo, args)?;
    if args.dry_run {
        let remote = pull::Remote::open(&options)?;
        for name in &options.refs {
            let verified = remote.commit(name, repo)?;
            let size = match remote.ahead(name, &verified, repo)? {
                None => String::new(),
                Some(Ahead::Update(bytes)) => format!(": an update of {bytes} bytes"),
                Some(Ahead::Objects(m)) => format!(": {} objects, {} bytes", m.objects, m.bytes),
            };
            eprintln!("{name} {}{size}", verified.checksum);
        }
        return Ok(Exit::Done);
    }
    let step = Reporter::new().step("pull", 0);
    let progress = |p: &pull::Progress| step.reach(p.bytes, p.bytes_total);
    let options = Options { progress: Some(&progress), ..options };
    let started = Instant::now();
    let _shared = repo.lock_shared()?;
    let outcome = pull::http(&options, repo)?;
    for (name, commit) in overrides {
        if options.check_bindings {
            store::commit::check_binding(&repo.load_commit(&commit)?, &name)?;
        }
        let remote = options.remote.as_ref().filter(|_| !args.mirror);
        repo.set_ref(&remote.map_or_else(|| name.clone(), |remote| format!("{remote}:{name}")), &commit)?;
    }
    let status = status(&options, &outcome, started.elapsed().as_secs());
    step.transferred(outcome.fetched, outcome.bytes);
    if !args.remote.contains("://") {
        println!("{status}");
    } else {
        // Nothing remembers what an address had: say it.
        println!("{}", outcome.commit);
    }
    Ok(Exit::Done)
}

/// The line that the stock tool ends with.
fn status(options: &Options<'_>, outcome: &pull::Outcome, seconds: u64) -> String {
    let metadata = outcome.fetched.saturating_sub(outcome.files) + outcome.new_commits;
    let objects = format!("{metadata} metadata, {} content objects", outcome.files);
    let bytes = size::format(outcome.bytes);
    match options.url.starts_with("file://") {
        true => format!("{objects} imported; 0 bytes content written"),
        false => format!("{objects} fetched; {bytes} transferred in {seconds} seconds; {bytes} content written"),
    }
}
