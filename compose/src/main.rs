//! `slipway`: the build side.

mod cmd;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let cli = cmd::Cli::parse();
    sys::main_exit("slipway", cmd::run(cli))
}
