use super::*;

#[test]
fn triggers_of_every_kind() {
    let text =
        "# comment\ninterest /usr/share/x\ninterest-noawait ldconfig # why\nactivate-noawait y\ninterest-await z\n\n";
    let interest = |name: &str, noawait| Trigger::Interest { name: name.into(), noawait };
    assert_eq!(
        triggers(text),
        [interest("/usr/share/x", false), interest("ldconfig", true), Trigger::Activate, interest("z", false)]
    );
}

#[test]
fn a_diversion_spares_the_package_that_made_it() {
    let diversions = Diversions::parse("/bin/sh\n/bin/sh.distrib\ndash\n/etc/x\n/etc/x.old\n:\n");
    assert_eq!(diversions.target("bin/sh", "bash"), Some("bin/sh.distrib"));
    assert_eq!(diversions.target("bin/sh", "dash"), None);
    assert_eq!(diversions.target("etc/x", "any"), Some("etc/x.old"));
    assert_eq!(diversions.target("etc/y", "any"), None);
}

#[test]
fn overrides_know_names_and_numbers() {
    let users = Users {
        users: HashMap::from([("root".to_owned(), 0)]),
        groups: HashMap::from([("messagebus".to_owned(), 101)]),
    };
    let text = "root messagebus 4754 /usr/lib/x\n#5 #6 644 /y z\nnobody-knows root 644 /z\n";
    let overrides = StatOverrides::parse(text, &users);
    assert_eq!(overrides.of("usr/lib/x"), Some((0, 101, 0o4754)));
    assert_eq!(overrides.of("y z"), Some((5, 6, 0o644)));
    assert_eq!(overrides.of("z"), None);
}

#[test]
fn only_configured_packages_hear_of_new_files() {
    let root = tempfile::tempdir().unwrap();
    let database = Database::create(root.path(), "amd64").unwrap();
    database
        .write("triggers/File", b"/usr/share/a one/noawait\n/usr/share/b two\n/usr/share/c three\n", 0o644)
        .unwrap();
    let list: Vec<String> =
        ["/usr/share/a/x", "/usr/share/b", "/usr/share/c/x", "/usr/share/bb"].map(String::from).into();
    let unpacked = [("p", &list[..]), ("q", &list[1..2])];
    database.activate(|name| name != "three", unpacked.into_iter()).unwrap();
    assert_eq!(database.read("triggers/Unincorp").unwrap(), "/usr/share/a -\n/usr/share/b p q\n");
}
