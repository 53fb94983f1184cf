//! The top of an image-mode tree: real directories only where something is mounted, symlinks for the rest.

use super::tree::{Kind, Tree};
use super::{Error, Summary};

/// Mount points. The root file system is read-only for ever: what is not here can never be mounted.
const MOUNT_POINTS: &[(&str, u32)] = &[
    ("boot", 0o755),
    ("dev", 0o755),
    ("efi", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sys", 0o555),
    ("sysroot", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
];

/// What a merged `/usr` has at the top.
const MERGED: &[&str] = &["bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin"];

/// Empties the mount points, makes those that are missing, and links the rest.
pub(crate) fn shape(tree: &Tree, summary: &mut Summary) -> Result<(), Error> {
    for name in ["bin", "lib", "sbin"] {
        if !matches!(std::fs::read_link(tree.at(name)), Ok(target) if target.starts_with("usr") || target.starts_with("/usr"))
        {
            return Err(Error::NotMerged(name));
        }
    }
    for (name, mode) in MOUNT_POINTS {
        if !tree.is_dir(name) {
            tree.remove(name)?;
            tree.mkdir(name, *mode)?;
        }
        tree.chmod(name, *mode)?;
        tree.empty(name)?;
    }
    if !tree.list("media")?.is_empty() && tree.is_dir("media") {
        return Err(Error::Media);
    }
    tree.remove("media")?;
    tree.link("media", "run/media")?;
    tree.remove("ostree")?;
    tree.link("ostree", "sysroot/ostree")?;
    tree.remove(".dockerenv")?;
    for name in tree.list("")? {
        let known = MERGED.contains(&name.as_str())
            || MOUNT_POINTS.iter().any(|(mount, _)| *mount == name)
            || super::var::MOVED.iter().any(|(from, _)| *from == name)
            || ["etc", "media", "ostree", "usr"].contains(&name.as_str());
        if !known {
            summary.warn(format!("/{name} is at the top of the tree, and will be read-only"));
        }
    }
    Ok(())
}

/// Removes what is made from other files of the tree, or made again on the machine.
///
/// Python compares the time in a `.pyc` with the time of its source, which is 1970 for every file of a deployment: no
/// `.pyc` of a package would ever be used.
pub(crate) fn clean(tree: &Tree) -> Result<(), Error> {
    for found in tree.walk("usr")? {
        let cache = found.kind == Kind::Dir && found.path.ends_with("/__pycache__");
        let leftover =
            found.kind == Kind::File && (found.path.ends_with(".dpkg-new") || found.path.ends_with(".dpkg-tmp"));
        if cache || leftover {
            tree.remove(&found.path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;

    #[test]
    fn every_mount_point_exists_and_is_empty() {
        let (_dir, tree) = fake(&[
            "usr/bin/",
            "bin -> usr/bin",
            "lib -> usr/lib",
            "sbin -> usr/sbin",
            "run/lock/x",
            "tmp/x",
            "media/",
            "dev/x",
            "surprise/x",
        ]);
        let mut summary = Summary::default();
        shape(&tree, &mut summary).unwrap();
        for (name, mode) in MOUNT_POINTS {
            assert!(tree.is_dir(name) && tree.list(name).unwrap().is_empty(), "{name}");
            assert_eq!(tree.mode(name), Some(*mode), "{name}");
        }
        assert_eq!(std::fs::read_link(tree.at("ostree")).unwrap(), std::path::Path::new("sysroot/ostree"));
        assert_eq!(summary.warnings, ["/surprise is at the top of the tree, and will be read-only"]);
    }

    #[test]
    fn split_usr_is_refused() {
        let (_dir, tree) = fake(&["bin/sh", "lib -> usr/lib", "sbin -> usr/sbin"]);
        assert!(matches!(shape(&tree, &mut Summary::default()), Err(Error::NotMerged("bin"))));
    }

    #[test]
    fn python_caches_go() {
        let (_dir, tree) = fake(&["usr/lib/python3/a.py: x", "usr/lib/python3/__pycache__/a.cpython-313.pyc: y"]);
        clean(&tree).unwrap();
        assert_eq!(tree.list("usr/lib/python3").unwrap(), ["a.py"]);
    }
}
