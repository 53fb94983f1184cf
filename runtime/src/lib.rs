//! What runs on a host: workloads, and the storage they need.
//!
//! ```text
//! storage   the thin pool and the volume below /var/lib/containers
//! ```

pub mod storage;
