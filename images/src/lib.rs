//! Disk images: partitions, LVM, ext4 with verity, ESP; raw and qcow2.
//!
//! ```text
//! crc      the CRCs of disk formats
//! ids      identifiers that follow from the commit
//! gpt      partition table
//! lvm      physical volume, volume group, logical volumes
//! ext4     file systems with fs-verity, written without mounting anything
//! fat      FAT32 for the EFI system partition
//! ```

mod crc;
pub mod ext4;
pub mod fat;
pub mod gpt;
mod ids;
pub mod lvm;
