//! `repo init`: an empty repository.

use store::{Mode, Repo};
use sys::Exit;

use super::At;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// archive or bare-user.
    #[arg(long, default_value = "archive", value_parser = mode)]
    mode: Mode,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "archive" | "archive-z2" => Ok(Mode::Archive),
        "bare-user" => Ok(Mode::BareUser),
        _ => Err("archive or bare-user".to_owned()),
    }
}

pub fn run(at: &At, args: &Args) -> anyhow::Result<Exit> {
    Repo::create(at.path()?, args.mode)?;
    Ok(Exit::Done)
}
