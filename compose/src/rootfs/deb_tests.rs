use super::*;
use crate::rootfs::ar::tests::archive;
use crate::rootfs::tar::tests::entry;

fn control(text: &str) -> Vec<u8> {
    entry("./control", b'0', "", text.as_bytes())
}

const CONTROL: &str = "Package: x\nVersion: 1\nArchitecture: all\n";

fn write(dir: &Path, members: &[(&str, &[u8])]) -> PathBuf {
    let path = dir.join("x.deb");
    fs::write(&path, archive(members)).unwrap();
    path
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_compression_gives_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let data = entry("./usr/x", b'0', "", b"hello");
    let zst = zstd::encode_all(&data[..], 1).unwrap();
    for (name, bytes) in
        [("data.tar", data.clone()), ("data.tar.gz", gz(&data)), ("data.tar.xz", xz(&data)), ("data.tar.zst", zst)]
    {
        let path = write(
            dir.path(),
            &[("debian-binary", b"2.0\n"), ("control.tar.gz", &gz(&control(CONTROL))), (name, &bytes)],
        );
        let deb = Deb::open(&path, &format!("digest-of-{name}")).unwrap();
        let unpacked = deb.unpack(dir.path()).unwrap();
        assert_eq!(unpacked.entries.len(), 1, "{name}");
        assert_eq!(unpacked.entries[0].path, "usr/x");
    }
}

#[test]
fn a_damaged_cache_file_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = entry("./usr/x", b'0', "", b"hello");
    let path =
        write(dir.path(), &[("debian-binary", b"2.0\n"), ("control.tar", &control(CONTROL)), ("data.tar", &data)]);
    let deb = Deb::open(&path, "d").unwrap();
    deb.unpack(dir.path()).unwrap();
    let cached = dir.path().join("d.tar");
    let good = fs::read(&cached).unwrap();
    let mut bad = good.clone();
    bad[512] ^= 1;
    fs::write(&cached, bad).unwrap();
    deb.unpack(dir.path()).unwrap();
    assert_eq!(fs::read(&cached).unwrap(), good);
}

#[test]
fn what_is_wrong_with_a_package_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |members: &[(&str, &[u8])]| {
        let path = write(dir.path(), members);
        match Deb::open(&path, "r") {
            Err(error) => error.to_string(),
            Ok(deb) => deb.unpack(dir.path()).unwrap_err().to_string(),
        }
    };
    let good = control(CONTROL);
    assert_eq!(refusal(&[]), "it has no member debian-binary");
    assert_eq!(refusal(&[("debian-binary", b"3.0\n")]), "its format is \"3.0\"; only 2.x is known");
    assert_eq!(refusal(&[("debian-binary", b"2.0\n"), ("control.tar", &good)]), "it has no member data.tar");
    let text = refusal(&[("debian-binary", b"2.0\n"), ("control.tar", &good), ("data.tar.lzma", b"x")]);
    assert!(text.contains("compression of data.tar.lzma is not known"), "{text}");
    let text = refusal(&[("debian-binary", b"2.0\n"), ("control.tar", &good), ("data.tar.xz", b"this is not xz")]);
    assert_eq!(text, "decompressing data.tar");
    let text = refusal(&[("debian-binary", b"2.0\n"), ("control.tar", &control("Package: x\n")), ("data.tar", b"")]);
    assert_eq!(text, "the control file has no valid field Version");
}

#[test]
fn hostile_conffile_outside_the_root() {
    assert!(matches!(conffiles("/etc/../../x\n"), Err(DebError::Conffile(_))));
    assert!(matches!(conffiles("etc/x\n"), Err(DebError::Conffile(_))));
    assert!(matches!(conffiles("remove-on-upgrade ../x\n"), Err(DebError::Conffile(_))));
    let list = conffiles("/etc/a\nremove-on-upgrade /etc/b\n\n").unwrap();
    let list: Vec<_> = list.iter().map(|c| (c.path.as_str(), c.remove_on_upgrade)).collect();
    assert_eq!(list, [("etc/a", false), ("etc/b", true)]);
}
