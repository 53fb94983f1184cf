//! What `slipway compose` says to input that is wrong: every message names the place and what to do, nothing is built.

mod archive;

use archive::{Archive, Release};

const BASE: &str = "Package: base\nEssential: yes";

#[test]
fn an_unknown_key_is_named_with_its_line_and_near_misses() {
    let archive = Archive::new(&[BASE]);
    let tree = archive.treefile("pacakges:\n- base\n");
    assert_eq!(
        archive.refusal(&tree, &["--dry-run"]),
        "slipway: t.yaml:5: unknown key `pacakges`; did you mean `packages`?"
    );
}

#[test]
fn a_missing_package_is_named_with_its_line_and_near_misses() {
    let archive = Archive::new(&[BASE, "Package: podman", "Package: podman-docker"]);
    let tree = archive.treefile("packages:\n- base\n- podmn\n");
    let message = archive.refusal(&tree, &["--dry-run"]);
    assert!(message.starts_with("slipway: t.yaml:7: no package `podmn` in "), "{message}");
    assert!(message.ends_with("; did you mean `podman`?"), "{message}");
}

#[test]
fn a_missing_version_and_a_virtual_package_are_named_with_their_line() {
    let archive = Archive::new(&[BASE, "Package: mawk\nProvides: awk", "Package: gawk\nProvides: awk"]);
    let message = archive.refusal(&archive.treefile("packages:\n- mawk=9.9\n"), &["--dry-run"]);
    assert_eq!(message, "slipway: t.yaml:6: Version '9.9' for 'mawk' was not found");
    let message = archive.refusal(&archive.treefile("packages: [awk]\n"), &["--dry-run"]);
    assert_eq!(message, "slipway: t.yaml:5: `awk` is a virtual package; ask for one of gawk, mawk");
}

#[test]
fn an_include_cycle_is_shown_as_a_chain() {
    let archive = Archive::new(&[BASE]);
    std::fs::write(archive.path("a.yaml"), "include: b.yaml\n").unwrap();
    std::fs::write(archive.path("b.yaml"), "include: a.yaml\n").unwrap();
    let message = archive.refusal(&archive.path("a.yaml"), &["--dry-run"]);
    assert_eq!(message, "slipway: b.yaml:1: include cycle: a.yaml → b.yaml → a.yaml");
}

#[test]
fn an_unreachable_repository_is_named_with_its_address() {
    let archive = Archive::new(&[BASE]);
    // A port that was free a moment ago, on which nobody listens now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tree = archive.treefile_at(&format!("http://127.0.0.1:{port}/debian"), "archive", "packages: [base]\n");
    let message = archive.refusal(&tree, &["--dry-run"]);
    assert!(message.starts_with(&format!("slipway: repository http://127.0.0.1:{port}/debian")), "{message}");
    assert!(message.contains("cannot be reached") && message.contains("--mirror"), "{message}");
    let tree = archive.treefile_at(&format!("{}/nothere", archive.uri()), "archive", "packages: [base]\n");
    let message = archive.refusal(&tree, &["--dry-run"]);
    assert!(message.contains("nothere test cannot be reached: there is no such suite"), "{message}");
}

