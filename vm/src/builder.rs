//! What a machine is made of, and the QEMU command line for it.
//!
//! ```text
//! DIR/       root.qcow2 …   overlays, one for each disk that is written to one
//!            vars.qcow2     UEFI variables
//!            credentials/N  one SMBIOS string each (never on the command line, where anybody could read them)
//!            serial.log     everything the serial console printed, over all restarts
//!            qemu.log       QEMU's own messages
//!            ssh-key[.pub]  where a key pair was asked for
//! SOCKETS/   control.sock stdout.sock stderr.sock qmp.sock       (a short path: at most 107 bytes)
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;

use crate::accel::Choice;
use crate::channel;
use crate::disk::{self, Disk, Writes};
use crate::error::{Error, Result, io};
use crate::firmware::Firmware;
use crate::machine::Machine;

/// A port of the host that leads into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP port on this machine's loopback address.
    pub host: u16,
    /// TCP port in the guest.
    pub guest: u16,
}

/// An address that the guest sees and that leads to a service of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestForward {
    /// The address that the guest connects to, as in `10.0.2.100:80`; inside 10.0.2.0/24.
    pub guest: std::net::SocketAddrV4,
    /// The command to run for each connection, its standard input and output joined with it.
    pub command: Vec<String>,
}

impl GuestForward {
    /// Leads from `guest` to a TCP address of this side, through `slipway vm connect` (or any program whose arguments
    /// end in `vm connect HOST:PORT`).
    pub fn tcp(guest: std::net::SocketAddrV4, slipway: &Path, to: &str) -> GuestForward {
        let command = vec![slipway.to_string_lossy().into_owned(), "vm".into(), "connect".into(), to.to_owned()];
        GuestForward { guest, command }
    }
}

/// The network of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Host→guest ports.
    pub forwards: Vec<Forward>,
    /// Guest→host ports.
    pub guest_forwards: Vec<GuestForward>,
    /// Whether the guest reaches anything beyond the forwards.
    pub internet: bool,
}

/// Where the serial console goes, besides the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Console {
    /// Nowhere else.
    #[default]
    Log,
    /// The terminal of this process (Ctrl-A X ends the machine).
    Terminal,
}

/// Boots a kernel without firmware and loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// Kernel arguments.
    pub arguments: String,
}

/// Describes a machine; [`Builder::start`] makes it.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) name: String,
    pub(crate) memory: u32,
    pub(crate) cpus: u32,
    pub(crate) disks: Vec<Disk>,
    pub(crate) network: Option<Network>,
    pub(crate) credentials: Vec<(String, Vec<u8>)>,
    pub(crate) console: Console,
    pub(crate) kernel: Option<Kernel>,
    pub(crate) vars: Option<PathBuf>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) sockets: Option<PathBuf>,
    pub(crate) resume: Option<PathBuf>,
    pub(crate) outlives_us: bool,
    pub(crate) ssh_key: bool,
    pub(crate) command_timeout: Duration,
}

