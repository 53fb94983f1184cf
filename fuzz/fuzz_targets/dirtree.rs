// Names in a directory.

use store::object::valid_name;
use store::{Checksum, DirTree};

pub fn seeds() -> Vec<Vec<u8>> {
    let sum = Checksum::of(b"x");
    let files = ["a", "b.txt", "größe"].map(|name| (name.to_owned(), sum)).to_vec();
    let dirs = ["bin", "lib"].map(|name| (name.to_owned(), sum, sum)).to_vec();
    let many = (0..300).map(|n| (format!("file{n:04}"), sum)).collect();
    vec![
        DirTree::default().encode(),
        DirTree { files, dirs }.encode(),
        DirTree { files: many, dirs: Vec::new() }.encode(),
    ]
}

pub fn run(data: &[u8]) -> String {
    let result = DirTree::decode(data);
    if let Ok(tree) = &result {
        let names = tree.files.iter().map(|f| &f.0).chain(tree.dirs.iter().map(|d| &d.0));
        for name in names {
            assert!(valid_name(name), "{name:?} came through");
        }
        assert_eq!(DirTree::decode(&tree.encode()).as_ref().ok(), Some(tree));
    }
    super::outcome(result)
}
