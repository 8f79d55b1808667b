//! What stands between the wire and the SIP stack: closes the gaps of its parser, and answers what the stack would
//! drop without a word (RFC 3261 sections 8.2, 18.3 and 20.14).

use std::borrow::Cow;
use std::net::SocketAddr;

use sallyport_proto::sip::ALLOW;

use super::codec::split_list;
use super::has_tag;
use super::head::{self, Head, HeadError, is_token};
use super::syntax;
use crate::config::Transport;
use crate::random;

/// Methods that reach the calls; they refuse what they do not allow.
const ADMITTED: [&str; 10] =
    ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO", "UPDATE", "NOTIFY", "PRACK", "REFER"];
/// Browsers may ask to be registered (RFC 3261 section 10).
const REGISTER: &str = "REGISTER";
/// Option tags that may be required: RFC 3262, 3891, 4028, 5626 and 3327.
const KNOWN_EXTENSIONS: [&str; 5] = ["100rel", "replaces", "timer", "outbound", "path"];
/// Octets that a message may have.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// What we call ourselves.
pub const AGENT: &str = concat!("sallyport/", env!("CARGO_PKG_VERSION"));
/// Headers that a message has once at most.
const SINGLE: [&str; 8] =
    ["From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Length", "Content-Type", "Expires"];

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As a datagram, which is as long as it is.
    Datagram,
    /// On a stream, cut out by its Content-Length.
    Stream,
    /// As one message of a browser's WebSocket connection, which is as long as it is (RFC 7118 section 4.2).
    WebSocket,
}

impl Way {
    /// The way of a transport.
    pub const fn of(kind: Transport) -> Self {
        match kind {
            Transport::Udp => Self::Datagram,
            Transport::Tcp | Transport::Tls => Self::Stream,
            Transport::Ws | Transport::Wss => Self::WebSocket,
        }
    }

    fn admits(self, method: &str) -> bool {
        ADMITTED.contains(&method) || self == Self::WebSocket && method == REGISTER
    }

    /// Value of Allow.
    fn allow(self) -> String {
        match self {
            Self::Datagram | Self::Stream => ALLOW.to_owned(),
            Self::WebSocket => format!("{ALLOW}, {REGISTER}"),
        }
    }
}

/// What is to become of a message.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// The stack may have these octets.
    Accept(Cow<'a, [u8]>),
    /// The stack must not see it; this is the answer.
    Reply(Box<Reply>),
    /// Nothing can be answered.
    Drop(Flaw),
}

/// Why a message is dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Longer than [`MESSAGE_MAX`], or its head longer than [`head::HEAD_MAX`].
    TooLong,
    /// Not a SIP message.
    NotSip,
    /// A malformed response, or a malformed ACK: neither is ever answered.
    Unanswerable,
}

impl Flaw {
    /// Snake case, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::NotSip => "not_sip",
            Self::Unanswerable => "malformed",
        }
    }
}

/// A stateless answer to a request that the stack does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Final status.
    pub status: u16,
    /// Reason phrase.
    pub reason: &'static str,
    extra: Vec<(&'static str, String)>,
    copied: Vec<(String, String)>,
}