impl Builder {
    /// A machine with 2 GiB, 2 processors, UEFI firmware, no disk and no network.
    pub fn new(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            memory: 2048,
            cpus: 2,
            disks: Vec::new(),
            network: None,
            credentials: Vec::new(),
            console: Console::Log,
            kernel: None,
            vars: None,
            dir: None,
            sockets: None,
            resume: None,
            outlives_us: false,
            ssh_key: false,
            command_timeout: Duration::from_secs(120),
        }
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory = mib;
        self
    }

    /// Virtual processors.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// The disk to boot from, written to an overlay.
    #[must_use]
    pub fn boot_disk(self, image: impl Into<PathBuf>) -> Self {
        self.disk(Disk { path: image.into(), serial: "root".to_owned(), writes: Writes::Overlay, size: None })
    }

    /// Adds a disk. The first one is booted from.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// A network card, reaching only what `network` names.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Adds a host→guest forward to the machine's network.
    #[must_use]
    pub fn forward(mut self, forward: Forward) -> Self {
        self.network.get_or_insert_default().forwards.push(forward);
        self
    }

    /// A system credential for the guest's systemd.
    #[must_use]
    pub fn credential(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.credentials.push((name.into(), value.into()));
        self
    }

    /// Shows the console somewhere else than in the log.
    #[must_use]
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// Boots this kernel directly.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// Starts from a copy of these UEFI variables instead of empty ones.
    #[must_use]
    pub fn vars(mut self, image: impl Into<PathBuf>) -> Self {
        self.vars = Some(image.into());
        self
    }

    /// Keeps the machine's files here (default: a temporary directory that goes with the machine). Files that exist
    /// already, overlays among them, are used again.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Makes the sockets here (default: a temporary directory).
    #[must_use]
    pub fn sockets(mut self, dir: impl Into<PathBuf>) -> Self {
        self.sockets = Some(dir.into());
        self
    }

    /// Continues from the state that [`Machine::suspend`] wrote; the description must otherwise be the same.
    #[must_use]
    pub fn resume(mut self, state: impl Into<PathBuf>) -> Self {
        self.resume = Some(state.into());
        self
    }

    /// Lets the machine live on when this process ends.
    #[must_use]
    pub fn outlives_us(mut self) -> Self {
        self.outlives_us = true;
        self
    }

    /// Makes an SSH key pair and lets it in as root (credential `ssh.authorized_keys.root`).
    #[must_use]
    pub fn ssh_key(mut self) -> Self {
        self.ssh_key = true;
        self
    }

    /// How long a command may take unless its request says otherwise (default: 120 s).
    #[must_use]
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Prepares the files and starts QEMU. The guest is not up yet: see [`Machine::wait_boot`], [`Machine::wait_ready`].
    pub fn start(self) -> Result<Machine> {
        Machine::start(self)
    }

    /// Makes what the command line refers to: overlays, variables, credentials, keys. What exists is left alone, so a
    /// kept machine goes on with its disks.
    pub(crate) fn prepare(&mut self, dir: &Path, firmware: Option<&Firmware>) -> Result<()> {
        if self.disks.is_empty() && self.kernel.is_none() {
            return Err(Error::Config("a machine needs a disk to boot from".to_owned()));
        }
        for disk in &self.disks {
            let overlay = dir.join(format!("{}.qcow2", disk.serial));
            if disk.writes == Writes::Overlay && !overlay.exists() {
                disk::overlay(&disk.path, &overlay, disk.size)?;
            }
        }
        if let Some(firmware) = firmware {
            let vars = dir.join("vars.qcow2");
            if !vars.exists() {
                disk::copy(self.vars.as_ref().unwrap_or(&firmware.vars), &vars)?;
            }
        }
        if self.ssh_key {
            let key = dir.join("ssh-key");
            let public = match std::fs::read_to_string(key.with_extension("pub")) {
                Ok(public) => public,
                Err(_) => crate::sshkey::write_new(&key, &format!("slipway vm {}", self.name))?,
            };
            match self.credentials.iter_mut().find(|(name, _)| name == "ssh.authorized_keys.root") {
                Some((_, keys)) => {
                    keys.push(b'\n');
                    keys.extend_from_slice(public.as_bytes());
                }
                None => self.credentials.push(("ssh.authorized_keys.root".to_owned(), public.into_bytes())),
            }
            self.ssh_key = false;
        }
        let credentials = dir.join("credentials");
        sys::file::remove_tree(&credentials).map_err(io("emptying", &credentials))?;
        std::fs::create_dir_all(&credentials).map_err(io("making", &credentials))?;
        for (number, (name, value)) in self.all_credentials().iter().enumerate() {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(Error::Config(format!("{name:?} cannot be the name of a credential")));
            }
            let text = format!(
                "io.systemd.credential.binary:{name}={}",
                base64::engine::general_purpose::STANDARD.encode(value)
            );
            let file = credentials.join(number.to_string());
            sys::file::replace(&file, text.as_bytes(), 0o600).map_err(io("writing", &file))?;
        }
        Ok(())
    }

    fn all_credentials(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = channel::credentials();
        all.extend(self.credentials.iter().cloned());
        all
    }

    /// QEMU's arguments. Pure: everything in `dir` exists already.
    pub(crate) fn arguments(
        &self,
        dir: &Path,
        sockets: &Path,
        firmware: Option<&Firmware>,
        choice: &Choice,
    ) -> Result<Vec<OsString>> {
        let mut args = Args::default();
        args.add(["-name", &format!("guest={}", self.name.replace(',', ",,"))]);
        args.add(["-M", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]);
        args.add(choice.accel.args());
        args.add(["-m", &self.memory.to_string(), "-smp", &self.cpus.to_string(), "-rtc", "base=utc"]);
        args.add(["-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset"]);
        if let Some(firmware) = firmware {
            args.add(["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={}", comma(&firmware.code))]);
            args.add(["-drive", &format!("if=pflash,format=qcow2,unit=1,file={}", comma(&dir.join("vars.qcow2")))]);
        }
        if let Some(kernel) = &self.kernel {
            args.path("-kernel", &kernel.kernel);
            args.path("-initrd", &kernel.initrd);
            args.add(["-append", &kernel.arguments]);
        }
        for (number, disk) in self.disks.iter().enumerate() {
            let overlay = dir.join(format!("{}.qcow2", disk.serial));
            let (file, format, mode) = match disk.writes {
                Writes::Overlay => (overlay.as_path(), "qcow2", ""),
                Writes::Direct => (disk.path.as_path(), disk::format(&disk.path)?, ""),
                Writes::Refused => (disk.path.as_path(), disk::format(&disk.path)?, ",readonly=on"),
            };
            // The page cache of this machine survives the death of the guest, so a power cut loses nothing that the
            // guest's disk had acknowledged; only a crash of this machine would.
            args.add([
                "-drive",
                &format!(
                    "if=none,id=disk{number},format={format},cache=unsafe,discard=unmap,file={}{mode}",
                    comma(file)
                ),
                "-device",
                &format!("virtio-blk-pci,drive=disk{number},serial={},bootindex={}", disk.serial, number + 1),
            ]);
        }
        args.add(["-device", "virtio-serial-pci"]);
        for port in channel::PORTS {
            let path = comma(&sockets.join(format!("{port}.sock")));
            args.add(["-chardev", &format!("socket,id={port},server=on,wait=off,path={path}")]);
            args.add(["-device", &format!("virtserialport,chardev={port},name=org.slipway.{port}")]);
        }
        let log = comma(&dir.join("serial.log"));
        args.add([
            "-chardev",
            &match self.console {
                Console::Log => format!("file,id=console,append=on,path={log}"),
                Console::Terminal => format!("stdio,id=console,mux=on,signal=off,logfile={log},logappend=on"),
            },
            "-serial",
            "chardev:console",
        ]);
        if self.console == Console::Terminal {
            args.add(["-mon", "chardev=console,mode=readline"]);
        }
        args.add(["-chardev", &format!("socket,id=qmp,server=on,wait=off,path={}", comma(&sockets.join("qmp.sock")))]);
        args.add(["-mon", "chardev=qmp,mode=control"]);
        match &self.network {
            None => args.add(["-nic", "none"]),
            // No boot ROM: nothing boots from this network, and loading it costs a second.
            Some(network) => args.add(["-netdev", &netdev(network)?, "-device", "virtio-net-pci,netdev=net,romfile="]),
        }
        for number in 0..self.all_credentials().len() {
            let file = dir.join("credentials").join(number.to_string());
            args.add(["-smbios", &format!("type=11,path={}", comma(&file))]);
        }
        if let Some(state) = &self.resume {
            let mut uri = OsString::from("file:");
            uri.push(state);
            args.0.extend(["-incoming".into(), uri]);
        }
        Ok(args.0)
    }
}

