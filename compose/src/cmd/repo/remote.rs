//! `repo remote`: the remotes of a repository, and what they have.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use store::pull::{Fetched, Remote};
use store::remote::Config;
use store::sign::gpg::Keyring;
use store::{Repo, summary::Summary};
use sys::Exit;

use super::{At, cookies, gpg, parse, summary};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Adds a remote.
    Add(Box<Add>),
    /// Removes a remote; its refs stay.
    Delete(Delete),
    /// Prints the address of a remote.
    ShowUrl(Named),
    /// Lists the remotes.
    List(List),
    /// Adds GPG keys to those of a remote.
    GpgImport(GpgImport),
    /// Shows the GPG keys of a remote, or those for all of them.
    GpgListKeys(GpgListKeys),
    /// Adds a cookie for the server of a remote.
    AddCookie(cookies::Add),
    /// Removes a cookie.
    DeleteCookie(cookies::Delete),
    /// Shows the cookies of a remote.
    ListCookies(cookies::List),
    /// Lists the refs of a remote.
    Refs(Refs),
    /// Shows the summary of a remote.
    Summary(ShowSummary),
}

#[derive(Debug, clap::Args)]
struct Add {
    name: String,
    /// [metalink=|mirrorlist=]URL
    url: Option<String>,
    /// What a pull without names pulls.
    branches: Vec<String>,
    /// A value of the configuration.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Commits need no GPG signature.
    #[arg(long)]
    no_gpg_verify: bool,
    /// Commits need no signature.
    #[arg(long, conflicts_with = "sign_verify")]
    no_sign_verify: bool,
    /// Commits need a signature by this key.
    #[arg(long, value_name = "KEYTYPE=[inline|file]:PUBKEY")]
    sign_verify: Vec<String>,
    /// Do nothing if there is such a remote.
    #[arg(long, conflicts_with = "force")]
    if_not_exists: bool,
    /// Replace the remote of that name.
    #[arg(long)]
    force: bool,
    /// Trust the GPG keys in this file.
    #[arg(long, value_name = "FILE")]
    gpg_import: Option<PathBuf>,
    /// Something else than this program fetches what it has.
    #[arg(long, value_name = "NAME")]
    custom_backend: Option<String>,
    /// Where objects and deltas lie, if elsewhere.
    #[arg(long, value_name = "URL")]
    contenturl: Option<String>,
    /// The collection that its refs belong to.
    #[arg(long)]
    collection_id: Option<String>,
    /// The repository is that of this system root.
    #[arg(long, value_name = "PATH")]
    sysroot: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Delete {
    name: String,
    /// Do nothing if there is none.
    #[arg(long)]
    if_exists: bool,
    /// The repository is that of this system root.
    #[arg(long, value_name = "PATH")]
    sysroot: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Named {
    name: String,
}

#[derive(Debug, clap::Args)]
struct List {
    /// With their addresses.
    #[arg(short = 'u', long)]
    show_urls: bool,
}

#[derive(Debug, clap::Args)]
struct GpgListKeys {
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
struct GpgImport {
    name: String,
    /// Only these. Default: all.
    #[arg(value_name = "KEY-ID")]
    keys: Vec<String>,
    /// Files with keys.
    #[arg(short, long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// Read the keys from standard input.
    #[arg(long, conflicts_with = "keyring")]
    stdin: bool,
}

#[derive(Debug, clap::Args)]
struct Refs {
    name: String,
    /// Print the commits as well.
    #[arg(short, long)]
    revision: bool,
    /// Remember accepted summaries here, and not in the repository.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ShowSummary {
    name: String,
    /// The keys of its metadata.
    #[arg(long)]
    list_metadata_keys: bool,
    /// One value of its metadata.
    #[arg(long, value_name = "KEY")]
    print_metadata_key: Option<String>,
    /// The summary as it is.
    #[arg(long)]
    raw: bool,
    /// Remember accepted summaries here, and not in the repository.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let sysroot = match &args.verb {
        Verb::Add(args) => args.sysroot.as_ref(),
        Verb::Delete(args) => args.sysroot.as_ref(),
        _ => None,
    };
    let repo = &match sysroot {
        Some(sysroot) => Repo::open(&sysroot.join("ostree/repo"))?,
        None => at.open()?,
    };
    match &args.verb {
        Verb::Add(args) => add(repo, args)?,
        Verb::Delete(args) => {
            if !repo.delete_remote(&args.name)? && !args.if_exists {
                bail!("there is no remote {}", args.name);
            }
        }
        Verb::ShowUrl(args) => println!("{}", repo.remote(&args.name)?.url()?),
        Verb::List(args) => list(repo, args)?,
        Verb::GpgImport(args) => import(repo, args)?,
        Verb::GpgListKeys(args) => list_keys(repo, args)?,
        Verb::AddCookie(args) => cookies::add(repo, args)?,
        Verb::DeleteCookie(args) => cookies::delete(repo, args)?,
        Verb::ListCookies(args) => cookies::list(repo, args)?,
        Verb::Refs(args) => {
            for entry in fetch(repo, &args.name, args.cache_dir.as_deref())?.summary.refs {
                match args.revision {
                    true => println!("{}:{}\t{}", args.name, entry.name, entry.commit),
                    false => println!("{}:{}", args.name, entry.name),
                }
            }
        }
        Verb::Summary(args) => {
            let fetched = fetch(repo, &args.name, args.cache_dir.as_deref())?;
            let bytes = &fetched.bytes;
            if args.list_metadata_keys {
                Summary::decode(bytes)?.facts.keys().for_each(|key| println!("{key}"));
            } else if let Some(key) = &args.print_metadata_key {
                summary::print_key(bytes, key)?;
            } else {
                summary::print(bytes, args.raw)?;
                if !args.raw {
                    signatures(repo, &args.name, &fetched)?;
                }
            }
        }
    }
    Ok(Exit::Done)
}

fn add(repo: &Repo, args: &Add) -> anyhow::Result<()> {
    let mut remote = match &args.url {
        Some(url) => Config::new(&args.name, url)?,
        None if args.custom_backend.is_some() => Config::named(&args.name)?,
        None => bail!("NAME and URL must be given"),
    };
    if !args.branches.is_empty() {
        remote.set("branches", args.branches.iter().map(|branch| format!("{branch};")).collect::<String>());
    }
    if let Some(url) = &args.contenturl {
        remote.set("contenturl", url);
    }
    if let Some(backend) = &args.custom_backend {
        remote.set("custom-backend", backend);
    }
    for pair in &args.set {
        let (key, value) = parse::pair(pair)?;
        remote.set(key, value);
    }
    if args.no_gpg_verify || args.no_sign_verify {
        remote.set("gpg-verify", "false");
    }
    if args.no_sign_verify {
        remote.set("sign-verify", "false");
    }
    let mut kinds: Vec<&str> = Vec::new();
    for key in &args.sign_verify {
        let (kind, key) = parse::pair(key)?;
        match key.split_once(':') {
            Some(("inline", key)) => remote.set(&format!("verification-{kind}-key"), key),
            Some(("file", file)) => remote.set(&format!("verification-{kind}-file"), file),
            _ => bail!("{key} does not begin with inline: or file:"),
        }
        kinds.push(kind);
    }
    if !kinds.is_empty() {
        remote.set("sign-verify", kinds.join(","));
    }
    if let Some(id) = &args.collection_id {
        remote.set("collection-id", id);
    }
    let there = repo.remotes()?.iter().any(|remote| remote.name == args.name);
    if there && !args.force && !args.if_not_exists {
        bail!("there is a remote {}; --force replaces it", args.name);
    }
    if !there || args.force {
        repo.set_remote(&remote)?;
    }
    if let Some(file) = &args.gpg_import {
        let keys = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        imported(repo, &args.name, &[keys], &[])?;
    }
    Ok(())
}

fn list(repo: &Repo, args: &List) -> anyhow::Result<()> {
    let remotes = repo.remotes()?;
    let width = remotes.iter().map(|remote| remote.name.len()).max().unwrap_or(0);
    for remote in &remotes {
        match args.show_urls {
            true => println!("{:width$}  {}", remote.name, remote.url()?),
            false => println!("{}", remote.name),
        }
    }
    Ok(())
}

fn import(repo: &Repo, args: &GpgImport) -> anyhow::Result<()> {
    let mut keys = Vec::new();
    for file in &args.keyring {
        keys.push(std::fs::read(file).with_context(|| format!("reading {}", file.display()))?);
    }
    if args.stdin {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        keys.push(bytes);
    }
    if keys.is_empty() {
        bail!("there are no keys to import: name a file with --keyring, or say --stdin");
    }
    imported(repo, &args.name, &keys, &args.keys)
}

fn imported(repo: &Repo, name: &str, files: &[Vec<u8>], only: &[String]) -> anyhow::Result<()> {
    let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let count = repo.remote(name)?.import_gpg_keys(repo, &files, only)?;
    println!("Imported {count} GPG key{} to remote \"{name}\"", if count == 1 { "" } else { "s" });
    Ok(())
}

fn list_keys(repo: &Repo, args: &GpgListKeys) -> anyhow::Result<()> {
    let keyring = match &args.name {
        Some(name) => repo.remote(name)?.gpg_keys(repo, Path::new("/"))?,
        None => Keyring::of_all(Path::new("/"))?,
    };
    gpg::print_keys(&keyring.list()?)
}

/// The GPG signatures of a summary, where its remote asks for one.
fn signatures(repo: &Repo, name: &str, fetched: &Fetched) -> anyhow::Result<()> {
    let remote = repo.remote(name)?;
    if !remote.wants_gpg_summary()? {
        return Ok(());
    }
    let detached = fetched.signatures.as_deref().map(store::value::decode_dict).transpose()?.unwrap_or_default();
    println!();
    let keyring = remote.gpg_keys(repo, Path::new("/"))?;
    gpg::print_signatures(&keyring, &fetched.bytes, &detached, "GPG: Verification enabled, found")
}

/// The summary of a remote, signed as its configuration asks.
fn fetch(repo: &Repo, name: &str, cache: Option<&Path>) -> anyhow::Result<Fetched> {
    let mut options = repo.remote(name)?.pull_options(repo, Path::new("/"), Vec::new())?;
    options.cache = parse::directory(cache)?;
    let remote = Remote::open(&options)?;
    Ok(remote.summary(repo)?.context("the remote has no summary")?.clone())
}