impl Reply {
    /// The answer as octets. The topmost Via gets the source (RFC 3581 section 4), To gets a tag.
    pub fn octets(&self, source: SocketAddr) -> Vec<u8> {
        let mut text = format!("SIP/2.0 {} {}\r\n", self.status, self.reason);
        let mut top = true;
        for (name, value) in &self.copied {
            text.push_str(name);
            text.push_str(": ");
            if head::is_named(name, "Via") && std::mem::take(&mut top) {
                text.push_str(&stamped(value, source));
            } else if head::is_named(name, "To") && !value.contains(";tag=") {
                text.push_str(&format!("{value};tag={}", random::hex::<8>()));
            } else {
                text.push_str(value);
            }
            text.push_str("\r\n");
        }
        for (name, value) in &self.extra {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Server: {AGENT}\r\nContent-Length: 0\r\n\r\n"));
        text.into_bytes()
    }
}

/// An answer to a request that the guard let pass and the stack's parser could not read.
pub fn unreadable(raw: &[u8]) -> Option<Reply> {
    let (head, _) = Head::parse(raw.get(..head::end(raw)? - 4)?);
    let answerable = !head.start.starts_with("SIP/") && !head.start.starts_with("ACK ");
    answerable.then(|| Objection::new(400, "Bad Request").reply(&head))
}

/// A Via with `received`, and `rport` filled in where it was asked for; only its first value is touched.
pub fn stamped(via: &str, source: SocketAddr) -> String {
    let (first, rest) = via.split_once(',').map_or((via, None), |(first, rest)| (first, Some(rest)));
    let mut out = String::new();
    for (at, part) in first.split(';').map(str::trim).enumerate() {
        let name = part.split('=').next().unwrap_or(part).trim();
        if at > 0 && name.eq_ignore_ascii_case("received") {
            continue;
        }
        if at > 0 {
            out.push(';');
        }
        if at > 0 && name.eq_ignore_ascii_case("rport") {
            out.push_str(&format!("rport={}", source.port()));
        } else {
            out.push_str(part);
        }
    }
    out.push_str(&format!(";received={}", source.ip()));
    if let Some(rest) = rest {
        out.push(',');
        out.push_str(rest);
    }
    out
}

/// Judges one message.
pub fn guard(raw: &[u8], way: Way) -> Verdict<'_> {
    if raw.len() > MESSAGE_MAX {
        return Verdict::Drop(Flaw::TooLong);
    }
    let Some(end) = head::end(raw) else {
        return Verdict::Drop(if raw.len() > head::HEAD_MAX { Flaw::TooLong } else { Flaw::NotSip });
    };
    let (head, flaw) = Head::parse(&raw[..end - 4]);
    let body = raw.len() - end;
    if head.start.starts_with("SIP/") {
        return match flaw.is_none().then(|| response(&head, body, way)).flatten() {
            Some(length) => accept(raw, end, &head, length),
            None => Verdict::Drop(Flaw::Unanswerable),
        };
    }
    if head.start.split(' ').count() < 2 || head.values("Via").next().is_none() {
        return Verdict::Drop(Flaw::NotSip);
    }
    match request(&head, flaw, body, way) {
        Ok(length) => accept(raw, end, &head, length),
        Err(_) if head.start.starts_with("ACK ") => Verdict::Drop(Flaw::Unanswerable),
        Err(objection) => Verdict::Reply(Box::new(objection.reply(&head))),
    }
}

/// Passes a message on: as it is where the parser can be trusted with it, else written anew.
fn accept<'a>(raw: &'a [u8], end: usize, head: &Head<'_>, length: Length) -> Verdict<'a> {
    let body = raw.get(end..).unwrap_or_default();
    let (extra, body) = match length {
        Length::Missing => (Some(body.len().to_string()), body),
        Length::Given(length) => (None, body.get(..length).unwrap_or(body)),
    };
    if extra.is_none() && head.plain {
        return Verdict::Accept(Cow::Borrowed(raw.get(..end + body.len()).unwrap_or(raw)));
    }
    let extra: Vec<_> = extra.iter().map(|length| ("Content-Length", length.as_str())).collect();
    let mut written = head.write(&extra);
    written.extend_from_slice(body);
    Verdict::Accept(Cow::Owned(written))
}

/// What Content-Length says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Missing,
    Given(usize),
}

/// Why a request is refused.
#[derive(Debug)]
struct Objection {
    status: u16,
    reason: &'static str,
    extra: Vec<(&'static str, String)>,
}

impl Objection {
    const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason, extra: Vec::new() }
    }

    fn reply(self, head: &Head<'_>) -> Reply {
        let wanted = ["Via", "From", "To", "Call-ID", "CSeq"];
        let mut copied = Vec::new();
        for long in wanted {
            let most = if long == "Via" { usize::MAX } else { 1 };
            copied.extend(head.values(long).take(most).map(|value| (long.to_owned(), value.to_owned())));
        }
        Reply { status: self.status, reason: self.reason, extra: self.extra, copied }
    }
}

fn request(head: &Head<'_>, flaw: Option<HeadError>, body: usize, way: Way) -> Result<Length, Objection> {
    let mut start = head.start.split(' ');
    let (method, uri) = (start.next().unwrap_or_default(), start.next().unwrap_or_default());
    let version = start.next().unwrap_or_default();
    if version != "SIP/2.0" && version.starts_with("SIP/") {
        return Err(Objection::new(505, "Version Not Supported"));
    }
    if start.next().is_some() || version.is_empty() || uri.is_empty() || !method.bytes().all(is_token) {
        return Err(Objection::new(400, "Bad Request Line"));
    }
    match flaw {
        Some(HeadError::Control) => return Err(Objection::new(400, "Control Character in Header")),
        Some(HeadError::Line) => return Err(Objection::new(400, "Bad Header Line")),
        Some(HeadError::TooMany) => return Err(Objection::new(400, "Too Many Headers")),
        None => {}
    }
    singles(head).map_err(|reason| Objection::new(400, reason))?;
    let length = content_length(head, body, way).map_err(|reason| Objection::new(400, reason))?;
    cseq(head, method).map_err(|reason| Objection::new(400, reason))?;
    shapes(head, uri).map_err(|reason| Objection::new(400, reason))?;
    if !way.admits(method) {
        let extra = vec![("Allow", way.allow())];
        return Err(Objection { status: 405, reason: "Method Not Allowed", extra });
    }
    let scheme = uri.split(':').next().unwrap_or_default();
    if !["sip", "sips", "tel"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        return Err(Objection::new(416, "Unsupported URI Scheme"));
    }
    extensions(head, method)?;
    if method == "INVITE" {
        invitation(head, body)?;
    }
    Ok(length)
}

