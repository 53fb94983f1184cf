//! `repo checksum`: the name that a file would have as an object.

use std::path::PathBuf;

use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File, symbolic link or directory.
    path: PathBuf,
    /// Leave extended attributes out.
    #[arg(long)]
    ignore_xattrs: bool,
}

pub fn run(_: &At, args: &Args) -> anyhow::Result<Exit> {
    let options = store::local::Options { ignore_xattrs: args.ignore_xattrs, ..Default::default() };
    println!("{}", store::local::checksum(&args.path, &options)?);
    Ok(Exit::Done)
}
