//! A throwaway package archive, signed with a throwaway key, on disk or behind loopback HTTP.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use sys::Cmd;

/// The archive's files, and the directories a test needs beside them.
pub struct Archive {
    pub dir: tempfile::TempDir,
}

/// What differs in a Release file.
pub struct Release<'a> {
    pub date: &'a str,
    pub valid_until: Option<&'a str>,
    pub key: &'a str,
}

impl Default for Release<'_> {
    fn default() -> Self {
        Release { date: "Sat, 12 Sep 2020 07:55:41 UTC", valid_until: None, key: "archive" }
    }
}

impl Archive {
    /// An archive with the packages of `controls`; each text is a control file without maintainer and description.
    pub fn new(controls: &[&str]) -> Self {
        Self::with(controls, &Release::default())
    }

    pub fn with(controls: &[&str], release: &Release<'_>) -> Self {
        let archive = Archive { dir: tempfile::tempdir().unwrap() };
        archive.make_key("archive");
        archive.make_key("stranger");
        for control in controls {
            archive.deb("pool", control);
        }
        archive.publish(release);
        archive
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn uri(&self) -> String {
        format!("file:{}", self.dir.path().display())
    }

    /// A keyring that holds the public key `name`.
    pub fn keyring(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.gpg"))
    }

    fn gpg(&self) -> Cmd {
        Cmd::new("gpg").env("GNUPGHOME", self.path("gnupg")).args(["--batch", "--quiet", "--yes", "--passphrase", ""])
    }

    fn make_key(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        let home = self.path("gnupg");
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let id = format!("{name} <{name}@example.org>");
        self.gpg().args(["--quick-generate-key", &id, "ed25519", "sign", "never"]).run().unwrap();
        let exported = self.gpg().args(["--export", &format!("{name}@example.org")]).run().unwrap();
        fs::write(self.keyring(name), exported.stdout).unwrap();
    }

    /// Builds a `.deb` in the directory `into`.
    pub fn deb(&self, into: &str, control: &str) -> PathBuf {
        let field = |key: &str| {
            let line = control.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let arch = if field("Architecture").is_empty() { "all".to_owned() } else { field("Architecture") };
        let version = if field("Version").is_empty() { "1.0".to_owned() } else { field("Version") };
        let mut text = control.trim_end().to_owned();
        for (key, value) in [("Version", &version), ("Architecture", &arch)] {
            if field(key).is_empty() {
                write!(text, "\n{key}: {value}").unwrap();
            }
        }
        text.push_str("\nMaintainer: Nobody <nobody@example.org>\nDescription: for a test\n");
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("DEBIAN")).unwrap();
        fs::write(tree.path().join("DEBIAN/control"), text).unwrap();
        // `Payload: N`: so many bytes that do not compress.
        if let Ok(size) = field("Payload").parse::<usize>() {
            let mut state = 1_u64;
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            let payload: Vec<u8> = (0..size).map(|_| byte()).collect();
            fs::write(tree.path().join("payload"), payload).unwrap();
        }
        fs::create_dir_all(self.path(into)).unwrap();
        let deb = self.path(into).join(format!("{}_{version}_{arch}.deb", field("Package")));
        let build = Cmd::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(tree.path()).arg(&deb);
        build.env("SOURCE_DATE_EPOCH", "1600000000").run().unwrap();
        deb
    }

    /// Writes indexes and signs them.
    pub fn publish(&self, release: &Release<'_>) {
        let mut packages = String::new();
        let mut debs: Vec<PathBuf> =
            fs::read_dir(self.path("pool")).into_iter().flatten().map(|e| e.unwrap().path()).collect();
        debs.sort();
        for deb in debs {
            let control = Cmd::new("dpkg-deb").arg("-f").arg(&deb).run().unwrap().text();
            let content = fs::read(&deb).unwrap();
            let name = deb.file_name().unwrap().to_string_lossy().into_owned();
            let sha256 = hex::encode(Sha256::digest(&content));
            writeln!(packages, "{control}\nFilename: pool/{name}\nSize: {}\nSHA256: {sha256}\n", content.len())
                .unwrap();
        }
        let arch = compose::treefile::native_architecture();
        let dist = self.path("dists/test");
        let index = format!("main/binary-{arch}/Packages");
        fs::create_dir_all(dist.join(&index).parent().unwrap()).unwrap();
        fs::write(dist.join(&index), &packages).unwrap();
        let mut text = format!(
            "Origin: Test\nSuite: test\nCodename: test\nDate: {}\nArchitectures: {arch}\nComponents: main\n",
            release.date
        );
        if let Some(until) = release.valid_until {
            writeln!(text, "Valid-Until: {until}").unwrap();
        }
        writeln!(text, "SHA256:\n {} {} {index}", hex::encode(Sha256::digest(&packages)), packages.len()).unwrap();
        let signed = self
            .gpg()
            .args(["--local-user", &format!("{}@example.org", release.key), "--clearsign"])
            .stdin(text.into_bytes())
            .run()
            .unwrap();
        fs::write(dist.join("InRelease"), signed.stdout).unwrap();
    }

    /// A treefile that uses this archive alone.
    pub fn treefile(&self, rest: &str) -> PathBuf {
        self.treefile_at(&self.uri(), "archive", rest)
    }

    /// A treefile that finds the archive at `uri` and trusts the key `key`.
    pub fn treefile_at(&self, uri: &str, key: &str, rest: &str) -> PathBuf {
        let path = self.path("t.yaml");
        let head =
            format!("ref: test/host\nreleasever: test\nrepos:\n- {{name: test, url: '{uri}', signed-by: {key}.gpg}}\n");
        fs::write(&path, head + rest).unwrap();
        path
    }

    /// Runs `slipway compose TREEFILE ARGS` with a cache of this archive's own.
    pub fn compose(&self, treefile: &Path, args: &[&str]) -> sys::Output {
        Cmd::new(env!("CARGO_BIN_EXE_slipway"))
            .arg("compose")
            .arg(treefile)
            .arg("--cachedir")
            .arg(self.path("cache"))
            .args(args)
            .env_remove("SLIPWAY_MIRROR")
            .env_remove("SOURCE_DATE_EPOCH")
            .output()
            .unwrap()
    }

    /// A compose that must fail: its message, with the directory's name taken out.
    pub fn refusal(&self, treefile: &Path, args: &[&str]) -> String {
        let output = self.compose(treefile, args);
        assert_ne!(output.code, 0, "it worked: {}", output.text());
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|l| l.starts_with("slipway: ")).unwrap_or(&text).to_owned();
        line.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = Cmd::new("gpgconf").env("GNUPGHOME", self.path("gnupg")).args(["--kill", "all"]).output();
    }
}

