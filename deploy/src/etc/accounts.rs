//! `passwd`, `group` and their kin, merged line by line by name.
//!
//! A local user made on the old tree and a system user that the new tree brings both exist afterwards. Where both
//! sides changed one account, each field that was changed here wins. No account is ever dropped: files in `/var` may
//! still be its own.

use std::collections::{BTreeMap, BTreeSet};

/// The files of the family, relative to `/etc`.
pub const ACCOUNT_FILES: [&str; 6] = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"];

/// File name to content; a file that is not there is missing here, too.
pub type Family = BTreeMap<String, String>;

/// Merges the files that both `live` and `new` have. Also says what had to be decided.
pub fn merge_accounts(old: &Family, live: &Family, new: &Family) -> (Family, Vec<String>) {
    let mut notes = Vec::new();
    let text = |family: &Family, file: &str| family.get(file).cloned().unwrap_or_default();
    let file = |name: &str| File {
        old: parse(&text(old, name)),
        live: parse(&text(live, name)),
        new: parse(&text(new, name)),
    };
    let mut result = Family::new();
    // Groups first: a user's primary group may have got another number.
    let (mut groups, mut passwd) = (file("group").merge(Some(3)), file("passwd").merge(None));
    let moved = renumber(&mut groups, "group", &mut notes);
    for line in passwd.iter_mut().filter(|l| l.added) {
        let group = line.fields.get(3).and_then(|g| moved.get(g)).cloned();
        if let (Some(group), Some(field)) = (group, line.fields.get_mut(3)) {
            *field = group;
        }
    }
    renumber(&mut passwd, "user", &mut notes);
    for (name, lines) in [("group", groups), ("passwd", passwd)] {
        result.insert(name.to_owned(), render(&lines));
    }
    for (name, members) in [("shadow", None), ("gshadow", Some(3)), ("subuid", None), ("subgid", None)] {
        result.insert(name.to_owned(), render(&file(name).merge(members)));
    }
    result.retain(|name, _| live.contains_key(name) && new.contains_key(name));
    (result, notes)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    fields: Vec<String>,
    /// How many lines with this name came before (`subuid` may have several).
    nth: usize,
    /// Only the new tree has it.
    added: bool,
}

impl Line {
    fn key(&self) -> (&str, usize) {
        (self.fields.first().map_or("", String::as_str), self.nth)
    }
}

fn parse(text: &str) -> Vec<Line> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        let count = seen.entry(fields[0].clone()).or_default();
        lines.push(Line { fields, nth: *count, added: false });
        *count += 1;
    }
    lines
}

fn render(lines: &[Line]) -> String {
    lines.iter().map(|l| l.fields.join(":") + "\n").collect()
}

struct File {
    old: Vec<Line>,
    live: Vec<Line>,
    new: Vec<Line>,
}

impl File {
    /// The live order, then what the new tree adds. `members` is the field that is a list of names.
    fn merge(&self, members: Option<usize>) -> Vec<Line> {
        let find = |lines: &[Line], key: (&str, usize)| lines.iter().find(|l| l.key() == key).cloned();
        let mut result = Vec::new();
        for line in &self.live {
            let merged = match (find(&self.old, line.key()), find(&self.new, line.key())) {
                (Some(old), Some(new)) => merge_line(&old, line, &new, members),
                // Made by both sides: ours, with the members of both.
                (None, Some(new)) => match members {
                    Some(index) => merge_line(&without_members(&new, index), line, &new, members),
                    None => line.clone(),
                },
                (_, None) => line.clone(),
            };
            result.push(merged);
        }
        for line in &self.new {
            // In the old tree and not here: deleted by the operator.
            if find(&self.live, line.key()).is_none() && find(&self.old, line.key()).is_none() {
                result.push(Line { added: true, ..line.clone() });
            }
        }
        result
    }
}

fn without_members(line: &Line, index: usize) -> Line {
    let mut line = line.clone();
    if let Some(field) = line.fields.get_mut(index) {
        field.clear();
    }
    line
}

fn merge_line(old: &Line, live: &Line, new: &Line, members: Option<usize>) -> Line {
    if live.fields.len() != new.fields.len() || old.fields.len() != new.fields.len() {
        return if live.fields == old.fields { new.clone() } else { live.clone() };
    }
    let mut merged = live.clone();
    for (index, field) in merged.fields.iter_mut().enumerate() {
        let (o, n) = (&old.fields[index], &new.fields[index]);
        if Some(index) == members {
            *field = merge_members(o, field, n);
        } else if field == o {
            field.clone_from(n);
        }
    }
    merged
}

