//! dpkg's records in the root, in dpkg's own forms.
//!
//! ```text
//! /var/lib/dpkg/
//!   status                 one stanza for each package; ours say `install ok unpacked`, dpkg rewrites the file
//!   info/format            "1\n"
//!   info/<record>.list     every path of the package; <record> is `name`, or `name:arch` for Multi-Arch: same
//!   info/<record>.*        the control files: md5sums, conffiles, postinst, triggers, shlibs, templates, …
//!   triggers/File          "<path> <record>[/noawait]": who is interested in paths
//!   triggers/<name>        "<record>[/noawait]": who is interested in a named trigger
//!   triggers/Unincorp      "<trigger> <who activated it>…": activations dpkg takes up when it runs next
//!   diversions             three lines each: path, where it goes instead, for whom not (`:` = nobody)
//!   statoverride           "user group mode path"
//!   arch                   architectures, the native one first
//! ```

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use super::deb::{Conffile, Data, Deb};
use super::filter::Filter;
use super::source::Source;
use super::tar::Kind;

/// The records of one root.
pub struct Database {
    dir: PathBuf,
}

/// One line of a `triggers` control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The package wants to know; `noawait` where the activating package does not wait for it.
    Interest {
        /// A name, or a path.
        name: String,
        /// Whether nobody waits.
        noawait: bool,
    },
    /// The package activates a named trigger: `dpkg --configure` does that itself.
    Activate,
}

/// Parses a `triggers` control file.
pub fn triggers(text: &str) -> Vec<Trigger> {
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or("").split_whitespace().collect::<Vec<_>>());
    lines
        .filter_map(|words| match words[..] {
            ["interest" | "interest-await", name] => Some(Trigger::Interest { name: name.to_owned(), noawait: false }),
            ["interest-noawait", name] => Some(Trigger::Interest { name: name.to_owned(), noawait: true }),
            ["activate" | "activate-await" | "activate-noawait", _] => Some(Trigger::Activate),
            _ => None,
        })
        .collect()
}

impl Database {
    /// Makes the empty records of a new root.
    pub fn create(root: &Path, arch: &str) -> io::Result<Self> {
        let dir = root.join("var/lib/dpkg");
        let make = |name: &str| fs::DirBuilder::new().recursive(true).mode(0o755).create(dir.join(name));
        for name in ["info", "triggers", "updates", "alternatives"] {
            make(name)?;
        }
        let database = Database { dir };
        for (name, text) in [("status", ""), ("info/format", "1\n"), ("arch", &format!("{arch}\n"))] {
            database.write(name, text.as_bytes(), 0o644)?;
        }
        for name in ["diversions", "statoverride", "triggers/Unincorp"] {
            database.write(name, b"", 0o644)?;
        }
        Ok(database)
    }

