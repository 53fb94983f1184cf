//! `repo show`: what a commit says, and who signed it.

use serde_json::json;
use store::sign::PublicKey;

use super::describe::{commit_json, print_commit, signatures, value_json};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    rev: String,
    /// Say whether this public key (base64) signed it.
    #[arg(long, value_name = "KEY")]
    verify: Option<PublicKey>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let checksum = repo.resolve(&args.rev)?;
    let commit = repo.load_commit(&checksum)?;
    let verified = match &args.verify {
        None => None,
        Some(key) => {
            let detached = repo.load_detached(&checksum)?.unwrap_or_default();
            Some(store::sign::Keyring::of([*key]).verify(&commit.bytes, &detached))
        }
    };
    if args.json {
        let mut object = commit_json(repo, &checksum, &commit)?;
        if let Some(verified) = &verified {
            object["verified"] = json!(verified.is_ok());
        }
        println!("{object}");
    } else {
        print_commit(&checksum, &commit);
        for (key, value) in &commit.metadata {
            println!("{key}: {}", value_json(key, value));
        }
        println!("signatures: {}", signatures(repo, &checksum)?);
        match &verified {
            Some(Ok(key)) => println!("signed by {key}"),
            Some(Err(error)) => println!("not verified: {error}"),
            None => {}
        }
    }
    Ok(if matches!(verified, Some(Err(_))) { Exit::Failed } else { Exit::Done })
}
