//! `repo static-delta`: makes, applies and lists static deltas.

use std::path::{Path, PathBuf};

use anyhow::bail;
use store::delta::{self, ApplyOptions, ByteOrder, DeltaName, Superblock};
use store::sign::{Signs, Verifies};
use store::{Checksum, Repo};
use sys::Exit;

use super::At;
use super::signer::{Kind, Public};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Lists the static deltas.
    List(Query),
    /// Shows what a delta holds.
    Show(Show),
    /// Deletes a delta.
    Delete(Named),
    /// Makes the delta to a commit from its parent, another commit or nothing.
    Generate(Box<Generate>),
    /// Applies a delta in a directory or file to the repository.
    ApplyOffline(Apply),
    /// Checks the signatures of a delta.
    Verify(Verify),
    /// Lists the commits that have an index of deltas.
    Indexes(Query),
    /// Writes the indexes of deltas anew.
    Reindex(Reindex),
}

#[derive(Debug, clap::Args)]
struct Query {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// FROM-TO, or TO for a delta from nothing.
    delta: DeltaName,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// FROM-TO, TO for a delta from nothing, or the path of a superblock.
    delta: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Generate {
    /// The commit that the delta leads to.
    #[arg(value_name = "TO", required_unless_present = "to")]
    rev: Option<String>,
    /// The commit it starts from; without it, the parent.
    #[arg(long, value_name = "REV", conflicts_with = "empty")]
    from: Option<String>,
    /// From nothing.
    #[arg(long)]
    empty: bool,
    /// The commit that the delta leads to.
    #[arg(long, value_name = "REV")]
    to: Option<String>,
    /// Put the parts into the superblock.
    #[arg(long)]
    inline: bool,
    /// No bsdiff patches.
    #[arg(long)]
    disable_bsdiff: bool,
    /// Do nothing if the delta is there.
    #[arg(short = 'n', long)]
    if_not_exists: bool,
    /// Byte order of the numbers: l or B.
    #[arg(long, value_name = "ENDIAN", value_parser = byte_order)]
    set_endianness: Option<ByteOrder>,
    /// The byte order that is not this machine's, nor the one that was set.
    #[arg(long)]
    swap_endianness: bool,
    /// Megabytes from which a file that only shrinks by compression is left to be fetched on its own; 0 for never.
    #[arg(long, value_name = "MB", default_value_t = 4)]
    min_fallback_size: u64,
    /// Megabytes of both files up to which a file may become a bsdiff patch.
    #[arg(long, value_name = "MB", default_value_t = 128)]
    max_bsdiff_size: u64,
    /// Megabytes of a part.
    #[arg(long, value_name = "MB", default_value_t = 32)]
    max_chunk_size: u64,
    /// Write the superblock to this file, and the parts beside it.
    #[arg(long, value_name = "PATH")]
    filename: Option<PathBuf>,
    /// Sign the delta with this secret key.
    #[arg(long, value_name = "KEY")]
    sign: Vec<String>,
    /// Kind of the keys: ed25519 or spki (or dummy, for tests).
    #[arg(long, value_name = "NAME", default_value = "ed25519")]
    sign_type: String,
    /// Sign with the secret keys in this file, one a line.
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

fn byte_order(text: &str) -> Result<ByteOrder, String> {
    match text {
        "l" => Ok(ByteOrder::Little),
        "B" => Ok(ByteOrder::Big),
        _ => Err(format!("Invalid endianness '{text}'")),
    }
}

#[derive(Debug, clap::Args)]
struct Keys {
    /// Public keys to accept.
    keys: Vec<String>,
    /// Kind of the keys: ed25519 or spki (or dummy, for tests).
    #[arg(long, value_name = "NAME", default_value = "ed25519")]
    sign_type: String,
    /// Accept the public keys in this file, one a line.
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// Read trusted and revoked keys here, and not where the system has them.
    #[arg(long, value_name = "DIR")]
    keys_dir: Option<PathBuf>,
}

impl Keys {
    /// Whether the command line names keys.
    fn named(&self) -> bool {
        !self.keys.is_empty() || self.keys_file.is_some() || self.keys_dir.is_some()
    }

    fn read(&self) -> anyhow::Result<Public> {
        Public::read(self.sign_type.parse()?, &self.keys, self.keys_file.as_deref(), self.keys_dir.as_deref())
    }
}

#[derive(Debug, clap::Args)]
struct Apply {
    /// A directory that holds a superblock and its parts, or a superblock with its parts beside it or in it.
    path: PathBuf,
    #[command(flatten)]
    keys: Keys,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// FROM-TO, TO for a delta from nothing, or the path of a superblock.
    delta: String,
    #[command(flatten)]
    keys: Keys,
}

#[derive(Debug, clap::Args)]
struct Reindex {
    /// Only the index of this commit.
    #[arg(long, value_name = "COMMIT")]
    to: Option<Checksum>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    match &args.verb {
        Verb::List(args) => list(delta::list(repo)?, args, "(No static deltas)"),
        Verb::Indexes(args) => list(delta::indexes(repo)?, args, "(No static deltas indexes)"),
        Verb::Show(args) => show(repo, args)?,
        Verb::Delete(args) => delta::delete(repo, &args.delta)?,
        Verb::Generate(args) => generate(repo, args)?,
        Verb::ApplyOffline(args) => apply(repo, args)?,
        Verb::Verify(args) => return verify(repo, args),
        Verb::Reindex(args) => reindex(repo, args.to.as_ref())?,
    }
    Ok(Exit::Done)
}

/// Writes the indexes, and notes in the configuration that there are some: the stock tool then leaves deltas out of
/// the summary.
pub fn reindex(repo: &Repo, to: Option<&Checksum>) -> anyhow::Result<()> {
    delta::reindex(repo, to)?;
    let mut config = repo.config()?;
    if config.get("core", "indexed-deltas").is_none() {
        config.set("core", "indexed-deltas", "true");
        repo.write_config(&config)?;
    }
    Ok(())
}

fn list(names: Vec<impl ToString>, args: &Query, none: &str) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    if args.json {
        println!("{}", serde_json::json!(names));
    } else if names.is_empty() {
        println!("{none}");
    } else {
        println!("{}", names.join("\n"));
    }
}

/// The superblock of a delta by name or path, and the directory of its parts.
fn find(repo: &Repo, delta: &str) -> anyhow::Result<(Superblock, PathBuf)> {
    let path = if delta.contains('/') {
        PathBuf::from(delta)
    } else {
        repo.path().join(delta.parse::<DeltaName>()?.superblock())
    };
    let dir = if path.is_dir() { path.clone() } else { path.parent().unwrap_or(Path::new(".")).to_owned() };
    Ok((delta::read_superblock(&path)?, dir))
}

/// Bytes as people read them, as the stock tools write them.
fn size(bytes: u64) -> String {
    if bytes == 1 {
        return "1 byte".to_owned();
    }
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut number = bytes as f64;
    let mut name = None;
    for unit in units {
        if number < 1000.0 {
            break;
        }
        number /= 1000.0;
        name = Some(unit);
    }
    match name {
        None => format!("{bytes} bytes"),
        Some(unit) => format!("{number:.1}\u{a0}{unit}"),
    }
}

fn show(repo: &Repo, args: &Show) -> anyhow::Result<()> {
    let (superblock, dir) = find(repo, &args.delta)?;
    let order = match (superblock.order, superblock.order_guessed) {
        (ByteOrder::Little, false) => "little",
        (ByteOrder::Big, false) => "big",
        (ByteOrder::Little, true) => "little (heuristic)",
        (ByteOrder::Big, true) => "big (heuristic)",
    };
    let tmp = repo.path().join("tmp");
    let facts = (0..superblock.parts.len()).map(|index| delta::part_facts(&superblock, &dir, index, &tmp));
    let facts = facts.collect::<Result<Vec<_>, _>>()?;
    let signed = superblock.signatures.is_some();
    let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0u64, u64::saturating_add);
    let packed = sum(&mut superblock.parts.iter().map(|p| p.size));
    let unpacked = sum(&mut superblock.parts.iter().map(|p| p.unpacked));
    let fallback_packed = sum(&mut superblock.fallbacks.iter().map(|f| f.size));
    let fallback_unpacked = sum(&mut superblock.fallbacks.iter().map(|f| f.unpacked));
    if args.json {
        let parts = superblock.parts.iter().zip(&facts).enumerate().map(|(index, (part, facts))| {
            serde_json::json!({
                "checksum": part.checksum, "size": part.size, "unpacked": part.unpacked,
                "objects": part.objects.len(), "inline": superblock.inline_part(index).is_some(), "facts": facts,
            })
        });
        let fallbacks = superblock.fallbacks.iter().map(|fallback| {
            serde_json::json!({ "checksum": fallback.checksum, "size": fallback.size, "unpacked": fallback.unpacked })
        });
        let json = serde_json::json!({
            "from": superblock.name.from, "to": superblock.name.to, "signed": signed, "endianness": order,
            "timestamp": superblock.timestamp, "parts": parts.collect::<Vec<_>>(),
            "fallbacks": fallbacks.collect::<Vec<_>>(), "size": packed.saturating_add(fallback_packed),
            "unpacked": unpacked.saturating_add(fallback_unpacked),
        });
        println!("{json}");
        return Ok(());
    }
    println!("Delta: {}", args.delta);
    println!("Signed: {}", if signed { "yes" } else { "no" });
    match superblock.name.from {
        Some(from) => println!("From: {from}"),
        None => println!("From <scratch>"),
    }
    println!("To: {}", superblock.name.to);
    println!("Endianness: {order}");
    println!("Timestamp: {}", superblock.timestamp);
    println!("Number of parents: 0");
    println!("Number of fallback entries: {}", superblock.fallbacks.len());
    for fallback in &superblock.fallbacks {
        println!("  {}", fallback.checksum);
    }
    println!("Total Fallback Size: {fallback_packed} ({})", size(fallback_packed));
    println!("Total Fallback Uncompressed Size: {fallback_unpacked} ({})", size(fallback_unpacked));
    println!("Number of parts: {}", superblock.parts.len());
    for (index, (part, facts)) in superblock.parts.iter().zip(&facts).enumerate() {
        let objects = part.objects.len();
        println!("PartMeta{index}: nobjects={objects} size={} usize={}", part.size, part.unpacked);
        println!(
            "PartPayload{index}: nmodes={} nxattrs={} blobsize={} opsize={}",
            facts.modes, facts.xattrs, facts.data, facts.operations
        );
        let [whole, open, write, set, unset, close, patch] = facts.counts;
        println!(
            "PartPayloadOps{index}: openspliceclose={whole} open={open} write={write} setread={set} unsetread={unset} \
             close={close} bspatch={patch}"
        );
    }
    println!("Total Part Size: {packed} ({})", size(packed));
    println!("Total Part Uncompressed Size: {unpacked} ({})", size(unpacked));
    let (packed, unpacked) = (packed.saturating_add(fallback_packed), unpacked.saturating_add(fallback_unpacked));
    println!("Total Size: {packed} ({})", size(packed));
    println!("Total Uncompressed Size: {unpacked} ({})", size(unpacked));
    Ok(())
}

