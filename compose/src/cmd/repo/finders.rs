//! Who has a ref of a collection: remotes that the configuration names, and repositories on disks that are mounted.
//!
//! ```text
//! config   priority 100   remotes with a collection-id, whose summary lists a ref of that collection
//! mount    priority 50    disks below /media and /run/media: .ostree/repos.d/*, .ostree/repo, ostree/repo,
//!                         var/lib/flatpak/repo; the keys are those of a remote with the same collection-id
//! ```
//! Where two have a ref, the newer commit counts, and who has only an older one is not asked for it. A place without a
//! summary, or with one that is not accepted, is passed over.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use store::pull::{Options, Remote};
use store::remote::Config;
use store::sign::trust::{Keys, Trust};
use store::{Checksum, Repo};

/// Where a disk that somebody put in is mounted.
const MEDIA: [&str; 2] = ["/media/", "/run/media/"];
/// What a mount is of that is no such disk.
const SYSTEM: [&str; 8] = ["autofs", "ecryptfs", "overlay", "proc", "squashfs", "sysfs", "tmpfs", "zfs"];
/// Where a repository lies on a disk, if not in `repos.d`.
const PLACES: [&str; 3] = [".ostree/repo", "ostree/repo", "var/lib/flatpak/repo"];

/// A way to find refs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finder {
    Config,
    Mount,
}

impl Finder {
    /// Its name in the stock tool's output.
    pub fn name(self) -> &'static str {
        match self {
            Finder::Config => "OstreeRepoFinderConfig",
            Finder::Mount => "OstreeRepoFinderMount",
        }
    }

    /// Who is asked first: the lowest.
    pub fn priority(self) -> u32 {
        match self {
            Finder::Config => 100,
            Finder::Mount => 50,
        }
    }
}

/// A collection and a ref of it.
pub type Wanted = (String, String);

/// A place that has refs.
pub struct Found {
    pub finder: Finder,
    /// The remote whose keys count.
    pub remote: String,
    /// How to pull from it.
    pub options: Options<'static>,
    /// When its summary was written; 0 if it does not say.
    pub last_modified: u64,
    /// The commits of the refs that were wanted, by their number.
    pub commits: BTreeMap<usize, Checksum>,
}

/// A place that may have refs of a collection.
struct Place {
    finder: Finder,
    remote: Config,
    collection: String,
    options: Options<'static>,
}

/// Asks everybody; the best come first.
pub fn find(repo: &Repo, finders: &[Finder], wanted: &[Wanted], cache: Option<&Path>) -> anyhow::Result<Vec<Found>> {
    let remotes = remotes(repo)?;
    let mut places = Vec::new();
    if finders.contains(&Finder::Mount) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for mount in mounts(&table) {
            places.extend(on_mount(repo, &mount, &remotes, wanted));
        }
    }
    if finders.contains(&Finder::Config) {
        places.extend(remotes.into_iter().filter_map(|(remote, collection)| {
            let options = remote.pull_options(repo, Path::new("/"), Vec::new()).ok()?;
            Some(Place { finder: Finder::Config, remote, collection, options })
        }));
    }
    let mut found: Vec<(Found, BTreeMap<usize, u64>)> = Vec::new();
    for mut place in places {
        place.options.cache = cache.map(Path::to_owned);
        let url = place.options.url.clone();
        match ask(repo, place, wanted) {
            Ok(answer) => found.extend(answer),
            Err(error) => tracing::debug!(url, "passed over: {error:#}"),
        }
    }
    let mut newest: BTreeMap<usize, (u64, Checksum)> = BTreeMap::new();
    for (found, times) in &found {
        for (number, commit) in &found.commits {
            let time = times.get(number).copied().unwrap_or(0);
            if newest.get(number).is_none_or(|(known, _)| time > *known) {
                newest.insert(*number, (time, *commit));
            }
        }
    }
    let mut best: Vec<Found> = found.into_iter().map(|(found, _)| found).collect();
    for found in &mut best {
        found.commits.retain(|number, commit| newest.get(number).is_some_and(|(_, newest)| newest == commit));
    }
    best.retain(|found| !found.commits.is_empty());
    best.sort_by(|a, b| {
        let both = a.last_modified != 0 && b.last_modified != 0;
        let times = if both { a.last_modified.cmp(&b.last_modified) } else { std::cmp::Ordering::Equal };
        let order = a.finder.priority().cmp(&b.finder.priority()).then(times);
        order.then(a.commits.len().cmp(&b.commits.len())).then(a.remote.cmp(&b.remote))
    });
    Ok(best)
}

