//! Which accelerator a machine gets.
//!
//! `/dev/kvm` existing proves little: in nested and paravirtual machines it may accept a guest and then hang it or end
//! with an internal error. So KVM is tried once per boot of this machine: the firmware has to reach its boot menu within
//! a few seconds. The verdict is cached together with the boot id and QEMU's version.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sys::Cmd;

use crate::error::{Error, Result, io};
use crate::firmware::Firmware;

/// The program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor itself.
    Kvm,
    /// QEMU's translator: about ten times slower, works everywhere.
    Tcg,
}

impl Accel {
    /// The QEMU arguments.
    pub(crate) fn args(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", TCG_CPU],
        }
    }

    fn parse(word: &str) -> Option<Accel> {
        match word {
            "kvm" => Some(Accel::Kvm),
            "tcg" => Some(Accel::Tcg),
            _ => None,
        }
    }
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "KVM",
            Accel::Tcg => "TCG (emulation)",
        })
    }
}

/// Emulating vector units costs more than the wider instructions save: the plain 64-bit model boots fastest.
const TCG_CPU: &str = "qemu64";

/// How long the firmware may take under KVM; it needs 1–3 s where KVM works.
const PATIENCE: Duration = Duration::from_secs(12);

/// The accelerator and how it was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What to use.
    pub accel: Accel,
    /// Why, in a few words.
    pub why: String,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    boot_id: String,
    qemu: String,
    #[serde(flatten)]
    choice: Choice,
}

/// Chooses: `SLIPWAY_ACCEL`, else what the cache says about this boot, else a trial.
pub fn choose(firmware: &Firmware) -> Result<Choice> {
    let version = qemu_version()?;
    let choice = match std::env::var("SLIPWAY_ACCEL").ok().filter(|v| !v.is_empty()) {
        Some(word) => {
            let accel = Accel::parse(&word)
                .ok_or_else(|| Error::Config(format!("SLIPWAY_ACCEL={word}: only kvm and tcg are known")))?;
            Choice { accel, why: "SLIPWAY_ACCEL says so".to_owned() }
        }
        None => cached(&version, &cache_file(), || trial(firmware))?,
    };
    if choice.accel == Accel::Tcg && major(&version).is_some_and(|major| major < 8) {
        return Err(Error::QemuOld { found: version });
    }
    Ok(choice)
}

/// QEMU's version, as in `10.0.2`.
pub(crate) fn qemu_version() -> Result<String> {
    let output = Cmd::new(QEMU).arg("--version").output().map_err(|_| Error::QemuMissing(QEMU))?;
    let text = output.text();
    let version = text.split_whitespace().nth(3).unwrap_or_default();
    Ok(version.trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

fn cache_file() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("slipway/accelerator.json")
}

fn cached(version: &str, file: &Path, trial: impl FnOnce() -> Result<Choice>) -> Result<Choice> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let known = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Cached>(&bytes).ok());
    if let Some(known) = known.filter(|k| k.boot_id == boot_id && k.qemu == version) {
        return Ok(known.choice);
    }
    let choice = trial()?;
    let entry = Cached { boot_id, qemu: version.to_owned(), choice: choice.clone() };
    // A cache that cannot be written only costs the trial again.
    if let (Some(dir), Ok(bytes)) = (file.parent(), serde_json::to_vec_pretty(&entry)) {
        let _ = std::fs::create_dir_all(dir);
        let _ = sys::file::replace(file, &bytes, 0o644);
    }
    Ok(choice)
}

fn trial(firmware: &Firmware) -> Result<Choice> {
    let tcg = |why: String| Ok(Choice { accel: Accel::Tcg, why });
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return tcg("there is no /dev/kvm".to_owned());
    }
    if let Err(e) = std::fs::OpenOptions::new().read(true).write(true).open(kvm) {
        return tcg(format!("/dev/kvm cannot be opened: {e}"));
    }
    let dir = tempfile::tempdir().map_err(io("making", &std::env::temp_dir()))?;
    let serial = dir.path().join("serial");
    let flash = |unit: u8, path: &Path, rest: &str| {
        format!("if=pflash,format=raw,unit={unit},file={},{rest}", crate::builder::comma(path))
    };
    let command = Cmd::new("setpriv")
        .args(["--pdeathsig", "KILL", QEMU, "-M", "q35", "-m", "256", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-nic", "none"])
        .args(Accel::Kvm.args())
        .args(["-drive", &flash(0, &firmware.code, "readonly=on"), "-drive", &flash(1, &firmware.vars, "snapshot=on")])
        .args(["-serial", &format!("file:{}", serial.display())]);
    let mut command = command.to_command();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = crate::spawn::spawn(command) else {
        return tcg("QEMU did not start with KVM".to_owned());
    };
    let start = Instant::now();
    let choice = loop {
        let text = crate::serial::plain(&std::fs::read(&serial).unwrap_or_default());
        if text.contains("BdsDxe") || text.contains("Shell") {
            break Choice { accel: Accel::Kvm, why: "the firmware runs under KVM".to_owned() };
        }
        if let Ok(Some(status)) = child.try_wait() {
            break Choice { accel: Accel::Tcg, why: format!("QEMU with KVM ended with {status}") };
        }
        if start.elapsed() > PATIENCE {
            let why = format!("under KVM the firmware hung for {} s", PATIENCE.as_secs());
            break Choice { accel: Accel::Tcg, why };
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let _ = child.kill();
    let _ = child.wait();
    Ok(choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_holds_for_one_boot_and_one_version() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/accelerator.json");
        let choice = Choice { accel: Accel::Tcg, why: "tried".to_owned() };
        let tried = || Ok(choice.clone());
        assert_eq!(cached("10.0.2", &file, tried).unwrap(), choice);
        assert_eq!(cached("10.0.2", &file, || panic!("tried again")).unwrap(), choice);
        let other = Choice { accel: Accel::Kvm, why: "new".to_owned() };
        assert_eq!(cached("10.1.0", &file, || Ok(other.clone())).unwrap(), other);
        std::fs::write(&file, "not json").unwrap();
        assert_eq!(cached("10.1.0", &file, tried).unwrap(), choice);
    }

    #[test]
    fn version_numbers() {
        assert_eq!(major("7.2.11"), Some(7));
        assert_eq!(major("nonsense"), None);
        let error = Error::QemuOld { found: "7.2.11".to_owned() }.to_string();
        assert!(error.contains("bookworm-backports"), "{error}");
    }
}
