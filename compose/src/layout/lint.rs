//! A last look at the finished tree, as a careful reader would take it: each finding is a warning with a path.

use std::collections::BTreeSet;

use super::tree::{Found, Kind, Tree};
use super::{Error, Summary};

/// Where a path leads that a machine fills at run time.
const AT_RUN_TIME: &[&str] = &["dev", "efi", "proc", "run", "sys", "sysroot", "tmp", "var"];

/// Dangling links that packages ship on purpose, or whose target documentation would be.
const EXPECTED: &[&str] = &["usr/share/doc/", "usr/share/man/", "usr/share/lintian/"];

/// More of a kind than this is one problem, not many.
const SHOWN: usize = 5;

/// Reports what should not be in a finished tree.
pub(crate) fn check(tree: &Tree, summary: &mut Summary) -> Result<(), Error> {
    let found = tree.walk("")?;
    let made = made_by_tmpfiles(tree)?;
    let paths: BTreeSet<&str> = found.iter().map(|f| f.path.as_str()).collect();
    let links = |path: &str| found.binary_search_by(|f| order(&f.path, path)).ok().map(|i| &found[i].kind);
    let mut dangling = Vec::new();
    let mut writable = Vec::new();
    let mut special = Vec::new();
    for f in &found {
        match &f.kind {
            Kind::Link(target) => {
                let expected = EXPECTED.iter().any(|dir| f.path.starts_with(dir)) || made.contains(&as_seen(&f.path));
                if !expected && !reaches(&f.path, target, &paths, &links) {
                    dangling.push(format!("/{} -> {target}", f.path));
                }
            }
            Kind::Special => special.push(format!("/{}", f.path)),
            _ if f.mode & 0o002 != 0 && !(f.kind == Kind::Dir && f.mode & 0o1000 != 0) => {
                writable.push(format!("/{}", f.path))
            }
            _ => {}
        }
    }
    report(summary, "dangling symlink", dangling);
    report(summary, "writable for everybody", writable);
    report(summary, "device, FIFO or socket, which is not committed", special);
    report(summary, "belongs to one machine", secrets(&found));
    Ok(())
}

fn report(summary: &mut Summary, what: &str, mut paths: Vec<String>) {
    let more = paths.len().saturating_sub(SHOWN);
    paths.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    if !paths.is_empty() {
        summary.warn(format!("{what}: {}{more}", paths.join(", ")));
    }
}

/// Files with an identity that every machine would share.
fn secrets(found: &[Found]) -> Vec<String> {
    let secret = |f: &&Found| {
        let name = f.path.rsplit('/').next().unwrap_or_default();
        let key = f.path.starts_with("usr/etc/ssh/ssh_host_")
            || (f.path.starts_with("usr/etc/ssl/private/") && f.kind == Kind::File);
        let id = f.path == "usr/etc/machine-id" && f.size > 0;
        key || id || ["random-seed", "authorized_keys", ".bash_history"].contains(&name)
    };
    found.iter().filter(secret).map(|f| format!("/{}", f.path)).collect()
}

/// A path of the tree as programs on the machine name it.
fn as_seen(path: &str) -> String {
    format!("/{}", path.strip_prefix("usr/etc/").map_or_else(|| path.to_owned(), |rest| format!("etc/{rest}")))
}

/// The order of `Tree::walk`: by names, not by bytes of the whole path.
fn order(a: &str, b: &str) -> std::cmp::Ordering {
    a.split('/').cmp(b.split('/'))
}

