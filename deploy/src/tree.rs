//! Reads single files and folders of a commit without checking anything out.

use std::io::Read;

use sha2::{Digest, Sha256};
use store::{Checksum, Commit, DirMeta, DirTree, FileMeta, Repo};

use crate::treeinfo::TreeInfo;

/// Largest file that is read into memory whole (kernels are streamed).
const MAX_SMALL: u64 = 64 << 20;

/// The tree of one commit.
pub struct Tree<'r> {
    repo: &'r Repo,
    /// Its commit.
    pub commit: Commit,
    /// The commit's name.
    pub checksum: Checksum,
}

/// What a path in a tree is.
#[derive(Clone, Debug)]
pub enum Item {
    /// A directory: its dirtree and dirmeta.
    Dir(Checksum, Checksum),
    /// A regular file or a symbolic link.
    File(Checksum),
}

/// Why a tree cannot become a deployment.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The repository said no.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Reading an object's content failed.
    #[error("reading {0} of commit {1}")]
    Read(String, Checksum, #[source] std::io::Error),
    /// Something that every host needs is not there.
    #[error("commit {1} has no {0}: it is not a host tree")]
    Missing(String, Checksum),
    /// Exactly one kernel is wanted.
    #[error("commit {0} has {1} kernels in usr/lib/modules; a host tree has one")]
    Kernels(Checksum, usize),
    /// `tree.json` is not what it should be.
    #[error("usr/lib/slipway/tree.json of commit {0}")]
    TreeJson(Checksum, #[source] serde_json::Error),
}

/// The kernel of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// SHA-256 over `vmlinuz` and then `initramfs.img`, in hex: the name of its directory on the ESP.
    pub bootcsum: String,
    /// Bytes that the two files take.
    pub size: u64,
}

impl<'r> Tree<'r> {
    /// The tree of `checksum`.
    pub fn open(repo: &'r Repo, checksum: &Checksum) -> Result<Tree<'r>, TreeError> {
        Ok(Tree { repo, commit: repo.load_commit(checksum)?, checksum: *checksum })
    }

    /// The repository it lies in.
    pub fn repo(&self) -> &'r Repo {
        self.repo
    }

    /// What `path` is; symbolic links are not followed.
    pub fn lookup(&self, path: &str) -> Result<Option<Item>, TreeError> {
        let (mut tree, mut meta) = (self.commit.root_tree, self.commit.root_meta);
        let mut parts = path.split('/').filter(|p| !p.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let listing = self.repo.load_dirtree(&tree)?;
            if let Some((_, t, m)) = listing.dirs.iter().find(|d| d.0 == part) {
                (tree, meta) = (*t, *m);
            } else {
                let file = listing.files.iter().find(|f| f.0 == part).map(|f| Item::File(f.1));
                return Ok(if parts.peek().is_none() { file } else { None });
            }
        }
        Ok(Some(Item::Dir(tree, meta)))
    }

    /// The names in the directory `path`; nothing when it is none.
    pub fn list(&self, path: &str) -> Result<DirTree, TreeError> {
        match self.lookup(path)? {
            Some(Item::Dir(tree, _)) => Ok(self.repo.load_dirtree(&tree)?),
            _ => Ok(DirTree::default()),
        }
    }

    /// A file's metadata and a reader for its content.
    pub fn open_file(&self, checksum: &Checksum) -> Result<(FileMeta, Box<dyn Read + Send>), TreeError> {
        let object = self.repo.open_file(checksum)?;
        Ok((object.meta, object.content))
    }

