//! `repo show`: what a commit or another object says, and who signed it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;
use store::sign::PublicKey;
use store::text::{self, Order};
use store::{Checksum, Dict, ObjectType, Repo, Value};
use sys::Exit;

use super::describe::{commit_json, print_commit_body, raw_object};
use super::{At, gpg, parse, size};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref, commit or the checksum of any object.
    object: String,
    /// The "related" commits.
    #[arg(long)]
    print_related: bool,
    /// Read the file OBJECT as a GVariant of this type.
    #[arg(long, value_name = "TYPE")]
    print_variant_type: Option<String>,
    /// The keys of the metadata.
    #[arg(long)]
    list_metadata_keys: bool,
    /// One value of the metadata.
    #[arg(long, value_name = "KEY")]
    print_metadata_key: Option<String>,
    /// Print a byte array as hexadecimal digits.
    #[arg(long)]
    print_hex: bool,
    /// The keys of the detached metadata.
    #[arg(long)]
    list_detached_metadata_keys: bool,
    /// One value of the detached metadata.
    #[arg(long, value_name = "KEY")]
    print_detached_metadata_key: Option<String>,
    /// How much of the commit is missing here, by the sizes it records.
    #[arg(long)]
    print_sizes: bool,
    /// The object as it is.
    #[arg(long)]
    raw: bool,
    /// Leave numbers in the byte order they have in the file.
    #[arg(short = 'B', long)]
    no_byteswap: bool,
    /// Directory with further GPG keys, in files *.gpg.
    #[arg(long, value_name = "HOMEDIR")]
    gpg_homedir: Option<PathBuf>,
    /// Check GPG signatures with the keys of this remote.
    #[arg(long, value_name = "REMOTE")]
    gpg_verify_remote: Option<String>,
    /// Say whether this public key (base64) signed it (not in the stock tool).
    #[arg(long, value_name = "KEY")]
    verify: Option<PublicKey>,
    /// As JSON (not in the stock tool).
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let detached = |commit: &Checksum| -> anyhow::Result<Dict> {
        repo.load_detached(commit)?.with_context(|| format!("commit {commit} has no detached metadata"))
    };
    let metadata = |commit: &Checksum| -> anyhow::Result<Dict> { Ok(repo.load_commit(commit)?.metadata) };
    let commit = || repo.resolve(&args.object);
    if let Some(key) = &args.print_detached_metadata_key {
        print_value(args, &detached(&commit()?)?, key)?;
    } else if let Some(key) = &args.print_metadata_key {
        print_value(args, &metadata(&commit()?)?, key)?;
    } else if args.list_detached_metadata_keys {
        detached(&commit()?)?.keys().for_each(|key| println!("{key}"));
    } else if args.list_metadata_keys {
        metadata(&commit()?)?.keys().for_each(|key| println!("{key}"));
    } else if args.print_related {
        // The list of related commits has been empty since the format exists, and a commit with another is refused.
        repo.load_commit(&commit()?)?;
    } else if let Some(ty) = &args.print_variant_type {
        let bytes = std::fs::read(Path::new(&args.object)).with_context(|| format!("reading {}", args.object))?;
        println!("{}", text::print(ty, &bytes, Order::Big, true)?);
    } else if args.print_sizes {
        print_sizes(repo, &commit()?)?;
    } else {
        return show(repo, args);
    }
    Ok(Exit::Done)
}

fn print_value(args: &Args, dict: &Dict, key: &str) -> anyhow::Result<()> {
    let value = dict.get(key).with_context(|| format!("the metadata has no key {key}"))?;
    match value {
        Value::Bytes(bytes) if args.print_hex => println!("{}", hex::encode(bytes)),
        value => {
            let order = if args.no_byteswap { Order::Little } else { Order::Big };
            println!("{}", text::print_value(value, order, true));
        }
    }
    Ok(())
}

fn print_sizes(repo: &Repo, commit: &Checksum) -> anyhow::Result<()> {
    let loaded = repo.load_commit(commit)?;
    let sizes = store::commit::recorded_sizes(&loaded.metadata).context("the commit records no sizes")?;
    let needed = sizes.iter().filter(|size| !repo.has(size.kind, &size.checksum));
    let mut sums = [(0, 0), (0, 0), (0, 0)];
    for (missing, size) in needed.map(|size| (true, size)).chain(sizes.iter().map(|size| (false, size))) {
        for (sum, more) in sums.iter_mut().zip([size.archived, size.unpacked, 1]) {
            let sum = if missing { &mut sum.0 } else { &mut sum.1 };
            *sum += more;
        }
    }
    let [archived, unpacked, objects] = sums;
    println!("Compressed size (needed/total): {}/{}", size::format(archived.0), size::format(archived.1));
    println!("Unpacked size (needed/total): {}/{}", size::format(unpacked.0), size::format(unpacked.1));
    println!("Number of objects (needed/total): {}/{}", objects.0, objects.1);
    Ok(())
}

