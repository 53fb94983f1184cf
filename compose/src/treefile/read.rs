//! One file: its keys are checked and become a `Layer`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::near;
use super::node::{self, Kind, Node};
use super::options::{ALIASES, ARCHITECTURES, KEYS, UNSUPPORTED};
use super::{AddFile, Metadata, Place, Remote, Repository, Require, TreefileError};

/// What one file says, or several after merging.
#[derive(Debug, Default)]
pub struct Layer {
    pub scalars: BTreeMap<&'static str, (String, Place)>,
    pub variables: BTreeMap<String, String>,
    pub repos: Vec<Repository>,
    pub packages: Vec<(String, Place)>,
    pub exclude_packages: Vec<(String, Place)>,
    pub ref_bindings: Vec<(String, Place)>,
    pub local_packages: Vec<(String, PathBuf)>,
    pub units: Vec<String>,
    pub add_files: Vec<AddFile>,
    pub remove_files: Vec<String>,
    pub postprocess: Vec<String>,
    pub kargs: Vec<String>,
    pub add_commit_metadata: BTreeMap<String, Metadata>,
    pub remotes: BTreeMap<String, Remote>,
}

/// An include and the line that names it.
pub type Include = (PathBuf, usize);

type Result<T> = std::result::Result<T, TreefileError>;

/// Reads the text of `file`.
pub fn layer(file: &Path, text: &str, arch: &str) -> Result<(Layer, Vec<Include>)> {
    let json = file.extension().is_some_and(|e| e == "json");
    let root = node::parse(text, json).map_err(|c| TreefileError::at(file, c.line, c.text))?;
    let reader = Reader { file, dir: file.parent().unwrap_or(Path::new("")), arch };
    reader.read(root)
}

struct Reader<'a> {
    file: &'a Path,
    dir: &'a Path,
    arch: &'a str,
}

