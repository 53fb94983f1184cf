//! Every option of every verb of `ostree` 2025.2 is taken, or refused by name; none is ignored because nobody knew it.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::World;

/// Verb, words that it needs, and its options: with `=` where a value follows, in brackets what is left out.
const OPTIONS: &str = "
    cat x y:
    checkout x y: -U --user-mode --disable-cache --subpath= --union --union-add --union-identical --whiteouts
        --process-passthrough-whiteouts --allow-noent --from-stdin --from-file= --fsync=1 -H --require-hardlinks
        -C --force-copy -z --force-copy-zerosized -M --bareuseronly-dirs --skip-list= [--selinux-policy=]
        [--selinux-prefix=] --composefs --composefs-noverity
    checksum none: --ignore-xattrs
    commit none: --parent= -s= --subject= -m= --body= -F= --body-file= -e --editor -b= --branch= --orphan --no-bindings
        --bind-ref= --base= --tree=dir=none --add-metadata-string=a=b --add-metadata=a=1 --keep-metadata=
        --add-detached-metadata-string=a=b --owner-uid=1 --owner-gid=1 --canonical-permissions --bootable
        --mode-ro-executables --no-xattrs [--selinux-policy=] [-P] [--selinux-policy-from-base]
        [--selinux-labeling-epoch=1] --link-checkout-speedup -I --devino-canonical --tar-autocreate-parents
        --tar-pathname-filter=a,b --skip-if-unchanged --statoverride= --skip-list= --consume --table-output
        --gpg-sign= --gpg-homedir= --sign= --sign-from-file= --sign-type= --generate-sizes
        --generate-composefs-metadata --fsync=1 --disable-fsync --timestamp=
    config get a.b: --group=
    create-usb x y: --disable-fsync --destination-repo= --commit=
    diff x y: --stats --fs-diff --no-xattrs --owner-uid=1 --owner-gid=1
    export x: --no-xattrs --subpath= --prefix= -o= --output=
    find-remotes a.b y: --cache-dir= --disable-fsync --finders=config --pull --mirror
    fsck: --add-tombstones -q --quiet -a --all --delete --verify-bindings --verify-back-refs
    gpg-sign x y: -d --delete --gpg-homedir=
    init: --mode=archive --collection-id=a.b
    log x: --raw
    ls x: -d --dironly -R --recursive -C --checksum -X --xattrs --nul-filenames-only
    prune: --no-prune --refs-only --depth=1 --delete-commit= --keep-younger-than= --static-deltas-only
        --retain-branch-depth=a=1 --only-branch= --commit-only
    pull x y: --commit-metadata-only --cache-dir= --disable-fsync --per-object-fsync --disable-static-deltas
        --require-static-deltas --disable-retry-on-network-errors --mirror --subpath= --untrusted --http-trusted
        --bareuseronly-files --dry-run --depth=1 --url= --http-header=a=b --update-frequency=1 --network-retries=1
        [--low-speed-limit-bytes=1] --low-speed-time-seconds=1 --max-outstanding-fetcher-requests=1 -L=
        --localcache-repo= -T --timestamp-check --timestamp-check-from-rev= --disable-verify-bindings
        --append-user-agent=
    pull-local x y: --commit-metadata-only --remote= --disable-fsync --per-object-fsync --untrusted
        --bareuseronly-files --require-static-deltas --disable-static-deltas --gpg-verify --gpg-verify-summary
        --disable-verify-bindings --depth=1
    refs x: --delete --list -r --revision -A --alias --create= -c --collections --force
    reset x y:
    rev-parse x: -S --single
    show x: --print-related --print-variant-type= --list-metadata-keys --print-metadata-key= --print-hex
        --list-detached-metadata-keys --print-detached-metadata-key= --print-sizes --raw -B --no-byteswap
        --gpg-homedir= --gpg-verify-remote=
    sign x y: -d --delete --verify -s= --sign-type= --keys-file= --keys-dir=
    summary: -u --update -v --view --raw --list-metadata-keys --print-metadata-key= --gpg-sign= --gpg-homedir= --sign=
        --sign-type= -m=a=1 --add-metadata=a=1
    static-delta list:
    static-delta show x:
    static-delta delete x:
    static-delta generate x: --from= --empty --inline --to= --disable-bsdiff -n --if-not-exists --set-endianness=l
        --swap-endianness --min-fallback-size=1 --max-bsdiff-size=1 --max-chunk-size=1 --filename= --sign=
        --sign-type=ed25519 --keys-file=
    static-delta apply-offline x: --sign-type=ed25519 --keys-file= --keys-dir=
    static-delta verify x: --sign-type=ed25519 --keys-file= --keys-dir=
    static-delta indexes:
    static-delta reindex: --to=C1
    remote add x y: --set=a=b --no-gpg-verify --no-sign-verify --sign-verify=ed25519=inline:x --if-not-exists --force
        --gpg-import= --custom-backend= --contenturl= --collection-id= --sysroot=
    remote delete x: --if-exists --sysroot=
    remote show-url x:
    remote list: -u --show-urls
    remote gpg-import x: -k= --keyring= --stdin
    remote gpg-list-keys x:
    remote add-cookie a b c d e:
    remote delete-cookie a b c d:
    remote list-cookies a:
    remote refs x: -r --revision --cache-dir=
    remote summary x: --list-metadata-keys --print-metadata-key= --cache-dir= --raw
    [trivial-httpd] x:
    [admin] status:
