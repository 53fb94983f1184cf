//! Options whose values need reading.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use store::{Dict, Value, text};

/// A time: `@` and seconds since 1970, or anything that `date --date` understands.
pub fn time(value: &str) -> anyhow::Result<u64> {
    if let Some(Ok(seconds)) = value.strip_prefix('@').map(str::parse) {
        return Ok(seconds);
    }
    let output = sys::Cmd::new("date").args(["+%s", "--date", value]).run();
    let seconds = output.ok().and_then(|output| output.text().trim().parse().ok());
    seconds.with_context(|| format!("{value:?} is not a time"))
}

/// `KEY=VALUE`.
pub fn pair(text: &str) -> anyhow::Result<(&str, &str)> {
    text.split_once('=').with_context(|| format!("{text:?} is not KEY=VALUE"))
}

/// Adds `KEY=VALUE` to a dictionary, the value a string.
pub fn string_into(dict: &mut Dict, text: &str) -> anyhow::Result<()> {
    let (key, value) = pair(text)?;
    dict.insert(key.to_owned(), Value::String(value.to_owned()));
    Ok(())
}

/// Adds `KEY=VALUE` to a dictionary, the value in GVariant's text format.
pub fn value_into(dict: &mut Dict, text: &str) -> anyhow::Result<()> {
    let (key, value) = pair(text)?;
    let value = text::parse(value).with_context(|| format!("the value of {key}"))?;
    dict.insert(key.to_owned(), value);
    Ok(())
}

/// A boolean as the stock tool's configuration and `--fsync` have them.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" | "none" => Ok(false),
        _ => Err("yes or no".to_owned()),
    }
}

/// `--cache-dir`: a directory that is there.
pub fn directory(dir: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    match dir.filter(|dir| !dir.is_dir()) {
        Some(dir) => bail!("{} is not a directory", dir.display()),
        None => Ok(dir.map(Path::to_owned)),
    }
}

/// The lines of a file.
pub fn lines(path: &Path) -> anyhow::Result<HashSet<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The name of an extended attribute and the like may not be text: shown as the type string says.
pub fn xattrs(xattrs: &store::Xattrs) -> anyhow::Result<String> {
    let bytes = store::object::encode_xattrs(xattrs);
    let Ok(text) = text::print("a(ayay)", &bytes, text::Order::Little, true) else { bail!("extended attributes") };
    Ok(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_read() {
        assert_eq!(super::time("@1700000000").unwrap(), 1_700_000_000);
        assert_eq!(super::time("2023-11-14 22:13:20 +0000").unwrap(), 1_700_000_000);
        for nonsense in ["no time at all", "1700000000"] {
            assert!(super::time(nonsense).is_err(), "{nonsense}");
        }
    }
}
