//! What goes on the root file system: the first deployment, and the repository with every object of its commit.
//!
//! ```text
//! ostree/repo/config, refs/remotes/default/<ref>, {tmp,state,extensions,refs/heads,…}
//! ostree/repo/objects/ab/cdef….{commit,commitmeta,dirtree,dirmeta}
//! ostree/repo/objects/ab/cdef….file      sealed with fs-verity; owner, mode and attributes in user.ostreemeta
//! everything else                        from the plan of the first deployment
//! ```
//! No object's content is held in memory: it is read when its place on the disk is written.

use std::collections::BTreeMap;
use std::io::{self, Read};

use deploy::first;
use store::digests::Digests;
use store::{Checksum, ObjectType, Repo, object_path};
use sys::Progress;

use crate::Error;
use crate::ext4::{self, Kind, Node};

/// Where a file's content comes from.
enum Source {
    Bytes(Vec<u8>),
    /// A file object: the content of a file, the target of a link.
    Object(Checksum),
}

/// The tree of the root file system, and where its content is.
pub(crate) struct Root<'r> {
    repo: &'r Repo,
    digests: Digests,
    sources: Vec<Source>,
    /// The tree.
    pub tree: Node,
    /// Bytes of content.
    pub bytes: u64,
    /// File objects.
    pub objects: u64,
    progress: Option<&'r Progress>,
}

impl<'r> Root<'r> {
    /// Collects everything; reads no content of file objects.
    pub fn new(
        repo: &'r Repo,
        commit: &Checksum,
        ref_name: Option<&str>,
        nodes: Vec<first::Node>,
    ) -> Result<Self, Error> {
        let digests = repo.digests()?;
        let mut root =
            Root { repo, digests, sources: Vec::new(), tree: Node::dir(0o755), bytes: 0, objects: 0, progress: None };
        for node in nodes {
            root.deployment_node(node)?;
        }
        root.repository(commit, ref_name)?;
        root.objects(commit)?;
        Ok(root)
    }

    /// Tells `progress` of the content written.
    pub fn reporting(mut self, progress: &'r Progress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// What was learned while writing is kept for the next image.
    pub fn save_digests(&self) -> Result<(), Error> {
        Ok(self.digests.save()?)
    }

    fn file(&mut self, source: Source, size: u64, verity: bool) -> Kind {
        self.sources.push(source);
        self.bytes += size;
        Kind::File { size, content: self.sources.len() - 1, verity }
    }

    fn deployment_node(&mut self, node: first::Node) -> Result<(), Error> {
        let kind = match node.kind {
            first::Kind::Dir => Kind::Dir(BTreeMap::new()),
            first::Kind::Symlink(target) => Kind::Symlink(target),
            first::Kind::File(bytes) => {
                let size = bytes.len() as u64;
                self.file(Source::Bytes(bytes), size, node.verity)
            }
        };
        let permissions = (node.mode & 0o7777) as u16;
        let xattrs = node.xattrs.into_iter().collect();
        self.tree.insert(node.path.as_bytes(), Node { uid: node.uid, gid: node.gid, permissions, xattrs, kind })?;
        Ok(())
    }

    fn plain(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let size = bytes.len() as u64;
        let kind = self.file(Source::Bytes(bytes), size, false);
        self.tree.insert(format!("ostree/repo/{path}").as_bytes(), Node { kind, ..Node::dir(0o644) })?;
        Ok(())
    }

    fn repository(&mut self, commit: &Checksum, ref_name: Option<&str>) -> Result<(), Error> {
        let dirs = ["tmp", "tmp/cache", "extensions", "state", "refs/heads", "refs/mirrors", "refs/remotes", "objects"];
        for dir in dirs {
            self.tree.insert(format!("ostree/repo/{dir}").as_bytes(), Node::dir(0o755))?;
        }
        self.plain("config", b"[core]\nrepo_version=1\nmode=bare-user\n".to_vec())?;
        if let Some(name) = ref_name {
            self.plain(&format!("refs/remotes/default/{name}"), format!("{commit}\n").into_bytes())?;
        }
        Ok(())
    }

    fn objects(&mut self, commit: &Checksum) -> Result<(), Error> {
        let decoded = self.repo.load_commit(commit)?;
        let mut objects = store::Objects::default();
        self.repo.reach(&decoded.root_tree, &decoded.root_meta, &mut objects)?;
        let trees = objects.dirtrees.iter().map(|c| (ObjectType::DirTree, c));
        let metas = objects.dirmetas.iter().map(|c| (ObjectType::DirMeta, c));
        let metadata: Vec<(ObjectType, Checksum)> =
            trees.chain(metas).chain([(ObjectType::Commit, commit)]).map(|(kind, c)| (kind, *c)).collect();
        for (kind, checksum) in metadata {
            let bytes = self.repo.load_metadata(kind, &checksum)?;
            self.plain(&format!("objects/{}", object_path(kind, &checksum)), bytes)?;
        }
        if let Some(detached) = self.repo.load_detached(commit)? {
            let path = object_path(ObjectType::Commit, commit) + "meta";
            self.plain(&format!("objects/{path}"), store::value::encode_dict(&detached))?;
        }
        let mut files: Vec<Checksum> = objects.files.into_iter().collect();
        // Numbers of contents must not depend on the order of a hash set.
        files.sort_unstable();
        self.objects = files.len() as u64;
        for checksum in files {
            let meta = self.repo.load_file_meta(&checksum)?;
            // A bare-user repository keeps a link as a file that holds its target.
            let (size, mode) = match &meta.symlink {
                Some(target) => (target.len() as u64, 0o644),
                None => (meta.size, meta.mode & 0o775 | 0o400),
            };
            let kind = self.file(Source::Object(checksum), size, true);
            let xattrs = BTreeMap::from([(b"user.ostreemeta".to_vec(), meta.encode_bare_user())]);
            let node = Node { kind, xattrs, ..Node::dir(mode as u16) };
            let path = format!("ostree/repo/objects/{}", object_path(ObjectType::File, &checksum));
            self.tree.insert(path.as_bytes(), node)?;
        }
        Ok(())
    }
}

impl ext4::Content for Root<'_> {
    fn open(&self, index: usize) -> io::Result<Box<dyn Read + Send + '_>> {
        match &self.sources[index] {
            Source::Bytes(bytes) => Ok(Box::new(bytes.as_slice())),
            Source::Object(checksum) => {
                let object = self.repo.open_file(checksum).map_err(io::Error::other)?;
                match object.meta.symlink {
                    Some(target) => Ok(Box::new(io::Cursor::new(target.into_bytes()))),
                    None => Ok(object.content),
                }
            }
        }
    }

    fn name(&self, index: usize) -> String {
        match &self.sources[index] {
            Source::Bytes(_) => "a file of the first deployment".to_owned(),
            Source::Object(checksum) => format!("object {checksum}"),
        }
    }

    /// The image says which digest each object must have; one that differs would be unreadable on the machine.
    fn sealed(&self, index: usize, digest: &[u8; 32]) -> io::Result<()> {
        let Source::Object(checksum) = &self.sources[index] else { return Ok(()) };
        match self.digests.get(checksum) {
            Some(known) if known != *digest => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its content is not what it was when the composefs image was made: run `slipway repo fsck`",
            )),
            _ => Ok(()),
        }
    }

    fn progress(&self, bytes: u64) {
        if let Some(progress) = self.progress {
            progress.inc(bytes);
        }
    }
}