";

/// Options that the stock tool has not.
const OURS: &str = "
    checkout:
    commit: --stat-cache --verity
    diff: --packages --json
    fsck: --json
    log: --json
    ls: --json
    prune: --keep --keep-tagged --json
    pull: --keyring --allow-unsigned --allow-downgrade
    refs: --json
    show: --verify --json
    static-delta list: --json
    static-delta show: --json
    static-delta generate: --json
    static-delta indexes: --json
";

/// `verb words: options` of a table; a line that begins deeper goes on with the one before.
fn table(text: &str) -> Vec<(String, Vec<String>)> {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match (line.starts_with("     "), rows.last_mut(), line.trim().split_once(':')) {
            (true, Some((_, options)), _) => options.extend(words(line)),
            (_, _, Some((verb, options))) => rows.push((verb.to_owned(), words(options))),
            _ => panic!("{line}"),
        }
    }
    rows
}

fn bare(word: &str) -> &str {
    word.trim_matches(['[', ']'])
}

#[test]
fn every_option_is_taken_or_refused_by_name() {
    let world = World::new();
    let mut wrong = Vec::new();
    for (verb, options) in table(OPTIONS) {
        let refused_verb = verb.starts_with('[');
        let verb = verb.replace(['[', ']'], "");
        let words: Vec<&str> = verb.split(' ').collect();
        for option in options.iter().map(String::as_str).chain(refused_verb.then_some("[]")) {
            let refused = refused_verb || option.starts_with('[');
            let (name, value) = match bare(option).split_once('=') {
                Some((name, value)) => (name, Some(if value.is_empty() { "none" } else { value })),
                None => (bare(option), None),
            };
            let given: Vec<String> = match value {
                Some("C1") => vec![format!("{name}={}", world.commits[0])],
                Some(value) if name.starts_with("--") => vec![format!("{name}={value}")],
                Some(value) => vec![name.to_owned(), value.to_owned()],
                None => Some(name.to_owned()).filter(|name| !name.is_empty()).into_iter().collect(),
            };
            let ours = world.cmd(env!("CARGO_BIN_EXE_slipway")).args(["repo", "--repo=source"]).args(&words);
            let output = ours.args(&given).env("EDITOR", "false").env_remove("VISUAL").output().unwrap();
            let said = output.errors();
            let unknown = ["unexpected argument", "invalid value", "a value is required", "unexpected value"];
            let by_name = output.code == 1 && said.contains("left out");
            let fine = match refused {
                true => by_name && (refused_verb || said.contains(name) || name.len() == 2),
                false => !said.contains("left out") && !unknown.iter().any(|text| said.contains(text)),
            };
            if !fine {
                wrong.push(format!("{verb} {option}: {} {said}", output.code));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_option_is_there_that_nobody_wrote_down() {
    let world = World::new();
    let ours: BTreeMap<String, Vec<String>> = table(OURS).into_iter().collect();
    for (verb, options) in table(OPTIONS).into_iter().filter(|(verb, _)| !verb.starts_with('[')) {
        let known: BTreeSet<&str> = options.iter().map(|option| bare(option).split('=').next().unwrap()).collect();
        let short = |option: &&str| option.len() == 2;
        let (shorts, longs): (Vec<&str>, Vec<&str>) = known.iter().copied().partition(short);
        let words: Vec<&str> = verb.split(' ').collect();
        let verb_alone =
            if ["static-delta", "remote"].contains(&words[0]) { words[..2].join(" ") } else { words[0].to_owned() };
        let help = world.cmd(env!("CARGO_BIN_EXE_slipway")).arg("repo").args(verb_alone.split(' ')).arg("--help");
        let help = help.run().unwrap().text();
        let mut shown = 0;
        // Deeper than this are the words about them.
        for line in help.lines().filter(|line| line.starts_with("  -") || line.starts_with("      --")).map(str::trim) {
            let names = line.split("  ").next().unwrap_or_default();
            let names = names.split(' ').map(|word| word.trim_end_matches(',')).filter(|word| word.starts_with('-'));
            for name in names.take(2) {
                let added = ours.get(&verb_alone).is_some_and(|list| list.iter().any(|option| option == name));
                let everywhere = ["-h", "--help", "--repo", "-v", "--verbose"].contains(&name);
                let there = shorts.contains(&name) || longs.contains(&name);
                assert!(there || added || everywhere, "{verb_alone}: {name} is in no table");
                shown += 1;
            }
        }
        assert!(shown > 1, "{verb_alone}: {help}");
    }
}
