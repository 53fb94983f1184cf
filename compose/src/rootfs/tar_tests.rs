use super::*;
use proptest::prelude::*;

/// An archive with one entry, made by hand so that it can be wrong.
pub fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    entry_of(name, kind, link, content, 0o644, (0, 0))
}

/// The same with a mode and an owner.
pub fn entry_of(name: &str, kind: u8, link: &str, content: &[u8], mode: u32, owner: (u32, u32)) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    for (at, number) in [(100, mode), (108, owner.0), (116, owner.1)] {
        header[at..at + 7].copy_from_slice(format!("{number:07o}").as_bytes());
    }
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000017");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar  \0");
    seal(&mut header);
    let mut bytes = header.to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn seal(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn refusal(archive: &[u8]) -> String {
    index(&archive).unwrap_err().to_string()
}

#[test]
fn files_links_and_directories_are_listed() {
    let mut bytes = entry("./", b'5', "", b"");
    bytes.extend(entry("./usr/", b'5', "", b""));
    bytes.extend(entry("./usr/a", b'0', "", b"hello"));
    bytes.extend(entry("./usr/b", b'1', "./usr/a", b""));
    bytes.extend(entry("./usr/c", b'2', "../x", b""));
    bytes.extend([0; 1024]);
    let list = index(&&bytes[..]).unwrap();
    let kinds: Vec<_> = list.iter().map(|e| (e.path.as_str(), &e.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("", &Kind::Dir),
            ("usr", &Kind::Dir),
            ("usr/a", &Kind::File { offset: 1536, size: 5 }),
            ("usr/b", &Kind::Hardlink("usr/a".into())),
            ("usr/c", &Kind::Symlink("../x".into())),
        ]
    );
    assert_eq!((list[2].mode, list[2].mtime), (0o644, 15));
}

#[test]
fn gnu_long_names_and_links() {
    let name = format!("./{}/x", "d".repeat(200));
    let mut bytes = entry("././@LongLink", b'L', "", format!("{name}\0").as_bytes());
    bytes.extend(entry("././@LongLink", b'K', "", format!("{}\0", "t".repeat(300)).as_bytes()));
    bytes.extend(entry(&name[..100], b'2', "t", b""));
    let list = index(&&bytes[..]).unwrap();
    assert_eq!(list[0].path, name[2..]);
    assert_eq!(list[0].kind, Kind::Symlink("t".repeat(300)));
}

#[test]
fn hostile_path_traversal() {
    let text = refusal(&entry("./usr/../../etc/shadow", b'0', "", b"x"));
    assert!(text.contains("leads out of the root"), "{text}");
}

#[test]
fn hostile_absolute_path() {
    assert!(refusal(&entry("/etc/shadow", b'0', "", b"x")).contains("absolute"));
}

#[test]
fn hostile_line_break_in_a_name() {
    assert!(refusal(&entry("./usr/a\n/etc/b", b'0', "", b"x")).contains("line break"));
}

#[test]
fn hostile_hard_link_outside() {
    let text = refusal(&entry("./usr/x", b'1', "./etc/shadow", b""));
    assert!(text.contains("no file of the same package"), "{text}");
    assert!(refusal(&entry("./usr/x", b'1', "../../etc/shadow", b"")).contains("leads out"));
}

#[test]
fn hostile_hard_link_to_a_symbolic_link() {
    let mut bytes = entry("./a", b'2', "/etc/shadow", b"");
    bytes.extend(entry("./b", b'1', "./a", b""));
    assert!(refusal(&bytes).contains("no file of the same package"));
}

#[test]
fn hostile_device_node() {
    assert!(refusal(&entry("./dev/sda", b'4', "", b"")).contains("a block device"));
    assert!(refusal(&entry("./dev/mem", b'3', "", b"")).contains("a character device"));
}

#[test]
fn hostile_pax_header() {
    assert!(refusal(&entry("x", b'x', "", b"12 path=/x\n")).contains("a pax header"));
}

#[test]
fn hostile_oversized_long_name() {
    assert!(refusal(&entry("././@LongLink", b'L', "", &vec![b'a'; 100_000])).contains("more than 4096 bytes"));
}

#[test]
fn hostile_size_beyond_the_archive() {
    let mut bytes = entry("./a", b'0', "", b"");
    bytes[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let header: &mut [u8; 512] = (&mut bytes[..512]).try_into().unwrap();
    seal(header);
    assert!(matches!(index(&&bytes[..]), Err(TarError::Truncated(0))));
}

#[test]
fn hostile_root_that_is_a_link() {
    assert!(refusal(&entry("./", b'2', "/", b"")).contains("the root directory"));
}

#[test]
fn a_damaged_header_is_found() {
    let mut bytes = entry("./a", b'0', "", b"");
    bytes[0] ^= 1;
    assert!(matches!(index(&&bytes[..]), Err(TarError::Checksum(0))));
}

#[test]
fn a_truncated_archive_is_found() {
    let bytes = entry("./a", b'0', "", &[7; 600]);
    assert!(matches!(index(&&bytes[..700]), Err(TarError::Truncated(0))));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = index(&&bytes[..]);
    }

    #[test]
    fn a_sealed_header_with_any_fields_never_makes_the_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 512), kind in prop::sample::select(b"012345LKxg7".to_vec()), size in 0u64..2000,
    ) {
        let mut archive = bytes;
        archive[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        archive[156] = kind;
        let header: &mut [u8; 512] = (&mut archive[..]).try_into().unwrap();
        seal(header);
        archive.extend([b'x'; 1024]);
        for entry in index(&&archive[..]).into_iter().flatten() {
            prop_assert!(!entry.path.starts_with('/') && !entry.path.split('/').any(|p| p == ".."));
        }
    }
}
