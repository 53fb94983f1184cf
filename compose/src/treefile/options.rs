//! Every key of the treefile, in one table: the reader knows no other key, and `treefiles/OPTIONS.md` is rendered from it.

/// One key.
pub struct Key {
    /// As written in the treefile. `packages-ARCH` stands for one key for each architecture.
    pub name: &'static str,
    /// What its value is.
    pub value: &'static str,
    /// How a child treefile and the ones it includes combine.
    pub merge: Merge,
    /// What it means.
    pub meaning: &'static str,
}

/// How the values of a child and its includes combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The child's value; else the first include's that has one.
    Child,
    /// One list: the includes' items first (of several includes, the last one's first), the child's last.
    Concatenate,
    /// One sorted set.
    Union,
    /// One mapping; where both have a key, the child's value.
    Keys,
    /// Belongs to its file.
    None,
}

impl Merge {
    fn describe(self) -> &'static str {
        match self {
            Merge::Child => "child wins",
            Merge::Concatenate => "concatenated",
            Merge::Union => "union",
            Merge::Keys => "by key",
            Merge::None => "–",
        }
    }
}

macro_rules! keys {
    ($($name:literal, $value:literal, $merge:ident, $meaning:literal;)*) => {
        &[$(Key { name: $name, value: $value, merge: Merge::$merge, meaning: $meaning }),*]
    };
}

/// The keys, in the order of the documentation.
pub const KEYS: &[Key] = keys! {
    "include", "path or list of paths", None, "Treefiles that this one builds on, relative to it. No file may be included twice.";
    "edition", "`2024`", Child, "The set of defaults. `2024` is the only one, and the default.";
    "ref", "name", Child, "The branch that the commit becomes the head of. Required. `${…}` is substituted.";
    "ref-bindings", "list of names", Union, "More branches that the commit belongs to, so that `slipway promote` can publish the very commit that was tested under another name: a machine refuses a commit that does not list the branch it follows. `${…}` is substituted.";
    "variables", "mapping of values", Keys, "Values for `${name}` in `ref`, `ref-bindings`, `automatic-version-prefix`, `mutate-os-release`, `remotes`, `add-commit-metadata`. `${basearch}` and `${releasever}` are always there.";
    "releasever", "word", Child, "The Debian suite (`trixie`); needed unless every repository names its suites. May also be written `suite`.";
    "repos", "list of repositories", Concatenate, "Where packages come from. A mapping has `name` and may have `uris` (or `url`), `suites`, `components` (default `main`), `signed-by` (a keyring file, relative to the treefile; default: the build machine's Debian archive keyring) and `check-valid-until` (default `true`). One without `uris` is the Debian archive at the build machine's own mirror, with the suite, its `-updates` and its `-security`. A plain name `x` reads `x.sources` (deb822) beside the treefile. A repository with the name of an earlier one replaces it. Default: `[{name: debian}]`.";
    "packages", "list of names", Union, "Packages to install, with what they depend on. An item may hold several names separated by white space; `name=version` and `name/suite` are what they are for apt.";
    "packages-ARCH", "list of names", Union, "More packages, on that Debian architecture only (`packages-amd64`).";
    "exclude-packages", "list of names", Union, "Packages that must not be installed. It is an error, which names who, when another package cannot do without one of them.";
    "local-packages", "list of paths", Concatenate, "`.deb` files, or directories of them, relative to the treefile. They take part in the resolution before all repositories; those also listed in `packages`, or needed by one, are installed.";
    "recommends", "true or false", Child, "Also install what packages only recommend. Default `false`.";
    "documentation", "true or false", Child, "Keep documentation, manual pages and translations of them. Copyright files always stay. Default `true`.";
    "units", "list of unit names", Concatenate, "systemd units to enable.";
    "default-target", "unit name", Child, "What `default.target` points to.";
    "add-files", "list of `[source, destination]` or `[source, destination, mode]`", Concatenate, "Files or directories beside the treefile to copy into the tree. Mode is octal; default `0755` for executable files, `0644` for others.";
    "remove-files", "list of paths", Concatenate, "Files or directories to delete from the tree.";
    "postprocess", "list of scripts", Concatenate, "Scripts that run in the tree, in a sandbox without network, after everything else. Each may begin with `#!`; else it is run by `/bin/sh -e`.";
    "mutate-os-release", "text", Child, "Text of the base version (`13`) that the full version replaces in `VERSION` and `PRETTY_NAME` of os-release; `OSTREE_VERSION` is always set.";
    "automatic-version-prefix", "text", Child, "The version counts up from here: `22`, `22.1`, `22.2`; with `<date:%Y>` it also has the date of the newest package source: `22.2026.0`.";
    "automatic-version-suffix", "one character", Child, "What stands before the counter. Default `.`.";
    "add-commit-metadata", "mapping", Keys, "Texts and true/false values to put into the commit's metadata.";
    "kargs", "list of words", Concatenate, "Kernel arguments of every deployment.";
    "remotes", "mapping of name to remote", Keys, "Where machines get updates: `url`, `ref` (default: this treefile's `ref`) and `keys`, a list of public key files relative to the treefile, or keys in base64. The remote `default` is the one that machines follow. Url and ref can be overridden on the machine, keys cannot. The keys of an included treefile's remote are kept, url and ref follow the child.";
    "require", "`verified` or `verity`", Child, "What the initramfs demands of a deployment: `verified` a commit signed by a key of `remotes`, `verity` only that files match the commit. Default: `verified` where there is a key, in `remotes` or to sign with; else `verity`.";
    "stateroot", "word", Child, "Name of the operating system on disk. Default `slipway`.";
};

