//! Where updates lie in a repository: `updates/TO/FROM.update`, and beside them `sizes`.

use std::path::Path;

use super::generate::{Options, Report, generate};
use super::{UpdateError, path, sizes_path};
use crate::{Checksum, ObjectType, Repo};

/// Generates an update from the commits in `source` and puts it where clients of `target` look for it. One that is
/// there already is kept: `None`.
pub fn publish(
    source: &Repo,
    target: &Repo,
    from: Option<&Checksum>,
    to: &Checksum,
    options: &Options<'_>,
) -> Result<Option<Report>, UpdateError> {
    let place = target.path().join(path(from, to));
    if place.exists() {
        return Ok(None);
    }
    let io = |source| UpdateError::Io { what: format!("writing {}", place.display()), source };
    let dir = place.parent().unwrap_or(target.path());
    std::fs::create_dir_all(dir).map_err(io)?;
    let temporary = place.with_extension(format!("tmp-{}", std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&temporary).map_err(io)?;
        let report = generate(source, from, to, options, &mut file)?;
        file.sync_all().map_err(io)?;
        std::fs::rename(&temporary, &place).map_err(io)?;
        sys::file::sync_dir(dir).map_err(io)?;
        Ok(report)
    };
    let result = write();
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result.map(Some)
}

/// Deletes the updates that lead to commits that are not here any more, and what interrupted runs left. Returns how many
/// bytes that were.
pub fn prune(repo: &Repo) -> Result<u64, UpdateError> {
    let top = repo.path().join("updates");
    let io = |path: &Path| {
        let what = format!("pruning {}", path.display());
        move |source| UpdateError::Io { what, source }
    };
    let entries = match std::fs::read_dir(&top) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(io(&top))?,
    };
    let mut freed = 0;
    for entry in entries {
        let dir = entry.map_err(io(&top))?.path();
        let name = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Checksum>().ok());
        // Not ours.
        let Some(to) = name else { continue };
        let gone = !repo.has(ObjectType::Commit, &to);
        for file in std::fs::read_dir(&dir).map_err(io(&dir))? {
            let file = file.map_err(io(&dir))?;
            let path = file.path();
            let ours = path.extension().is_some_and(|extension| extension == "update");
            let half = !ours && path != repo.path().join(sizes_path(&to));
            if gone || half {
                freed += file.metadata().map_err(io(&dir))?.len();
                sys::file::remove(&file.path()).map_err(io(&dir))?;
            }
        }
        if gone {
            std::fs::remove_dir(&dir).map_err(io(&dir))?;
        }
    }
    Ok(freed)
}
