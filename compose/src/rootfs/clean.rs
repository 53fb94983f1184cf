//! What a finished root must not hold: traces of how and when it was made.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Files that say when or where the root was built, or that hold the version before the last of something.
const FILES: [&str; 21] = [
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
];
/// Directories whose content belongs to a running machine only.
const DIRECTORIES: [&str; 3] = ["run", "tmp", "var/tmp"];
/// Locks dpkg leaves behind; it makes them again.
const LOCKS: [&str; 2] = ["var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend"];

/// Removes them. The machine id becomes empty: each machine makes its own.
pub fn clean(root: &Path) -> io::Result<()> {
    for name in FILES.iter().chain(&LOCKS) {
        remove(&root.join(name))?;
    }
    for name in DIRECTORIES {
        let dir = root.join(name);
        // A package that makes one of these a link to elsewhere is not followed.
        if dir.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let path = entry.path();
                // Debian's /var/lock is a link to it.
                if name == "run" && entry.file_name() == "lock" {
                    continue;
                }
                if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
    }
    let id = root.join("etc/machine-id");
    if id.symlink_metadata().is_ok_and(|m| m.is_file()) {
        // A new file, because systemd made this one read-only for everybody.
        fs::remove_file(&id)?;
        fs::File::create(&id)?.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_and_content_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["etc", "run/lock", "run/x", "tmp", "var/lib/dpkg", "var/log"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        for name in ["etc/machine-id", "etc/passwd", "etc/passwd-", "var/log/dpkg.log", "var/lib/dpkg/status", "tmp/a"]
        {
            fs::write(path(name), "x").unwrap();
        }
        clean(root.path()).unwrap();
        assert_eq!(fs::read(path("etc/machine-id")).unwrap(), b"");
        for (name, there) in [
            ("etc/passwd", true),
            ("var/lib/dpkg/status", true),
            ("run/lock", true),
            ("run/x", false),
            ("etc/passwd-", false),
            ("var/log/dpkg.log", false),
            ("tmp/a", false),
            ("tmp", true),
        ] {
            assert_eq!(path(name).exists(), there, "{name}");
        }
    }
}
