//! The policy, over three snapshots: pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::accounts::ACCOUNT_FILES;
use super::snapshot::{Node, Snapshot, What};

/// Made by programs from other files: the new tree's are right, ours would be stale.
const GENERATED: [&str; 2] = ["ld.so.cache", "mtab"];

/// Never carried over: their presence says "this `/etc` has seen that `/usr`", which a merge makes untrue; lvm2's
/// history is no configuration.
const DROPPED: [&str; 3] = [".updated", "lvm/archive", "lvm/backup"];

/// Where a path of the result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The new tree.
    New,
    /// The live `/etc`.
    Live,
    /// Owner and mode of the live file, content merged line by line.
    MergedLive,
    /// Owner and mode of the new tree's file, content merged line by line.
    MergedNew,
}

/// A place where a directory and something else meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Relative to `/etc`.
    pub path: PathBuf,
    /// What to do about it.
    pub text: String,
}

/// The merged `/etc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Every path of the result; a path comes after its parents.
    pub result: BTreeMap<PathBuf, Source>,
    /// Things worth knowing.
    pub notes: Vec<String>,
    /// Things that have no answer.
    pub conflicts: Vec<Conflict>,
}

fn below(path: &Path, names: &[&str]) -> bool {
    names.iter().any(|name| path.starts_with(name))
}

/// Merges: local changes win, the rest follows the new tree.
pub fn merge(old: &Snapshot, live: &Snapshot, new: &Snapshot) -> Merge {
    let mut merge = Merge::default();
    for path in new.keys().filter(|p| !below(p, &DROPPED)) {
        merge.result.insert(path.clone(), Source::New);
    }
    let mut paths: Vec<&PathBuf> = old.keys().chain(live.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        if below(path, &GENERATED) || below(path, &DROPPED) {
            continue;
        }
        let (o, l, n) = (old.get(path), live.get(path), new.get(path));
        if account_file(path, l, n) {
            let source = if same_owner(o, l) { Source::MergedNew } else { Source::MergedLive };
            merge.result.insert(path.clone(), source);
            continue;
        }
        match (o, l) {
            (o, Some(l)) if o != Some(l) => merge.local_change(path, o, l, n, live, new),
            (Some(_), None) => merge.remove(path),
            _ => {}
        }
    }
    merge
}

/// Files that both sides have as files and that are merged by line.
fn account_file(path: &Path, live: Option<&Node>, new: Option<&Node>) -> bool {
    let file = |n: Option<&Node>| n.is_some_and(|n| matches!(n.what, What::File(_)));
    path.to_str().is_some_and(|p| ACCOUNT_FILES.contains(&p)) && file(live) && file(new)
}

fn same_owner(old: Option<&Node>, live: Option<&Node>) -> bool {
    match (old, live) {
        (Some(o), Some(l)) => (o.uid, o.gid, o.mode) == (l.uid, l.gid, l.mode),
        _ => false,
    }
}

impl Merge {
    fn remove(&mut self, path: &Path) {
        // `BTreeMap` orders paths by component, so everything below `path` follows it.
        let gone: Vec<PathBuf> =
            self.result.range(path.to_owned()..).map(|(p, _)| p).take_while(|p| p.starts_with(path)).cloned().collect();
        for path in gone {
            self.result.remove(&path);
        }
    }

