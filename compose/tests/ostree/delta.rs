//! Static deltas: what one tool makes, the other lists, shows and applies in the same words.

use crate::world::World;

#[test]
fn deltas_of_either_tool_are_shown_alike_and_applied_by_both() {
    let world = World::new();
    let ok = |which: usize, line: &str| {
        let output = world.tool(which).args(world.args(line)).output().unwrap();
        assert_eq!(output.code, 0, "{which} {line}: {}", output.errors());
        output.text()
    };
    let same = |line: &str| {
        let [stock, ours] = [0, 1].map(|which| world.tool(which).args(world.args(line)).output().unwrap());
        let text = |output: &sys::Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((text(&stock), stock.code), (text(&ours), ours.code), "{line}: {}", ours.errors());
        text(&stock)
    };
    for maker in [0, 1] {
        let repo = format!("--repo=deltas{maker}");
        ok(maker, &format!("{repo} init --mode=archive"));
        ok(maker, &format!("{repo} pull-local --depth=-1 source os/stable"));
        assert_eq!(same(&format!("{repo} static-delta list")), "(No static deltas)\n");
        assert_eq!(same(&format!("{repo} static-delta indexes")), "(No static deltas indexes)\n");
        let said = ok(maker, &format!("{repo} static-delta generate --from=C1 --to=C2"));
        let [from, to] = &world.commits;
        assert_eq!(said, format!("Generating static delta:\n  From: {from}\n  To:   {to}"));
        ok(maker, &format!("{repo} static-delta generate --empty os/stable --set-endianness=B"));
        ok(maker, &format!("{repo} static-delta generate -n os/stable"));
        ok(maker, &format!("{repo} static-delta generate --inline --filename=file{maker} os/stable"));
        ok(maker, &format!("{repo} static-delta reindex"));
        let list = same(&format!("{repo} static-delta list"));
        assert_eq!(list.lines().count(), 2, "{list}");
        assert_eq!(same(&format!("{repo} static-delta indexes")).lines().count(), 1);
        assert!(same(&format!("{repo} static-delta show C1-C2")).contains("Number of parts: "));
        same(&format!("{repo} static-delta show C2"));
        same(&format!("{repo} static-delta show C1"));
        for applier in [0, 1] {
            let client = format!("--repo=client{maker}{applier}");
            // The stock tool falls over a patch where the old file is compressed.
            ok(applier, &format!("{client} init --mode=bare-user"));
            let line = format!("{client} static-delta apply-offline file{maker}");
            assert_eq!(world.tool(applier).args(world.args(&line)).output().unwrap().code, 1, "without the old commit");
            ok(applier, &format!("{client} pull-local source C1"));
            ok(applier, &line);
            ok(1 - applier, &format!("{client} fsck"));
            same(&format!("{client} ls -RCX C2"));
        }
        // What has the old commit here takes the new one by a delta, and by nothing else.
        for puller in [0, 1] {
            let client = format!("--repo=by-delta{maker}{puller}");
            ok(puller, &format!("{client} init --mode=bare-user"));
            ok(0, &format!("{repo} summary -u"));
            ok(puller, &format!("{client} pull-local --require-static-deltas deltas{maker} os/stable"));
            ok(1 - puller, &format!("{client} fsck"));
            assert_eq!(ok(puller, &format!("{client} rev-parse os/stable")), world.commits[1]);
        }
        ok(1 - maker, &format!("{repo} static-delta delete C1-C2"));
        ok(1 - maker, &format!("{repo} static-delta delete C2"));
        assert_eq!(same(&format!("{repo} static-delta list")), "(No static deltas)\n");
    }
}
