//! LVM2: a physical volume, a volume group and linear volumes, written straight into the disk.
//!
//! ```text
//! 512     label "LABELONE" → identifier of the volume, its size, where data and metadata lie
//! 4096    metadata header → place and checksum of the text
//! 4608    the text: the volume group, its volumes, their extents
//! 1 MiB   extent 0, extent 1, …  (4 MiB each)
//! ```

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::crc::crc32_raw;
use crate::ids;

/// Size of an extent.
pub const EXTENT: u64 = 4 << 20;
/// Where extents begin in the physical volume.
pub const DATA: u64 = 1 << 20;
const SECTOR: u64 = 512;
const METADATA: u64 = 4096;
const METADATA_LEN: u64 = DATA - METADATA;
const CRC_SEED: u32 = 0xF597_A6CF;

/// A volume group on one physical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a str,
    /// Volumes with their sizes in extents, in the order of their places.
    pub volumes: &'a [(&'a str, u64)],
    /// What all identifiers follow from.
    pub seed: &'a [u8],
    /// When it was made, in seconds since 1970.
    pub time: u64,
}

/// Extents a physical volume of `len` bytes has.
pub fn extents(len: u64) -> u64 {
    len.saturating_sub(DATA) / EXTENT
}

/// Where volume number `index` begins in the physical volume.
pub fn volume_offset(group: &Group<'_>, index: usize) -> u64 {
    DATA + group.volumes[..index].iter().map(|(_, extents)| extents * EXTENT).sum::<u64>()
}

/// Writes label and metadata to the physical volume of `len` bytes at `offset` of the disk.
pub fn write(disk: &File, offset: u64, len: u64, group: &Group<'_>) -> io::Result<()> {
    let used: u64 = group.volumes.iter().map(|(_, extents)| extents).sum();
    if used > extents(len) {
        return Err(io::Error::other(format!("{used} extents do not fit into a volume group of {}", extents(len))));
    }
    let text = text(len, group);
    disk.write_all_at(&label(len, group), offset + SECTOR)?;
    disk.write_all_at(&header(&text), offset + METADATA)?;
    disk.write_all_at(&text, offset + METADATA + SECTOR)
}

fn label(len: u64, group: &Group<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    body.extend_from_slice(&32u32.to_le_bytes()); // where the physical volume's header begins
    body.extend_from_slice(b"LVM2 001");
    body.extend_from_slice(ids::lvm(group.seed, "pv").as_bytes());
    let numbers = [
        len, //
        DATA,
        0,
        0,
        0, // data areas: one to the end of the disk; end of list
        METADATA,
        METADATA_LEN,
        0,
        0, // metadata areas; end of list
    ];
    numbers.iter().for_each(|n| body.extend_from_slice(&n.to_le_bytes()));
    // Extension header: version 2, "in use"; no boot loader area.
    body.extend_from_slice(&2u32.to_le_bytes());
    body.extend_from_slice(&1u32.to_le_bytes());
    body.resize(512 - 20, 0);
    let mut sector = Vec::with_capacity(512);
    sector.extend_from_slice(b"LABELONE");
    sector.extend_from_slice(&1u64.to_le_bytes());
    sector.extend_from_slice(&crc32_raw(CRC_SEED, &body).to_le_bytes());
    sector.extend_from_slice(&body);
    sector
}

fn header(text: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    body.extend_from_slice(b" LVM2 x[5A%r0N*>");
    body.extend_from_slice(&1u32.to_le_bytes());
    for number in [METADATA, METADATA_LEN, SECTOR, text.len() as u64] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&crc32_raw(CRC_SEED, text).to_le_bytes());
    body.resize(508, 0);
    let mut sector = crc32_raw(CRC_SEED, &body).to_le_bytes().to_vec();
    sector.extend_from_slice(&body);
    sector
}

/// An identifier the way the text has it: `6-4-4-4-4-4-6`.
fn dashed(id: &str) -> String {
    let mut out = String::with_capacity(38);
    let mut at = 0;
    for len in [6, 4, 4, 4, 4, 4, 6] {
        if at > 0 {
            out.push('-');
        }
        out.push_str(&id[at..at + len]);
        at += len;
    }
    out
}