/// The remotes that say which collection they are.
fn remotes(repo: &Repo) -> anyhow::Result<Vec<(Config, String)>> {
    let with_collection = |remote: Config| {
        let collection = remote.get("collection-id").filter(|id| store::valid_collection(id))?.to_owned();
        Some((remote, collection))
    };
    Ok(repo.remotes()?.into_iter().filter_map(with_collection).collect())
}

/// Looks into the summary of a place.
fn ask(repo: &Repo, place: Place, wanted: &[Wanted]) -> anyhow::Result<Option<(Found, BTreeMap<usize, u64>)>> {
    let Place { finder, remote, collection, options } = place;
    let opened = Remote::open(&options)?;
    let Some(fetched) = opened.summary(repo)? else { return Ok(None) };
    let summary = &fetched.summary;
    let mut refs = summary.collections()?.remove(&collection).unwrap_or_default();
    if summary.collection() == Some(collection.as_str()) {
        refs.extend(summary.refs.iter().cloned());
    }
    let (mut commits, mut times) = (BTreeMap::new(), BTreeMap::new());
    for (number, (_, name)) in wanted.iter().enumerate().filter(|(_, (id, _))| *id == collection) {
        let Some(entry) = refs.iter().find(|entry| entry.name == *name) else { continue };
        let time =
            entry.timestamp().or_else(|| Some(opened.commit(&entry.commit.to_string(), repo).ok()?.commit.timestamp));
        commits.insert(number, entry.commit);
        times.insert(number, time.unwrap_or(0));
    }
    let last_modified = summary.last_modified().unwrap_or(0);
    drop(opened);
    let found = Found { finder, remote: remote.name.clone(), options, last_modified, commits };
    Ok((!found.commits.is_empty()).then_some((found, times)))
}

/// Disks that somebody put in, from the kernel's table of mounts.
fn mounts(table: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let path = unescape(before.split(' ').nth(4)?);
        let mut after = after.split(' ');
        let (kind, source) = (after.next()?, after.next()?);
        let disk = source.starts_with('/') && !SYSTEM.contains(&kind);
        (disk && MEDIA.iter().any(|media| path.starts_with(media))).then(|| PathBuf::from(path))
    };
    table.lines().filter_map(mount).collect()
}

/// Undoes `\040` and its like.
fn unescape(text: &str) -> String {
    let mut pieces = text.split('\\');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(letter) if letter.is_ascii() => {
                plain.push(letter.into());
                plain.push_str(&piece[3..]);
            }
            _ => {
                plain.push('\\');
                plain.push_str(piece);
            }
        }
    }
    plain
}

/// The repositories of a disk: those in `repos.d` by name, then those in known places. None of another disk, and not
/// this one.
fn repositories(mount: &Path, own: &Repo) -> Vec<Repo> {
    let Ok(root) = fs::metadata(mount) else { return Vec::new() };
    let mut listed: Vec<PathBuf> = fs::read_dir(mount.join(".ostree/repos.d"))
        .map_or_else(|_| Vec::new(), |entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect());
    listed.sort();
    let place = |meta: &fs::Metadata| (meta.dev(), meta.ino());
    let here = fs::metadata(own.path()).ok().as_ref().map(place);
    let mut seen = Vec::new();
    let known = PLACES.iter().map(|place| mount.join(place));
    let good = |path: PathBuf| {
        let meta = fs::metadata(&path).ok()?;
        if meta.dev() != root.dev() || Some(place(&meta)) == here || seen.contains(&place(&meta)) {
            return None;
        }
        seen.push(place(&meta));
        Repo::open(&path.canonicalize().ok()?).ok()
    };
    listed.into_iter().chain(known).filter_map(good).collect()
}

