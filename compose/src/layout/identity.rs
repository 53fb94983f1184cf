//! What the tree says about itself.
//!
//! ```text
//! /usr/lib/os-release                                  + IMAGE_ID, IMAGE_VERSION, OSTREE_VERSION, VARIANT, VARIANT_ID
//! /usr/lib/slipway/tree.json                           ref, version, remotes, kernel arguments, level of trust required
//! /usr/share/ostree/trusted.ed25519.d/NAME.ed25519     public keys
//! /usr/share/slipway/treefile.json                     the resolved treefile
//! ```

use std::collections::BTreeMap;

use base64::Engine;
use serde::Serialize;

use super::tree::Tree;
use super::{Error, Settings};

const OS_RELEASE: &str = "usr/lib/os-release";
const TREE: &str = "usr/lib/slipway/tree.json";
const TREEFILE: &str = "usr/share/slipway/treefile.json";

/// `tree.json`.
#[derive(Serialize)]
struct TreeJson<'a> {
    format: &'static str,
    os: &'a str,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remotes: Option<&'a BTreeMap<String, super::Remote>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kargs: Option<&'a [String]>,
    require: &'static str,
}

/// Writes what the initramfs takes along: the keys, and a `tree.json` that says only what does not change with each version.
pub(crate) fn before_initramfs(tree: &Tree, settings: &Settings) -> Result<(), Error> {
    for (name, text) in &settings.keys {
        let path = format!("usr/share/ostree/trusted.ed25519.d/{}.ed25519", file_name(name)?);
        tree.write(&path, key_file(name, text)?, 0o644)?;
    }
    let short = TreeJson {
        format: "1.0",
        os: &settings.os,
        reference: None,
        version: None,
        remotes: None,
        kargs: None,
        require: settings.require.as_str(),
    };
    write_json(tree, TREE, &short)
}

/// Writes what carries the version.
pub(crate) fn after_initramfs(tree: &Tree, settings: &Settings) -> Result<(), Error> {
    let full = TreeJson {
        format: "1.0",
        os: &settings.os,
        reference: Some(&settings.reference),
        version: Some(&settings.version),
        remotes: Some(&settings.remotes),
        kargs: Some(&settings.kargs),
        require: settings.require.as_str(),
    };
    write_json(tree, TREE, &full)?;
    write_json(tree, TREEFILE, &settings.treefile)?;
    let text = tree
        .read(OS_RELEASE)?
        .ok_or_else(|| Error::Missing { path: format!("/{OS_RELEASE}"), package: "base-files" })?;
    tree.write(OS_RELEASE, os_release(&text, settings), 0o644)
}

fn write_json(tree: &Tree, path: &str, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::io("writing", path, e.into()))?;
    text.push('\n');
    tree.write(path, text, 0o644)
}

/// A name of the treefile as a file name.
fn file_name(name: &str) -> Result<&str, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
    if good { Ok(name) } else { Err(Error::KeyName(name.to_owned())) }
}

/// Checks that each line of a key file is the base64 text of 32 bytes, and returns it without comments.
fn key_file(name: &str, text: &str) -> Result<String, Error> {
    let mut keys = String::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(line).unwrap_or_default();
        match bytes.len() {
            32 => keys.push_str(&format!("{line}\n")),
            // The line is not shown: it may be the secret key.
            64 => return Err(Error::Key { name: name.to_owned(), why: "is a secret key: give the .pub file" }),
            _ => {
                return Err(Error::Key {
                    name: name.to_owned(),
                    why: "is not the base64 text of an ed25519 public key",
                });
            }
        }
    }
    if keys.is_empty() { Err(Error::Key { name: name.to_owned(), why: "holds no key" }) } else { Ok(keys) }
}

/// `os-release` with our fields; other lines keep their place.
fn os_release(text: &str, settings: &Settings) -> String {
    let variant = settings.reference.rsplit('/').next().unwrap_or_default();
    let variant_id: String = variant
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let value = |key: &str| {
        text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).map(|v| v.trim_matches('"').to_owned())
    };
    let base = settings.mutate_os_release.as_deref().filter(|base| !base.is_empty());
    let renamed = |key: &str| Some(value(key)?.replacen(base?, &settings.version, 1));
    let plain = value("PRETTY_NAME").unwrap_or_else(|| "Debian GNU/Linux".to_owned());
    let pretty = renamed("PRETTY_NAME").unwrap_or_else(|| format!("{plain} (Slipway {})", settings.version));
    let mut ours = vec![
        ("PRETTY_NAME", pretty.as_str()),
        ("DEFAULT_HOSTNAME", &settings.os),
        ("IMAGE_ID", &settings.os),
        ("IMAGE_VERSION", &settings.version),
        ("OSTREE_VERSION", &settings.version),
        ("VARIANT", variant),
        ("VARIANT_ID", &variant_id),
    ];
    let long = renamed("VERSION");
    ours.extend(long.as_deref().map(|v| ("VERSION", v)));
    let mut new = String::new();
    let mut done = Vec::new();
    for line in text.lines() {
        match ours.iter().find(|(key, _)| line.split('=').next() == Some(key)) {
            Some((key, value)) => {
                new.push_str(&assignment(key, value));
                done.push(*key);
            }
            None => new.push_str(&format!("{line}\n")),
        }
    }
    for (key, value) in ours.iter().filter(|(key, _)| !done.contains(key)) {
        new.push_str(&assignment(key, value));
    }
    new
}

