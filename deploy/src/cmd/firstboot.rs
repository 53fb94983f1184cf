//! `host firstboot`: run by `slipway-firstboot.service` at each boot.

use ::deploy::firstboot;
use sys::{Exit, clock};

use super::print_json;
use super::session::Root;

/// The second half of the manual page.
pub const CREDENTIALS: &str = "\
Credentials are applied once, at the first boot. They come from SMBIOS strings (io.systemd.credential:NAME=VALUE) or \
from the image (slipway image --credential NAME=FILE):

  ssh.authorized_keys.root         keys that may log in as root
  passwd.hashed-password.root      root's password, hashed (openssl passwd -6)
  firstboot.hostname               the host's name
  network.network.NAME             a file for systemd-networkd; also network.netdev.NAME and network.link.NAME
  slipway.remote-url               where updates come from
  slipway.remote-ref               which ref they follow
  tmpfiles.extra                   files, as lines of tmpfiles.d(5)
  systemd.extra-unit.NAME          a unit; it is enabled and started if it has an [Install] section
  systemd.unit-dropin.UNIT         a drop-in for a unit

Files and units in SMBIOS strings (the last three) are applied by systemd itself, at each boot on which they are given.

There is no default password. What was applied is shown by `host status --verbose`.";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print what was applied as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(root: &Root, args: Args) -> anyhow::Result<Exit> {
    let outcome = firstboot::run(root.paths().root(), clock::now())?;
    for entry in outcome.record.ignored.iter().filter(|_| outcome.first) {
        eprintln!("credential {} ({}) is ignored: {}", entry.name, entry.source, entry.what);
    }
    if outcome.way_in.is_none() {
        eprintln!("nobody can log in to this machine: no account has an SSH key or a password");
    }
    if args.json {
        let mut value = serde_json::to_value(&outcome.record)?;
        value["first"] = outcome.first.into();
        value["way_in"] = serde_json::to_value(&outcome.way_in)?;
        print_json(&value);
    }
    Ok(Exit::Done)
}
