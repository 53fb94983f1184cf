//! In which order packages are unpacked and configured.
//!
//! ```text
//! 1  essential    every Essential package and what it depends on: unpacked raw, preinst, placed, configured
//! 2  rounds       of the rest, all whose Pre-Depends are configured (or that have no preinst, so that it does not
//!                 matter): preinst in order of dependency, placed. Where some wait, the packages they wait for are
//!                 configured, and the next round begins
//! 3  the end      everything else is configured
//! ```

use std::collections::{HashMap, HashSet};

use super::control::{Control, Relation};

/// What depends on what within a set of packages. Packages are numbers: their place in the slice.
pub struct Graph {
    /// Dependencies that must be configured before the preinst runs.
    pre: Vec<Vec<usize>>,
    /// All dependencies, `pre` first.
    all: Vec<Vec<usize>>,
    /// Order by dependency; cycles are cut where they are met.
    pub order: Vec<usize>,
    essential: Vec<usize>,
}

/// These make `/etc/passwd` and the symbolic links at the top; every other script may rely on both.
const FIRST: [&str; 2] = ["base-passwd", "base-files"];

impl Graph {
    /// Resolves every dependency to a package of the set. What the set does not hold is left out: apt decided that.
    pub fn new(packages: &[&Control]) -> Self {
        let mut providers: HashMap<&str, Vec<(usize, Option<&str>)>> = HashMap::new();
        for (number, package) in packages.iter().enumerate() {
            providers.entry(&package.name).or_default().push((number, Some(&package.version)));
        }
        for (number, package) in packages.iter().enumerate() {
            for provided in package.provides.iter().flatten() {
                let version = provided.version.as_ref().map(|(_, v)| v.as_str());
                providers.entry(&provided.name).or_default().push((number, version));
            }
        }
        let resolve = |of: usize, groups: &[Vec<Relation>]| -> Vec<usize> {
            let mut found = Vec::new();
            for group in groups {
                // The real package stands before its providers, so the first that fits is the one apt means.
                let hits = group.iter().flat_map(|relation| {
                    let list = providers.get(relation.name.as_str()).into_iter().flatten();
                    list.filter(|(_, version)| match version {
                        Some(version) => relation.allows(version),
                        None => relation.version.is_none(),
                    })
                });
                // The same architecture first, where there are several.
                let mut hits: Vec<usize> = hits.map(|(n, _)| *n).filter(|n| *n != of).collect();
                hits.sort_by_key(|n| packages[*n].arch != packages[of].arch && packages[*n].arch != "all");
                found.extend(hits.first().copied());
            }
            found
        };
        let pre: Vec<Vec<usize>> = packages.iter().enumerate().map(|(n, p)| resolve(n, &p.pre_depends)).collect();
        let all = packages.iter().enumerate().map(|(n, p)| {
            let mut list = pre[n].clone();
            list.extend(resolve(n, &p.depends));
            list
        });
        let all: Vec<Vec<usize>> = all.collect();
        let mut by_name: Vec<usize> = (0..packages.len()).collect();
        let rank = |n: usize| FIRST.iter().position(|f| *f == packages[n].name).unwrap_or(FIRST.len());
        by_name.sort_by_key(|n| (rank(*n), &packages[*n].name, &packages[*n].arch));
        let order = {
            let mut order: Vec<usize> = by_name.iter().copied().filter(|n| rank(*n) < FIRST.len()).collect();
            let mut seen: HashSet<usize> = order.iter().copied().collect();
            for start in by_name {
                visit(start, &all, &mut seen, &mut order);
            }
            order
        };
        let mut graph = Graph { pre, all, order, essential: Vec::new() };
        graph.essential = graph.closure((0..packages.len()).filter(|n| packages[*n].essential), &HashSet::new());
        graph
    }

    /// The essential packages and all they need, in order.
    pub fn essential(&self) -> &[usize] {
        &self.essential
    }

    /// `start` and all it depends on, in order, without the packages in `done`.
    pub fn closure(&self, start: impl IntoIterator<Item = usize>, done: &HashSet<usize>) -> Vec<usize> {
        let mut seen: HashSet<usize> = done.clone();
        let mut stack: Vec<usize> = start.into_iter().collect();
        let mut found = HashSet::new();
        while let Some(next) = stack.pop() {
            if seen.insert(next) {
                found.insert(next);
                stack.extend(&self.all[next]);
            }
        }
        self.order.iter().copied().filter(|n| found.contains(n)).collect()
    }

