//! What the treefile adds to the packages: files to add, files to remove, scripts to run in the tree.

use std::fs;
use std::os::unix::fs::chown;

use super::tree::Tree;
use super::{Error, NewFile, Runner, Summary};

/// Copies files in; they belong to root.
pub(crate) fn add(tree: &Tree, files: &[NewFile]) -> Result<(), Error> {
    for file in files {
        let path = inside(&file.destination)?;
        let bytes = fs::read(&file.source).map_err(|e| Error::io("reading", &file.source.display().to_string(), e))?;
        if tree.is_dir(path) {
            return Err(Error::IsDirectory(file.destination.clone()));
        }
        tree.write(path, bytes, file.mode)?;
        if rustix::process::geteuid().is_root() {
            chown(tree.at(path), Some(0), Some(0)).map_err(|e| Error::io("writing", path, e))?;
        }
    }
    Ok(())
}

/// Deletes files and directories.
pub(crate) fn remove(tree: &Tree, paths: &[String], summary: &mut Summary) -> Result<(), Error> {
    for path in paths {
        if !tree.remove(inside(path)?)? {
            summary.warn(format!("remove-files: {path} is not in the tree"));
        }
    }
    Ok(())
}

/// A path of the treefile, relative to the tree. `/etc` still is `/etc` when these run, and stays so for `/usr/etc`.
fn inside(path: &str) -> Result<&str, Error> {
    let bare = path.trim_start_matches('/').trim_end_matches('/');
    let bare = bare.strip_prefix("usr/etc/").map_or(bare, |_| &bare["usr/".len()..]);
    if bare.is_empty() || bare.split('/').any(|n| n == ".." || n == ".") {
        Err(Error::Outside(path.to_owned()))
    } else {
        Ok(bare)
    }
}

/// Runs the scripts in order, in the tree, without network. A text without `#!` is for `sh`, and stops at the first error.
pub(crate) fn postprocess(
    tree: &Tree,
    scripts: &[String],
    source_date_epoch: u64,
    runner: &dyn Runner,
) -> Result<(), Error> {
    const SCRIPT: &str = "usr/lib/.slipway-postprocess";
    let epoch = source_date_epoch.to_string();
    for (index, text) in scripts.iter().enumerate() {
        let text = if text.starts_with("#!") { text.clone() } else { format!("#!/bin/sh -e\n{text}") };
        tree.write(SCRIPT, text, 0o700)?;
        let program = format!("/{SCRIPT}");
        let result = runner.run(&[&program], &[("SOURCE_DATE_EPOCH", &epoch)]);
        tree.remove(SCRIPT)?;
        result.map_err(|e| Error::Postprocess(index + 1, Box::new(e)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;

    #[test]
    fn added_files_have_their_mode_and_usr_etc_is_etc() {
        let (_dir, tree) = fake(&["etc/"]);
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), "hello").unwrap();
        let file = |to: &str| NewFile { source: source.path().to_owned(), destination: to.into(), mode: 0o640 };
        add(&tree, &[file("/usr/etc/app/x.conf"), file("/usr/bin/x")]).unwrap();
        assert_eq!((tree.mode("etc/app/x.conf"), tree.mode("usr/bin/x")), (Some(0o640), Some(0o640)));
        assert!(!tree.has("usr/etc"));
        assert!(matches!(add(&tree, &[file("/usr/bin")]), Err(Error::IsDirectory(_))));
    }

    #[test]
    fn path_out_of_the_tree_is_refused() {
        for path in ["/", "", "/etc/../../x", "/usr/./x"] {
            assert!(inside(path).is_err(), "{path}");
        }
    }

    #[test]
    fn removing_what_is_not_there_is_a_warning() {
        let (_dir, tree) = fake(&["usr/share/doc/x/y", "usr/bin/x"]);
        let mut summary = Summary::default();
        remove(&tree, &["/usr/share/doc/".into(), "/usr/bin/y".into()], &mut summary).unwrap();
        assert!(!tree.has("usr/share/doc") && tree.has("usr/bin/x"));
        assert_eq!(summary.warnings, ["remove-files: /usr/bin/y is not in the tree"]);
    }

    /// Runs programs of the build machine with the tree as working directory.
    struct Here<'a>(&'a Tree);

    impl Runner for Here<'_> {
        fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Result<String, Error> {
            let mut cmd = sys::Cmd::new(self.0.at(args[0])).dir(self.0.root());
            for (key, value) in env {
                cmd = cmd.env(key, value);
            }
            let out = cmd.output().map_err(|e| Error::Run { line: cmd.line(), code: None, log: e.to_string() })?;
            if out.code == 0 {
                Ok(out.text())
            } else {
                Err(Error::Run {
                    line: cmd.line(),
                    code: Some(out.code),
                    log: String::from_utf8_lossy(&out.stderr).into_owned(),
                })
            }
        }
    }

    #[test]
    fn scripts_run_in_order_and_a_failing_one_is_named() {
        let (_dir, tree) = fake(&["usr/lib/"]);
        let scripts = ["echo 1 > a".to_owned(), "#!/bin/sh\ncp a b; false\n:".to_owned()];
        postprocess(&tree, &scripts, 5, &Here(&tree)).unwrap();
        assert!(tree.has("b"));
        let error = postprocess(&tree, &["true".into(), "echo no luck >&2\nfalse\ntouch c".into()], 5, &Here(&tree))
            .unwrap_err();
        assert_eq!(error.to_string(), "postprocess script 2");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("no luck"));
        assert!(!tree.has("c") && tree.list("usr/lib").unwrap().is_empty());
    }
}
