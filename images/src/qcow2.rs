//! QCOW2 (version 3) from a sparse raw file: what is a hole there is not stored here.
//!
//! ```text
//! cluster 0    header              1 …    table of reference counts, then the counts (2 bytes for each cluster)
//! then         first-level table   then   second-level tables, each followed by nothing: data comes after them all
//! ```
//! Clusters are 64 KiB. The same raw file gives the same bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const CLUSTER: u64 = 65536;
const PER_TABLE: u64 = CLUSTER / 8;
const COUNTS_PER_BLOCK: u64 = CLUSTER / 2;
/// Set in a table entry: the cluster is used once, so it may be written in place.
const COPIED: u64 = 1 << 63;

/// Writes `raw` to the empty file `out`. Returns the size of `out`.
pub fn convert(raw: &File, out: &File) -> io::Result<u64> {
    let size = raw.metadata()?.len();
    let clusters = used_clusters(raw, size)?;
    let guest_clusters = size.div_ceil(CLUSTER);
    let tables = guest_clusters.div_ceil(PER_TABLE);
    let l1_clusters = (tables * 8).div_ceil(CLUSTER);
    let mut used_tables: Vec<u64> = clusters.iter().map(|c| c / PER_TABLE).collect();
    used_tables.dedup();

    // Reference counts cover themselves: grow until they fit.
    let body = 1 + l1_clusters + used_tables.len() as u64 + clusters.len() as u64;
    let (mut blocks, mut table) = (0, 0);
    loop {
        let total: u64 = body + blocks + table;
        let need = (total.div_ceil(COUNTS_PER_BLOCK), (blocks * 8).div_ceil(CLUSTER).max(1));
        if need == (blocks, table) {
            break;
        }
        (blocks, table) = need;
    }
    let total = body + blocks + table;
    let count_table = CLUSTER;
    let counts = count_table + table * CLUSTER;
    let l1 = counts + blocks * CLUSTER;
    let l2 = l1 + l1_clusters * CLUSTER;
    let data = l2 + used_tables.len() as u64 * CLUSTER;

    out.set_len(total * CLUSTER)?;
    out.write_all_at(&header(size, tables, l1, count_table, table), 0)?;
    let places: Vec<u8> = (0..blocks).flat_map(|i| (counts + i * CLUSTER).to_be_bytes()).collect();
    out.write_all_at(&places, count_table)?;
    let ones: Vec<u8> = (0..total).flat_map(|_| 1u16.to_be_bytes()).collect();
    out.write_all_at(&ones, counts)?;
    for (i, table) in used_tables.iter().enumerate() {
        let entry = (l2 + i as u64 * CLUSTER) | COPIED;
        out.write_all_at(&entry.to_be_bytes(), l1 + table * 8)?;
    }
    let mut buffer = vec![0; CLUSTER as usize];
    let mut table_index = 0;
    for (i, cluster) in clusters.iter().enumerate() {
        while used_tables[table_index] != cluster / PER_TABLE {
            table_index += 1;
        }
        let place = data + i as u64 * CLUSTER;
        let slot = l2 + table_index as u64 * CLUSTER + cluster % PER_TABLE * 8;
        out.write_all_at(&(place | COPIED).to_be_bytes(), slot)?;
        let len = CLUSTER.min(size - cluster * CLUSTER) as usize;
        raw.read_exact_at(&mut buffer[..len], cluster * CLUSTER)?;
        out.write_all_at(&buffer[..len], place)?;
    }
    Ok(total * CLUSTER)
}

/// Clusters of the raw file that hold anything but zeros, ascending.
fn used_clusters(raw: &File, size: u64) -> io::Result<Vec<u64>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    let mut used: Vec<u64> = Vec::new();
    let mut at = 0;
    let mut buffer = vec![0; CLUSTER as usize];
    while at < size {
        let start = match seek(raw, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = seek(raw, SeekFrom::Hole(start))?;
        for cluster in start / CLUSTER..end.min(size).div_ceil(CLUSTER) {
            if used.last() == Some(&cluster) {
                continue;
            }
            // The extents of a file depend on the file system below it: only content decides.
            let len = CLUSTER.min(size - cluster * CLUSTER) as usize;
            raw.read_exact_at(&mut buffer[..len], cluster * CLUSTER)?;
            if buffer[..len].iter().any(|b| *b != 0) {
                used.push(cluster);
            }
        }
        at = end.max(at + 1);
    }
    Ok(used)
}

fn header(size: u64, l1_entries: u64, l1: u64, count_table: u64, count_table_clusters: u64) -> Vec<u8> {
    let mut h = Vec::with_capacity(112);
    let mut put = |bytes: &[u8]| h.extend_from_slice(bytes);
    put(b"QFI\xfb");
    put(&3u32.to_be_bytes());
    put(&[0; 12]); // no backing file
    put(&16u32.to_be_bytes()); // log2 of the cluster size
    put(&size.to_be_bytes());
    put(&[0; 4]); // not encrypted
    put(&(l1_entries as u32).to_be_bytes());
    put(&l1.to_be_bytes());
    put(&count_table.to_be_bytes());
    put(&(count_table_clusters as u32).to_be_bytes());
    put(&[0; 12]); // no snapshots
    put(&[0; 24]); // no features
    put(&4u32.to_be_bytes()); // counts of 16 bits
    put(&104u32.to_be_bytes()); // length of this header
    put(&[0; 8]); // no extensions
    h
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::Cmd;

    #[test]
    fn qemu_reads_the_same_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (raw_path, path) = (dir.path().join("raw"), dir.path().join("qcow2"));
        let raw = File::options().read(true).write(true).create_new(true).open(&raw_path).unwrap();
        raw.set_len((5 << 30) + 512).unwrap();
        for (i, at) in [0u64, 65535, 1 << 20, 600 << 20, (3 << 30) + 12345, (5 << 30) + 511].into_iter().enumerate() {
            raw.write_all_at(&[i as u8 + 1], at).unwrap();
        }
        let out = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        assert!(convert(&raw, &out).unwrap() < 2 << 20);
        Cmd::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&path).run().unwrap();
        Cmd::new("qemu-img").args(["compare", "-f", "raw", "-F", "qcow2"]).args([&raw_path, &path]).run().unwrap();
    }

    #[test]
    fn an_empty_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qcow2");
        let raw = tempfile::tempfile().unwrap();
        raw.set_len(1 << 30).unwrap();
        convert(&raw, &File::create(&path).unwrap()).unwrap();
        Cmd::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&path).run().unwrap();
    }
}
