//! `repo cat`: files of a commit, on standard output.

use std::io;

use store::{Checksum, Entry, Repo};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ref or commit.
    #[arg(value_name = "COMMIT")]
    rev: String,
    /// Files.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    let repo = &at.open()?;
    let commit = repo.resolve(&args.rev)?;
    let mut out = io::stdout().lock();
    for path in &args.paths {
        let checksum = file(repo, &commit, path)?;
        io::copy(&mut repo.open_file(&checksum)?.content, &mut out)?;
    }
    Ok(Exit::Done)
}

/// The regular file at `path`, behind as many symbolic links as a kernel would follow.
fn file(repo: &Repo, commit: &Checksum, path: &str) -> anyhow::Result<Checksum> {
    let mut at = path.to_owned();
    for _ in 0..40 {
        let checksum = match repo.lookup(commit, &at)? {
            Some(Entry::File { checksum }) => checksum,
            Some(Entry::Dir { .. }) => anyhow::bail!("{path} is a directory"),
            None => anyhow::bail!("commit {commit} has no {path}"),
        };
        match repo.load_file_meta(&checksum)?.symlink {
            None => return Ok(checksum),
            Some(target) => at = join(&at, &target),
        }
    }
    anyhow::bail!("{path}: too many symbolic links")
}

/// Where a link at `path` points to, in the tree.
fn join(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    if !target.starts_with('/') {
        parts.extend(path.split('/').filter(|p| !p.is_empty()));
        parts.pop();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn links_stay_in_the_tree() {
        for (path, target, expected) in [
            ("/usr/bin/a", "b", "/usr/bin/b"),
            ("usr/bin/a", "../lib/b", "/usr/lib/b"),
            ("/a", "../../../etc/passwd", "/etc/passwd"),
            ("/usr/a", "/b/./c", "/b/c"),
        ] {
            assert_eq!(super::join(path, target), expected);
        }
    }
}
