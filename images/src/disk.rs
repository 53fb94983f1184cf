//! A whole disk from a commit.
//!
//! ```text
//! 1 MiB       ESP, FAT32, `slipway-esp`          1 GiB
//! 1025 MiB    BIOS boot, `slipway-bios`          1 MiB
//! 1026 MiB    LVM PV, `slipway-pv`               to 1 MiB before the end
//!             └ VG `host`: LV `root`, ext4 with fs-verity; the rest is free, for containers
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use deploy::first;
use serde::Serialize;
use store::{Checksum, Repo};
use sys::Reporter;

use crate::content::Root;
use crate::{Error, ext4, fat, gpt, ids, lvm, qcow2, signed};

const MIB: u64 = 1 << 20;
const ESP_OFFSET: u64 = MIB;
const ESP_LEN: u64 = 1024 * MIB;
const BIOS_OFFSET: u64 = ESP_OFFSET + ESP_LEN;
const PV_OFFSET: u64 = BIOS_OFFSET + MIB;
/// Kept free at the end, for the backup partition table.
const END: u64 = MIB;

/// Name of the volume group.
pub const GROUP: &str = "host";
/// Name of the logical volume with the root file system.
pub const ROOT: &str = "root";

/// What kind of file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes of the disk, with holes where nothing is.
    #[default]
    Raw,
    /// QEMU's format.
    Qcow2,
}

/// What may be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Size of the root volume in bytes.
    pub root_size: u64,
    /// What kind of file.
    pub format: Format,
    /// Whether a commit that nobody trusted has signed will do.
    pub allow_unsigned: bool,
    /// What the first deployment is made with. `signer` is filled in here.
    pub first: first::Options,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            size: 8 << 30,
            root_size: 4 << 30,
            format: Format::Raw,
            allow_unsigned: false,
            first: first::Options::default(),
        }
    }
}

/// What a disk will hold and where, decided before anything is written.
pub struct Plan<'r> {
    commit: Checksum,
    root: Root<'r>,
    file_system: ext4::Plan,
    esp: Vec<first::EspFile>,
    size: u64,
    root_extents: u64,
    format: Format,
    seed: Vec<u8>,
    time: u64,
    /// The same for people and programs.
    pub summary: Summary,
}

/// A plan, or what came of it, for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The commit.
    pub commit: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// The deployment that boots: `<os>/<commit>.<n>`.
    pub deployment: String,
    /// fs-verity digest of the composefs image.
    pub digest: String,
    /// Who signed it, base64; nothing when nobody trusted has.
    pub signer: Option<String>,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Size of the root volume in bytes.
    pub root_size: u64,
    /// Bytes the root file system uses at first.
    pub root_used: u64,
    /// Bytes of the volume group left for containers.
    pub group_free: u64,
    /// File objects in the repository.
    pub objects: u64,
    /// Bytes on the EFI system partition.
    pub esp_used: u64,
    /// What kind of file.
    pub format: Format,
}

/// Plans the disk. Reads metadata and the small files of the deployment; writes nothing.
pub fn plan<'r>(repo: &'r Repo, commit: &Checksum, options: &Options) -> Result<Plan<'r>, Error> {
    let signer = match signed::signer(repo, commit)? {
        Ok(key) => Some(key.to_string()),
        Err(_) if options.allow_unsigned => None,
        Err(reason) => return Err(Error::Untrusted { commit: *commit, reason }),
    };
    let decoded = repo.load_commit(commit)?;
    let mut first_options = options.first.clone();
    first_options.signer.clone_from(&signer);
    let disk = first::plan(repo, commit, &first_options).map_err(|e| Error::Deployment(Box::new(e)))?;
    let ref_name = first_options.ref_name.clone().or_else(|| decoded.ref_bindings().and_then(|b| b.first().cloned()));

    let size = options.size / MIB * MIB;
    let root_extents = options.root_size.div_ceil(lvm::EXTENT);
    let need = PV_OFFSET + lvm::DATA + root_extents * lvm::EXTENT + END;
    if size < need {
        return Err(Error::DiskTooSmall { need: need / MIB, have: options.size / MIB });
    }
    let seed = commit.0.to_vec();
    let root = Root::new(repo, commit, ref_name.as_deref(), disk.root)?;
    let params = ext4::Params {
        bytes: root_extents * lvm::EXTENT,
        uuid: ids::uuid(&seed, "root"),
        hash_seed: ids::uuid(&seed, "root hash seed"),
        label: ROOT.to_owned(),
        time: decoded.timestamp,
    };
    let file_system = ext4::Plan::new(&params, &root.tree)?;
    let summary = Summary {
        commit: commit.to_string(),
        version: decoded.version().map(str::to_owned),
        deployment: format!("{}/{}", disk.os, disk.deployment),
        digest: hex::encode(disk.digest),
        signer,
        size,
        root_size: params.bytes,
        root_used: file_system.used_blocks * 4096,
        group_free: (lvm::extents(pv_len(size)) - root_extents) * lvm::EXTENT,
        objects: root.objects,
        esp_used: disk.esp.iter().map(|f| f.bytes.len() as u64).sum(),
        format: options.format,
    };
    Ok(Plan {
        commit: *commit,
        root,
        file_system,
        esp: disk.esp,
        size,
        root_extents,
        format: options.format,
        seed,
        time: decoded.timestamp,
        summary,
    })
}

