//! Version numbers that count by themselves.

/// Why a prefix makes no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VersionError(String);

/// The version after `last`, for `automatic-version-prefix` and `automatic-version-suffix`.
///
/// | prefix | versions in a row |
/// |---|---|
/// | `22` | 22, 22.1, 22.2 |
/// | `22.<date:%Y>` | 22.2019.0, 22.2019.1, then in the next year 22.2020.0 |
/// | `22.<date:%Y>.1` | 22.2019.1.0, 22.2019.1.1 |
///
/// The date is that of `time` (seconds since 1970, UTC), not of a clock: the same inputs give the same version.
pub fn next(prefix: &str, suffix: char, last: Option<&str>, time: u64) -> Result<String, VersionError> {
    let (base, dated) = substitute_date(prefix, time)?;
    let first = if dated { format!("{base}{suffix}0") } else { base.clone() };
    let Some(rest) = last.and_then(|l| l.strip_prefix(base.as_str())) else { return Ok(first) };
    if rest.is_empty() {
        return Ok(if dated { first } else { format!("{base}{suffix}1") });
    }
    let Some(count) = rest.strip_prefix(suffix) else { return Ok(first) };
    let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
    let count: u64 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| too_far(last))? };
    Ok(format!("{base}{suffix}{}", count.checked_add(1).ok_or_else(|| too_far(last))?))
}

fn too_far(last: Option<&str>) -> VersionError {
    VersionError(format!("the version after `{}` cannot be counted; give --version", last.unwrap_or_default()))
}

/// Checks a prefix without using it.
pub fn check(prefix: &str) -> Result<(), VersionError> {
    substitute_date(prefix, 0).map(|_| ())
}

fn substitute_date(prefix: &str, time: u64) -> Result<(String, bool), VersionError> {
    let Some((before, rest)) = prefix.split_once("<date:") else { return Ok((prefix.to_owned(), false)) };
    let (format, after) =
        rest.split_once('>').ok_or_else(|| VersionError(format!("`<date:` without `>` in `{prefix}`")))?;
    if after.contains("<date:") {
        return Err(VersionError(format!("two `<date:…>` in `{prefix}`; one is allowed")));
    }
    Ok((format!("{before}{}{after}", strftime(format, time)?), true))
}

/// The part of `strftime` that versions use.
fn strftime(format: &str, time: u64) -> Result<String, VersionError> {
    let (year, month, day, yearday) = civil(time / 86400);
    let (hour, minute, second) = (time / 3600 % 24, time / 60 % 60, time % 60);
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => text.push_str(&year.to_string()),
            Some('y') => text.push_str(&format!("{:02}", year % 100)),
            Some('m') => text.push_str(&format!("{month:02}")),
            Some('d') => text.push_str(&format!("{day:02}")),
            Some('j') => text.push_str(&format!("{yearday:03}")),
            Some('H') => text.push_str(&format!("{hour:02}")),
            Some('M') => text.push_str(&format!("{minute:02}")),
            Some('S') => text.push_str(&format!("{second:02}")),
            Some('F') => text.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('s') => text.push_str(&time.to_string()),
            Some('%') => text.push('%'),
            other => {
                let sign = other.map(String::from).unwrap_or_default();
                return Err(VersionError(format!(
                    "`%{sign}` in `<date:{format}>` is not one of %Y %y %m %d %j %H %M %S %F %s %%"
                )));
            }
        }
    }
    Ok(text)
}

/// Year, month, day and day of the year for a number of days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64, u64) {
    // Eras of 400 years, years beginning in March: the leap day is the last day of a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][(month - 1) as usize];
    (year, month, day, before + day + u64::from(leap && month > 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T2019: u64 = 1_546_300_800; // 2019-01-01
    const T2020: u64 = 1_583_020_800; // 2020-03-01

    #[test]
    fn versions_progress_as_documented() {
        let rows: &[(&str, Option<&str>, u64, &str)] = &[
            ("22", None, T2019, "22"),
            ("22", Some("22"), T2019, "22.1"),
            ("22", Some("22.1"), T2019, "22.2"),
            ("22", Some("22.9"), T2019, "22.10"),
            ("22", Some("21.7"), T2019, "22"),
            ("22", Some("223"), T2019, "22"),
            ("22", Some("22.1.5.2"), T2019, "22.2"),
            ("22.1", Some("22.1.5"), T2019, "22.1.6"),
            ("22", Some("22.x"), T2019, "22.1"),
            ("22.<date:%Y>", None, T2019, "22.2019.0"),
            ("22.<date:%Y>", Some("22.2019.0"), T2019, "22.2019.1"),
            ("22.<date:%Y>", Some("22.2019.1"), T2020, "22.2020.0"),
            ("22.<date:%Y>", Some("22"), T2019, "22.2019.0"),
            ("22.<date:%Y>.1", None, T2019, "22.2019.1.0"),
            ("22.<date:%Y>.1", Some("22.2019.1.0"), T2019, "22.2019.1.1"),
            ("<date:%Y%m%d>", Some("20200301.4"), T2020, "20200301.5"),
        ];
        for (prefix, last, time, wanted) in rows {
            assert_eq!(next(prefix, '.', *last, *time).as_deref(), Ok(*wanted), "{prefix} after {last:?}");
        }
        assert_eq!(next("22", '-', Some("22-3"), T2019).as_deref(), Ok("22-4"));
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(civil(0), (1970, 1, 1, 1));
        assert_eq!(civil(T2020 / 86400), (2020, 3, 1, 61));
        assert_eq!(civil(1_735_603_200 / 86400), (2024, 12, 31, 366));
        assert_eq!(strftime("%F %H:%M:%S %j %y %%", 1_709_210_096).as_deref(), Ok("2024-02-29 12:34:56 060 24 %"));
    }

    #[test]
    fn a_bad_prefix_says_why() {
        assert!(next("1.<date:%Y", '.', None, 0).unwrap_err().to_string().contains("without `>`"));
        assert!(next("1.<date:%Q>", '.', None, 0).unwrap_err().to_string().contains("%Q"));
        assert!(next("1", '.', Some("1.99999999999999999999999"), 0).is_err());
        assert!(next("1", '.', Some("1.18446744073709551615"), 0).is_err());
    }
}
