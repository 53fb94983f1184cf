// A static delta with its parts in the superblock, applied to a repository that has nothing. A part's checksum stands in
// the superblock, so most changes of a part end there; what is behind it is tested beside the decoder of parts.

use store::commit::Builder;
use store::delta::{ApplyOptions, Options, apply_offline, generate};
use store::{Checksum, DirMeta, FileMeta, Mode, Repo, import};

pub fn repo() -> (tempfile::TempDir, Repo) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).expect("a repository").without_fsync();
    (dir, repo)
}

/// Two commits, the second with changes.
pub fn commits(repo: &Repo) -> (Checksum, Checksum) {
    let commit = |text: &str, parent| {
        let file = import::Node::File(FileMeta::regular(0o644, 0), text.repeat(50).into_bytes());
        let link = import::Node::File(FileMeta::link("file"), Vec::new());
        let nodes = [("file".to_owned(), file), ("link".to_owned(), link)].into();
        let tree = import::tree(repo, &import::Node::Dir(DirMeta::root(0o755), nodes)).expect("a tree");
        let mut builder = Builder::new(tree.root_tree, tree.root_meta, 1);
        builder.parent = parent;
        builder.write(repo).expect("a commit")
    };
    let one = commit("some text that is one file", None);
    (one, commit("some text that is another file", Some(one)))
}

/// Superblocks of a delta from nothing and of one from a commit; only the first can be applied to nothing.
pub fn made(update: bool) -> Vec<Vec<u8>> {
    let (dir, repo) = repo();
    let (one, two) = commits(&repo);
    let file = dir.path().join("delta");
    let options = Options { inline: true, file: Some(file.clone()), threads: 1, ..Options::default() };
    let (from, to) = if update { (Some(&one), &two) } else { (None, &one) };
    generate(&repo, from, to, &options).expect("a delta");
    vec![std::fs::read(file).expect("the delta")]
}

pub fn seeds() -> Vec<Vec<u8>> {
    made(false)
}

pub fn run(data: &[u8]) -> String {
    let (dir, repo) = repo();
    let file = dir.path().join("delta");
    std::fs::write(&file, data).expect("the delta");
    let options = ApplyOptions { threads: 1, ..ApplyOptions::default() };
    let result = apply_offline(&repo, &file, &options);
    let report = store::fsck::fsck(&repo, &Default::default()).expect("a check");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let around = std::fs::read_dir(dir.path()).expect("the scratch directory").count();
    assert_eq!(around, 2, "something was written beside the repository");
    super::outcome(result)
}