fn merge_members(old: &str, live: &str, new: &str) -> String {
    let set = |text: &str| text.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect::<BTreeSet<_>>();
    let (o, n) = (set(old), set(new));
    let here = set(live);
    let mut result: Vec<&str> =
        live.split(',').filter(|m| !m.is_empty() && (n.contains(*m) || !o.contains(*m))).collect();
    result.extend(new.split(',').filter(|m| !m.is_empty() && !o.contains(*m) && !here.contains(*m)));
    result.join(",")
}

/// A number that the new tree gives to a new account may be taken on this machine. The old owner keeps it, the new
/// account gets a free one. Returns old number → new number.
fn renumber(lines: &mut [Line], what: &str, notes: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut moved = BTreeMap::new();
    let mut used: BTreeSet<String> =
        lines.iter().filter(|l| !l.added).filter_map(|l| l.fields.get(2).cloned()).collect();
    let wanted: BTreeSet<String> = lines.iter().filter(|l| l.added).filter_map(|l| l.fields.get(2).cloned()).collect();
    for line in lines.iter_mut().filter(|l| l.added) {
        let name = line.key().0.to_owned();
        let Some(number) = line.fields.get_mut(2) else { continue };
        if used.insert(number.clone()) {
            continue;
        }
        let free = (100..1000).rev().map(|n| n.to_string()).find(|n| !used.contains(n) && !wanted.contains(n));
        let Some(free) = free else {
            notes.push(format!("{what} {name} of the new tree shares the number {number} with a local one"));
            continue;
        };
        notes.push(format!("{what} {name} of the new tree wants number {number}, which is taken here: it got {free}"));
        used.insert(free.clone());
        moved.insert(std::mem::replace(number, free.clone()), free);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(pairs: &[(&str, &str)]) -> Family {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_local_user_and_a_new_system_user_both_exist() {
        let old = family(&[("passwd", "root:x:0:0::/root:/bin/sh\n"), ("group", "root:x:0:\nsudo:x:27:\n")]);
        let live = family(&[
            ("passwd", "root:x:0:0::/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/bash\n"),
            ("group", "root:x:0:\nsudo:x:27:anna\nanna:x:1000:\n"),
        ]);
        let new = family(&[
            ("passwd", "root:x:0:0:root:/root:/bin/sh\n_chrony:x:990:990::/:/x\n"),
            ("group", "root:x:0:\nsudo:x:27:\n_chrony:x:990:\n"),
        ]);
        let (merged, notes) = merge_accounts(&old, &live, &new);
        assert_eq!(
            merged["passwd"],
            "root:x:0:0:root:/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/bash\n_chrony:x:990:990::/:/x\n"
        );
        assert_eq!(merged["group"], "root:x:0:\nsudo:x:27:anna\nanna:x:1000:\n_chrony:x:990:\n");
        assert!(notes.is_empty() && !merged.contains_key("shadow"));
    }

    #[test]
    fn a_taken_number_is_given_to_neither_side_twice() {
        let old = family(&[("passwd", ""), ("group", "")]);
        let live = family(&[("passwd", "local:x:990:990::/:/x\n"), ("group", "local:x:990:\n")]);
        let new =
            family(&[("passwd", "sys:x:990:990::/:/x\nb:x:999:999::/:/x\n"), ("group", "sys:x:990:\nb:x:999:\n")]);
        let (merged, notes) = merge_accounts(&old, &live, &new);
        assert_eq!(merged["passwd"], "local:x:990:990::/:/x\nsys:x:998:998::/:/x\nb:x:999:999::/:/x\n");
        assert_eq!(merged["group"], "local:x:990:\nsys:x:998:\nb:x:999:\n");
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn passwords_stay_and_deleted_accounts_stay_deleted() {
        let old = family(&[("shadow", "root:*:1::::::\ngames:*:1::::::\n")]);
        let live = family(&[("shadow", "root:$6$x:2::::::\n")]);
        let new = family(&[("shadow", "root:*:1::::::\ngames:*:1::::::\nnews:*:1::::::\n")]);
        assert_eq!(merge_accounts(&old, &live, &new).0["shadow"], "root:$6$x:2::::::\nnews:*:1::::::\n");
    }

    #[test]
    fn members_are_a_set() {
        assert_eq!(merge_members("a,b", "a,c", "a,b,d"), "a,c,d");
        assert_eq!(merge_members("a", "a", ""), "");
        assert_eq!(merge_members("", "", "x"), "x");
    }

    #[test]
    fn several_ranges_of_one_user_stay_apart() {
        let old = family(&[("subuid", "u:100000:65536\n")]);
        let live = family(&[("subuid", "u:100000:65536\nu:300000:65536\n")]);
        let new = family(&[("subuid", "u:100000:65536\nv:500000:65536\n")]);
        assert_eq!(merge_accounts(&old, &live, &new).0["subuid"], "u:100000:65536\nu:300000:65536\nv:500000:65536\n");
    }
}