fn netdev(network: &Network) -> Result<String> {
    let mut text = "user,id=net".to_owned();
    if !network.internet {
        text.push_str(",restrict=on");
    }
    for Forward { host, guest } in &network.forwards {
        text.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
    }
    for GuestForward { guest, command } in &network.guest_forwards {
        let mut line = Vec::new();
        for word in command {
            if word.contains(['\'', '\n']) {
                return Err(Error::Config(format!("{word:?} cannot be part of a guest forward's command")));
            }
            line.push(format!("'{}'", word.replace(',', ",,")));
        }
        text.push_str(&format!(",guestfwd=tcp:{guest}-cmd:{}", line.join(" ")));
    }
    Ok(text)
}

/// A path inside one of QEMU's comma-separated options.
pub(crate) fn comma(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn add<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.0.extend(words.into_iter().map(OsString::from));
    }

    fn path(&mut self, option: &str, path: &Path) {
        self.0.extend([option.into(), path.as_os_str().to_owned()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accel;

    fn line(builder: &Builder) -> String {
        let choice = Choice { accel: Accel::Tcg, why: String::new() };
        let args = builder.arguments(Path::new("/d"), Path::new("/s"), None, &choice).unwrap();
        args.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn without_a_network_there_is_no_card() {
        let line = line(&Builder::new("x").boot_disk("/i.raw"));
        assert!(line.contains("-nic none") && !line.contains("virtio-net"), "{line}");
        assert!(line.contains("file=/d/root.qcow2"), "{line}");
    }

    #[test]
    fn a_network_is_restricted_to_its_forwards() {
        let forward = GuestForward::tcp("10.0.2.100:80".parse().unwrap(), Path::new("/a b"), "x:1");
        let network = Network {
            forwards: vec![Forward { host: 2222, guest: 22 }],
            guest_forwards: vec![forward],
            internet: false,
        };
        let line = line(&Builder::new("x").boot_disk("/i").network(network));
        let wanted = "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22,\
                      guestfwd=tcp:10.0.2.100:80-cmd:'/a b' 'vm' 'connect' 'x:1' ";
        assert!(line.contains(wanted), "{line}");
    }

    fn direct() -> Builder {
        let kernel = Kernel { kernel: "/k".into(), initrd: "/i".into(), arguments: "quiet".into() };
        Builder::new("x").kernel(kernel)
    }

    #[test]
    fn secrets_are_files_that_only_we_read_and_never_arguments() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mut builder = direct().credential("passwd.hashed-password.root", "$6$secret");
        builder.prepare(dir.path(), None).unwrap();
        let line = line(&builder);
        assert!(!line.contains("secret") && line.contains("type=11,path=/d/credentials/3"), "{line}");
        let last = dir.path().join("credentials/3");
        let text = std::fs::read_to_string(&last).unwrap();
        assert_eq!(text, "io.systemd.credential.binary:passwd.hashed-password.root=JDYkc2VjcmV0");
        assert_eq!(std::fs::metadata(&last).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_credential_name_cannot_carry_another_string() {
        let dir = tempfile::tempdir().unwrap();
        assert!(direct().credential("a=b\0c", "").prepare(dir.path(), None).is_err());
    }

    #[test]
    fn a_machine_without_a_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Builder::new("x").prepare(dir.path(), None).is_err());
    }
}
