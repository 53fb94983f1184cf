//! apt with directories of its own: nothing of the build machine's configuration, lists or installed packages takes part.
//!
//! ```text
//! DIR/apt.conf            named by APT_CONFIG; everything below is absolute in it
//! DIR/status              empty: as on a machine with nothing installed, so the answer holds everything down to libc
//! DIR/etc/sources.list.d/slipway.sources    DIR/etc/preferences
//! DIR/lists/   DIR/cache/
//! DIR/local/{Packages,Release}              our own .debs as a repository
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sys::Cmd;

use super::{PackagesError, dates};

/// The origin of the local repository in its Release file, for the pin.
pub const LOCAL_ORIGIN: &str = "slipway-local";

/// One repository as apt gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Address.
    pub uri: String,
    /// Suites.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// Keyring.
    pub signed_by: PathBuf,
    /// Refuse expired metadata.
    pub check_valid_until: bool,
}

/// Private directories of apt.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
    arch: String,
    sources: Vec<Source>,
    recommends: bool,
}

impl Apt {
    /// Directories below `base` that are those of these sources alone, so that their lists stay valid between runs.
    pub fn new(base: &Path, sources: Vec<Source>, arch: &str, recommends: bool) -> Self {
        let mut digest = Sha256::new();
        digest.update(format!("{arch}\n"));
        for source in &sources {
            digest.update(source.render(arch));
        }
        let dir = base.join(&hex::encode(digest.finalize())[..16]);
        Apt { dir, arch: arch.to_owned(), sources, recommends }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the local repository's files go.
    pub fn local(&self) -> PathBuf {
        self.dir.join("local")
    }

    /// Names the repositories for a message.
    pub fn describe(&self) -> String {
        let names: Vec<String> = self.sources.iter().map(|s| format!("{} ({})", s.uri, s.suites.join(", "))).collect();
        names.join(", ")
    }

    /// Writes the configuration. The local repository must be there already.
    pub fn configure(&self) -> Result<(), PackagesError> {
        let io = |e| PackagesError::Io(self.dir.clone(), e);
        for sub in ["etc/sources.list.d", "etc/empty", "lists/partial", "cache/archives/partial", "local"] {
            fs::create_dir_all(self.dir.join(sub)).map_err(io)?;
        }
        let mut sources: String = self.sources.iter().map(|s| s.render(&self.arch) + "\n").collect();
        sources.push_str(&format!("Types: deb\nURIs: file:{}\nSuites: ./\nTrusted: yes\n", self.local().display()));
        for (name, text) in
            [("apt.conf", self.config()), ("status", String::new()), ("etc/sources.list.d/slipway.sources", sources)]
        {
            fs::write(self.dir.join(name), text).map_err(io)?;
        }
        self.exclude(&[])
    }

    /// Forbids packages; our own `.deb`s come before all others.
    pub fn exclude(&self, names: &[&str]) -> Result<(), PackagesError> {
        let mut text = format!("Package: *\nPin: release o={LOCAL_ORIGIN}\nPin-Priority: 1001\n");
        for name in names {
            text.push_str(&format!("\nPackage: {name}\nPin: version *\nPin-Priority: -1\n"));
        }
        let path = self.dir.join("etc/preferences");
        fs::write(&path, text).map_err(|e| PackagesError::Io(path, e))
    }

    fn config(&self) -> String {
        let dir = self.dir.display();
        let mut text = format!(
            "Dir \"{dir}\";\nDir::State \"{dir}\";\nDir::State::lists \"{dir}/lists\";\nDir::State::status \"{dir}/status\";\n\
             Dir::State::extended_states \"{dir}/extended_states\";\nDir::Cache \"{dir}/cache\";\nDir::Etc \"{dir}/etc\";\n\
             Dir::Etc::main \"{dir}/etc/empty/apt.conf\";\nDir::Etc::parts \"{dir}/etc/empty\";\n\
             Dir::Etc::trusted \"{dir}/etc/empty/trusted.gpg\";\nDir::Etc::trustedparts \"{dir}/etc/empty\";\n\
             Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\nDir::Etc::netrc \"/etc/apt/auth.conf\";\n\
             Dir::Log \"{dir}/cache\";\nDir::Bin::dpkg \"/usr/bin/dpkg\";\n"
        );
        text.push_str(&format!("APT::Architecture \"{0}\";\nAPT::Architectures {{ \"{0}\"; }};\n", self.arch));
        text.push_str(&format!("APT::Install-Recommends \"{}\";\nAPT::Install-Suggests \"false\";\n", self.recommends));
        // The directories may lie where the user `_apt` cannot go.
        text.push_str("APT::Sandbox::User \"root\";\nAPT::Get::Assume-Yes \"true\";\n");
        // apt holds itself for essential; a tree needs it only when asked.
        text.push_str("pkgCacheGen::ForceEssential \",\";\n");
        text.push_str("Acquire::Languages \"none\";\nAcquire::PDiffs \"false\";\nAcquire::ForceHash \"SHA256\";\n");
        text.push_str("Acquire::Retries \"2\";\nAcquire::http::Timeout \"30\";\nAcquire::https::Timeout \"30\";\n");
        if let Some(proxy) = proxy() {
            text.push_str(&format!("Acquire::http::Proxy \"{proxy}\";\nAcquire::https::Proxy \"{proxy}\";\n"));
        }
        text
    }

    /// One of apt's programs.
    pub fn cmd(&self, program: &str) -> Cmd {
        // A clean environment: it may hold the signing key, which is no business of apt's.
        let mut cmd = Cmd::new(program).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                cmd = cmd.env(name, value);
            }
        }
        cmd.env("APT_CONFIG", self.dir.join("apt.conf")).env("LC_ALL", "C.UTF-8")
    }

    /// Fetches the lists; signatures and dates are checked by apt.
    pub fn update(&self) -> Result<(), PackagesError> {
        // The local repository's files have no dates that grow, so apt could hold an old copy for current.
        for entry in fs::read_dir(self.dir.join("lists")).map_err(|e| PackagesError::Io(self.dir.clone(), e))?.flatten()
        {
            if is_local(&entry.file_name().to_string_lossy()) {
                let _ = sys::file::remove(&entry.path());
            }
        }
        let output = self.cmd("apt-get").args(["update", "-qq", "--error-on=any"]).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        match classify(&stderr) {
            Some(error) => Err(error),
            None if output.code != 0 => Err(PackagesError::Update(stderr.trim_end().to_owned())),
            None => Ok(()),
        }
    }

    /// The newest date in the signed Release files.
    pub fn newest_date(&self) -> Result<Option<u64>, PackagesError> {
        let lists = self.dir.join("lists");
        let mut newest = None;
        for entry in fs::read_dir(&lists).map_err(|e| PackagesError::Io(lists.clone(), e))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_local(&name) || !name.ends_with("Release") {
                continue;
            }
            let text = fs::read_to_string(entry.path()).map_err(|e| PackagesError::Io(entry.path(), e))?;
            let date = text.lines().find_map(|l| l.strip_prefix("Date:")).and_then(|d| dates::parse(d.trim()));
            newest = newest.max(date);
        }
        Ok(newest)
    }
}

