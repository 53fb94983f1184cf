//! The order in which packages can be unpacked, and who needs whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Package;

/// Who provides which name.
struct Names<'a> {
    providers: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Names<'a> {
    fn new(packages: &'a [Package]) -> Self {
        let mut providers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, package) in packages.iter().enumerate() {
            // The package itself first: it satisfies its name before anyone who provides it.
            providers.entry(&package.name).or_default().insert(0, index);
            for provided in names(package.control.get("Provides")).flatten() {
                providers.entry(provided).or_default().push(index);
            }
        }
        Names { providers }
    }

    /// One package for each clause of a field: the first alternative that is in the set.
    fn targets(&self, field: Option<&str>) -> Vec<usize> {
        names(field)
            .filter_map(|alternatives| {
                alternatives.into_iter().find_map(|name| self.providers.get(name).and_then(|p| p.first()).copied())
            })
            .collect()
    }
}

/// The names in a dependency field, clause by clause, versions and architectures dropped.
fn names(field: Option<&str>) -> impl Iterator<Item = Vec<&str>> {
    field.unwrap_or_default().split(',').map(|clause| {
        clause
            .split('|')
            .map(|name| name.trim().split([' ', '(', ':', '\n']).next().unwrap_or_default())
            .filter(|name| !name.is_empty())
            .collect()
    })
}

/// Sorts so that what a package pre-depends on always comes before it, and what it depends on wherever there is no cycle.
/// The result depends on names and dependencies alone.
pub fn sort(mut packages: Vec<Package>) -> Vec<Package> {
    packages.sort_by(|a, b| (&a.name, &a.arch).cmp(&(&b.name, &b.arch)));
    let names = Names::new(&packages);
    let before: Vec<Vec<usize>> = packages.iter().map(|p| names.targets(p.control.get("Pre-Depends"))).collect();
    let all: Vec<Vec<usize>> = packages
        .iter()
        .zip(&before)
        .map(|(p, before)| before.iter().copied().chain(names.targets(p.control.get("Depends"))).collect())
        .collect();

    // Depth first, dependencies before their dependents: a rank for each package. Essential packages lead.
    let mut rank = vec![usize::MAX; packages.len()];
    let mut seen = vec![false; packages.len()];
    let mut next = 0;
    let essential = (0..packages.len()).filter(|&i| packages[i].essential);
    let order: Vec<usize> = essential.chain(0..packages.len()).collect();
    for root in order {
        // (package, how many of its dependencies are done); an explicit stack, since chains may be long.
        let mut stack = vec![(root, 0)];
        while let Some((package, done)) = stack.pop() {
            if done == 0 {
                if seen[package] {
                    continue;
                }
                seen[package] = true;
            }
            if let Some(&dependency) = all[package].get(done) {
                stack.push((package, done + 1));
                stack.push((dependency, 0));
            } else if rank[package] == usize::MAX {
                rank[package] = next;
                next += 1;
            }
        }
    }

    // The lowest rank whose pre-dependencies are out. Pre-dependencies have no cycles; if they had, rank decides.
    let mut waiting: BTreeSet<(usize, usize)> = rank.iter().enumerate().map(|(index, &rank)| (rank, index)).collect();
    let mut out = vec![false; packages.len()];
    let mut sorted = Vec::with_capacity(packages.len());
    while let Some(first) = waiting.first().copied() {
        let ready =
            waiting.iter().copied().find(|&(_, i)| before[i].iter().all(|&b| out[b] || b == i)).unwrap_or(first);
        waiting.remove(&ready);
        out[ready.1] = true;
        sorted.push(ready.1);
    }
    let mut slots: Vec<Option<Package>> = packages.into_iter().map(Some).collect();
    sorted.into_iter().filter_map(|index| slots[index].take()).collect()
}

/// The shortest chain of dependencies from one of `asked` to `wanted`.
pub fn chain(packages: &[Package], asked: &BTreeSet<String>, recommends: bool, wanted: &str) -> Option<Vec<String>> {
    let names = Names::new(packages);
    let index = |name: &str| packages.iter().position(|p| p.name == name);
    let goal = index(wanted)?;
    let mut came: BTreeMap<usize, Option<usize>> = BTreeMap::new();
    let mut queue: VecDeque<usize> = asked.iter().filter_map(|name| index(name)).collect();
    queue.extend((0..packages.len()).filter(|&i| packages[i].essential));
    for &start in &queue {
        came.insert(start, None);
    }
    while let Some(package) = queue.pop_front() {
        if package == goal {
            let mut path = vec![packages[goal].name.clone()];
            let mut at = goal;
            while let Some(Some(previous)) = came.get(&at) {
                path.push(packages[*previous].name.clone());
                at = *previous;
            }
            path.reverse();
            return Some(path);
        }
        let control = &packages[package].control;
        let fields = ["Pre-Depends", "Depends", "Recommends"];
        for field in &fields[..if recommends { 3 } else { 2 }] {
            for target in names.targets(control.get(field)) {
                came.entry(target).or_insert_with(|| {
                    queue.push_back(target);
                    Some(package)
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::deb822;

    fn package(text: &str) -> Package {
        let control = deb822::stanzas(text).remove(0);
        Package {
            name: control.get("Package").unwrap().to_owned(),
            version: "1".into(),
            arch: "all".into(),
            essential: control.get("Essential") == Some("yes"),
            deb: "x".into(),
            sha256: String::new(),
            size: 0,
            control,
        }
    }

    fn sorted(list: &[&str]) -> Vec<String> {
        sort(list.iter().map(|t| package(t)).collect()).into_iter().map(|p| p.name).collect()
    }

    #[test]
    fn dependencies_come_first_and_pre_dependencies_even_in_a_cycle() {
        assert_eq!(
            sorted(&[
                "Package: aa\nDepends: bb (>= 1) | cc, dd:any",
                "Package: bb",
                "Package: dd\nDepends: v",
                "Package: x\nProvides: v (= 2)"
            ]),
            ["bb", "x", "dd", "aa"]
        );
        assert_eq!(sorted(&["Package: bb\nDepends: aa", "Package: aa\nPre-Depends: bb"]), ["bb", "aa"]);
        assert_eq!(
            sorted(&["Package: aa\nDepends: aa, bb", "Package: bb\nDepends: aa", "Package: zz\nEssential: yes"]),
            ["zz", "bb", "aa"]
        );
    }

    #[test]
    fn a_chain_tells_who_needs_a_package() {
        let packages: Vec<Package> =
            ["Package: top\nDepends: mid", "Package: mid\nPre-Depends: low", "Package: low", "Package: other"]
                .iter()
                .map(|t| package(t))
                .collect();
        let asked = BTreeSet::from(["top".to_owned()]);
        assert_eq!(chain(&packages, &asked, false, "low").unwrap(), ["top", "mid", "low"]);
        assert_eq!(chain(&packages, &asked, false, "other"), None);
    }
}
