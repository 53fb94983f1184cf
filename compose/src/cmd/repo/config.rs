//! `repo config`: values of the file `config`.

use anyhow::{Context as _, bail};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// get, set or unset.
    operation: String,
    /// GROUP.KEY, or KEY with --group; and the value to set.
    words: Vec<String>,
    /// The group, where its name has a dot in it.
    #[arg(long)]
    group: Option<String>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = at.open()?;
    let wanted = match args.operation.as_str() {
        "get" | "unset" => 1,
        "set" => 2,
        other => bail!("unknown operation {other}: get, set or unset"),
    };
    if args.words.len() > wanted {
        bail!("too many arguments");
    }
    if args.words.len() < wanted {
        bail!("{} must be given", if wanted == 2 { "KEY and VALUE" } else { "KEY" });
    }
    let (group, key) = match &args.group {
        Some(group) => (group.as_str(), args.words[0].as_str()),
        None => args.words[0].split_once('.').context("the key has the form GROUP.KEY")?,
    };
    let mut config = repo.config()?;
    match args.operation.as_str() {
        "get" => {
            let value = config.get(group, key).with_context(|| format!("config has no {key} in [{group}]"))?;
            println!("{value}");
        }
        "set" => {
            config.set(group, key, &args.words[1]);
            repo.write_config(&config)?;
        }
        _ => {
            if config.remove(group, key) {
                repo.write_config(&config)?;
            }
        }
    }
    Ok(Exit::Done)
}
