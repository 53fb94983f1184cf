//! `slipway bundle`: a commit in one file, which `host upgrade --from FILE` takes.

use std::path::PathBuf;

use anyhow::Context as _;
use store::{Repo, bundle};
use sys::{Exit, Refused, Reporter};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The commit: a ref, a checksum or the unique beginning of one.
    commit: String,
    /// The repository.
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// The commit that the machines have; without it the bundle holds everything.
    #[arg(long, value_name = "COMMIT")]
    from: Option<String>,
    /// The ref it is to be known as. Default: the one it belongs to.
    #[arg(long = "ref", value_name = "REF")]
    name: Option<String>,
    /// The file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Bundle a commit that nobody signed.
    #[arg(long)]
    allow_unsigned: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let repo = Repo::open(&args.repo)?;
    let commit = repo.resolve(&args.commit)?;
    let loaded = repo.load_commit(&commit)?;
    super::publish::signed(&repo, &commit, &args.repo, args.allow_unsigned)?;
    let from = args.from.as_deref().map(|from| repo.resolve(from)).transpose()?;
    let bound = loaded.ref_bindings().and_then(|refs| refs.first().cloned());
    let name = args.name.clone().or(bound).or_else(|| store::valid_ref(&args.commit).then(|| args.commit.clone()));
    let name = name.ok_or_else(|| Refused::new("under which ref? Give --ref REF"))?;
    store::commit::check_binding(&loaded, &name).map_err(|e| Refused::new(e.to_string()))?;
    let beside = args.output.parent().filter(|dir| !dir.as_os_str().is_empty());
    let scratch = tempfile::Builder::new().prefix(".bundle-").tempdir_in(beside.unwrap_or(std::path::Path::new(".")));
    let scratch = scratch.with_context(|| format!("making a directory beside {}", args.output.display()))?;
    let reporter = Reporter::new();
    let step = reporter.step("bundle", 0);
    let bytes = bundle::write(&repo, from.as_ref(), &commit, &name, scratch.path(), &args.output)?;
    step.done(format!("{:.1} MB", bytes as f64 / 1e6));
    if args.json {
        println!("{}", serde_json::json!({ "commit": commit, "from": from, "ref": name, "bytes": bytes }));
    } else {
        println!("{commit}");
    }
    Ok(Exit::Done)
}
