//! `repo init`: an empty repository.

use anyhow::{Context as _, bail};
use store::{Mode, Repo};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// bare, bare-user, bare-user-only or archive.
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
        "bare-user-only" => Mode::BareUserOnly,
        "bare-split-xattrs" => bail!("the mode {} is left out (docs/ostree.md)", args.mode),
        other => bail!("{other} is no mode of a repository: bare, bare-user, bare-user-only or archive"),
    };
    if let Some(id) = args.collection_id.as_ref().filter(|id| !is_collection_id(id)) {
        bail!("{id:?} is no collection ID: names of letters, digits and _, with dots between them, as org.example.Os");
    }
    let path = at.path()?;
    // One that is there stays as it is, whatever its mode.
    let there = path.join("objects").is_dir();
    let repo = if there { Repo::open(&path)? } else { Repo::create(&path, mode)? };
    let cache = path.join("tmp/cache");
    std::fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    if let Some(id) = &args.collection_id {
        let mut config = repo.config()?;
        config.set("core", "collection-id", id);
        repo.write_config(&config)?;
    }
    Ok(Exit::Done)
}

/// As names on D-Bus: two or more words with dots between them, none of which begins with a digit.
fn is_collection_id(id: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let word = |word: &str| word.bytes().all(letter) && word.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    id.len() <= 255 && id.contains('.') && id.split('.').all(word)
}

#[cfg(test)]
mod tests {
    #[test]
    fn collection_ids_are_names_with_dots() {
        assert!(["org.example.Os", "a.b", "_a.b1"].iter().all(|id| super::is_collection_id(id)));
        assert!(!["", "a", "a.", ".a", "a..b", "1.a", "a.1", "a.b-c", "a b.c"].iter().any(|id| super::is_collection_id(id)));
    }
}
