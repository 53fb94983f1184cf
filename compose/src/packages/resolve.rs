//! What apt chooses, as data.

use std::collections::BTreeSet;

use super::apt::Apt;
use super::fetch::{Item, percent_decode};
use super::{Package, PackagesError, deb_path, deb822, order};
use crate::treefile::{Place, Treefile, near};

/// One line of `--print-uris`.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    url: String,
    name: String,
    version: String,
    arch: String,
    size: u64,
    sha256: String,
}

/// The packages of the treefile with everything they need, in order, and where to fetch each.
pub fn run(apt: &Apt, tree: &Treefile, cachedir: &std::path::Path) -> Result<Vec<(Package, Item)>, PackagesError> {
    let excluded: Vec<&str> = tree.exclude_packages.iter().map(String::as_str).collect();
    apt.exclude(&excluded)?;
    let lines = match ask(apt, tree) {
        Err(error) if !excluded.is_empty() => {
            apt.exclude(&[])?;
            // Without the exclusions the same question tells who needs an excluded package.
            let Ok(lines) = ask(apt, tree) else { return Err(error) };
            let packages: Vec<Package> = describe(apt, &lines, cachedir)?.into_iter().map(|(p, _)| p).collect();
            return Err(blame(tree, &packages).unwrap_or(error));
        }
        other => other?,
    };
    let found = describe(apt, &lines, cachedir)?;
    let (packages, mut items): (Vec<Package>, Vec<Item>) = found.into_iter().unzip();
    let sorted = order::sort(packages);
    let mut result = Vec::with_capacity(sorted.len());
    for package in sorted {
        let Some(at) = items.iter().position(|i| i.sha256 == package.sha256) else {
            return Err(PackagesError::Answer(format!("no address for {}", package.name)));
        };
        result.push((package, items.swap_remove(at)));
    }
    Ok(result)
}

fn ask(apt: &Apt, tree: &Treefile) -> Result<Vec<Line>, PackagesError> {
    let output = apt
        .cmd("apt-get")
        .args(["install", "--print-uris", "-q", "-o", "Debug::NoLocking=true"])
        .args(&tree.packages)
        .arg("?essential")
        .output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.code != 0 {
        return Err(explain(apt, tree, &stdout, &stderr));
    }
    stdout.lines().filter(|l| l.starts_with('\'')).map(parse_line).collect()
}

/// `'URL' NAME_VERSION_ARCH.deb SIZE SHA256:HEX`
fn parse_line(line: &str) -> Result<Line, PackagesError> {
    let wrong = || PackagesError::Answer(line.to_owned());
    let (url, rest) = line.trim_start_matches('\'').split_once("' ").ok_or_else(wrong)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [file, size, hash] = words.as_slice() else { return Err(wrong()) };
    let file = percent_decode(file.strip_suffix(".deb").ok_or_else(wrong)?);
    let parts: Vec<&str> = file.to_str().ok_or_else(wrong)?.split('_').collect();
    let [name, version, arch] = parts.as_slice() else { return Err(wrong()) };
    let sha256 = hash.strip_prefix("SHA256:").ok_or_else(wrong)?.to_ascii_lowercase();
    // It becomes a file name.
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    Ok(Line {
        url: url.to_owned(),
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        arch: (*arch).to_owned(),
        size: size.parse().map_err(|_| wrong())?,
        sha256,
    })
}

/// Adds the stanzas of the index.
fn describe(apt: &Apt, lines: &[Line], cachedir: &std::path::Path) -> Result<Vec<(Package, Item)>, PackagesError> {
    let wanted: Vec<String> = lines.iter().map(|l| format!("{}={}", l.name, l.version)).collect();
    let output = apt.cmd("apt-cache").arg("show").args(&wanted).run()?;
    let stanzas = deb822::stanzas(&String::from_utf8_lossy(&output.stdout));
    let mut by_digest = std::collections::BTreeMap::new();
    for stanza in &stanzas {
        if let (Some(name), Some(digest)) = (stanza.get("Package"), stanza.get("SHA256")) {
            by_digest.entry((name, digest)).or_insert(stanza);
        }
    }
    let mut found = Vec::with_capacity(lines.len());
    for line in lines {
        let stanza = *by_digest
            .get(&(line.name.as_str(), line.sha256.as_str()))
            .ok_or_else(|| PackagesError::Answer(format!("no record of {} {}", line.name, line.version)))?;
        let package = Package {
            name: line.name.clone(),
            version: line.version.clone(),
            arch: line.arch.clone(),
            essential: stanza.get("Essential") == Some("yes"),
            deb: deb_path(cachedir, &line.sha256),
            sha256: line.sha256.clone(),
            size: line.size,
            control: stanza.clone(),
        };
        found.push((package, Item { url: line.url.clone(), sha256: line.sha256.clone(), size: line.size }));
    }
    Ok(found)
}

