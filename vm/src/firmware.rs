//! UEFI firmware: where the distributions put it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Code (read-only, shared) and variables (a template that is copied for each machine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The flash image with the code.
    pub code: PathBuf,
    /// The empty variable store.
    pub vars: PathBuf,
}

/// Code and variables have to be of one build size; Debian first, then what others use.
const PLACES: [(&str, &str); 4] = [
    ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("usr/share/edk2/x64/OVMF_CODE.4m.fd", "usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
];

impl Firmware {
    /// Finds the firmware below `root` (`/`).
    pub fn find(root: &Path) -> Result<Firmware> {
        for (code, vars) in PLACES {
            let firmware = Firmware { code: root.join(code), vars: root.join(vars) };
            if firmware.code.is_file() && firmware.vars.is_file() {
                return Ok(firmware);
            }
        }
        let looked_for = PLACES.map(|(code, _)| format!("/{code}")).join(", ");
        Err(Error::Firmware { looked_for })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_without_variables_is_no_firmware() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("usr/share/OVMF");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("OVMF_CODE_4M.fd"), "").unwrap();
        assert!(Firmware::find(root.path()).unwrap_err().to_string().contains("apt-get install ovmf"));
        std::fs::write(dir.join("OVMF_VARS_4M.fd"), "").unwrap();
        assert_eq!(Firmware::find(root.path()).unwrap().vars, dir.join("OVMF_VARS_4M.fd"));
    }
}