fn pv_len(size: u64) -> u64 {
    size - PV_OFFSET - END
}

impl Plan<'_> {
    /// Writes the disk. `output` appears when it is complete, or not at all.
    pub fn execute(self, output: &Path, reporter: &Reporter) -> Result<Summary, Error> {
        let io = |source| Error::Output { path: output.to_owned(), source };
        let partial = Partial::new(output);
        let raw = partial.create("raw").map_err(io)?;
        raw.set_len(self.size).map_err(io)?;

        let step = reporter.step("partitions and volumes", 0);
        self.tables(&raw).map_err(io)?;
        step.done(format!("{} MiB, root {} MiB", self.size / MIB, self.root_extents * lvm::EXTENT / MIB));

        let step = reporter.step("EFI system partition", 0);
        self.write_esp(&raw)?;
        step.done(format!("{} files, {} MiB", self.esp.len(), self.summary.esp_used / MIB));

        let step = reporter.step("root file system", self.root.bytes);
        let detail = format!("{} objects, {} MiB, sealed", self.root.objects, self.root.bytes / MIB);
        let offset = PV_OFFSET + lvm::DATA;
        let root = self.root.reporting(&step);
        self.file_system.write(ext4::Target { file: &raw, offset }, &root)?;
        root.save_digests()?;
        drop(root);
        step.done(detail);

        let mut finished = raw;
        let mut kind = "raw";
        if self.format == Format::Qcow2 {
            let step = reporter.step("qcow2", 0);
            kind = "qcow2";
            let out = partial.create(kind).map_err(io)?;
            let len = qcow2::convert(&finished, &out).map_err(io)?;
            finished = out;
            step.done(format!("{} MiB", len / MIB));
        }
        // Not synced: an image can be made again, and waiting for the disk can take longer than making it.
        drop(finished);
        partial.publish(kind).map_err(io)?;
        Ok(self.summary)
    }

    fn tables(&self, disk: &File) -> std::io::Result<()> {
        let id = |purpose: &str| gpt::mixed_endian(ids::uuid(&self.seed, purpose));
        let pv_len = pv_len(self.size);
        let part = |kind, purpose, offset, len, attributes, name| gpt::Partition {
            kind,
            id: id(purpose),
            offset,
            len,
            attributes,
            name,
        };
        let partitions = [
            part(gpt::ESP, "partition esp", ESP_OFFSET, ESP_LEN, 0, "slipway-esp"),
            part(gpt::BIOS_BOOT, "partition bios", BIOS_OFFSET, MIB, 0, "slipway-bios"),
            part(gpt::LVM, "partition pv", PV_OFFSET, pv_len, gpt::FRESH, "slipway-pv"),
        ];
        gpt::write(disk, self.size, id("disk"), &partitions)?;
        let volumes = [(ROOT, self.root_extents)];
        let group = lvm::Group { name: GROUP, volumes: &volumes, seed: &self.seed, time: self.time };
        lvm::write(disk, PV_OFFSET, pv_len, &group)
    }

    fn write_esp(&self, disk: &File) -> Result<(), Error> {
        let params = fat::Params {
            len: ESP_LEN,
            offset: ESP_OFFSET,
            serial: ids::serial(&self.seed, "esp"),
            label: "SLIPWAYESP".to_owned(),
            time: self.time,
        };
        let files: Vec<(String, &[u8])> = self.esp.iter().map(|f| (f.path.clone(), f.bytes.as_slice())).collect();
        Ok(fat::write(disk, &params, &files)?)
    }

    /// The commit this disk boots.
    pub fn commit(&self) -> &Checksum {
        &self.commit
    }
}

/// Files beside the output that become it, or go away.
struct Partial {
    output: PathBuf,
}

impl Partial {
    fn new(output: &Path) -> Self {
        Partial { output: output.to_owned() }
    }

    fn path(&self, kind: &str) -> PathBuf {
        let mut name = self.output.as_os_str().to_owned();
        name.push(format!(".{}.{kind}.part", std::process::id()));
        name.into()
    }

    fn create(&self, kind: &str) -> std::io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(true).open(self.path(kind))
    }

    fn publish(&self, kind: &str) -> std::io::Result<()> {
        std::fs::rename(self.path(kind), &self.output)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        for kind in ["raw", "qcow2"] {
            // What was published is no longer there.
            let _ = std::fs::remove_file(self.path(kind));
        }
    }
}
