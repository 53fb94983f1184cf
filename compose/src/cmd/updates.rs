//! Which updates are made when a commit is published: `publish --from`.

use anyhow::Context as _;
use store::update::{self, Report};
use store::{Checksum, Error, Repo};
use sys::{Refused, Reporter};

/// From where machines get a short way to a new commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// From what was published under the ref before.
    Auto,
    /// From none: machines fetch objects.
    Never,
    /// From nothing, for new machines.
    Empty,
    /// From each of the last so many versions.
    Last(u32),
    /// From a version, or a commit by its checksum or the beginning of it.
    Version(String),
}

/// Makes of a word of the command line what it means.
pub fn parse(word: &str) -> Result<From, String> {
    Ok(match word {
        "auto" => From::Auto,
        "never" => From::Never,
        "empty" => From::Empty,
        _ => match word.strip_prefix("last:") {
            Some(count) => From::Last(count.parse().map_err(|_| format!("{count:?} is not a number"))?),
            None if word.is_empty() => return Err("a version, or auto, never, empty, last:N".into()),
            None => From::Version(word.to_owned()),
        },
    })
}

/// The commits before `to` that are in the repository, the newest first.
fn history(repo: &Repo, to: &Checksum) -> Result<Vec<Checksum>, Error> {
    let mut history = Vec::new();
    let mut next = repo.load_commit(to)?.parent;
    while let Some(commit) = next.filter(|commit| repo.has(store::ObjectType::Commit, commit)) {
        if history.contains(&commit) || repo.is_partial(&commit) {
            break;
        }
        next = repo.load_commit(&commit)?.parent;
        history.push(commit);
    }
    Ok(history)
}

/// The commits that updates to `to` start from.
fn bases(
    target: &Repo,
    wanted: &[From],
    to: &Checksum,
    published: Option<Checksum>,
) -> anyhow::Result<Vec<Option<Checksum>>> {
    let history = history(target, to)?;
    let mut bases = Vec::new();
    for from in wanted {
        match from {
            From::Never => return Ok(Vec::new()),
            From::Empty => bases.push(None),
            From::Auto => bases.extend(published.filter(|commit| commit != to).map(Some)),
            From::Last(count) => bases.extend(history.iter().take(*count as usize).copied().map(Some)),
            From::Version(word) => {
                let is = |commit: &&Checksum| {
                    commit.to_hex().starts_with(word.as_str())
                        || target.load_commit(commit).is_ok_and(|commit| commit.version() == Some(word))
                };
                let found = history.iter().find(is).copied().or_else(|| target.resolve(word).ok());
                let refused = || {
                    let why = format!("no version {word} was published before {}", to.short());
                    Refused::with_hint(why, "`--from auto` starts from what is published now")
                };
                bases.push(Some(found.filter(|commit| commit != to).ok_or_else(refused)?));
            }
        }
    }
    let mut seen = Vec::new();
    bases.retain(|base| {
        !seen.contains(base) && {
            seen.push(*base);
            true
        }
    });
    Ok(bases)
}

/// Makes the updates to a commit that is in `target`, before its ref points to it.
pub fn make(
    source: &Repo,
    target: &Repo,
    wanted: &[From],
    to: &Checksum,
    published: Option<Checksum>,
    reporter: &Reporter,
) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for base in bases(target, wanted, to, published)? {
        let name = base.map_or_else(|| "nothing".to_owned(), |base| base.short());
        let step = reporter.step("update", 0);
        // The build repository keeps contents as they are; the published one would have to inflate each.
        let plain = base.is_none_or(|base| source.has(store::ObjectType::Commit, &base) && !source.is_partial(&base));
        let from = if plain { source } else { target };
        let made = update::publish(from, target, base.as_ref(), to, &update::Options::default())
            .with_context(|| format!("making the update from {name}"))?;
        match made {
            Some(report) => {
                step.done(format!("from {name}: {} bytes", report.bytes));
                reports.push(report);
            }
            None => step.done(format!("from {name}: it is there")),
        }
    }
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line() {
        assert_eq!(parse("auto"), Ok(From::Auto));
        assert_eq!(parse("last:3"), Ok(From::Last(3)));
        assert_eq!(parse("13.2"), Ok(From::Version("13.2".into())));
        assert!(parse("last:x").is_err() && parse("").is_err());
    }
}
