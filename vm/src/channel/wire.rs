//! The bytes on the three ports: control lines from the guest, and the framed output of one request.
//!
//! ```text
//! control, to the guest    attach SESSION
//!                          run SESSION ID SIZE ⏎ escaped script ⏎ SIZE bytes of base64 (its last byte a new line)
//!                          kill SESSION
//! control, from the guest  hello 1 BOOT_ID SESSION
//!                          done ID CODE
//!                          refused ID why
//! stdout, stderr           ␞SESSION.ID+␞  raw bytes  ␞SESSION.ID-␞
//! ```
//! SESSION is 128 random bits, so neither a command's output nor anything left over from an earlier boot can look like a
//! frame of this request: what stands before the opening mark is dropped.

/// The longest control line that is kept.
const MAX_LINE: usize = 4096;

/// What the guest says on the control port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The guest's half is up. `session` is `-` until somebody has attached.
    Hello { boot: String, session: String },
    /// A request ended.
    Done { id: u64, code: i32 },
    /// A request was not run.
    Refused { id: u64, why: String },
}

impl Message {
    /// Understands one line; anything else (the rest of a frame that a reboot cut off) is `None`.
    pub fn parse(line: &[u8]) -> Option<Message> {
        let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
        let (verb, rest) = line.split_once(' ')?;
        match verb {
            "hello" => {
                let mut words = rest.split(' ');
                let (version, boot, session) = (words.next()?, words.next()?, words.next()?);
                let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                (version == "1" && words.next().is_none() && plain(boot) && plain(session))
                    .then(|| Message::Hello { boot: boot.to_owned(), session: session.to_owned() })
            }
            "done" => {
                let (id, code) = rest.split_once(' ')?;
                Some(Message::Done { id: id.parse().ok()?, code: code.parse::<u8>().ok()?.into() })
            }
            "refused" => {
                let (id, why) = rest.split_once(' ')?;
                Some(Message::Refused { id: id.parse().ok()?, why: why.to_owned() })
            }
            _ => None,
        }
    }
}

/// Cuts the control port's bytes into lines, however they arrive.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    overlong: bool,
}

impl Lines {
    /// Takes the next bytes and returns the messages that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                if !self.overlong {
                    messages.extend(Message::parse(&self.line));
                }
                self.line.clear();
                self.overlong = false;
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            } else {
                self.overlong = true;
            }
        }
        messages
    }
}

/// Takes one request's bytes out of an output port.
#[derive(Debug)]
pub struct Frame {
    open: Vec<u8>,
    close: Vec<u8>,
    state: State,
    /// Bytes that may be the beginning of the mark that is looked for.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Before,
    Inside,
    After,
}

impl Frame {
    /// Waits for the output of request `id` of `session`.
    pub fn new(session: &str, id: u64) -> Frame {
        Frame {
            open: format!("\x1e{session}.{id}+\x1e").into_bytes(),
            close: format!("\x1e{session}.{id}-\x1e").into_bytes(),
            state: State::Before,
            held: Vec::new(),
        }
    }

    /// Whether the closing mark has been seen.
    pub fn ended(&self) -> bool {
        self.state == State::After
    }

