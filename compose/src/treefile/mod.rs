//! The treefile: what a tree shall be.
