//! Control stanzas, relations between packages, and the order of versions (deb-control(5), deb-version(7)).

use std::cmp::Ordering;

/// One stanza: fields in their order. A value keeps its continuation lines, each after a line break and with its
/// leading space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza(pub Vec<(String, String)>);

/// The text is not a stanza.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ControlError {
    /// A line is no field.
    #[error("line {0} of the control file is no field")]
    Line(usize),
    /// A field that must be there is missing, or holds what it may not.
    #[error("the control file has no valid field {0}")]
    Field(&'static str),
}

impl Stanza {
    /// Parses one stanza.
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for (number, line) in text.trim_end().lines().enumerate() {
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut().ok_or(ControlError::Line(number + 1))?;
                value.push('\n');
                value.push_str(line.trim_end());
                continue;
            }
            let (key, value) = line.split_once(':').ok_or(ControlError::Line(number + 1))?;
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(ControlError::Line(number + 1));
            }
            fields.push((key.to_owned(), value.trim().to_owned()));
        }
        Ok(Stanza(fields))
    }

    /// The value of a field; case does not count.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.as_str())
    }

    /// Sets a field, in its place where it is there already.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        match self.0.iter_mut().find(|(k, _)| k.eq_ignore_ascii_case(key)) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((key.to_owned(), value.into())),
        }
    }

    /// The text of the stanza, without the empty line that ends it.
    pub fn render(&self) -> String {
        self.0
            .iter()
            .map(|(key, value)| match value.strip_prefix('\n') {
                Some(_) => format!("{key}:{value}\n"),
                None => format!("{key}: {value}\n"),
            })
            .collect()
    }
}

/// What a `.deb` says about itself, checked.
#[derive(Clone, Debug)]
pub struct Control {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture.
    pub arch: String,
    /// `Multi-Arch: same`: info files carry the architecture in their names.
    pub multi_arch_same: bool,
    /// `Essential: yes`.
    pub essential: bool,
    /// `Pre-Depends`.
    pub pre_depends: Vec<Vec<Relation>>,
    /// `Depends`.
    pub depends: Vec<Vec<Relation>>,
    /// `Provides`.
    pub provides: Vec<Vec<Relation>>,
    /// `Replaces`.
    pub replaces: Vec<Vec<Relation>>,
    /// Everything.
    pub stanza: Stanza,
}

impl Control {
    /// Parses the control file of a package.
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        let stanza = Stanza::parse(text)?;
        let need = |key: &'static str, good: fn(&str) -> bool| match stanza.get(key) {
            Some(value) if !value.is_empty() && good(value) => Ok(value.to_owned()),
            _ => Err(ControlError::Field(key)),
        };
        // These become parts of paths.
        let word = |s: &str| {
            s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b)) && !s.starts_with(['.', '-', '_'])
        };
        let version = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.:~".contains(&b));
        let yes = |key| stanza.get(key).is_some_and(|v| v.eq_ignore_ascii_case("yes"));
        let list = |key| stanza.get(key).map(relations).unwrap_or_default();
        Ok(Control {
            name: need("Package", word)?,
            version: need("Version", version)?,
            arch: need("Architecture", word)?,
            multi_arch_same: stanza.get("Multi-Arch") == Some("same"),
            essential: yes("Essential"),
            pre_depends: list("Pre-Depends"),
            depends: list("Depends"),
            provides: list("Provides"),
            replaces: list("Replaces"),
            stanza,
        })
    }

    /// The name under which dpkg keeps its records: `name`, or `name:arch` for `Multi-Arch: same`.
    pub fn record(&self) -> String {
        if self.multi_arch_same { format!("{}:{}", self.name, self.arch) } else { self.name.clone() }
    }

    /// Whether one of these relations (`Replaces`) names this package.
    pub fn matched_by(&self, relations: &[Vec<Relation>]) -> bool {
        relations.iter().flatten().any(|relation| {
            let named = relation.name == self.name && relation.allows(&self.version);
            // A virtual package cannot be named with a version.
            named || relation.version.is_none() && self.provides.iter().flatten().any(|p| p.name == relation.name)
        })
    }
}

