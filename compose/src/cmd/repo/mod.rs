//! `slipway repo`: works on a repository as the command `ostree` of 2025.2 does: the same verbs (all but `admin`), the
//! same options before and after them, the same standard output, exit codes 0 and 1. A script switches by changing one
//! word. `docs/ostree.md` is the list of what is there; what is left out is refused by name.
//!
//! One file for each verb, with its `Args` and a `run`; the table below is the list of them. Options of ours that the
//! stock tool lacks (`--json`) are marked so.

mod cookies;
mod describe;
mod finders;
mod gpg;
mod parse;
mod rename;
mod signer;
mod size;
mod wkd;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use store::Repo;
use sys::{Exit, Refused};

pub use describe::date;

/// The version of the stock tool whose verbs and options these are.
const COMPATIBLE: &str = "2025.2";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository. Default: the current directory if it is one, $OSTREE_REPO, the machine's own.
    #[arg(long, value_name = "PATH", global = true)]
    repo: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb is told besides its own arguments.
#[derive(Debug)]
pub struct At {
    path: Option<PathBuf>,
}

impl At {
    /// The directory of the repository.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        if Path::new("objects").is_dir() && Path::new("config").is_file() {
            return Ok(".".into());
        }
        if let Some(path) = std::env::var_os("OSTREE_REPO").filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let places = ["/sysroot/ostree/repo", "/ostree/repo"].map(Path::new);
        let found = places.into_iter().find(|place| place.join("objects").is_dir());
        Ok(found.ok_or_else(|| Refused::new("which repository? Give --repo PATH"))?.to_owned())
    }

    /// The repository.
    pub fn open(&self) -> anyhow::Result<Repo> {
        Ok(Repo::open(&self.path()?)?)
    }
}

/// Refuses options that the stock tool has and this one has not.
fn left_out(options: &[(&str, bool)]) -> anyhow::Result<()> {
    match options.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Refused::new(format!("{name} is left out (docs/ostree.md)")).into()),
        None => Ok(()),
    }
}

/// Makes of the table of verbs their modules, the command line, and the way from one to the other.
macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident($module:ident),)*) => {
        $(mod $module;)*

        // One command line is read in the life of the program: its size does not matter.
        #[allow(clippy::large_enum_variant)]
        #[derive(Debug, clap::Subcommand)]
        enum Verb {
            $($(#[$doc])* $verb($module::Args),)*
        }

        pub fn run(args: Args) -> anyhow::Result<Exit> {
            let at = At { path: args.repo };
            match &args.verb {
                $(Verb::$verb(args) => $module::run(&at, args),)*
            }
        }
    };
}

verbs! {
    /// Prints files of a commit.
    Cat(cat),
    /// Writes a commit's files to a directory.
    Checkout(checkout),
    /// Prints the checksum that a file would have as an object.
    Checksum(checksum),
    /// Commits directories, archives and other commits.
    Commit(commit),
    /// Reads and changes the file `config`.
    Config(config),
    /// Copies refs to a repository on a removable disk.
    CreateUsb(create_usb),
    /// Shows the paths that differ between two commits or directories.
    Diff(diff),
    /// Writes a commit as a tar archive.
    Export(export),
    /// Finds out who has refs of collections, and can pull them.
    FindRemotes(find_remotes),
    /// Reads every object and reports all that is damaged or missing.
    Fsck(fsck),
    /// Signs a commit with GPG.
    GpgSign(gpg_sign),
    /// Creates an empty repository.
    Init(init),
    /// Shows a commit and those before it.
    Log(log),
    /// Lists the files of a commit.
    Ls(ls),
    /// Deletes what no commit or ref needs.
    Prune(prune),
    /// Fetches refs from a remote or an address.
    Pull(pull),
    /// Copies refs or commits from another repository on this machine.
    PullLocal(pull_local),
    /// Lists, creates and deletes refs.
    Refs(refs),
    /// Lists and changes remotes, and shows what they have.
    Remote(remote),
    /// Points a ref at an earlier commit.
    Reset(reset),
    /// Prints the commits that names stand for.
    RevParse(rev_parse),
    /// Shows what a commit or another object says.
    Show(show),
    /// Signs a commit, or checks its signatures.
    Sign(sign),
    /// Makes, applies and lists static deltas.
    StaticDelta(static_delta),
    /// Writes or shows the file `summary`.
    Summary(summary),
    /// Makes, shows and applies updates in Slipway's own format.
    Update(update),
    /// Left out: machines are `host`'s.
    #[command(hide = true)]
    Admin(admin),
    /// Left out.
    #[command(hide = true)]
    TrivialHttpd(trivial_httpd),
}

/// Adapts the command line that clap made to the stock tool's habits: an option given twice counts the last time, its
/// value may begin with a dash, and `--verbose` is an option of every verb.
pub fn habits(command: clap::Command) -> clap::Command {
    let leaf = !command.has_subcommands();
    let shorts: Vec<char> = command.get_arguments().filter_map(clap::Arg::get_short).collect();
    let mut command = command.args_override_self(true).mut_args(|arg| {
        let takes = matches!(arg.get_action(), clap::ArgAction::Set | clap::ArgAction::Append);
        if takes && !arg.is_positional() { arg.allow_hyphen_values(true) } else { arg }
    });
    if leaf {
        let verbose = clap::Arg::new("verbose").long("verbose").action(clap::ArgAction::SetTrue).hide(true);
        command = command.arg(if shorts.contains(&'v') { verbose } else { verbose.short('v') });
    }
    command.mut_subcommands(habits)
}

/// `--version`, wherever it stands.
pub fn version(args: &[OsString]) -> Option<String> {
    let before_end = args.iter().take_while(|arg| *arg != "--");
    before_end.into_iter().any(|arg| arg == "--version").then(|| {
        let features = ["gpgme", "sign-ed25519", "sign-spki", "composefs", "ex-fsverity", "libarchive", "inode64"];
        let features: String = features.iter().map(|name| format!("  - {name}\n")).collect();
        let ours = env!("CARGO_PKG_VERSION");
        format!("libostree:\n Version: '{COMPATIBLE}'\n Git: slipway {ours}\n Features:\n{features}")
    })
}

/// What a command line that clap did not take ends with: the stock tool knows 0 and 1.
pub fn usage(error: &clap::Error) -> Exit {
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ => Exit::Failed,
    }
}

/// The stock tool has no exit code for what is refused.
pub fn exit(result: anyhow::Result<Exit>) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("slipway: {error:#}");
            if let Some(hint) = error.downcast_ref::<Refused>().and_then(|r| r.hint.as_ref()) {
                eprintln!("hint: {hint}");
            }
            Exit::Failed
        }
    }
}
