//! Signatures that are not OpenPGP's. The stock tool of Debian can make and check the kind `dummy` alone: that is
//! compared. Signatures of the kind `ed25519` are checked by openssl, and what openssl signs is accepted.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sys::{Cmd, Output};

use crate::world::{World, everything};

fn run(world: &World, which: usize, line: &str) -> Output {
    // Keys may have letters in them that stand for commits elsewhere.
    let words = line.split(' ').map(|word| if word == "T" { "--timestamp=2023-11-16T22:13:20Z" } else { word });
    world.tool(which).args(words).env("OSTREE_DUMMY_SIGN_ENABLED", "1").output().unwrap()
}

/// What ours prints; it must succeed.
fn ours(world: &World, line: &str) -> String {
    let output = run(world, 1, line);
    assert_eq!(output.code, 0, "{line}: {}", output.errors());
    output.text()
}

#[test]
fn dummy_signatures_are_those_of_the_stock_tool() {
    let world = World::new();
    for name in ["dummy0", "dummy1"] {
        Cmd::new("cp").arg("-a").args([world.path("source"), world.path(name)]).run().unwrap();
    }
    for line in [
        "sign -s dummy os/stable one two",
        "sign -s dummy os/stable one",
        "sign -s dummy --verify os/stable one",
        "sign -s dummy --verify os/stable none two",
        "sign --sign-type=dummy --verify os/stable none",
        "sign -s dummy --verify os/stable",
        "sign -s dummy --verify other one",
        "sign -s dummy os/stable",
        "sign -s dummy none one",
        "sign -s none os/stable one",
        "sign -s dummy",
        "show --print-detached-metadata-key=ostree.sign.dummy os/stable",
        "commit -b new T --sign=one --sign-type=dummy tree",
        "show --print-detached-metadata-key=ostree.sign.dummy new",
        "summary -u --sign=one --sign-type=dummy",
    ] {
        let [stock, ours] = [0, 1].map(|which| run(&world, which, &format!("--repo=dummy{which} {line}")));
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((text(&stock), stock.code), (text(&ours), ours.code), "{line}: {}", ours.errors());
    }
    let signed = |which: usize| {
        let mut found = everything(&world.path(&format!("dummy{which}")));
        found.retain(|name, _| ["objects/", "refs/", "summary.sig"].iter().any(|own| name.starts_with(own)));
        found
    };
    assert_eq!(signed(0), signed(1));
    let sealed = world.tool(1).args(world.args("--repo=dummy1 sign -s dummy os/stable one")).output().unwrap();
    assert!(sealed.code == 1 && sealed.errors().contains("OSTREE_DUMMY_SIGN_ENABLED"), "{}", sealed.errors());

    // Deltas: each applies what the other signed.
    for maker in [0, 1] {
        let repo = format!("--repo=dummy{maker}");
        let generate = format!("{repo} static-delta generate --empty other --sign=one --sign-type=dummy --inline");
        assert_eq!(run(&world, maker, &format!("{generate} --filename=delta{maker}")).code, 0);
        for reader in [0, 1] {
            for (key, code) in [("one", 0), ("two", 1)] {
                let line = format!("{repo} static-delta verify --sign-type=dummy ./delta{maker} {key}");
                assert_eq!(run(&world, reader, &line).code, code, "{reader}: {line}");
            }
        }
    }
}

