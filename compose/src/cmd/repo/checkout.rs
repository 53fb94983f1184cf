//! `repo checkout`: the files of a commit, in a directory.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use store::checkout::{Options, Place, Union, checkout};
use store::{Checksum, Repo, composefs};
use sys::Exit;

use super::{At, left_out, parse};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit; with --from-stdin or --from-file: where the files go.
    #[arg(value_name = "COMMIT")]
    rev: String,
    /// Where the files go. Default: the name of the commit.
    #[arg(value_name = "DESTINATION")]
    dir: Option<PathBuf>,
    /// Leave owners and xattrs alone: what an ordinary user can do.
    #[arg(short = 'U', long)]
    user_mode: bool,
    /// There is no such cache here.
    #[arg(long)]
    disable_cache: bool,
    /// Only this directory of the tree.
    #[arg(long, value_name = "PATH")]
    subpath: Option<String>,
    /// Join directories, replace files.
    #[arg(long, conflicts_with_all = ["union_add", "union_identical"])]
    union: bool,
    /// Join directories, leave files.
    #[arg(long, conflicts_with = "union_identical")]
    union_add: bool,
    /// Join directories; a file that is there must be the same.
    #[arg(long, requires = "require_hardlinks")]
    union_identical: bool,
    /// Files called .wh.NAME delete NAME.
    #[arg(long)]
    whiteouts: bool,
    /// Files called .ostree-wh.NAME become character devices 0:0 called NAME, which overlayfs takes for no NAME.
    #[arg(long)]
    process_passthrough_whiteouts: bool,
    /// Do nothing where the tree has no such path.
    #[arg(long)]
    allow_noent: bool,
    /// Read pairs of commit and path from standard input, each ended by a NUL.
    #[arg(long)]
    from_stdin: bool,
    /// Read them from a file.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// A checkout is never synced.
    #[arg(long, value_name = "POLICY", value_parser = parse::boolean)]
    fsync: Option<bool>,
    /// Fail where a hard link cannot be made.
    #[arg(short = 'H', long, conflicts_with = "force_copy")]
    require_hardlinks: bool,
    /// Copy empty files; that is always done.
    #[arg(short = 'z', long)]
    force_copy_zerosized: bool,
    /// Make no hard links.
    #[arg(short = 'C', long)]
    force_copy: bool,
    /// Directories lose the bits outside of 0775.
    #[arg(short = 'M', long)]
    bareuseronly_dirs: bool,
    /// File with paths to leave out, one a line.
    #[arg(long, value_name = "FILE")]
    skip_list: Option<PathBuf>,
    /// Left out.
    #[arg(long, hide = true, value_name = "PATH")]
    selinux_policy: Option<PathBuf>,
    /// Left out.
    #[arg(long, hide = true, value_name = "PREFIX")]
    selinux_prefix: Option<String>,
    /// Write the tree's composefs image, and no files.
    #[arg(long)]
    composefs: bool,
    /// The same without the files' fs-verity digests.
    #[arg(long)]
    composefs_noverity: bool,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    left_out(&[
        ("checkout --selinux-policy", args.selinux_policy.is_some()),
        ("checkout --selinux-prefix", args.selinux_prefix.is_some()),
    ])?;
    let repo = &at.open()?;
    let skip: Option<HashSet<String>> = args.skip_list.as_deref().map(parse::lines).transpose()?;
    let options = Options {
        user: args.user_mode,
        union: match (args.union, args.union_add, args.union_identical) {
            (true, ..) => Union::Replace,
            (_, true, _) => Union::Add,
            (.., true) => Union::Identical,
            _ => Union::Refuse,
        },
        place: match (args.require_hardlinks, args.force_copy) {
            (true, _) => Place::LinkOnly,
            (_, true) => Place::Copy,
            _ => Place::Link,
        },
        // Names of one empty file would share its times and mode, and save nothing.
        copy_empty: true,
        plain_dirs: args.bareuseronly_dirs,
        whiteouts: args.whiteouts,
        passthrough_whiteouts: args.process_passthrough_whiteouts,
        skip: skip.as_ref(),
        threads: 0,
    };
    let Some(list) = many(args)? else {
        let dir = args.dir.clone().unwrap_or_else(|| args.rev.clone().into());
        one(repo, args, &repo.resolve(&args.rev)?, args.subpath.as_deref(), &dir, &options)?;
        return Ok(Exit::Done);
    };
    for (rev, path) in list {
        let commit = repo.resolve(&rev)?;
        let path = Some(path.as_str()).filter(|path| !path.is_empty());
        one(repo, args, &commit, path, Path::new(&args.rev), &options)
            .with_context(|| format!("Processing tree {commit}"))?;
    }
    Ok(Exit::Done)
}

fn one(
    repo: &Repo,
    args: &Args,
    commit: &Checksum,
    path: Option<&str>,
    dir: &Path,
    options: &Options<'_>,
) -> anyhow::Result<()> {
    if args.composefs || args.composefs_noverity {
        let image = match args.composefs_noverity {
            true => composefs::image_without_verity(repo, commit)?,
            false => composefs::image(repo, commit)?,
        };
        std::fs::write(dir, &image.bytes).with_context(|| format!("writing {}", dir.display()))?;
        return Ok(());
    }
    let path = path.unwrap_or("/");
    if args.allow_noent && repo.lookup(commit, path)?.is_none() {
        return Ok(());
    }
    checkout(repo, commit, path, dir, options)?;
    Ok(())
}

/// The pairs of commit and path, if they are to be read.
fn many(args: &Args) -> anyhow::Result<Option<Vec<(String, String)>>> {
    let mut bytes = Vec::new();
    if args.from_stdin {
        std::io::stdin().read_to_end(&mut bytes)?;
    } else if let Some(file) = &args.from_file {
        bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    } else {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).context("the list of checkouts is not UTF-8")?;
    let words: Vec<&str> = text.split_terminator('\0').collect();
    if words.len() % 2 != 0 {
        bail!("the list of checkouts ends after a commit");
    }
    Ok(Some(words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()))
}
