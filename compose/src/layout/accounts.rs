//! Users and groups: a fixed id for each system account, on every machine and in every version.
//!
//! `/usr/etc/passwd` gives a new machine its accounts; a machine whose `passwd` was changed keeps its own, so a system
//! user that a later version brings is made by `systemd-sysusers` there. With a number in the line it gets the same id
//! as in the tree, and files in `/usr` belong to whom they should.
//!
//! Lines of packages' sysusers.d files that leave the number open get it in place; accounts that no file has (maintainer
//! scripts made them) get lines in a file of ours.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::Tree;
use super::{Error, Runner, Summary};

/// Accounts without a line of their own; sorts before every package's file, so its lines win.
const FILE: &str = "usr/lib/sysusers.d/00-slipway.conf";

/// Ids from here to [`NOBODY`] belong to people.
const FIRST_PERSON: u32 = 1000;
const NOBODY: u32 = 65534;

/// A line of `passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
    /// The account has an expiry day in `shadow`: nobody can log in to it by any method.
    expired: bool,
}

/// The accounts of a tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    users: Vec<User>,
    groups: Vec<(String, u32, Vec<String>)>,
}

impl Accounts {
    /// Reads `etc/passwd`, `etc/group` and `etc/shadow`.
    pub fn load(tree: &Tree) -> Result<Self, Error> {
        let passwd = tree.read("etc/passwd")?.unwrap_or_default();
        let group = tree.read("etc/group")?.unwrap_or_default();
        let shadow = tree.read("etc/shadow")?.unwrap_or_default();
        Self::parse(&passwd, &group, &shadow)
    }

    fn parse(passwd: &str, group: &str, shadow: &str) -> Result<Self, Error> {
        let expired: BTreeSet<&str> = shadow
            .lines()
            .filter(|line| line.split(':').nth(7).is_some_and(|day| !day.is_empty()))
            .filter_map(|line| line.split(':').next())
            .collect();
        let mut accounts = Accounts::default();
        for (number, line) in lines(passwd) {
            let field: Vec<&str> = line.split(':').collect();
            let ids = field.get(2).and_then(|f| f.parse().ok()).zip(field.get(3).and_then(|f| f.parse().ok()));
            let (Some((uid, gid)), [name, _, _, _, gecos, home, shell]) = (ids, &field[..]) else {
                return Err(Error::Line("etc/passwd", number, line.to_owned()));
            };
            accounts.users.push(User {
                name: (*name).to_owned(),
                uid,
                gid,
                gecos: (*gecos).to_owned(),
                home: (*home).to_owned(),
                shell: (*shell).to_owned(),
                expired: expired.contains(name),
            });
        }
        for (number, line) in lines(group) {
            let field: Vec<&str> = line.split(':').collect();
            let (Some(gid), [name, _, _, members]) = (field.get(2).and_then(|f| f.parse().ok()), &field[..]) else {
                return Err(Error::Line("etc/group", number, line.to_owned()));
            };
            let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
            accounts.groups.push(((*name).to_owned(), gid, members));
        }
        Ok(accounts)
    }

    /// A user's name, or the number where nobody has it.
    pub fn user(&self, uid: u32) -> String {
        self.users.iter().find(|u| u.uid == uid).map_or_else(|| uid.to_string(), |u| u.name.clone())
    }

    /// A group's name, or the number where there is none.
    pub fn group(&self, gid: u32) -> String {
        self.groups.iter().find(|g| g.1 == gid).map_or_else(|| gid.to_string(), |g| g.0.clone())
    }

    /// The sysusers.d text for every system account that `declared` (the text of all packages' files) gives no fixed
    /// number. Groups come first: `u name uid:gid` wants its group to exist.
    fn sysusers(&self, declared: &str) -> String {
        let fixed = Fixed::parse(declared);
        let system = |id: u32| id < FIRST_PERSON || id == NOBODY;
        let mut text =
            String::from("# Written by slipway compose: every system account of this tree with the id it has there.\n");
        let mut groups: Vec<_> =
            self.groups.iter().filter(|g| system(g.1) && fixed.groups.get(&g.0) != Some(&g.1)).collect();
        groups.sort_by_key(|g| (g.1, &g.0));
        // A user's line with one number makes a group of the same name and number.
        groups.retain(|g| fixed.users.get(&g.0) != Some(&g.1));
        for (name, gid, _) in groups {
            text.push_str(&format!("g {name} {gid}\n"));
        }
        let mut users: Vec<_> =
            self.users.iter().filter(|u| system(u.uid) && fixed.users.get(&u.name) != Some(&u.uid)).collect();
        users.sort_by_key(|u| (u.uid, &u.name));
        for user in users {
            let letter = if user.expired { "u!" } else { "u" };
            let gecos = if user.gecos.is_empty() { "-".to_owned() } else { quoted(&user.gecos) };
            let home = if user.home.is_empty() { "-" } else { &user.home };
            let shell = if user.shell.is_empty() { "-" } else { &user.shell };
            text.push_str(&format!("{letter} {} {}:{} {gecos} {home} {shell}\n", user.name, user.uid, user.gid));
        }
        for (group, gid, members) in &self.groups {
            for member in members.iter().filter(|_| system(*gid)) {
                text.push_str(&format!("m {member} {group}\n"));
            }
        }
        text
    }
}

