//! What was published and replaced, so that pruning spares what a client may still be reading.
//!
//! ```text
//! state/published.json   {"format": "1.0", "replaced": [{"ref": …, "commit": …, "at": seconds}, …]}
//! ```

use store::{Checksum, Repo, gc};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The form of the file.
const FORMAT: &str = "1.0";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Published {
    format: String,
    replaced: Vec<Replaced>,
}

/// A commit that a ref pointed to.
#[derive(Debug, Serialize, Deserialize)]
struct Replaced {
    #[serde(rename = "ref")]
    name: String,
    commit: Checksum,
    /// When another took its place.
    at: u64,
}

fn path(repo: &Repo) -> std::path::PathBuf {
    repo.path().join("state/published.json")
}

fn load(repo: &Repo) -> anyhow::Result<Published> {
    let path = path(repo);
    match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(Published { format: FORMAT.to_owned(), ..Published::default() })
        }
        bytes => {
            let bytes = bytes.with_context(|| format!("reading {}", path.display()))?;
            serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
        }
    }
}

fn save(repo: &Repo, published: &Published) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(published)? + "\n";
    sys::file::replace(&path(repo), text.as_bytes(), 0o644).context("writing what was published")
}

/// Remembers that `new` takes the place of `old`. Called before the ref moves: an interruption spares too much.
pub fn replaced(repo: &Repo, name: &str, old: Option<&Checksum>, new: &Checksum, now: u64) -> anyhow::Result<()> {
    let Some(old) = old.filter(|old| *old != new) else { return Ok(()) };
    let mut published = load(repo)?;
    published.replaced.push(Replaced { name: name.to_owned(), commit: *old, at: now });
    save(repo, &published)
}

/// Deletes what no ref needs, but neither what was replaced less than `grace` seconds ago nor what came since.
pub fn prune(repo: &Repo, history: u64, grace: u64, now: u64) -> anyhow::Result<gc::Pruned> {
    let since = now.saturating_sub(grace);
    let mut published = load(repo)?;
    published.replaced.retain(|entry| entry.at > since);
    let here = |commit: &Checksum| repo.has(store::ObjectType::Commit, commit);
    let keep = published.replaced.iter().map(|entry| entry.commit).filter(here).collect();
    let options = gc::Options {
        keep,
        depth: Some(history),
        tags: Some("tags".to_owned()),
        not_after: Some(since),
        ..gc::Options::default()
    };
    let pruned = gc::prune(repo, &options)?;
    for name in store::delta::list(repo)? {
        if !here(&name.to) {
            store::delta::delete(repo, &name)?;
        }
    }
    store::update::prune(repo)?;
    save(repo, &published)?;
    Ok(pruned)
}
