//! Roots made of small packages and this machine's own dpkg: our unpacking against `dpkg --install` of the same files.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Exception, Package, differences, names, options, root_or_say, tiny_debian};
use compose::rootfs::{Error, Input, Options, RunError, Sandbox, build_from};
use sys::{Cmd, Reporter};

/// One package for each thing dpkg does at unpacking.
fn zoo(dir: &Path) -> Vec<Input> {
    let trace = |what: &str| format!("echo \"{what} $*\" >> /trace/$DPKG_MAINTSCRIPT_PACKAGE");
    let package = |name: &str, fields: &str| Package::new(dir, name, fields).script("postinst", &trace("postinst"));
    let all = [
        package("conf", "").file("etc/conf.d/a b.cfg", "a = 1\n").file("etc/conf.cfg", "b = 2\n").control(
            "conffiles",
            "/etc/conf.cfg\n/etc/conf.d/a b.cfg\nremove-on-upgrade /etc/gone.cfg\n",
        ),
        // Pre-Depends makes this one configured before the next round's files come.
        package("listener", "").control("triggers", "interest /usr/share/heard\ninterest-noawait bell\n"),
        package("waits", "Pre-Depends: listener\n")
            .file("usr/share/heard/by/listener", "x")
            .script("preinst", "grep -q 'postinst configure' /trace/listener"),
        package("rings", "Depends: waits\n").control("triggers", "activate-noawait bell\nactivate other-bell\n"),
        package("deaf", "").control("triggers", "interest /usr/share/heard\ninterest other-bell\n"),
        // With one file alone it would be a package that vanishes when another ships the same path.
        package("victim", "").file("usr/share/contested", "victim\n").file("usr/share/own", "x"),
        package("diverter", "").file("usr/share/contested", "diverter\n").script(
            "preinst",
            "dpkg-divert --package diverter --rename --divert /usr/share/contested.victim --add /usr/share/contested",
        ),
        // dpkg reads overrides when it starts, so a package sees those of an earlier run only.
        package("override", "").file("usr/share/special", "x").script(
            "preinst",
            "dpkg-statoverride --add root root 4750 /usr/share/special\n\
             dpkg-statoverride --add root root 2711 /usr/share/overridden",
        ),
        package("overridden", "Pre-Depends: override\n").file("usr/share/overridden", "x").script("preinst", "true"),
        package("old-owner", "").file("usr/share/moved", "old\n").file("usr/share/stays", "old\n"),
        package("new-owner", "Replaces: old-owner (<< 2)\nBreaks: old-owner (<< 1)\n").file("usr/share/moved", "new\n"),
        package("libsame", "Multi-Arch: same\n").file("usr/lib/libsame.so.1", "x").control("shlibs", "libsame 1 libsame\n"),
        package("environment", "Architecture: all\n").script(
            "preinst",
            "for v in PACKAGE NAME ARCH PACKAGE_REFCOUNT DEBUG; do eval echo $v=\\$DPKG_MAINTSCRIPT_$v; done > /trace/env\n\
             echo \"$DPKG_ADMINDIR $DPKG_ROOT $DPKG_RUNNING_VERSION $* $0\" >> /trace/env",
        ),
    ];
    let mut inputs: Vec<Input> = all.into_iter().map(Package::build).collect();
    inputs.push(tiny_debian(dir));
    inputs
}

/// The same packages, installed by dpkg alone.
fn install_with_dpkg(inputs: &[Input], root: &Path) {
    fs::create_dir(root).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    let base = inputs.iter().find(|i| i.deb.ends_with("dpkg.deb")).unwrap();
    Cmd::new("dpkg-deb").arg("--extract").arg(&base.deb).arg(root).run().unwrap();
    for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/lib/dpkg/alternatives"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in ["status", "diversions", "statoverride", "triggers/Unincorp"] {
        fs::write(root.join("var/lib/dpkg").join(file), "").unwrap();
    }
    let arch = Cmd::new("dpkg").arg("--print-architecture").run().unwrap().text();
    fs::write(root.join("var/lib/dpkg/arch"), format!("{arch}\n")).unwrap();
    fs::create_dir(root.join("debs")).unwrap();
    let install = |names: &[&str]| {
        let mut command = vec!["dpkg".to_owned(), "--install".to_owned()];
        for name in names {
            let file = format!("{name}.deb");
            let from = inputs.iter().find(|i| i.deb.ends_with(&file)).unwrap();
            fs::copy(&from.deb, root.join("debs").join(&file)).unwrap();
            command.push(format!("/debs/{file}"));
        }
        Sandbox::new(root).run(&command).unwrap();
    };
    install(&["dpkg"]);
    install(&["listener"]);
    install(&["override"]);
    install(&[
        "conf",
        "deaf",
        "diverter",
        "environment",
        "libsame",
        "old-owner",
        "overridden",
        "victim",
        "waits",
        "rings",
        "new-owner",
    ]);
    fs::remove_dir_all(root.join("debs")).unwrap();
}

