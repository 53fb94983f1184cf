//! Sizes as the stock tool prints them.

/// `1 byte`, `999 bytes`, `1.2 kB`: powers of 1000, one digit, and before them a space that no line breaks at.
pub fn format(bytes: u64) -> String {
    match bytes {
        1 => return "1 byte".to_owned(),
        0..1000 => return format!("{bytes} bytes"),
        _ => {}
    }
    let mut size = bytes as f64 / 1000.0;
    for unit in ["kB", "MB", "GB", "TB", "PB"] {
        if size < 1000.0 {
            return format!("{size:.1}\u{a0}{unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.1}\u{a0}EB")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_one_digit_and_a_unit() {
        let cases = [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (61_940_000, "61.9 MB")];
        for (bytes, text) in cases {
            assert_eq!(super::format(bytes).replace('\u{a0}', " "), text);
        }
    }
}
