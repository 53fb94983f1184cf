//! `/etc`: nothing that belongs to one machine or to the build is shipped; in the end it becomes `/usr/etc`.

use super::tree::{Kind, Tree};
use super::{Error, Runner};

/// Copies and locks that account tools leave behind.
const BACKUPS: &[&str] =
    &["passwd-", "group-", "shadow-", "gshadow-", "subuid-", "subgid-", ".pwd.lock", ".updated", "mtab~"];

/// Endings of files that package tools leave beside configuration.
const LEFTOVERS: &[&str] = &[".dpkg-old", ".dpkg-new", ".dpkg-tmp", ".dpkg-dist", ".ucf-dist", ".ucf-old", ".ucf-new"];

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n";

/// Removes what the build machine left, before the treefile's own files come in.
pub(crate) fn clean(tree: &Tree) -> Result<(), Error> {
    for name in ["hostname", "fstab", ".resolv.conf.systemd-resolved.bak"] {
        tree.remove(&format!("etc/{name}"))?;
    }
    // A copy of the build machine's file, or the link that a container tool resolved.
    tree.remove("etc/resolv.conf")?;
    if tree.has("usr/lib/systemd/systemd-resolved") {
        tree.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")?;
    }
    if !tree.has("etc/hosts") {
        tree.write("etc/hosts", HOSTS, 0o644)?;
    }
    identity(tree)
}

/// Removes identities. Runs again after the last script: any of them may have made one.
///
/// `machine-id` stays as an empty file: PID 1 fills it, and does not take the boot for a *first boot*, which would
/// enable every unit by preset.
pub(crate) fn identity(tree: &Tree) -> Result<(), Error> {
    tree.write("etc/machine-id", "", 0o444)?;
    tree.remove("var/lib/dbus/machine-id")?;
    for name in tree.list("etc/ssh")? {
        if name.starts_with("ssh_host_") {
            tree.remove(&format!("etc/ssh/{name}"))?;
        }
    }
    for name in BACKUPS {
        tree.remove(&format!("etc/{name}"))?;
    }
    for found in tree.walk("etc")? {
        if found.kind == Kind::File && LEFTOVERS.iter().any(|end| found.path.ends_with(end)) {
            tree.remove(&found.path)?;
        }
    }
    Ok(())
}

/// Makes now what tmpfiles.d would make in `/etc` on the first boot: every such file would count as a local change.
pub(crate) fn settle(tree: &Tree, runner: &dyn Runner) -> Result<(), Error> {
    const TOOL: &str = "usr/bin/systemd-tmpfiles";
    if !tree.has(TOOL) {
        return Ok(());
    }
    // Exit codes 65 and 73 say that a line was not understood or not done: no reason to stop, boot reports them again.
    let done = runner.run(&["systemd-tmpfiles", "--create", "--prefix=/etc"], &[]);
    match done {
        Ok(_) => Ok(()),
        Err(Error::Run { code: Some(65 | 73), .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Moves `/etc` to `/usr/etc`, the defaults of every deployment. The last step: nothing can run in the tree after it.
pub(crate) fn to_usr(tree: &Tree) -> Result<(), Error> {
    if tree.has("usr/etc") {
        return Err(Error::UsrEtc);
    }
    // No empty /etc stays: libostree refuses to deploy a tree that has both, and its composefs form adds the directory.
    tree.rename("etc", "usr/etc")
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;

    #[test]
    fn nothing_of_the_builder_is_left() {
        let (_dir, tree) = fake(&[
            "etc/hostname: builder",
            "etc/fstab: x",
            "etc/machine-id: 0123",
            "etc/passwd: root",
            "etc/passwd-: old",
            "etc/ssh/ssh_host_rsa_key: secret",
            "etc/ssh/sshd_config: keep",
            "etc/app/app.conf.dpkg-dist: x",
            "etc/resolv.conf: nameserver 192.0.2.1",
            "usr/lib/systemd/systemd-resolved",
        ]);
        clean(&tree).unwrap();
        assert_eq!(tree.list("etc").unwrap(), ["app", "hosts", "machine-id", "passwd", "resolv.conf", "ssh"]);
        assert_eq!(tree.read("etc/machine-id").unwrap().unwrap(), "");
        assert_eq!(tree.list("etc/ssh").unwrap(), ["sshd_config"]);
        assert!(tree.list("etc/app").unwrap().is_empty());
        assert!(std::fs::read_link(tree.at("etc/resolv.conf")).unwrap().ends_with("stub-resolv.conf"));
    }

    #[test]
    fn a_tree_that_already_has_usr_etc_is_refused() {
        let (_dir, tree) = fake(&["etc/passwd", "usr/etc/passwd"]);
        assert!(matches!(to_usr(&tree), Err(Error::UsrEtc)));
    }
}
