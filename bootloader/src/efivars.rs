//! What the loader tells the system through EFI variables.

use std::io;
use std::path::Path;

use crate::EntryName;

/// The vendor of the Boot Loader Interface's variables.
pub const VARIABLE_GUID: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The loader's variables, where the machine has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootVariables {
    /// `LoaderBootCountPath`: the booted entry's file, after the loader counted down. Absent for an entry without
    /// counter.
    pub counted: Option<String>,
    /// `LoaderEntrySelected`: the booted entry's id (the file name without counter).
    pub selected: Option<String>,
}

impl BootVariables {
    /// Reads them from `<root>/sys/firmware/efi/efivars`. A machine without EFI has none.
    pub fn load(root: &Path) -> io::Result<BootVariables> {
        let dir = root.join("sys/firmware/efi/efivars");
        let read = |name: &str| match std::fs::read(dir.join(format!("{name}-{VARIABLE_GUID}"))) {
            Ok(bytes) => Ok(decode(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        };
        let counted = read("LoaderBootCountPath")?;
        let counted = counted.map(|path| path.rsplit(['\\', '/']).next().unwrap_or_default().to_owned());
        Ok(BootVariables { counted, selected: read("LoaderEntrySelected")? })
    }

    /// The booted entry's name, with the counter as the loader left it.
    pub fn booted(&self) -> Option<EntryName> {
        let counted = self.counted.as_deref().and_then(EntryName::parse);
        counted.or_else(|| self.selected.as_deref().and_then(EntryName::parse))
    }
}

/// Four bytes of attributes, then UTF-16 with a terminating zero.
fn decode(bytes: &[u8]) -> Option<String> {
    let text = bytes.get(4..)?;
    let units: Vec<u16> = text.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    let end = units.iter().position(|&u| u == 0).unwrap_or(units.len());
    String::from_utf16(&units[..end]).ok().filter(|s| !s.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counter;

    fn variable(text: &str) -> Vec<u8> {
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        bytes
    }

    #[test]
    fn reads_what_systemd_boot_writes() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(BootVariables::load(root.path()).unwrap(), BootVariables::default());
        let dir = root.path().join("sys/firmware/efi/efivars");
        std::fs::create_dir_all(&dir).unwrap();
        let path = r"\loader\entries\slipway-slipway-0123456789ab.0+2-1.conf";
        std::fs::write(dir.join(format!("LoaderBootCountPath-{VARIABLE_GUID}")), variable(path)).unwrap();
        let id = "slipway-slipway-0123456789ab.0.conf";
        std::fs::write(dir.join(format!("LoaderEntrySelected-{VARIABLE_GUID}")), variable(id)).unwrap();
        let variables = BootVariables::load(root.path()).unwrap();
        assert_eq!(variables.booted().unwrap().counter, Some(Counter { left: 2, done: 1 }));
        assert_eq!(variables.selected.as_deref(), Some(id));
    }

    #[test]
    fn nonsense_is_nothing() {
        for bytes in [&b""[..], b"abc", b"\x06\0\0\0", b"\x06\0\0\0\x00\xd8", b"\x06\0\0\0\0\0"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
