//! OpenPGP: what one tool signs the other accepts, and what one refuses so does the other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sys::Output;

use crate::world::World;

/// A world with a repository to be signed and GnuPG homes: `one`, `two`, `old` (expires), `gone` (is revoked), `sub`
/// (signs with a subkey). `NAME.pub` are their public keys.
struct Signed {
    world: World,
}

const NAMES: [&str; 5] = ["one", "two", "old", "gone", "sub"];

impl Signed {
    fn new() -> Signed {
        let signed = Signed { world: World::new() };
        for name in NAMES {
            fs::create_dir(signed.world.path(name)).unwrap();
            fs::set_permissions(signed.world.path(name), fs::Permissions::from_mode(0o700)).unwrap();
            let kind = if name == "sub" { "cert" } else { "sign" };
            let uid = format!("Key {name} (for a test) <{name}@example.org>");
            let made = ["--faked-system-time=20200101T000000", "--quick-generate-key", &uid, "ed25519", kind, "never"];
            signed.gpg(name, &made);
        }
        let fingerprint = signed.fingerprint("sub");
        signed.gpg("sub", &["--faked-system-time=20200101T000000", "--quick-add-key", &fingerprint, "ed25519", "sign"]);
        signed.gpg("sub", &["--quick-add-uid", &fingerprint, "No mail"]);
        NAMES.iter().for_each(|name| signed.export(name));
        signed
    }

    fn gpg(&self, name: &str, args: &[&str]) -> Vec<u8> {
        let gpg = self.world.cmd("gpg").args(["--batch", "--quiet", "--homedir", name, "--passphrase", ""]);
        gpg.args(["--pinentry-mode=loopback"]).args(args).run().unwrap().stdout
    }

    fn export(&self, name: &str) {
        fs::write(self.world.path(&format!("{name}.pub")), self.gpg(name, &["--export"])).unwrap();
    }

