//! "Did you mean": names at a small edit distance.

/// The candidates nearest to `name`, at most three, best first. Empty when nothing is near enough to be worth saying.
pub fn misses<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted: Vec<char> = name.chars().collect();
    let limit = (wanted.len() / 3).clamp(1, 3);
    let mut found: Vec<(usize, &str)> = Vec::new();
    for candidate in candidates {
        if candidate.len().abs_diff(name.len()) > limit + 3 {
            continue;
        }
        let distance = distance(&wanted, &candidate.chars().collect::<Vec<_>>());
        if distance <= limit {
            found.push((distance, candidate));
        } else if name.len() >= 4
            && (candidate.starts_with(name) || name.starts_with(candidate) && candidate.len() >= 4)
        {
            found.push((limit + 1, candidate));
        }
    }
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(3).map(|(_, c)| c.to_owned()).collect()
}

/// `; did you mean A, B or C?`, or nothing.
pub fn suggestion(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean `{one}`?"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|h| format!("`{h}`")).collect();
            format!("; did you mean {} or `{last}`?", head.join(", "))
        }
    }
}

/// Edit distance that counts a swap of two neighbours as one edit, as typing errors do.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (above[j - 1] + same).min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_ordered_and_few() {
        let names = ["packages", "package", "postprocess", "ref", "podman", "podman-docker", "systemd-boot"];
        assert_eq!(misses("pacakges", names), ["packages", "package"]);
        assert_eq!(misses("podmn", names), ["podman"]);
        assert_eq!(misses("zebra", names), Vec::<String>::new());
        assert_eq!(misses("systemd-bot", names), ["systemd-boot"]);
    }

    #[test]
    fn suggestions_read_as_a_sentence() {
        assert_eq!(suggestion(&[]), "");
        assert_eq!(suggestion(&["a".into()]), "; did you mean `a`?");
        assert_eq!(suggestion(&["a".into(), "b".into(), "c".into()]), "; did you mean `a`, `b` or `c`?");
    }
}
