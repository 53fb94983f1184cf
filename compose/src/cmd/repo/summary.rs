//! `repo summary`: the file that has every ref of a repository.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use store::sign::{Signs as _, gpg};
use store::text::{self, Order};
use store::summary::{self, Summary};
use store::{Dict, Error, Repo, Value};
use sys::Exit;

use super::describe::date;
use super::signer::Kind;
use super::{At, parse, size};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write it.
    #[arg(short, long)]
    update: bool,
    /// Show it.
    #[arg(short = 'v', long)]
    view: bool,
    /// Show it as it is.
    #[arg(long)]
    raw: bool,
    /// The keys of its metadata.
    #[arg(long)]
    list_metadata_keys: bool,
    /// One value of its metadata.
    #[arg(long, value_name = "KEY")]
    print_metadata_key: Option<String>,
    /// Sign it with this GPG key.
    #[arg(long, value_name = "KEY-ID")]
    gpg_sign: Vec<String>,
    /// GPG's directory.
    #[arg(long, value_name = "HOMEDIR")]
    gpg_homedir: Option<PathBuf>,
    /// Sign it with this secret key (base64). Every user of a machine can see it: `slipway sign` reads it from a file.
    #[arg(long, value_name = "KEY-ID")]
    sign: Vec<String>,
    /// The kind of that key.
    #[arg(long, value_name = "NAME")]
    sign_type: Option<String>,
    /// A further fact, its value in GVariant's text format.
    #[arg(short = 'm', long, value_name = "KEY=VALUE")]
    add_metadata: Vec<String>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    if args.update {
        return update(repo, args);
    }
    let path = repo.path().join("summary");
    let read = || std::fs::read(&path).with_context(|| format!("reading {}", path.display()));
    if args.view || args.raw {
        print(&read()?, args.raw)?;
    } else if args.list_metadata_keys {
        Summary::decode(&read()?)?.facts.keys().for_each(|key| println!("{key}"));
    } else if let Some(key) = &args.print_metadata_key {
        print_key(&read()?, key)?;
    } else {
        bail!("say what to do: -u writes the summary");
    }
    Ok(Exit::Done)
}

fn update(repo: &Repo, args: &Args) -> anyhow::Result<Exit> {
    let kind = args.sign_type.as_deref().unwrap_or("ed25519");
    let keys = match args.sign.as_slice() {
        [] => Vec::new(),
        keys => kind.parse::<Kind>()?.secrets(keys, None)?,
    };
    let mut added = Dict::new();
    for text in &args.add_metadata {
        parse::value_into(&mut added, text)?;
    }
    super::static_delta::reindex(repo, None)?;
    let mut new = summary::of_repo(repo)?;
    if let Some(id) = repo.config()?.get("core", "collection-id") {
        new.facts.insert(summary::COLLECTION_ID.to_owned(), Value::String(id));
    }
    new.facts.append(&mut added);
    summary::write_bytes(repo, &new.encode())?;
    for key in &keys {
        summary::sign(repo, |signatures, bytes| {
            key.sign_into(signatures, bytes).map_err(|why| Error::invalid(format!("signing the summary: {why}")))
        })?;
    }
    for key in &args.gpg_sign {
        let home = args.gpg_homedir.as_deref();
        summary::sign(repo, |signatures, bytes| {
            gpg::add_signature(signatures, bytes, key, home).map_err(|e| Error::invalid(format!("signing with {key}: {e}")))
        })?;
    }
    Ok(Exit::Done)
}

/// One value of a summary's metadata.
pub fn print_key(bytes: &[u8], key: &str) -> anyhow::Result<()> {
    let facts = Summary::decode(bytes)?.facts;
    let value = facts.get(key).with_context(|| format!("the metadata has no key {key}"))?;
    println!("{}", text::print_value(value, Order::Big, true));
    Ok(())
}

/// A summary in words, or as it is.
pub fn print(bytes: &[u8], raw: bool) -> anyhow::Result<()> {
    if raw {
        println!("{}", text::print("(a(s(taya{sv}))a{sv})", bytes, Order::Big, true)?);
        return Ok(());
    }
    let summary = Summary::decode(bytes)?;
    print_refs(summary.collection(), &summary.refs);
    for (id, refs) in summary.collections()? {
        print_refs(Some(&id), &refs);
    }
    for key in Summary::order_of_facts(bytes)? {
        if let Some(value) = summary.facts.get(&key) {
            println!("{}", fact(&key, value));
        }
    }
    Ok(())
}

fn print_refs(id: Option<&str>, refs: &[summary::Ref]) {
    for entry in refs {
        match id {
            Some(id) => println!("* ({id}, {})", entry.name),
            None => println!("* {}", entry.name),
        }
        println!("    Latest Commit ({}):\n      {}", size::format(entry.size), entry.commit);
        for (key, value) in &entry.facts {
            println!("    {}", fact(key, value));
        }
        println!();
    }
}

/// A fact with its name in words, where it has one.
fn fact(key: &str, value: &Value) -> String {
    let time = |value: &Value| {
        let seconds = value.as_u64().map_or(0, u64::swap_bytes);
        date(seconds).replacen(' ', "T", 1).replace(" +0000", "+00")
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (words, value) = match key {
        "ostree.commit.timestamp" => ("Timestamp", time(value)),
        "ostree.commit.version" => ("Version", text(value)),
        "ostree.static-deltas" => ("Static Deltas", text::print_value(value, Order::Little, false)),
        "ostree.summary.last-modified" => ("Last-Modified", time(value)),
        "ostree.summary.expires" => ("Expires", time(value)),
        summary::COLLECTION_ID => ("Collection ID", text(value)),
        summary::COLLECTION_MAP => ("Collection Map", "(printed above)".to_owned()),
        "ostree.summary.mode" => ("Repository Mode", text(value)),
        "ostree.summary.tombstone-commits" => {
            ("Has Tombstone Commits", if value.as_bool() == Some(true) { "Yes" } else { "No" }.to_owned())
        }
        _ => return format!("{key}: {}", text::print_value(value, Order::Little, false)),
    };
    format!("{words} ({key}): {value}")
}