/// What a request says of addresses has the shapes that it must have.
fn shapes(head: &Head<'_>, uri: &str) -> Result<(), &'static str> {
    if !syntax::request_uri(uri) {
        return Err("Bad Request-URI");
    }
    if !head.values("Via").all(syntax::via) {
        return Err("Bad Via");
    }
    let contacts = head.values("Contact").flat_map(split_list).filter(|contact| contact != "*");
    let named = head.values("From").chain(head.values("To")).map(str::to_owned);
    if named.chain(contacts).all(|value| syntax::address(&value)) {
        Ok(())
    } else {
        Err("Bad Address in Header")
    }
}

/// Extensions that we do not know must not be required (RFC 3261 section 8.2.2.3).
fn extensions(head: &Head<'_>, method: &str) -> Result<(), Objection> {
    let required = head.values("Require").flat_map(|value| value.split(',')).map(str::trim);
    let known = |tag: &&str| KNOWN_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(tag));
    let required: Vec<&str> = required.filter(|tag| !tag.is_empty() && !known(tag)).collect();
    if !required.is_empty() && !["ACK", "CANCEL"].contains(&method) {
        let extra = vec![("Unsupported", required.join(", "))];
        return Err(Objection { status: 420, reason: "Bad Extension", extra });
    }
    Ok(())
}

/// What an INVITE brings can be read, and what it gets will be (RFC 3261 sections 8.2.3 and 13.3.1); outside a dialog it
/// may go on from us (section 16.3).
fn invitation(head: &Head<'_>, body: usize) -> Result<(), Objection> {
    let inside = has_tag(head.values("To").next().unwrap_or_default());
    if !inside && head.values("Max-Forwards").any(|hops| hops.parse() == Ok(0_u8)) {
        return Err(Objection::new(483, "Too Many Hops"));
    }
    if body > 0 && head.values("Content-Type").any(|kind| !syntax::is_readable(kind)) {
        let extra = vec![("Accept", "application/sdp".to_owned())];
        return Err(Objection { status: 415, reason: "Unsupported Media Type", extra });
    }
    if !syntax::accepts_sdp(head.values("Accept")) {
        return Err(Objection::new(406, "Not Acceptable"));
    }
    Ok(())
}

/// A response that makes sense, and its length; `None` for one that does not.
fn response(head: &Head<'_>, body: usize, way: Way) -> Option<Length> {
    let mut start = head.start.splitn(3, ' ');
    let version = start.next().filter(|version| *version == "SIP/2.0");
    let status = start.next().filter(|status| status.len() == 3)?.parse::<u16>().ok()?;
    let known = version.is_some() && (100..700).contains(&status);
    let (number, method) = head.values("CSeq").next()?.split_once([' ', '\t'])?;
    let counted = number.parse::<u32>().is_ok() && method.trim().bytes().all(is_token);
    let sound = known && counted && singles(head).is_ok() && has_tag(head.values("From").next()?);
    (sound && head.values("Via").next().is_some()).then(|| content_length(head, body, way).ok()).flatten()
}

fn singles(head: &Head<'_>) -> Result<(), &'static str> {
    for name in SINGLE {
        if head.values(name).nth(1).is_some() {
            return Err("Header Given Twice");
        }
    }
    for name in ["From", "To", "Call-ID", "CSeq"] {
        if head.values(name).next().is_none_or(str::is_empty) {
            return Err("Missing Header");
        }
    }
    if head.values("Max-Forwards").any(|hops| hops.parse::<u8>().is_err()) {
        return Err("Bad Max-Forwards");
    }
    Ok(())
}

fn content_length(head: &Head<'_>, body: usize, way: Way) -> Result<Length, &'static str> {
    let Some(text) = head.values("Content-Length").next() else {
        return if way == Way::Stream { Err("Missing Content-Length") } else { Ok(Length::Missing) };
    };
    let length =
        text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse::<usize>().ok()).flatten();
    match length {
        None => Err("Bad Content-Length"),
        Some(length) if length > body => Err("Content-Length Beyond the Message"),
        Some(length) => Ok(Length::Given(length)),
    }
}

fn cseq(head: &Head<'_>, method: &str) -> Result<(), &'static str> {
    let text = head.values("CSeq").next().unwrap_or_default();
    let (number, named) = text.split_once([' ', '\t']).ok_or("Bad CSeq")?;
    match number.parse::<u32>() {
        Ok(number) if number < 1 << 31 && named.trim() == method => Ok(()),
        _ => Err("Bad CSeq"),
    }
}

#[cfg(test)]
mod tests;
