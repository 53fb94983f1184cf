//! `repo refs`: the names of commits.

use anyhow::{Context as _, bail};
use serde_json::json;
use store::{Error, Repo};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only refs below these names; with --create: the commit.
    prefixes: Vec<String>,
    /// Delete the refs below a name (their commits stay until a prune).
    #[arg(long)]
    delete: bool,
    /// Leave the prefix on the names.
    #[arg(long)]
    list: bool,
    /// Print the commits as well.
    #[arg(short, long)]
    revision: bool,
    /// Create an alias; without --create, list aliases.
    #[arg(short = 'A', long)]
    alias: bool,
    /// Create this ref.
    #[arg(long, value_name = "NEWREF")]
    create: Option<String>,
    /// With the names of collections.
    #[arg(short, long)]
    collections: bool,
    /// Replace a ref that exists.
    #[arg(long)]
    force: bool,
    /// As JSON (not in the stock tool).
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    if let Some(name) = &args.create {
        let [target] = args.prefixes.as_slice() else {
            bail!("one commit or ref must be given when a ref is created");
        };
        create(repo, args, name, target)?;
        return Ok(Exit::Done);
    }
    if args.delete {
        if args.prefixes.is_empty() {
            bail!("the refs to delete must be named");
        }
        for prefix in &args.prefixes {
            match args.collections {
                true => delete_collection(repo, prefix)?,
                false => delete(repo, prefix)?,
            }
        }
        return Ok(Exit::Done);
    }
    let prefixes: Vec<Option<&str>> = match args.prefixes.as_slice() {
        [] => vec![None],
        prefixes => prefixes.iter().map(|p| Some(p.as_str())).collect(),
    };
    for prefix in prefixes {
        list(repo, args, prefix)?;
    }
    Ok(Exit::Done)
}

fn list(repo: &Repo, args: &Args, prefix: Option<&str>) -> anyhow::Result<()> {
    if args.collections {
        return list_collections(repo, args, prefix);
    }
    if args.alias {
        let below = |name: &str| match prefix {
            None => true,
            Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        for (name, target) in repo.aliases()?.iter().filter(|(name, _)| below(name)) {
            // Of one that was named the stock tool shows the commit.
            match prefix.filter(|prefix| prefix == name).map(|name| repo.resolve(name)).transpose()? {
                Some(commit) => println!("{name} -> {commit}"),
                None => println!("{name} -> {target}"),
            }
        }
        return Ok(());
    }
    let mut refs = repo.refs_with_prefix(prefix, !args.list)?;
    if let (true, Some(remote)) = (args.list, prefix.and_then(|p| p.strip_suffix(':').or(p.strip_suffix(":.")))) {
        // The stock tool says where it looked: the prefix of all refs of a remote is a dot.
        let dotted = |name: String| name.replacen(&format!("{remote}:"), &format!("{remote}:./"), 1);
        refs = refs.into_iter().map(|(name, commit)| (dotted(name), commit)).collect();
    }
    if args.json {
        let map: serde_json::Map<_, _> = refs.into_iter().map(|(name, commit)| (name, json!(commit))).collect();
        println!("{}", json!(map));
        return Ok(());
    }
    for (name, commit) in refs {
        if args.revision {
            println!("{name}\t{commit}");
        } else {
            println!("{name}");
        }
    }
    Ok(())
}

/// Refs by collection.
fn list_collections(repo: &Repo, args: &Args, only: Option<&str>) -> anyhow::Result<()> {
    only.map_or(Ok(()), collection)?;
    let found = repo.collection_refs()?;
    for ((id, name), commit) in found.iter().filter(|((id, _), _)| only.is_none_or(|only| only == id)) {
        if args.revision {
            println!("({id}, {name})\t{commit}");
        } else {
            println!("({id}, {name})");
        }
    }
    Ok(())
}

fn create(repo: &Repo, args: &Args, name: &str, target: &str) -> anyhow::Result<()> {
    let existing = match repo.resolve(name) {
        Ok(commit) => Some(commit),
        Err(Error::NotFound(..)) => None,
        Err(error) => return Err(error.into()),
    };
    let replaces_alias = args.alias && repo.aliases()?.contains_key(name);
    if existing.is_some() && !args.force && !replaces_alias {
        bail!("there is a ref {name}; --force replaces it");
    }
    if args.collections {
        let commit = repo.resolve(target)?;
        let (id, name) = name.split_once(':').with_context(|| format!("{name:?} is not COLLECTION-ID:REF"))?;
        collection(id)?;
        match own(repo, id)? {
            true => repo.set_ref(name, &commit)?,
            false => repo.set_mirror_ref(id, name, &commit)?,
        }
    } else if args.alias {
        if !repo.refs()?.contains_key(target) {
            bail!("an alias is for a ref, and there is no ref {target}");
        }
        repo.set_alias(name, target)?;
    } else {
        repo.set_ref(name, &repo.resolve(target)?)?;
    }
    Ok(())
}

/// Refuses what cannot be the name of a collection.
fn collection(id: &str) -> anyhow::Result<()> {
    match store::valid_collection(id) {
        true => Ok(()),
        false => bail!("{id:?} cannot be the name of a collection (like org.example.Os)"),
    }
}

/// Whether a collection is the one that the repository is.
fn own(repo: &Repo, id: &str) -> anyhow::Result<bool> {
    Ok(repo.config()?.get("core", "collection-id").is_some_and(|own| own == id))
}

/// Deletes the refs of a collection that are the repository's own, or mirrored; those of remotes stay.
fn delete_collection(repo: &Repo, id: &str) -> anyhow::Result<()> {
    collection(id)?;
    if own(repo, id)? {
        for name in repo.refs()?.into_keys() {
            repo.delete_ref(&name).with_context(|| format!("deleting {name}"))?;
        }
    }
    for (id, name) in repo.mirror_refs()?.into_keys().filter(|(of, _)| of == id) {
        repo.delete_mirror_ref(&id, &name)?;
    }
    Ok(())
}

fn delete(repo: &Repo, prefix: &str) -> anyhow::Result<()> {
    let aliases = repo.aliases()?;
    for name in repo.refs_with_prefix(Some(prefix), false)?.into_keys() {
        if let Some((alias, _)) = aliases.iter().find(|(_, target)| **target == name) {
            bail!("the ref {name} has an alias: {alias}");
        }
        repo.delete_ref(&name).with_context(|| format!("deleting {name}"))?;
    }
    Ok(())
}
