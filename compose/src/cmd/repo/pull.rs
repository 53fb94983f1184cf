//! `repo pull`: refs of a remote, over HTTP.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use store::Repo;
use store::pull::{self, Options, Remote};
use store::sign::Keyring;
use sys::{Refused, Reporter};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A remote of the file config, or an address.
    remote: String,
    /// Refs, or commits by checksum.
    #[arg(required = true)]
    refs: Vec<String>,
    /// File with public keys: accept only what one of them signed.
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// Accept commits that nobody signed.
    #[arg(long)]
    allow_unsigned: bool,
    /// Accept a commit older than the one that is here.
    #[arg(long)]
    allow_downgrade: bool,
    /// Write refs/heads, as in a copy of the remote, and not refs/remotes.
    #[arg(long)]
    mirror: bool,
    /// Only say what would be fetched.
    #[arg(long)]
    dry_run: bool,
}

/// The address of a remote, and the keys its configuration asks for. Unsigned commits are accepted where the
/// configuration says that signatures are not to be checked.
fn remote(repo: &Repo, args: &Args) -> anyhow::Result<(String, Option<Keyring>, bool)> {
    let mut keyring = Keyring::default();
    for file in &args.keyring {
        keyring.add_file(file)?;
    }
    let given = (!args.keyring.is_empty()).then_some(keyring);
    if args.remote.contains("://") {
        return Ok((args.remote.clone(), given, args.allow_unsigned));
    }
    let section = format!("remote \"{}\"", args.remote);
    let value = |key: &str| repo.config_value(&section, key);
    let url = value("url")?.ok_or_else(|| Refused::new(format!("there is no remote {} in config", args.remote)))?;
    let wanted = value("sign-verify")?.is_some_and(|v| v != "false");
    let unchecked = !wanted && value("gpg-verify")?.as_deref() == Some("false");
    let keyring = match given {
        Some(keyring) => Some(keyring),
        None if wanted => {
            let mut keyring = Keyring::load(Path::new("/"))?;
            if let Some(key) = value("verification-ed25519-key")? {
                keyring.trust(key.parse().with_context(|| format!("verification-ed25519-key of {}", args.remote))?);
            }
            if let Some(file) = value("verification-ed25519-file")? {
                keyring.add_file(Path::new(&file))?;
            }
            Some(keyring)
        }
        None => None,
    };
    Ok((url, keyring, args.allow_unsigned || unchecked))
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let (url, keyring, unsigned) = remote(repo, args)?;
    if keyring.is_none() && !unsigned {
        let hint = "name the keys with --keyring FILE, or accept unsigned commits with --allow-unsigned";
        return Err(Refused::with_hint("there is no key to check the commit's signature with", hint).into());
    }
    let name = (!args.mirror && !args.remote.contains("://")).then(|| args.remote.clone());
    let options = Options {
        refs: args.refs.clone(),
        remote: name,
        allow_downgrade: args.allow_downgrade,
        ..Options::new(url, "", keyring)
    };
    let mut plan = Vec::new();
    {
        let remote = Remote::open(&options)?;
        for name in &args.refs {
            let verified = remote.commit(name, repo)?;
            let missing = remote.missing(&verified, repo);
            let size = missing.map_or_else(String::new, |m| format!(": {} objects, {} bytes", m.objects, m.bytes));
            eprintln!("{name} {}{size}", verified.checksum);
            plan.push((name.clone(), verified, missing));
        }
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    let reporter = Reporter::new();
    for (name, verified, missing) in plan {
        let step = reporter.step(format!("pull {name}"), missing.map_or(0, |m| m.bytes));
        let seen = AtomicU64::new(0);
        let progress = |p: &pull::Progress| {
            let before = seen.fetch_max(p.bytes, Ordering::Relaxed);
            step.inc(p.bytes.saturating_sub(before));
        };
        let options = Options { progress: Some(&progress), ..options.clone() };
        let outcome = Remote::open(&options)?.fetch(&name, &verified, repo)?;
        println!("{}", outcome.commit);
        step.done(format!("{} objects, {} bytes", outcome.fetched, outcome.bytes));
    }
    Ok(Exit::Done)
}
