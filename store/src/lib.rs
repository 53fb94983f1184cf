//! OSTree repositories: objects, trees, commits, refs, signatures, pull; composefs images.
//!
//! ```text
//! verity      fs-verity digests, Merkle trees, the two ioctls            always
//! ```

pub mod composefs;
pub mod verity;
