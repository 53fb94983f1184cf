//! The summary of a remote: fetched, accepted, and never older than the last one.
//!
//! ```text
//! summary.sig, summary -> signatures -> not expired -> not older than the one seen last -> REPO/tmp/cache/summaries/REMOTE
//! ```

use std::path::Path;

use super::ways::Files;
use super::{PullError, Transport};
use crate::sign::trust::Trust;
use crate::summary::{MAX_SUMMARY, Summary};
use crate::value::{Dict, decode_dict};
use crate::{Error, Repo};

/// A summary that was accepted.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What it says.
    pub summary: Summary,
    /// The file.
    pub bytes: Vec<u8>,
    /// The file of its signatures.
    pub signatures: Option<Vec<u8>>,
}

/// Fetches the summary. Without a rule in `trust` there may be none, and nothing but its form is checked.
pub(super) fn fetch(
    files: &dyn Files,
    trust: &Trust,
    remote: Option<&str>,
    cache: Option<&Path>,
    repo: &Repo,
) -> Result<Option<Fetched>, PullError> {
    let mut fetched = once(files)?;
    if trust.is_empty() {
        return Ok(fetched);
    }
    // A publisher replaces the two files one after the other: whoever came in between looks again.
    if fetched.as_ref().is_some_and(|fetched| verify(fetched, trust, files).is_err()) {
        fetched = once(files)?;
    }
    let from = || files.locate("summary");
    let Some(fetched) = fetched else {
        let what = "the summary, which must be signed here".to_owned();
        return Err(PullError::Fetch { what, from: from(), source: Transport::NotFound });
    };
    verify(&fetched, trust, files)?;
    if let Some(expires) = fetched.summary.expires().filter(|time| *time < sys::clock::now()) {
        return Err(PullError::Expired { from: from(), expires });
    }
    if let Some(remote) = remote {
        not_older(&fetched, remote, cache, repo, from)?;
    }
    Ok(Some(fetched))
}

fn once(files: &dyn Files) -> Result<Option<Fetched>, PullError> {
    let signatures = files.small("summary.sig", MAX_SUMMARY)?;
    let Some(bytes) = files.small("summary", MAX_SUMMARY)? else { return Ok(None) };
    let summary = Summary::decode(&bytes).map_err(|source| PullError::Malformed {
        what: "the summary".to_owned(),
        from: files.locate("summary"),
        source,
    })?;
    Ok(Some(Fetched { summary, bytes, signatures }))
}

fn verify(fetched: &Fetched, trust: &Trust, files: &dyn Files) -> Result<(), PullError> {
    let from = files.locate("summary");
    let signatures = match &fetched.signatures {
        None => Dict::new(),
        Some(bytes) => decode_dict(bytes).map_err(|source| PullError::Malformed {
            what: "the signature of the summary".to_owned(),
            from: files.locate("summary.sig"),
            source,
        })?,
    };
    match trust.verify(&fetched.bytes, &signatures) {
        Ok(_) => Ok(()),
        Err(source) => Err(PullError::SummaryUntrusted { from, source }),
    }
}

/// Compares with the summaries that were accepted last from this remote, and remembers this one.
fn not_older(
    fetched: &Fetched,
    remote: &str,
    cache: Option<&Path>,
    repo: &Repo,
    from: impl Fn() -> String,
) -> Result<(), PullError> {
    // What the repository itself remembers counts, whatever directory is named besides.
    let own = repo.path().join("tmp/cache/summaries");
    let named = cache.map(|dir| dir.join("summaries"));
    let dir = named.as_ref().unwrap_or(&own);
    let path = dir.join(remote);
    let io = |e| Error::io(format!("remembering the summary in {}", path.display()), e);
    let time = fetched.summary.last_modified().unwrap_or(0);
    let mut same = false;
    for known in [Some(&own), named.as_ref()].into_iter().flatten() {
        let bytes = match std::fs::read(known.join(remote)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes.map_err(io)?,
        };
        same |= known == dir && bytes == fetched.bytes;
        // One that cannot be read says nothing.
        let newest = Summary::decode(&bytes).ok().and_then(|summary| summary.last_modified());
        if let Some(newest) = newest.filter(|newest| time < *newest) {
            return Err(PullError::Replayed { from: from(), time, newest });
        }
    }
    if same {
        return Ok(());
    }
    std::fs::create_dir_all(dir).map_err(io)?;
    Ok(sys::file::replace(&path, &fetched.bytes, 0o644).map_err(io)?)
}
