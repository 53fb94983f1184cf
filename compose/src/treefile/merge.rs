//! Includes, and how layers combine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::read::{self, Layer};
use super::{Metadata, Place, Remote, Repository, Require, Treefile, TreefileError};

/// How deep includes may nest.
const DEPTH: usize = 32;

/// Loads `path` and what it includes, merged.
pub fn load(path: &Path, arch: &str) -> Result<Layer, TreefileError> {
    let mut seen = BTreeMap::new();
    load_one(path, None, arch, &mut Vec::new(), &mut seen)
}

/// `chain`: the files being read, outermost first. `seen`: every file read so far and who named it.
fn load_one(
    path: &Path,
    by: Option<&Place>,
    arch: &str,
    chain: &mut Vec<(PathBuf, PathBuf)>,
    seen: &mut BTreeMap<PathBuf, Option<Place>>,
) -> Result<Layer, TreefileError> {
    let unreadable = |source| TreefileError::Read { file: path.to_owned(), by: by.cloned(), source };
    let real = path.canonicalize().map_err(unreadable)?;
    if let Some(by) = by {
        let refuse = |text: String| Err(TreefileError::At { place: by.clone(), text });
        if let Some(at) = chain.iter().position(|(_, r)| *r == real) {
            let mut names: Vec<String> = chain[at..].iter().map(|(p, _)| p.display().to_string()).collect();
            names.push(path.display().to_string());
            return refuse(format!("include cycle: {}", names.join(" → ")));
        }
        if let Some(first) = seen.get(&real) {
            let first = first.as_ref().map(|p| format!(" (first in {p})")).unwrap_or_default();
            let names: Vec<String> = chain.iter().map(|(p, _)| p.display().to_string()).collect();
            return refuse(format!("{} is included twice{first}; this time by {}", path.display(), names.join(" → ")));
        }
        if chain.len() >= DEPTH {
            return refuse(format!("includes nest more than {DEPTH} deep"));
        }
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    seen.insert(real.clone(), by.cloned());
    let (mut layer, includes) = read::layer(path, &text, arch)?;
    chain.push((path.to_owned(), real));
    // Each include is merged under what is there already: the child's values win, the include's items come first.
    for (include, line) in includes {
        let place = Place { file: path.to_owned(), line };
        let under = load_one(&include, Some(&place), arch, chain, seen)?;
        layer = layer.over(under);
    }
    chain.pop();
    Ok(layer)
}

impl Layer {
    /// `self` is the child, `under` what it includes.
    fn over(self, mut under: Layer) -> Layer {
        under.scalars.extend(self.scalars);
        under.variables.extend(self.variables);
        under.add_commit_metadata.extend(self.add_commit_metadata);
        for repo in self.repos {
            put_repo(&mut under.repos, repo);
        }
        under.packages.extend(self.packages);
        under.exclude_packages.extend(self.exclude_packages);
        under.ref_bindings.extend(self.ref_bindings);
        under.local_packages.extend(self.local_packages);
        under.units.extend(self.units);
        under.add_files.extend(self.add_files);
        under.remove_files.extend(self.remove_files);
        under.postprocess.extend(self.postprocess);
        under.kargs.extend(self.kargs);
        for (name, remote) in self.remotes {
            let base = under.remotes.entry(name).or_default();
            base.url = remote.url.or(base.url.take());
            base.ref_name = remote.ref_name.or(base.ref_name.take());
            base.keys.extend(remote.keys);
        }
        under
    }
}

/// Adds a repository; one of the same name is replaced where it stands.
pub fn put_repo(repos: &mut Vec<Repository>, repo: Repository) {
    match repos.iter_mut().find(|r| r.name == repo.name) {
        Some(old) => *old = repo,
        None => repos.push(repo),
    }
}

/// The last steps: variables, defaults, checks over several keys.
pub fn resolve(layer: Layer, path: &Path, arch: &str) -> Result<Treefile, TreefileError> {
    let text = |key: &str| layer.scalars.get(key).map(|(text, _)| text.clone());
    let flag = |key: &str, default: bool| text(key).map_or(default, |t| t == "true");
    let releasever = text("releasever");
    let mut variables = layer.variables.clone();
    variables.insert("basearch".to_owned(), arch.to_owned());
    if let Some(releasever) = &releasever {
        variables.insert("releasever".to_owned(), releasever.clone());
    }
    let substituted = |key: &str| -> Result<Option<String>, TreefileError> {
        let Some((text, place)) = layer.scalars.get(key) else { return Ok(None) };
        substitute(text, &variables)
            .map(Some)
            .map_err(|text| TreefileError::At { place: place.clone(), text: format!("{key}: {text}") })
    };
    let whole = |key: &str, text: String| TreefileError::at(path, 1, format!("{key}: {text}"));

    let Some(ref_name) = substituted("ref")? else {
        return Err(TreefileError::at(
            path,
            1,
            "no `ref`: name the branch, such as `ref: mycompany/trixie/amd64/host`",
        ));
    };
    if !valid_ref(&ref_name) {
        let place = layer.scalars["ref"].1.clone();
        let text = format!("ref: `{ref_name}` is not words of letters, digits and `.-_`, separated by `/`");
        return Err(TreefileError::At { place, text });
    }
    let mut ref_bindings = BTreeSet::new();
    for (text, place) in &layer.ref_bindings {
        let error = |text: String| TreefileError::At { place: place.clone(), text: format!("ref-bindings: {text}") };
        let name = substitute(text, &variables).map_err(error)?;
        if !valid_ref(&name) {
            return Err(error(format!("`{name}` is not words of letters, digits and `.-_`, separated by `/`")));
        }
        ref_bindings.insert(name);
    }
    let mut remotes = BTreeMap::new();
    for (name, remote) in &layer.remotes {
        let fill = |text: &Option<String>| {
            let text = text.as_ref().map(|t| substitute(t, &variables)).transpose();
            text.map_err(|text| whole("remotes", text))
        };
        let mut keys = remote.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        let remote = Remote { url: fill(&remote.url)?, ref_name: fill(&remote.ref_name)?, keys };
        remotes.insert(name.clone(), remote);
    }
    let mut add_commit_metadata = BTreeMap::new();
    for (name, value) in &layer.add_commit_metadata {
        let value = match value {
            Metadata::Bool(value) => Metadata::Bool(*value),
            Metadata::Text(text) => {
                Metadata::Text(substitute(text, &variables).map_err(|text| whole("add-commit-metadata", text))?)
            }
        };
        add_commit_metadata.insert(name.clone(), value);
    }

    let mut origins = BTreeMap::new();
    for (key, items) in [("packages", &layer.packages), ("exclude-packages", &layer.exclude_packages)] {
        for (name, place) in items {
            origins.insert(format!("{key}/{name}"), place.clone());
        }
    }
    for (key, (_, place)) in &layer.scalars {
        origins.insert(format!("{key}/"), place.clone());
    }
    for (name, place) in &layer.exclude_packages {
        let bare = |p: &str| p.split(['=', '/']).next().unwrap_or_default().to_owned();
        if let Some((_, asked)) = layer.packages.iter().find(|(p, _)| bare(p) == *name) {
            let text = format!("exclude-packages: `{name}` is also asked for, in {asked}; remove one of the two");
            return Err(TreefileError::At { place: place.clone(), text });
        }
    }
    let (local_packages, local_paths) = layer.local_packages.iter().cloned().unzip();
    Ok(Treefile {
        ref_name,
        ref_bindings,
        edition: text("edition").unwrap_or_else(|| "2024".to_owned()),
        basearch: arch.to_owned(),
        repos: layer.repos.clone(),
        packages: layer.packages.iter().map(|(p, _)| p.clone()).collect(),
        exclude_packages: layer.exclude_packages.iter().map(|(p, _)| p.clone()).collect(),
        local_packages,
        recommends: flag("recommends", false),
        documentation: flag("documentation", true),
        units: unique(layer.units.clone()),
        default_target: text("default-target"),
        add_files: layer.add_files.clone(),
        remove_files: layer.remove_files.clone(),
        postprocess: layer.postprocess.clone(),
        mutate_os_release: substituted("mutate-os-release")?,
        automatic_version_prefix: substituted("automatic-version-prefix")?,
        automatic_version_suffix: text("automatic-version-suffix").and_then(|t| t.chars().next()).unwrap_or('.'),
        add_commit_metadata,
        kargs: layer.kargs.clone(),
        remotes,
        require: text("require").map(|t| Require::parse(&t)).unwrap_or_default(),
        stateroot: text("stateroot").unwrap_or_else(|| "slipway".to_owned()),
        releasever,
        origins,
        local_paths,
    })
}

/// Items once each, at their first place.
fn unique(items: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn substitute(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| format!("`${{` without `}}` in `{text}`"))?;
        let value = variables.get(name).ok_or_else(|| {
            let near = super::near::misses(name, variables.keys().map(String::as_str));
            format!("the variable `{name}` is not set{}", super::near::suggestion(&near))
        })?;
        result.push_str(before);
        result.push_str(value);
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

fn valid_ref(name: &str) -> bool {
    name.split('/').all(read::word)
}