/// A line that a shell and systemd read alike.
fn assignment(key: &str, value: &str) -> String {
    let mut quoted = String::new();
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    format!("{key}=\"{quoted}\"\n")
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::fake;
    use super::*;
    use crate::treefile::Require;

    fn settings() -> Settings {
        Settings {
            os: "slipway".into(),
            reference: "slipway/trixie/amd64/container-host".into(),
            version: "13.2".into(),
            remotes: BTreeMap::from([(
                "default".to_owned(),
                super::super::Remote {
                    url: Some("http://updates.example/repo".into()),
                    reference: "slipway/trixie/amd64/container-host".into(),
                },
            )]),
            kargs: vec!["console=ttyS0".into()],
            require: Require::Verity,
            ..Settings::default()
        }
    }

    #[test]
    fn os_release_keeps_what_it_does_not_own() {
        let once =
            os_release("PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\nIMAGE_VERSION=old\n", &settings());
        assert_eq!(
            once,
            "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie) (Slipway 13.2)\"\nID=debian\nIMAGE_VERSION=\"13.2\"\nDEFAULT_HOSTNAME=\"slipway\"\nIMAGE_ID=\"slipway\"\n\
             OSTREE_VERSION=\"13.2\"\nVARIANT=\"container-host\"\nVARIANT_ID=\"container-host\"\n"
        );
    }

    #[test]
    fn version_replaces_the_base_version_where_the_treefile_says_so() {
        let with = Settings { mutate_os_release: Some("13".into()), ..settings() };
        let text = os_release(
            "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION=\"13 (trixie)\"\nVERSION_ID=\"13\"\n",
            &with,
        );
        assert!(
            text.starts_with(
                "PRETTY_NAME=\"Debian GNU/Linux 13.2 (trixie)\"\nVERSION=\"13.2 (trixie)\"\nVERSION_ID=\"13\"\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn version_cannot_break_out_of_os_release() {
        assert_eq!(assignment("A", "1\"; rm $(x)`"), "A=\"1\\\"; rm \\$(x)\\`\"\n");
    }

    #[test]
    fn tree_json_of_the_initramfs_does_not_change_with_the_version() {
        let (_dir, tree) = fake(&["usr/lib/os-release: ID=debian"]);
        before_initramfs(&tree, &settings()).unwrap();
        assert_eq!(
            tree.read(TREE).unwrap().unwrap(),
            "{\n  \"format\": \"1.0\",\n  \"os\": \"slipway\",\n  \"require\": \"verity\"\n}\n"
        );
        after_initramfs(&tree, &settings()).unwrap();
        let full: serde_json::Value = serde_json::from_str(&tree.read(TREE).unwrap().unwrap()).unwrap();
        assert_eq!(full["version"], "13.2");
        assert_eq!(full["ref"], "slipway/trixie/amd64/container-host");
        assert_eq!(full["remotes"]["default"]["url"], "http://updates.example/repo");
        assert_eq!(full["kargs"][0], "console=ttyS0");
    }

    #[test]
    fn keys_and_the_trust_required_reach_the_initramfs() {
        let (_dir, tree) = fake(&["usr/lib/"]);
        let key = base64::engine::general_purpose::STANDARD.encode([7_u8; 32]);
        let with = Settings {
            keys: vec![("default".into(), format!("# ours\n{key}\n"))],
            require: Require::Verified,
            ..settings()
        };
        before_initramfs(&tree, &with).unwrap();
        assert_eq!(
            tree.read("usr/share/ostree/trusted.ed25519.d/default.ed25519").unwrap().unwrap(),
            format!("{key}\n")
        );
        assert!(tree.read(TREE).unwrap().unwrap().contains("\"require\": \"verified\""));
    }

    #[test]
    fn secret_key_given_as_public_key_is_refused_and_not_shown() {
        let secret = base64::engine::general_purpose::STANDARD.encode([9_u8; 64]);
        let error = key_file("default", &secret).unwrap_err().to_string();
        assert!(error.contains("secret") && !error.contains(&secret), "{error}");
        assert!(key_file("default", "hello\n").is_err() && key_file("default", "# nothing\n").is_err());
        assert!(file_name("../x").is_err() && file_name("").is_err() && file_name(".x").is_err());
    }
}
