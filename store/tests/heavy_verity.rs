//! Our fs-verity digests against those of fsverity-utils (Debian: fsverity). Runs only with `SLIPWAY_HEAVY=1`.

use store::verity;
use sys::Cmd;

#[test]
fn digests_equal_those_of_fsverity_utils() {
    if std::env::var_os("SLIPWAY_HEAVY").is_none() {
        eprintln!("heavy_verity DID NOT RUN: set SLIPWAY_HEAVY=1 to compare digests with fsverity's");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let block = 4096;
    // Around each size at which a block, a level, or the tree grows.
    let edges = [0, 1, block, 2 * block, 128 * block, 129 * block, 128 * 128 * block];
    for size in edges.iter().flat_map(|e: &usize| [e.saturating_sub(1), *e, e + 1]) {
        let content: Vec<u8> = (0..size).map(|i| ((i as u64).wrapping_mul(0x9E37_79B9) >> 20) as u8).collect();
        let path = dir.path().join("file");
        std::fs::write(&path, &content).unwrap();
        let theirs = Cmd::new("fsverity").args(["digest", "--compact"]).arg(&path).run().unwrap().text();
        assert_eq!(hex::encode(verity::digest(&content)), theirs, "{size} bytes");
        assert_eq!(verity::digest_of(content.as_slice()).unwrap(), verity::merkle(&content).digest);
    }
}
