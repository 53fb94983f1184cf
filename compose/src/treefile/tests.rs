use std::fs;

use proptest::prelude::*;

use super::*;

fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn load_in(dir: &tempfile::TempDir, name: &str) -> Result<Treefile, String> {
    load_for(&dir.path().join(name), "amd64").map_err(|e| {
        let prefix = format!("{}/", dir.path().display());
        e.to_string().replace(&prefix, "")
    })
}

fn one(text: &str) -> Result<Treefile, String> {
    load_in(&dir(&[("t.yaml", text)]), "t.yaml")
}

#[test]
fn includes_merge_as_in_rpm_ostree() {
    let dir = dir(&[
        (
            "sub/base.yaml",
            "ref: base\nreleasever: trixie\npackages: [bash, zlib1g]\nunits: [a.service]\nkargs: [one]\n\
          postprocess: [base]\nadd-files: [[f, /usr/f]]\nadd-commit-metadata: {a: base, b: base}\n\
          remotes: {default: {url: 'http://base/', keys: [AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]}}\n",
        ),
        ("sub/f", "content"),
        ("other.yaml", "ref: other\ndocumentation: false\nkargs: [two]\npostprocess: [other]\npackages: [bash curl]\n"),
        (
            "child.yaml",
            "include: [sub/base.yaml, other.yaml]\nref: child/${basearch}/${releasever}\npackages-amd64: [podman]\n\
          packages-arm64: [nothere]\nkargs: [three]\npostprocess: [child]\nunits: [a.service, b.socket]\n\
          add-commit-metadata: {b: child, c: true}\nremotes: {default: {url: 'https://child/'}}\n",
        ),
    ]);
    let tree = load_in(&dir, "child.yaml").unwrap();
    assert_eq!(tree.ref_name, "child/amd64/trixie");
    assert_eq!(tree.packages.iter().map(String::as_str).collect::<Vec<_>>(), ["bash", "curl", "podman", "zlib1g"]);
    // Later includes come before earlier ones, the child last.
    assert_eq!(tree.kargs, ["two", "one", "three"]);
    assert_eq!(tree.postprocess, ["other", "base", "child"]);
    assert_eq!(tree.units, ["a.service", "b.socket"]);
    assert!(!tree.documentation);
    assert_eq!(tree.add_commit_metadata["a"], Metadata::Text("base".into()));
    assert_eq!(tree.add_commit_metadata["b"], Metadata::Text("child".into()));
    assert_eq!(tree.add_commit_metadata["c"], Metadata::Bool(true));
    let remote = &tree.remotes["default"];
    assert_eq!((remote.url.as_deref(), remote.keys.len()), (Some("https://child/"), 1));
    assert_eq!(tree.add_files[0].path, dir.path().join("sub/f"));
    assert_eq!(tree.origin("packages", "zlib1g").unwrap().line, 3);
    assert!(!tree.to_json().contains(dir.path().to_str().unwrap()), "the record holds no path of the build machine");
    let record: Treefile = serde_json::from_str(&tree.to_json()).unwrap();
    assert_eq!(record.to_json(), tree.to_json());
}

#[test]
fn of_two_includes_the_first_wins() {
    let dir = dir(&[
        ("a.yaml", "ref: a\n"),
        ("b.yaml", "ref: b\ndefault-target: b.target\n"),
        ("t.yaml", "include: [a.yaml, b.yaml]\n"),
    ]);
    let tree = load_in(&dir, "t.yaml").unwrap();
    assert_eq!((tree.ref_name.as_str(), tree.default_target.as_deref()), ("a", Some("b.target")));
}

