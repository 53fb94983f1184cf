// A tar stream that is imported.

use store::{Entry, Mode, Repo, import};

fn header(name: &str, kind: u8, size: usize, link: &str) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000755");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

/// Puts the right checksum into every header that is where one is expected, so that changes reach what is behind it.
pub fn finish(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + 512) {
        if header.iter().all(|b| *b == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let size = std::str::from_utf8(&header[124..135]).ok().and_then(|text| usize::from_str_radix(text, 8).ok());
        at += 512 + size.unwrap_or(0).next_multiple_of(512);
    }
    bytes
}

pub fn seeds() -> Vec<Vec<u8>> {
    let block = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(512, 0);
        bytes
    };
    let record = |text: &str| format!("{} {text}\n", text.len() + 4);
    let pax = record("SCHILY.xattr.user.x=value") + &record("path=the/größe");
    let pieces = [
        header("./", b'5', 0, ""),
        header("./a", b'0', 5, ""),
        block("hello"),
        header("./b", b'1', 0, "a"),
        header("./c", b'2', 0, "../target"),
        header("././@LongLink", b'L', 7, ""),
        block("./long\0"),
        header("short", b'0', 0, ""),
        header("pax", b'x', pax.len(), ""),
        block(&pax),
        header("short", b'0', 0, ""),
        vec![0; 1024],
    ];
    vec![finish(pieces.concat()), finish([header("./", b'5', 0, ""), vec![0; 1024]].concat())]
}

pub fn run(data: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("repo");
    let repo = Repo::create(&path, Mode::Archive).expect("a repository").without_fsync();
    let options = import::TarOptions { make_parents: true, threads: 1, ..Default::default() };
    let result = import::tar(&repo, &finish(data.to_vec())[..], &options);
    match &result {
        Ok(tree) => {
            let visit = &mut |path: &str, _: Entry| {
                assert!(!path.split('/').any(|part| part == ".."), "{path:?} came through");
                Ok(())
            };
            repo.walk_tree(&tree.root_tree, &tree.root_meta, visit).expect("what was imported can be read");
        }
        Err(_) => assert!(repo.all_objects().expect("a list").is_empty(), "a part of it is visible"),
    }
    let around: Vec<_> = std::fs::read_dir(dir.path()).expect("the scratch directory").collect();
    assert_eq!(around.len(), 1, "something was written beside the repository");
    super::outcome(result)
}
