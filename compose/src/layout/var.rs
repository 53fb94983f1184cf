//! `/var` belongs to the machine: the tree only describes it, in tmpfiles.d, and each boot makes what is missing.
//!
//! ```text
//! directory         d /var/lib/x 0750 user group -        unless a package's own tmpfiles.d has the path
//! symlink           L /var/x - - - - target
//! known leftover    dropped: caches, logs, state of package scripts
//! any other file    moved to /usr/share/factory/var/…  +  C /var/… mode user group - /usr/share/factory/var/…
//! ```

use std::collections::BTreeSet;

use super::accounts::Accounts;
use super::tree::{Found, Kind, Tree};
use super::{Error, Summary};

const FILE: &str = "usr/lib/tmpfiles.d/slipway-var.conf";
const FACTORY: &str = "usr/share/factory";

/// Top-level directories that are symlinks in an image-mode tree, and where they lead.
pub(crate) const MOVED: &[(&str, &str)] = &[
    ("home", "var/home"),
    ("mnt", "var/mnt"),
    ("opt", "var/opt"),
    ("root", "var/roothome"),
    ("srv", "var/srv"),
    ("usr/local", "var/usrlocal"),
];

/// Directories whose content is dropped, while they stay.
const EMPTIED: &[&str] = &["var/cache", "var/log", "var/tmp", "var/spool", "var/lib/apt"];

/// What only maintainer scripts and package tools read, and what every machine makes itself.
const DROPPED: &[&str] = &[
    "var/backups",
    "var/cache/debconf",
    "var/lib/dbus/machine-id",
    "var/lib/dracut",
    "var/lib/initramfs-tools",
    "var/lib/pam",
    "var/lib/python",
    "var/lib/shells.state",
    "var/lib/systemd/catalog",
    "var/lib/systemd/deb-systemd-helper-enabled",
    "var/lib/systemd/deb-systemd-helper-masked",
    "var/lib/systemd/deb-systemd-user-helper-enabled",
    "var/lib/systemd/deb-systemd-user-helper-masked",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/timers",
    "var/lib/ucf",
    "var/lib/wtmpdb",
    "var/log/runit",
];

/// Moves what lies under `/home`, `/opt`, `/root`, `/usr/local` and their like below `/var` and leaves symlinks.
pub(crate) fn move_top_level(tree: &Tree, summary: &mut Summary) -> Result<(), Error> {
    for (from, to) in MOVED {
        let mode = if *from == "root" { 0o700 } else { 0o755 };
        if tree.is_dir(from) {
            for found in tree.walk(from)?.iter().filter(|f| f.kind == Kind::File && *from != "root") {
                summary.warn(format!(
                    "/{} goes to the machine's /{to} on the first boot and is never updated: put it below /usr",
                    found.path
                ));
            }
            tree.merge(from, to)?;
        } else {
            tree.remove(from)?;
        }
        tree.mkdir(to, mode)?;
        let up = "../".repeat(from.matches('/').count());
        tree.link(from, &format!("{up}{to}"))?;
    }
    Ok(())
}

/// The package database is part of what an update replaces, so it lies in `/usr`; `/var/lib/dpkg` is a symlink.
pub(crate) fn move_package_database(tree: &Tree) -> Result<(), Error> {
    const OLD: &str = "var/lib/dpkg";
    const NEW: &str = "usr/lib/sysimage/dpkg";
    if !tree.is_dir(OLD) {
        return Ok(());
    }
    for name in
        ["lock", "lock-frontend", "triggers/Lock", "status-old", "diversions-old", "statoverride-old", "available-old"]
    {
        tree.remove(&format!("{OLD}/{name}"))?;
    }
    for file in tree.walk(OLD)?.iter().filter(|f| f.path.ends_with(".dpkg-new") || f.path.ends_with(".dpkg-tmp")) {
        tree.remove(&file.path)?;
    }
    tree.rename(OLD, NEW)?;
    tree.link(OLD, "../../usr/lib/sysimage/dpkg")
}

/// The credential that `host firstboot` applies, once: a line with it would bring back, at each boot, a key that was removed.
const KEYS: &str = "ssh.authorized_keys.root";

