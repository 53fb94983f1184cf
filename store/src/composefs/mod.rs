//! composefs images of trees: what a deployment mounts.
//!
//! ```text
//! of_repo  commit → tree, as libostree does it: a node for each file, its object's path, mount points added
//! tree     the tree as plain data
//! erofs    tree → bytes, identical to libcomposefs' format version 0
//! ```

mod erofs;
#[cfg(feature = "full")]
mod of_repo;
mod tree;

#[cfg(feature = "full")]
pub use of_repo::{image, image_of_tree, image_without_verity, tree_of};
pub use tree::{Kind, Node, Xattrs};

use crate::verity;

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root of the tree is a file.
    #[error("the root of a composefs image must be a directory")]
    NotADirectory,
    /// A name no file system has.
    #[error("`{name}` cannot be the name of a file")]
    Name {
        /// The name.
        name: String,
    },
    /// The name of an extended attribute is unusable.
    #[error("`{name}` cannot be the name of an extended attribute")]
    Xattr {
        /// The name.
        name: String,
    },
    /// More attributes than an inode can hold.
    #[error("{size} bytes of extended attributes on one file; the format holds 64 KiB")]
    XattrsTooLarge {
        /// Their size.
        size: usize,
    },
    /// A symbolic link without target or with one that is too long.
    #[error("a symbolic link with a target of {len} bytes; 1 to 4095 are possible")]
    Symlink {
        /// Length of the target.
        len: usize,
    },
    /// More than 2^32 blocks of metadata.
    #[error("the tree is too large for an EROFS image")]
    TooLarge,
}

/// An image and the digest that seals it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The EROFS image: the content of `.ostree.cfs`.
    pub bytes: Vec<u8>,
    /// Its fs-verity digest: the value of `ostree.composefs.digest.v0`.
    pub digest: [u8; 32],
}

/// The image of a tree.
pub fn image_of(root: &Node) -> Result<Image, Error> {
    let bytes = erofs::write(root)?;
    let digest = verity::digest(&bytes);
    Ok(Image { bytes, digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn file(content: &[u8], permissions: u16, xattrs: &[(&str, &[u8])]) -> Node {
        let digest = verity::digest(content);
        let hex = hex::encode(digest);
        Node {
            uid: 0,
            gid: 0,
            permissions,
            xattrs: xattrs.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.to_vec())).collect(),
            kind: Kind::File {
                size: content.len() as u64,
                payload: format!("{}/{}.file", &hex[..2], &hex[2..]),
                digest: Some(digest),
            },
        }
    }

    fn dir(children: Vec<(String, Node)>) -> Node {
        let children: BTreeMap<Vec<u8>, Node> = children.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
        Node { kind: Kind::Dir(children), ..Node::empty_dir() }
    }

    fn link(target: &str) -> Node {
        Node { permissions: 0o777, kind: Kind::Symlink(target.as_bytes().to_vec()), ..Node::empty_dir() }
    }

    /// Everything that has a special case in the format.
    fn odd_tree() -> Node {
        let many = (0..600).map(|i| (format!("file-{i:04}"), file(format!("{i}\n").as_bytes(), 0o644, &[]))).collect();
        let halves = (0..40)
            .map(|i| {
                let names = (0..i * 4).map(|j| (format!("{}{j}", "k".repeat(j % 30)), file(b"", 0o600, &[])));
                (format!("dir{i}"), dir(names.collect()))
            })
            .collect();
        let links = [1, 60, 500, 2000, 3900].map(|n| (format!("link{n}"), link(&"t".repeat(n)))).into();
        let mut owned = file(b"owned by a large id\n", 0o2755, &[]);
        (owned.uid, owned.gid) = (70_000, 80_000);
        let attributes = vec![
            ("escaped".into(), file(b"x", 0o644, &[("trusted.overlay.redirect", b"/etc/shadow")])),
            ("capability".into(), file(b"y", 0o755, &[("security.capability", &[1, 0, 0, 2, 0, 4])])),
            ("shared1".into(), file(b"z", 0o4755, &[("user.same", b"value"), ("user.own", b"1")])),
            ("shared2".into(), file(b"z", 0o755, &[("user.same", b"value"), ("user.own", b"")])),
            ("large".into(), file(b"l", 0o755, &[("user.big", &[b'B'; 3000])])),
            ("acl".into(), file(b"a", 0o755, &[("system.posix_acl_access", &[2, 0, 0, 0])])),
        ];
        dir(vec![
            ("00".into(), file(b"named like an object directory", 0o644, &[])),
            ("!first".into(), file(&[7; 10_000], 0o644, &[])),
            ("attributes".into(), dir(attributes)),
            ("halves".into(), dir(halves)),
            ("links".into(), dir(links)),
            ("many".into(), dir(many)),
            ("n".repeat(255), owned),
            ("usr".into(), dir(vec![])),
        ])
    }

    /// `mkcomposefs --from-file` of libcomposefs 1.0.8 on the same tree.
    #[test]
    fn the_image_equals_libcomposefs() {
        let image = image_of(&odd_tree()).unwrap();
        assert_eq!(
            (image.bytes.len(), hex::encode(image.digest).as_str()),
            (389_120, "d192d6fdd5c9293180f0da5b160789ae4113238a8e9587c392a3e56420a9487d")
        );
    }

    #[test]
    fn an_empty_tree() {
        let image = image_of(&Node::empty_dir()).unwrap();
        assert_eq!(
            (image.bytes.len(), hex::encode(image.digest).as_str()),
            (16_384, "8f589e8f57ecb88823736b0d857ddca1e1068a23e264fad164b28f7038eb3682")
        );
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["..", ".", "", "a/b", &"n".repeat(256)] {
            let tree = dir(vec![(name.to_owned(), file(b"", 0o644, &[]))]);
            assert!(matches!(image_of(&tree), Err(Error::Name { .. })), "{name}");
        }
        assert!(matches!(image_of(&file(b"", 0o644, &[])), Err(Error::NotADirectory)));
        assert!(matches!(image_of(&dir(vec![("l".into(), link(""))])), Err(Error::Symlink { len: 0 })));
    }
}
