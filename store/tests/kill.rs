//! Kill -9 at random moments of a commit, a pull, an update, a static delta and a prune, a few times; `heavy_kill` does it hundreds of times.

mod killed;

const ROUNDS: u32 = 12;

#[test]
fn a_killed_commit_leaves_nothing_half_done() {
    killed::commits("a_killed_commit_leaves_nothing_half_done", ROUNDS);
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    killed::pulls("a_killed_pull_goes_on_where_it_was", ROUNDS);
}

#[test]
fn a_killed_update_goes_on_where_it_was() {
    killed::updates("a_killed_update_goes_on_where_it_was", ROUNDS);
}

#[test]
fn a_killed_delta_goes_on_where_it_was() {
    killed::deltas("a_killed_delta_goes_on_where_it_was", ROUNDS);
}

#[test]
fn a_killed_prune_leaves_no_commit_without_its_objects() {
    killed::prunes("a_killed_prune_leaves_no_commit_without_its_objects", ROUNDS);
}