/// apt names list files after the address: the local repository's end in `_local_._…`.
fn is_local(list: &str) -> bool {
    list.contains("_local_._")
}

impl Source {
    fn render(&self, arch: &str) -> String {
        format!(
            "Types: deb\nURIs: {}\nSuites: {}\n{}Signed-By: {}\nArchitectures: {arch}\n{}",
            self.uri,
            self.suites.join(" "),
            // A suite that ends in a slash is a path to a flat repository, which has no components.
            if self.suites.iter().all(|s| s.ends_with('/')) {
                String::new()
            } else {
                format!("Components: {}\n", self.components.join(" "))
            },
            self.signed_by.display(),
            if self.check_valid_until { "" } else { "Check-Valid-Until: no\n" },
        )
    }
}

/// The proxy of the build machine's apt, if it has one for all hosts.
pub fn proxy() -> Option<String> {
    let output = Cmd::new("apt-config").args(["shell", "proxy", "Acquire::http::Proxy"]).run().ok()?;
    let value = output.text().strip_prefix("proxy='")?.strip_suffix('\'')?.to_owned();
    (value.starts_with("http") && !value.contains('"')).then_some(value)
}

/// The first complaint of `apt-get update` that we understand.
pub fn classify(stderr: &str) -> Option<PackagesError> {
    let lines: Vec<&str> =
        stderr.lines().filter_map(|l| l.strip_prefix("E: ").or_else(|| l.strip_prefix("W: "))).collect();
    let find = |what: &dyn Fn(&str) -> Option<PackagesError>| lines.iter().find_map(|l| what(l));
    let quoted = |line: &str| line.split('\'').nth(1).map(clean_url);
    find(&|line| {
        let (url, rest) = line.strip_prefix("Release file for ")?.split_once(" is expired ")?;
        let reason = rest.split(')').next()?.trim_start_matches('(').to_owned();
        Some(PackagesError::Expired { url: url.to_owned(), reason })
    })
    .or_else(|| {
        find(&|line| {
            let (url, rest) = line.strip_prefix("Release file for ")?.split_once(" is not valid yet ")?;
            let reason = format!("its date is in the future, {}", rest.split(')').next()?.trim_start_matches('('));
            Some(PackagesError::Expired { url: url.to_owned(), reason })
        })
    })
    .or_else(|| {
        find(&|line| {
            // apt 3 has other words for it.
            let heads = ["GPG error: ", "OpenPGP signature verification failed: "];
            let rest = heads.iter().find_map(|head| line.split_once(head))?.1;
            let (url, reason) = rest.split_once(": ")?;
            let reason = reason.trim_end_matches(" is not signed.").to_owned();
            Some(PackagesError::BadSignature { url: clean_url(url), reason })
        })
    })
    .or_else(|| {
        find(&|line| {
            line.contains("is not signed").then_some(())?;
            Some(PackagesError::BadSignature { url: quoted(line)?, reason: "it has no signature".to_owned() })
        })
    })
    .or_else(|| {
        find(&|line| {
            line.contains("does not have a Release file").then_some(())?;
            let reason = "there is no such suite, or it is no package repository".to_owned();
            Some(PackagesError::Unreachable { url: quoted(line)?, reason })
        })
    })
    .or_else(|| {
        find(&|line| {
            let (url, reason) = line.strip_prefix("Failed to fetch ")?.split_once("  ")?;
            let (url, reason) = (url.to_owned(), reason.trim().trim_end_matches('.').to_owned());
            if reason.contains("Clearsigned file isn't valid") || reason.contains("signature") {
                Some(PackagesError::BadSignature { url, reason })
            } else if ["Hash Sum mismatch", "unexpected size"].iter().any(|w| reason.contains(w)) {
                Some(PackagesError::Mismatch { url, reason })
            } else {
                Some(PackagesError::Unreachable { url, reason })
            }
        })
    })
}

