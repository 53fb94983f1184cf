use std::fs;

use proptest::prelude::*;

use super::*;
use crate::{Mode, Repo};

/// A header with the right checksum.
fn header(name: &str, kind: u8, size: usize, link: &str) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000755");
    header[108..115].copy_from_slice(b"0000007");
    header[116..123].copy_from_slice(b"0000010");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    finish(header)
}

fn finish(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, content.len(), "");
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..9).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 1024]].concat()
}

fn repo(dir: &tempfile::TempDir) -> Repo {
    Repo::create(&dir.path().join("repo"), Mode::Archive).unwrap().without_fsync()
}

fn paths(bytes: &[u8]) -> BTreeMap<String, (u32, String)> {
    let dir = tempfile::tempdir().unwrap();
    let repo = repo(&dir);
    let tree = tar(&repo, bytes, &TarOptions { make_parents: true, ..TarOptions::default() }).unwrap();
    let mut found = BTreeMap::new();
    repo.walk_tree(&tree.root_tree, &tree.root_meta, &mut |path, entry| {
        let what = match entry {
            crate::Entry::Dir { meta, .. } => (repo.load_dirmeta(&meta)?.mode, String::new()),
            crate::Entry::File { checksum } => {
                let mut object = repo.open_file(&checksum)?;
                let mut text = object.meta.symlink.clone().unwrap_or_default();
                object.content.read_to_string(&mut text).unwrap();
                for (name, value) in &object.meta.xattrs {
                    text += &format!(" {}={value:?}", String::from_utf8_lossy(name));
                }
                (object.meta.mode, text)
            }
        };
        found.insert(path.to_owned(), what);
        Ok(())
    })
    .unwrap();
    found
}

fn refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let repo = repo(&dir);
    let error = tar(&repo, bytes, &TarOptions::default()).unwrap_err().to_string();
    assert!(repo.all_objects().unwrap().is_empty(), "something became visible");
    assert!(fs::read_dir(repo.path().join("tmp")).unwrap().next().is_none(), "something was left");
    error
}

#[test]
fn every_kind_of_entry() {
    let long = format!("./{}/{}", "d".repeat(150), "f".repeat(200));
    let xattr = record("SCHILY.xattr.user.x", b"a\nb=\0");
    let found = paths(&archive(&[
        entry("./", b'5', b""),
        entry("./bin/hello", b'0', b"hello\n"),
        header("./bin/link", b'2', 0, "hello"),
        header("./bin/hard", b'1', 0, "bin/hello"),
        entry("././@LongLink", b'L', format!("{long}\0").as_bytes()),
        entry("short", b'0', b"long"),
        entry("pax", b'x', &[xattr, record("path", "größe".as_bytes()), record("uid", b"70000")].concat()),
        entry("short", b'0', b"x"),
        // What comes later counts.
        entry("./twice", b'0', b"one"),
        entry("./twice", b'0', b"two"),
    ]));
    assert_eq!(found["/bin/hello"], (0o100_755, "hello\n".into()));
    assert_eq!(found["/bin/hard"], found["/bin/hello"]);
    assert_eq!(found["/bin/link"], (0o120_755, "hello".into()));
    assert_eq!(found[&long[1..]].1, "long");
    assert_eq!(found["/größe"].1, "x user.x=[97, 10, 98, 61, 0]");
    assert_eq!(found["/twice"].1, "two");
    assert_eq!(found["/"].0, 0o040_755);
}

#[test]
fn a_directory_that_is_not_mentioned_is_an_error_unless_it_may_be_made() {
    let error = refused(&archive(&[entry("a/b", b'0', b"x")]));
    assert!(error.contains("files in /a, but not that directory"), "{error}");
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x", "/../x", ".."] {
        let error = refused(&archive(&[entry(name, b'0', b"x")]));
        assert!(error.contains("cannot be the name"), "{name}: {error}");
    }
    let error = refused(&archive(&[header("x", b'1', 0, "../etc/shadow")]));
    assert!(error.contains("cannot be the name"), "{error}");
    let error = refused(&archive(&[header("x", b'1', 0, "y")]));
    assert!(error.contains("no earlier file"), "{error}");
}

#[test]
fn what_a_tree_cannot_hold_is_refused() {
    for (kind, what) in [(b'3', "character device"), (b'6', "named pipe"), (b'S', "sparse"), (b'V', "type 'V'")] {
        let error = refused(&archive(&[entry("x", kind, b"")]));
        assert!(error.contains(what), "{error}");
    }
    let sparse = record("GNU.sparse.major", b"1");
    assert!(refused(&archive(&[entry("p", b'x', &sparse), entry("x", b'0', b"")])).contains("sparse"));
    assert!(refused(&archive(&[entry("a", b'0', b""), entry("a/b", b'0', b"")])).contains("needs a directory"));
    assert!(refused(&archive(&[entry("a/b", b'0', b""), entry("a", b'0', b"")])).contains("as a directory and"));
    assert!(refused(&archive(&[header("a", b'2', 0, "")])).contains("link to nothing"));
    assert!(refused(&archive(&[entry("\u{0}", b'0', b"")])).contains("in the place of its root"));
}

#[test]
fn truncated_archives_leave_nothing() {
    let whole = archive(&[entry("a", b'0', &[7; 1000]), entry("b", b'0', b"x")]);
    for length in [0, 1, 511, 512, 513, 1500, 1536, 2048, 2500, 2560] {
        let error = refused(&whole[..length]);
        assert!(error.contains("cut off"), "{length}: {error}");
    }
}

#[test]
fn sizes_that_lie_take_no_memory() {
    let mut huge = header("a", b'0', 0, "");
    huge[124] = 0x80;
    huge[128..136].fill(0x7f);
    let huge = finish(huge);
    assert!(refused(&archive(std::slice::from_ref(&huge))).contains("no valid size"));
    for kind in [b'x', b'g', b'L', b'K'] {
        assert!(refused(&archive(&[header("a", kind, 1 << 30, "")])).contains("a header of"));
    }
    assert!(refused(&archive(&[header("a", b'0', 1 << 30, "")])).contains("a"), "ends early");
    for bad in [&b"99999999 a=b\n"[..], b"5 a=b", b"6 a=b\n x", b"x a=b\n", b"1 \n", b"99999999999999999999999 a=b\n"] {
        let error = refused(&archive(&[entry("p", b'x', bad), entry("x", b'0', b"")]));
        assert!(error.contains("damaged pax record"), "{error}");
    }
}

#[test]
fn compressed_archives_are_read_or_named() {
    let plain = archive(&[entry("./", b'5', b""), entry("a", b'0', b"x")]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &plain).unwrap();
    assert_eq!(paths(&encoder.finish().unwrap()), paths(&plain));
    assert!(refused(b"\x28\xb5\x2f\xfd....").contains("zstd"));
}

proptest! {
    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut reader = Reader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.next() {}
    }

    #[test]
    fn any_change_of_an_archive_is_handled(at in 0..3072usize, byte: u8) {
        let mut bytes = archive(&[
            entry("x", b'x', &record("SCHILY.xattr.user.x", b"value")),
            entry("name", b'0', &[1; 600]),
        ]);
        bytes[at] = byte;
        bytes[148..156].fill(b' ');
        let mut head = bytes[..512].to_vec();
        head = finish(head);
        bytes[..512].copy_from_slice(&head);
        let mut reader = Reader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.next() {}
    }
}
