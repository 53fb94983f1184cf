//! The first deployment: a new disk is an update from nothing.
//!
//! ```text
//! root: ostree/deploy/<os>/deploy/<commit>.0/{.ostree.cfs,etc/}, .origin, .state.json, ostree/deploy/<os>/var
//! esp:  EFI/BOOT/BOOTX64.EFI, EFI/systemd/systemd-bootx64.efi, loader/{loader.conf,entries.srel},
//!       loader/entries/slipway-<os>-<commit12>.0+3.conf, slipway/<bootcsum>/{linux,initrd}, slipway/credentials/NAME
//! ```
//! The plan is the disk's content as data; whoever makes images writes it, and adds the repository's objects.

use std::io::Read;

use bootloader::{Counter, Entry, Kargs};
use store::{Checksum, Repo, Xattrs, composefs};

use crate::state::{State, StateFile};
use crate::tree::{Tree, TreeError, Visited};
use crate::{DeploymentId, json};

/// What may be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The stateroot; the tree's own when not given.
    pub os: Option<String>,
    /// Kernel arguments after the tree's.
    pub extra_kargs: Vec<String>,
    /// Where updates come from, instead of the tree's address.
    pub remote_url: Option<String>,
    /// Which ref to follow, instead of the tree's.
    pub remote_ref: Option<String>,
    /// The ref this commit was taken from, for the origin file; the tree's own when not given.
    pub ref_name: Option<String>,
    /// Who signed it, base64, as the caller verified.
    pub signer: Option<String>,
    /// Credentials for the first boot: name, content.
    pub credentials: Vec<(String, Vec<u8>)>,
}

/// What a node of the root file system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File(Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
}

/// One path of the root file system, relative to its top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Relative path, without a leading slash.
    pub path: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, without the type.
    pub mode: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// What it is.
    pub kind: Kind,
    /// Whether the file must have fs-verity.
    pub verity: bool,
}

/// One file on the ESP; directories follow from the paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspFile {
    /// Relative path, without a leading slash.
    pub path: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// The content of a new disk but for the repository.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The stateroot.
    pub os: String,
    /// The deployment that boots.
    pub deployment: DeploymentId,
    /// The root file system, parents before children.
    pub root: Vec<Node>,
    /// The ESP.
    pub esp: Vec<EspFile>,
    /// The fs-verity digest of `.ostree.cfs`.
    pub digest: [u8; 32],
}