    /// Of the packages in `waiting` (in order), the next round: (to unpack now, to configure after that).
    pub fn round(
        &self,
        waiting: &[usize],
        configured: &HashSet<usize>,
        has_preinst: impl Fn(usize) -> bool,
    ) -> (Vec<usize>, Vec<usize>) {
        let ready = |n: &usize| !has_preinst(*n) || self.pre[*n].iter().all(|p| configured.contains(p));
        let (mut now, later): (Vec<usize>, Vec<usize>) = waiting.iter().copied().partition(ready);
        if now.is_empty() {
            // A cycle of Pre-Depends: go on in order, as dpkg with --force-depends does.
            now = later.clone();
        }
        let unplaced: HashSet<usize> = later.iter().copied().filter(|n| !now.contains(n)).collect();
        let mut configure = HashSet::new();
        for number in &unplaced {
            let needs = self.closure(self.pre[*number].iter().copied(), configured);
            // What hangs on a package that itself waits is for a later round.
            if !needs.iter().any(|n| unplaced.contains(n)) {
                configure.extend(needs);
            }
        }
        let configure = self.order.iter().copied().filter(|n| configure.contains(n)).collect();
        (now, configure)
    }
}

fn visit(start: usize, edges: &[Vec<usize>], seen: &mut HashSet<usize>, order: &mut Vec<usize>) {
    // Depth first without recursion: (package, next edge to follow).
    let mut stack = Vec::new();
    if seen.insert(start) {
        stack.push((start, 0));
    }
    while let Some((node, edge)) = stack.last_mut() {
        match edges[*node].get(*edge) {
            Some(next) => {
                *edge += 1;
                if seen.insert(*next) {
                    stack.push((*next, 0));
                }
            }
            None => {
                order.push(*node);
                stack.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(texts: &[&str]) -> Vec<Control> {
        let fill = |text: &&str| Control::parse(&format!("{text}\nVersion: 1\nArchitecture: amd64\n")).unwrap();
        texts.iter().map(fill).collect()
    }

    fn names(list: &[usize], controls: &[Control]) -> String {
        list.iter().map(|n| controls[*n].name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn essential_is_a_closure_with_the_base_in_front() {
        let list = controls(&[
            "Package: awk-impl\nProvides: awk",
            "Package: bash\nEssential: yes\nPre-Depends: libc6\nDepends: base-files (>= 1)",
            "Package: base-files\nEssential: yes\nPre-Depends: awk",
            "Package: base-passwd\nEssential: yes\nDepends: libc6",
            "Package: libc6",
            "Package: extra\nDepends: libc6",
        ]);
        let graph = Graph::new(&list.iter().collect::<Vec<_>>());
        assert_eq!(names(graph.essential(), &list), "base-passwd base-files awk-impl libc6 bash");
    }

    #[test]
    fn a_preinst_waits_until_its_pre_depends_are_configured() {
        let list = controls(&[
            "Package: a\nPre-Depends: b",
            "Package: b\nDepends: c",
            "Package: c",
            "Package: d\nPre-Depends: a",
        ]);
        let graph = Graph::new(&list.iter().collect::<Vec<_>>());
        let has_preinst = |n: usize| n == 0 || n == 3;
        let (now, configure) = graph.round(&graph.order, &HashSet::new(), has_preinst);
        assert_eq!((names(&now, &list), names(&configure, &list)), ("c b".into(), "c b".into()));
        let configured: HashSet<usize> = configure.into_iter().collect();
        let (now, configure) = graph.round(&[0, 3], &configured, has_preinst);
        assert_eq!((names(&now, &list), names(&configure, &list)), ("a".into(), "a".into()));
    }

    #[test]
    fn cycles_end() {
        let list = controls(&["Package: a\nPre-Depends: b", "Package: b\nPre-Depends: a"]);
        let graph = Graph::new(&list.iter().collect::<Vec<_>>());
        let (now, configure) = graph.round(&graph.order, &HashSet::new(), |_| true);
        assert_eq!((now.len(), configure.len()), (2, 0));
    }
}
