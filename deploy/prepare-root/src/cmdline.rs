//! The kernel command line: which deployment, on which logical volume.
//!
//! Names from the command line become types before they become paths: whoever edits a boot entry can choose another
//! deployment, but cannot leave the directory that holds them.

use std::fmt;

use store::Checksum;

/// The argument that names the deployment.
pub const DEPLOYMENT: &str = "slipway.deployment";
/// The argument that names the logical volume; dracut activates the same one.
pub const VOLUME: &str = "rd.lvm.lv";

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// The argument is missing.
    #[error(
        "the kernel command line has no {DEPLOYMENT}=OS/COMMIT.N; boot another entry, or repair the options of this one"
    )]
    NoDeployment,
    /// The argument is there twice, with two values.
    #[error(
        "the kernel command line names two deployments, {0} and {1}; boot another entry, or repair the options of this one"
    )]
    TwoDeployments(String, String),
    /// The argument is not of the form OS/COMMIT.N.
    #[error("`{DEPLOYMENT}={0}` is not OS/COMMIT.N with a commit of 64 hexadecimal digits; boot another entry")]
    BadDeployment(String),
    /// The volume is not of the form GROUP/VOLUME.
    #[error("`{VOLUME}={0}` is not GROUP/VOLUME; boot another entry, or repair the options of this one")]
    BadVolume(String),
}

/// A deployment's name: `<os>/<commit>.<n>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The operating system's name (its state directory).
    pub os: String,
    /// The commit.
    pub commit: Checksum,
    /// Distinguishes deployments of the same commit.
    pub serial: u32,
}

impl Deployment {
    /// Reads `<os>/<commit>.<n>`; nothing else passes.
    pub fn parse(text: &str) -> Option<Deployment> {
        let (os, rest) = text.split_once('/')?;
        let (commit, serial) = rest.split_once('.')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let os_fits = !os.is_empty() && os.len() <= 64 && !os.starts_with('-') && os.chars().all(plain);
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let serial_fits = !serial.is_empty()
            && serial.chars().all(|c| c.is_ascii_digit())
            && (serial == "0" || !serial.starts_with('0'));
        if !os_fits || commit.len() != 64 || !commit.chars().all(hex) || !serial_fits {
            return None;
        }
        Some(Deployment { os: os.to_owned(), commit: commit.parse().ok()?, serial: serial.parse().ok()? })
    }

    /// `<commit>.<n>`, the name of its directory.
    pub fn dir_name(&self) -> String {
        format!("{}.{}", self.commit, self.serial)
    }

    /// Its directory below the root of the system's file system.
    pub fn dir(&self) -> String {
        format!("ostree/deploy/{}/deploy/{}", self.os, self.dir_name())
    }

    /// The directory that becomes `/var`, below the root of the system's file system.
    pub fn var(&self) -> String {
        format!("ostree/deploy/{}/var", self.os)
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.os, self.commit, self.serial)
    }
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The deployment to boot.
    pub deployment: Deployment,
    /// `GROUP/VOLUME` that holds the system's file system.
    pub volume: String,
}

impl Request {
    /// Reads a kernel command line.
    pub fn parse(cmdline: &str) -> Result<Request, CmdlineError> {
        let mut deployment: Option<Deployment> = None;
        let mut volume = None;
        for word in words(cmdline) {
            let Some((key, value)) = word.split_once('=') else { continue };
            match key {
                DEPLOYMENT => {
                    let found =
                        Deployment::parse(value).ok_or_else(|| CmdlineError::BadDeployment(value.to_owned()))?;
                    match &deployment {
                        Some(first) if *first != found => {
                            return Err(CmdlineError::TwoDeployments(first.to_string(), found.to_string()));
                        }
                        _ => deployment = Some(found),
                    }
                }
                // dracut may be told to activate several; the first one is the root.
                VOLUME if volume.is_none() => {
                    volume = Some(value).filter(|v| is_volume(v)).map(str::to_owned);
                    if volume.is_none() {
                        return Err(CmdlineError::BadVolume(value.to_owned()));
                    }
                }
                _ => {}
            }
        }
        Ok(Request {
            deployment: deployment.ok_or(CmdlineError::NoDeployment)?,
            volume: volume.unwrap_or_else(|| "host/root".to_owned()),
        })
    }
}