    /// Takes the next bytes from the port and returns those that the request wrote.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut written = Vec::new();
        self.held.extend_from_slice(bytes);
        loop {
            let mark = match self.state {
                State::Before => &self.open,
                State::Inside => &self.close,
                State::After => {
                    self.held.clear();
                    return written;
                }
            };
            let inside = self.state == State::Inside;
            match find(&self.held, mark) {
                Some(at) => {
                    if inside {
                        written.extend_from_slice(&self.held[..at]);
                    }
                    self.held.drain(..at + mark.len());
                    self.state = if inside { State::After } else { State::Inside };
                }
                None => {
                    let keep = tail_that_may_grow_into(&self.held, mark);
                    let out = self.held.len() - keep;
                    if inside {
                        written.extend_from_slice(&self.held[..out]);
                    }
                    self.held.drain(..out);
                    return written;
                }
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // The first byte of a mark is a control character that is rare in output: look for it, then compare.
    let mut from = 0;
    while let Some(offset) = haystack[from..].iter().position(|b| *b == needle[0]) {
        let at = from + offset;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// How many bytes at the end of `bytes` are a beginning of `mark`.
fn tail_that_may_grow_into(bytes: &[u8], mark: &[u8]) -> usize {
    let longest = mark.len().saturating_sub(1).min(bytes.len());
    (1..=longest).rev().find(|n| bytes.ends_with(&mark[..*n])).unwrap_or(0)
}

/// Writes a script as one line of printable ASCII that bash's `printf %b` turns back into the same bytes.
/// A zero byte has no such form (no shell variable can hold one).
pub fn escape(script: &str) -> Option<String> {
    let mut line = String::with_capacity(script.len() + 16);
    for byte in script.bytes() {
        match byte {
            0 => return None,
            b'\\' => line.push_str("\\\\"),
            b'\n' => line.push_str("\\n"),
            b' '..=b'~' => line.push(byte as char),
            _ => line.push_str(&format!("\\x{byte:02x}")),
        }
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn messages() {
        for (line, expected) in [
            ("hello 1 ab-cd -", Some(Message::Hello { boot: "ab-cd".into(), session: "-".into() })),
            ("done 7 143", Some(Message::Done { id: 7, code: 143 })),
            ("refused 7 bad luck", Some(Message::Refused { id: 7, why: "bad luck".into() })),
            ("hello 2 ab cd", None),
            ("hello 1 ab", None),
            ("hello 1 ab cd ef", None),
            ("hello 1 ../x cd", None),
            ("done 7 300", None),
            ("done -1 0", None),
            ("done", None),
            ("", None),
        ] {
            assert_eq!(Message::parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_line_cut_off_by_a_reboot_does_not_hide_the_hello() {
        let messages = Lines::default().feed(b"done 3\nhello 1 ab -\n");
        assert_eq!(messages, [Message::Hello { boot: "ab".into(), session: "-".into() }]);
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let mut lines = Lines::default();
        for _ in 0..1000 {
            assert!(lines.feed(&[b'x'; 1000]).is_empty());
        }
        assert!(lines.line.len() <= MAX_LINE);
        assert_eq!(lines.feed(b"\ndone 1 0\n"), [Message::Done { id: 1, code: 0 }]);
    }

    #[test]
    fn another_requests_marks_are_data() {
        let mut frame = Frame::new(SESSION, 2);
        let text =
            format!("old\x1e{SESSION}.1+\x1eold\x1e{SESSION}.2+\x1enew\x1e{SESSION}.1-\x1e\x1e{SESSION}.2-\x1elate");
        assert_eq!(frame.feed(text.as_bytes()), format!("new\x1e{SESSION}.1-\x1e").as_bytes());
        assert!(frame.ended());
    }

    #[test]
    fn bash_turns_an_escaped_script_back() {
        let script = "a\tb\\n \\x41 'quoted' \"$HOME\" %s é\n\x01end\\";
        let line = escape(script).unwrap();
        assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)));
        let out =
            sys::Cmd::new("bash").args(["-c", "printf -v t %b \"$1\"; printf %s \"$t\"", "-", &line]).run().unwrap();
        assert_eq!(out.stdout, script.as_bytes());
        assert_eq!(escape("a\0b"), None);
    }

    proptest! {
        #[test]
        fn output_survives_any_cutting(
            stale in prop::collection::vec(any::<u8>(), 0..200),
            output in prop::collection::vec(prop_oneof![Just(0x1e_u8), Just(b'0'), any::<u8>()], 0..500),
            cuts in prop::collection::vec(1usize..40, 1..60),
        ) {
            let mut all = stale;
            all.extend_from_slice(format!("\x1e{SESSION}.5+\x1e").as_bytes());
            all.extend_from_slice(&output);
            all.extend_from_slice(format!("\x1e{SESSION}.5-\x1e").as_bytes());
            let mut frame = Frame::new(SESSION, 5);
            let (mut got, mut rest, mut cut) = (Vec::new(), all.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let n = (*cut.next().unwrap()).min(rest.len());
                got.extend(frame.feed(&rest[..n]));
                rest = &rest[n..];
            }
            prop_assert!(frame.ended());
            prop_assert_eq!(got, output);
        }

        #[test]
        fn no_bytes_make_the_parsers_fail(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut lines = Lines::default();
            lines.feed(&bytes);
            let mut frame = Frame::new(SESSION, 1);
            frame.feed(&bytes);
            prop_assert!(frame.held.len() < 64);
        }

        #[test]
        fn a_script_without_zero_bytes_escapes_to_one_line(script in "[^\0]{0,300}") {
            let line = escape(&script).unwrap();
            prop_assert!(!line.contains('\n'));
        }
    }
}
