//! `generate`, a verb of `host` and of `slipway` alike: shell completions and manual pages, made from the command
//! line's own definition.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap_complete::Shell;
use sys::Exit;

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Writes completions for bash to stdout.
    Bash,
    /// Writes completions for fish to stdout.
    Fish,
    /// Writes completions for zsh to stdout.
    Zsh,
    /// Writes manual pages into a directory.
    Man {
        /// The directory; it must exist.
        dir: PathBuf,
    },
}

/// Makes it from `command`, the definition of the whole command line.
pub fn run(args: Args, mut command: clap::Command) -> anyhow::Result<Exit> {
    let shell = match args.what {
        What::Bash => Shell::Bash,
        What::Fish => Shell::Fish,
        What::Zsh => Shell::Zsh,
        What::Man { dir } => {
            clap_mangen::generate_to(command, &dir)
                .with_context(|| format!("writing manual pages to {}", dir.display()))?;
            return Ok(Exit::Done);
        }
    };
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    std::io::stdout().write_all(&script).context("writing to stdout")?;
    Ok(Exit::Done)
}