/// Splits a kernel command line: white space separates, double quotes protect, and are dropped.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    // What follows a lone `--` is for the init program, not for us.
    let end = words.iter().position(|w| w == "--").unwrap_or(words.len());
    words.truncate(end);
    words
}

/// LVM's own rules for names: letters, digits and `+_.-`, not starting with `-`, not `.` or `..`.
fn is_volume(text: &str) -> bool {
    let name = |n: &str| {
        !n.is_empty()
            && n.len() <= 127
            && !n.starts_with('-')
            && n != "."
            && n != ".."
            && n.chars().all(|c| c.is_ascii_alphanumeric() || "+_.-".contains(c))
    };
    text.split_once('/').is_some_and(|(group, volume)| name(group) && name(volume))
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn an_ordinary_command_line() {
        let line = format!(
            "initrd=\\slipway\\x\\initrd slipway.deployment=slipway/{C}.0 panic=10 rd.shell=0 rd.lvm.lv=host/root quiet\n"
        );
        let request = Request::parse(&line).unwrap();
        assert_eq!(request.volume, "host/root");
        assert_eq!(request.deployment.to_string(), format!("slipway/{C}.0"));
        assert_eq!(request.deployment.dir(), format!("ostree/deploy/slipway/deploy/{C}.0"));
        assert_eq!(request.deployment.var(), "ostree/deploy/slipway/var");
    }

    #[test]
    fn the_volume_has_a_default() {
        assert_eq!(Request::parse(&format!("slipway.deployment=os/{C}.12")).unwrap().volume, "host/root");
    }

    #[test]
    fn a_deployment_cannot_leave_its_directory() {
        for bad in [
            format!("../{C}.0"),
            format!("slipway/../{C}.0"),
            format!("slipway/{C}.0/.."),
            format!("/{C}.0"),
            format!("slipway/{C}"),
            format!("slipway/{C}."),
            format!("slipway/{C}.-1"),
            format!("slipway/{C}.00"),
            format!("slipway/{C}.+1"),
            format!("slipway/{C}.4294967296"),
            format!("slipway/{}.0", C.to_uppercase()),
            format!("slipway/{}.0", &C[1..]),
            format!(".hidden/{C}.0"),
            format!("a.b/{C}.0"),
            "slipway".to_owned(),
            String::new(),
        ] {
            assert_eq!(
                Request::parse(&format!("slipway.deployment={bad}")),
                Err(CmdlineError::BadDeployment(bad.clone())),
                "{bad}"
            );
        }
    }

    #[test]
    fn two_deployments_are_one_too_many_but_a_repetition_is_not() {
        let twice = format!("slipway.deployment=os/{C}.0 slipway.deployment=os/{C}.0");
        assert!(Request::parse(&twice).is_ok());
        let two = format!("slipway.deployment=os/{C}.0 slipway.deployment=os/{C}.1");
        assert!(matches!(Request::parse(&two), Err(CmdlineError::TwoDeployments(..))));
    }

    #[test]
    fn what_a_quoted_argument_or_init_says_is_not_for_us() {
        assert_eq!(Request::parse(&format!("x=\"a slipway.deployment=os/{C}.0 b\"")), Err(CmdlineError::NoDeployment));
        assert_eq!(Request::parse(&format!("-- slipway.deployment=os/{C}.0")), Err(CmdlineError::NoDeployment));
    }

    #[test]
    fn a_volume_is_two_names() {
        for bad in ["host", "/root", "host/", "host/../sda", "../sda", "-a/b", "host/a b"] {
            let line = format!("slipway.deployment=os/{C}.0 \"rd.lvm.lv={bad}\"");
            assert_eq!(Request::parse(&line), Err(CmdlineError::BadVolume(bad.to_owned())), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_prints_as_itself(text in "[a-z0-9./+-]{0,12}/[0-9a-f]{64}\\.[0-9+.]{1,6}") {
            if let Some(deployment) = Deployment::parse(&text) {
                proptest::prop_assert_eq!(deployment.to_string(), text);
            }
        }

        #[test]
        fn no_command_line_panics(text in "\\PC{0,200}") {
            let _ = Request::parse(&text);
        }
    }
}
