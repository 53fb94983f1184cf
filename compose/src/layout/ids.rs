//! Accounts keep the ids of the parent commit.
//!
//! Debian gives system accounts their ids in the order in which packages are configured, so one more package can shift
//! them all. On a machine, `/var` holds files under the old ids and `/etc/passwd` may be a changed one that stays. So an
//! account that the parent has keeps the parent's id, a new account whose id the parent gave to another gets a free one,
//! and every file of the tree follows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::lchown;

use rustix::fs::XattrFlags;
use store::{Commit, Repo};

use super::tree::{Kind, Tree};
use super::{Error, Previous};

impl Previous {
    /// Reads the accounts of a commit.
    pub fn load(repo: &Repo, commit: &Commit) -> Result<Self, Error> {
        Ok(Previous { passwd: read(repo, commit, "passwd")?, group: read(repo, commit, "group")? })
    }
}

/// A file of the commit's `/usr/etc`; an empty text where there is none.
fn read(repo: &Repo, commit: &Commit, name: &str) -> Result<String, Error> {
    let mut tree = repo.load_dirtree(&commit.root_tree).map_err(Error::Parent)?;
    for dir in ["usr", "etc"] {
        let Some((_, next, _)) = tree.dirs.iter().find(|d| d.0 == dir) else { return Ok(String::new()) };
        tree = repo.load_dirtree(next).map_err(Error::Parent)?;
    }
    let Some((_, file)) = tree.files.iter().find(|f| f.0 == name) else { return Ok(String::new()) };
    let mut text = String::new();
    let content = repo.open_file(file).map_err(Error::Parent)?.content;
    let path = format!("usr/etc/{name}");
    content.take(MAX_ACCOUNTS).read_to_string(&mut text).map_err(|e| Error::io("reading the parent's", &path, e))?;
    Ok(text)
}

/// Ids that `systemd-sysusers` and `adduser --system` choose from; those below are Debian's static ones.
const DYNAMIC: std::ops::RangeInclusive<u32> = 100..=999;

/// More bytes than any list of system accounts has.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// Old id → new id, for users or for groups.
type Moves = BTreeMap<u32, u32>;

/// Gives accounts the ids they have in the parent.
pub(crate) fn keep(tree: &Tree, previous: &Previous) -> Result<usize, Error> {
    let passwd = tree.read("etc/passwd")?.unwrap_or_default();
    let group = tree.read("etc/group")?.unwrap_or_default();
    let users = moves(&ids(&previous.passwd), &ids(&passwd));
    let groups = moves(&ids(&previous.group), &ids(&group));
    if users.is_empty() && groups.is_empty() {
        return Ok(0);
    }
    for found in tree.walk("")? {
        let (uid, gid) = (users.get(&found.uid), groups.get(&found.gid));
        if uid.is_none() && gid.is_none() {
            continue;
        }
        let place = tree.root().join(&found.path);
        // The kernel takes setuid bits and capabilities away from a file that changes hands.
        let mut capability = [0_u8; 64];
        let length = match found.kind {
            Kind::File => rustix::fs::lgetxattr(&place, "security.capability", &mut capability).unwrap_or(0),
            _ => 0,
        };
        let change = || -> std::io::Result<()> {
            lchown(&place, uid.copied(), gid.copied())?;
            if length > 0 {
                rustix::fs::lsetxattr(&place, "security.capability", &capability[..length], XattrFlags::empty())?;
            }
            Ok(())
        };
        change().map_err(|e| Error::io("changing the owner of", &found.path, e))?;
        if !matches!(found.kind, Kind::Link(_)) {
            tree.chmod(&found.path, found.mode)?;
        }
    }
    tree.edit("etc/passwd", |old| Some(renumbered(old, &[(2, &users), (3, &groups)])))?;
    tree.edit("etc/group", |old| Some(renumbered(old, &[(2, &groups)])))?;
    Ok(users.len() + groups.len())
}

/// Name → id of the lines of a `passwd` or `group` file, without people.
fn ids(text: &str) -> BTreeMap<String, u32> {
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        DYNAMIC.contains(&id).then(|| (name.to_owned(), id))
    };
    text.lines().filter_map(line).collect()
}

/// What has to move so that the names of `old` have their ids again, and nobody else has them.
fn moves(old: &BTreeMap<String, u32>, now: &BTreeMap<String, u32>) -> Moves {
    let mut taken: BTreeSet<u32> = old.values().copied().collect();
    let mut moves = Moves::new();
    let mut homeless = Vec::new();
    for (name, id) in now {
        match old.get(name) {
            Some(before) if before == id => {}
            Some(before) => {
                moves.insert(*id, *before);
            }
            // An id that the parent gave to somebody else, even to one who is gone now: machines have files under it.
            None if taken.contains(id) => homeless.push(*id),
            None => {
                taken.insert(*id);
            }
        }
    }
    // Highest first, as systemd-sysusers chooses; sorted, so that the same accounts get the same ids.
    homeless.sort_unstable_by(|a, b| b.cmp(a));
    for id in homeless {
        if let Some(free) = DYNAMIC.rev().find(|id| !taken.contains(id)) {
            taken.insert(free);
            moves.insert(id, free);
        }
    }
    moves
}

