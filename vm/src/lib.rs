//! QEMU machines: what `slipway vm` and the scenarios share.
//!
//! ```no_run
//! # fn main() -> vm::Result<()> {
//! use std::time::Duration;
//! let machine = vm::Builder::new("demo").boot_disk("host.raw").start()?;
//! machine.wait_ready(Duration::from_secs(300))?;
//! assert_eq!(machine.shell("systemctl --failed --quiet")?, "");
//! machine.reboot(Duration::from_secs(300))?;
//! # Ok(()) }
//! ```
//!
//! ```text
//! builder    vm::Builder   typed description → QEMU's command line
//! machine    vm::Machine   start, exec, push, pull, reboot, power cut, snapshots
//! channel    the shell in the guest over virtio-serial, with nothing of it in the image
//! accel      KVM where it works (tried once per boot), emulation otherwise
//! firmware   OVMF          disk  overlays       qmp  QEMU's control socket     sshkey  a key pair for each machine
//! registry   machines that outlive the process that started them (`slipway vm run --detach`)
//! ```

mod accel;
mod builder;
mod channel;
mod connect;
mod disk;
mod error;
mod firmware;
mod machine;
mod process;
mod qmp;
pub mod registry;
mod serial;
mod spawn;
mod sshkey;

pub use accel::{Accel, Choice, choose};
pub use builder::{Builder, Console, Forward, GuestForward, Kernel, Network};
pub use channel::Stream;
pub use connect::connect;
pub use disk::{Disk, Writes, format, overlay};
pub use error::{Error, Result, Tail};
pub use firmware::Firmware;
pub use machine::{Machine, Request, quote};
pub use serial::plain;
