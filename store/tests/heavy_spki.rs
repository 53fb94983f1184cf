//! Our signatures against libostree's own with OpenSSL: ed25519 and spki, both ways.
//!
//! Debian builds its ostree without OpenSSL, so its source is built with it, once, in a chroot below `target/heavy`
//! (network, root). Runs only with `SLIPWAY_HEAVY=1`. Where the mirror has no sources, `SLIPWAY_OSTREE_SOURCE` names a
//! directory with those of 2025.2 or later, its two submodules in place.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{REF, World, mirror};
use store::sign::{self, Keyring, spki};
use store::{Checksum, ObjectType};
use sys::Cmd;

/// What the source needs to be built.
const NEEDED: &str = "build-essential,dpkg-dev,autoconf,automake,libtool,bison,pkgconf,libglib2.0-dev,libssl-dev,\
                      liblzma-dev,zlib1g-dev,libext2fs-dev,xsltproc,ca-certificates";

/// The stable release's source: sid's changes while mirrors are looking.
const FETCH: &str = "cd /usr/src
sed -n 's/^deb \\([^ ]*\\) .*/deb-src \\1 trixie main/p' /etc/apt/sources.list > /etc/apt/sources.list.d/source.list
apt-get update -q
apt-get source -q ostree/trixie";

/// The build inside. What libostree passes to OpenSSL as the room for an ed25519 signature is a variable without a value
/// (so as of 2026.4): filled with a pattern it is large enough, and otherwise signing works by chance.
const BUILD: &str = "cd /usr/src/ostree-*/
NOCONFIGURE=1 ./autogen.sh
./configure --prefix=/opt/ostree --with-crypto=openssl --with-openssl --without-curl --without-soup --without-soup3 \
  --without-gpgme --without-libarchive --without-selinux --without-avahi --without-libmount --without-libsystemd \
  --disable-rofiles-fuse --disable-man --disable-gtk-doc --disable-introspection \
  CFLAGS='-O1 -ftrivial-auto-var-init=pattern'
make -j2
make install";

/// A chroot with the program; `None` where the mirror has no sources.
fn chroot() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/heavy/ostree-openssl");
    if !place.join("etc/apt/sources.list").exists() {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        sys::file::remove_tree(&place).unwrap();
        let mirror = mirror();
        Cmd::new("mmdebstrap")
            .args(["--variant=apt", "--aptopt=Acquire::Check-Valid-Until \"false\"", &format!("--include={NEEDED}")])
            .arg("sid")
            .arg(&place)
            .arg(format!("deb {mirror} sid main"))
            .run_shown()
            .unwrap();
    }
    if !place.join("opt/ostree/bin/ostree").exists() {
        match std::env::var_os("SLIPWAY_OSTREE_SOURCE") {
            Some(source) => {
                let copy = place.join("usr/src/ostree-given");
                sys::file::remove_tree(&copy).unwrap();
                Cmd::new("cp").args(["-r", "--no-target-directory"]).arg(source).arg(copy).run().unwrap();
            }
            None => {
                let fetched = Cmd::new("chroot").arg(&place).args(["sh", "-ec", FETCH]).output().unwrap();
                if fetched.code != 0 && fetched.errors().contains("404 ") {
                    return None;
                }
                assert_eq!(fetched.code, 0, "{}", fetched.errors());
            }
        }
        Cmd::new("chroot").arg(&place).args(["sh", "-ec", BUILD]).run_shown().unwrap();
    }
    Some(place.canonicalize().unwrap())
}

