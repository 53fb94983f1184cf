//! What of a commit is wanted.

use std::collections::BTreeSet;
use std::sync::Arc;

/// What of a commit is wanted, and how many commits before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Only these directories and files, and the directories that lead there; everything where none is named. The commit
    /// stays marked as partial.
    pub subpaths: Vec<String>,
    /// Only the commit itself. It stays marked as partial.
    pub commit_only: bool,
    /// So many commits before it, too; `None` all of them.
    pub depth: Depth,
    /// Refuse files that a repository of mode `bare-user-only` could not hold: setuid, setgid, writable for all.
    pub bareuseronly: bool,
}

/// How many commits before the one that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// So many, as far as they are there.
    Parents(u32),
    /// All that are there.
    All,
}

impl Default for Depth {
    fn default() -> Self {
        Depth::Parents(0)
    }
}

impl Depth {
    /// One fewer; `None` where the one before is not wanted.
    pub(super) fn next(self) -> Option<Depth> {
        match self {
            Depth::All => Some(Depth::All),
            Depth::Parents(0) => None,
            Depth::Parents(count) => Some(Depth::Parents(count - 1)),
        }
    }
}

impl Select {
    /// Whether every object of the commit is wanted.
    pub(super) fn whole(&self) -> bool {
        self.subpaths.is_empty() && !self.commit_only
    }

    /// What is wanted of the root directory.
    pub(super) fn root(&self) -> Below {
        let parts = |path: &String| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let paths: Vec<Vec<String>> = self.subpaths.iter().map(parts).collect();
        Below::of(paths, self.subpaths.is_empty())
    }
}

/// What is wanted of a directory: everything, or what these paths lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Below {
    All,
    Paths(Arc<Vec<Vec<String>>>),
}

impl Below {
    fn of(paths: Vec<Vec<String>>, all: bool) -> Below {
        if all || paths.iter().any(Vec::is_empty) { Below::All } else { Below::Paths(Arc::new(paths)) }
    }

    /// What is wanted of the entry `name`; `None` where nothing is.
    pub fn enter(&self, name: &str) -> Option<Below> {
        let Below::Paths(paths) = self else { return Some(Below::All) };
        let rest: BTreeSet<Vec<String>> =
            paths.iter().filter(|path| path[0] == name).map(|path| path[1..].to_vec()).collect();
        (!rest.is_empty()).then(|| Below::of(rest.into_iter().collect(), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_what_is_wanted() {
        let of = |paths: &[&str]| Select {
            subpaths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Select::default()
        };
        assert_eq!(Select::default().root(), Below::All);
        assert_eq!(of(&["/"]).root(), Below::All);
        let root = of(&["/usr/share/doc", "/usr/bin/"]).root();
        assert_eq!(root.enter("etc"), None);
        let usr = root.enter("usr").unwrap();
        assert_eq!(usr.enter("bin"), Some(Below::All));
        assert_eq!(usr.enter("lib"), None);
        assert_eq!(usr.enter("share").unwrap().enter("doc").unwrap().enter("anything"), Some(Below::All));
        assert_eq!(of(&["/usr", "/usr/bin"]).root().enter("usr"), Some(Below::All));
        assert_eq!((Depth::Parents(1).next(), Depth::Parents(0).next()), (Some(Depth::Parents(0)), None));
    }
}