/// Why a commit cannot be the first deployment.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// Something about the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The image could not be made.
    #[error("making the composefs image of commit {0}")]
    Image(Checksum, #[source] store::Error),
    /// The image made here is not the one that was signed.
    #[error("the composefs image of commit {commit} has digest {found}, the commit says {wanted}")]
    Digest {
        /// The commit.
        commit: Checksum,
        /// As made here.
        found: String,
        /// As signed.
        wanted: String,
    },
    /// Reading an object failed.
    #[error("reading {0}")]
    Read(String, #[source] std::io::Error),
    /// A name that cannot be a path.
    #[error("`{0}` cannot be the name of {1}")]
    Name(String, &'static str),
}

/// Plans the content of a new disk that boots `commit`.
pub fn plan(repo: &Repo, commit: &Checksum, options: &Options) -> Result<Disk, FirstError> {
    let tree = Tree::open(repo, commit)?;
    let info = tree.info()?;
    let os = options.os.clone().unwrap_or_else(|| info.os.clone());
    check_name(&os, "an operating system")?;
    let id = DeploymentId { commit: *commit, serial: 0 };
    let kernel = tree.kernel()?;
    let image = checked_image(&tree)?;
    let remote = info.remote();
    let ref_name =
        options.ref_name.clone().or_else(|| options.remote_ref.clone()).or(remote.ref_name).or(info.ref_name);
    let kargs: Vec<String> = info.kargs.iter().chain(&options.extra_kargs).cloned().collect();
    let state = StateFile {
        format: json::FORMAT.to_owned(),
        state: State::Trial,
        pinned: false,
        version: tree.commit.version().map(str::to_owned),
        ref_name: ref_name.clone(),
        url: None,
        signer: options.signer.clone(),
        title: tree.title()?,
        bootcsum: kernel.bootcsum.clone(),
        kargs: kargs.clone(),
        generation: 1,
        digest: Some(hex::encode(image.digest)),
        timestamp: tree.commit.timestamp,
        hold: false,
        reason: None,
        finalize: None,
        rest: Default::default(),
    };

    let mut root = Root::default();
    let deployments = format!("ostree/deploy/{os}/deploy");
    for path in
        ["ostree", "ostree/deploy", &format!("ostree/deploy/{os}"), &format!("ostree/deploy/{os}/var"), &deployments]
    {
        root.dir(path);
    }
    let deployment = format!("{deployments}/{id}");
    root.dir(&deployment);
    root.file(&format!("{deployment}/.ostree.cfs"), image.bytes, true);
    etc(&tree, &format!("{deployment}/etc"), &mut root)?;
    if options.remote_url.is_some() || options.remote_ref.is_some() {
        root.ensure_dir(&format!("{deployment}/etc/slipway"));
        root.replace_file(&format!("{deployment}/etc/slipway/remote.json"), remote_json(options));
    }
    root.file(&format!("{deployments}/{id}.origin"), origin(ref_name.as_deref()), false);
    let mut text = serde_json::to_vec_pretty(&state)
        .map_err(|e| FirstError::Read("the state file".to_owned(), std::io::Error::other(e)))?;
    text.push(b'\n');
    root.file(&format!("{deployments}/{id}.state.json"), text, false);

    let esp = esp(&tree, &os, &id, &state, options)?;
    Ok(Disk { os, deployment: id, root: root.nodes, esp, digest: image.digest })
}

/// Makes the EROFS image and compares its digest with what the commit says, when it says something.
pub fn checked_image(tree: &Tree<'_>) -> Result<composefs::Image, FirstError> {
    let commit = tree.checksum;
    let image = composefs::image(tree.repo(), &commit).map_err(|e| FirstError::Image(commit, e))?;
    match tree.commit.composefs_digest() {
        Some(wanted) if wanted != image.digest => {
            Err(FirstError::Digest { commit, found: hex::encode(image.digest), wanted: hex::encode(wanted) })
        }
        _ => Ok(image),
    }
}

/// The content of an origin file.
pub fn origin(ref_name: Option<&str>) -> Vec<u8> {
    match ref_name {
        Some(name) => format!("[origin]\nrefspec=default:{name}\n").into_bytes(),
        None => b"[origin]\n".to_vec(),
    }
}

/// The boot entry of a deployment.
pub fn entry(os: &str, id: &DeploymentId, state: &StateFile, generation: u64) -> Entry {
    let options = bootloader::deployment_kargs(os, &id.to_string(), &Kargs::from_words(&state.kargs));
    let title = if state.title.is_empty() { "Slipway" } else { &state.title };
    Entry::of_deployment(title, os, generation, &state.bootcsum, &options)
}

fn check_name(name: &str, what: &'static str) -> Result<(), FirstError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
        return Err(FirstError::Name(name.to_owned(), what));
    }
    Ok(())
}

fn remote_json(options: &Options) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    object.insert("format".into(), json::FORMAT.into());
    if let Some(url) = &options.remote_url {
        object.insert("url".into(), url.clone().into());
    }
    if let Some(name) = &options.remote_ref {
        object.insert("ref".into(), name.clone().into());
    }
    format!("{:#}\n", serde_json::Value::Object(object)).into_bytes()
}

