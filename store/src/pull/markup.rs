//! As much of XML as a metalink needs: elements, attributes, text, the five named entities, characters by number.
//!
//! Comments, instructions, `CDATA` and document types are passed over. An entity of the file's own making is refused, so
//! nothing can expand; depth and attributes are bounded.

const MAX_DEPTH: usize = 32;
const MAX_ATTRIBUTES: usize = 32;

/// What stands in a file of markup.
pub(super) enum Event<'a> {
    /// An element begins, with these attributes; it is the last of those that are open.
    Start(Vec<(&'a str, String)>),
    /// Text, perhaps a piece of it.
    Text(String),
    /// The element of this name has ended, and is open no more.
    End(&'a str),
}

/// A reader of markup. Its errors say what is wrong.
pub(super) struct Markup<'a> {
    rest: &'a str,
    open: Vec<&'a str>,
    /// Whether the innermost element was empty and ends here.
    ends: bool,
}

impl<'a> Markup<'a> {
    pub fn new(text: &'a str) -> Markup<'a> {
        Markup { rest: text.trim_start_matches('\u{feff}'), open: Vec::new(), ends: false }
    }

    /// The names of the elements that are open, the outermost first.
    pub fn open(&self) -> &[&'a str] {
        &self.open
    }

    /// What comes next; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Event<'a>>, String> {
        if std::mem::take(&mut self.ends) {
            return Ok(self.open.pop().map(Event::End));
        }
        while self.rest.starts_with('<') {
            let rest = self.rest;
            self.rest = if rest.starts_with("<!--") {
                after(rest, "-->")?
            } else if rest.starts_with("<?") {
                after(rest, "?>")?
            } else if rest.starts_with("<![CDATA[") {
                after(rest, "]]>")?
            } else if rest.starts_with("<!") {
                declaration(rest)?
            } else if let Some(rest) = rest.strip_prefix("</") {
                return self.end(rest).map(Some);
            } else {
                return self.start(&rest[1..]).map(Some);
            };
        }
        let (text, rest) = self.rest.split_at(self.rest.find('<').unwrap_or(self.rest.len()));
        self.rest = rest;
        match self.open.last() {
            _ if !text.is_empty() => unescape(text).map(|text| Some(Event::Text(text))),
            Some(name) => Err(format!("the element {name:?} has no end")),
            None => Ok(None),
        }
    }

    fn end(&mut self, rest: &'a str) -> Result<Event<'a>, String> {
        let (name, rest) = rest.split_once('>').ok_or_else(cut_short)?;
        let name = name.trim_end();
        if self.open.pop() != Some(name) {
            return Err(format!("the end of {name:?} stands where another element is open"));
        }
        self.rest = rest;
        Ok(Event::End(name))
    }

    fn start(&mut self, rest: &'a str) -> Result<Event<'a>, String> {
        let (name, mut rest) = rest.split_at(name_length(rest)?);
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_start();
            if let Some(rest) = rest.strip_prefix("/>") {
                (self.rest, self.ends) = (rest, true);
                break;
            }
            if let Some(rest) = rest.strip_prefix('>') {
                self.rest = rest;
                break;
            }
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(format!("an element has more than {MAX_ATTRIBUTES} attributes"));
            }
            let (key, value) = rest.split_at(name_length(rest)?);
            let value = value.trim_start().strip_prefix('=').map(str::trim_start);
            let value = value.ok_or_else(|| format!("the attribute {key:?} has no value"))?;
            let quote = value.chars().next().filter(|quote| ['"', '\''].contains(quote));
            let quote = quote.ok_or_else(|| format!("the value of the attribute {key:?} has no quotes"))?;
            let (value, after) = value[1..].split_once(quote).ok_or_else(cut_short)?;
            attributes.push((key, unescape(value)?));
            rest = after;
        }
        if self.open.len() == MAX_DEPTH {
            return Err(format!("its elements are more than {MAX_DEPTH} deep"));
        }
        self.open.push(name);
        Ok(Event::Start(attributes))
    }
}

fn cut_short() -> String {
    "it ends in the middle".to_owned()
}

/// What follows the first `end`.
fn after<'a>(text: &'a str, end: &str) -> Result<&'a str, String> {
    text.split_once(end).map(|(_, rest)| rest).ok_or_else(cut_short)
}

/// What follows `<!…>`, in which other such things may stand.
fn declaration(text: &str) -> Result<&str, String> {
    let mut depth = 0usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return Ok(&text[at + 1..]);
        }
    }
    Err(cut_short())
}

fn name_length(text: &str) -> Result<usize, String> {
    let end = text.find(|letter: char| letter.is_whitespace() || "<>/='\"&".contains(letter)).unwrap_or(text.len());
    if end == 0 { Err("a name is missing".to_owned()) } else { Ok(end) }
}

/// Puts in the characters that entities stand for.
fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut pieces = text.split('&');
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (entity, rest) = piece.split_once(';').ok_or("an & begins no entity")?;
        let number = |digits: &str, radix: u32| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        let letter = match entity {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => match (entity.strip_prefix("#x"), entity.strip_prefix('#')) {
                (Some(digits), _) => number(digits, 16),
                (None, Some(digits)) => number(digits, 10),
                (None, None) => None,
            },
        };
        let letter = letter.filter(|letter| *letter != '\0');
        plain.push(letter.ok_or_else(|| format!("the entity &{entity}; is not known"))?);
        plain.push_str(rest);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_and_numbers_are_characters() {
        assert_eq!(unescape("a&lt;&gt;&amp;&quot;&apos;&#65;&#x42;b").unwrap(), "a<>&\"'ABb");
        for bad in ["&", "&x;", "&;", "&#;", "&#0;", "&#xd800;", "&#x110000;", "&#-1;"] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_an_element_is_passed_over_and_empty_elements_end() {
        let text = "<?x?><!DOCTYPE a [<!ENTITY b 'c'>]><a b=\"1>\" c = '2'><!-- <z> --><d/>x<![CDATA[<y>]]>&lt;</a >";
        let mut markup = Markup::new(text);
        let mut seen = String::new();
        while let Some(event) = markup.next().unwrap() {
            seen.push_str(&match event {
                Event::Start(attributes) => format!("({}{attributes:?}", markup.open().join("/")),
                Event::Text(text) => text,
                Event::End(name) => format!("){name} "),
            });
        }
        assert_eq!(seen, "(a[(\"b\", \"1>\"), (\"c\", \"2\")](a/d[])d x<)a ");
    }
}