#[test]
fn ed25519_signatures_are_those_of_openssl() {
    let world = World::new();
    let openssl = |args: &str| world.cmd("openssl").args(args.split(' ')).run().unwrap().stdout;
    for name in ["a", "b"] {
        openssl(&format!("genpkey -algorithm ed25519 -out {name}.pem"));
        openssl(&format!("pkey -in {name}.pem -pubout -out {name}.pub.pem"));
        // The last 32 bytes of either form are the key itself.
        let last = |der: Vec<u8>| der[der.len() - 32..].to_vec();
        let secret = last(openssl(&format!("pkey -in {name}.pem -outform DER")));
        let public = last(openssl(&format!("pkey -in {name}.pem -pubout -outform DER")));
        fs::write(world.path(&format!("{name}.key")), STANDARD.encode([secret, public.clone()].concat())).unwrap();
        fs::write(world.path(&format!("{name}.pub")), STANDARD.encode(public)).unwrap();
    }
    let key = |name: &str| fs::read_to_string(world.path(name)).unwrap();
    let object = |extension: &str| {
        let commit = &world.commits[1];
        world.path(&format!("source/objects/{}/{}.{extension}", &commit[..2], &commit[2..]))
    };

    assert_eq!(ours(&world, &format!("--repo=source sign os/stable {}", key("a.key"))), "");
    let listed = ours(&world, "--repo=source show --print-detached-metadata-key=ostree.sign.ed25519 os/stable");
    let hex: String = listed.split("0x").skip(1).map(|piece| &piece[..2]).collect();
    assert_eq!(hex.len(), 128, "{listed}");
    let bytes: Vec<u8> = (0..64).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    fs::write(world.path("signature"), bytes).unwrap();
    fs::copy(object("commit"), world.path("signed")).unwrap();
    openssl("pkeyutl -verify -pubin -inkey a.pub.pem -rawin -in signed -sigfile signature");

    // What openssl signs.
    openssl("pkeyutl -sign -inkey b.pem -rawin -in signed -out by-b");
    let verify = |how: &str| run(&world, 1, &format!("--repo=source sign --verify os/stable {how}"));
    assert_eq!(verify(&key("b.pub")).code, 1);
    let by_b = fs::read(world.path("by-b")).unwrap();
    let repo = store::Repo::open(&world.path("source")).unwrap();
    let commit = repo.resolve("os/stable").unwrap();
    let mut detached = repo.load_detached(&commit).unwrap().unwrap();
    let Some(store::Value::BytesArray(all)) = detached.get_mut("ostree.sign.ed25519") else { panic!("{detached:?}") };
    all.push(by_b);
    repo.write_detached(&commit, &detached).unwrap();
    let good = verify(&key("b.pub"));
    let hex: String = STANDARD.decode(key("b.pub")).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(good.text(), format!("ed25519: Signature verified successfully with key '{hex}'"));

    // Keys in files and directories; a revoked one does not count.
    fs::write(world.path("both.pub"), format!("{}\n{}\n", key("a.pub"), key("b.pub"))).unwrap();
    assert_eq!(verify("--keys-file=both.pub").code, 0);
    assert_eq!(verify("--keys-file=none").code, 1);
    fs::create_dir_all(world.path("keys/trusted.ed25519.d")).unwrap();
    assert_eq!(verify("--keys-dir=keys").code, 1);
    fs::write(world.path("keys/trusted.ed25519.d/a"), key("a.pub")).unwrap();
    assert_eq!(verify("--keys-dir=keys").code, 0);
    fs::write(world.path("keys/revoked.ed25519"), key("a.pub")).unwrap();
    assert_eq!(verify("--keys-dir=keys").code, 1);

    // One signature is taken away, the other stays.
    let delete = |name: &str| run(&world, 1, &format!("--repo=source sign -d os/stable {}", key(name))).code;
    assert_eq!([delete("a.pub"), delete("a.pub")], [0, 1]);
    assert_eq!([verify(&key("a.pub")).code, verify(&key("b.pub")).code], [1, 0]);
    assert_eq!(delete("b.pub"), 0);
    let keys = ours(&world, "--repo=source show --list-detached-metadata-keys os/stable");
    assert!(!keys.contains("ed25519") && keys.contains("key"), "{keys}");

    // From a file, and of the kind spki, in a commit, a summary and a delta.
    assert_eq!(ours(&world, "--repo=source sign --keys-file=a.key os/stable"), "");
    assert_eq!(verify(&key("a.pub")).code, 0);
    let base64 = |args: &str| STANDARD.encode(openssl(args));
    let secret = base64("pkcs8 -topk8 -nocrypt -in a.pem -outform DER");
    let public = base64("pkey -in a.pem -pubout -outform DER");
    let new = format!("--repo=source commit -b new T --sign={secret} --sign-type=spki tree");
    ours(&world, &new);
    let said = ours(&world, &format!("--repo=source sign -s spki --verify new {public}"));
    assert!(said.starts_with("spki: Signature verified successfully"), "{said}");
    ours(&world, &format!("--repo=source summary -u --sign={secret} --sign-type=spki"));
    let (bytes, signatures) = store::summary::read(&world.path("source")).unwrap();
    let mut keyring = store::sign::spki::Keyring::default();
    keyring.trust(public.parse().unwrap());
    assert!(keyring.verify(&bytes.unwrap(), &signatures).is_some());
    let generate = "--repo=source static-delta generate --empty new --inline --filename=delta";
    ours(&world, &format!("{generate} --sign={secret} --sign-type=spki"));
    ours(&world, "--repo=client init --mode=bare-user");
    let other = base64("pkey -in b.pem -pubout -outform DER");
    for (key, code) in [(&other, 1), (&public, 0)] {
        for line in ["static-delta verify", "static-delta apply-offline"] {
            let line = format!("--repo=client {line} --sign-type=spki ./delta {key}");
            assert_eq!(run(&world, 1, &line).code, code, "{line}");
        }
    }
}
