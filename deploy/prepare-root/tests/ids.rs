//! A small disk made by the ordinary tools gets fresh ids: the tools still like it, and so they do after a power cut at
//! any moment and a second try.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::Path;

use prepare_root::ids::{self, Disk, Guid, Outcome, gpt};
use sys::Cmd;

const MIB: usize = 1 << 20;
const PV: usize = 4 * MIB;
const ROOT: usize = PV + MIB + MIB;

/// A write and where it went; `None` is a sync.
type Event = Option<(u64, Vec<u8>)>;

/// A disk in memory that remembers what was written between which syncs.
struct Memory {
    bytes: RefCell<Vec<u8>>,
    log: RefCell<Vec<Event>>,
}

impl Memory {
    fn new(bytes: Vec<u8>) -> Memory {
        Memory { bytes: RefCell::new(bytes), log: RefCell::default() }
    }
}

impl Disk for Memory {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.borrow();
        let from = offset as usize;
        let source = bytes.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(source);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes.borrow_mut()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        self.log.borrow_mut().push(Some((offset, bytes.to_vec())));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.log.borrow_mut().push(None);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }
}

fn crc_lvm(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c: u32, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    })
}

/// Label, header and text of a physical volume of 8 MiB with a group `host` of 1 MiB extents and the volume `root`.
fn physical_volume(bytes: &mut [u8]) {
    let id = |c: char| format!("{}-{}-{}-{}-{}-{}-{}", s(c, 6), s(c, 4), s(c, 4), s(c, 4), s(c, 4), s(c, 4), s(c, 6));
    fn s(c: char, n: usize) -> String {
        c.to_string().repeat(n)
    }
    let text = format!(
        "host {{\nid = \"{}\"\nseqno = 1\nformat = \"lvm2\"\nstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\n\
         extent_size = 2048\nmax_lv = 0\nmax_pv = 0\nmetadata_copies = 0\n\nphysical_volumes {{\n\npv0 {{\nid = \"{}\"\n\
         device = \"/dev/null\" # a hint only\n\nstatus = [\"ALLOCATABLE\"]\nflags = []\ndev_size = 24576\npe_start = 2048\n\
         pe_count = 11\n}}\n}}\n\nlogical_volumes {{\n\nroot {{\nid = \"{}\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\n\
         flags = []\ncreation_time = 0\ncreation_host = \"image\"\nsegment_count = 1\n\nsegment1 {{\nstart_extent = 0\n\
         extent_count = 8\n\ntype = \"striped\"\nstripe_count = 1\n\nstripes = [\n\"pv0\", 1\n]\n}}\n}}\n}}\n\n}}\n\
         contents = \"Text Format Volume Group\"\nversion = 1\n\ndescription = \"\"\n\ncreation_host = \"image\"\n\
         creation_time = 0\n\0",
        id('a'),
        id('b'),
        id('c')
    );
    let mut label = [0; 512];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(s('b', 32).as_bytes());
    for (at, word) in [(64, 12 << 20), (72, 1 << 20), (104, 4096u64), (112, (1 << 20) - 4096), (136, 2 | 1 << 32)] {
        label[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc_lvm(&label[20..]);
    label[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes[512..1024].copy_from_slice(&label);
    let mut header = [0; 512];
    header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    header[20] = 1;
    for (at, word) in [(24, 4096u64), (32, (1 << 20) - 4096), (40, 512), (48, text.len() as u64)] {
        header[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    header[56..60].copy_from_slice(&crc_lvm(text.as_bytes()).to_le_bytes());
    let crc = crc_lvm(&header[4..]);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    bytes[4096..4608].copy_from_slice(&header);
    bytes[4608..4608 + text.len()].copy_from_slice(text.as_bytes());
}

fn image(dir: &Path) -> Vec<u8> {
    let path = dir.join("disk");
    fs::write(&path, vec![0; 20 * MIB]).unwrap();
    let table = "label: gpt\nlabel-id: 11111111-1111-4111-8111-111111111111\nfirst-lba: 2048\n\
        start=1MiB, size=2MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=22222222-2222-4222-8222-222222222222, \
        name=slipway-esp\n\
        start=3MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=slipway-bios\n\
        start=4MiB, size=12MiB, type=E6D6D379-F507-44C2-A23C-238F2A3DF928, attrs=\"GUID:48\", name=slipway-pv\n";
    Cmd::new("sfdisk").arg("-q").arg(&path).stdin(table).run().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    physical_volume(&mut bytes[PV..]);

    let part = dir.join("part");
    fs::write(&part, vec![0; 2 * MIB]).unwrap();
    Cmd::new("mkfs.fat").args(["-F", "32", "-s", "1", "-i", "12345678"]).arg(&part).run().unwrap();
    bytes[MIB..3 * MIB].copy_from_slice(&fs::read(&part).unwrap());
    fs::write(&part, vec![0; 8 * MIB]).unwrap();
    Cmd::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-g", "256", "-O", "verity,metadata_csum_seed"])
        .args(["-U", "33333333-3333-4333-8333-333333333333"])
        .arg(&part)
        .run()
        .unwrap();
    bytes[ROOT..ROOT + 8 * MIB].copy_from_slice(&fs::read(&part).unwrap());
    bytes
}

/// Random bytes that can be told apart from run to run.
fn random(seed: u8) -> impl FnMut() -> [u8; 32] {
    let mut n = u32::from(seed) << 16;
    move || {
        n += 1;
        *store::Checksum::of(&n.to_le_bytes()).as_bytes()
    }
}

/// What the ordinary tools say about a disk: each of them is content, and here are the ids they see.
fn tools(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let disk = dir.join("disk");
    fs::write(&disk, bytes).unwrap();
    let verify = Cmd::new("sfdisk").arg("--verify").arg(&disk).run().unwrap();
    assert!(verify.stderr.is_empty(), "{}", String::from_utf8_lossy(&verify.stderr));
    let table = Cmd::new("sfdisk").arg("-d").arg(&disk).run().unwrap().text();
    assert!(!table.contains("GUID:48"), "the mark is gone:\n{table}");
    let mut ids: Vec<String> = table
        .lines()
        .flat_map(|l| l.split([',', ' ']))
        .filter(|w| w.contains('-') && w.len() >= 36 && !w.contains("type="))
        .map(str::to_owned)
        .collect();
    assert_eq!(ids.len(), 4, "{table}");

    let part = dir.join("part");
    fs::write(&part, &bytes[ROOT..ROOT + 8 * MIB]).unwrap();
    Cmd::new("e2fsck").arg("-fn").arg(&part).run().unwrap();
    for superblock in [&[][..], &["-o", "superblock=256", "-o", "blocksize=4096"]] {
        let header = Cmd::new("dumpe2fs").arg("-h").args(superblock).arg(&part).run().unwrap().text();
        let line = header.lines().find(|l| l.starts_with("Filesystem UUID:")).unwrap();
        ids.push(line.split_whitespace().last().unwrap().to_owned());
    }
    assert_eq!(ids.pop(), ids.last().cloned(), "the backup superblock has the same id");

    fs::write(&part, &bytes[MIB..3 * MIB]).unwrap();
    Cmd::new("fsck.fat").arg("-n").arg(&part).run().unwrap();

    fs::write(&part, &bytes[PV..PV + 12 * MIB]).unwrap();
    Cmd::new("/sbin/pvck").args(["--dump", "headers"]).arg(&part).run().unwrap();
    let text = Cmd::new("/sbin/pvck").args(["--dump", "metadata"]).arg(&part).run().unwrap().text();
    ids.extend(text.lines().filter_map(|l| l.trim().strip_prefix("id = ")).map(str::to_owned));
    assert_eq!(ids.len(), 8, "{text}");
    ids
}

#[test]
fn every_id_is_fresh_and_the_ordinary_tools_agree() {
    let dir = tempfile::tempdir().unwrap();
    let old = image(dir.path());
    let disk = Memory::new(old.clone());
    let Outcome::Fresh(fresh) = ids::refresh(&disk, "root", &mut random(1)).unwrap() else { panic!("nothing done") };
    let new = disk.bytes.into_inner();
    let ids = tools(dir.path(), &new);
    assert!(ids.iter().any(|i| i.eq_ignore_ascii_case(&fresh.disk.to_string())), "{fresh:?} {ids:?}");
    assert!(ids.contains(&fresh.root.to_string()), "{fresh:?} {ids:?}");
    assert!(
        ids.contains(&format!("\"{}\"", fresh.pv)) && ids.contains(&format!("\"{}\"", fresh.vg)),
        "{fresh:?} {ids:?}"
    );
    let text = ids.join(" ").to_lowercase();
    for old in ["11111111-1111", "22222222-2222", "33333333-3333", "aaaa-aaaa", "bbbb-bbbb", "cccc-cccc"] {
        assert!(!text.contains(old), "{old} is still there: {text}");
    }
    // The FAT serial number, in the boot sector and its backup.
    assert_ne!(new[MIB + 0x43..MIB + 0x47], old[MIB + 0x43..MIB + 0x47]);
    assert_eq!(new[MIB + 0x43..MIB + 0x47], new[MIB + 6 * 512 + 0x43..][..4]);

    let again = Memory::new(new);
    assert_eq!(ids::refresh(&again, "root", &mut random(2)).unwrap(), Outcome::Settled);
    assert!(again.log.borrow().is_empty(), "a settled disk is not written to");
}

#[test]
fn a_power_cut_at_any_write_leaves_a_disk_that_boots_and_is_finished_later() {
    let dir = tempfile::tempdir().unwrap();
    let old = image(dir.path());
    let whole = Memory::new(old.clone());
    ids::refresh(&whole, "root", &mut random(1)).unwrap();
    let log = whole.log.into_inner();
    let mut states = 0;
    for end in 0..log.len() {
        let synced = log[..end].iter().rposition(Option::is_none).unwrap_or(0);
        // What was not synced may be there, or not: all of it, or only the last of it.
        for lost in [None, Some(synced)] {
            let mut bytes = old.clone();
            for (n, write) in log[..end].iter().enumerate() {
                let Some((at, content)) = write else { continue };
                if lost.is_none_or(|from| n < from || n + 1 == end) {
                    bytes[*at as usize..][..content.len()].copy_from_slice(content);
                }
            }
            let disk = Memory::new(bytes);
            let table = gpt::Table::read(&disk, 512).expect("a valid primary table at every moment");
            assert_eq!(table.entries().count(), 3);
            let marked = table.entries().any(|e| e.attributes & gpt::IMAGE_IDS != 0);
            let outcome = ids::refresh(&disk, "root", &mut random(2)).unwrap();
            assert_eq!(matches!(outcome, Outcome::Fresh(_)), marked);
            let mut ids = tools(dir.path(), &disk.bytes.into_inner());
            let count = ids.len();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), count);
            states += 1;
        }
    }
    assert!(states > 20, "{states}");
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let good = image(dir.path());
    let damage: [(&str, usize); 4] = [
        ("label", PV + 512 + 40),
        ("text", PV + 4096 + 600),
        ("superblock", ROOT + 1024 + 0x70),
        ("entries", 1024 + 8),
    ];
    for (what, at) in damage {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        let disk = Memory::new(bytes);
        let error = ids::refresh(&disk, "root", &mut random(1)).unwrap_err();
        assert!(disk.log.borrow().is_empty(), "{what}: {error}");
    }
    let disk = Memory::new(good);
    let error = ids::refresh(&disk, "storage", &mut random(1)).unwrap_err();
    assert!(error.to_string().contains("no linear volume `storage`"), "{error}");
}

#[test]
fn the_booted_disk_gets_fresh_ids_and_a_second_copy_of_the_image_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let root = dir.path().join("root");
    for (name, number) in [("vdb", "254:16"), ("vda", "254:0"), ("dm-0", "253:0"), ("vda1", "254:1")] {
        let block = root.join("sys/class/block").join(name);
        fs::create_dir_all(&block).unwrap();
        fs::write(block.join("dev"), number).unwrap();
        if name.starts_with("vd") {
            fs::create_dir(block.join("device")).unwrap();
        }
    }
    fs::write(root.join("sys/class/block/vda1/partition"), "1").unwrap();
    // Two disks that the kernel is still making: one has no number yet, the other no device node.
    fs::create_dir_all(root.join("sys/class/block/vdc/device")).unwrap();
    fs::create_dir_all(root.join("sys/class/block/vdd/device")).unwrap();
    fs::write(root.join("sys/class/block/vdd/dev"), "254:48").unwrap();
    // A partition that has gone while the disk's directory is read.
    fs::create_dir(root.join("sys/class/block/vda/vda2")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("sys/class/block/vda/vda3")).unwrap();
    fs::create_dir_all(root.join("sys/class/block/vda/vda4/uevent")).unwrap();
    fs::write(root.join("sys/class/block/vda/vda4/partition"), "4").unwrap();
    let efi = root.join("sys/firmware/efi/efivars");
    fs::create_dir_all(&efi).unwrap();
    let booted: Vec<u8> = [7u8, 0, 0, 0]
        .into_iter()
        .chain("22222222-2222-4222-8222-222222222222\0".encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    fs::write(efi.join("LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"), booted).unwrap();
    fs::create_dir(root.join("dev")).unwrap();
    fs::write(root.join("dev/vda"), &image).unwrap();
    fs::write(root.join("dev/vdb"), &image).unwrap();

    let mut said = String::new();
    prepare_root::fresh::run(&root, "root", &mut |line| said.push_str(line)).unwrap();
    assert!(said.starts_with("/dev/vda: disk "), "{said}");
    assert_eq!(fs::read(root.join("dev/vdb")).unwrap(), image);
    let fresh = fs::read(root.join("dev/vda")).unwrap();
    let table = gpt::Table::read(&Memory::new(fresh.clone()), 512).unwrap();
    let guid = |kind: Guid| table.entries().find(|e| e.kind == kind).unwrap().guid;
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!(
        read("run/systemd/system/efi.mount.d/50-booted-disk.conf"),
        format!("[Mount]\nWhat=\nWhat=/dev/disk/by-partuuid/{}\n", guid(gpt::ESP))
    );
    assert!(read("etc/lvm/lvmlocal.conf").contains("[ \"a|^/dev/vda3$|\", \"r|.*|\" ]"));
    assert!(read("run/udev/rules.d/68-slipway-booted-disk.rules").contains(&format!("!=\"{}\"", guid(gpt::LVM))));
    assert_eq!(read("sys/class/block/vda/uevent"), "change");

    // The next boot of the other one: the loader names its ESP, and now nothing is ambiguous.
    let mut said = String::new();
    prepare_root::fresh::run(&root, "root", &mut |line| said.push_str(line)).unwrap();
    assert!(said.starts_with("/dev/vdb: disk "), "{said}");
    assert_eq!(fs::read(root.join("dev/vda")).unwrap(), fresh);
}

#[test]
fn guids_print_as_other_tools_print_them() {
    let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    assert_eq!(Guid::parse(text), Some(gpt::ESP));
    assert_eq!(gpt::ESP.to_string(), text);
    assert_eq!(Guid::from_gpt(&gpt::ESP.to_gpt()), gpt::ESP);
    assert_eq!(Guid::parse("c12a7328f81f-11d2-ba4b-00a0c93ec93b-"), None);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn random_bytes_are_an_error_not_a_panic(seed in proptest::collection::vec(proptest::prelude::any::<u8>(), 8192)) {
        let disk = Memory::new(seed);
        proptest::prop_assert!(ids::refresh(&disk, "root", &mut random(1)).is_err());
        proptest::prop_assert!(ids::lvm::Volumes::read(&disk, 0, 8192).is_err());
        proptest::prop_assert!(ids::ext4::Superblocks::read(&disk, 0).is_err());
    }
}
