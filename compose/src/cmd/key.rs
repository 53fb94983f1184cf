//! `slipway key`: the keys that sign commits.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use store::sign::{PublicKey, SecretKey};
use sys::{Exit, Refused};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Makes a key: FILE (secret, mode 0600) and FILE.pub (the line to put into trusted.ed25519.d).
    New {
        /// Where the secret key goes; it must not exist.
        file: PathBuf,
    },
    /// Prints the public key that belongs to a secret or public key file.
    Show {
        /// A file that `slipway key new` wrote.
        file: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::New { file } => new(&file),
        Verb::Show { file, json } => show(&file, json),
    }
}

fn public_name(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

fn taken(path: &Path) -> Refused {
    let why = format!("{} exists already", path.display());
    Refused::with_hint(why, "choose another name, or remove the key if nothing needs it")
}

/// Writes a file that must not exist: a key that is overwritten is lost.
fn create(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match file {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(taken(path).into()),
        file => file.with_context(|| format!("creating {}", path.display()))?,
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

fn new(file: &Path) -> anyhow::Result<Exit> {
    let key = SecretKey::generate().context("asking the kernel for random numbers")?;
    let public = public_name(file);
    for path in [file, &public] {
        if path.exists() {
            return Err(taken(path).into());
        }
    }
    create(file, &format!("{}\n", key.to_text()), 0o600)?;
    create(&public, &format!("{}\n", key.public()), 0o644)?;
    println!("{}", key.public());
    Ok(Exit::Done)
}

fn show(file: &Path, json: bool) -> anyhow::Result<Exit> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let public = match text.trim().parse::<PublicKey>() {
        Ok(public) if file.extension().is_some_and(|e| e == "pub") => public,
        _ => text.parse::<SecretKey>().with_context(|| file.display().to_string())?.public(),
    };
    if json {
        println!("{}", serde_json::json!({ "type": "ed25519", "public": public.to_string() }));
    } else {
        println!("{public}");
    }
    Ok(Exit::Done)
}
