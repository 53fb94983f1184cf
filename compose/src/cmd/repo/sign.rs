//! `repo sign`: signatures of a commit that are not GPG's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use store::sign::{Keyring, PublicKey, SecretKey, sign_commit, spki};
use store::{Checksum, Dict, Repo};
use sys::Exit;

use super::{At, left_out};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    commit: String,
    /// Secret keys to sign with, public keys to check with (base64). Every user of a machine can see them.
    #[arg(value_name = "KEY-ID")]
    keys: Vec<String>,
    /// Left out.
    #[arg(short, long, hide = true)]
    delete: bool,
    /// Check: one valid signature by one of the keys is enough.
    #[arg(long)]
    verify: bool,
    /// ed25519 or spki.
    #[arg(short, long, default_value = "ed25519")]
    sign_type: String,
    /// Read keys from this file.
    #[arg(long, value_name = "NAME")]
    keys_file: Option<PathBuf>,
    /// Trusted and revoked keys are here, and not where the machine has them.
    #[arg(long, value_name = "NAME")]
    keys_dir: Option<PathBuf>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    left_out(&[("sign --delete", args.delete)])?;
    let repo = &at.open()?;
    if !args.verify && args.keys.is_empty() && args.keys_file.is_none() {
        bail!("no key to sign with");
    }
    let commit = repo.resolve(&args.commit)?;
    match (args.sign_type.as_str(), args.verify) {
        ("ed25519", true) => verify_ed25519(repo, args, &commit),
        ("ed25519", false) => sign_ed25519(repo, args, &commit),
        ("spki", true) => verify_spki(repo, args, &commit),
        ("spki", false) => sign_spki(repo, args, &commit),
        (other, _) => bail!("signatures of the type {other} are left out (docs/ostree.md)"),
    }
}

fn sign_ed25519(repo: &Repo, args: &Args, commit: &Checksum) -> anyhow::Result<Exit> {
    for key in &args.keys {
        sign_commit(repo, commit, &key.parse::<SecretKey>().context("the secret key")?)?;
    }
    if let Some(file) = &args.keys_file {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            sign_commit(repo, commit, &line.trim().parse::<SecretKey>().with_context(|| format!("{}", file.display()))?)?;
        }
    }
    Ok(Exit::Done)
}

fn sign_spki(repo: &Repo, args: &Args, commit: &Checksum) -> anyhow::Result<Exit> {
    let mut keys = Vec::new();
    for key in &args.keys {
        keys.push(spki::SecretKey::parse(key).context("the secret key")?);
    }
    if let Some(file) = &args.keys_file {
        keys.push(spki::SecretKey::load(file).with_context(|| format!("the key {}", file.display()))?);
    }
    let bytes = repo.load_commit(commit)?.bytes;
    let mut detached = repo.load_detached(commit)?.unwrap_or_default();
    for key in &keys {
        spki::add_signature(&mut detached, &bytes, key)?;
    }
    repo.write_detached(commit, &detached)?;
    Ok(Exit::Done)
}

fn signed(repo: &Repo, commit: &Checksum) -> anyhow::Result<(Vec<u8>, Dict)> {
    Ok((repo.load_commit(commit)?.bytes, repo.load_detached(commit)?.unwrap_or_default()))
}

fn verify_ed25519(repo: &Repo, args: &Args, commit: &Checksum) -> anyhow::Result<Exit> {
    let mut keyring = Keyring::default();
    for key in &args.keys {
        keyring.trust(key.parse::<PublicKey>().context("the public key")?);
    }
    if let Some(file) = &args.keys_file {
        keyring.add_file(file)?;
    }
    if args.keys.is_empty() && args.keys_file.is_none() {
        keyring = installed(args)?;
    }
    let (bytes, detached) = signed(repo, commit)?;
    let key = keyring.verify(&bytes, &detached)?;
    println!("ed25519: Signature verified successfully with key '{}'", hex::encode(key.as_bytes()));
    Ok(Exit::Done)
}

/// The keys of this machine, or those in the directory that was named.
fn installed(args: &Args) -> anyhow::Result<Keyring> {
    let Some(dir) = &args.keys_dir else { return Ok(Keyring::load(Path::new("/"))?) };
    let mut keyring = Keyring::default();
    let files = |name: &str| -> anyhow::Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = Some(dir.join(name)).filter(|file| file.is_file()).into_iter().collect();
        if let Ok(entries) = std::fs::read_dir(dir.join(format!("{name}.d"))) {
            for entry in entries {
                files.push(entry?.path());
            }
        }
        files.sort();
        Ok(files)
    };
    for file in files("trusted.ed25519")? {
        keyring.add_file(&file)?;
    }
    for file in files("revoked.ed25519")? {
        let mut revoked = Keyring::default();
        revoked.add_file(&file)?;
        revoked.keys().for_each(|key| keyring.revoke(*key));
    }
    Ok(keyring)
}

fn verify_spki(repo: &Repo, args: &Args, commit: &Checksum) -> anyhow::Result<Exit> {
    left_out(&[("sign --keys-dir with --sign-type=spki", args.keys_dir.is_some())])?;
    let mut keyring = spki::Keyring::default();
    for key in &args.keys {
        keyring.trust(key.parse::<spki::PublicKey>().context("the public key")?);
    }
    if let Some(file) = &args.keys_file {
        keyring.add_file(file)?;
    }
    keyring.load(Path::new("/"), args.keys.is_empty() && args.keys_file.is_none())?;
    let (bytes, detached) = signed(repo, commit)?;
    let key = keyring.verify(&bytes, &detached).context("no valid signature by a trusted key")?;
    println!("spki: Signature verified successfully with key '{key}'");
    Ok(Exit::Done)
}
