//! `repo refs`: the names of commits.

use serde_json::json;
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only refs that begin with this.
    prefix: Option<String>,
    /// Delete the ref of this name (the commit stays until a prune).
    #[arg(long)]
    delete: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    if args.delete {
        let name = args.prefix.as_deref().ok_or_else(|| sys::Refused::new("which ref? Give its name"))?;
        if repo.read_ref(name)?.is_none() {
            return Err(sys::Refused::new(format!("there is no ref {name}")).into());
        }
        repo.delete_ref(name)?;
        return Ok(Exit::Done);
    }
    let prefix = args.prefix.as_deref().unwrap_or("");
    let refs = repo.ref_targets()?.into_iter().filter(|(name, _)| name.starts_with(prefix));
    if args.json {
        let map: serde_json::Map<_, _> = refs.map(|(name, commit)| (name, json!(commit))).collect();
        println!("{}", json!(map));
    } else {
        for (name, commit) in refs {
            println!("{commit} {name}");
        }
    }
    Ok(Exit::Done)
}