fn show(repo: &Repo, args: &Args) -> anyhow::Result<Exit> {
    if let Ok(checksum) = args.object.parse::<Checksum>() {
        for kind in [ObjectType::Commit, ObjectType::DirMeta, ObjectType::DirTree] {
            if repo.has(kind, &checksum) {
                return show_object(repo, args, kind, &checksum);
            }
        }
        show_file(repo, &checksum)?;
        return Ok(Exit::Done);
    }
    show_object(repo, args, ObjectType::Commit, &repo.resolve(&args.object)?)
}

fn show_object(repo: &Repo, args: &Args, kind: ObjectType, checksum: &Checksum) -> anyhow::Result<Exit> {
    let bytes = repo.load_metadata(kind, checksum)?;
    if args.json && kind == ObjectType::Commit {
        return show_json(repo, args, checksum);
    }
    println!("{kind} {checksum}");
    if args.no_byteswap {
        println!("{}", raw_object(kind, &bytes, Order::Little)?);
    } else if args.raw {
        println!("{}", raw_object(kind, &bytes, Order::Big)?);
        return Ok(Exit::Done);
    }
    if kind != ObjectType::Commit {
        return Ok(Exit::Done);
    }
    let commit = repo.load_commit(checksum)?;
    print_commit_body(&commit);
    signatures(repo, args, &commit.bytes, checksum)?;
    match verified(repo, args, checksum)? {
        Some(Ok(key)) => println!("signed by {key}"),
        Some(Err(error)) => {
            println!("not verified: {error}");
            return Ok(Exit::Failed);
        }
        None => {}
    }
    Ok(Exit::Done)
}

/// The GPG signatures of a commit.
fn signatures(repo: &Repo, args: &Args, bytes: &[u8], checksum: &Checksum) -> anyhow::Result<()> {
    let detached = repo.load_detached(checksum)?.unwrap_or_default();
    let keyring = match &args.gpg_verify_remote {
        Some(name) => repo.remote(name)?.gpg_keys(repo, Path::new("/"))?,
        None if !detached.contains_key(store::sign::gpg::KEY) => return Ok(()),
        None => gpg::all_keys(repo, args.gpg_homedir.as_deref())?,
    };
    gpg::print_signatures(&keyring, bytes, &detached, "Found")
}

type Verdict = Option<Result<PublicKey, String>>;

fn verified(repo: &Repo, args: &Args, commit: &Checksum) -> anyhow::Result<Verdict> {
    let Some(key) = &args.verify else { return Ok(None) };
    let bytes = repo.load_commit(commit)?.bytes;
    let detached = repo.load_detached(commit)?.unwrap_or_default();
    let verdict = store::sign::Keyring::of([*key]).verify(&bytes, &detached);
    Ok(Some(verdict.map_err(|error| error.to_string())))
}

fn show_json(repo: &Repo, args: &Args, checksum: &Checksum) -> anyhow::Result<Exit> {
    let mut object = commit_json(repo, checksum, &repo.load_commit(checksum)?)?;
    let verified = verified(repo, args, checksum)?;
    if let Some(verified) = &verified {
        object["verified"] = json!(verified.is_ok());
    }
    println!("{object}");
    Ok(if matches!(verified, Some(Err(_))) { Exit::Failed } else { Exit::Done })
}

fn show_file(repo: &Repo, checksum: &Checksum) -> anyhow::Result<()> {
    if !repo.has(ObjectType::File, checksum) {
        bail!("no object {checksum}");
    }
    let meta = repo.load_file_meta(checksum)?;
    println!("Object: {checksum}\nType: file");
    match &meta.symlink {
        Some(target) => println!("File Type: symlink\nTarget: {target}"),
        None => println!("File Type: regular\nSize: {}", meta.size),
    }
    println!("Mode: 0{:04o}\nUid: {}\nGid: {}", meta.mode, meta.uid, meta.gid);
    println!("Extended Attributes: {{ {} }}", parse::xattrs(&meta.xattrs)?);
    Ok(())
}
