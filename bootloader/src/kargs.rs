//! Kernel arguments: an ordered multimap that keeps what it does not understand.

use std::fmt;

/// One argument: `key` or `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Karg {
    /// The part before the first `=`.
    pub key: String,
    /// The part after it; `quiet` has none, `rd.shell=` has an empty one.
    pub value: Option<String>,
}

/// Kernel arguments in order. A key may occur more than once (`console=`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kargs(Vec<Karg>);

impl Karg {
    fn parse(word: &str) -> Karg {
        match word.split_once('=') {
            Some((key, value)) => Karg { key: key.to_owned(), value: Some(value.to_owned()) },
            None => Karg { key: word.to_owned(), value: None },
        }
    }
}

impl Kargs {
    /// Splits a command line as the kernel does: at white space outside double quotes.
    pub fn parse(line: &str) -> Kargs {
        let mut kargs = Kargs::default();
        let (mut word, mut quoted, mut started) = (String::new(), false, false);
        for c in line.chars() {
            match c {
                '"' => {
                    quoted = !quoted;
                    started = true;
                }
                c if c.is_ascii_whitespace() && !quoted => {
                    if started {
                        kargs.append_word(&std::mem::take(&mut word));
                    }
                    started = false;
                }
                c => {
                    word.push(c);
                    started = true;
                }
            }
        }
        if started {
            kargs.append_word(&word);
        }
        kargs
    }

    /// From words, each one argument (a treefile's `kargs` list).
    pub fn from_words<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Kargs {
        let mut kargs = Kargs::default();
        for word in words {
            kargs.append_word(word.as_ref());
        }
        kargs
    }

    /// Adds `key` or `key=value` at the end.
    pub fn append_word(&mut self, word: &str) {
        if !word.is_empty() {
            self.0.push(Karg::parse(word));
        }
    }

    /// Adds one argument at the end.
    pub fn append(&mut self, key: &str, value: Option<&str>) {
        self.0.push(Karg { key: key.to_owned(), value: value.map(str::to_owned) });
    }

    /// The last value of `key`, which is the one that most readers take.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|k| k.key == key).and_then(|k| k.value.as_deref())
    }

    /// All values of `key`, in order.
    pub fn get_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Option<&'a str>> {
        self.0.iter().filter(move |k| k.key == key).map(|k| k.value.as_deref())
    }

    /// Replaces every `key` by one at the place of the first, or appends it.
    pub fn set(&mut self, key: &str, value: Option<&str>) {
        let new = Karg { key: key.to_owned(), value: value.map(str::to_owned) };
        match self.0.iter().position(|k| k.key == key) {
            Some(first) => {
                self.0[first] = new;
                let mut index = 0;
                self.0.retain(|k| {
                    index += 1;
                    index - 1 <= first || k.key != key
                });
            }
            None => self.0.push(new),
        }
    }

    /// Removes every argument with `key`; with a value only those that have it. Says how many went.
    pub fn remove(&mut self, key: &str, value: Option<&str>) -> usize {
        let before = self.0.len();
        self.0.retain(|k| k.key != key || (value.is_some() && k.value.as_deref() != value));
        before - self.0.len()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Karg> {
        self.0.iter()
    }

    /// As words, without quotes.
    pub fn words(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|k| match &k.value {
                Some(value) => format!("{}={value}", k.key),
                None => k.key.clone(),
            })
            .collect()
    }
}

impl fmt::Display for Karg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |s: &str| s.is_empty() || s.contains(|c: char| c.is_ascii_whitespace());
        match &self.value {
            // The kernel takes quotes around a value away, and quotes around the whole argument.
            Some(value) if self.key.contains(|c: char| c.is_ascii_whitespace()) => {
                write!(f, "\"{}={value}\"", self.key)
            }
            Some(value) if !value.is_empty() && quote(value) => write!(f, "{}=\"{value}\"", self.key),
            Some(value) => write!(f, "{}={value}", self.key),
            None if quote(&self.key) => write!(f, "\"{}\"", self.key),
            None => f.write_str(&self.key),
        }
    }
}

impl fmt::Display for Kargs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, karg) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{karg}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_and_renders() {
        for (line, again) in [
            ("", ""),
            ("  a   b=c ", "a b=c"),
            ("console=tty0 console=ttyS0,115200", "console=tty0 console=ttyS0,115200"),
            ("dyndbg=\"file ec.c +p\" quiet", "dyndbg=\"file ec.c +p\" quiet"),
            ("\"dyndbg=file ec.c +p\"", "dyndbg=\"file ec.c +p\""),
            ("\"odd key=file ec.c\" x", "\"odd key=file ec.c\" x"),
            ("\" =", "\" =\""),
            ("root= x", "root= x"),
            ("a=b=c", "a=b=c"),
            ("unclosed=\"a b", "unclosed=\"a b\""),
        ] {
            assert_eq!(Kargs::parse(line).to_string(), again, "{line:?}");
        }
    }

    #[test]
    fn edits_keep_order() {
        let mut kargs = Kargs::parse("console=tty0 quiet console=ttyS0 panic=10");
        kargs.set("console", Some("hvc0"));
        assert_eq!(kargs.to_string(), "console=hvc0 quiet panic=10");
        kargs.set("x", None);
        assert_eq!(kargs.remove("panic", Some("11")), 0);
        assert_eq!(kargs.remove("panic", None), 1);
        assert_eq!(kargs.to_string(), "console=hvc0 quiet x");
        assert_eq!(kargs.get("console"), Some("hvc0"));
        assert_eq!(Kargs::parse("a=1 a=2 a").get_all("a").collect::<Vec<_>>(), [Some("1"), Some("2"), None]);
    }

    proptest! {
        #[test]
        fn rendering_is_stable(line in "[ -~]{0,60}") {
            let once = Kargs::parse(&line);
            let text = once.to_string();
            prop_assert_eq!(Kargs::parse(&text).to_string(), text);
        }
    }
}