#[test]
fn the_digest_covers_the_content_of_added_files() {
    let dir = dir(&[("t.yaml", "ref: a\nadd-files: [[d, /usr/lib/d]]\n"), ("d/x", "1"), ("d/e/y", "2")]);
    let before = load_in(&dir, "t.yaml").unwrap();
    let names: Vec<&str> = before.add_files.iter().map(|f| f.destination.as_str()).collect();
    assert_eq!(names, ["/usr/lib/d/e/y", "/usr/lib/d/x"]);
    fs::write(dir.path().join("d/x"), "3").unwrap();
    assert_ne!(before.digest(), load_in(&dir, "t.yaml").unwrap().digest());
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    for (text, wanted) in [
        ("ref: a\npacakges: []\n", "t.yaml:2: unknown key `pacakges`; did you mean `packages`?"),
        ("ref: a\nzzzz: 1\n", "t.yaml:2: unknown key `zzzz`"),
        ("ref: a\n\nselinux: true\n", "t.yaml:3: `selinux` is a key of rpm-ostree that is not supported"),
        (
            "ref: a\ngpg-key: 1\n",
            "t.yaml:2: `gpg-key` is a key of rpm-ostree that is not supported; sign with `slipway compose --sign-key`",
        ),
        (
            "ref: a\npackages-x86_64: []\n",
            "t.yaml:2: `x86_64` is no Debian architecture; did you mean `packages-amd64`?",
        ),
        ("ref: a\nref: b\n", "t.yaml:2: `ref` is given twice, first in line 1"),
        ("ref: a\nsuite: x\nreleasever: x\n", "t.yaml:3: `suite` and `releasever` are the same key; give one"),
        ("ref: a\npackages: bash\n", "t.yaml:2: packages: expected a list, found a single value"),
        ("ref: a\npackages:\n- bash\n- [x]\n", "t.yaml:4: packages: expected a single value, found a list"),
        (
            "ref: a\npackages: ['foo-', bar]\n",
            "t.yaml:2: packages: `foo-` is not a package name, `name=version` or `name/suite`",
        ),
        (
            "ref: a\npackages: ['?essential']\n",
            "t.yaml:2: packages: `?essential` is not a package name, `name=version` or `name/suite`",
        ),
        ("ref: a\nrecommends: yes\n", "t.yaml:2: recommends: expected `true` or `false`, found `yes`"),
        ("ref: a\nedition: 2014\n", "t.yaml:2: edition: `2014` is not known; there is `2024`"),
        ("ref: a\nunits: [ssh]\n", "t.yaml:2: units: `ssh` is not a unit name, such as `ssh.service`"),
        (
            "ref: a\nadd-files: [[x]]\n",
            "t.yaml:2: add-files: an item is `[source, destination]` or `[source, destination, mode]`",
        ),
        (
            "ref: a\nadd-files:\n- [t.yaml, /usr/../../etc/x]\n",
            "t.yaml:3: add-files: `/usr/../../etc/x` is not a path in the tree",
        ),
        ("ref: a\nremove-files: [/]\n", "t.yaml:2: remove-files: `/` is not a path in the tree"),
        (
            "ref: a\nrepos:\n- name: x\n  urls: http://x/\n",
            "t.yaml:4: repos: unknown key `urls`; did you mean `uris` or `url`?",
        ),
        (
            "ref: a\nrepos:\n- url: ftp://x/\n",
            "t.yaml:3: repos: `ftp://x/` is not an address that begins with http://, https:// or file:/",
        ),
        (
            "ref: a\nremotes: {default: {keys: [nokey]}}\n",
            "t.yaml:2: keys: `nokey` is neither a public key in base64 nor a file",
        ),
        ("ref: a b\n", "t.yaml:1: ref: `a b` is not words"),
        ("ref: ../x\n", "t.yaml:1: ref: `../x` is not words"),
        ("ref: ${basarch}\n", "t.yaml:1: ref: the variable `basarch` is not set; did you mean `basearch`?"),
        (
            "ref: a\npackages: [bash]\nexclude-packages:\n- bash\n",
            "t.yaml:4: exclude-packages: `bash` is also asked for, in ",
        ),
        ("packages: [bash]\n", "t.yaml:1: no `ref`"),
        ("- a\n", "t.yaml:1: a treefile is a mapping"),
        ("ref: [a\n", "t.yaml:2: "),
    ] {
        let error = one(text).expect_err(text);
        assert!(error.starts_with(wanted), "{text:?}\n  gives {error}\n not {wanted}");
    }
}