    /// A regular file's content; `None` when there is none at `path`.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, TreeError> {
        let Some(Item::File(checksum)) = self.lookup(path)? else { return Ok(None) };
        let (meta, content) = self.open_file(&checksum)?;
        if meta.symlink.is_some() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        content.take(MAX_SMALL).read_to_end(&mut bytes).map_err(|e| self.read_error(path, e))?;
        Ok(Some(bytes))
    }

    /// A regular file that every host tree has.
    pub fn require(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.read(path)?.ok_or_else(|| TreeError::Missing(path.to_owned(), self.checksum))
    }

    fn read_error(&self, path: &str, error: std::io::Error) -> TreeError {
        TreeError::Read(path.to_owned(), self.checksum, error)
    }

    /// Streams a regular file.
    pub fn stream(&self, path: &str) -> Result<(FileMeta, Box<dyn Read + Send>), TreeError> {
        match self.lookup(path)? {
            Some(Item::File(checksum)) => self.open_file(&checksum),
            _ => Err(TreeError::Missing(path.to_owned(), self.checksum)),
        }
    }

    /// The paths of the kernel and its initramfs.
    pub fn kernel_paths(&self) -> Result<(String, [String; 2]), TreeError> {
        let mut found = Vec::new();
        for (release, tree, _) in self.list("usr/lib/modules")?.dirs {
            if self.repo.load_dirtree(&tree)?.files.iter().any(|f| f.0 == "vmlinuz") {
                found.push(release);
            }
        }
        match found.as_slice() {
            [release] => {
                let path = |file: &str| format!("usr/lib/modules/{release}/{file}");
                Ok((release.clone(), [path("vmlinuz"), path("initramfs.img")]))
            }
            others => Err(TreeError::Kernels(self.checksum, others.len())),
        }
    }

    /// Hashes the kernel and its initramfs.
    pub fn kernel(&self) -> Result<Kernel, TreeError> {
        let (release, paths) = self.kernel_paths()?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 18];
        for path in paths {
            let (_, mut content) = self.stream(&path)?;
            loop {
                let n = content.read(&mut buffer).map_err(|e| self.read_error(&path, e))?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
        Ok(Kernel { release, bootcsum: hex::encode(hasher.finalize()), size })
    }

    /// What the tree says about itself; a tree without `tree.json` says nothing.
    pub fn info(&self) -> Result<TreeInfo, TreeError> {
        match self.read("usr/lib/slipway/tree.json")? {
            Some(text) => TreeInfo::parse(&text).map_err(|e| TreeError::TreeJson(self.checksum, e)),
            None => Ok(TreeInfo { os: crate::treeinfo::DEFAULT_OS.to_owned(), ..TreeInfo::default() }),
        }
    }

    /// The title of its boot entry: the name in `os-release` and the version.
    pub fn title(&self) -> Result<String, TreeError> {
        let text = self.read("usr/lib/os-release")?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let name = text
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .map(|v| v.trim().trim_matches(['"', '\'']).to_owned())
            .filter(|v| !v.is_empty())
            .unwrap_or_else(|| "Slipway".to_owned());
        Ok(match self.commit.version() {
            Some(version) => format!("{name} ({version})"),
            None => format!("{name} ({})", self.checksum.short()),
        })
    }

    /// Visits everything below the directory `path`, parents first, names in byte order of each directory: files, then
    /// directories. Paths are relative to `path`.
    pub fn walk<E: From<TreeError>>(
        &self,
        path: &str,
        visit: &mut dyn FnMut(&str, Visited<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(Item::Dir(tree, _)) = self.lookup(path)? {
            self.walk_tree(&tree, "", visit)?;
        }
        Ok(())
    }

    fn walk_tree<E: From<TreeError>>(
        &self,
        tree: &Checksum,
        prefix: &str,
        visit: &mut dyn FnMut(&str, Visited<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let listing = self.repo.load_dirtree(tree).map_err(TreeError::from)?;
        for (name, checksum) in &listing.files {
            visit(&format!("{prefix}{name}"), Visited::File(checksum))?;
        }
        for (name, tree, meta) in &listing.dirs {
            let meta = self.repo.load_dirmeta(meta).map_err(TreeError::from)?;
            visit(&format!("{prefix}{name}"), Visited::Dir(&meta))?;
            self.walk_tree(tree, &format!("{prefix}{name}/"), visit)?;
        }
        Ok(())
    }

    /// Owner, mode and attributes of the directory `path`.
    pub fn dir_meta(&self, path: &str) -> Result<Option<DirMeta>, TreeError> {
        match self.lookup(path)? {
            Some(Item::Dir(_, meta)) => Ok(Some(self.repo.load_dirmeta(&meta)?)),
            _ => Ok(None),
        }
    }
}

/// One thing met by [`Tree::walk`].
pub enum Visited<'a> {
    /// A directory.
    Dir(&'a DirMeta),
    /// A file or symbolic link, by its object.
    File(&'a Checksum),
}