    fn fingerprint(&self, name: &str) -> String {
        let text = String::from_utf8(self.gpg(name, &["--with-colons", "--list-keys"])).unwrap();
        let line = text.lines().find(|line| line.starts_with("fpr:")).unwrap().to_owned();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// From now on the key `old` has been over for years, and `gone` is revoked.
    fn end_keys(&self) {
        let fingerprint = self.fingerprint("old");
        self.gpg("old", &["--faked-system-time=20200102T000000", "--quick-set-expire", &fingerprint, "1d"]);
        let file = self.world.path(&format!("gone/openpgp-revocs.d/{}.rev", self.fingerprint("gone")));
        // A colon guards it against being used by mistake.
        let text = fs::read_to_string(file).unwrap().replace("\n:-----", "\n-----");
        fs::write(self.world.path("revocation"), text).unwrap();
        self.gpg("gone", &["--import", "revocation"]);
        ["old", "gone"].iter().for_each(|name| self.export(name));
    }

    /// A repository with a commit by each key.
    fn commits(&self, which: usize, repo: &str) {
        self.ok(which, &format!("--repo={repo} init --mode=archive"));
        for name in NAMES {
            let commit = format!("--repo={repo} commit -b {name} --timestamp=@1700000000 --tree=dir=tree");
            self.ok(which, &format!("{commit} --gpg-sign={name}@example.org --gpg-homedir={name}"));
        }
    }

    fn run(&self, which: usize, line: &str) -> Output {
        self.world.tool(which).args(line.split(' ')).output().unwrap()
    }

    /// Both say the same.
    fn same(&self, line: &str) -> Output {
        let [stock, ours] = [0, 1].map(|which| self.run(which, line));
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((text(&stock), stock.code), (text(&ours), ours.code), "{line}: {}", ours.errors());
        stock
    }

    fn ok(&self, which: usize, line: &str) -> String {
        let output = self.run(which, line);
        assert_eq!(output.code, 0, "{which} {line}: {}", output.errors());
        output.text()
    }
}

#[test]
fn signatures_of_either_tool_are_described_alike() {
    let signed = Signed::new();
    for which in [0, 1] {
        let repo = format!("repo{which}");
        signed.commits(which, &repo);
        signed.ok(which, &format!("--repo={repo} gpg-sign one --gpg-homedir=two two@example.org"));
    }
    signed.end_keys();
    for repo in ["repo0", "repo1"] {
        let one = signed.same(&format!("--repo={repo} show one")).text();
        assert!(one.contains("Found 2 signatures:") && one.contains("public key not found"), "{one}");
        for name in NAMES {
            let add = format!("--repo={repo} remote add --gpg-import={name}.pub {name} file:///none");
            signed.ok(if repo == "repo0" { 0 } else { 1 }, &add);
        }
        for name in NAMES {
            signed.same(&format!("--repo={repo} show {name}"));
            signed.same(&format!("--repo={repo} show --gpg-verify-remote={name} {name}"));
            signed.same(&format!("--repo={repo} show --gpg-verify-remote=two {name}"));
            signed.same(&format!("--repo={repo} remote gpg-list-keys {name}"));
        }
        signed.same(&format!("--repo={repo} show --gpg-verify-remote=none one"));
        signed.same(&format!("--repo={repo} remote gpg-list-keys none"));
        assert!(signed.same(&format!("--repo={repo} show sub")).text().contains("Primary key ID"));
        assert!(signed.same(&format!("--repo={repo} show gone")).text().contains("Key revoked"));
        assert!(signed.same(&format!("--repo={repo} show old")).text().contains("Key expired"));
    }
}

#[test]
fn what_one_tool_signs_the_other_pulls_and_both_refuse_the_same() {
    let signed = Signed::new();
    for which in [0, 1] {
        let repo = format!("repo{which}");
        signed.commits(which, &repo);
        signed.ok(which, &format!("--repo={repo} commit -b none --timestamp=@1700000000 --tree=dir=tree"));
        signed.ok(which, &format!("--repo={repo} summary -u --gpg-sign=one@example.org --gpg-homedir=one"));
    }
    signed.end_keys();
    for (signer, verifier) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let at = signed.world.path("").display().to_string();
        let (client, url) = (format!("client{signer}{verifier}"), format!("file://{at}repo{signer}"));
        let run = |line: &str| signed.run(verifier, &format!("--repo={client} {line}"));
        let code = |line: &str| run(line).code;
        assert_eq!(code("init --mode=archive"), 0);
        for name in NAMES {
            let said = run(&format!("remote add --gpg-import={name}.pub {name} {url}"));
            assert_eq!(said.text(), format!("Imported 1 GPG key to remote \"{name}\""), "{}", said.errors());
        }
        for (remote, name, wanted) in [
            ("one", "one", 0),
            ("sub", "sub", 0),
            ("one", "two", 1),
            ("two", "one", 1),
            ("one", "none", 1),
            ("old", "old", 1),
            ("gone", "gone", 1),
        ] {
            assert_eq!(code(&format!("pull {remote} {name}")), wanted, "{signer} {verifier}: {remote} {name}");
            let known = code(&format!("rev-parse {remote}:{name}"));
            assert_eq!(known, wanted, "{signer} {verifier}: {remote} {name}: the ref");
        }
        // The same from another directory, where the remote only lends its keys.
        for (remote, name, wanted) in [("one", "one", 0), ("two", "one", 1), ("none", "one", 1)] {
            let line = format!("pull-local --gpg-verify --remote={remote} repo{signer} {name}");
            assert_eq!(code(&line), wanted, "{signer} {verifier}: {line}");
            let line = format!("pull-local --gpg-verify-summary --remote={remote} repo{signer} {name}");
            assert_eq!(code(&line), wanted, "{signer} {verifier}: {line}");
        }
        assert_eq!(code(&format!("pull-local --gpg-verify repo{signer} one")), 1);
        // The summary: signed by one, and by nobody else.
        for (remote, wanted) in [("one", 0), ("two", 1)] {
            let file = signed.world.path(&format!("{client}/config"));
            let text = fs::read_to_string(&file).unwrap();
            let group = format!("[remote \"{remote}\"]\n");
            fs::write(&file, text.replace(&group, &format!("{group}gpg-verify-summary=true\n"))).unwrap();
            assert_eq!(code(&format!("remote refs {remote}")), wanted, "{signer} {verifier}: {remote}");
            assert_eq!(code(&format!("pull {remote} one")), wanted, "{signer} {verifier}: {remote}");
        }
        let summary = signed.same(&format!("--repo={client} remote summary one")).text();
        assert!(summary.contains("GPG: Verification enabled, found 1 signature:"), "{summary}");
        signed.same(&format!("--repo={client} remote refs one"));
    }
}

