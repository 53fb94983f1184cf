//! JSON files with a `format`: readers keep unknown fields and refuse only a higher major number.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The format that this program writes.
pub const FORMAT: &str = "1.0";

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(PathBuf, #[source] std::io::Error),
    /// It is not what it should be.
    #[error("{0} is damaged")]
    Malformed(PathBuf, #[source] serde_json::Error),
    /// Written by a program from the future.
    #[error("{0} has format {1}; this program reads format 1: use a newer `host`")]
    TooNew(PathBuf, String),
}

/// Reads a file; a missing one is `None`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, JsonError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(JsonError::Io(path.to_owned(), e)),
    };
    let malformed = |e| JsonError::Malformed(path.to_owned(), e);
    let value: Value = serde_json::from_slice(&bytes).map_err(malformed)?;
    check_format(&value).map_err(|format| JsonError::TooNew(path.to_owned(), format))?;
    serde_json::from_value(value).map(Some).map_err(malformed)
}

/// A document without a format counts as 1.0.
pub(crate) fn check_format(value: &Value) -> Result<(), String> {
    let format = value.get("format").and_then(Value::as_str).unwrap_or(FORMAT);
    let major = format.split('.').next().and_then(|m| m.parse::<u32>().ok());
    if major == Some(1) { Ok(()) } else { Err(format.to_owned()) }
}

/// Replaces a file durably.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), JsonError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| JsonError::Malformed(path.to_owned(), e))?;
    text.push(b'\n');
    sys::file::replace(path, &text, 0o644).map_err(|e| JsonError::Io(path.to_owned(), e))
}