    /// Writes one of the files with exactly this mode.
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        use std::io::Write;
        let path = self.dir.join(name);
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(bytes)
    }

    /// Reads one of the files; empty where there is none.
    pub fn read(&self, name: &str) -> io::Result<String> {
        match fs::read_to_string(self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        }
    }

    /// Where the control files of a package lie while its preinst runs.
    pub fn staging(&self) -> PathBuf {
        self.dir.join("tmp.ci")
    }

    /// Lays out the control files for the preinst, as dpkg does: debconf looks for `templates` beside the script.
    pub fn stage(&self, deb: &Deb) -> io::Result<()> {
        self.unstage()?;
        fs::DirBuilder::new().mode(0o755).create(self.staging())?;
        for (name, (bytes, mode)) in &deb.files {
            self.write(&format!("tmp.ci/{name}"), bytes, if mode & 0o111 == 0 { 0o644 } else { 0o755 })?;
        }
        Ok(())
    }

    /// Takes them away.
    pub fn unstage(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.staging()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Records packages as unpacked: info files, triggers they are interested in, and their stanzas in `status`.
    pub fn unpacked(&self, packages: &[(&Deb, &Data, &[String])], filter: &Filter) -> io::Result<()> {
        let mut status = self.read("status")?;
        let mut file_triggers = self.read("triggers/File")?;
        for (deb, data, list) in packages {
            let record = deb.control.record();
            for (name, (bytes, mode)) in &deb.files {
                if name != "control" {
                    self.write(&format!("info/{record}.{name}"), bytes, if mode & 0o111 == 0 { 0o644 } else { 0o755 })?;
                }
            }
            self.write_list(&record, list)?;
            if !deb.files.contains_key("md5sums") {
                self.write(&format!("info/{record}.md5sums"), md5sums(data, filter)?.as_bytes(), 0o644)?;
            }
            for trigger in triggers(deb.text("triggers")) {
                let Trigger::Interest { name, noawait } = trigger else { continue };
                let who = format!("{record}{}", if noawait { "/noawait" } else { "" });
                if name.starts_with('/') {
                    let _ = writeln!(file_triggers, "{name} {who}");
                } else if name.bytes().all(|b| b.is_ascii_graphic() && b != b'/') && !name.starts_with('.') {
                    let mut interested = self.read(&format!("triggers/{name}"))?;
                    let _ = writeln!(interested, "{who}");
                    self.write(&format!("triggers/{name}"), interested.as_bytes(), 0o644)?;
                }
            }
            let _ = write!(status, "{}\n\n", stanza(deb).trim_end());
        }
        self.write("triggers/File", file_triggers.as_bytes(), 0o644)?;
        self.write("status", status.as_bytes(), 0o644)
    }

    /// Writes a package's list of paths.
    pub fn write_list(&self, record: &str, list: &[String]) -> io::Result<()> {
        let text: String = list.iter().flat_map(|path| [path.as_str(), "\n"]).collect();
        self.write(&format!("info/{record}.list"), text.as_bytes(), 0o644)
    }

    /// Takes paths off a package's list that another package took over.
    pub fn take_from_list(&self, record: &str, paths: &[String]) -> io::Result<()> {
        let text = self.read(&format!("info/{record}.list"))?;
        let rest: Vec<String> = text.lines().filter(|l| !paths.iter().any(|p| p == l)).map(str::to_owned).collect();
        self.write_list(record, &rest)
    }

    /// Activates the file triggers of packages that are `installed` for the paths that were just unpacked.
    ///
    /// dpkg does this while it unpacks. Packages that are not configured yet are not told: being configured, they see all.
    pub fn activate<'a>(
        &self,
        installed: impl Fn(&str) -> bool,
        unpacked: impl Iterator<Item = (&'a str, &'a [String])>,
    ) -> io::Result<()> {
        let interests = self.read("triggers/File")?;
        let interests: Vec<(&str, bool)> = interests
            .lines()
            .filter_map(|line| {
                let (path, who) = line.rsplit_once(' ')?;
                let (who, noawait) = match who.strip_suffix("/noawait") {
                    Some(who) => (who, true),
                    None => (who, false),
                };
                installed(who).then_some((path, noawait))
            })
            .collect();
        let mut pending: Vec<(&str, Vec<&str>)> = Vec::new();
        for (record, list) in unpacked {
            for (path, noawait) in &interests {
                let below =
                    |p: &String| p.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                if !list.iter().any(below) {
                    continue;
                }
                let who = if *noawait { "-" } else { record };
                match pending.iter_mut().find(|(p, _)| p == path) {
                    Some((_, list)) if list.contains(&who) => {}
                    Some((_, list)) => list.push(who),
                    None => pending.push((path, vec![who])),
                }
            }
        }
        let mut text = self.read("triggers/Unincorp")?;
        for (path, who) in pending {
            let _ = writeln!(text, "{path} {}", who.join(" "));
        }
        self.write("triggers/Unincorp", text.as_bytes(), 0o644)
    }

    /// The diversions.
    pub fn diversions(&self) -> io::Result<Diversions> {
        Ok(Diversions::parse(&self.read("diversions")?))
    }

    /// The overrides of owners and modes.
    pub fn stat_overrides(&self, users: &Users) -> io::Result<StatOverrides> {
        Ok(StatOverrides::parse(&self.read("statoverride")?, users))
    }
}

/// The stanza of an unpacked package: the control file with a status and its configuration files, whose old hash is
/// unknown. dpkg puts the fields into its own order when it rewrites the file.
fn stanza(deb: &Deb) -> String {
    let mut stanza = deb.control.stanza.clone();
    stanza.set("Status", "install ok unpacked");
    if !deb.conffiles.is_empty() {
        let line = |c: &Conffile| {
            format!("\n /{} newconffile{}", c.path, if c.remove_on_upgrade { " remove-on-upgrade" } else { "" })
        };
        let lines: String = deb.conffiles.iter().map(line).collect();
        stanza.set("Conffiles", lines);
    }
    stanza.render()
}