/// `http://host/debian trixie InRelease` without the file.
fn clean_url(text: &str) -> String {
    text.trim_end_matches(" InRelease").trim_end_matches(" Release").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_says_becomes_what_to_do() {
        let rows = [
            (
                "E: Failed to fetch http://h:9/debian/dists/trixie/InRelease  Could not connect to h:9 (127.0.0.1). - connect (111: Connection refused)\n\
                 E: Some index files failed to download. They have been ignored, or old ones used instead.",
                "repository http://h:9/debian/dists/trixie/InRelease cannot be reached: Could not connect to h:9 (127.0.0.1). - connect (111: Connection refused);",
            ),
            (
                "E: The repository 'http://h/debian nosuch Release' does not have a Release file.",
                "repository http://h/debian nosuch cannot be reached: there is no such suite",
            ),
            (
                "W: GPG error: http://h/debian trixie InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 6ED0\n\
                 E: The repository 'http://h/debian trixie InRelease' is not signed.",
                "repository http://h/debian trixie is not signed by a trusted key: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 6ED0;",
            ),
            (
                "W: OpenPGP signature verification failed: http://h/d s InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 12",
                "repository http://h/d s is not signed by a trusted key: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 12;",
            ),
            (
                "W: An error occurred during the signature verification. The repository is not updated and the previous index files will be used. GPG error: http://h/d s InRelease: The following signatures were invalid: BADSIG 12",
                "repository http://h/d s is not signed by a trusted key: The following signatures were invalid: BADSIG 12;",
            ),
            (
                "E: Release file for http://h/debian/dists/trixie/InRelease is expired (invalid since 7d 3h). Updates for this repository will not be applied.",
                "repository http://h/debian/dists/trixie/InRelease has expired (invalid since 7d 3h):",
            ),
            (
                "E: Failed to fetch http://h/Packages.xz  Hash Sum mismatch\n   Hashes of expected file:",
                "repository http://h/Packages.xz does not hold what its signed index says: Hash Sum mismatch;",
            ),
        ];
        for (stderr, wanted) in rows {
            let error = classify(stderr).expect(wanted).to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
        assert!(classify("").is_none());
        assert!(classify("E: something else\nW: harmless").is_none());
    }
}
