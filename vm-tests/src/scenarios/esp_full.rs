//! No room for another boot entry.

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::world::State;

pub fn run(context: &Context<'_>) -> Result<()> {
    let server = context.updates()?;
    let guest = context.resume(State::Booted, &server)?;
    guest.shell("dd if=/dev/zero of=/efi/filler bs=1M status=none 2>/dev/null || true; sync -f /efi; df /efi")?;
    let entries = guest.shell("ls /efi/loader/entries")?;
    let text = guest.host_fails("upgrade", 3)?;
    ensure!(text.contains("EFI system partition"), "it does not say where: {text}");
    guest.nothing_staged()?;
    ensure!(guest.shell("ls /efi/loader/entries")? == entries, "the entries have changed");
    // With room again, it works.
    guest.shell("rm /efi/filler; sync -f /efi")?;
    guest.host_ok("upgrade")?;
    guest.staged(&context.artifacts().v2)
}