/// What dpkg computes for a package that brings no `md5sums`: every file it placed, conffiles with them.
fn md5sums(data: &Data, filter: &Filter) -> io::Result<String> {
    let mut sums: HashMap<&str, String> = HashMap::new();
    let mut text = String::new();
    for entry in &data.entries {
        let sum = match &entry.kind {
            Kind::File { offset, size } => {
                let mut hasher = Md5::new();
                let mut buffer = vec![0; 64 << 10];
                let mut at = *offset;
                while at < offset + size {
                    let count = buffer.len().min((offset + size - at) as usize);
                    data.file.read_exact_at(&mut buffer[..count], at)?;
                    hasher.update(&buffer[..count]);
                    at += count as u64;
                }
                hex::encode(hasher.finalize())
            }
            Kind::Hardlink(target) => sums.get(target.as_str()).cloned().unwrap_or_default(),
            _ => continue,
        };
        if !filter.skips(entry) {
            let _ = writeln!(text, "{sum}  {}", entry.path);
        }
        sums.insert(&entry.path, sum);
    }
    Ok(text)
}

/// Files that are placed under another name.
#[derive(Debug, Default)]
pub struct Diversions {
    /// path → (where it goes, the package it does not go there for)
    by_path: HashMap<String, (String, String)>,
}

impl Diversions {
    /// Parses `/var/lib/dpkg/diversions`.
    pub fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let strip = |path: &str| path.trim_start_matches('/').to_owned();
        let by_path = lines.chunks_exact(3).map(|c| (strip(c[0]), (strip(c[1]), c[2].to_owned()))).collect();
        Diversions { by_path }
    }

    /// Where a file of a package goes instead.
    pub fn target(&self, path: &str, package: &str) -> Option<&str> {
        self.by_path.get(path).filter(|(_, owner)| owner != package).map(|(to, _)| to.as_str())
    }

    /// The diverted paths.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(String::as_str)
    }
}

/// Owners and modes that an administrator, or a preinst, has set.
#[derive(Debug, Default)]
pub struct StatOverrides {
    by_path: HashMap<String, (u32, u32, u32)>,
}

impl StatOverrides {
    /// Parses `/var/lib/dpkg/statoverride`.
    pub fn parse(text: &str, users: &Users) -> Self {
        let by_path = text.lines().filter_map(|line| {
            let mut words = line.splitn(4, ' ');
            let (user, group, mode, path) = (words.next()?, words.next()?, words.next()?, words.next()?);
            let id = |name: &str, known: Option<u32>| match name.strip_prefix('#') {
                Some(number) => number.parse().ok(),
                None => known,
            };
            let uid = id(user, users.users.get(user).copied())?;
            let gid = id(group, users.groups.get(group).copied())?;
            Some((path.trim_start_matches('/').to_owned(), (uid, gid, u32::from_str_radix(mode, 8).ok()?)))
        });
        StatOverrides { by_path: by_path.collect() }
    }

    /// (uid, gid, mode) for a path.
    pub fn of(&self, path: &str) -> Option<(u32, u32, u32)> {
        self.by_path.get(path).copied()
    }
}

/// The names in the root's `/etc/passwd` and `/etc/group`: in a package, a name counts more than a number.
#[derive(Debug, Default)]
pub struct Users {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Users {
    /// Reads them; a root that has none yet knows no names.
    pub fn load(root: &Path) -> Self {
        let table = |file: &str| {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            let line = |l: &str| {
                let mut fields = l.split(':');
                Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
            };
            text.lines().filter_map(line).collect()
        };
        Users { users: table("etc/passwd"), groups: table("etc/group") }
    }

    /// The number of a user.
    pub fn uid(&self, name: &str, number: u32) -> u32 {
        self.users.get(name).copied().unwrap_or(number)
    }

    /// The number of a group.
    pub fn gid(&self, name: &str, number: u32) -> u32 {
        self.groups.get(name).copied().unwrap_or(number)
    }
}

#[cfg(test)]
#[path = "dpkg_tests.rs"]
mod tests;
