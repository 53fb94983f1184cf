//! Kill -9 at random moments of a commit, a pull, an update, a static delta and a prune, hundreds of times.

mod killed;

const ROUNDS: u32 = 200;

fn heavy(test: &str) -> bool {
    let heavy = std::env::var_os("SLIPWAY_HEAVY").is_some();
    if !heavy {
        eprintln!("{test} DID NOT RUN: set SLIPWAY_HEAVY=1 to kill {ROUNDS} times");
    }
    heavy
}

#[test]
fn hundreds_of_killed_commits() {
    if heavy("hundreds_of_killed_commits") {
        killed::commits("hundreds_of_killed_commits", ROUNDS);
    }
}

#[test]
fn hundreds_of_killed_pulls() {
    if heavy("hundreds_of_killed_pulls") {
        killed::pulls("hundreds_of_killed_pulls", ROUNDS);
    }
}

#[test]
fn hundreds_of_killed_updates() {
    if heavy("hundreds_of_killed_updates") {
        killed::updates("hundreds_of_killed_updates", ROUNDS);
    }
}

#[test]
fn hundreds_of_killed_deltas() {
    if heavy("hundreds_of_killed_deltas") {
        killed::deltas("hundreds_of_killed_deltas", ROUNDS);
    }
}

#[test]
fn hundreds_of_killed_prunes() {
    if heavy("hundreds_of_killed_prunes") {
        killed::prunes("hundreds_of_killed_prunes", ROUNDS);
    }
}