/// `name:arch (op version)`, one alternative of a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Name of the package.
    pub name: String,
    /// Operator and version.
    pub version: Option<(String, String)>,
}

impl Relation {
    /// Whether `version` is one the relation asks for.
    pub fn allows(&self, version: &str) -> bool {
        let Some((operator, wanted)) = &self.version else { return true };
        let order = compare(version, wanted);
        match operator.as_str() {
            "<<" => order == Ordering::Less,
            // dpkg reads the old forms `<` and `>` so.
            "<=" | "<" => order != Ordering::Greater,
            ">=" | ">" => order != Ordering::Less,
            ">>" => order == Ordering::Greater,
            _ => order == Ordering::Equal,
        }
    }
}

/// Parses a list of dependencies: all of the outer, any of the inner. What makes no sense is left out: apt and dpkg have
/// judged these fields before.
pub fn relations(text: &str) -> Vec<Vec<Relation>> {
    let groups = text.split(',').map(|group| group.split('|').filter_map(relation).collect::<Vec<_>>());
    groups.filter(|group| !group.is_empty()).collect()
}

fn relation(text: &str) -> Option<Relation> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_whitespace() || "([<".contains(c)).unwrap_or(text.len());
    let name = text[..end].split(':').next().filter(|n| !n.is_empty())?;
    let version = text[end..].trim_start().strip_prefix('(').and_then(|rest| rest.split(')').next()).map(|inside| {
        let inside = inside.trim();
        let split = inside.find(|c| !"<>=".contains(c)).unwrap_or(inside.len());
        (inside[..split].to_owned(), inside[split..].trim().to_owned())
    });
    Some(Relation { name: name.to_owned(), version })
}

/// Compares two versions as dpkg does.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    a.0.cmp(&b.0).then_with(|| verrevcmp(a.1, b.1)).then_with(|| verrevcmp(a.2, b.2))
}

fn parts(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// `~` sorts before the end, letters before everything else.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None | Some(b'0'..=b'9') => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(b),
        Some(b) => i32::from(b) + 256,
    }
}

fn verrevcmp(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        while a.first().is_some_and(|c| !c.is_ascii_digit()) || b.first().is_some_and(|c| !c.is_ascii_digit()) {
            let order = weight(a.first().copied()).cmp(&weight(b.first().copied()));
            if order != Ordering::Equal {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (x, y) = (digits(&mut a), digits(&mut b));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the number at the front, without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    &number[number.iter().position(|b| *b != b'0').unwrap_or(number.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_sort_as_dpkg_sorts_them() {
        let ascending = [
            "1.0~rc1",
            "1.0~rc1-1",
            "1.0",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb13u1",
            "1.0a",
            "1.0+a",
            "1.2",
            "1.10",
            "1:0.1",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("1.00-0", "1.0-0"), Ordering::Equal);
        assert_eq!(compare("0:1", "1"), Ordering::Equal);
    }

    #[test]
    fn relations_with_everything() {
        let list = relations("libc6 (>= 2.36), awk, a:any (<< 2~) | b [amd64] <!nocheck>,");
        assert_eq!(list.len(), 3);
        assert_eq!(list[0][0].version, Some((">=".into(), "2.36".into())));
        assert_eq!(list[2].iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(list[2][0].allows("1.9") && !list[2][0].allows("2"));
    }

    #[test]
    fn a_stanza_keeps_its_continuation_lines() {
        let text = "Package: x\nDescription: short\n long\n .\n more\nConffiles:\n /etc/x newconffile\n";
        let stanza = Stanza::parse(text).unwrap();
        assert_eq!(stanza.get("description"), Some("short\n long\n .\n more"));
        assert_eq!(stanza.render(), text);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let text = "Package: ../../etc/x\nVersion: 1\nArchitecture: all\n";
        assert_eq!(Control::parse(text).unwrap_err(), ControlError::Field("Package"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*|[a-z:(<>=|, \n]{0,80}") {
            let _ = Control::parse(&text);
            let _ = relations(&text);
        }

        #[test]
        fn the_order_of_versions_is_antisymmetric(a in "[0-9a-z.~+:-]{0,12}", b in "[0-9a-z.~+:-]{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }
}