/// Makes tmpfiles.d lines of packages name real directories: `Q /home` meets a symlink and fails, `Q /var/home` works.
/// Returns the paths of the files that changed.
pub(crate) fn mend_tmpfiles(tree: &Tree) -> Result<Vec<String>, Error> {
    let mut changed = Vec::new();
    for name in tree.list("usr/lib/tmpfiles.d")? {
        let path = format!("usr/lib/tmpfiles.d/{name}");
        if tree.edit(&path, |text| Some(mended(text)))? {
            changed.push(path);
        }
    }
    Ok(changed)
}

fn mended(text: &str) -> String {
    let mut new = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if line.split_whitespace().next_back() == Some(KEYS) {
            continue;
        }
        match declared_path(line).and_then(|path| Some((path, real_path(path)?))) {
            Some((path, real)) => new.push_str(&line.replacen(path, &real, 1)),
            None => new.push_str(line),
        }
    }
    new
}

/// The path column of a tmpfiles.d line.
fn declared_path(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let kind = words.next()?;
    if kind.starts_with('#') { None } else { words.next() }
}

fn real_path(path: &str) -> Option<String> {
    MOVED.iter().chain(&[("media", "run/media")]).find_map(|(from, to)| {
        let rest = path.strip_prefix('/')?.strip_prefix(from)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("/{to}{rest}"))
    })
}

/// Paths that some tmpfiles.d line makes.
fn declared(tree: &Tree) -> Result<BTreeSet<String>, Error> {
    let mut paths = BTreeSet::new();
    for name in tree.list("usr/lib/tmpfiles.d")? {
        let path = format!("usr/lib/tmpfiles.d/{name}");
        for line in tree.read(&path)?.filter(|_| path != FILE).unwrap_or_default().lines() {
            // D! and its like work at boot only, which is when it matters.
            if line.starts_with(['d', 'D', 'v', 'q', 'Q', 'L', 'C', 'f', 'F']) {
                paths.extend(declared_path(line).map(|p| p.trim_end_matches('/').to_owned()));
            }
        }
    }
    Ok(paths)
}