#[test]
fn keys_are_imported_and_signatures_taken_away() {
    let signed = Signed::new();
    signed.ok(0, "--repo=repo0 init --mode=archive");
    fs::create_dir(signed.world.path("keys")).unwrap();
    for name in ["one", "two"] {
        fs::copy(signed.world.path(&format!("{name}.pub")), signed.world.path(&format!("keys/{name}.gpg"))).unwrap();
    }
    for (which, client) in [(0, "client0"), (1, "client1")] {
        let ok = |line: &str| signed.ok(which, &format!("--repo={client} {line}"));
        let fails = |line: &str| assert_eq!(signed.run(which, &format!("--repo={client} {line}")).code, 1, "{line}");
        ok("init --mode=archive");
        ok("remote add r file:///none");
        assert_eq!(
            ok("remote gpg-import -k one.pub -k two.pub r two@example.org"),
            "Imported 1 GPG key to remote \"r\""
        );
        assert_eq!(ok("remote gpg-import --keyring=one.pub -k two.pub r"), "Imported 1 GPG key to remote \"r\"");
        assert_eq!(ok("remote gpg-import --keyring=one.pub r"), "Imported 0 GPG keys to remote \"r\"");
        fails("remote gpg-import --keyring=one.pub r nobody@example.org");
        fails("remote gpg-import --keyring=one.pub nowhere");
        fails("remote gpg-import --keyring=one.pub --stdin r");
        fails("remote gpg-import --keyring=none r");
        fails("remote gpg-import --keyring=modes r");
        let stdin = fs::read(signed.world.path("sub.pub")).unwrap();
        let line = format!("--repo={client} remote gpg-import --stdin r");
        let output = signed.world.tool(which).args(line.split(' ')).stdin(stdin).run().unwrap();
        assert_eq!(output.text(), "Imported 1 GPG key to remote \"r\"");

        ok("commit -b m --timestamp=@1700000000 --tree=dir=tree --gpg-sign=one@example.org --gpg-homedir=one");
        ok("gpg-sign m --gpg-homedir=two two@example.org");
        let again = format!("--repo={client} gpg-sign m --gpg-homedir=two two@example.org");
        let again = signed.world.tool(which).args(again.split(' ')).env("OSTREE_GPG_HOME", "keys").output().unwrap();
        assert_eq!(again.code, 1, "a second signature of one key");
        fails("gpg-sign m --gpg-homedir=two nobody@example.org");
        fails("gpg-sign m");
        assert!(ok("show m").contains("Found 2 signatures:"));
        assert_eq!(ok("gpg-sign -d m nobody@example.org"), "Signatures deleted: 0");
        assert_eq!(ok(&format!("gpg-sign -d m {}", signed.fingerprint("one"))), "Signatures deleted: 1");
        assert!(ok("show m").contains("Found 1 signature:"));
        assert_eq!(ok("gpg-sign --delete m two@example.org one@example.org"), "Signatures deleted: 1");
        assert!(!ok("show m").contains("Found"));
        ok("remote delete r");
        assert!(!signed.world.path(&format!("{client}/r.trustedkeys.gpg")).exists());
    }
    // Directories of keys: for all remotes, and for one look.
    signed.ok(
        1,
        "--repo=repo0 commit -b m --timestamp=@1700000000 --tree=dir=tree --gpg-sign=one@example.org --gpg-homedir=one",
    );
    assert!(signed.same("--repo=repo0 show m").text().contains("public key not found"));
    assert!(signed.same("--repo=repo0 show --gpg-homedir=keys m").text().contains("Good signature"));
    let [stock, ours] = [0, 1].map(|which| {
        let cmd = signed.world.tool(which).args(["--repo=repo0", "show", "m"]);
        cmd.env("OSTREE_GPG_HOME", "keys").run().unwrap().text()
    });
    assert_eq!(stock, ours);
    assert!(ours.contains("Good signature from \"Key one <one@example.org>\""), "{ours}");
}
