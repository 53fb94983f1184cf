//! `repo find-remotes` is left out, by name: refs are found by the remotes that the configuration names.

use std::ffi::OsString;

use sys::{Exit, Refused};

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

pub fn run(_: &At, _: &Args) -> anyhow::Result<Exit> {
    let hint = "`slipway repo remote refs NAME` shows what a remote has, `slipway repo pull NAME REF` fetches it";
    Err(Refused::with_hint("the verb find-remotes is left out (docs/ostree.md)", hint).into())
}
