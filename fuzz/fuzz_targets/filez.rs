// A file object of an archive, from its place in a repository.

use std::cell::RefCell;
use std::io::Read as _;

use store::{Checksum, FileMeta, Mode, ObjectType, Repo};

thread_local! {
    static REPO: RefCell<Option<(tempfile::TempDir, Repo)>> = const { RefCell::new(None) };
}

fn repo() -> (tempfile::TempDir, Repo) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let repo = Repo::create(dir.path(), Mode::Archive).expect("a repository").without_fsync();
    (dir, repo)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (_dir, repo) = repo();
    let staging = repo.stage().expect("a batch");
    let xattrs = vec![(b"user.x".to_vec(), b"value".to_vec())];
    let content = b"hello ".repeat(200);
    let metas = [
        (FileMeta::regular(0o644, 0), &b""[..]),
        (FileMeta { xattrs, ..FileMeta::regular(0o4755, content.len() as u64) }, &content),
        (FileMeta::link("../target"), b""),
    ];
    let sums: Vec<Checksum> =
        metas.iter().map(|(meta, content)| staging.write_bytes(meta, content).expect("an object").0).collect();
    staging.flush().expect("a flush");
    let path = |sum: &Checksum| repo.path().join("objects").join(repo.loose_path(ObjectType::File, sum));
    sums.iter().map(|sum| std::fs::read(path(sum)).expect("the object")).collect()
}

pub fn run(data: &[u8]) -> String {
    REPO.with_borrow_mut(|slot| {
        let (_, repo) = slot.get_or_insert_with(repo);
        let sum = Checksum::of(b"any name");
        let path = repo.path().join("objects").join(repo.loose_path(ObjectType::File, &sum));
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, data).expect("the object");
        // What can be read as a stream can be read as a whole. The other direction has one exception: the decoder of whole
        // files also takes the two length symbols that RFC 1951 reserves. Content is named by its checksum, so nothing can
        // be smuggled in that way.
        let whole = match repo.verify_file(&sum) {
            Err(store::Error::Mismatch { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => panic!("content with a name that is not its own"),
        };
        let streamed = repo.open_file(&sum).is_ok_and(|mut object| {
            std::io::copy(&mut object.content.by_ref().take(256 << 20), &mut std::io::sink()).is_ok()
        });
        assert!(!streamed || whole.is_ok(), "read as a stream, but not as a whole: {whole:?}");
        super::outcome(whole)
    })
}