/// Whether a link leads to something in the tree, or to a place that a machine fills.
fn reaches<'a>(path: &str, target: &str, paths: &BTreeSet<&str>, links: &impl Fn(&str) -> Option<&'a Kind>) -> bool {
    let mut done: Vec<String> = as_seen(path)[1..].split('/').map(str::to_owned).collect();
    done.pop();
    let mut todo = vec![target.to_owned()];
    let mut hops = 0;
    while let Some(next) = todo.pop() {
        let mut words = next.splitn(2, '/');
        let (word, rest) = (words.next().unwrap_or_default(), words.next());
        if let Some(rest) = rest.filter(|r| !r.is_empty()) {
            todo.push(rest.to_owned());
        }
        match word {
            "" if next.starts_with('/') => done.clear(),
            "" | "." => {}
            ".." => {
                done.pop();
            }
            name => done.push(name.to_owned()),
        }
        if done.first().is_some_and(|top| AT_RUN_TIME.contains(&top.as_str())) {
            return true;
        }
        if done.is_empty() {
            continue;
        }
        // On the machine /etc is what /usr/etc is here.
        let above = if done[0] == "etc" { "usr/" } else { "" };
        let here = format!("{above}{}", done.join("/"));
        match links(&here) {
            Some(Kind::Link(target)) if hops < 40 => {
                hops += 1;
                done.pop();
                todo.push(target.clone());
            }
            _ if paths.contains(here.as_str()) => {}
            _ => return false,
        }
    }
    true
}

/// Paths in `/etc` that tmpfiles.d makes, links to what an administrator may write among them.
fn made_by_tmpfiles(tree: &Tree) -> Result<BTreeSet<String>, Error> {
    let mut made = BTreeSet::new();
    for name in tree.list("usr/lib/tmpfiles.d")? {
        for line in tree.read(&format!("usr/lib/tmpfiles.d/{name}"))?.unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            if words.next().is_some_and(|kind| kind.starts_with('L')) {
                made.extend(words.next().map(str::to_owned));
            }
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;

    fn warnings(lines: &[&str]) -> Vec<String> {
        let (_dir, tree) = fake(lines);
        let mut summary = Summary::default();
        check(&tree, &mut summary).unwrap();
        summary.warnings
    }

    #[test]
    fn links_are_followed_as_the_machine_would() {
        let good = [
            "lib -> usr/lib",
            "usr/lib/a: 1",
            "usr/etc/a.conf: 1",
            "usr/etc/x -> /usr/lib/a",
            "usr/etc/y -> ../lib/a",
            "usr/lib/b -> /lib/a",
            "usr/lib/c -> b",
            "usr/lib/d -> /etc/a.conf",
            "usr/lib/e -> ../../etc/a.conf",
            "usr/etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf",
            "usr/etc/mtab -> ../proc/self/mounts",
            "usr/local -> ../var/usrlocal",
            "usr/share/doc/x/README -> ../gone",
            "usr/lib/tmpfiles.d/d.conf: L+ /etc/default/locale - - - - ../locale.conf",
            "usr/etc/default/locale -> ../locale.conf",
        ];
        // In `/etc` a relative link starts one directory higher than in `/usr/etc`: `../lib/a` is /lib/a there.
        assert_eq!(warnings(&good), Vec::<String>::new());
        assert_eq!(warnings(&["usr/lib/a -> b", "usr/lib/c -> c"]).len(), 1);
        assert_eq!(warnings(&["usr/etc/systemd/system/a.wants/b -> /usr/lib/systemd/system/b"]).len(), 1);
    }

    #[test]
    fn what_everybody_may_write_and_what_belongs_to_one_machine_is_named() {
        let (dir, tree) = fake(&["usr/bin/x: 1", "usr/etc/machine-id: 0123", "usr/etc/ssh/ssh_host_rsa_key: 1"]);
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path().join("usr/bin/x"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut summary = Summary::default();
        check(&tree, &mut summary).unwrap();
        assert_eq!(
            summary.warnings,
            [
                "writable for everybody: /usr/bin/x",
                "belongs to one machine: /usr/etc/machine-id, /usr/etc/ssh/ssh_host_rsa_key"
            ]
        );
    }

    #[test]
    fn many_of_a_kind_are_one_warning() {
        let lines: Vec<String> = (0..9).map(|i| format!("usr/lib/{i} -> gone")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let found = warnings(&lines);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("and 4 more"), "{found:?}");
    }
}
