//! `repo find-remotes`: who has refs of collections, and with `--pull` gets them there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::bail;
use store::pull::{self, Options};
use store::{Checksum, Repo};
use sys::Exit;

use super::describe::date;
use super::finders::{self, Finder, Found, Wanted};
use super::{At, parse};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// COLLECTION-ID REF, and again.
    #[arg(required = true, value_name = "COLLECTION-ID REF")]
    refs: Vec<String>,
    /// Remember accepted summaries here, and not in the repository.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Do not wait for the disk.
    #[arg(long)]
    disable_fsync: bool,
    /// Ask these alone: config (remotes), mount (disks). Default: both.
    #[arg(long, value_name = "FINDERS")]
    finders: Option<String>,
    /// Pull what was found.
    #[arg(long)]
    pull: bool,
    /// Write refs/mirrors, as in a copy of the remotes, and not refs/remotes.
    #[arg(long)]
    mirror: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let mut repo = at.open()?;
    if args.disable_fsync {
        repo = repo.without_fsync();
    }
    let repo = &repo;
    if args.refs.len() % 2 != 0 {
        bail!("refs are given as pairs: COLLECTION-ID REF");
    }
    if args.mirror && !args.pull {
        bail!("--mirror is for --pull");
    }
    let finders = args.finders.as_deref().map_or(Ok(vec![Finder::Config, Finder::Mount]), finders_of)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    for pair in args.refs.chunks(2) {
        let (id, name) = (pair[0].clone(), pair[1].clone());
        if !store::valid_collection(&id) || !store::valid_ref(&name) {
            bail!("({id}, {name}) cannot be a collection and a ref of it");
        }
        wanted.push((id, name));
    }
    let found = finders::find(repo, &finders, &wanted, parse::directory(args.cache_dir.as_deref())?.as_deref())?;
    if found.is_empty() {
        println!("No results.");
        return Ok(Exit::Done);
    }
    show(&found, &wanted);
    if args.pull {
        pull_all(repo, &found, &wanted, args.mirror)?;
        let all = wanted.len();
        println!("Pulled {all}/{all} refs successfully.");
    }
    Ok(Exit::Done)
}

/// `config,mount`
fn finders_of(text: &str) -> anyhow::Result<Vec<Finder>> {
    let mut finders = Vec::new();
    for name in text.split(',') {
        let finder = match name {
            "config" => Finder::Config,
            "mount" => Finder::Mount,
            "lan" => bail!("find-remotes --finders=lan is left out (docs/ostree.md)"),
            _ => bail!("there is no finder {name:?} (config, mount)"),
        };
        if finders.contains(&finder) {
            bail!("the finder {name} is named twice");
        }
        finders.push(finder);
    }
    Ok(finders)
}

fn show(found: &[Found], wanted: &[Wanted]) {
    for (number, place) in found.iter().enumerate() {
        let time = match place.last_modified {
            0 => "unknown".to_owned(),
            time => date(time).replacen(' ', "T", 1).replace(" +0000", "Z"),
        };
        println!("Result {number}: {}\n - Finder: {}", place.options.url, place.finder.name());
        println!(" - Keyring: {}.trustedkeys.gpg\n - Priority: {}", place.remote, place.finder.priority());
        println!(" - Summary last modified: {time}\n - Refs:");
        for (number, (id, name)) in wanted.iter().enumerate() {
            let commit = place.commits.get(&number).map_or_else(|| "(not found)".to_owned(), Checksum::to_string);
            println!("    - ({id}, {name}) = {commit}");
        }
        println!();
    }
    let known: BTreeSet<&Wanted> =
        found.iter().flat_map(|place| place.commits.keys()).map(|number| &wanted[*number]).collect();
    println!("{}/{} refs were found.", known.len(), wanted.len());
    let missing: Vec<&Wanted> = wanted.iter().filter(|one| !known.contains(one)).collect();
    if !missing.is_empty() {
        println!("Refs not found in any remote:");
        missing.iter().for_each(|(id, name)| println!(" - ({id}, {name})"));
    }
}

/// Gets each ref from the first place that has it and gives it.
fn pull_all(repo: &Repo, found: &[Found], wanted: &[Wanted], mirror: bool) -> anyhow::Result<()> {
    let mut done = BTreeSet::new();
    let mut tried = BTreeSet::new();
    for place in found {
        let open: Vec<(usize, Checksum)> =
            place.commits.iter().filter(|(number, _)| !done.contains(*number)).map(|(n, c)| (*n, *c)).collect();
        if open.is_empty() {
            continue;
        }
        tried.extend(open.iter().map(|(number, _)| *number));
        match pull_from(repo, place, &open, wanted, mirror) {
            Ok(()) => done.extend(open.iter().map(|(number, _)| *number)),
            Err(error) => eprintln!("pulling from {}: {error:#}", place.options.url),
        }
    }
    let failed: Vec<String> =
        tried.difference(&done).map(|number| format!("({}, {})", wanted[*number].0, wanted[*number].1)).collect();
    if !failed.is_empty() {
        bail!("no remote gave {}", failed.join(", "));
    }
    Ok(())
}

/// Gets refs from one place: all of them, or no ref changes.
fn pull_from(
    repo: &Repo,
    place: &Found,
    open: &[(usize, Checksum)],
    wanted: &[Wanted],
    mirror: bool,
) -> anyhow::Result<()> {
    let options = Options {
        refs: open.iter().map(|(_, commit)| commit.to_string()).collect(),
        trust: finders::trust(repo, &repo.remote(&place.remote)?)?,
        remote: Some(place.remote.clone()),
        ..place.options.clone()
    };
    pull::http(&options, repo)?;
    let own = repo.config()?.get("core", "collection-id");
    for (number, commit) in open {
        let (id, name) = &wanted[*number];
        let new = repo.load_commit(commit)?;
        store::commit::check_binding(&new, name)?;
        let bound = new.metadata.get("ostree.collection-binding").and_then(|value| value.as_str());
        if bound != Some(id.as_str()) {
            bail!("commit {commit} does not say that it belongs to the collection {id}");
        }
        let current = match (mirror, own.as_ref() == Some(id)) {
            (false, _) => repo.read_ref(&format!("{}:{name}", place.remote))?,
            (true, true) => repo.read_ref(name)?,
            (true, false) => repo.mirror_refs()?.get(&(id.clone(), name.clone())).copied(),
        };
        let time = current.and_then(|current| repo.load_commit(&current).ok()).map_or(0, |commit| commit.timestamp);
        if time > new.timestamp {
            bail!("commit {commit} of ({id}, {name}) is older than what is here: a downgrade");
        }
    }
    for (number, commit) in open {
        let (id, name) = &wanted[*number];
        match (mirror, own.as_ref() == Some(id)) {
            (false, _) => repo.set_ref(&format!("{}:{name}", place.remote), commit)?,
            (true, true) => repo.set_ref(name, commit)?,
            (true, false) => repo.set_mirror_ref(id, name, commit)?,
        }
    }
    Ok(())
}
