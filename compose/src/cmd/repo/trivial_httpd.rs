//! `repo trivial-httpd` is left out, by name.

use std::ffi::OsString;

use sys::{Exit, Refused};

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

pub fn run(_: &At, _: &Args) -> anyhow::Result<Exit> {
    let hint = "`slipway serve DIR` serves a directory over HTTP";
    Err(Refused::with_hint("the verb trivial-httpd is left out (docs/ostree.md)", hint).into())
}
