// The superblock of a static delta.

use store::delta::Superblock;

pub fn seeds() -> Vec<Vec<u8>> {
    super::delta::made(false).into_iter().chain(super::delta::made(true)).collect()
}

pub fn run(data: &[u8]) -> String {
    super::outcome(Superblock::decode(data.to_vec()))
}