#[test]
fn libostree_with_openssl_and_we_accept_each_others_signatures() {
    if std::env::var_os("SLIPWAY_HEAVY").is_none() {
        eprintln!("DID NOT RUN: set SLIPWAY_HEAVY=1");
        return;
    }
    let Some(chroot) = chroot() else {
        eprintln!("DID NOT RUN: the mirror has no source of ostree; name one with SLIPWAY_OSTREE_SOURCE");
        return;
    };
    let world = World::new();
    let commit = world.origin.resolve(REF).unwrap();
    let bytes = world.origin.load_metadata(ObjectType::Commit, &commit).unwrap();
    let dir = tempfile::tempdir_in(chroot.join("tmp")).unwrap();
    let inside = Path::new("/").join(dir.path().strip_prefix(&chroot).unwrap());
    Cmd::new("cp").arg("-a").arg(world.origin.path()).arg(dir.path().join("repo")).run().unwrap();
    let repo = store::Repo::open(&dir.path().join("repo")).unwrap();
    let openssl = |args: &str| Cmd::new("openssl").args(args.split(' ')).dir(dir.path()).run().unwrap();
    let ostree = |kind: &str, file: &str, how: &[&str], commit: &Checksum| {
        // It links temporary files by /proc/self/fd.
        let enter = "mount --bind /proc \"$0/proc\"; exec chroot \"$0\" \"$@\"";
        let output = Cmd::new("unshare")
            .args(["-m", "sh", "-ec", enter])
            .arg(&chroot)
            .args(["env", "LD_LIBRARY_PATH=/opt/ostree/lib", "/opt/ostree/bin/ostree", "sign"])
            .arg(format!("--repo={}", inside.join("repo").display()))
            .args([format!("--sign-type={kind}"), format!("--keys-file={}", inside.join(file).display())])
            .args(how)
            .arg(commit.to_string())
            .output()
            .unwrap();
        eprintln!("{kind} {file}: {}{}", output.text(), String::from_utf8_lossy(&output.stderr));
        output.code == 0
    };
    let clean = || repo.write_detached(&commit, &store::Dict::new()).unwrap();

    // libostree's own form of ed25519.
    fs::write(dir.path().join("public"), world.key.public().to_string()).unwrap();
    fs::write(dir.path().join("secret"), world.key.to_text()).unwrap();
    fs::write(dir.path().join("stranger"), sign::SecretKey::from_seed(&[1; 32]).public().to_string()).unwrap();
    assert!(ostree("ed25519", "public", &["--verify"], &commit), "ours");
    assert!(!ostree("ed25519", "stranger", &["--verify"], &commit));
    clean();
    assert!(ostree("ed25519", "secret", &[], &commit));
    let detached = repo.load_detached(&commit).unwrap().unwrap();
    assert!(Keyring::of([world.key.public()]).verify(&bytes, &detached).is_ok(), "theirs");

    // Keys in PEM.
    let kinds = ["ed25519", "EC -pkeyopt ec_paramgen_curve:P-256", "RSA -pkeyopt rsa_keygen_bits:2048"];
    openssl("genpkey -algorithm ed25519 -out other");
    openssl("pkey -in other -pubout -out other.pem");
    for kind in kinds {
        openssl(&format!("genpkey -algorithm {kind} -out key"));
        openssl("pkey -in key -pubout -out key.pem");
        clean();
        let mut detached = store::Dict::new();
        spki::add_signature(&mut detached, &bytes, &spki::SecretKey::load(&dir.path().join("key")).unwrap()).unwrap();
        repo.write_detached(&commit, &detached).unwrap();
        assert!(ostree("spki", "key.pem", &["--verify"], &commit), "{kind}: ours");
        clean();
        assert!(ostree("spki", "key", &[], &commit), "{kind}");
        let detached = repo.load_detached(&commit).unwrap().unwrap();
        let keyring = |file: &str| {
            let mut keyring = spki::Keyring::default();
            keyring.add_file(&dir.path().join(file)).unwrap();
            keyring
        };
        assert!(keyring("key.pem").verify(&bytes, &detached).is_some(), "{kind}: theirs");
        assert!(keyring("other.pem").verify(&bytes, &detached).is_none(), "{kind}: a stranger's");
    }
}