#[test]
fn a_repository_signed_by_a_stranger_is_refused() {
    let archive = Archive::with(&[BASE], &Release { key: "stranger", ..Release::default() });
    let message = archive.refusal(&archive.treefile("packages: [base]\n"), &["--dry-run"]);
    assert!(message.contains(" test is not signed by a trusted key: "), "{message}");
    assert!(message.ends_with("name its keyring with `signed-by`"), "{message}");
    let output =
        archive.compose(&archive.treefile_at(&archive.uri(), "stranger", "packages: [base]\n"), &["--dry-run"]);
    assert_eq!(output.code, 0, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_repository_changed_after_it_was_signed_is_refused() {
    let archive = Archive::new(&[BASE]);
    let release = archive.path("dists/test/InRelease");
    let text = std::fs::read_to_string(&release).unwrap().replace("Origin: Test", "Origin: Evil");
    std::fs::write(&release, text).unwrap();
    let message = archive.refusal(&archive.treefile("packages: [base]\n"), &["--dry-run"]);
    assert!(message.contains(" test is not signed by a trusted key: "), "{message}");
}

#[test]
fn a_bad_signature_is_refused_also_where_good_lists_are_cached() {
    let archive = Archive::new(&[BASE]);
    let tree = archive.treefile("packages: [base]\n");
    assert_eq!(archive.compose(&tree, &["--dry-run"]).code, 0);
    archive.publish(&Release { key: "stranger", date: "Sun, 13 Sep 2020 07:55:41 UTC", ..Release::default() });
    let message = archive.refusal(&tree, &["--dry-run"]);
    assert!(message.contains(" is not signed by a trusted key: "), "{message}");
}

#[test]
fn an_expired_repository_is_refused_unless_the_treefile_says_otherwise() {
    let release = Release { valid_until: Some("Sat, 19 Sep 2020 07:55:41 UTC"), ..Release::default() };
    let archive = Archive::with(&[BASE], &release);
    let tree = archive.treefile("packages: [base]\n");
    let message = archive.refusal(&tree, &["--dry-run"]);
    assert!(message.contains("InRelease has expired (invalid since "), "{message}");
    assert!(message.contains("check-valid-until: false"), "{message}");
    let text =
        std::fs::read_to_string(&tree).unwrap().replace("archive.gpg}", "archive.gpg, check-valid-until: false}");
    std::fs::write(&tree, text).unwrap();
    let output = archive.compose(&tree, &["--dry-run"]);
    assert_eq!(output.code, 0, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_exclusion_that_cannot_be_names_who_needs_the_package() {
    let archive = Archive::new(&[
        BASE,
        "Package: app\nDepends: middle",
        "Package: middle\nDepends: low",
        "Package: low",
        "Package: alternative\nProvides: thing",
        "Package: first\nProvides: thing",
        "Package: chooser\nDepends: first | alternative",
    ]);
    let message = archive.refusal(&archive.treefile("packages:\n- app\nexclude-packages:\n- low\n"), &["--dry-run"]);
    assert_eq!(
        message,
        "slipway: t.yaml:8: exclude-packages: `low` cannot be left out: `middle` needs it; app → middle → low, \
         and `app` is asked for in t.yaml:6"
    );
    let message = archive.refusal(&archive.treefile("packages: [app]\nexclude-packages: [base]\n"), &["--dry-run"]);
    assert_eq!(
        message,
        "slipway: t.yaml:6: exclude-packages: `base` cannot be left out: every Debian system needs it (Essential: yes)"
    );
    // Where something else will do, it is taken.
    let output = archive.compose(&archive.treefile("packages: [chooser]\nexclude-packages: [first]\n"), &["--dry-run"]);
    assert_eq!(output.code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.text().contains("alternative 1.0") && !output.text().contains("first"), "{}", output.text());
}

#[test]
fn packages_that_cannot_be_together_are_shown() {
    let archive =
        Archive::new(&[BASE, "Package: aa\nConflicts: bb", "Package: bb", "Package: cc\nDepends: nothere (>= 2)"]);
    let output = archive.compose(&archive.treefile("packages: [aa, bb]\n"), &["--dry-run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.code == 1 && text.contains("cannot be installed together") && text.contains("Conflicts: bb"),
        "{text}"
    );
    let output = archive.compose(&archive.treefile("packages: [cc]\n"), &["--dry-run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.code == 1 && text.contains("Depends: nothere (>= 2)"), "{text}");
}

#[test]
fn a_local_package_that_is_none_is_named() {
    let archive = Archive::new(&[BASE]);
    std::fs::write(archive.path("broken.deb"), "not a package").unwrap();
    let broken = archive.path("broken.deb");
    let tree = archive.treefile("packages: [base]\n");
    let message = archive.refusal(&tree, &["--dry-run", "--local-packages", broken.to_str().unwrap()]);
    assert!(message.starts_with("slipway: local package broken.deb: "), "{message}");
}

#[test]
fn a_version_is_asked_for_before_anything_is_built() {
    let archive = Archive::new(&[BASE]);
    let repo = archive.path("repo");
    let output =
        archive.compose(&archive.treefile("packages: [base]\n"), &["--dry-run", "--repo", repo.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.code, 3, "{text}");
    assert!(
        text.contains("nothing says which version") && text.contains("hint: add `automatic-version-prefix"),
        "{text}"
    );
    assert!(!repo.exists());
}

#[test]
fn a_key_that_the_tree_does_not_trust_is_refused_and_never_shown() {
    let archive = Archive::new(&[BASE]);
    let secret = "c2VjcmV0IHNlZWQgb2YgMzIgYnl0ZXMsIG5vIG1vcmU=";
    let tree = archive.treefile(
        "packages: [base]\nautomatic-version-prefix: 1\n\
         remotes: {default: {keys: [AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]}}\n",
    );
    std::fs::write(archive.path("key"), format!("{secret}\n")).unwrap();
    let key = archive.path("key");
    let repo = archive.path("repo");
    let args = ["--dry-run", "--repo", repo.to_str().unwrap(), "--sign-key", key.to_str().unwrap()];
    let output = archive.compose(&tree, &args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.code == 3 && text.contains("is none of the keys in the treefile's `remotes`"), "{text}");
    assert!(!text.contains(secret));
}
