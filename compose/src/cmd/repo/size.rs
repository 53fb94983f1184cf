//! Sizes as the stock tool prints them.

pub use sys::size as format;