/// Which exclusion cannot be, and why.
fn blame(tree: &Treefile, packages: &[Package]) -> Option<PackagesError> {
    for name in &tree.exclude_packages {
        let Some(chain) = order::chain(packages, &bare(&tree.packages), tree.recommends, name) else { continue };
        let place = tree.origin("exclude-packages", name).cloned();
        let why = match chain.as_slice() {
            [_] => "every Debian system needs it (Essential: yes)".to_owned(),
            [first, middle @ .., _] => {
                let asked =
                    asked_at(tree, first).map_or(" is always there".to_owned(), |p| format!(" is asked for in {p}"));
                match middle.last() {
                    None => format!("`{first}` needs it, and{asked}"),
                    Some(last) => format!(
                        "`{last}` needs it; {} → {name}, and `{first}`{asked}",
                        chain[..chain.len() - 1].join(" → ")
                    ),
                }
            }
            [] => continue,
        };
        return Some(PackagesError::Excluded { name: name.clone(), place, why });
    }
    None
}

fn bare(names: &BTreeSet<String>) -> BTreeSet<String> {
    names.iter().map(|n| n.split(['=', '/']).next().unwrap_or_default().to_owned()).collect()
}

/// Where the treefile asks for the package `name`, with or without a version.
fn asked_at<'a>(tree: &'a Treefile, name: &str) -> Option<&'a Place> {
    let written = tree.packages.iter().find(|p| p.split(['=', '/']).next() == Some(name))?;
    tree.origin("packages", written)
}

/// What apt's refusal means.
fn explain(apt: &Apt, tree: &Treefile, stdout: &str, stderr: &str) -> PackagesError {
    for line in stderr.lines().filter_map(|l| l.strip_prefix("E: ")) {
        if let Some(name) = line.strip_prefix("Unable to locate package ") {
            return missing(apt, tree, name.trim());
        }
        let quoted: Vec<&str> = line.split('\'').skip(1).step_by(2).collect();
        if line.contains("has no installation candidate") {
            let name = quoted.first().copied().unwrap_or_default();
            if tree.exclude_packages.contains(name) {
                continue;
            }
            let providers = providers(stdout, name);
            let place = asked_at(tree, name).cloned();
            return if providers.is_empty() {
                missing(apt, tree, name)
            } else {
                PackagesError::Virtual { name: name.to_owned(), place, providers }
            };
        }
        if line.starts_with("Version '") || line.starts_with("Release '") {
            let place = quoted.get(1).and_then(|name| asked_at(tree, name)).cloned();
            return PackagesError::NoSuchVersion { place, reason: line.to_owned() };
        }
    }
    let unmet = stdout.split_once("unmet dependencies:\n").map_or("", |(_, unmet)| unmet).trim_end();
    let text = if unmet.is_empty() { stderr.trim_end() } else { unmet };
    PackagesError::Unresolvable(text.to_owned())
}

fn missing(apt: &Apt, tree: &Treefile, name: &str) -> PackagesError {
    let names = apt.cmd("apt-cache").arg("pkgnames").output().map(|o| o.text()).unwrap_or_default();
    let near = near::misses(name, names.lines());
    let place = asked_at(tree, name).cloned();
    PackagesError::Missing { name: name.to_owned(), place, repos: apt.describe(), near }
}

/// apt lists who provides a virtual package on indented lines below its name.
fn providers(stdout: &str, name: &str) -> Vec<String> {
    let head = format!("Package {name} is a virtual package provided by:");
    let lines = stdout.lines().skip_while(|l| !l.starts_with(&head)).skip(1);
    lines
        .take_while(|l| l.starts_with("  "))
        .filter_map(|l| l.split_whitespace().next())
        .map(str::to_owned)
        .collect::<BTreeSet<String>>()
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_print_uris() {
        let digest = "ab".repeat(32);
        let line = parse_line(&format!(
            "'http://h/pool/b/bsdutils_2.41%2b1_amd64.deb' bsdutils_1%3a2.41+1_amd64.deb 12 SHA256:{digest}"
        ))
        .unwrap();
        assert_eq!(
            (line.name.as_str(), line.version.as_str(), line.arch.as_str(), line.size),
            ("bsdutils", "1:2.41+1", "amd64", 12)
        );
        for bad in [
            "'http://h/x.deb' x.deb 1 SHA256:00",
            "'x",
            "'u' a_1_all.deb x SHA256:00",
            "'u' a_1_all.deb 1 SHA256:../../x",
        ] {
            assert!(parse_line(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn providers_of_a_virtual_package() {
        let text = "Reading…\nPackage awk is a virtual package provided by:\n  mawk 1.3\n  gawk 5\n  gawk 5\n\nE: x\n";
        assert_eq!(providers(text, "awk"), ["gawk", "mawk"]);
    }
}
