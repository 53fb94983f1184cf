// A bundle: a tar archive that becomes the repository which a machine without a network pulls from.

use std::path::Path;

use store::bundle::{unpack, write};
use store::commit::Builder;
use store::{DirMeta, FileMeta, Mode, Repo, import};

pub fn seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).expect("a repository").without_fsync();
    let file = import::Node::File(FileMeta::regular(0o644, 0), b"content".to_vec());
    let root = import::Node::Dir(DirMeta::root(0o755), [("file".to_owned(), file)].into());
    let tree = import::tree(&repo, &root).expect("a tree");
    let commit = Builder::new(tree.root_tree, tree.root_meta, 1).write(&repo).expect("a commit");
    let bundle = dir.path().join("bundle.tar");
    write(&repo, None, &commit, "os/x", dir.path(), &bundle).expect("a bundle");
    vec![std::fs::read(bundle).expect("the bundle")]
}

/// Everything below a directory is a plain file or a directory.
fn plain(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a kind");
        assert!(kind.is_dir() || kind.is_file(), "{} came out", entry.path().display());
        if kind.is_dir() {
            plain(&entry.path());
        }
    }
}

pub fn run(data: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (bundle, into) = (dir.path().join("bundle"), dir.path().join("into"));
    // The right checksums, so that changes of headers reach what is behind them.
    std::fs::write(&bundle, super::tar::finish(data.to_vec())).expect("the bundle");
    let result = unpack(&bundle, &into);
    plain(&into);
    let around = std::fs::read_dir(dir.path()).expect("the scratch directory").count();
    assert_eq!(around, 2, "something was written beside the repository");
    super::outcome(result)
}
