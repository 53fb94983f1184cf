//! Publishing to another machine with rsync, in an order in which a reader never misses anything.
//!
//! ```text
//! 1  objects but commits, deltas, updates     nobody asks for them yet
//! 2  commits, then signatures and config       whole: everything they need is there
//! 3  delta-indexes, then summary.sig            good for the old summary as well as for the new one
//! 4  refs, summary                              what readers begin with
//! 5  where pruning is wanted: delete the refs that the local copy no longer has, and then the rest
//! ```
//! Each file is written under another name and renamed. Interrupted, the next run sends what is missing.

use std::path::Path;

use anyhow::Context as _;
use sys::Cmd;

/// Whether a target is another machine's: `rsync://…`, `host:dir`, `user@host:dir`.
pub fn is_remote(target: &str) -> bool {
    if target.starts_with("rsync://") {
        return true;
    }
    match target.split_once(':') {
        Some((host, _)) => !host.is_empty() && !host.contains('/') && !target.contains("://"),
        None => false,
    }
}

/// The steps: what each sends.
const STEPS: [(&str, &[&str]); 5] = [
    (
        "objects",
        &[
            "--ignore-existing",
            "--include=/objects/",
            "--include=/objects/*/",
            "--include=*.filez",
            "--include=*.dirtree",
            "--include=*.dirmeta",
            "--include=/deltas/***",
            "--include=/updates/***",
            "--exclude=*",
        ],
    ),
    ("commits", &["--include=/objects/", "--include=/objects/*/", "--include=*.commit", "--exclude=*"]),
    (
        "signatures",
        &["--include=/objects/", "--include=/objects/*/", "--include=*.commitmeta", "--include=/config", "--exclude=*"],
    ),
    ("indexes and signature", &["--include=/delta-indexes/***", "--include=/summary.sig", "--exclude=*"]),
    (
        "refs and summary",
        &["--delay-updates", "--include=/summary", "--include=/refs/", "--include=/refs/heads/***", "--exclude=*"],
    ),
];

/// Sends the repository in `dir` to `target`.
pub fn send(dir: &Path, target: &str, delete: bool) -> anyhow::Result<()> {
    let from = format!("{}/", dir.display());
    let to = format!("{}/", target.trim_end_matches('/'));
    let rsync = |options: &[&str], what: &str| {
        let cmd = Cmd::new("rsync").args(["--recursive", "--links", "--times", "--chmod=D0755,F0644"]).args(options);
        cmd.args([&from, &to]).run().with_context(|| format!("sending {what} to {target}"))
    };
    for (what, step) in STEPS {
        rsync(step, what)?;
    }
    if delete {
        // First what leads to the rest.
        rsync(&["--delete", "--include=/refs/", "--include=/refs/heads/***", "--exclude=*"], "the refs that are left")?;
        let mirrored = [
            "--delete",
            "--include=/objects/***",
            "--include=/deltas/***",
            "--include=/updates/***",
            "--include=/delta-indexes/***",
            "--exclude=*",
        ];
        rsync(&mirrored, "what was pruned")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn other_machines_are_told_from_directories() {
        for remote in ["rsync://host/module", "host:dir", "user@host:/srv/repo"] {
            assert!(super::is_remote(remote), "{remote}");
        }
        for local in ["public", "/srv/public", "./a:b", "dir/a:b", ":x"] {
            assert!(!super::is_remote(local), "{local}");
        }
    }
}