#[test]
fn a_root_is_what_dpkg_makes_of_the_same_packages() {
    if !root_or_say("a_root_is_what_dpkg_makes_of_the_same_packages") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let inputs = zoo(dir.path());
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    build_from(&inputs, &ours, &options(), &Reporter::quiet()).unwrap();
    install_with_dpkg(&inputs, &theirs);

    assert_eq!(fs::read_to_string(ours.join("etc/conf.cfg")).unwrap(), "b = 2\n");
    assert_eq!(fs::read_to_string(ours.join("usr/share/contested.victim")).unwrap(), "victim\n");
    assert_eq!(fs::metadata(ours.join("usr/share/overridden")).unwrap().permissions().mode() & 0o7777, 0o2711);
    // The listener was configured when the file came: told by a trigger. The deaf one was not.
    let trace = |name: &str| fs::read_to_string(ours.join("trace").join(name)).unwrap();
    assert!(trace("listener").contains("postinst triggered") && trace("listener").contains("/usr/share/heard"));
    assert!(ours.join("var/lib/dpkg/info/libsame:amd64.list").exists());

    let exceptions: [Exception<'_>; 4] = [
        ("dpkg makes it again", &["/var/lib/dpkg/lock*", "/var/lib/dpkg/triggers/Lock"]),
        ("the state before the last change", &["/var/lib/dpkg/*-old"]),
        (
            "how often, and in how many calls, depends on the order of configuration",
            &["/trace/listener", "/trace/deaf"],
        ),
        ("lines are in order of unpacking", &["/var/lib/dpkg/triggers/File"]),
    ];
    let differences = differences(&ours, &theirs, &exceptions);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let sorted = |root: &Path| {
        let text = fs::read_to_string(root.join("var/lib/dpkg/triggers/File")).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&ours), sorted(&theirs));
    for args in [&["dpkg", "--verify"][..], &["dpkg", "--audit"]] {
        assert_eq!(Sandbox::new(&ours).run(args).unwrap().text(), "", "{args:?}");
    }
}

#[test]
fn an_exception_names_what_it_says_and_nothing_beside_it() {
    for (pattern, path, named) in [
        ("/etc/fstab", "/etc/fstab", true),
        ("/etc/fstab", "/etc/fstab.d", false),
        ("/dev/", "/dev", true),
        ("/dev/", "/dev/pts/0", true),
        ("/dev/", "/device", false),
        ("/etc/*-", "/etc/passwd-", true),
        ("/etc/*-", "/etc/passwd", false),
        ("/etc/*-", "/etc/dir/passwd-", false),
        ("/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_rsa_key", true),
        ("/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_rsa_key.pub", false),
    ] {
        assert_eq!(names(pattern, path), named, "{pattern} {path}");
    }
}

