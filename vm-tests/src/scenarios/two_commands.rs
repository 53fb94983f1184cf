//! Two administrators at once.

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::world::State;

pub fn run(context: &Context<'_>) -> Result<()> {
    // Slow enough for the second command to come in time.
    let server = context.serve(&context.artifacts().repo, &["--throttle", "100k"])?;
    let guest = context.resume(State::Booted, &server)?;
    guest.shell("systemd-run -q --unit=first host upgrade; sleep 2; systemctl is-active first")?;
    let text = guest.host_fails("upgrade", 3)?;
    ensure!(text.contains("another") || text.contains("lock") || text.contains("running"), "it said {text}");
    // Looking is always allowed.
    guest.status()?;
    guest.shell("systemctl is-active first")?;
    Ok(())
}
