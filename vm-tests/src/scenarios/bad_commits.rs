//! Updates that must not be taken, each from a repository with one thing wrong with it.

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::guest::Guest;
use crate::repository::Repository;
use crate::world::State;

/// The machine refuses, says why, and is as it was.
fn refused(guest: &Guest, words: &[&str]) -> Result<()> {
    let output = guest.host("upgrade")?;
    let text = format!("{}\n{}", output.text(), output.errors());
    ensure!(output.code == 1 || output.code == 3, "`host upgrade` ended with {}: {text}", output.code);
    let lower = text.to_lowercase();
    ensure!(words.iter().any(|w| lower.contains(w)), "the message names none of {words:?}: {text}");
    guest.nothing_staged()
}

pub fn unsigned(context: &Context<'_>) -> Result<()> {
    let repo = context.repository()?;
    repo.unsign(&context.artifacts().v2)?;
    let server = context.serve(&repo.path, &[])?;
    refused(&context.resume(State::Booted, &server)?, &["signature", "signed"])
}

pub fn wrong_key(context: &Context<'_>) -> Result<()> {
    let repo = context.repository()?;
    let v2 = &context.artifacts().v2;
    repo.unsign(v2)?;
    repo.sign_by_a_stranger(&context.world.slipway, v2)?;
    let server = context.serve(&repo.path, &[])?;
    refused(&context.resume(State::Booted, &server)?, &["signature", "signed", "trusted"])
}

/// Serves a copy with a damaged object, then the original, to the same machine.
fn damaged(context: &Context<'_>, damage: fn(Vec<u8>) -> Vec<u8>) -> Result<()> {
    let artifacts = context.artifacts();
    // An update from version to version would bring the object whole.
    let repo = context.repository()?.objects_only()?;
    let object = Repository::largest(&repo.new_objects(&artifacts.v1, &artifacts.v2)?)?;
    let good = std::fs::read(&object)?;
    repo.replace(&object, damage)?;
    let server = context.serve(&repo.path, &[])?;
    let guest = context.resume(State::Booted, &server)?;
    let name = object.file_stem().unwrap_or_default().to_string_lossy()[..8].to_owned();
    refused(&guest, &[&name, "object"])?;
    repo.replace(&object, |_| good)?;
    guest.host_ok("upgrade")?;
    guest.staged(&artifacts.v2)
}

pub fn truncated(context: &Context<'_>) -> Result<()> {
    damaged(context, |bytes| bytes[..bytes.len() / 2].to_vec())
}

pub fn tampered(context: &Context<'_>) -> Result<()> {
    damaged(context, |mut bytes| {
        // The middle of the compressed content.
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        bytes
    })
}
