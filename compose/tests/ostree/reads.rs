//! Verbs that read: standard output and exit code.

use crate::world::{World, lines, output};

/// `C1` and `C2` stand for commits, `+` for lines that Debian 12 has no tool for.
const READS: &str = "
    log os/stable
    log --raw os/stable
    log C1
    log none
    show os/stable
    show C1
    show --raw C1
    show -B C1
    show --print-metadata-key=version C1
    show --print-metadata-key=number C1
    show -B --print-metadata-key=number C1
    show --print-metadata-key=none C1
    show --print-detached-metadata-key=key C2
    show --print-detached-metadata-key=key C1
    show --print-related C1
    show none
    show
    ls os/stable
    ls -R os/stable
    ls -C os/stable
    ls -RCX os/stable /usr
    ls -d os/stable /usr
    ls os/stable /usr/bin /version
    ls --nul-filenames-only -R os/stable
    ls os/stable usr/bin/link
    ls os/stable /none
    ls
    cat os/stable /version
    cat os/stable /version usr/bin/link
    cat C1 /absolute
    cat os/stable /usr
    cat os/stable
    diff os/stable
    diff C1 C2
    diff C2 C1
    diff --no-xattrs C1 C2
    diff --stats C1 C2
    diff --fs-diff --stats C1 C2
    diff C2 ./tree
    diff none
    refs
    refs os
    refs o
    refs --list os
    refs --list other
    refs os/stable
    refs -A
    refs rem:
    refs --list rem:
    rev-parse os/stable os/stable^
    rev-parse alias
    rev-parse rem:os/stable
    rev-parse none
    rev-parse -S
    rev-parse
    config get core.mode
    config get core.none
    config get
    config get a b
    config nothing x
    fsck
    fsck --quiet
    fsck --verify-bindings
    fsck --verify-back-refs
    fsck -a
    fsck --add-tombstones
    + refs -r os
    refs --list
    refs -c
    + refs -cr
    refs -A os
    refs -A alias
    rev-parse os/stable^^
    rev-parse C1
    rev-parse -S os/stable
    rev-parse --single --repo=source
    + show --list-metadata-keys C1
    + show --list-detached-metadata-keys os/stable
    + show --list-detached-metadata-keys C1
    + show --print-hex --print-metadata-key=version C1
    show --print-sizes os/stable
    show -B --raw os/stable
    show os/stable^
    show os/stable^^
    log --raw C1
    log rem:os/stable
    ls -X os/stable
    ls -Rd os/stable
    ls -d os/stable /usr /version
    ls -C os/stable /usr/bin/link
    ls --nul-filenames-only -d os/stable /usr
    ls os/stable ../x
    cat none /version
    cat os/stable ../version
    diff C1 other --stats
    diff --owner-uid=5 C1 C2
    diff --owner-uid=0 --owner-gid=0 C2 ./tree
    diff os/stable none
    diff
    config get --group=core mode
    config get --group=none mode
    config get core
    config list
    static-delta list
    static-delta indexes
    static-delta show none
    static-delta none
    remote list
    remote none
    remote show-url none
    summary -v
    summary --view
    summary --raw
    + summary --list-metadata-keys
    prune --static-deltas-only
    sign
    sign other
    gpg-sign other
    gpg-sign none x
    checkout
    export
    summary
    none
    ls --none os/stable
";

#[test]
fn verbs_that_read_print_what_the_stock_tool_prints() {
    let world = World::new();
    let mut wrong = Vec::new();
    for line in lines(READS) {
        let args = world.args(line);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let [stock, ours] = world.both(&args, ["repo", "repo"]);
        let (a, b) = (output(&stock, line), output(&ours, line));
        if a != b || stock.code != ours.code {
            let said = String::from_utf8_lossy(&ours.stderr).into_owned();
            wrong.push(format!("{line}: stock {} {a:?}\nours {} {b:?}\n{said}", stock.code, ours.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
