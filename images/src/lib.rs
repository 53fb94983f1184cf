//! Disk images: partitions, LVM, ext4 with verity, ESP; raw and qcow2.
//!
//! ```text
//! crc      the CRCs of disk formats
//! ext4     file systems with fs-verity, written without mounting anything
//! ```

mod crc;
pub mod ext4;
