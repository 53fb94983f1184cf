// All refs in one file.

use store::commit::Builder;
use store::summary::{Summary, write};
use store::{DirMeta, Mode, Repo, import};

pub fn seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let repo = Repo::create(dir.path(), Mode::Archive).expect("a repository").without_fsync();
    let root = import::Node::Dir(DirMeta::root(0o755), Default::default());
    let tree = import::tree(&repo, &root).expect("a tree");
    let mut seeds = Vec::new();
    for name in ["os/x", "os/y", "a"] {
        let commit = Builder::new(tree.root_tree, tree.root_meta, 1).write(&repo).expect("a commit");
        repo.set_ref(name, &commit).expect("a ref");
        write(&repo).expect("a summary");
        seeds.push(std::fs::read(dir.path().join("summary")).expect("the summary"));
    }
    seeds
}

pub fn run(data: &[u8]) -> String {
    let result = Summary::decode(data);
    if let Ok(summary) = &result {
        for reference in &summary.refs {
            assert!(store::valid_ref(&reference.name), "{:?} came through", reference.name);
        }
    }
    super::outcome(result)
}