#[test]
fn the_same_packages_give_the_same_root_from_a_cache_too() {
    if !root_or_say("the_same_packages_give_the_same_root_from_a_cache_too") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut inputs = zoo(dir.path());
    let cached = Options { cachedir: Some(dir.path().join("cache")), ..options() };
    build_from(&inputs, &dir.path().join("first"), &cached, &Reporter::quiet()).unwrap();
    // Everything in a root may be written to without harm to the next.
    fs::write(dir.path().join("first/usr/share/stays"), "spoilt").unwrap();
    inputs.reverse();
    build_from(&inputs, &dir.path().join("second"), &cached, &Reporter::quiet()).unwrap();
    build_from(&inputs, &dir.path().join("third"), &options(), &Reporter::quiet()).unwrap();
    let differences = differences(&dir.path().join("second"), &dir.path().join("third"), &[]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(fs::read_to_string(dir.path().join("second/usr/share/stays")).unwrap(), "old\n");
}

#[test]
fn without_documentation_copyright_files_stay_and_the_lists_are_whole() {
    if !root_or_say("without_documentation_copyright_files_stay_and_the_lists_are_whole") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let documented = Package::new(dir.path(), "documented", "")
        .file("usr/share/doc/documented/README", "read me")
        .file("usr/share/doc/documented/copyright", "ours")
        .file("usr/share/man/man1/x.1", ".TH X");
    let inputs = [documented.build(), tiny_debian(dir.path())];
    let root = dir.path().join("root");
    build_from(&inputs, &root, &Options { documentation: false, ..options() }, &Reporter::quiet()).unwrap();
    let there = |path: &str| root.join(path).exists();
    assert!(there("usr/share/doc/documented/copyright"));
    assert!(!there("usr/share/doc/documented/README") && !there("usr/share/man/man1"));
    let list = fs::read_to_string(root.join("var/lib/dpkg/info/documented.list")).unwrap();
    assert!(list.contains("/usr/share/man/man1/x.1\n"));
    // dpkg reads the same rules, should it ever run in the tree.
    assert_eq!(Sandbox::new(&root).run(&["dpkg", "--audit"]).unwrap().text(), "");
}

#[test]
fn no_initramfs_and_no_service_while_scripts_run() {
    if !root_or_say("no_initramfs_and_no_service_while_scripts_run") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tools = Package::new(dir.path(), "tools", "")
        .program("usr/sbin/update-initramfs", "echo made > /trace/initramfs")
        .program("usr/sbin/policy-user", "exec /usr/sbin/policy-rc.d x start")
        .script(
            "postinst",
            "update-initramfs -u\necho $INITRD > /trace/initrd\n/usr/sbin/policy-user || echo $? > /trace/policy",
        );
    let root = dir.path().join("root");
    build_from(&[tools.build(), tiny_debian(dir.path())], &root, &options(), &Reporter::quiet()).unwrap();
    let trace = |name: &str| fs::read_to_string(root.join("trace").join(name)).ok();
    assert_eq!(
        (trace("initramfs"), trace("initrd"), trace("policy")),
        (None, Some("No\n".into()), Some("101\n".into()))
    );
    assert!(!root.join("usr/sbin/policy-rc.d").exists());
    assert!(fs::read_to_string(root.join("usr/sbin/update-initramfs")).unwrap().contains("made"));
}

#[test]
fn a_failing_postinst_is_named_and_its_output_shown() {
    if !root_or_say("a_failing_postinst_is_named_and_its_output_shown") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bad = Package::new(dir.path(), "bad", "")
        .script("postinst", "echo on stdout; echo 'no frobnicator found' >&2; exit 7");
    let inputs = [bad.build(), tiny_debian(dir.path())];
    for keep_sandbox in [false, true] {
        let root = dir.path().join("root");
        let error = build_from(&inputs, &root, &Options { keep_sandbox, ..options() }, &Reporter::quiet()).unwrap_err();
        let text = error.to_string();
        assert_eq!(text, "bad: its postinst script ended with 7\n  | on stdout\n  | no frobnicator found");
        assert_eq!(root.join("var/lib/dpkg/status").exists(), keep_sandbox);
    }
}

#[test]
fn a_failing_preinst_is_named_and_its_output_shown() {
    if !root_or_say("a_failing_preinst_is_named_and_its_output_shown") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bad = Package::new(dir.path(), "bad", "").script("preinst", "echo not here; kill -9 $$");
    let inputs = [bad.build(), tiny_debian(dir.path())];
    let error = build_from(&inputs, &dir.path().join("root"), &options(), &Reporter::quiet()).unwrap_err();
    let Error::Run(RunError::Script(error)) = error else { panic!("{error}") };
    assert_eq!((error.package.as_str(), error.script.as_str(), error.code), ("bad", "preinst", 137));
    assert_eq!(error.output, "  | not here");
}

#[test]
fn a_missing_dependency_is_told_in_dpkgs_words() {
    if !root_or_say("a_missing_dependency_is_told_in_dpkgs_words") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let inputs = [Package::new(dir.path(), "lonely", "Depends: friend (>= 2)\n").build(), tiny_debian(dir.path())];
    let error = build_from(&inputs, &dir.path().join("root"), &options(), &Reporter::quiet()).unwrap_err();
    assert!(error.to_string().contains("lonely depends on friend (>= 2)"), "{error}");
}

#[test]
fn the_sandbox_has_no_network_a_fixed_name_and_no_trace_of_the_machine() {
    if !root_or_say("the_sandbox_has_no_network_a_fixed_name_and_no_trace_of_the_machine") {
        return;
    }
    let sandbox = Sandbox::new("/");
    let output = sandbox
        .run(&[
            "sh",
            "-c",
            "cat /proc/net/dev | tail -n +3; uname -n; ls /tmp /run; echo $$; env | sort; cat /proc/1/environ",
        ])
        .unwrap();
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].trim().starts_with("lo:") && lines[1] == "slipway", "{text}");
    assert!(text.contains("PATH=/usr/local/sbin") && !text.contains("CARGO"), "{text}");
    let error = sandbox.run(&["sh", "-c", "echo out; echo err >&2; exit 4"]).unwrap_err();
    assert_eq!(error.to_string(), "`sh -c echo out; echo err >&2; exit 4` ended with 4 in /:\nout\nerr");
}

#[test]
fn a_root_that_is_not_empty_is_left_alone() {
    if !root_or_say("a_root_that_is_not_empty_is_left_alone") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), "x").unwrap();
    let error = build_from(&[], dir.path(), &options(), &Reporter::quiet()).unwrap_err();
    assert!(matches!(error, Error::NotEmpty(_)) && dir.path().join("precious").exists());
}