/// The repositories of a disk that have refs which are wanted and whose keys are known; for each ref the first.
fn on_mount(repo: &Repo, mount: &Path, remotes: &[(Config, String)], wanted: &[Wanted]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let repositories = repositories(mount, repo);
    for (id, name) in wanted {
        let Some((remote, collection)) = remotes.iter().find(|(_, collection)| collection == id) else { continue };
        let has = |one: &&Repo| {
            let own = one.config().ok().and_then(|config| config.get("core", "collection-id"));
            let heads = own.as_ref() == Some(id) && one.refs().is_ok_and(|refs| refs.contains_key(name));
            heads || one.mirror_refs().is_ok_and(|refs| refs.contains_key(&(id.clone(), name.clone())))
        };
        let Some(one) = repositories.iter().find(has) else { continue };
        let url = format!("file://{}", one.path().display());
        let known = places.iter().any(|place| place.options.url == url && place.remote.name == remote.name);
        if known {
            continue;
        }
        let mut options = Options::new(url, "", None);
        options.refs = Vec::new();
        let Ok(trust) = trust(repo, remote) else { continue };
        options.trust = trust;
        places.push(Place { finder: Finder::Mount, remote: remote.clone(), collection: collection.clone(), options });
    }
    places
}

/// What commits must be signed with: what their remote asks for, and if that is nothing, OpenPGP.
pub fn trust(repo: &Repo, remote: &Config) -> anyhow::Result<Trust> {
    let trust = remote.trust(repo, Path::new("/"))?;
    match trust.is_empty() {
        true => Ok(Trust::of(Keys::Gpg(remote.gpg_keys(repo, Path::new("/"))?))),
        false => Ok(trust),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Mode;

    #[test]
    fn disks_that_somebody_put_in_are_found() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     2 1 8:17 / /media/My\\040Stick rw shared:1 master:2 - vfat /dev/sdb1 rw\n\
                     3 1 8:18 / /run/media/user/b\\134c rw - ext4 /dev/sdb2 rw\n\
                     4 1 0:5 / /media/ram rw - tmpfs /dev/x rw\n5 1 0:6 / /media/net rw - nfs host:/x rw\n\
                     6 1 8:19 / /mnt rw - ext4 /dev/sdb3 rw\nnonsense\n7 1 - x\n";
        assert_eq!(mounts(table), [Path::new("/media/My Stick"), Path::new("/run/media/user/b\\c")]);
        assert_eq!(unescape("\\9\\40\\0é"), "\\9\\40\\0é");
    }

    #[test]
    fn repositories_of_a_disk_come_in_their_order_once() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let own = Repo::create(&dir.path().join("own"), Mode::Archive).unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir_all(disk.join(".ostree/repos.d")).unwrap();
        for name in ["ostree/repo", "elsewhere/a", "elsewhere/b"] {
            fs::create_dir_all(disk.join(name)).unwrap();
            Repo::create(&disk.join(name), Mode::Archive).unwrap();
        }
        let link =
            |to: &str, name: &str| std::os::unix::fs::symlink(to, disk.join(".ostree/repos.d").join(name)).unwrap();
        link("../../elsewhere/b", "00");
        link("../../elsewhere/a", "10");
        link("../../elsewhere/b", "20");
        link("../../../own", "30");
        link("/proc", "40");
        link("nowhere", "50");
        let found: Vec<_> = repositories(&disk, &own).iter().map(|repo| repo.path().to_owned()).collect();
        assert_eq!(found, ["elsewhere/b", "elsewhere/a", "ostree/repo"].map(|name| disk.join(name)));
    }
}
