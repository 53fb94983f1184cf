//! `slipway vm ssh|exec|wait|stop|rm`.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sys::{Cmd, Exit};
use vm::Request;

use super::run::{Wait, wait_for};
use super::{registry, seconds};

#[derive(Debug, clap::Args)]
pub struct SshArgs {
    /// The machine; may be left out where only one runs.
    name: Option<String>,
    /// A command instead of a shell.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Becomes `ssh`.
pub fn ssh(args: SshArgs) -> Result<Exit> {
    use std::os::unix::process::CommandExt;
    let entry = registry()?.find(args.name.as_deref())?;
    let Some(port) = entry.ssh_port.filter(|_| entry.running) else {
        bail!("the machine {} is off", entry.name);
    };
    let known = entry.dir.join("known_hosts");
    let ssh = Cmd::new("ssh")
        .arg("-i")
        .arg(entry.dir.join("ssh-key"))
        .args(["-p", &port.to_string(), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new"])
        .args(["-o", &format!("UserKnownHostsFile=\"{}\"", known.display())])
        .args(["-o", &format!("HostKeyAlias={}", entry.name), "-o", "LogLevel=ERROR", "root@127.0.0.1"])
        .args(&args.command);
    let error = ssh.to_command().exec();
    Err(error).context("running ssh (package openssh-client)")
}

#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// The machine; may be left out where only one runs.
    pub name: Option<String>,
    /// Passes standard input on (all of it, before the command starts).
    #[arg(long, short)]
    input: bool,
    /// How long the command may take, in seconds.
    #[arg(long, default_value = "86400", value_parser = seconds)]
    timeout: Duration,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Runs a command over the command channel.
pub fn exec(args: ExecArgs) -> Result<Exit> {
    let registry = registry()?;
    let machine = registry.join(&registry.find(args.name.as_deref())?)?;
    let mut input = Vec::new();
    if args.input {
        std::io::stdin().read_to_end(&mut input).context("reading standard input")?;
    }
    let script = args.command.iter().map(|word| vm::quote(word)).collect::<Vec<_>>().join(" ");
    let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
    let mut broken = None;
    let request = Request { script: &script, input: &input, timeout: args.timeout };
    let code = machine.stream(request, &mut |stream, bytes| {
        let written = match stream {
            vm::Stream::Stdout => stdout.write_all(bytes).and_then(|()| stdout.flush()),
            vm::Stream::Stderr => stderr.write_all(bytes),
        };
        if let Err(error) = written {
            broken.get_or_insert(error);
        }
    })?;
    match broken {
        Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("passing on the output"),
        _ => Ok(u8::try_from(code).map_or(Exit::Failed, |code| if code == 0 { Exit::Done } else { Exit::Child(code) })),
    }
}

#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// The machine; may be left out where only one runs.
    name: Option<String>,
    /// Waits for another boot than this one (`/proc/sys/kernel/random/boot_id`).
    #[arg(long, value_name = "BOOT_ID")]
    not_boot: Option<String>,
    /// What to wait for.
    #[arg(long = "for", value_enum, default_value_t = Wait::Ready)]
    wait: Wait,
    /// For how long, in seconds.
    #[arg(long, default_value = "600", value_parser = seconds)]
    timeout: Duration,
}

/// Waits for a boot.
pub fn wait(args: WaitArgs) -> Result<Exit> {
    let registry = registry()?;
    let machine = registry.join(&registry.find(args.name.as_deref())?)?;
    wait_for(&machine, args.not_boot.as_deref(), args.wait, args.timeout)?;
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// The machine; may be left out where only one runs.
    name: Option<String>,
    /// Pulls the plug instead.
    #[arg(long)]
    force: bool,
    /// How long an orderly shutdown may take, in seconds.
    #[arg(long, default_value = "120", value_parser = seconds)]
    timeout: Duration,
}

/// Shuts a machine down; an ephemeral one is gone afterwards.
pub fn stop(args: StopArgs) -> Result<Exit> {
    let registry = registry()?;
    let entry = registry.find(args.name.as_deref())?;
    if !entry.running {
        return Ok(Exit::Done);
    }
    if args.force {
        registry.kill(&entry);
    } else {
        let mut machine = registry.join(&entry)?;
        let hint = || format!("{} is still running; to pull the plug: slipway vm stop --force {0}", entry.name);
        machine.power_off(args.timeout).with_context(hint)?;
    }
    if !entry.keep {
        registry.forget(&entry)?;
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// The machine.
    name: String,
    /// Ends it first if it runs; a machine that does not exist is fine.
    #[arg(long)]
    force: bool,
}

/// Removes a machine with its disks.
pub fn rm(args: RmArgs) -> Result<Exit> {
    let registry = registry()?;
    let entry = match registry.find(Some(&args.name)) {
        Ok(entry) => entry,
        Err(vm::Error::Unknown { .. }) if args.force => return Ok(Exit::Done),
        Err(error) => return Err(error.into()),
    };
    if entry.running {
        if !args.force {
            let hint = format!("end it first: slipway vm stop {}", entry.name);
            return Err(sys::Refused::with_hint(format!("the machine {} is running", entry.name), hint).into());
        }
        registry.kill(&entry);
    }
    registry.forget(&entry)?;
    Ok(Exit::Done)
}
