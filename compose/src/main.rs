//! `slipway`: the build side.

mod cmd;

fn main() -> std::process::ExitCode {
    cmd::main()
}
