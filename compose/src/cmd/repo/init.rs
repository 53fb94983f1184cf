//! `repo init`: an empty repository.

use anyhow::bail;
use store::{Mode, Repo};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// bare, bare-user or archive.
    #[arg(long, default_value = "bare")]
    mode: String,
    /// The name of this repository among those that hand on each other's refs.
    #[arg(long)]
    collection_id: Option<String>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let mode = match args.mode.as_str() {
        "archive" | "archive-z2" => Mode::Archive,
        "bare-user" => Mode::BareUser,
        "bare" => Mode::Bare,
        "bare-user-only" | "bare-split-xattrs" => bail!("the mode {} is left out (docs/ostree.md)", args.mode),
        other => bail!("{other} is no mode of a repository: bare, bare-user or archive"),
    };
    let path = at.path()?;
    // One that is there stays as it is, whatever its mode.
    let there = path.join("objects").is_dir();
    let repo = if there { Repo::open(&path)? } else { Repo::create(&path, mode)? };
    if let Some(id) = &args.collection_id {
        let mut config = repo.config()?;
        config.set("core", "collection-id", id);
        repo.write_config(&config)?;
    }
    Ok(Exit::Done)
}