/// The text with the numbers in some columns replaced.
fn renumbered(text: &str, columns: &[(usize, &Moves)]) -> String {
    let mut new = String::with_capacity(text.len());
    for line in text.lines() {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        for (column, moves) in columns {
            if let Some(field) = fields.get_mut(*column) {
                if let Some(id) = field.parse().ok().and_then(|id: u32| moves.get(&id)) {
                    *field = id.to_string();
                }
            }
        }
        new.push_str(&fields.join(":"));
        new.push('\n');
    }
    new
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;

    fn map(items: &[(&str, u32)]) -> BTreeMap<String, u32> {
        items.iter().map(|(n, id)| ((*n).to_owned(), *id)).collect()
    }

    #[test]
    fn a_new_account_in_front_shifts_nobody() {
        let old = map(&[("a", 999), ("b", 998)]);
        let now = map(&[("new", 999), ("a", 998), ("b", 997)]);
        assert_eq!(moves(&old, &now), BTreeMap::from([(999, 997), (998, 999), (997, 998)]));
        assert!(moves(&old, &old).is_empty());
    }

    #[test]
    fn the_id_of_an_account_that_is_gone_is_not_given_away() {
        assert_eq!(moves(&map(&[("gone", 999)]), &map(&[("new", 999)])), BTreeMap::from([(999, 998)]));
    }

    #[test]
    fn static_ids_and_people_stay() {
        assert_eq!(
            ids("root:x:0:0:::\nsshd:x:989:65534:::\nalice:x:1000:1000:::\nnobody:x:65534:65534:::\n"),
            map(&[("sshd", 989)])
        );
    }

    proptest::proptest! {
        #[test]
        fn known_names_keep_their_ids_and_no_two_share_one(
            old in proptest::collection::btree_map("[a-f]{1,2}", 990_u32..=999, 0..6),
            now in proptest::collection::btree_map("[a-f]{1,2}", 990_u32..=999, 0..6),
        ) {
            let unique = |m: &BTreeMap<String, u32>| m.values().collect::<BTreeSet<_>>().len() == m.len();
            proptest::prop_assume!(unique(&old) && unique(&now));
            let moves = moves(&old, &now);
            let after: BTreeMap<&String, u32> = now.iter().map(|(n, id)| (n, *moves.get(id).unwrap_or(id))).collect();
            proptest::prop_assert_eq!(after.values().collect::<BTreeSet<_>>().len(), after.len());
            for (name, id) in &after {
                match old.get(*name) {
                    Some(before) => proptest::prop_assert_eq!(id, before),
                    None => proptest::prop_assert!(!old.values().any(|o| o == id)),
                }
            }
        }
    }

    #[test]
    fn accounts_of_a_commit_are_read() {
        let (dir, tree) = fake(&["root/usr/etc/passwd: a:x:500:501:::", "root/usr/bin/a"]);
        let repo = Repo::create(&tree.at("repo"), store::Mode::BareUser).unwrap();
        let imported =
            store::import::directory(&repo, &dir.path().join("root"), &store::import::Options::default()).unwrap();
        let commit = store::commit::Builder::new(imported.root_tree, imported.root_meta, 1).write(&repo).unwrap();
        let previous = Previous::load(&repo, &repo.load_commit(&commit).unwrap()).unwrap();
        assert_eq!(previous, Previous { passwd: "a:x:500:501:::\n".into(), group: String::new() });
    }

    #[test]
    fn files_follow_their_accounts() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: only the accounts' own files are checked");
        }
        let (_dir, tree) = fake(&["etc/passwd: a:x:998:998:::", "etc/group: a:x:998:", "var/lib/a/", "usr/bin/a"]);
        if rustix::process::geteuid().is_root() {
            for path in ["var/lib/a", "usr/bin/a"] {
                lchown(tree.at(path), Some(998), Some(998)).unwrap();
            }
            tree.chmod("usr/bin/a", 0o4755).unwrap();
        }
        let previous = Previous { passwd: "a:x:500:501:::\n".into(), group: "a:x:501:\n".into() };
        assert_eq!(keep(&tree, &previous).unwrap(), 2);
        assert_eq!(tree.read("etc/passwd").unwrap().unwrap(), "a:x:500:501:::\n");
        assert_eq!(tree.read("etc/group").unwrap().unwrap(), "a:x:501:\n");
        if rustix::process::geteuid().is_root() {
            use std::os::unix::fs::MetadataExt;
            let meta = std::fs::symlink_metadata(tree.at("usr/bin/a")).unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (500, 501, 0o4755));
        }
        assert_eq!(keep(&tree, &previous).unwrap(), 0);
    }
}
