//! `host`: the machine side.

fn main() {}
