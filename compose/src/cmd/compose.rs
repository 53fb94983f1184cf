//! `slipway compose`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use compose::{packages, treefile};
use sys::{Exit, Reporter};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to build.
    treefile: PathBuf,
    /// Where package lists, packages and unpacked packages are kept between runs.
    #[arg(long, value_name = "DIR", default_value = "/var/cache/slipway", env = "SLIPWAY_CACHEDIR")]
    cachedir: PathBuf,
    /// Address of the Debian archive (a second one: of its security archive) instead of this machine's.
    #[arg(long, value_name = "URL", env = "SLIPWAY_MIRROR", value_delimiter = ' ')]
    mirror: Vec<String>,
    /// A .deb or a directory of them, which takes part in the resolution before all repositories.
    #[arg(long, value_name = "DIR")]
    local_packages: Vec<PathBuf>,
    /// Resolve and show the packages, change nothing but the cache.
    #[arg(long)]
    dry_run: bool,
    /// Resolve and fetch the packages, and end.
    #[arg(long)]
    download_only: bool,
    /// Print the resolved treefile as JSON, and end.
    #[arg(long)]
    print_only: bool,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let reporter = Reporter::new();
    let tree = treefile::load(&args.treefile)?;
    if args.print_only {
        std::io::stdout().write_all(tree.to_json().as_bytes())?;
        return Ok(Exit::Done);
    }
    let mut options = packages::Options::new(&args.cachedir);
    options.mirrors = args.mirror.clone();
    options.local_packages = args.local_packages.clone();
    options.source_date_epoch = source_date_epoch()?;
    let plan = packages::plan(&tree, &options, &reporter)?;
    if args.dry_run {
        let lines: String =
            plan.set().packages.iter().map(|p| format!("{} {} {}\n", p.name, p.version, p.arch)).collect();
        std::io::stdout().write_all(lines.as_bytes())?;
        return Ok(Exit::Done);
    }
    plan.fetch(&reporter)?;
    Ok(Exit::Done)
}

fn source_date_epoch() -> anyhow::Result<Option<u64>> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => {
            Ok(Some(text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is `{text}`, not a number of seconds"))?))
        }
        _ => Ok(None),
    }
}
