//! A pull takes a static delta where the remote offers one from a commit that is here.
//!
//! ```text
//! delta-indexes/…  ->  summary  ->  deltas/…/superblock of the likeliest pair      which deltas there are
//! superblock  ->  parts, while the one before is applied  ->  fallbacks
//! ```

use std::io::{self, Read};

use super::apply::apply_parts;
use super::{DeltaError, DeltaName, Superblock, index_path};
use crate::gv::Malformed;
use crate::object::{MAX_METADATA, path_with_extension};
use crate::pull::{Arrived, Context, PullError, Transport};
use crate::repo::FilezError;
use crate::summary::{STATIC_DELTAS, Summary};
use crate::value::{self, Dict, Value};
use crate::{Checksum, Error, ObjectType};

/// The way, for the table of them.
pub(crate) fn take(context: &Context<'_>) -> Result<Arrived, PullError> {
    let Some((name, digest)) = choose(context)? else { return Ok(Arrived::NotOffered) };
    let path = name.superblock();
    let Some(bytes) = context.files.small(&path, MAX_METADATA)? else { return Ok(Arrived::NotOffered) };
    context.arrived(bytes.len() as u64);
    let from = || context.files.locate(&path);
    let malformed = |source| PullError::Malformed { what: format!("static delta {name}"), from: from(), source };
    if let Some(digest) = digest.filter(|digest| *digest != Checksum::of(&bytes)) {
        let why = format!("its superblock has the checksum {}, not {digest} as its index says", Checksum::of(&bytes));
        return Err(malformed(Malformed(why)));
    }
    let superblock = Superblock::decode(bytes).map_err(malformed)?;
    if superblock.name != name {
        return Err(malformed(Malformed(format!("it is the delta {}", superblock.name))));
    }
    let failed = |source| match source {
        DeltaError::Store(error @ Error::Io { .. }) => PullError::Store(error),
        source => PullError::Delta { from: from(), source: Box::new(source) },
    };
    if context.repo.config_value("core", "sign-verify-deltas")?.as_deref() == Some("true") {
        superblock.verify(context.keyring.unwrap_or(&crate::sign::Keyring::default())).map_err(failed)?;
    }
    let wanted = |(index, part): (usize, &super::Part)| {
        let here = part.objects.iter().all(|(kind, checksum)| context.staging.has(*kind, checksum));
        if here || superblock.inline_part(index).is_some() { 0 } else { part.size }
    };
    let parts = superblock.parts.iter().enumerate().map(wanted).fold(0u64, u64::saturating_add);
    let missing = || superblock.fallbacks.iter().filter(|f| !context.staging.has(f.kind, &f.checksum));
    context.expect(missing().fold(parts, |sum, fallback| sum.saturating_add(fallback.size)));

    let open = |index: usize| -> io::Result<Box<dyn Read + Send + '_>> {
        let opened = context.files.open(&name.part(index), 0, None).map_err(io::Error::other)?;
        opened.map(|opened| opened.reader).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is not there"))
    };
    let count = |bytes| context.arrived(bytes);
    let applied = apply_parts(context.staging, &superblock, &open, context.threads, &count).map_err(failed)?;
    context.wrote(applied.objects);
    let mut all = true;
    for fallback in missing() {
        all &= fallback.kind == ObjectType::File && fetch(context, &fallback.checksum, fallback.unpacked)?;
    }
    Ok(if all { Arrived::Done } else { Arrived::Partly })
}

/// Fetches an object that the delta leaves out; false if it is not there as an archive has it.
fn fetch(context: &Context<'_>, checksum: &Checksum, unpacked: u64) -> Result<bool, PullError> {
    let path = format!("objects/{}", path_with_extension(checksum, "filez"));
    let Some(mut opened) = context.files.open(&path, 0, None)? else { return Ok(false) };
    let from = || context.files.locate(&path);
    let mut reader = Counted { inner: &mut *opened.reader, context };
    match context.staging.write_filez(checksum, &mut reader, Some(unpacked)) {
        Ok(_) => context.wrote(1),
        Err(FilezError::Stream(error)) => {
            let (what, source) = (format!("file {checksum}"), Transport::Io(error));
            return Err(PullError::Fetch { what, from: from(), source });
        }
        Err(FilezError::Store(Error::Mismatch { kind, expected, found })) => {
            return Err(PullError::Mismatch { kind, expected, found, from: from() });
        }
        Err(FilezError::Store(error)) => return Err(error.into()),
    }
    Ok(true)
}

struct Counted<'a, 'c> {
    inner: &'a mut (dyn Read + Send),
    context: &'a Context<'c>,
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.context.arrived(count as u64);
        Ok(count)
    }
}

/// The delta to take: from the likeliest commit that is here; from nothing only where nothing is here, because it
/// holds everything. With the checksum of its superblock, where somebody says it.
fn choose(context: &Context<'_>) -> Result<Option<(DeltaName, Option<Checksum>)>, PullError> {
    let to = context.to.checksum;
    let mut names: Vec<DeltaName> = context.bases.iter().map(|from| DeltaName { from: Some(*from), to }).collect();
    if names.is_empty() {
        names.push(DeltaName { from: None, to });
    }
    let Some(offered) = offered(context, &to)? else {
        // Nobody says; only one place is tried.
        return Ok(names.first().map(|name| (*name, None)));
    };
    let digest = |name: &DeltaName| offered.get(&name.to_string())?.as_bytes().and_then(Checksum::from_bytes);
    Ok(names.into_iter().find_map(|name| Some((name, Some(digest(&name)?)))))
}

/// The deltas that the remote says it has, if it says anything.
fn offered(context: &Context<'_>, to: &Checksum) -> Result<Option<Dict>, PullError> {
    let path = index_path(to);
    if let Some(bytes) = context.files.small(&path, MAX_METADATA)? {
        let index = value::decode_dict(&bytes);
        return Ok(Some(deltas(index, context, &path)?.unwrap_or_default()));
    }
    let Some(bytes) = context.files.small("summary", MAX_METADATA)? else { return Ok(None) };
    let facts = Summary::decode(&bytes).map(|summary| summary.facts);
    // A summary may leave deltas out.
    deltas(facts, context, "summary")
}

fn deltas(facts: Result<Dict, Malformed>, context: &Context<'_>, path: &str) -> Result<Option<Dict>, PullError> {
    let malformed =
        |source| PullError::Malformed { what: "a list of deltas".into(), from: context.files.locate(path), source };
    match facts.map_err(malformed)?.remove(STATIC_DELTAS) {
        Some(Value::Dict(deltas)) => Ok(Some(deltas)),
        None => Ok(None),
        Some(_) => Err(malformed(Malformed(format!("{STATIC_DELTAS} is not a dictionary")))),
    }
}