fn generate(repo: &Repo, args: &Generate) -> anyhow::Result<()> {
    let Some(rev) = args.to.as_ref().or(args.rev.as_ref()) else { bail!("TO revision must be specified") };
    let from = match (&args.from, args.empty) {
        (_, true) => None,
        (Some(from), false) => Some(repo.resolve(from)?),
        (None, false) => Some(repo.resolve(&format!("{rev}^"))?),
    };
    let name = DeltaName { from, to: repo.resolve(rev)? };
    if args.if_not_exists && delta::exists(repo, &name) {
        println!("Delta {name} already exists.");
        return Ok(());
    }
    let keys = args.sign_type.parse::<Kind>()?.secrets(&args.sign, args.keys_file.as_deref())?;
    let keys: Vec<&dyn Signs> = keys.iter().map(|key| key as &dyn Signs).collect();
    let order = args.set_endianness.unwrap_or(ByteOrder::Little);
    let order = match (order, args.swap_endianness) {
        (ByteOrder::Little, true) => ByteOrder::Big,
        (ByteOrder::Big, true) => ByteOrder::Little,
        (order, false) => order,
    };
    const MB: u64 = 1_000_000;
    let options = delta::Options {
        inline: args.inline,
        min_fallback: args.min_fallback_size.saturating_mul(MB),
        max_bsdiff: (!args.disable_bsdiff).then_some(args.max_bsdiff_size.saturating_mul(MB)),
        max_chunk: args.max_chunk_size.saturating_mul(MB),
        order,
        file: args.filename.clone(),
        keys: &keys,
        ..delta::Options::default()
    };
    if !args.json {
        println!("Generating static delta:");
        println!("  From: {}", from.map_or_else(|| "empty".to_owned(), |from| from.to_string()));
        println!("  To:   {}", name.to);
    }
    let made = delta::generate(repo, name.from.as_ref(), &name.to, &options)?;
    if args.json {
        println!("{}", serde_json::json!({ "from": name.from, "to": name.to, "made": made }));
        return Ok(());
    }
    eprintln!("uncompressed={} compressed={} loose={}", made.unpacked, made.packed, made.loose);
    eprintln!("rollsum={} objects, {} bytes", made.copied, made.copied_bytes);
    eprintln!("bsdiff={} objects", made.patched);
    Ok(())
}

fn apply(repo: &Repo, args: &Apply) -> anyhow::Result<()> {
    let required = repo.config_value("core", "sign-verify-deltas")?.as_deref() == Some("true");
    let keyring = args.keys.read()?;
    let signed = delta::read_superblock(&args.path)?.signatures.is_some();
    // Keys that somebody names are meant; those of the system count for deltas that are signed.
    let check = required || args.keys.named() || (signed && !keyring.is_empty());
    if required && keyring.is_empty() {
        bail!("Key is mandatory to check delta signature");
    }
    let options = ApplyOptions { keyring: check.then_some(&keyring as &dyn Verifies), ..Default::default() };
    delta::apply_offline(repo, &args.path, &options)?;
    Ok(())
}

fn verify(repo: &Repo, args: &Verify) -> anyhow::Result<Exit> {
    let (superblock, _) = find(repo, &args.delta)?;
    match superblock.verify(&args.keys.read()?) {
        Ok(_) => {
            println!("Verification OK");
            Ok(Exit::Done)
        }
        Err(error) => {
            println!("Verification fails");
            Err(error.into())
        }
    }
}