impl Accounts {
    /// A sysusers.d file where each line that leaves the number open has the number of this tree. Everything else of a
    /// line stays, so a package's file goes on being what it is, and no second line for the same account is needed
    /// (`systemd-sysusers` warns about those on every run).
    fn pinned(&self, text: &str) -> String {
        let mut new = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            match self.pinned_line(line) {
                Some(pinned) => new.push_str(&pinned),
                None => new.push_str(line),
            }
        }
        new
    }

    fn pinned_line(&self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let (letter, name, id) = (words.next()?, words.next()?, words.next().unwrap_or("-"));
        let number = match letter.trim_end_matches('!') {
            "g" if id == "-" => self.groups.iter().find(|g| g.0 == name)?.1.to_string(),
            "u" => {
                let user = self.users.iter().find(|u| u.name == name)?;
                match id.split_once(':') {
                    Some(("-", group)) => format!("{}:{group}", user.uid),
                    None if id == "-" && user.uid == user.gid => user.uid.to_string(),
                    None if id == "-" => format!("{}:{}", user.uid, user.gid),
                    _ => return None,
                }
            }
            _ => return None,
        };
        let letter_end = line.find(letter)? + letter.len();
        let start = letter_end + line[letter_end..].find(name)? + name.len();
        let (head, tail) = line.split_at(start);
        let Some(column) = tail.find(|c: char| !c.is_whitespace()) else {
            return Some(format!("{head} {number}{tail}"));
        };
        Some(format!("{head}{}{number}{}", &tail[..column], &tail[column + id.len()..]))
    }
}

/// Accounts that sysusers.d files give a fixed number.
struct Fixed {
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
}

impl Fixed {
    fn parse(text: &str) -> Self {
        let mut fixed = Fixed { users: BTreeMap::new(), groups: BTreeMap::new() };
        for (_, line) in lines(text) {
            let mut words = line.split_whitespace();
            let (Some(letter), Some(name), Some(id)) = (words.next(), words.next(), words.next()) else { continue };
            let Ok(id) = id.split(':').next().unwrap_or_default().parse() else { continue };
            match letter.trim_end_matches('!') {
                "u" => fixed.users.entry(name.to_owned()).or_insert(id),
                "g" => fixed.groups.entry(name.to_owned()).or_insert(id),
                _ => continue,
            };
        }
        fixed
    }
}

/// Lines with content, numbered from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let content = |(_, line): &(usize, &str)| !line.is_empty() && !line.starts_with('#');
    text.lines().map(str::trim_end).enumerate().map(|(n, line)| (n + 1, line)).filter(content)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// Makes the accounts that sysusers.d files of packages and of the treefile ask for and no maintainer script made.
pub(crate) fn create(tree: &Tree, source_date_epoch: u64, runner: &dyn Runner) -> Result<(), Error> {
    if tree.has("usr/bin/systemd-sysusers") {
        runner.run(&["systemd-sysusers"], &[("SOURCE_DATE_EPOCH", &source_date_epoch.to_string())])?;
    }
    Ok(())
}