/// Turns the content of `/var` into tmpfiles.d lines and empties it.
pub(crate) fn describe(tree: &Tree, accounts: &Accounts, summary: &mut Summary) -> Result<(), Error> {
    for path in DROPPED {
        tree.remove(path)?;
    }
    let apt = tree.has("usr/bin/apt-get");
    if !apt {
        for path in ["var/lib/apt", "var/cache/apt", "var/log/apt"] {
            tree.remove(path)?;
        }
    }
    let declared = declared(tree)?;
    let mut text = String::from("# Written by slipway compose from the tree's /var.\n");
    for found in tree.walk("var")? {
        let dropped = EMPTIED.iter().any(|dir| found.path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')));
        match &found.kind {
            _ if declared.contains(&format!("/{}", found.path)) => {}
            Kind::Dir => text.push_str(&line("d", &found, accounts, None)),
            Kind::Link(target) => {
                text.push_str(&format!("L {} - - - - {}\n", escaped(&found.path), target.replace('%', "%%")))
            }
            Kind::File if dropped => {}
            Kind::File => {
                let factory = format!("{FACTORY}/{}", found.path);
                tree.rename(&found.path, &factory)?;
                text.push_str(&line("C", &found, accounts, Some(&factory)));
                summary.factory.push(format!("/{}", found.path));
            }
            Kind::Special => return Err(Error::Special(format!("/{}", found.path))),
        }
    }
    summary.tmpfiles_lines = text.lines().count() - 1;
    tree.write(FILE, text, 0o644)?;
    tree.empty("var")
}

fn line(kind: &str, found: &Found, accounts: &Accounts, source: Option<&str>) -> String {
    let (user, group) = (accounts.user(found.uid), accounts.group(found.gid));
    let source = source.map(|s| format!(" {}", escaped(s))).unwrap_or_default();
    format!("{kind} {} {:04o} {user} {group} -{source}\n", escaped(&found.path), found.mode)
}

/// A path as a tmpfiles.d word: absolute, `%` doubled, quoted where it must be.
fn escaped(path: &str) -> String {
    let path = format!("/{}", path.replace('%', "%%"));
    if path.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'' || c == '\\') {
        format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        path
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;

    fn described(lines: &[&str]) -> (tempfile::TempDir, Tree, String, Summary) {
        let (dir, tree) = fake(lines);
        let mut summary = Summary::default();
        // The fake tree belongs to whoever runs the test: numbers stand for names.
        describe(&tree, &Accounts::default(), &mut summary).unwrap();
        let text = tree.read(FILE).unwrap().unwrap();
        (dir, tree, text, summary)
    }

    fn words(text: &str) -> Vec<String> {
        let short = |l: &str| l.split(' ').take(3).collect::<Vec<_>>().join(" ");
        text.lines().filter(|l| !l.starts_with('#')).map(short).collect()
    }

    #[test]
    fn directories_links_and_files_are_described_and_var_is_empty() {
        let (_dir, tree, text, summary) = described(&[
            "var/lib/app/data: precious",
            "var/lib/app/odd name: 1",
            "var/run -> ../run",
            "var/cache/app/junk: 1",
            "var/lib/pam/seen: 1",
            "usr/lib/tmpfiles.d/var.conf: d /var/lib 0755 - - -",
        ]);
        assert_eq!(
            words(&text),
            [
                "d /var/cache 0755",
                "d /var/cache/app 0755",
                "d /var/lib/app 0755",
                "C /var/lib/app/data 0644",
                "C \"/var/lib/app/odd name\"",
                "L /var/run -"
            ]
        );
        assert!(text.contains(" - /usr/share/factory/var/lib/app/data\n"));
        assert_eq!(tree.read("usr/share/factory/var/lib/app/data").unwrap().unwrap(), "precious\n");
        assert!(tree.list("var").unwrap().is_empty());
        assert_eq!(summary.factory, ["/var/lib/app/data", "/var/lib/app/odd name"]);
    }

    #[test]
    fn modes_with_setgid_and_sticky_survive() {
        let (dir, tree) = fake(&["var/mail/", "var/tmp/"]);
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path().join("var/mail"), std::fs::Permissions::from_mode(0o2775)).unwrap();
        std::fs::set_permissions(dir.path().join("var/tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        describe(&tree, &Accounts::default(), &mut Summary::default()).unwrap();
        assert_eq!(words(&tree.read(FILE).unwrap().unwrap()), ["d /var/mail 2775", "d /var/tmp 1777"]);
    }

    #[test]
    fn packages_lines_meet_directories_instead_of_links() {
        let text = "# /home stays\nQ /home 0755 - - -\nd- /root/.ssh :0700 root :root -\nq /srv 0755\nd /homestead 0755\nd /var/home2 0755\n";
        assert_eq!(
            mended(text),
            "# /home stays\nQ /var/home 0755 - - -\nd- /var/roothome/.ssh :0700 root :root -\nq /var/srv 0755\nd /homestead 0755\nd /var/home2 0755\n"
        );
    }

    #[test]
    fn a_removed_key_does_not_come_back_at_the_next_boot() {
        let text = "f^ /etc/hosts - - - - network.hosts\nd- /root/.ssh :0700 root :root -\n\
                    f^ /root/.ssh/authorized_keys :0600 root :root - ssh.authorized_keys.root\n";
        assert_eq!(mended(text), "f^ /etc/hosts - - - - network.hosts\nd- /var/roothome/.ssh :0700 root :root -\n");
    }

    #[test]
    fn top_level_content_moves_below_var_and_is_reported() {
        let (_dir, tree) = fake(&[
            "home/",
            "opt/vendor/bin/tool: x",
            "root/.profile: y",
            "usr/local/share/man/",
            "usr/local/man -> share/man",
        ]);
        let mut summary = Summary::default();
        move_top_level(&tree, &mut summary).unwrap();
        assert_eq!(std::fs::read_link(tree.at("usr/local")).unwrap(), std::path::Path::new("../var/usrlocal"));
        assert_eq!(std::fs::read_link(tree.at("root")).unwrap(), std::path::Path::new("var/roothome"));
        assert!(tree.has("var/opt/vendor/bin/tool") && tree.has("var/usrlocal/man") && tree.is_dir("var/mnt"));
        assert_eq!(summary.warnings.len(), 1, "{:?}", summary.warnings);
    }

    #[test]
    fn socket_in_var_is_refused() {
        let (dir, tree) = fake(&["var/lib/x/"]);
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("var/lib/x/s")).unwrap();
        let error = describe(&tree, &Accounts::default(), &mut Summary::default()).unwrap_err();
        assert!(error.to_string().contains("/var/lib/x/s"), "{error}");
    }
}
