// The sizes of a commit's objects, in the file that a publisher writes beside its updates.

use std::sync::OnceLock;

use store::commit::Builder;
use store::update::{check_sizes, record_sizes, sizes_path};
use store::{Checksum, DirMeta, FileMeta, Mode, Repo, import};

/// A commit of many files, and the file of their sizes.
fn made() -> &'static (Checksum, Vec<u8>) {
    static MADE: OnceLock<(Checksum, Vec<u8>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let repo = Repo::create(dir.path(), Mode::Archive).expect("a repository").without_fsync();
        let file = |n: usize| import::Node::File(FileMeta::regular(0o644, 0), n.to_string().repeat(n * n).into_bytes());
        let nodes = (0..30).map(|n| (format!("file{n}"), file(n))).collect();
        let tree = import::tree(&repo, &import::Node::Dir(DirMeta::root(0o755), nodes)).expect("a tree");
        let commit = Builder::new(tree.root_tree, tree.root_meta, 1).write(&repo).expect("a commit");
        record_sizes(&repo, &commit).expect("its sizes");
        (commit, std::fs::read(repo.path().join(sizes_path(&commit))).expect("the file"))
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    let sizes = &made().1;
    // There is no commit without objects; but a file may say so.
    vec![sizes.clone(), [&sizes[..40], &[0; 4]].concat()]
}

pub fn run(data: &[u8]) -> String {
    let result = check_sizes(data, &made().0);
    if let Ok(objects) = &result {
        // Each takes seven bytes at least.
        assert!(objects * 7 <= data.len() as u64, "{objects} objects in {} bytes", data.len());
    }
    super::outcome(result)
}
