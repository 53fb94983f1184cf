use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use super::*;
use sys::Cmd;

struct Memory(Vec<Vec<u8>>);

impl Content for Memory {
    fn open(&self, index: usize) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.0[index].as_slice()))
    }
    fn name(&self, index: usize) -> String {
        format!("content {index}")
    }
}

impl Memory {
    fn file(&mut self, bytes: Vec<u8>, verity: bool) -> Node {
        self.0.push(bytes);
        let kind = Kind::File { size: self.0[self.0.len() - 1].len() as u64, content: self.0.len() - 1, verity };
        Node { kind, ..Node::dir(0o644) }
    }
}

fn params(bytes: u64) -> Params {
    Params {
        bytes,
        uuid: *b"0123456789abcdef",
        hash_seed: *b"fedcba9876543210",
        label: "root".into(),
        time: 1_753_000_000,
    }
}

fn write(path: &Path, params: &Params, root: &Node, content: &Memory) -> Result<Plan, Error> {
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(params.bytes)?;
    let plan = Plan::new(params, root)?;
    plan.write(Target { file: &file, offset: 0 }, content)?;
    Ok(plan)
}

fn check(path: &Path) {
    let output = Cmd::new("e2fsck").args(["-fn"]).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.code, 0, "{text}");
}

fn debugfs(path: &Path, request: &str) -> String {
    let output = Cmd::new("debugfs").args(["-R", request]).arg(path).run().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn odd_tree() -> (Node, Memory) {
    let mut content = Memory(Vec::new());
    let mut root = Node::dir(0o755);
    let pattern = |n: usize| (0..n).map(|i| ((i * 31) >> 3) as u8).collect::<Vec<u8>>();
    for (name, size) in
        [("empty", 0), ("one", 1), ("block", 4096), ("block1", 4097), ("big", 3_000_001), ("64k", 65536)]
    {
        let plain = content.file(pattern(size), false);
        let sealed = content.file(pattern(size), true);
        root.insert(format!("plain/{name}").as_bytes(), plain).unwrap();
        root.insert(format!("sealed/{name}").as_bytes(), sealed).unwrap();
    }
    for i in 0..3000 {
        let node = content.file(format!("{i}").into_bytes(), false);
        root.insert(format!("etc/many/{}{i}", "n".repeat(i % 200)).as_bytes(), node).unwrap();
    }
    for len in [1, 59, 60, 61, 4000] {
        let link = Node { kind: Kind::Symlink(vec![b't'; len]), ..Node::dir(0o777) };
        root.insert(format!("links/{len}").as_bytes(), link).unwrap();
    }
    let mut owned = content.file(b"owned".to_vec(), false);
    (owned.uid, owned.gid, owned.permissions) = (70_000, 80_000, 0o6755);
    root.insert(b"owned", owned).unwrap();
    for (i, len) in [0, 12, 40, 60, 61, 64, 300, 3000].into_iter().enumerate() {
        let mut node = content.file(b"x".to_vec(), true);
        node.xattrs = BTreeMap::from([(b"user.ostreemeta".to_vec(), vec![b'v'; len])]);
        if i % 2 == 1 {
            node.xattrs.insert(b"security.capability".to_vec(), vec![1; 20]);
            node.xattrs.insert(b"trusted.odd".to_vec(), b"odd value".to_vec());
        }
        root.insert(format!("attributes/{len}").as_bytes(), node).unwrap();
    }
    (root, content)
}

#[test]
fn e2fsck_finds_nothing_and_debugfs_reads_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("fs");
    let (root, content) = odd_tree();
    for bytes in [64 << 20, 200 << 20, (2 << 30) + (20 << 20)] {
        write(&image, &params(bytes), &root, &content).unwrap();
        check(&image);
    }
    for (name, index) in [("/plain/big", 8), ("/sealed/big", 9)] {
        let out = dir.path().join("out");
        debugfs(&image, &format!("dump {name} {}", out.display()));
        assert_eq!(std::fs::read(&out).unwrap(), content.0[index], "{name}");
    }
    assert!(debugfs(&image, "stat /owned").contains("User: 70000   Group: 80000"));
    assert!(debugfs(&image, "stat /owned").contains("Mode:  06755"));
    assert!(debugfs(&image, "stat /sealed/one").contains("Flags: 0x180000"));
    assert!(debugfs(&image, "stat /links/59").contains("Fast link dest"));
    assert_eq!(debugfs(&image, "ls -p /etc/many").lines().filter(|l| l.contains("/100644/")).count(), 3000);
    assert!(debugfs(&image, "ea_get /attributes/3000 user.ostreemeta").contains(&"v".repeat(3000)));
    assert!(debugfs(&image, "ea_get /attributes/12 trusted.odd").contains("odd value"));
}

#[test]
fn the_merkle_tree_is_where_the_kernel_looks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("fs");
    let (root, content) = odd_tree();
    write(&image, &params(64 << 20), &root, &content).unwrap();
    let merkle = store::verity::merkle(&content.0[9]);
    let past = merkle.past_end();
    let bytes = std::fs::read(&image).unwrap();
    let blocks = debugfs(&image, &format!("bmap /sealed/big {}", past.offset / 4096));
    let start = blocks.trim().parse::<usize>().unwrap() * 4096;
    assert_eq!(bytes[start..start + 4096], past.bytes[..4096]);
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_stays_sparse() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let (root, content) = odd_tree();
    write(&a, &params(300 << 20), &root, &content).unwrap();
    write(&b, &params(300 << 20), &root, &content).unwrap();
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
    assert!(std::fs::metadata(&a).unwrap().blocks() * 512 < 40 << 20);
}

#[test]
fn resize2fs_can_grow_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("fs");
    let (root, content) = odd_tree();
    write(&image, &params(256 << 20), &root, &content).unwrap();
    std::fs::File::options().write(true).open(&image).unwrap().set_len(9 << 30).unwrap();
    Cmd::new("resize2fs").arg(&image).run().unwrap();
    check(&image);
}

#[test]
fn too_small_says_how_much_is_needed() {
    let mut content = Memory(Vec::new());
    let mut root = Node::dir(0o755);
    let kind = Kind::File { size: 500 << 20, content: 0, verity: true };
    content.0.push(Vec::new());
    root.insert(b"big", Node { kind, ..Node::dir(0o644) }).unwrap();
    let error = Plan::new(&params(256 << 20), &root).unwrap_err();
    let Error::TooSmall { need, .. } = error else { panic!("{error}") };
    assert!(Plan::new(&params(need << 20), &root).is_ok());
}

#[test]
fn content_that_changed_size_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = Memory(Vec::new());
    let mut root = Node::dir(0o755);
    root.insert(b"file", content.file(vec![1; 5000], false)).unwrap();
    for wrong in [4999, 5001] {
        content.0[0] = vec![1; wrong];
        let error = write(&dir.path().join("fs"), &params(64 << 20), &root, &content).unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
    }
}

#[test]
fn hostile_paths_are_refused() {
    let mut root = Node::dir(0o755);
    for path in ["../up", "a/../b", "a/./b"] {
        assert!(matches!(root.insert(path.as_bytes(), Node::dir(0o755)), Err(Error::Path { .. })), "{path}");
    }
}
