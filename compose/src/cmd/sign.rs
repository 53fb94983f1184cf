//! `slipway sign`: adds a signature to a commit.

use std::path::PathBuf;

use anyhow::Context as _;
use store::Repo;
use store::sign::{Keyring, SecretKey, sign_commit};
use sys::Exit;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The commit: a ref, a checksum or the unique beginning of one.
    commit: String,
    /// The repository.
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
}

/// Where the secret key comes from. Never an argument: every user of a machine sees those.
#[derive(Debug, Default, clap::Args)]
#[group(multiple = false)]
pub struct KeyArgs {
    /// File with the secret key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Environment variable with the secret key.
    #[arg(long, value_name = "VAR")]
    pub key_env: Option<String>,
    /// Open file descriptor to read the secret key from.
    #[arg(long, value_name = "N")]
    pub key_fd: Option<u32>,
}

impl KeyArgs {
    /// Reads the key, if one was named.
    pub fn load(&self) -> anyhow::Result<Option<SecretKey>> {
        if let Some(file) = &self.key {
            return Ok(Some(SecretKey::load(file).with_context(|| format!("the key {}", file.display()))?));
        }
        if let Some(name) = &self.key_env {
            let text = std::env::var(name).with_context(|| format!("the key in the environment variable {name}"))?;
            return Ok(Some(text.parse().with_context(|| format!("the environment variable {name}"))?));
        }
        if let Some(fd) = self.key_fd {
            // Opened again by name, which works for files and pipes alike.
            let text = std::fs::read_to_string(format!("/proc/self/fd/{fd}"))
                .with_context(|| format!("reading the key from descriptor {fd}"))?;
            return Ok(Some(text.parse().with_context(|| format!("descriptor {fd}"))?));
        }
        Ok(None)
    }
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let repo = Repo::open(&args.repo)?;
    let commit = repo.resolve(&args.commit)?;
    let key = args.key.load()?.context("no key: give --key FILE, --key-env VAR or --key-fd N")?;
    sign_commit(&repo, &commit, &key)?;
    // Read back and checked as a machine would: a signature that nobody accepts is found here, not in the field.
    let bytes = repo.load_commit(&commit)?.bytes;
    let detached = repo.load_detached(&commit)?.unwrap_or_default();
    Keyring::of([key.public()]).verify(&bytes, &detached).context("checking the signature that was written")?;
    println!("{commit} {}", key.public());
    Ok(Exit::Done)
}
