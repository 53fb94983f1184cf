//! The order in which systemd-boot offers entries; the first one boots.

use std::cmp::Ordering;

use crate::name::{Counter, split_counter};
use crate::{Entry, compare_versions};

/// What the loader looks at when it sorts.
pub trait Ranked {
    /// The file name in `loader/entries`.
    fn file_name(&self) -> &str;
    /// The content.
    fn entry(&self) -> &Entry;
}

/// Sorts entries as the loader does.
pub fn sort<T: Ranked>(entries: &mut [T]) {
    entries.sort_by(compare);
}

fn compare<T: Ranked>(a: &T, b: &T) -> Ordering {
    let (a_id, a_counter) = split_counter(a.file_name()).unwrap_or((a.file_name(), None));
    let (b_id, b_counter) = split_counter(b.file_name()).unwrap_or((b.file_name(), None));
    let bad = |c: Option<Counter>| c.is_some_and(|c| c.left == 0);
    let key = |e: &T| e.entry().get("sort-key").map(str::to_owned);
    let text = |e: &T, k: &str| e.entry().get(k).unwrap_or_default().to_owned();
    bad(a_counter)
        .cmp(&bad(b_counter))
        .then_with(|| key(a).is_none().cmp(&key(b).is_none()))
        .then_with(|| match (key(a), key(b)) {
            (Some(x), Some(y)) => x
                .cmp(&y)
                .then_with(|| text(a, "machine-id").cmp(&text(b, "machine-id")))
                .then_with(|| compare_versions(&text(a, "version"), &text(b, "version")).reverse()),
            _ => Ordering::Equal,
        })
        .then_with(|| compare_versions(a_id, b_id).reverse())
        .then_with(|| match (a_counter, b_counter) {
            (Some(x), Some(y)) => y.left.cmp(&x.left).then(x.done.cmp(&y.done)),
            _ => Ordering::Equal,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(&'static str, Entry);

    impl Ranked for Item {
        fn file_name(&self) -> &str {
            self.0
        }
        fn entry(&self) -> &Entry {
            &self.1
        }
    }

    fn item(name: &'static str, version: &str) -> Item {
        Item(name, Entry::parse(&format!("linux /a\nsort-key s\nversion {version}\n")).unwrap())
    }

    #[test]
    fn the_greatest_version_with_tries_left_boots_first() {
        let mut items = vec![
            item("a.conf", "9"),
            item("b+0-3.conf", "11"),
            item("c+2-1.conf", "10"),
            Item("zz.conf", Entry::parse("linux /a\n").unwrap()),
            item("d+0-4.conf", "8"),
            item("c+3.conf", "10"),
        ];
        sort(&mut items);
        let names: Vec<&str> = items.iter().map(|i| i.0).collect();
        assert_eq!(names, ["c+3.conf", "c+2-1.conf", "a.conf", "zz.conf", "b+0-3.conf", "d+0-4.conf"]);
    }
}
