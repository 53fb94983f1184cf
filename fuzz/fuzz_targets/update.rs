// An update in our own format, from nothing, applied to a repository that has nothing. Its streams carry no checksum of
// their own, so that changes reach the list of contents, the regions of patches and the encoders.

use store::commit::Builder;
use store::update::{Options, apply_file, generate};
use store::{DirMeta, FileMeta, Mode, Repo, Verity, import};

fn repo() -> (tempfile::TempDir, Repo) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let repo = Repo::create(&dir.path().join("repo"), Mode::Archive).expect("a repository").without_fsync();
    (dir, repo)
}

/// The beginning of a gzip file that our own deflate made, and files of several kinds.
fn packed() -> Vec<u8> {
    let stored = b"content";
    let mut bytes = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01".to_vec();
    bytes.extend_from_slice(&(stored.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(!(stored.len() as u16)).to_le_bytes());
    bytes.extend_from_slice(stored);
    bytes
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (_dir, repo) = repo();
    let file = |content: Vec<u8>| import::Node::File(FileMeta::regular(0o644, 0), content);
    let link = import::Node::File(FileMeta::link("file"), Vec::new());
    let text = "some text that is one file\n".repeat(40).into_bytes();
    let nodes = [
        ("empty".to_owned(), file(Vec::new())),
        ("file".to_owned(), file(text)),
        ("link".to_owned(), link),
        ("packed.gz".to_owned(), file(packed())),
    ];
    let tree = import::tree(&repo, &import::Node::Dir(DirMeta::root(0o755), nodes.into())).expect("a tree");
    let commit = Builder::new(tree.root_tree, tree.root_meta, 1).write(&repo).expect("a commit");
    let mut update = Vec::new();
    let options = Options { threads: 1, ..Options::default() };
    generate(&repo, None, &commit, &options, &mut update).expect("an update");
    vec![update]
}

pub fn run(data: &[u8]) -> String {
    let (dir, repo) = repo();
    let file = dir.path().join("update");
    std::fs::write(&file, data).expect("the update");
    let result = apply_file(&file, &repo, None, Verity::Off);
    let report = store::fsck::fsck(&repo, &Default::default()).expect("a check");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let around = std::fs::read_dir(dir.path()).expect("the scratch directory").count();
    assert_eq!(around, 2, "something was written beside the repository");
    super::outcome(result)
}
