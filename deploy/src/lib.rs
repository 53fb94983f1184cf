//! The machine side.