impl Reader<'_> {
    fn error<T>(&self, line: usize, text: impl Into<String>) -> Result<T> {
        Err(TreefileError::at(self.file, line, text))
    }

    fn place(&self, line: usize) -> Place {
        Place { file: self.file.to_owned(), line }
    }

    fn read(&self, root: Node) -> Result<(Layer, Vec<Include>)> {
        let line = root.line;
        let entries = match root.kind {
            Kind::Mapping(entries) => entries,
            Kind::Null => Vec::new(),
            _ => return self.error(line, "a treefile is a mapping of keys to values, such as `ref: os/13`"),
        };
        let (mut layer, mut includes) = (Layer::default(), Vec::new());
        for (written, line, value) in entries {
            let key = self.known(&written, line)?;
            if key == "packages-ARCH" {
                let packages = self.packages(&written, value)?;
                if written.strip_prefix("packages-") == Some(self.arch) {
                    layer.packages.extend(packages);
                }
                continue;
            }
            // An empty value says nothing, as in rpm-ostree.
            if value.kind == Kind::Null {
                continue;
            }
            match key {
                "include" => {
                    for (text, line) in self.one_or_more(key, value)? {
                        includes.push((self.dir.join(text), line));
                    }
                }
                "packages" => layer.packages.extend(self.packages(key, value)?),
                "exclude-packages" => layer.exclude_packages.extend(self.packages(key, value)?),
                "ref-bindings" => {
                    for (name, line) in self.list(key, value)? {
                        layer.ref_bindings.push((name, self.place(line)));
                    }
                }
                "local-packages" => {
                    for (text, line) in self.list(key, value)? {
                        let path = self.dir.join(&text);
                        if !path.exists() {
                            return self.error(line, format!("local-packages: {} does not exist", path.display()));
                        }
                        layer.local_packages.push((text, path));
                    }
                }
                "units" => {
                    for (unit, line) in self.list(key, value)? {
                        self.unit(key, &unit, line)?;
                        layer.units.push(unit);
                    }
                }
                "kargs" => {
                    for (word, line) in self.list(key, value)? {
                        if word.is_empty() || word.contains(['\n', '\0']) {
                            return self.error(line, "kargs: an item is one kernel argument, or several on one line");
                        }
                        layer.kargs.extend(word.split_whitespace().map(str::to_owned));
                    }
                }
                "remove-files" => {
                    for (path, line) in self.list(key, value)? {
                        layer.remove_files.push(self.tree_path(key, &path, line)?);
                    }
                }
                "postprocess" => layer.postprocess.extend(self.list(key, value)?.into_iter().map(|(s, _)| s)),
                "add-files" => self.add_files(value, &mut layer.add_files)?,
                "repos" => self.repos(value, &mut layer.repos)?,
                "remotes" => self.remotes(value, &mut layer.remotes)?,
                "variables" => {
                    for (name, line, value) in self.mapping(key, value)? {
                        if matches!(name.as_str(), "basearch" | "releasever") {
                            return self.error(line, format!("variables: `{name}` is set by slipway"));
                        }
                        layer.variables.insert(name.clone(), self.scalar(&name, value)?.0);
                    }
                }
                "add-commit-metadata" => {
                    for (name, _, value) in self.mapping(key, value)? {
                        let quoted = matches!(value.kind, Kind::Scalar { quoted: true, .. });
                        let value = match self.scalar(&name, value)?.0 {
                            text if !quoted && text == "true" => Metadata::Bool(true),
                            text if !quoted && text == "false" => Metadata::Bool(false),
                            text => Metadata::Text(text),
                        };
                        layer.add_commit_metadata.insert(name, value);
                    }
                }
                scalar => {
                    let (text, line) = self.scalar(scalar, value)?;
                    self.check_scalar(scalar, &text, line)?;
                    if layer.scalars.insert(scalar, (text, self.place(line))).is_some() {
                        let alias = ALIASES.iter().find(|(_, name)| *name == scalar).map_or(scalar, |(alias, _)| alias);
                        return self.error(line, format!("`{alias}` and `{scalar}` are the same key; give one"));
                    }
                }
            }
        }
        Ok((layer, includes))
    }

    /// The canonical name of a key, or the error that says what was perhaps meant.
    fn known(&self, written: &str, line: usize) -> Result<&'static str> {
        if let Some((_, name)) = ALIASES.iter().find(|(alias, _)| *alias == written) {
            return Ok(name);
        }
        if let Some(key) = KEYS.iter().find(|k| k.name == written && k.name != "packages-ARCH") {
            return Ok(key.name);
        }
        if let Some(arch) = written.strip_prefix("packages-") {
            if ARCHITECTURES.contains(&arch) {
                return Ok("packages-ARCH");
            }
            let debian = match arch {
                "x86_64" => Some("amd64"),
                "aarch64" => Some("arm64"),
                "ppc64le" => Some("ppc64el"),
                _ => None,
            };
            let near =
                debian.map_or_else(|| near::misses(arch, ARCHITECTURES.iter().copied()), |arch| vec![arch.to_owned()]);
            let near: Vec<String> = near.into_iter().map(|a| format!("packages-{a}")).collect();
            return self.error(line, format!("`{arch}` is no Debian architecture{}", near::suggestion(&near)));
        }
        if let Some((name, instead)) = UNSUPPORTED.iter().find(|(name, _)| *name == written) {
            let instead = if instead.is_empty() { String::new() } else { format!("; {instead}") };
            return self.error(line, format!("`{name}` is a key of rpm-ostree that is not supported{instead}"));
        }
        let names = KEYS.iter().map(|k| k.name).chain(ALIASES.iter().map(|(a, _)| *a));
        let near = near::misses(written, names);
        self.error(line, format!("unknown key `{written}`{}", near::suggestion(&near)))
    }

    fn scalar(&self, key: &str, node: Node) -> Result<(String, usize)> {
        match node.kind {
            Kind::Scalar { text, .. } => Ok((text, node.line)),
            _ => self.error(node.line, format!("{key}: expected a single value, found {}", node.describe())),
        }
    }

    fn list(&self, key: &str, node: Node) -> Result<Vec<(String, usize)>> {
        match node.kind {
            Kind::Sequence(items) => items.into_iter().map(|item| self.scalar(key, item)).collect(),
            _ => self.error(node.line, format!("{key}: expected a list, found {}", node.describe())),
        }
    }

    fn one_or_more(&self, key: &str, node: Node) -> Result<Vec<(String, usize)>> {
        if matches!(node.kind, Kind::Scalar { .. }) { Ok(vec![self.scalar(key, node)?]) } else { self.list(key, node) }
    }

    fn mapping(&self, key: &str, node: Node) -> Result<Vec<(String, usize, Node)>> {
        match node.kind {
            Kind::Mapping(entries) => Ok(entries),
            _ => self.error(node.line, format!("{key}: expected a mapping, found {}", node.describe())),
        }
    }

    fn check_scalar(&self, key: &str, text: &str, line: usize) -> Result<()> {
        match key {
            "recommends" | "documentation" if !matches!(text, "true" | "false") => {
                self.error(line, format!("{key}: expected `true` or `false`, found `{text}`"))
            }
            "edition" if text != "2024" => self.error(line, format!("edition: `{text}` is not known; there is `2024`")),
            "require" if !matches!(text, "verified" | "verity") => {
                self.error(line, format!("require: expected `verified` or `verity`, found `{text}`"))
            }
            "stateroot" | "releasever" if !word(text) => {
                self.error(line, format!("{key}: `{text}` is not a word of letters, digits and `.-_`"))
            }
            "automatic-version-suffix" if text.chars().count() != 1 => {
                self.error(line, format!("{key}: expected one character, found `{text}`"))
            }
            "automatic-version-prefix" => {
                super::version::check(text).map_err(|e| TreefileError::at(self.file, line, format!("{key}: {e}")))
            }
            "default-target" => self.unit(key, text, line),
            _ => Ok(()),
        }
    }

    fn unit(&self, key: &str, unit: &str, line: usize) -> Result<()> {
        const KINDS: [&str; 8] =
            [".service", ".socket", ".target", ".timer", ".mount", ".path", ".slice", ".automount"];
        let stem = KINDS.iter().find_map(|kind| unit.strip_suffix(kind));
        if stem.is_none_or(str::is_empty) || unit.contains(['/', ' ']) {
            return self.error(line, format!("{key}: `{unit}` is not a unit name, such as `ssh.service`"));
        }
        Ok(())
    }

    fn packages(&self, key: &str, node: Node) -> Result<Vec<(String, Place)>> {
        if node.kind == Kind::Null {
            return Ok(Vec::new());
        }
        let mut packages = Vec::new();
        for (item, line) in self.list(key, node)? {
            for name in item.split_whitespace() {
                if !package_name(name) {
                    return self
                        .error(line, format!("{key}: `{name}` is not a package name, `name=version` or `name/suite`"));
                }
                packages.push((name.to_owned(), self.place(line)));
            }
        }
        Ok(packages)
    }

    /// An absolute path inside the tree, without `.` and `..`.
    fn tree_path(&self, key: &str, path: &str, line: usize) -> Result<String> {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        if parts.is_empty() || parts.contains(&"..") || path.contains('\0') {
            return self.error(line, format!("{key}: `{path}` is not a path in the tree"));
        }
        Ok(format!("/{}", parts.join("/")))
    }

    fn add_files(&self, node: Node, files: &mut Vec<AddFile>) -> Result<()> {
        let Kind::Sequence(items) = node.kind else {
            return self.error(node.line, format!("add-files: expected a list, found {}", node.describe()));
        };
        for item in items {
            let line = item.line;
            let words = self.list("add-files", item)?;
            let (source, destination, mode) = match words.as_slice() {
                [(source, _), (destination, _)] => (source, destination, None),
                [(source, _), (destination, _), (mode, _)] => (source, destination, Some(mode)),
                _ => {
                    return self
                        .error(line, "add-files: an item is `[source, destination]` or `[source, destination, mode]`");
                }
            };
            let mode = match mode.map(|m| (m, u32::from_str_radix(m.trim_start_matches("0o"), 8))) {
                None => None,
                Some((_, Ok(mode))) if mode <= 0o7777 => Some(mode),
                Some((text, _)) => {
                    return self.error(line, format!("add-files: `{text}` is no octal mode such as 0644"));
                }
            };
            let destination = self.tree_path("add-files", destination, line)?;
            self.add_file(source, &destination, mode, line, files)?;
        }
        Ok(())
    }

    fn add_file(
        &self,
        source: &str,
        destination: &str,
        mode: Option<u32>,
        line: usize,
        files: &mut Vec<AddFile>,
    ) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.join(source);
        let fail =
            |e: std::io::Error| TreefileError::at(self.file, line, format!("add-files: {}: {e}", path.display()));
        let meta = path.metadata().map_err(fail)?;
        if meta.is_dir() {
            let mut names = Vec::new();
            for entry in path.read_dir().map_err(fail)? {
                let name = entry.map_err(fail)?.file_name();
                match name.to_str() {
                    Some(name) => names.push(name.to_owned()),
                    None => {
                        return self.error(line, format!("add-files: {}: a name in it is not UTF-8", path.display()));
                    }
                }
            }
            names.sort_unstable();
            for name in names {
                self.add_file(&format!("{source}/{name}"), &format!("{destination}/{name}"), mode, line, files)?;
            }
            return Ok(());
        }
        if !meta.is_file() {
            return self.error(line, format!("add-files: {} is neither a file nor a directory", path.display()));
        }
        let content = std::fs::read(&path).map_err(fail)?;
        // The umask and the owner of the checkout must not matter: only "executable" is taken from the file.
        let mode = mode.unwrap_or(if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 });
        files.push(AddFile {
            source: source.to_owned(),
            destination: destination.to_owned(),
            mode,
            sha256: hex::encode(Sha256::digest(&content)),
            path,
        });
        Ok(())
    }

    fn repos(&self, node: Node, repos: &mut Vec<Repository>) -> Result<()> {
        const NAMES: [&str; 7] = ["name", "uris", "url", "suites", "components", "signed-by", "check-valid-until"];
        let Kind::Sequence(items) = node.kind else {
            return self.error(node.line, format!("repos: expected a list, found {}", node.describe()));
        };
        for item in items {
            let start = item.line;
            if matches!(item.kind, Kind::Scalar { .. }) {
                let (name, line) = self.scalar("repos", item)?;
                super::merge::put_repo(repos, self.sources_file(&name, line)?);
                continue;
            }
            let mut repo = Repository::debian("");
            for (key, line, value) in self.mapping("repos", item)? {
                match key.as_str() {
                    "name" => repo.name = self.scalar(&key, value)?.0,
                    "uris" | "url" => {
                        for (uri, line) in self.one_or_more(&key, value)? {
                            self.uri("repos", &uri, line)?;
                            repo.uris.push(uri);
                        }
                    }
                    "suites" => repo.suites = self.words(&key, value)?,
                    "components" => repo.components = self.words(&key, value)?,
                    "signed-by" => {
                        let (text, line) = self.scalar(&key, value)?;
                        let path = self.dir.join(text);
                        if !path.is_file() {
                            return self.error(line, format!("signed-by: there is no keyring {}", path.display()));
                        }
                        repo.signed_by = Some(path);
                    }
                    "check-valid-until" => match self.scalar(&key, value)?.0.as_str() {
                        "true" => repo.check_valid_until = true,
                        "false" => repo.check_valid_until = false,
                        other => {
                            return self.error(line, format!("{key}: expected `true` or `false`, found `{other}`"));
                        }
                    },
                    other => {
                        let near = near::misses(other, NAMES);
                        return self.error(line, format!("repos: unknown key `{other}`{}", near::suggestion(&near)));
                    }
                }
            }
            if !word(&repo.name) {
                return self.error(start, "repos: a repository needs a `name`, a word of letters, digits and `.-_`");
            }
            super::merge::put_repo(repos, repo);
        }
        Ok(())
    }

    fn words(&self, key: &str, node: Node) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for (text, line) in self.one_or_more(key, node)? {
            for item in text.split_whitespace() {
                if !item.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+~".contains(&b)) {
                    return self.error(line, format!("{key}: `{item}` is not the name of a suite or component"));
                }
                words.push(item.to_owned());
            }
        }
        Ok(words)
    }

    fn uri(&self, key: &str, uri: &str, line: usize) -> Result<()> {
        let scheme = ["http://", "https://", "file:/"].iter().any(|s| uri.starts_with(s));
        if !scheme || uri.contains(char::is_whitespace) {
            return self
                .error(line, format!("{key}: `{uri}` is not an address that begins with http://, https:// or file:/"));
        }
        Ok(())
    }

    /// `NAME.sources` beside the treefile: the first stanza of apt's deb822 format.
    fn sources_file(&self, name: &str, line: usize) -> Result<Repository> {
        if !word(name) {
            return self.error(line, format!("repos: `{name}` is not a name"));
        }
        let path = self.dir.join(format!("{name}.sources"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => return self.error(line, format!("repos: {}: {e}", path.display())),
        };
        let source = |text: String| TreefileError::at(&path, 1, text);
        let stanzas = crate::packages::deb822::stanzas(&text);
        let [stanza] = stanzas.as_slice() else {
            return Err(source(format!("expected one repository, found {}", stanzas.len())));
        };
        let words = |key: &str| -> Vec<String> {
            stanza.get(key).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let mut repo = Repository::debian(name);
        (repo.uris, repo.suites) = (words("URIs"), words("Suites"));
        if !words("Components").is_empty() {
            repo.components = words("Components");
        }
        if repo.uris.is_empty() || repo.suites.is_empty() {
            return Err(source("`URIs` and `Suites` are needed".to_owned()));
        }
        repo.check_valid_until = !matches!(stanza.get("Check-Valid-Until"), Some("no" | "false"));
        if let Some(key) = stanza.get("Signed-By") {
            if key.contains('\n') {
                return Err(source("a key written into `Signed-By` is not supported; name a keyring file".to_owned()));
            }
            repo.signed_by = Some(self.dir.join(key));
        }
        Ok(repo)
    }

    fn remotes(&self, node: Node, remotes: &mut BTreeMap<String, Remote>) -> Result<()> {
        for (name, line, value) in self.mapping("remotes", node)? {
            if !word(&name) {
                return self.error(line, format!("remotes: `{name}` is not a word of letters, digits and `.-_`"));
            }
            let mut remote = Remote::default();
            for (key, line, value) in self.mapping("remotes", value)? {
                match key.as_str() {
                    "url" => {
                        let (url, line) = self.scalar(&key, value)?;
                        if !url.contains("${") && !["http://", "https://"].iter().any(|s| url.starts_with(s)) {
                            return self
                                .error(line, format!("remotes: `{url}` does not begin with http:// or https://"));
                        }
                        remote.url = Some(url);
                    }
                    "ref" => remote.ref_name = Some(self.scalar(&key, value)?.0),
                    "keys" => {
                        for (text, line) in self.one_or_more(&key, value)? {
                            remote.keys.push(self.key(&text, line)?);
                        }
                    }
                    other => {
                        let near = near::misses(other, ["url", "ref", "keys"]);
                        return self.error(line, format!("remotes: unknown key `{other}`{}", near::suggestion(&near)));
                    }
                }
            }
            remotes.insert(name, remote);
        }
        Ok(())
    }

    /// A public key: base64 of 32 bytes, or the name of a file that holds one on its first line.
    fn key(&self, text: &str, line: usize) -> Result<String> {
        let valid = |text: &str| STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32);
        if valid(text) {
            return Ok(text.to_owned());
        }
        let path = self.dir.join(text);
        let content = match std::fs::read_to_string(&path) {
            Ok(content) => content,
            Err(e) => {
                return self.error(
                    line,
                    format!("keys: `{text}` is neither a public key in base64 nor a file: {}: {e}", path.display()),
                );
            }
        };
        match content.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#')) {
            Some(key) if valid(key) => Ok(key.to_owned()),
            // A secret key is 64 bytes; saying so is worth more than "invalid".
            Some(key) if STANDARD.decode(key).is_ok_and(|b| b.len() == 64) => {
                self.error(line, format!("keys: {} holds a secret key; name its .pub", path.display()))
            }
            _ => self.error(line, format!("keys: {} holds no ed25519 public key in base64", path.display())),
        }
    }
}

impl Repository {
    /// The Debian archive at the build machine's mirror.
    pub fn debian(name: &str) -> Self {
        Repository {
            name: name.to_owned(),
            uris: Vec::new(),
            suites: Vec::new(),
            components: vec!["main".to_owned()],
            signed_by: None,
            check_valid_until: true,
        }
    }
}

impl Require {
    pub(super) fn parse(text: &str) -> Self {
        if text == "verity" { Require::Verity } else { Require::Verified }
    }
}

/// Letters, digits and `.-_`, beginning with a letter or digit.
pub fn word(text: &str) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// What may be given to apt: nothing that it would read as a pattern, an option or a removal.
fn package_name(text: &str) -> bool {
    let (name, rest) = match text.find(['=', '/']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    name.len() >= 2
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b))
        && !name.ends_with('-')
        && rest.is_none_or(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_alphanumeric() || b".+~:-_".contains(&b)))
}
