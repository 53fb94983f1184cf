//! `repo update`: makes, shows and applies updates in our own format, by hand. `publish` makes them by itself, and a
//! pull takes them by itself.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;
use store::sign::Keyring;
use store::update::{self, Report};
use store::{Checksum, Verity};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Makes the update to a commit from its parent, another commit or nothing.
    Generate(Generate),
    /// Shows what an update holds.
    Show(Show),
    /// Brings a commit from an update in a file.
    Apply(Apply),
}

#[derive(Debug, clap::Args)]
struct Generate {
    /// The commit that the update leads to.
    to: String,
    /// The commit it starts from; without it, the parent.
    #[arg(long, value_name = "REV", conflicts_with = "empty")]
    from: Option<String>,
    /// From nothing.
    #[arg(long)]
    empty: bool,
    /// Where to write it, instead of where clients of this repository look for it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The update.
    file: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Apply {
    /// The update.
    file: PathBuf,
    /// File with public keys: accept only a commit that one of them signed.
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    match &args.verb {
        Verb::Generate(args) => generate(at, args),
        Verb::Show(args) => show(args),
        Verb::Apply(args) => apply(at, args),
    }
}

/// What an update holds, for people.
pub fn print(report: &Report) {
    for part in &report.parts {
        let (stored, size, files) = (part.stored, part.size, part.files);
        eprintln!("  {stored:>10} of {size:>10} bytes  {:<9} {files:>5} files", part.what.rsplit('/').next().unwrap_or(""));
    }
    eprintln!("  {:>10} bytes of names and directories; in all {} bytes", report.catalogue, report.bytes);
    if report.left_out > 0 {
        eprintln!("  {} files are too large and left to be fetched as objects", report.left_out);
    }
}

fn generate(at: &At, args: &Generate) -> anyhow::Result<Exit> {
    let repo = at.open()?;
    let to = repo.resolve(&args.to)?;
    let from = match &args.from {
        Some(from) => Some(repo.resolve(from)?),
        None if args.empty => None,
        None => {
            let parent = repo.load_commit(&to)?.parent;
            Some(parent.context("the commit has no parent: say --from REV, or --empty")?)
        }
    };
    let options = update::Options::default();
    let report = match &args.output {
        None => update::publish(&repo, &repo, from.as_ref(), &to, &options)?,
        Some(path) => {
            let what = || format!("writing {}", path.display());
            let mut file = std::fs::File::create(path).with_context(what)?;
            let report = update::generate(&repo, from.as_ref(), &to, &options, &mut file)?;
            file.sync_all().with_context(what)?;
            Some(report)
        }
    };
    if let Some(report) = &report {
        print(report);
    } else {
        eprintln!("it is there already");
    }
    if args.json {
        println!("{}", json!(report));
    } else {
        let path = args.output.clone().unwrap_or_else(|| repo.path().join(update::path(from.as_ref(), &to)));
        println!("{}", path.display());
    }
    Ok(Exit::Done)
}

fn show(args: &Show) -> anyhow::Result<Exit> {
    let update::Inspected { from, to, parts } = update::inspect(&args.file)?;
    let bytes: u64 = parts.iter().map(|part| part.0).sum();
    let content: u64 = parts.iter().map(|part| part.1).sum();
    if args.json {
        let parts: Vec<_> = parts.iter().map(|(stored, content)| json!({"stored": stored, "content": content})).collect();
        println!("{}", json!({"from": from, "to": to, "parts": parts}));
    } else {
        println!("From: {}", from.as_ref().map_or_else(|| "nothing".to_owned(), Checksum::to_hex));
        println!("To: {to}");
        println!("Parts: {}, {bytes} bytes for {content} bytes of content", parts.len());
    }
    Ok(Exit::Done)
}

fn apply(at: &At, args: &Apply) -> anyhow::Result<Exit> {
    let repo = at.open()?;
    let mut keyring = Keyring::default();
    for file in &args.keyring {
        keyring.add_file(file)?;
    }
    let keyring = (!args.keyring.is_empty()).then_some(&keyring);
    let (commit, applied, signer) = update::apply_file(&args.file, &repo, keyring, Verity::Off)?;
    if args.json {
        let signer = signer.map(|key| key.to_string());
        println!("{}", json!({"commit": commit, "made": applied.made, "read": applied.read, "signer": signer}));
    } else {
        eprintln!("{} objects from {} bytes", applied.made, applied.read);
        println!("{commit}");
    }
    Ok(Exit::Done)
}
