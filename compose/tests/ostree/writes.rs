//! Verbs that write: standard output, exit code, and everything that is there afterwards.

use std::fs;

use sys::{Cmd, Output};

use crate::world::{World, everything, lines, output};

/// Command lines that are tried at the same time.
const THREADS: usize = 6;

/// `C1` and `C2` stand for commits, `T` for a time; `&&` is before a second command line, and `+` as in the other
/// table.
const WRITES: &str = "
    prune
    prune --refs-only
    prune --refs-only --depth=0
    prune --refs-only --depth -1
    prune --no-prune --refs-only --depth=0
    prune --keep-younger-than=2023-11-15
    prune --keep-younger-than=2023-11-01
    prune --retain-branch-depth=os/stable=0
    prune --only-branch=os/stable --depth=0
    prune --only-branch=none
    prune --delete-commit=C1
    prune --delete-commit=C2
    prune --delete-commit=C1 --no-prune
    prune --static-deltas-only
    prune --commit-only --refs-only --depth=0
    refs --delete os
    refs --delete other
    refs --delete
    refs --create new other
    refs --create other os/stable
    refs --force --create other os/stable
    refs --create new
    refs -A --create second other
    refs -A --create deep/second other
    refs -A --create second none
    refs --create remote:a/b other
    refs -c --create=org.x.Q:new os/stable
    refs -c --create=org.x.Q:new os/stable && refs -c --create=org.x.Q:new other
    + refs -c --create=org.x.Q:new os/stable && refs -c -r
    refs -c --create=org.x.Q:new os/stable && refs -c
    refs -c --create=org.x.Q:new os/stable && refs -c org.x.Q
    refs -c --create=org.x.Q:new os/stable && refs -c --delete org.x.Q
    refs -c --create=org.x.Q:new os/stable && refs -c --delete org.x.R
    config set core.collection-id org.x.P && refs -c --create=org.x.P:new os/stable
    config set core.collection-id org.x.P && refs -c --delete org.x.P
    config set core.collection-id org.x.P && refs -c
    remote add --collection-id=org.x.R rem http://x && refs -c
    remote add --collection-id=org.x.R rem http://x && refs -c --delete org.x.R
    refs -c --create=new os/stable
    refs -c --create=nodots:new os/stable
    refs -c --create=org.x.Q:../x os/stable
    refs -c --create=org.x.Q:new none
    refs -c --create=org.x.Q:new
    refs -c --delete
    refs -c --delete nodots
    refs -c nodots
    reset os/stable C1
    reset none C1
    reset os/stable
    config set a.b c
    config set --group g.h key value
    config unset core.mode
    config unset core.none
    config set a
    init --mode=archive
    commit -b new T tree
    commit -b new T --tree=dir=tree -s subject -m body
    commit T -b new -s one -s two tree
    commit --orphan T tree
    commit T tree
    commit -b os/stable T tree --skip-if-unchanged
    commit -b new --canonical-permissions T tree
    commit -b new --owner-uid=5 --owner-gid 6 T tree
    commit -b new --no-xattrs T tree
    commit -b new --no-bindings T tree
    commit -b new --bind-ref=z --bind-ref=a T tree
    commit -b new --parent=C1 T tree
    commit -b new --parent=none T tree
    commit -b new --tree=dir=tree --tree=dir=tree/usr T
    commit -b new --tree=ref=C1 --tree=dir=tree/usr T
    commit -b new --base=C1 T tree/usr
    commit -b new --mode-ro-executables T tree
    commit -b new --add-metadata=a=[1,2] T tree
    commit -b new --add-metadata-string=a=b T tree
    commit -b new --add-metadata-string=ab T tree
    commit -b new --add-detached-metadata-string=a=b T tree
    commit -b new --statoverride=modes T tree
    commit -b new --skip-list=skip T tree
    commit -b os/stable --keep-metadata=none T tree
    commit -b new --fsync=no T tree
    commit -b new T none
    commit -b new --timestamp=never tree
    commit -b new --timestamp=0 tree
    commit -b new --timestamp=@1700000000 tree
    commit -b new --timestamp=1700000000 tree
    commit -b new --timestamp=2023-11-16 tree
    commit -b new --timestamp=2023-11-16T01:02:03+01:00 tree
    commit -b new T --tree=tar=whole.tar
    commit -b new T --tree=tar=whole.tar --canonical-permissions
    commit -b new T --tree=tar=whole.tar --no-xattrs --owner-uid=0
    commit -b new T --tree=tar=whole.tar --statoverride=modes
    commit -b new T --tree=tar=whole.tar --skip-list=skip
    commit -b new T --tree=tar=deep.tar
    commit -b new T --tree=tar=deep.tar --tar-autocreate-parents
    commit -b new T --tree=tar=deep.tar --tar-autocreate-parents --owner-uid=7 --owner-gid=8
    commit -b new T --tree=tar=dots.tar --tar-autocreate-parents
    commit -b new T --tree=tar=none.tar
    commit -b new T --tree=tar=dots.tar --tar-autocreate-parents --tar-pathname-filter=^usr,opt
    commit -b new T --tree=tar=dots.tar --tar-autocreate-parents --tar-pathname-filter=^usr/(b.n)/(.*),opt/\\2/\\1
    commit -b new T --tree=tar=whole.tar --tar-pathname-filter=^new,old
    commit -b new T --tree=tar=whole.tar --tar-pathname-filter=new
    commit -b new T --tree=tar=whole.tar --tar-pathname-filter=(,x
    commit -b new T --tree=ref=none
    commit -b new T --tree=none=x
    commit -b new T --tree=dir=tree/version
    commit -b new T --base=none --tree=dir=other-tree
    commit -b os/stable T --base=os/stable --tree=dir=tree --skip-if-unchanged
    commit -b os/stable T --tree=dir=other-tree --skip-if-unchanged
    commit -b new T --statoverride=other-modes tree
    commit -b new T --statoverride=none tree
    commit -b new T --skip-list=skip-none tree
    commit -b new T --skip-list=none tree
    commit -b new T --owner-uid=-1 --owner-gid=-1 tree
    commit -b new T --owner-uid=5 --canonical-permissions tree
    commit -b new T --owner-uid=0 --canonical-permissions tree
    commit -b new T --add-metadata-string=z=1 --add-metadata-string=a=2 tree
    commit -b new T --add-metadata=z=3 --add-metadata-string=y=2 --add-metadata=b=[1] tree
    commit -b new T --add-metadata-string=a=b=c tree
    commit -b new T --add-detached-metadata-string=a=b --add-detached-metadata-string=c=d tree
    commit -b os/stable T --keep-metadata=version tree
    commit -b new T --parent=C1 --keep-metadata=version tree
    commit -b new T --keep-metadata=version tree
    commit -b new T --parent=nope tree
    commit --orphan T --parent=C1 tree
    commit --orphan T -b x tree
    commit -b new T --bind-ref=b --bind-ref=b tree
    commit -b new T --no-bindings --bind-ref=b tree
    commit -b new T --fsync=maybe tree
    commit -b new T --disable-fsync tree
    commit -b new T --consume tree
    commit -b new T --consume --tree=dir=tree
    commit -b new T --consume --tree=tar=whole.tar
    commit -b new T --link-checkout-speedup tree
    commit -b new T -I tree
    commit -b new T --generate-sizes tree
    commit -b new T --bootable tree
    commit -b new T -F body tree
    commit -b new T -s x -F body tree
    commit -b new T -F none tree
    + commit -b new T --selinux-labeling-epoch=0 tree
    commit -b ../x T tree
    commit -b a:b T tree
    commit -b a:b/c T tree
    commit -b new T --gpg-sign=nobody tree
    checkout -U os/stable out && commit -b new T -I out
    checkout -U os/stable out && commit -b new T --link-checkout-speedup out
    checkout -H os/stable out
    checkout -UCH os/stable out
    checkout -Uz os/stable out
    checkout -UHz os/stable out
    checkout -U --fsync=yes os/stable out
    checkout -U --fsync=maybe os/stable out
    checkout -U --disable-cache os/stable out
    checkout -U --union os/stable out && checkout -U --union C1 out
    checkout -U os/stable out && checkout -U --union-add C1 out
    checkout -UH os/stable out && checkout -UH --union-identical C1 out
    checkout -UH os/stable out && checkout -UH --union-identical os/stable out
    checkout -UH os/stable out && checkout -UH --union-identical --subpath=/usr os/stable out
    checkout -U os/stable out && checkout -U --union --whiteouts white out
    checkout -U os/stable out && checkout -U --union-add --whiteouts white out
    checkout -U --whiteouts white out
    checkout -U white out
    checkout -U --process-passthrough-whiteouts white out
    checkout -U --from-file=pairs --union out
    checkout -U --from-file=pairs out
    checkout -U --from-file=none out
    checkout -U --from-file=skip out
    checkout -U --subpath=usr os/stable out
    checkout -U --subpath=/usr/bin/link os/stable out
    checkout -U --subpath=/ os/stable out
    checkout -U --subpath=.. os/stable out
    checkout -U --allow-noent --subpath=/usr os/stable out
    checkout -U --allow-noent none out
    checkout -U --skip-list=none os/stable out
    checkout -U --skip-list=skip os/stable out
    checkout -U os/stable
    checkout -U os/stable a/b
    checkout -U
    checkout -U --union --union-identical os/stable out
    refs --delete other && prune
    refs --delete other && prune --refs-only
    refs --delete alias && refs --delete os/stable
    refs --create=os other
    refs --create=bad..name other
    refs --create=os/stable/deep other
    refs --force --create=alias C1
    refs -A --create=alias other
    refs -A --force --create=alias other
    config set core.x y && config get core.x
    config set --group=a.b c.d e
    config unset --group=core mode
    reset os/stable os/stable^
    reset rem:os/stable C1
    remote add a http://x --set=gpg-verify=false --contenturl=http://y --collection-id=org.x.Y b1 b2
    remote add a http://x --no-gpg-verify --no-sign-verify
    remote add a http://x && remote add a http://y
    remote add a http://x && remote add --if-not-exists a http://y
    remote add a http://x && remote add --force a http://y
    + remote add a http://x && remote list -u && remote show-url a && remote delete a && remote list
    remote add a
    remote add a metalink=http://x && remote show-url a
    remote add a mirrorlist=http://x
    remote add a/b http://x
    remote add --custom-backend=b a
    remote add --custom-backend=b a http://x branch --contenturl=http://y --set=k=v
    remote add --custom-backend=b a && remote show-url a
    remote add --custom-backend=b a && pull a x
    remote add --sysroot=root a http://x
    remote add --sysroot=root a http://x && remote delete --sysroot=root a
    remote add --sysroot=none a http://x
    remote add a http://x && remote delete --sysroot=root a
    remote delete a
    remote delete --if-exists a
    pull-local --depth=1 source os/stable
    pull-local --commit-metadata-only source os/stable
    pull-local --untrusted source os/stable
    static-delta reindex && static-delta indexes
    static-delta delete none
    static-delta generate none
    static-delta apply-offline none
    + summary -u && summary --list-metadata-keys
    + summary -u && summary --print-metadata-key=ostree.summary.mode
    + summary -u -m a=1 && summary --print-metadata-key=a
    summary -u --add-metadata=a=x
    checkout -U os/stable out
    checkout -U C1 out
    checkout -UC os/stable out
    checkout -U --subpath=/usr os/stable out
    checkout -U --subpath=/version os/stable out
    checkout -U --subpath=/none os/stable out
    checkout -U --allow-noent --subpath=/none os/stable out
    checkout -U os/stable tree
    checkout -U none out
    checkout -UM os/stable out
    checkout -UH os/stable out
    checkout -U --union os/stable other-tree
    checkout -U --union-add os/stable other-tree
    checkout -U --union-identical os/stable other-tree
    checkout -UH --union-identical os/stable other-tree
    checkout -U --skip-list=skip-out os/stable out
    checkout -U --union --union-add os/stable other-tree
    pull-local source
    pull-local source other
    pull-local --remote=r source os/stable
    pull-local --depth=-1 source os/stable
    pull-local source none
    pull-local --require-static-deltas source os/stable
    pull-local --require-static-deltas source none
    pull-local --require-static-deltas --disable-static-deltas source os/stable
    + pull-local --disable-static-deltas source os/stable
    pull-local none
";

#[test]
fn verbs_that_write_leave_what_the_stock_tool_leaves() {
    let world = World::new();
    let copy = |name: &str| {
        let target = world.path(name);
        let _ = fs::remove_dir_all(&target);
        fs::create_dir(&target).unwrap();
        let parts = fs::read_dir(world.path("")).unwrap().map(|part| part.unwrap().path());
        let parts = parts.filter(|part| !part.file_name().unwrap().to_string_lossy().starts_with("place"));
        Cmd::new("cp").arg("-a").args(parts).arg(target).run().unwrap();
    };
    let all: Vec<&str> = lines(WRITES).collect();
    // Most of the time is waiting for the disk: several at a time, each at a place of its own.
    let compare = |first: usize| {
        let mut wrong = Vec::new();
        for line in all.iter().copied().skip(first).step_by(THREADS) {
            // Both work at the same place, one after the other: what they say of paths is the same.
            let run = |cmd: Cmd| {
                copy(&format!("place{first}"));
                let place = world.path(&format!("place{first}"));
                let one = |line: &str| {
                    let cmd = cmd.clone().arg("--repo=repo").args(world.args(line)).dir(&place);
                    cmd.output().unwrap()
                };
                let mut output: Option<Output> = None;
                for line in line.split(" && ") {
                    let before = output.map_or(Vec::new(), |output| output.stdout);
                    let now = one(line);
                    output = Some(Output { stdout: [before, now.stdout.clone()].concat(), ..now });
                }
                let found = everything(&place);
                (output.unwrap(), found)
            };
            let (stock, theirs) = run(world.cmd("ostree"));
            let (ours, mine) = run(world.cmd(env!("CARGO_BIN_EXE_slipway")).arg("repo"));
            let (a, b) = (output(&stock, line), output(&ours, line));
            let said = String::from_utf8_lossy(&ours.stderr).into_owned();
            if a != b || stock.code != ours.code {
                wrong.push(format!("{line}: stock {} {a:?}\nours {} {b:?}\n{said}", stock.code, ours.code));
            }
            // What fails may leave objects that nothing needs and half of a checkout; refs and configuration it may not touch.
            let kept = |name: &str| name.starts_with("repo/refs") || name == "repo/config";
            let counts = |name: &str| stock.code == 0 || kept(name);
            let names: std::collections::BTreeSet<&String> = theirs.keys().chain(mine.keys()).collect();
            for name in names.into_iter().filter(|name| counts(name) && theirs.get(*name) != mine.get(*name)) {
                wrong.push(format!("{line}: {name}: stock {:?}, ours {:?}\n{said}", theirs.get(name), mine.get(name)));
            }
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let compare = &compare;
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(move || compare(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
