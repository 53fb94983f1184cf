//! `.ci/give-back`: a user who runs the tests with sudo can build again afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use sys::{Cmd, Output};

const USER: u32 = 65_534;

/// Runs `script` under `.ci/give-back` as sudo would run it for the user, with cargo's directories in `dir`.
fn run(dir: &Path, script: &str) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/give-back");
    let user = USER.to_string();
    let cmd = Cmd::new(program).args(["sh", "-c", script]).dir(dir).env_remove("CARGO_TARGET_DIR");
    let cmd = cmd.env_remove("CARGO_HOME").env("HOME", dir.join("home")).env("SUDO_UID", &user).env("SUDO_GID", &user);
    cmd.output().unwrap()
}

fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().uid()
}

#[test]
fn what_cargo_leaves_as_roots_goes_back_to_the_user_of_sudo() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("DID NOT RUN: needs root");
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for path in ["target/debug/deps", "target/demo", "target/tmp/tree", "home/.cargo", "elsewhere"] {
        fs::create_dir_all(dir.join(path)).unwrap();
    }
    fs::write(dir.join("elsewhere/file"), "").unwrap();
    for path in ["target", "target/debug", "home/.cargo"] {
        chown(dir.join(path), Some(USER), Some(USER)).unwrap();
    }
    symlink(dir.join("elsewhere"), dir.join("target/debug/link")).unwrap();
    let script =
        "touch target/debug/deps/x target/.rustc_info.json target/demo/x target/tmp/tree/x home/.cargo/lock; exit 7";
    assert_eq!(run(dir, script).code, 7);
    for path in ["target/debug/deps/x", "target/debug/link", "target/.rustc_info.json", "home/.cargo/lock"] {
        assert_eq!(owner(&dir.join(path)), USER, "{path} is still root's");
    }
    // Trees whose files must be root's, what a link leads to, and what never was the user's.
    for path in ["target/demo/x", "target/tmp/tree/x", "elsewhere", "elsewhere/file", "home"] {
        assert_eq!(owner(&dir.join(path)), 0, "{path} was given away");
    }

    // Ended from outside: given back all the same.
    run(dir, "touch target/debug/late; kill -TERM $PPID; sleep 0.2");
    assert_eq!(owner(&dir.join("target/debug/late")), USER);

    // Root's own directories, under whatever sudo: not touched.
    chown(dir.join("home/.cargo"), Some(0), Some(0)).unwrap();
    assert_eq!(run(dir, "touch home/.cargo/mine").code, 0);
    assert_eq!(owner(&dir.join("home/.cargo/mine")), 0);
}
