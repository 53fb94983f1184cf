//! `repo remote add-cookie`, `delete-cookie`, `list-cookies`: what the server of a remote wants to be sent.

use anyhow::bail;
use store::Repo;
use store::cookies::Listed;

use super::describe::date;

/// A cookie that is added is for this many years.
const YEARS: u64 = 25;

#[derive(Debug, clap::Args)]
pub struct Add {
    name: String,
    /// The host it is for; a dot before it includes the hosts below.
    domain: String,
    /// It is for this path and those below.
    path: String,
    cookie_name: String,
    value: String,
    #[arg(hide = true)]
    rest: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct Delete {
    name: String,
    domain: String,
    path: String,
    cookie_name: String,
    #[arg(hide = true)]
    rest: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct List {
    name: String,
    #[arg(hide = true)]
    rest: Vec<String>,
}

pub fn add(repo: &Repo, args: &Add) -> anyhow::Result<()> {
    let expires = later(sys::clock::now());
    Ok(repo.add_cookie(&args.name, &args.domain, &args.path, (&args.cookie_name, &args.value), expires)?)
}

/// The same day and time, years later.
fn later(now: u64) -> u64 {
    let (day, until) = (86400, now + YEARS * 365 * 86400);
    let year = |time: u64| date(time)[..4].parse::<u64>().unwrap_or(0);
    // The leap days in between are what is still missing; 29 February becomes the 28th where there is none.
    let wanted = &date(now)[4..10];
    let same = |time: &u64| &date(*time)[4..10] == wanted && year(*time) == year(now) + YEARS;
    (0..=YEARS).map(|days| until + days * day).find(same).unwrap_or(until + YEARS / 4 * day)
}

pub fn delete(repo: &Repo, args: &Delete) -> anyhow::Result<()> {
    if !repo.delete_cookie(&args.name, &args.domain, &args.path, &args.cookie_name)? {
        bail!("the remote {} has no cookie {} for {}{}", args.name, args.cookie_name, args.domain, args.path);
    }
    Ok(())
}

pub fn list(repo: &Repo, args: &List) -> anyhow::Result<()> {
    for cookie in repo.cookies_text(&args.name)?.lines().filter_map(Listed::parse) {
        println!("--\nDomain: {}\nPath: {}\nName: {}", cookie.domain, cookie.path, cookie.name);
        println!("Secure: {}\nExpires: {}\nValue: {}", cookie.secure, date(cookie.expires), cookie.value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::later;
    use crate::cmd::repo::describe::date;

    #[test]
    fn later_is_the_same_day_of_another_year() {
        for (now, then) in [
            (1_700_000_000, "2048-11-14 22:13:20 +0000"),
            (0, "1995-01-01 00:00:00 +0000"),
            // 29 February 2024
            (1_709_164_800, "2049-02-28 00:00:00 +0000"),
            (951_782_400, "2025-02-28 00:00:00 +0000"),
        ] {
            assert_eq!(date(later(now)), then, "{now}");
        }
    }
}
