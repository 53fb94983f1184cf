// The file of a part of a static delta: compression, tables, and every operation.

use std::sync::OnceLock;

use store::delta::{Options, check_part, generate, read_superblock};
use store::{Checksum, ObjectType};

type Made = (Vec<u8>, Vec<(ObjectType, Checksum)>);

/// A part with all kinds of operations, and its objects.
fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let (dir, repo) = super::delta::repo();
        let (one, two) = super::delta::commits(&repo);
        let file = dir.path().join("delta");
        let options = Options { file: Some(file.clone()), threads: 1, ..Options::default() };
        generate(&repo, Some(&one), &two, &options).expect("a delta");
        let superblock = read_superblock(&file).expect("the delta");
        let part = std::fs::read(dir.path().join("0")).expect("its part");
        (part, superblock.parts[0].objects.clone())
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    vec![made().0.clone()]
}

pub fn run(data: &[u8]) -> String {
    let tmp = tempfile::tempdir().expect("a scratch directory");
    super::outcome(check_part(&mut &data[..], &made().1, 4 << 20, tmp.path()))
}