/// Serves a directory over HTTP/1.1 with ranges; drops the connection after `cut` bytes of a body, `cuts` times.
pub struct Server {
    pub url: String,
    pub log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(root: &Path, cut: usize, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (root, shared, left) = (root.to_owned(), log.clone(), Arc::new(AtomicUsize::new(cuts)));
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, log, left) = (root.clone(), shared.clone(), left.clone());
                std::thread::spawn(move || serve(stream, &root, &log, cut, &left));
            }
        });
        Server { url, log }
    }

    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, root: &Path, log: &Mutex<Vec<String>>, cut: usize, left: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut from = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
                from = range.trim().trim_end_matches('-').parse().unwrap_or(0);
            }
            if header.trim().is_empty() {
                break;
            }
        }
        log.lock().unwrap().push(if from > 0 { format!("{path} from {from}") } else { path.clone() });
        let mut content = Vec::new();
        let file = fs::File::open(root.join(path.trim_start_matches('/')));
        let Ok(mut file) = file else {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            continue;
        };
        if file.read_to_end(&mut content).is_err() {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            continue;
        }
        let body = &content[from.min(content.len())..];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        let is_deb = path.ends_with(".deb");
        if is_deb
            && body.len() > cut
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            let _ = stream.write_all(&body[..cut]);
            return;
        }
        let _ = stream.write_all(body);
    }
}