/// Pins every system account of the tree, and makes `shadow` independent of the day of the build.
pub(crate) fn pin(
    tree: &Tree,
    accounts: &Accounts,
    source_date_epoch: u64,
    summary: &mut Summary,
) -> Result<(), Error> {
    let mut declared = String::new();
    for name in tree.list("usr/lib/sysusers.d")? {
        let path = format!("usr/lib/sysusers.d/{name}");
        if path != FILE {
            tree.edit(&path, |text| Some(accounts.pinned(text)))?;
            declared.push_str(&tree.read(&path)?.unwrap_or_default());
            declared.push('\n');
        }
    }
    let text = accounts.sysusers(&declared);
    let system = |id: u32| id < FIRST_PERSON || id == NOBODY;
    summary.pinned_accounts = accounts.users.iter().filter(|u| system(u.uid)).count()
        + accounts.groups.iter().filter(|g| system(g.1)).count();
    tree.write(FILE, text, 0o644)?;
    for person in accounts.users.iter().filter(|u| (FIRST_PERSON..NOBODY).contains(&u.uid)) {
        summary.warn(format!(
            "user {} ({}) is in the tree: accounts of people belong to the machine",
            person.name, person.uid
        ));
    }
    let day = source_date_epoch / 86_400;
    tree.edit("etc/shadow", |old| Some(shadow_of_day(old, day)))?;
    Ok(())
}

/// `shadow` where each password that was set during the build was set on `day`. 0 ("must be changed") stays.
fn shadow_of_day(text: &str, day: u64) -> String {
    let day = day.to_string();
    let mut new = String::new();
    for line in text.lines() {
        let mut field: Vec<&str> = line.split(':').collect();
        if field.len() > 2 && !field[2].is_empty() && field[2] != "0" {
            field[2] = &day;
        }
        new.push_str(&field.join(":"));
        new.push('\n');
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n\
        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\nsystemd-network:x:998:998:systemd Network Management:/:/usr/sbin/nologin\n\
        sshd:x:989:65534:sshd user:/run/sshd:/usr/sbin/nologin\nalice:x:1000:1000::/home/alice:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:\nadm:x:4:sshd\nnogroup:x:65534:\nsystemd-network:x:998:\nkvm:x:992:\n_ssh:x:101:\nalice:x:1000:\n";
    const SHADOW: &str = "root:*:20289:0:99999:7:::\nsystemd-network:!*:20289:::::1:\nsshd:!*:0::::::\n";

    #[test]
    fn only_accounts_without_a_fixed_number_get_a_line() {
        let declared = "g adm 4 -\ng nogroup 65534 -\nu root 0 - /root /bin/bash\nu nobody 65534:65534 - /nonexistent /usr/sbin/nologin\n\
            u _apt 42:65534 - /nonexistent /usr/sbin/nologin\nu! systemd-network - \"x\"\ng kvm - -\n";
        let text = Accounts::parse(PASSWD, GROUP, SHADOW).unwrap().sysusers(declared);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "g _ssh 101",
                "g kvm 992",
                "g systemd-network 998",
                "u sshd 989:65534 \"sshd user\" /run/sshd /usr/sbin/nologin",
                "u! systemd-network 998:998 \"systemd Network Management\" / /usr/sbin/nologin",
                "m sshd adm",
            ]
        );
    }

    #[test]
    fn lines_of_packages_get_their_number_in_place() {
        let accounts = Accounts::parse(PASSWD, GROUP, SHADOW).unwrap();
        let text = "# u sshd -\nu sshd -:nogroup \"sshd user\" /run/sshd\nu! systemd-network - \"systemd Network\"\ng kvm  -  -\ng _ssh\n\
            u root 0 - /root\nu unknown - -\nu nobody - -\nm sshd adm\n";
        assert_eq!(
            accounts.pinned(text),
            "# u sshd -\nu sshd 989:nogroup \"sshd user\" /run/sshd\nu! systemd-network 998 \"systemd Network\"\ng kvm  992  -\ng _ssh 101\n\
             u root 0 - /root\nu unknown - -\nu nobody 65534 -\nm sshd adm\n"
        );
        assert_eq!(accounts.pinned(&accounts.pinned(text)), accounts.pinned(text));
    }

    #[test]
    fn broken_passwd_line_is_named() {
        let error = Accounts::parse("root:x:0:0:root:/root:/bin/bash\nbad line\n", "", "").unwrap_err();
        assert_eq!(error.to_string(), "etc/passwd:2: not an account: bad line");
    }

    #[test]
    fn shadow_forgets_the_day_of_the_build() {
        assert_eq!(shadow_of_day(SHADOW, 7), "root:*:7:0:99999:7:::\nsystemd-network:!*:7:::::1:\nsshd:!*:0::::::\n");
    }

    #[test]
    fn names_of_ids() {
        let accounts = Accounts::parse(PASSWD, GROUP, SHADOW).unwrap();
        assert_eq!(
            (accounts.user(998), accounts.group(101), accounts.user(4242)),
            ("systemd-network".into(), "_ssh".into(), "4242".into())
        );
    }
}
