// The file `config` of a repository: a stick or a disk may bring one.

use std::cell::RefCell;

use store::keyfile::{KeyFile, parse_bool, parse_list};
use store::{Mode, Repo};

thread_local! {
    static DIR: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

fn repo() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    Repo::create(dir.path(), Mode::Archive).expect("a repository");
    dir
}

pub fn seeds() -> Vec<Vec<u8>> {
    let remote = "[remote \"origin\"]\nurl=https://host/repo\nbranches=a;b;\ngpg-verify=false\n";
    let core = "# a comment\n[core]\nrepo_version=1\nmode=bare-user\nmin-free-space-size=5MB\nlock-timeout-secs=3\n";
    let archive = "[core]\nrepo_version=1\nmode=archive-z2\nfsync=false\n[archive]\nzlib-level=9\n";
    [core.to_owned() + remote, archive.to_owned()].map(String::into_bytes).to_vec()
}

pub fn run(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let file = KeyFile::parse(&text);
    for group in file.groups() {
        for (key, value) in file.entries(group) {
            let _ = (parse_bool(&value), parse_list(&value));
            assert!(file.get(group, &key).is_some(), "{group:?} {key:?} is listed and not there");
        }
    }
    let mut changed = file.clone();
    changed.set("core", "mode", "archive-z2");
    assert_eq!(KeyFile::parse(&changed.render()).get("core", "mode").as_deref(), Some("archive-z2"));
    DIR.with_borrow_mut(|slot| {
        let dir = slot.get_or_insert_with(repo).path();
        std::fs::write(dir.join("config"), text.as_bytes()).expect("the file");
        let result = Repo::open(dir);
        if let Ok(repo) = &result {
            for remote in repo.remotes().expect("the file was read before") {
                let _ = remote.pull_options(repo, dir, vec!["os/x".to_owned()]);
            }
        }
        super::outcome(result)
    })
}
