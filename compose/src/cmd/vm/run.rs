//! `slipway vm run`.

use std::io::IsTerminal;
use std::net::{SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sys::{Cmd, Exit};
use vm::registry::{Entry, Registry};
use vm::{Builder, Console, Disk, Forward, GuestForward, Machine, Network, Writes};

use super::{named_file, registry, seconds};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A disk image (raw or qcow2, never written), or a ref or commit of --repo.
    image: String,
    /// The repository that IMAGE names a commit of.
    #[arg(long)]
    repo: Option<PathBuf>,
    /// Forgets everything the machine wrote when it goes off (the default).
    #[arg(long, conflicts_with = "keep")]
    ephemeral: bool,
    /// Keeps the machine's disks; the same command with the same --name starts it again.
    #[arg(long)]
    keep: bool,
    /// The machine's name.
    #[arg(long)]
    name: Option<String>,
    /// Memory in MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Processors.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Another disk, written to an overlay; its serial number in the machine is its file name without the suffix.
    #[arg(long = "disk", value_name = "FILE")]
    disks: Vec<PathBuf>,
    /// A size for the boot disk larger than the image's, in GiB.
    #[arg(long, value_name = "GIB")]
    disk_size: Option<u64>,
    /// Leads a TCP port of this machine's loopback address into the guest.
    #[arg(long = "forward", value_name = "HOST:GUEST", value_parser = forward)]
    forwards: Vec<Forward>,
    /// Leads an address that the guest sees (inside 10.0.2.0/24) to a TCP address of this side.
    #[arg(long = "guest-forward", value_name = "10.0.2.100:PORT=HOST:PORT", value_parser = guest_forward)]
    guest_forwards: Vec<(SocketAddrV4, String)>,
    /// Lets the guest reach everything this machine reaches.
    #[arg(long)]
    internet: bool,
    /// A systemd credential for the guest.
    #[arg(long = "credential", value_name = "NAME=FILE", value_parser = named_file)]
    credentials: Vec<(String, PathBuf)>,
    /// Where the console goes: `terminal` (Ctrl-A X ends the machine) or a file.
    #[arg(long, value_name = "terminal|FILE")]
    console: Option<PathBuf>,
    /// Returns when the machine has come up and leaves it running.
    #[arg(long)]
    detach: bool,
    /// What --detach waits for.
    #[arg(long, value_enum, default_value_t = Wait::Ready)]
    wait: Wait,
    /// How long --detach waits, in seconds.
    #[arg(long, default_value = "600", value_parser = seconds)]
    timeout: Duration,
}

/// How far a machine has to be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// Not at all.
    No,
    /// The command channel answers.
    Answer,
    /// Every unit has started or failed.
    Ready,
}

fn forward(text: &str) -> Result<Forward, String> {
    let ports = text.split_once(':').and_then(|(host, guest)| Some((host.parse().ok()?, guest.parse().ok()?)));
    ports.map(|(host, guest)| Forward { host, guest }).ok_or_else(|| "wanted HOST:GUEST, two port numbers".to_owned())
}

fn guest_forward(text: &str) -> Result<(SocketAddrV4, String), String> {
    let (guest, host) = text.split_once('=').ok_or("wanted 10.0.2.100:PORT=HOST:PORT")?;
    let guest: SocketAddrV4 = guest.parse().map_err(|_| format!("{guest} is not ADDRESS:PORT"))?;
    if guest.ip().octets()[..3] != [10, 0, 2] || guest.ip().octets()[3] < 4 {
        return Err(format!("{} is not between 10.0.2.4 and 10.0.2.254", guest.ip()));
    }
    if host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err(format!("{host} is not HOST:PORT"));
    }
    Ok((guest, host.to_owned()))
}

