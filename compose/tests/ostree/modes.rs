//! Repositories of every mode: what one tool writes the other reads, and finds in order.

use std::fs;

use crate::world::World;

const MODES: [&str; 4] = ["bare", "bare-user", "bare-user-only", "archive"];

#[test]
fn commits_of_both_tools_are_equal_in_every_mode() {
    let world = World::new();
    let time = "--timestamp=2023-11-16T22:13:20Z";
    fs::write(world.path("tree/secret"), "s").unwrap();
    fs::set_permissions(world.path("tree/secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::set_permissions(world.path("tree/new"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for mode in MODES {
        let made = [0, 1].map(|which| {
            let repo = format!("--repo={mode}{which}");
            let run = |args: &[&str]| world.tool(which).arg(&repo).args(args).run().unwrap().text();
            run(&["init", &format!("--mode={mode}")]);
            let plain = run(&["commit", "-b", "plain", "--canonical-permissions", time, "tree"]);
            let whole = run(&["commit", "-b", "whole", time, "tree"]);
            let owned = run(&["commit", "-b", "owned", "--owner-uid=0", "--owner-gid=0", time, "tree"]);
            [plain, whole, owned]
        });
        assert_eq!(made[0], made[1], "{mode}");
        let config = |which: usize| fs::read_to_string(world.path(&format!("{mode}{which}/config"))).unwrap();
        assert_eq!(config(0), config(1));
        for (repo, which) in [(0, 1), (1, 0), (1, 1)] {
            let said = world.tool(which).args([&format!("--repo={mode}{repo}"), "fsck"]).output().unwrap();
            assert_eq!(said.code, 0, "{mode}: {which} looks at what {repo} made: {}", said.errors());
            for args in [&["ls", "-RCX", "whole"][..], &["show", "plain"]] {
                let [a, b] =
                    [0, 1].map(|by| world.tool(by).arg(format!("--repo={mode}{repo}")).args(args).run().unwrap());
                assert_eq!(a.text(), b.text(), "{mode} {args:?}");
            }
        }
    }
    // From every mode to every mode, and back out again.
    for from in MODES {
        for to in MODES {
            for which in [0, 1] {
                let target = format!("--repo={from}-{to}-{which}");
                world.tool(1 - which).args([&target, "init", &format!("--mode={to}")]).run().unwrap();
                let pull = world.tool(which).args([&target, "pull-local", &format!("{from}{which}"), "plain"]);
                pull.run().unwrap_or_else(|error| panic!("{from} to {to} by {which}: {error}"));
                let look = world.tool(1 - which).args([&target, "fsck"]).output().unwrap();
                assert_eq!(look.code, 0, "{from} to {to} by {which}: {}", look.errors());
                let out = format!("out-{from}-{to}-{which}");
                world.tool(which).args([&target, "checkout", "-U", "plain", &out]).run().unwrap();
                assert_eq!(fs::read(world.path(&out).join("version")).unwrap(), b"2\n");
            }
        }
    }
}

#[test]
fn what_such_a_repository_cannot_keep_is_refused() {
    let world = World::new();
    let ours = |line: &str| world.tool(1).args(line.split(' ')).output().unwrap();
    assert_eq!(ours("--repo=only init --mode=bare-user-only").code, 0);
    fs::write(world.path("other-tree/open"), "").unwrap();
    fs::set_permissions(world.path("other-tree/open"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    for (name, option, tree, why) in [
        ("setuid", "--no-xattrs", "tree", "mode 4755"),
        ("open", "--no-xattrs", "other-tree", "mode 0666"),
        ("owned", "--owner-uid=5", "other-tree", "the owner 5:0"),
    ] {
        let time = "--timestamp=2023-11-16T22:13:20Z";
        assert_eq!(ours(&format!("--repo=source commit -b {name} {option} {time} {tree}")).code, 0);
        let pull = ours(&format!("--repo=only pull-local source {name}"));
        assert!(pull.code == 1 && pull.errors().contains(why), "{name}: {}", pull.errors());
        assert_eq!(ours(&format!("--repo=only rev-parse {name}")).code, 1, "{name}");
    }
    assert_eq!(ours("--repo=only fsck").code, 0);
}
