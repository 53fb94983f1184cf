//! What a repository's `config` says about writing to it.
//!
//! ```text
//! [core]     fsync=true  locking=true  lock-timeout-secs=300 (-1: for ever)
//!            min-free-space-percent=3 | min-free-space-size=500MB
//! [archive]  zlib-level=6
//! [ex-integrity], [remote "x"] …   are read by those who need them
//! ```

use std::time::Duration;

use super::key_of;

/// Room that must stay free on the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserve {
    /// Of the whole file system.
    Percent(u64),
    /// Bytes.
    Bytes(u64),
}

/// How a repository is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub fsync: bool,
    pub locking: bool,
    /// `None` waits for ever.
    pub lock_timeout: Option<Duration>,
    pub reserve: Reserve,
    /// 0 to 9, as zlib counts.
    pub zlib_level: u8,
}

impl Settings {
    /// Reads them; the error says which key cannot be understood.
    pub fn parse(config: &str) -> Result<Settings, String> {
        let flag = |key: &str| match key_of(config, "core", key) {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{key}={other} is neither true nor false")),
        };
        let seconds: i64 = number(config, "core", "lock-timeout-secs")?.unwrap_or(300);
        let level: u8 = number(config, "archive", "zlib-level")?.unwrap_or(6);
        if level > 9 {
            return Err(format!("zlib-level={level} is more than 9"));
        }
        let percent: u64 = number(config, "core", "min-free-space-percent")?.unwrap_or(3);
        if percent > 99 {
            return Err(format!("min-free-space-percent={percent} is more than 99"));
        }
        let reserve = match key_of(config, "core", "min-free-space-size") {
            Some(text) => {
                Reserve::Bytes(size(text).ok_or_else(|| format!("min-free-space-size={text} is not like 500MB"))?)
            }
            None => Reserve::Percent(percent),
        };
        Ok(Settings {
            fsync: flag("fsync")?,
            locking: flag("locking")?,
            lock_timeout: u64::try_from(seconds).ok().map(Duration::from_secs),
            reserve,
            zlib_level: level,
        })
    }
}

fn number<T: std::str::FromStr>(config: &str, section: &str, key: &str) -> Result<Option<T>, String> {
    let Some(text) = key_of(config, section, key) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{key}={text} is not a number it can have"))
}

fn size(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let shift = match unit {
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_libostrees() {
        let settings = Settings::parse("[core]\nrepo_version=1\n").unwrap();
        assert!(settings.fsync && settings.locking);
        assert_eq!(settings.lock_timeout, Some(Duration::from_secs(300)));
        assert_eq!((settings.reserve, settings.zlib_level), (Reserve::Percent(3), 6));
    }

    #[test]
    fn keys_are_read_and_nonsense_is_refused() {
        let text = "[core]\nfsync=false\nlock-timeout-secs=-1\nmin-free-space-size=2GB\n[archive]\nzlib-level=9\n";
        let settings = Settings::parse(text).unwrap();
        assert_eq!((settings.fsync, settings.lock_timeout), (false, None));
        assert_eq!((settings.reserve, settings.zlib_level), (Reserve::Bytes(2 << 30), 9));
        for bad in [
            "fsync=maybe",
            "lock-timeout-secs=x",
            "min-free-space-percent=100",
            "min-free-space-size=5",
            "min-free-space-size=5€",
        ] {
            assert!(Settings::parse(&format!("[core]\n{bad}\n")).is_err(), "{bad}");
        }
        assert!(Settings::parse("[archive]\nzlib-level=10\n").is_err());
    }
}
