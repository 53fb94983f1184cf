//! Dates of Release files: `Sat, 12 Sep 2026 07:55:41 UTC`.

/// Seconds since 1970. None for anything that is not such a date, or lies before 1970.
pub fn parse(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [day, month, year, time, zone] = words.as_slice() else { return None };
    if !matches!(*zone, "UTC" | "GMT" | "Z" | "+0000") {
        return None;
    }
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month))? as u64 + 1;
    let clock: Vec<u64> = time.split(':').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    let sane = (1970..10_000).contains(&year) && (1..=31).contains(&day) && *hour < 24 && *minute < 60 && *second < 61;
    sane.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years begin in March, so that the leap day is the last of its year.
    let year = year - u64::from(month <= 2);
    let shifted = (month + 9) % 12;
    year * 365 + year / 4 - year / 100 + year / 400 + (153 * shifted + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_of_release_files() {
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse("Sat, 12 Sep 2026 07:55:41 UTC"), Some(1_789_199_741));
        assert_eq!(parse("Thu, 29 Feb 2024 12:34:56 UTC"), Some(1_709_210_096));
        assert_eq!(parse("12 Sep 2026 07:55:41 +0000"), Some(1_789_199_741));
        assert_eq!(parse("Sat, 12 Sep 2026 07:55:41 +0200"), None);
        assert_eq!(parse("yesterday"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z0-9:, +]{0,40}") {
            let _ = parse(&text);
        }
    }
}