    fn local_change(
        &mut self,
        path: &Path,
        old: Option<&Node>,
        local: &Node,
        default: Option<&Node>,
        live: &Snapshot,
        new: &Snapshot,
    ) {
        let shown = path.display();
        if local.what == What::Special {
            self.notes.push(format!("/etc/{shown} is a socket, pipe or device and stays behind"));
            return;
        }
        if let Some(default) = default {
            if default.is_dir() != local.is_dir() {
                // Local changes win where the update did not touch the kind; where it did, there is no answer.
                if old.is_none_or(|o| o.is_dir() != default.is_dir()) {
                    let (here, there) = if local.is_dir() {
                        ("a directory", "something else")
                    } else {
                        ("no directory", "a directory")
                    };
                    let text = format!("/etc/{shown} is {here} on this machine and {there} in the new tree");
                    self.conflicts.push(Conflict { path: path.to_owned(), text });
                    return;
                }
                self.remove(path);
            }
            if default == local {
                return;
            }
            if Some(default) != old && !local.is_dir() {
                self.notes.push(format!("/etc/{shown}: local version kept; the new default is /usr/etc/{shown}"));
            }
        }
        for ancestor in path.ancestors().skip(1) {
            match new.get(ancestor) {
                // A conflict is reported at the ancestor itself, unless only the tree's side changed there.
                Some(node) if !node.is_dir() && self.result.get(ancestor) == Some(&Source::New) => {
                    if !self.conflicts.iter().any(|c| path.starts_with(&c.path)) {
                        let text = format!(
                            "/etc/{} holds local files on this machine and is no directory in the new tree",
                            ancestor.display()
                        );
                        self.conflicts.push(Conflict { path: ancestor.to_owned(), text });
                    }
                    return;
                }
                Some(_) if self.result.contains_key(ancestor) => {}
                _ if live.get(ancestor).is_some_and(Node::is_dir) => {
                    self.result.insert(ancestor.to_owned(), Source::Live);
                }
                _ => {}
            }
        }
        self.result.insert(path.to_owned(), Source::Live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(lines: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::new();
        let node = |what| Node { what, mode: 0o755, uid: 0, gid: 0, xattrs: Vec::new() };
        snapshot.insert(PathBuf::new(), node(What::Dir));
        for line in lines {
            let (path, what) = match line.split_once('=') {
                Some((path, content)) => (path, What::File([content.as_bytes()[0]; 32])),
                None => match line.split_once('>') {
                    Some((path, target)) => (path, What::Link(target.into())),
                    None => match line.strip_suffix('!') {
                        Some(path) => (path, What::Special),
                        None => (*line, What::Dir),
                    },
                },
            };
            snapshot.insert(path.into(), node(what));
        }
        snapshot
    }

    fn check(old: &[&str], live: &[&str], new: &[&str]) -> (Vec<String>, Vec<String>, Vec<String>) {
        let merge = merge(&snapshot(old), &snapshot(live), &snapshot(new));
        let result = merge.result.iter().skip(1).map(|(p, s)| format!("{} {s:?}", p.display())).collect();
        (result, merge.notes, merge.conflicts.into_iter().map(|c| c.text).collect())
    }

    #[test]
    fn local_changes_win_and_the_rest_follows_the_tree() {
        let (result, notes, conflicts) = check(
            &["a=1", "b=1", "c=1", "d=1", "dir", "dir/x=1", "e=1", "gone=1"],
            &["a=1", "b=2", "c=1", "dir", "dir/x=1", "dir/mine=1", "e=2", "added=1", "gone=1"],
            &["a=3", "b=3", "c=1", "d=1", "e=1", "fresh=1"],
        );
        assert_eq!(
            result,
            ["a New", "added Live", "b Live", "c New", "dir Live", "dir/mine Live", "e Live", "fresh New"]
        );
        assert_eq!(notes, ["/etc/b: local version kept; the new default is /usr/etc/b"]);
        assert!(conflicts.is_empty());
    }

    #[test]
    fn a_directory_removed_here_stays_removed_with_what_is_new_in_it() {
        let (result, ..) = check(&["d", "d/x=1"], &[], &["d", "d/x=1", "d/y=1", "d2=1"]);
        assert_eq!(result, ["d2 New"]);
    }

    #[test]
    fn generated_files_follow_the_tree_and_stamps_are_dropped() {
        let (result, notes, _) = check(
            &["ld.so.cache=1", "mtab>a"],
            &["ld.so.cache=2", "mtab>b", ".updated=1", "lvm", "lvm/backup", "lvm/backup/x=1", "sock!"],
            &["ld.so.cache=3", "mtab>a"],
        );
        assert_eq!(result, ["ld.so.cache New", "lvm Live", "mtab New"]);
        assert_eq!(notes, ["/etc/sock is a socket, pipe or device and stays behind"]);
    }

    #[test]
    fn kinds_conflict_only_where_the_update_changed_the_kind() {
        let (_, _, conflicts) = check(&["a=1"], &["a=2"], &["a", "a/x=1"]);
        assert_eq!(conflicts, ["/etc/a is no directory on this machine and a directory in the new tree"]);
        let (_, _, conflicts) = check(&[], &["a", "a/x=1"], &["a=1"]);
        assert_eq!(conflicts, ["/etc/a is a directory on this machine and something else in the new tree"]);
        let (_, _, conflicts) = check(&["a"], &["a", "a/x=1", "a/y=1"], &["a=1"]);
        assert_eq!(conflicts, ["/etc/a holds local files on this machine and is no directory in the new tree"]);
        // An unmodified file may become a directory, and a directory that holds nothing of ours a file.
        let (result, _, conflicts) = check(&["a=1", "b", "b/x=1"], &["a=1", "b", "b/x=1"], &["a", "a/y=1", "b=1"]);
        assert_eq!((result, conflicts.len()), (vec!["a New".into(), "a/y New".into(), "b New".into()], 0));
        // The operator put a link in a directory's place; the update left it a directory.
        let (result, _, conflicts) = check(&["a", "a/x=1"], &["a>/var/a"], &["a", "a/x=1", "a/y=1"]);
        assert_eq!((result, conflicts.len()), (vec!["a Live".to_owned()], 0));
    }

    #[test]
    fn account_files_are_merged_by_line() {
        let (result, ..) = check(&["passwd=1", "group=1"], &["passwd=2"], &["passwd=3", "group=1"]);
        assert_eq!(result, ["passwd MergedNew"]);
    }
}