#[test]
fn include_cycles_show_the_chain() {
    let dir = dir(&[
        ("a.yaml", "include: b.yaml\n"),
        ("b.yaml", "ref: x\ninclude:\n- c.yaml\n"),
        ("c.yaml", "include: a.yaml\n"),
    ]);
    assert_eq!(load_in(&dir, "a.yaml").unwrap_err(), "c.yaml:1: include cycle: a.yaml → b.yaml → c.yaml → a.yaml");
    let dir = self::dir(&[("a.yaml", "include: a.yaml\n")]);
    assert_eq!(load_in(&dir, "a.yaml").unwrap_err(), "a.yaml:1: include cycle: a.yaml → a.yaml");
}

#[test]
fn a_double_include_names_both_places() {
    let dir =
        dir(&[("a.yaml", "include: [b.yaml, c.yaml]\n"), ("b.yaml", "include: c.yaml\n"), ("c.yaml", "ref: x\n")]);
    assert_eq!(
        load_in(&dir, "a.yaml").unwrap_err(),
        "a.yaml:1: c.yaml is included twice (first in b.yaml:1); this time by a.yaml"
    );
}

#[test]
fn a_missing_include_names_who_wants_it() {
    let dir = dir(&[("a.yaml", "ref: x\ninclude: nothere.yaml\n")]);
    assert_eq!(load_in(&dir, "a.yaml").unwrap_err(), "a.yaml:2: include: nothere.yaml: cannot read the treefile");
}

#[test]
fn json_is_read_too() {
    let dir =
        dir(&[("t.json", "{\n\t\"ref\": \"a/b\",\n\t\"packages\": [\"bash\"],\n\t\"documentation\": false\n}\n")]);
    let tree = load_in(&dir, "t.json").unwrap();
    assert!(!tree.documentation && tree.packages.contains("bash"));
}

#[test]
fn a_secret_key_among_the_public_ones_is_refused() {
    let secret = "A".repeat(85) + "Q==";
    let dir = dir(&[("k", &secret), ("t.yaml", "ref: a\nremotes: {default: {keys: [k]}}\n")]);
    let error = load_in(&dir, "t.yaml").unwrap_err();
    assert!(error.starts_with("t.yaml:2: keys: k holds a secret key"), "{error}");
}

#[test]
fn repositories_come_from_mappings_and_files() {
    let dir = dir(&[
        ("keys.gpg", ""),
        (
            "corp.sources",
            "Types: deb\nURIs: https://corp/debian\nSuites: stable\nComponents: main extra\nCheck-Valid-Until: no\n",
        ),
        (
            "t.yaml",
            "ref: a\nrepos:\n- name: debian\n- corp\n- {name: own, url: 'http://own/', suites: s, signed-by: keys.gpg, check-valid-until: false}\n",
        ),
    ]);
    let tree = load_in(&dir, "t.yaml").unwrap();
    assert_eq!(tree.repos[0], Repository::debian("debian"));
    assert_eq!((tree.repos[1].components.len(), tree.repos[1].check_valid_until), (2, false));
    assert_eq!(tree.repos[2].signed_by, Some(dir.path().join("keys.gpg")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_treefile_makes_the_reader_panic(text in any::<String>()) {
        let _ = one(&text);
    }

    #[test]
    fn no_value_of_a_known_key_makes_the_reader_panic(
        key in prop::sample::select(options::KEYS.iter().map(|k| k.name).collect::<Vec<_>>()),
        value in "[-:\\[\\]{}$<>%a-c1=/. \n]{0,30}",
    ) {
        let _ = one(&format!("ref: a\n{key}: {value}\n"));
    }
}