/// Other spellings.
pub const ALIASES: &[(&str, &str)] = &[("suite", "releasever")];

/// Keys of rpm-ostree's language that mean nothing here or are not done, with what to use instead.
pub const UNSUPPORTED: &[(&str, &str)] = &[
    ("advisories-metadata", ""),
    ("arch-include", "use `packages-ARCH`"),
    ("boot-location", "kernels always lie in /usr/lib/modules"),
    ("bootstrap_packages", "use `packages`"),
    ("check-groups", ""),
    ("check-passwd", ""),
    ("cliwrap", ""),
    ("cliwrap-binaries", ""),
    ("conditional-include", ""),
    ("container", ""),
    ("container-cmd", ""),
    ("etc-group-members", ""),
    ("gpg-key", "sign with `slipway compose --sign-key`"),
    ("gpg_key", "sign with `slipway compose --sign-key`"),
    ("ignore-devices", "device nodes are never committed"),
    ("ignore-removed-groups", ""),
    ("ignore-removed-users", ""),
    ("ima", ""),
    ("initramfs-args", "add a file to /etc/dracut.conf.d with `add-files`"),
    ("install-langs", ""),
    ("lockfile-repos", ""),
    ("machineid-compat", "an empty machine-id is always shipped"),
    ("metadata", "use `add-commit-metadata`"),
    ("modules", ""),
    ("no-initramfs", ""),
    ("opt-usrlocal", "/opt and /usr/local are always in /var"),
    ("ostree-layers", ""),
    ("ostree-override-layers", ""),
    ("platform-module", ""),
    ("postprocess-script", "use `postprocess`"),
    ("preserve-passwd", ""),
    ("readonly-executables", ""),
    ("remove-from-packages", "use `remove-files`"),
    ("repo-metadata", ""),
    ("repo-packages", "use `name/suite` in `packages`"),
    ("repovars", ""),
    ("rojig", ""),
    ("rpmdb", ""),
    ("rpmdb-normalize", ""),
    ("selinux", ""),
    ("selinux-label-version", ""),
    ("sysusers", "system users always get a sysusers.d line"),
    ("tmp-is-dir", "/tmp is always a directory"),
];

/// Debian's architectures that `packages-ARCH` may name.
pub const ARCHITECTURES: &[&str] =
    &["amd64", "arm64", "armel", "armhf", "i386", "loong64", "mips64el", "ppc64el", "riscv64", "s390x"];

/// `treefiles/OPTIONS.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# The treefile\n\n\
         What `slipway compose` builds is written in a treefile, YAML or (with a name ending in `.json`) JSON, in rpm-ostree's\n\
         language with Debian's meaning. Unknown keys are errors. Paths are relative to the file that names them.\n\n\
         | key | value | with includes | meaning |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        text.push_str(&format!("| `{}` | {} | {} | {} |\n", key.name, key.value, key.merge.describe(), key.meaning));
    }
    text.push_str("\n## Keys of rpm-ostree that are refused\n\n");
    for (name, instead) in UNSUPPORTED {
        let instead = if instead.is_empty() { String::new() } else { format!(": {instead}") };
        text.push_str(&format!("- `{name}`{instead}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SLIPWAY_BLESS=1` writes the page anew.
    #[test]
    fn the_page_of_options_is_rendered_from_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../treefiles/OPTIONS.md");
        if std::env::var_os("SLIPWAY_BLESS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../treefiles")).unwrap();
            std::fs::write(path, markdown()).unwrap();
        }
        let page = std::fs::read_to_string(path).expect("treefiles/OPTIONS.md");
        assert!(
            page == markdown(),
            "treefiles/OPTIONS.md is not what the table says; run this test with SLIPWAY_BLESS=1"
        );
    }

    #[test]
    fn no_key_is_both_supported_and_refused() {
        for (name, _) in UNSUPPORTED {
            assert!(KEYS.iter().all(|k| k.name != *name) && ALIASES.iter().all(|(a, _)| a != name), "{name}");
        }
    }
}
