//! OpenPGP signatures and keys in words, as `show`, `remote summary` and `remote gpg-list-keys` print them.

use std::path::Path;

use anyhow::{Context as _, bail};
use store::sign::gpg::{Key, Keyring, Report, Subkey, Verdict, trusted_keys};
use store::{Dict, Repo};

use super::wkd;

/// The keys that a commit is looked at with where no remote is named: those for all remotes, those of every remote, and
/// those in the files `*.gpg` of `home`.
pub fn all_keys(repo: &Repo, home: Option<&Path>) -> anyhow::Result<Keyring> {
    let mut keyring = Keyring::of_all(Path::new("/"))?;
    for remote in repo.remotes()? {
        let file = trusted_keys(repo.path(), &remote.name);
        if file.exists() {
            keyring.add_path(&file)?;
        }
    }
    if let Some(home) = home {
        let entries = std::fs::read_dir(home).with_context(|| format!("reading {}", home.display()))?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == "gpg") && path.is_file());
        files.sort();
        // GnuPG's own trustdb.gpg has this name too, and no keys in it.
        files.retain(|path| path.file_name().is_none_or(|name| name != "trustdb.gpg"));
        files.iter().try_for_each(|path| keyring.add_path(path))?;
    }
    Ok(keyring)
}

/// Prints each signature; nothing where there is none. `title` is what comes before the number of them.
pub fn print_signatures(keyring: &Keyring, message: &[u8], detached: &Dict, title: &str) -> anyhow::Result<()> {
    let reports = keyring.report(message, detached)?;
    if !reports.is_empty() {
        println!("{title} {} signature{}:", reports.len(), if reports.len() == 1 { "" } else { "s" });
    }
    for report in &reports {
        println!("\n{}", signature(report)?.join("\n"));
    }
    Ok(())
}

fn signature(report: &Report) -> anyhow::Result<Vec<String>> {
    let algorithm = report.algorithm.unwrap_or("[unknown name]");
    let mut lines =
        vec![format!("  Signature made {} using {algorithm} key ID {}", date(report.made)?, report.key_id())];
    let uid = report.uid();
    let from = format!("signature from \"{} <{}>\"", uid.name(), uid.mail());
    lines.push(match report.verdict {
        Verdict::Good => format!("  Good {from}"),
        Verdict::KeyMissing => "  Can't check signature: public key not found".to_owned(),
        Verdict::KeyRevoked => "  Key revoked".to_owned(),
        Verdict::Expired => format!("  Expired {from}"),
        Verdict::Bad => format!("  BAD {from}"),
    });
    let Some(key) = &report.key else { return Ok(lines) };
    let primary = &key.primary;
    if primary.fingerprint != report.fingerprint {
        let start = primary.fingerprint.len().saturating_sub(16);
        lines.push(format!("  Primary key ID {}", &primary.fingerprint[start..]));
    }
    let now = sys::clock::now();
    let mut ends = |what: &str, time: u64| -> anyhow::Result<()> {
        if time != 0 {
            let word = if time < now { "expired" } else { "expires" };
            lines.push(format!("  {what} {word} {}", date(time)?));
        }
        Ok(())
    };
    ends("Signature", report.expires)?;
    let made_it = key.all().find(|subkey| subkey.fingerprint == report.fingerprint);
    ends("Key", made_it.map_or(0, |subkey| subkey.expires))?;
    if primary.fingerprint != report.fingerprint {
        ends("Primary key", primary.expires)?;
    }
    Ok(lines)
}

/// A time in the words of the locale, and in the time zone that is set here. A day of one digit has a space before it
/// that is as wide as a digit, as the stock tool writes it.
fn date(time: u64) -> anyhow::Result<String> {
    let output = sys::Cmd::new("date").args(["+%c", &format!("--date=@{time}")]).run()?;
    Ok(output.text().trim_end().replace("  ", " \u{2007}"))
}

/// Prints keys with their names and the addresses where new versions of them are found.
pub fn print_keys(keys: &[Key]) -> anyhow::Result<()> {
    for key in keys {
        println!("Key: {}{}", key.primary.fingerprint, if key.primary.revoked { " (revoked)" } else { "" });
        times("  ", &key.primary)?;
        for uid in &key.uids {
            println!("  UID: {}{}", uid.text, if uid.revoked { " (revoked)" } else { "" });
            let [advanced, direct] = wkd::urls(uid.mail()).unwrap_or_default();
            println!("  Advanced update URL: {advanced}\n  Direct update URL: {direct}");
        }
        for subkey in &key.subkeys {
            println!("  Subkey: {}{}", subkey.fingerprint, if subkey.revoked { " (revoked)" } else { "" });
            times("    ", subkey)?;
        }
    }
    Ok(())
}

fn times(indent: &str, key: &Subkey) -> anyhow::Result<()> {
    println!("{indent}Created: {}", date(key.created)?);
    if key.expires != 0 {
        println!("{indent}{}: {}", if key.expired { "Expired" } else { "Expires" }, date(key.expires)?);
    }
    Ok(())
}

/// The keys that somebody named, among those of a keyring: the fingerprint of each, where it is there.
pub fn fingerprints(keyring: &Keyring, names: &[String]) -> anyhow::Result<Vec<Option<String>>> {
    let keys = keyring.list()?;
    let find = |name: &String| keys.iter().find(|key| key.is_called(name)).map(|key| key.primary.fingerprint.clone());
    Ok(names.iter().map(find).collect())
}

/// Refuses a commit that one of these keys has signed already, as far as the keys for all remotes tell.
pub fn refuse_second(message: &[u8], detached: &Dict, names: &[String]) -> anyhow::Result<()> {
    if !detached.contains_key(store::sign::gpg::KEY) {
        return Ok(());
    }
    let keyring = Keyring::of_all(Path::new("/"))?;
    let reports = keyring.report(message, detached)?;
    for key in fingerprints(&keyring, names)?.into_iter().flatten() {
        if reports.iter().any(|report| report.primary() == Some(&key)) {
            bail!("the commit is already signed with the GPG key {key}");
        }
    }
    Ok(())
}