pub fn run(args: Args) -> Result<Exit> {
    let registry = registry()?;
    let terminal = match &args.console {
        Some(console) => console == Path::new("terminal"),
        None => !args.detach && std::io::stdin().is_terminal(),
    };
    if terminal && args.detach {
        bail!("--detach and --console terminal exclude each other");
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => registry.free_name(Path::new(&args.image))?,
    };
    registry.check_name(&name)?;
    let dir = registry.dir(&name);
    if !args.keep {
        // What a crash left of an ephemeral machine of this name; a kept one is not ours to forget.
        if let Ok(old) = registry.find(Some(&name)) {
            if old.keep {
                bail!("{name} is a kept machine: start it with --keep, or remove it with: slipway vm rm {name}");
            }
        }
        sys::file::remove_tree(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let result = start_and_wait(&args, &registry, &name, terminal);
    if result.is_err() && !args.keep {
        clean_up(&registry, &name);
    }
    result
}

/// The credentials by which agetty logs a user in, and login asks for no password.
const AUTOLOGIN: &[(&str, &str)] = &[("agetty.autologin", "root"), ("login.noauth", "yes")];

fn start_and_wait(args: &Args, registry: &Registry, name: &str, terminal: bool) -> Result<Exit> {
    let dir = registry.dir(name);
    let image = image(args, &dir)?;
    let ssh_port = free_port()?;
    let mut builder = Builder::new(name)
        .memory(args.memory)
        .cpus(args.cpus)
        .dir(&dir)
        .sockets(registry.sockets(name))
        .ssh_key()
        .network(network(args, ssh_port)?)
        .disk(Disk {
            path: image.clone(),
            serial: "root".to_owned(),
            writes: Writes::Overlay,
            size: args.disk_size.map(|gib| gib << 30),
        });
    for path in &args.disks {
        let serial: String = path.file_stem().unwrap_or_default().to_string_lossy().chars().take(20).collect();
        let path = std::path::absolute(path)?;
        builder = builder.disk(Disk { path, serial, writes: Writes::Overlay, size: None });
    }
    for (credential, file) in &args.credentials {
        let value = std::fs::read(file).with_context(|| format!("reading the credential {}", file.display()))?;
        builder = builder.credential(credential, value);
    }
    if terminal {
        // Whoever sits at this terminal owns the machine, and root has no password that could be typed.
        for (credential, value) in AUTOLOGIN {
            if args.credentials.iter().all(|(name, _)| name != credential) {
                builder = builder.credential(*credential, *value);
            }
        }
        builder = builder.console(Console::Terminal);
    } else if let Some(file) = &args.console {
        console_file(file, &dir)?;
    }
    if args.detach {
        builder = builder.outlives_us();
    }
    let start = Instant::now();
    let mut machine = builder.start()?;
    let entry = registry.record(&machine, entry(args, &image, &machine, registry, ssh_port))?;
    let choice = machine.accelerator();
    eprintln!("{name}: started on {} ({})", choice.accel, choice.why);
    if !args.detach {
        eprintln!("{name}: slipway vm ssh {name} · slipway vm exec {name} -- COMMAND · slipway vm stop {name}");
        // Others may use the sockets while we only wait for the end.
        machine.release();
        machine.wait_off(Duration::from_secs(10 * 365 * 86400))?;
        if !args.keep {
            registry.forget(&entry)?;
        }
        return Ok(Exit::Done);
    }
    if let Err(error) = wait_for(&machine, None, args.wait, args.timeout) {
        machine.kill();
        return Err(error);
    }
    eprintln!("{name}: up after {:.0} s", start.elapsed().as_secs_f64());
    println!("{name}");
    Ok(Exit::Done)
}

/// Waits as far as asked; failed units are told, not an error: the machine is up to be looked at.
pub fn wait_for(machine: &Machine, not_boot: Option<&str>, wait: Wait, timeout: Duration) -> Result<()> {
    if wait == Wait::No {
        return Ok(());
    }
    let start = Instant::now();
    machine.wait_other_boot(not_boot, timeout)?;
    if wait == Wait::Ready {
        let state = machine.wait_ready(timeout.saturating_sub(start.elapsed()))?;
        if state != "running" {
            let failed = machine.shell("systemctl --failed --plain --no-legend | cut -d' ' -f1 | tr '\\n' ' '")?;
            eprintln!("{}: systemd says {state}; failed units: {failed}", machine.name());
        }
    }
    Ok(())
}

fn network(args: &Args, ssh_port: u16) -> Result<Network> {
    let slipway = std::env::current_exe().context("finding this program")?;
    let mut forwards = vec![Forward { host: ssh_port, guest: 22 }];
    forwards.extend(&args.forwards);
    let lead = |(guest, host): &(SocketAddrV4, String)| GuestForward::tcp(*guest, &slipway, host);
    let guest_forwards = args.guest_forwards.iter().map(lead).collect();
    Ok(Network { forwards, guest_forwards, internet: args.internet })
}

fn entry(args: &Args, image: &Path, machine: &Machine, registry: &Registry, ssh_port: u16) -> Entry {
    let name = machine.name().to_owned();
    Entry {
        format: "1.0".to_owned(),
        image: image.to_owned(),
        pid: 0,
        started: 0,
        since: sys::clock::now(),
        memory: args.memory,
        cpus: args.cpus,
        accelerator: machine.accelerator().clone(),
        ssh_port: Some(ssh_port),
        forwards: args.forwards.iter().map(|f| format!("{}:{}", f.host, f.guest)).collect(),
        keep: args.keep,
        dir: registry.dir(&name),
        sockets: registry.sockets(&name),
        running: true,
        name,
    }
}

/// The image itself, or one made from a commit.
fn image(args: &Args, dir: &Path) -> Result<PathBuf> {
    let Some(repo) = &args.repo else {
        let image = std::path::absolute(&args.image)?;
        if !image.exists() {
            bail!("there is no disk image {}; to boot a ref or a commit, name its repository with --repo", args.image);
        }
        return Ok(image);
    };
    let image = dir.join("image.raw");
    if !image.exists() {
        let slipway = std::env::current_exe().context("finding this program")?;
        eprintln!("making a disk image of {}", args.image);
        Cmd::new(slipway).args(["image", &args.image, "--repo"]).arg(repo).arg("-o").arg(&image).run_shown()?;
    }
    Ok(image)
}

/// Lets the machine's log be a file of the caller's choice, begun anew.
fn console_file(file: &Path, dir: &Path) -> Result<()> {
    std::fs::write(file, "").with_context(|| format!("writing the console log {}", file.display()))?;
    let link = dir.join("serial.log");
    sys::file::remove(&link)?;
    std::os::unix::fs::symlink(std::path::absolute(file)?, &link).with_context(|| format!("making {}", link.display()))
}

/// A port that is free now; QEMU takes it within a moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("looking for a free port")?.local_addr()?.port())
}

/// After a failure nothing of an ephemeral machine stays, but what the console said is in the error.
fn clean_up(registry: &Registry, name: &str) {
    if let Ok(entry) = registry.find(Some(name)) {
        if entry.running {
            registry.kill(&entry);
        }
    }
    let _ = sys::file::remove_tree(&registry.sockets(name));
    let _ = sys::file::remove_tree(&registry.dir(name));
}
