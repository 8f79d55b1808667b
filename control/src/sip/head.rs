//! The head of a SIP message as lines: enough to judge it before a parser sees it (RFC 3261 section 7.3.1).

use std::borrow::Cow;
use std::str;

/// Octets that a head may have.
pub const HEAD_MAX: usize = 16 * 1024;
/// Headers that a message may have.
pub const HEADERS_MAX: usize = 100;

/// Where the head ends: octets up to and with the empty line.
pub fn end(octets: &[u8]) -> Option<usize> {
    octets.windows(4).take(HEAD_MAX).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// A head, unfolded, as text.
#[derive(Debug)]
pub struct Head<'a> {
    /// First line.
    pub start: Cow<'a, str>,
    /// Names and values; folded lines joined by one space.
    pub headers: Vec<(String, String)>,
    /// Whether it stands there as [`Self::write`] would write it, or near enough: no folded line, no blank before a colon,
    /// all UTF-8.
    pub plain: bool,
}

/// What keeps a head from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// A control character.
    Control,
    /// A line that is not `name: value`.
    Line,
    /// More than [`HEADERS_MAX`] headers.
    TooMany,
}

impl<'a> Head<'a> {
    /// Reads a head without its empty line. What can be read is read, also next to an error: an answer needs it.
    pub fn parse(octets: &'a [u8]) -> (Self, Option<HeadError>) {
        let mut lines =
            octets.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut head = Self { start: Cow::Borrowed(""), headers: Vec::new(), plain: true };
        head.start = head.text(lines.next().unwrap_or_default());
        let mut flaw = control(&head.start).then_some(HeadError::Control);
        for line in lines.filter(|line| !line.is_empty()) {
            flaw = flaw.or(head.line(line).err());
        }
        (head, flaw)
    }

    fn text(&mut self, line: &'a [u8]) -> Cow<'a, str> {
        match str::from_utf8(line) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                self.plain = false;
                Cow::Owned(line.iter().map(|octet| char::from(*octet)).collect())
            }
        }
    }

    fn line(&mut self, line: &'a [u8]) -> Result<(), HeadError> {
        let text = self.text(line);
        if control(&text) {
            return Err(HeadError::Control);
        }
        if text.starts_with([' ', '\t']) {
            self.plain = false;
            let (_, value) = self.headers.last_mut().ok_or(HeadError::Line)?;
            value.push(' ');
            value.push_str(text.trim());
            return Ok(());
        }
        let (name, value) = text.split_once(':').ok_or(HeadError::Line)?;
        self.plain &= !name.ends_with([' ', '\t']);
        let name = name.trim_end();
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(HeadError::Line);
        }
        if self.headers.len() == HEADERS_MAX {
            return Err(HeadError::TooMany);
        }
        self.headers.push((name.to_owned(), value.trim().to_owned()));
        Ok(())
    }

    /// Values of a header, by its long name; compact forms are known (RFC 3261 section 7.3.3).
    pub fn values<'s>(&'s self, long: &'s str) -> impl Iterator<Item = &'s str> {
        self.headers.iter().filter(move |(name, _)| is_named(name, long)).map(|(_, value)| value.as_str())
    }

    /// The head as UTF-8 lines with an empty line behind.
    pub fn write(&self, extra: &[(&str, &str)]) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        let all = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in all.chain(extra.iter().copied()) {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Whether a name, long or compact, names this header.
pub fn is_named(name: &str, long: &str) -> bool {
    let compact = match long {
        "Via" => "v",
        "From" => "f",
        "To" => "t",
        "Call-ID" => "i",
        "Contact" => "m",
        "Content-Length" => "l",
        "Content-Type" => "c",
        _ => "",
    };
    name.eq_ignore_ascii_case(long) || (!compact.is_empty() && name.eq_ignore_ascii_case(compact))
}

/// `token` of RFC 3261 section 25.1.
pub fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&octet)
}

/// Whether a line holds a control character that is not escaped within quotes (RFC 3261 section 25.1: quoted-pair).
fn control(text: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for character in text.chars() {
        let harmless = character == '\t' || ('\u{80}'..='\u{9f}').contains(&character);
        if character.is_control() && !harmless && !escaped {
            return true;
        }
        let escapes = quoted && !escaped && character == '\\';
        quoted ^= character == '"' && !escaped;
        escaped = escapes;
    }
    false
}
