// Owner, mode and attributes of a directory.

use store::DirMeta;

pub fn seeds() -> Vec<Vec<u8>> {
    let xattrs = vec![(b"security.capability".to_vec(), vec![1, 0, 0, 2]), (b"user.x".to_vec(), Vec::new())];
    vec![DirMeta::root(0o755).encode(), DirMeta { xattrs, ..DirMeta::root(0o1777) }.encode()]
}

pub fn run(data: &[u8]) -> String {
    let result = DirMeta::decode(data);
    if let Ok(meta) = &result {
        assert_eq!(DirMeta::decode(&meta.encode()).as_ref().ok(), Some(meta));
    }
    super::outcome(result)
}