fn esp(
    tree: &Tree<'_>,
    os: &str,
    id: &DeploymentId,
    state: &StateFile,
    options: &Options,
) -> Result<Vec<EspFile>, FirstError> {
    let mut files = Vec::new();
    let mut add = |path: String, bytes: Vec<u8>| files.push(EspFile { path, bytes });
    let loader = tree.require(bootloader::LOADER_IN_TREE)?;
    add(bootloader::FALLBACK_LOADER.to_owned(), loader.clone());
    add(bootloader::SYSTEMD_LOADER.to_owned(), loader);
    add("loader/loader.conf".to_owned(), bootloader::LOADER_CONF.into());
    add("loader/entries.srel".to_owned(), bootloader::ENTRIES_SREL.into());
    let name = id.entry_name(os).with(Some(Counter::fresh(bootloader::FIRST_TRIES)));
    let text = entry(os, id, state, state.generation).render();
    add(format!("{}/{name}", bootloader::ENTRIES_DIR), text.into_bytes());
    let (_, [vmlinuz, initramfs]) = tree.kernel_paths()?;
    let directory = bootloader::boot_directory(&state.bootcsum);
    for (file, path) in [("linux", vmlinuz), ("initrd", initramfs)] {
        let (_, mut content) = tree.stream(&path)?;
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(|e| FirstError::Read(path.clone(), e))?;
        add(format!("{directory}/{file}"), bytes);
    }
    for (name, bytes) in &options.credentials {
        check_name(name, "a credential")?;
        add(format!("slipway/credentials/{name}"), bytes.clone());
    }
    Ok(files)
}

/// Copies the tree's default `/etc`.
fn etc(tree: &Tree<'_>, to: &str, root: &mut Root) -> Result<(), FirstError> {
    let missing = || TreeError::Missing("usr/etc".to_owned(), tree.checksum);
    let meta = tree.dir_meta("usr/etc")?.ok_or_else(missing)?;
    root.node(to, meta.uid, meta.gid, meta.mode, meta.xattrs, Kind::Dir);
    tree.walk("usr/etc", &mut |path, item| {
        let at = format!("{to}/{path}");
        match item {
            Visited::Dir(meta) => root.node(&at, meta.uid, meta.gid, meta.mode, meta.xattrs.clone(), Kind::Dir),
            Visited::File(checksum) => {
                let (meta, mut content) = tree.open_file(checksum)?;
                let kind = match &meta.symlink {
                    Some(target) => Kind::Symlink(target.clone().into_bytes()),
                    None => {
                        let mut bytes = Vec::new();
                        content.read_to_end(&mut bytes).map_err(|e| FirstError::Read(format!("usr/etc/{path}"), e))?;
                        Kind::File(bytes)
                    }
                };
                root.node(&at, meta.uid, meta.gid, meta.mode, meta.xattrs, kind);
            }
        }
        Ok(())
    })
}

#[derive(Default)]
struct Root {
    nodes: Vec<Node>,
}

impl Root {
    fn node(&mut self, path: &str, uid: u32, gid: u32, mode: u32, xattrs: Xattrs, kind: Kind) {
        self.nodes.push(Node { path: path.to_owned(), uid, gid, mode: mode & 0o7777, xattrs, kind, verity: false });
    }

    fn dir(&mut self, path: &str) {
        self.node(path, 0, 0, 0o755, Vec::new(), Kind::Dir);
    }

    fn ensure_dir(&mut self, path: &str) {
        if !self.nodes.iter().any(|n| n.path == path) {
            self.dir(path);
        }
    }

    fn file(&mut self, path: &str, bytes: Vec<u8>, verity: bool) {
        self.node(path, 0, 0, 0o644, Vec::new(), Kind::File(bytes));
        if let Some(node) = self.nodes.last_mut() {
            node.verity = verity;
        }
    }

    fn replace_file(&mut self, path: &str, bytes: Vec<u8>) {
        self.nodes.retain(|n| n.path != path);
        self.file(path, bytes, false);
    }
}
