//! Disks of a machine: overlays on shared bases, made with `qemu-img`.

use std::io::Read;
use std::path::{Path, PathBuf};

use sys::Cmd;

use crate::error::{Error, Result, io};

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// The serial number the guest sees (`/dev/disk/by-id/virtio-SERIAL`).
    pub serial: String,
    /// Who sees what the guest writes.
    pub writes: Writes,
    /// A larger size for the guest's disk, in bytes.
    pub size: Option<u64>,
}

/// Where a guest's writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// To an overlay of this machine; the image is never written.
    Overlay,
    /// To the image itself.
    Direct,
    /// Nowhere: the guest cannot write.
    Refused,
}

/// The format of an image, by its magic number: everything that is not qcow2 is raw.
pub fn format(path: &Path) -> Result<&'static str> {
    let mut magic = [0; 4];
    let mut file = std::fs::File::open(path).map_err(io("opening the disk image", path))?;
    match file.read_exact(&mut magic) {
        Ok(()) if magic == *b"QFI\xfb" => Ok("qcow2"),
        Ok(()) => Ok("raw"),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok("raw"),
        Err(e) => Err(io("reading the disk image", path)(e)),
    }
}

fn qemu_img() -> Cmd {
    Cmd::new("qemu-img")
}

/// Makes `overlay`, whose unwritten parts are read from `base`. The base may be shared by any number of overlays and
/// must not change from now on.
pub fn overlay(base: &Path, overlay: &Path, size: Option<u64>) -> Result<()> {
    let base = std::fs::canonicalize(base).map_err(io("opening the disk image", base))?;
    let mut command =
        qemu_img().args(["create", "-q", "-f", "qcow2", "-F", format(&base)?, "-b"]).arg(&base).arg(overlay);
    if let Some(size) = size {
        command = command.arg(size.to_string());
    }
    command.run().map_err(missing)?;
    Ok(())
}

/// Copies any image to a qcow2 of its own.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    qemu_img().args(["convert", "-q", "-f", format(from)?, "-O", "qcow2"]).arg(from).arg(to).run().map_err(missing)?;
    Ok(())
}

fn missing(error: sys::CmdError) -> Error {
    match error {
        sys::CmdError::Start { .. } => Error::QemuMissing("qemu-img"),
        error => Error::Cmd(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_names_its_base_and_leaves_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base, with comma.raw");
        std::fs::write(&base, [7; 65536]).unwrap();
        let over = dir.path().join("over.qcow2");
        overlay(&base, &over, Some(1 << 20)).unwrap();
        assert_eq!(format(&base).unwrap(), "raw");
        assert_eq!(format(&over).unwrap(), "qcow2");
        let info = qemu_img().args(["info", "--output=json"]).arg(&over).run().unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
        assert_eq!(info["virtual-size"], 1 << 20);
        assert_eq!(info["backing-filename-format"], "raw");
        let copied = dir.path().join("copy.qcow2");
        copy(&over, &copied).unwrap();
        assert_eq!(std::fs::read(&base).unwrap(), [7; 65536]);
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = format(Path::new("/nonexistent.raw")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent.raw"));
    }
}
