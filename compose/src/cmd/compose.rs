//! `slipway compose`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use compose::{build, packages, treefile};
use store::sign::SecretKey;
use sys::{Exit, Reporter};

use super::sign::KeyArgs;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to build.
    treefile: PathBuf,
    /// The repository; made if it is not there.
    #[arg(long, short, value_name = "DIR", required_unless_present_any = ["dry_run", "download_only", "print_only"])]
    repo: Option<PathBuf>,
    /// Where package lists, packages and unpacked packages are kept between runs.
    #[arg(long, value_name = "DIR", default_value = "/var/cache/slipway", env = "SLIPWAY_CACHEDIR")]
    cachedir: PathBuf,
    /// Where the tree is built [default: `work` in the cache directory].
    #[arg(long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Keep the tree after the end, also after a failure, to look around in it.
    #[arg(long, visible_alias = "keep-sandbox")]
    keep_workdir: bool,
    /// Address of the Debian archive (a second one: of its security archive) instead of this machine's.
    #[arg(long, value_name = "URL", env = "SLIPWAY_MIRROR", value_delimiter = ' ')]
    mirror: Vec<String>,
    /// A .deb or a directory of them, which takes part in the resolution before all repositories.
    #[arg(long, value_name = "DIR")]
    local_packages: Vec<PathBuf>,
    /// The version, instead of counting up the parent's.
    #[arg(long)]
    version: Option<String>,
    /// The commit before this one [default: the one the ref names].
    #[arg(long, value_name = "REV")]
    parent: Option<String>,
    /// Begin a new history.
    #[arg(long, conflicts_with = "parent")]
    no_parent: bool,
    #[command(flatten)]
    sign: SignArgs,
    /// Write the commit's checksum to a file and leave the ref as it is.
    #[arg(long, value_name = "FILE")]
    write_commitid_to: Option<PathBuf>,
    /// Exit with 77, and make no commit, where treefile and packages are those of the parent.
    #[arg(long)]
    unchanged_exit_77: bool,
    /// Resolve and show the packages; change nothing but the cache.
    #[arg(long)]
    dry_run: bool,
    /// Resolve and fetch the packages, and end.
    #[arg(long)]
    download_only: bool,
    /// Print the resolved treefile as JSON, and end.
    #[arg(long)]
    print_only: bool,
    /// Print the result as JSON instead of the commit's checksum.
    #[arg(long)]
    json: bool,
}

/// Where the secret key comes from; never the command line itself.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct SignArgs {
    /// Sign with the key in a file.
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Sign with the key in an environment variable.
    #[arg(long, value_name = "VAR")]
    sign_key_env: Option<String>,
    /// Sign with the key that can be read from a descriptor.
    #[arg(long, value_name = "N")]
    sign_key_fd: Option<u32>,
}

impl SignArgs {
    fn load(self) -> anyhow::Result<Option<SecretKey>> {
        KeyArgs { key: self.sign_key, key_env: self.sign_key_env, key_fd: self.sign_key_fd }.load()
    }
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let reporter = Reporter::new();
    let tree = treefile::load(&args.treefile)?;
    if args.print_only {
        return show(&tree.to_json());
    }
    let mut options = packages::Options::new(&args.cachedir);
    options.mirrors = args.mirror;
    options.local_packages = args.local_packages;
    options.source_date_epoch = source_date_epoch()?;
    let Some(repo) = args.repo else {
        let plan = packages::plan(&tree, &options, &reporter)?;
        if args.dry_run {
            return show(&list(plan.set()));
        }
        plan.fetch(&reporter)?;
        return Ok(Exit::Done);
    };
    let options = build::Options {
        repo,
        workdir: args.workdir.unwrap_or_else(|| args.cachedir.join("work")),
        keep_workdir: args.keep_workdir,
        version: args.version,
        parent: match args.parent {
            Some(rev) => build::Parent::Rev(rev),
            None if args.no_parent => build::Parent::None,
            None => build::Parent::Head,
        },
        key: args.sign.load()?,
        write_commitid_to: args.write_commitid_to,
        packages: options,
    };
    if !args.dry_run {
        build::check_root()?;
    }
    let plan = build::plan(tree, &options, &reporter)?;
    reporter.note(plan.describe());
    if args.dry_run {
        return show(&list(plan.packages()));
    }
    if args.unchanged_exit_77 && plan.unchanged() {
        reporter.note("treefile and packages are those of the parent: nothing to do");
        return Ok(Exit::Nothing);
    }
    let outcome = plan.execute(&options, &reporter)?;
    let total: f64 = outcome.durations.values().filter_map(serde_json::Value::as_f64).sum();
    reporter.note(format!("{} {} in {total:.1} s", outcome.ref_name, outcome.version));
    if args.json {
        show(&format!("{}\n", serde_json::to_string_pretty(&outcome)?))
    } else {
        show(&format!("{}\n", outcome.commit))
    }
}

fn list(set: &packages::Set) -> String {
    set.packages.iter().map(|p| format!("{} {} {}\n", p.name, p.version, p.arch)).collect()
}

fn show(text: &str) -> anyhow::Result<Exit> {
    std::io::stdout().write_all(text.as_bytes())?;
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
