//! `slipway vm` as a process, as far as it goes without booting a machine.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use sys::Cmd;

fn slipway(home: &Path) -> Cmd {
    Cmd::new(env!("CARGO_BIN_EXE_slipway"))
        .arg("vm")
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("SLIPWAY_ACCEL", "tcg")
}

#[test]
fn without_machines_the_list_is_empty_and_other_verbs_say_so() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(slipway(home.path()).args(["list", "--json"]).run().unwrap().text(), "[]");
    for verb in [&["exec", "--", "true"][..], &["ssh"], &["logs"], &["stop"], &["rm", "nobody"]] {
        let output = slipway(home.path()).args(verb).output().unwrap();
        assert_eq!(output.code, 1, "{verb:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("there are none"), "{verb:?}: {text}");
    }
    slipway(home.path()).args(["rm", "--force", "nobody"]).run().unwrap();
}

#[test]
fn an_image_that_does_not_exist_is_named_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let output = slipway(home.path()).args(["run", "no-such.raw", "--detach"]).output().unwrap();
    assert_eq!(output.code, 1);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no-such.raw") && text.contains("--repo"), "{text}");
    assert_eq!(std::fs::read_dir(home.path().join("state/slipway/vm")).unwrap().count(), 0);
}

#[test]
fn connect_passes_bytes_and_ends_in_both_directions() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        // Ends only if the end of standard input is passed on.
        socket.read_to_end(&mut request).unwrap();
        socket.write_all(b"answer to ").unwrap();
        socket.write_all(&request).unwrap();
    });
    let mut command = Cmd::new(env!("CARGO_BIN_EXE_slipway")).args(["vm", "connect", &address]).to_command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"question").unwrap();
    let output = child.wait_with_output().unwrap();
    server.join().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"answer to question");
}
