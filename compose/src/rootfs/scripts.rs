//! Runs maintainer scripts: preinst ourselves, everything after that by the root's own `dpkg --configure`.

use std::path::Path;

use super::deb::Deb;
use super::dpkg::Database;
use super::sandbox::{Sandbox, SandboxError};

/// A maintainer script that failed.
#[derive(Debug, thiserror::Error)]
#[error("{package}: its {script} script ended with {code}\n{output}")]
pub struct ScriptError {
    /// The package.
    pub package: String,
    /// `preinst`, `postinst`, …, or `dpkg` where it was none of them.
    pub script: String,
    /// Exit code.
    pub code: i32,
    /// What the script wrote.
    pub output: String,
}

/// Why scripts did not run to their end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A script failed.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Files around the script could not be written.
    #[error("preparing the preinst of {0}")]
    Io(String, #[source] std::io::Error),
}

/// The environment every script gets.
pub fn sandbox(root: &Path, source_date_epoch: u64) -> Sandbox {
    Sandbox::new(root)
        .env("SOURCE_DATE_EPOCH", source_date_epoch.to_string())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
        // The kernel's hooks of dracut and initramfs-tools make no initramfs then: it is made once, when the tree has its
        // final form.
        .env("INITRD", "No")
        .env("SYSTEMD_OFFLINE", "1")
        // Byte code that Python writes by the way carries the time of the source file, which no file of the tree keeps.
        // What packages compile on purpose carries a digest instead, because of SOURCE_DATE_EPOCH.
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

/// Runs the preinst of a package.
pub fn preinst(sandbox: &Sandbox, database: &Database, deb: &Deb, dpkg_version: &str) -> Result<(), RunError> {
    if !deb.files.contains_key("preinst") {
        return Ok(());
    }
    let name = deb.control.name.as_str();
    let io = |e| RunError::Io(name.to_owned(), e);
    database.stage(deb).map_err(io)?;
    let sandbox = sandbox
        .clone()
        .env("DPKG_MAINTSCRIPT_PACKAGE", name)
        .env("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1")
        .env("DPKG_MAINTSCRIPT_ARCH", &deb.control.arch)
        .env("DPKG_MAINTSCRIPT_NAME", "preinst")
        .env("DPKG_MAINTSCRIPT_DEBUG", "0")
        .env("DPKG_RUNNING_VERSION", dpkg_version)
        .env("DPKG_ADMINDIR", "/var/lib/dpkg")
        .env("DPKG_ROOT", "");
    let args = ["/var/lib/dpkg/tmp.ci/preinst", "install"];
    let (code, output) = sandbox.stream(&args, |_| {})?;
    database.unstage().map_err(io)?;
    if code == 0 {
        return Ok(());
    }
    match sandbox.failed(&args, code, output.as_bytes()) {
        unusable @ SandboxError::Unusable(_) => Err(unusable.into()),
        _ => Err(ScriptError { package: name.into(), script: "preinst".into(), code, output: tail(&output) }.into()),
    }
}

/// Runs `dpkg --configure` with `args`; `progress` is called for each package that begins.
pub fn configure(sandbox: &Sandbox, args: &[&str], mut progress: impl FnMut()) -> Result<(), RunError> {
    // Questions about configuration files cannot come up in a fresh root; the answers are there all the same.
    let mut command = vec!["dpkg", "--force-confold", "--force-confdef", "--force-unsafe-io"];
    command.extend(args);
    let (code, output) = sandbox.stream(&command, |line| {
        if line.starts_with("Setting up ") {
            progress();
        }
    })?;
    if code == 0 {
        return Ok(());
    }
    match blame(&output) {
        Some(error) => Err(error.into()),
        None => Err(sandbox.failed(&command, code, output.as_bytes()).into()),
    }
}

/// Finds the first package dpkg complains about, and what its script wrote.
///
/// ```text
/// Setting up x (1) ...
/// whatever the script wrote
/// dpkg: error processing package x (--configure):
///  installed x package post-installation script subprocess returned error exit status 3
/// ```
fn blame(output: &str) -> Option<ScriptError> {
    let lines: Vec<&str> = output.lines().collect();
    let at = lines.iter().position(|l| l.starts_with("dpkg: error processing package "))?;
    let package = lines[at].trim_start_matches("dpkg: error processing package ").split(' ').next()?.to_owned();
    let cause = lines.get(at + 1).map_or("", |l| l.trim());
    let code = cause.rsplit(' ').next().and_then(|c| c.parse().ok()).unwrap_or(1);
    let script = [("post-installation", "postinst"), ("pre-installation", "preinst"), ("pre-removal", "prerm")]
        .iter()
        .find(|(long, _)| cause.contains(long))
        .map_or("dpkg --configure", |(_, short)| short);
    let begins = |l: &&str| l.starts_with("Setting up ") || l.starts_with("Processing triggers for ");
    let start = lines[..at].iter().rposition(begins as fn(&&str) -> bool).map_or(0, |i| i + 1);
    let mut shown = lines[start..at].join("\n");
    if !cause.contains("script subprocess") {
        // Not a script: dpkg's own words say what is wrong.
        shown = lines[start..].join("\n");
    }
    Some(ScriptError { package, script: script.into(), code, output: tail(&shown) })
}

/// The last 60 lines, indented so that they stand out in an error.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    if lines.iter().all(|l| l.trim().is_empty()) {
        return "  (it wrote nothing)".into();
    }
    lines[lines.len().saturating_sub(60)..].iter().map(|l| format!("  | {l}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_package_its_script_and_its_words_are_found() {
        let output = "Setting up a (1) ...\nfine\nSetting up b:amd64 (2) ...\ncannot frobnicate\ndpkg: error processing package \
                      b:amd64 (--configure):\n installed b package post-installation script subprocess returned error exit \
                      status 3\nSetting up c (1) ...\nErrors were encountered while processing:\n b:amd64\n";
        let error = blame(output).unwrap();
        assert_eq!(error.to_string(), "b:amd64: its postinst script ended with 3\n  | cannot frobnicate");
    }

    #[test]
    fn a_complaint_of_dpkg_itself_is_shown_whole() {
        let output = "dpkg: dependency problems prevent configuration of x:\n x depends on y; however:\n  Package y is not \
                      installed.\n\ndpkg: error processing package x (--configure):\n dependency problems - leaving unconfigured\n";
        let error = blame(output).unwrap();
        assert!(error.output.contains("Package y is not installed") && error.output.contains("leaving unconfigured"));
    }
}