fn text(len: u64, group: &Group<'_>) -> Vec<u8> {
    let id = |purpose: &str| dashed(&ids::lvm(group.seed, purpose));
    let time = group.time;
    let mut volumes = String::new();
    let mut extent = 0;
    for (name, count) in group.volumes {
        let _ = write!(
            volumes,
            "\n\t\t{name} {{\n\t\t\tid = \"{}\"\n\t\t\tstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\n\t\t\tflags = []\n\
             \t\t\tcreation_time = {time}\n\t\t\tcreation_host = \"slipway\"\n\t\t\tsegment_count = 1\n\n\t\t\tsegment1 {{\n\
             \t\t\t\tstart_extent = 0\n\t\t\t\textent_count = {count}\n\n\t\t\t\ttype = \"striped\"\n\
             \t\t\t\tstripe_count = 1\n\n\t\t\t\tstripes = [\n\t\t\t\t\t\"pv0\", {extent}\n\t\t\t\t]\n\t\t\t}}\n\t\t}}\n",
            id(&format!("lv {name}")),
        );
        extent += count;
    }
    let text = format!(
        "{name} {{\n\tid = \"{vg}\"\n\tseqno = 1\n\tformat = \"lvm2\"\n\tstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\n\
         \tflags = []\n\textent_size = {extent_size}\n\tmax_lv = 0\n\tmax_pv = 0\n\tmetadata_copies = 0\n\n\
         \tphysical_volumes {{\n\n\t\tpv0 {{\n\t\t\tid = \"{pv}\"\n\t\t\tdevice = \"/dev/null\"\n\n\
         \t\t\tstatus = [\"ALLOCATABLE\"]\n\t\t\tflags = []\n\t\t\tdev_size = {dev_size}\n\t\t\tpe_start = {pe_start}\n\
         \t\t\tpe_count = {pe_count}\n\t\t}}\n\t}}\n\n\tlogical_volumes {{\n{volumes}\t}}\n}}\n# Written with the disk image\n\n\
         contents = \"Text Format Volume Group\"\nversion = 1\n\ndescription = \"\"\n\n\
         creation_host = \"slipway\"\t# slipway\ncreation_time = {time}\n\n",
        name = group.name,
        vg = id("vg"),
        extent_size = EXTENT / SECTOR,
        pv = id("pv"),
        dev_size = len / SECTOR,
        pe_start = DATA / SECTOR,
        pe_count = extents(len),
    );
    let mut bytes = text.into_bytes();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::Cmd;

    /// lvm2 reads the file itself as a device: no device mapper, no loop device, no root.
    #[test]
    fn lvm2_reads_label_and_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pv");
        let disk = File::create(&path).unwrap();
        let len = 600 << 20;
        disk.set_len(len).unwrap();
        let volumes = [("root", 100), ("other", 20)];
        let group = Group { name: "host", volumes: &volumes, seed: b"seed", time: 1_753_000_000 };
        write(&disk, 0, len, &group).unwrap();
        assert_eq!(volume_offset(&group, 1), (1 << 20) + 100 * (4 << 20));
        let kind = Cmd::new("blkid").args(["-p", "-o", "value", "-s", "TYPE"]).arg(&path).run().unwrap().text();
        assert_eq!(kind, "LVM2_member");
        let dump = Cmd::new("pvck").args(["--dump", "headers"]).arg(&path).run().unwrap().text();
        assert!(dump.contains("label_header at 512") && dump.contains("mda_header_1 at 4096"), "{dump}");
        assert!(!dump.contains("CHECK:"), "{dump}");
        let text = Cmd::new("pvck").args(["--dump", "metadata"]).arg(&path).run().unwrap().text();
        assert!(text.contains("crc 0x") && text.contains("extent_count = 100") && !text.contains("CHECK:"), "{text}");
    }

    #[test]
    fn volumes_beyond_the_group_are_refused() {
        let file = tempfile::tempfile().unwrap();
        let group = Group { name: "host", volumes: &[("root", 3)], seed: b"s", time: 0 };
        assert!(write(&file, 0, DATA + 2 * EXTENT, &group).is_err());
    }
}
