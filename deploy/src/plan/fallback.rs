//! What a failed boot of the main system does: reboot while that helps, else stay up for a person.

use bootloader::{BootVariables, EntryName, Found};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Another try, or another entry, may do better.
    Reboot,
    /// Nothing better is there.
    Stay,
}

/// Decides from what the loader reported and, where the ESP can be read, its entries.
///
/// An entry without a counter boots again and again whatever happens, so a reboot would change nothing. On the last
/// try the name is already `+0-3`: then only another entry that is not out of tries is a reason.
pub fn fallback(boot: &BootVariables, entries: Option<&[Found]>) -> Fallback {
    let Some(booted) = boot.counted.as_deref().and_then(EntryName::parse) else { return Fallback::Stay };
    let Some(counter) = booted.counter else { return Fallback::Stay };
    let better = |f: &Found| f.name.as_ref().is_none_or(|n| n.id() != booted.id() && !n.exhausted());
    if counter.left > 0 || entries.is_some_and(|all| all.iter().any(better)) {
        Fallback::Reboot
    } else {
        Fallback::Stay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootloader::Entry;

    fn name(file: &str) -> String {
        format!("slipway-slipway-{file}.conf")
    }

    fn found(file: &str) -> Found {
        let file = name(file);
        let entry = Entry::parse("linux /a\n").unwrap();
        Found { name: EntryName::parse(&file), file, entry }
    }

    #[test]
    fn reboots_only_where_it_helps() {
        use Fallback::{Reboot, Stay};
        const A: &str = "aaaaaaaaaaaa.0";
        const B: &str = "bbbbbbbbbbbb.0";
        let a = |counter: &str| format!("{A}{counter}");
        let b = |counter: &str| format!("{B}{counter}");
        for (booted, entries, want) in [
            // Tries left.
            (Some(a("+2-1")), Some(vec![a("+2-1")]), Reboot),
            (Some(a("+2-1")), None, Reboot),
            // The last try, and another entry that is not out of tries.
            (Some(a("+0-3")), Some(vec![b(""), a("+0-3")]), Reboot),
            (Some(a("+0-3")), Some(vec![b("+1-2"), a("+0-3")]), Reboot),
            // The last try, and nothing better: a lone bad system must not reset for ever.
            (Some(a("+0-3")), Some(vec![a("+0-3")]), Stay),
            (Some(a("+0-4")), Some(vec![b("+0-3"), a("+0-4")]), Stay),
            (Some(a("+0-3")), None, Stay),
            // Blessed: it would boot again.
            (None, Some(vec![a(""), b("")]), Stay),
        ] {
            let boot = BootVariables { counted: booted.as_deref().map(name), selected: None };
            let entries: Option<Vec<Found>> = entries.map(|all| all.iter().map(|f| found(f)).collect());
            assert_eq!(fallback(&boot, entries.as_deref()), want, "{boot:?} {entries:?}");
        }
    }
}
