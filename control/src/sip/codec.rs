//! Typed messages to octets, and octets (as rsipstack's parser reads them) to typed messages.

use std::fmt::Write;
use std::net::SocketAddr;

use rsipstack::sip::SipMessage;
use sallyport_proto::sip::{Method, Request, Response};

use crate::config::Transport;

/// A message that came in, with what the calls do not need to know.
#[derive(Debug)]
pub enum Incoming {
    /// A request with its Via headers, top first, and its Record-Route headers.
    Request(Box<Request>, Vec<String>, Vec<String>),
    /// A response with its topmost Via.
    Response(Box<Response>, String),
}

/// Reads a message that passed the guard; `None` where the parser refuses it or a header that every message has is
/// missing.
pub fn parse(octets: &[u8]) -> Option<Incoming> {
    match SipMessage::try_from(octets.to_vec()).ok()? {
        SipMessage::Request(message) => {
            let headers = Headers::read(message.headers.0.iter().map(ToString::to_string));
            let (cseq, method) = headers.cseq()?;
            let request = Request {
                method,
                uri: message.uri.to_string(),
                from: headers.one("From")?,
                to: headers.one("To")?,
                call_id: headers.one("Call-ID")?,
                cseq,
                route: headers.all("Route"),
                record_route: headers.all("Record-Route"),
                contact: headers.one("Contact"),
                content_type: headers.one("Content-Type"),
                headers: headers.rest(),
                body: message.body,
            };
            Some(Incoming::Request(Box::new(request), headers.all("Via"), headers.all("Record-Route")))
        }
        SipMessage::Response(message) => {
            let headers = Headers::read(message.headers.0.iter().map(ToString::to_string));
            let (cseq, method) = headers.cseq()?;
            let response = Response {
                status: message.status_code.code(),
                reason: message.wire_reason.unwrap_or_else(|| message.status_code.text().to_owned()),
                from: headers.one("From")?,
                to: headers.one("To")?,
                call_id: headers.one("Call-ID")?,
                cseq,
                method,
                record_route: headers.all("Record-Route"),
                contact: headers.one("Contact"),
                content_type: headers.one("Content-Type"),
                headers: headers.rest(),
                body: message.body,
            };
            Some(Incoming::Response(Box::new(response), headers.all("Via").into_iter().next()?))
        }
    }
}

struct Headers(Vec<(String, String)>);

/// Headers that have a field of their own, or that only transactions need.
const TYPED: [&str; 10] = [
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Content-Type",
    "Route",
    "Record-Route",
    "Via",
    "Content-Length",
];

impl Headers {
    fn read(lines: impl Iterator<Item = String>) -> Self {
        let split = |line: String| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        };
        Self(lines.filter_map(split).collect())
    }

    fn all(&self, name: &str) -> Vec<String> {
        let lines = self.0.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        lines.flat_map(|(_, value)| split_list(value)).collect()
    }

    fn one(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    }

    fn cseq(&self) -> Option<(u32, Method)> {
        let value = self.one("CSeq")?;
        let (number, method) = value.split_once(char::is_whitespace)?;
        Some((number.trim().parse().ok()?, Method::from(method.trim())))
    }

    fn rest(&self) -> Vec<(String, String)> {
        let typed = |name: &str| TYPED.iter().any(|typed| typed.eq_ignore_ascii_case(name));
        self.0.iter().filter(|(name, _)| !typed(name)).cloned().collect()
    }
}

/// Values of a header that may hold several, parted by commas outside of quotes and brackets.
pub fn split_list(value: &str) -> Vec<String> {
    let (mut quoted, mut bracketed, mut from) = (false, false, 0);
    let mut values = Vec::new();
    for (at, character) in value.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            ',' if !quoted && !bracketed => {
                values.push(value[from..at].trim().to_owned());
                from = at + 1;
            }
            _ => {}
        }
    }
    values.push(value[from..].trim().to_owned());
    values
}

/// A parameter of a header value, outside of its brackets.
pub fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let tail = value.rsplit('>').next().unwrap_or(value);
    tail.split(';').skip(1).find_map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Our Via for a request.
pub fn via(local: SocketAddr, kind: Transport, branch: &str) -> String {
    format!("SIP/2.0/{} {local};branch={branch};rport", kind.name())
}

/// A request as octets.
pub fn request(request: &Request, via: &str) -> Vec<u8> {
    let mut text = format!("{} {} SIP/2.0\r\nVia: {via}\r\n", request.method, request.uri);
    for route in &request.route {
        let _ = write!(text, "Route: {route}\r\n");
    }
    if request.header("Max-Forwards").next().is_none() {
        text.push_str("Max-Forwards: 70\r\n");
    }
    let Request { from, to, call_id, cseq, method, .. } = request;
    let _ = write!(text, "From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n");
    finish(text, request.contact.as_deref(), &request.headers, request.content_type.as_deref(), &request.body)
}

/// A response as octets, with the Via and Record-Route headers of its request.
pub fn response(response: &Response, vias: &[String], record_route: &[String]) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {} {}\r\n", response.status, response.reason);
    for via in vias {
        let _ = write!(text, "Via: {via}\r\n");
    }
    for route in record_route {
        let _ = write!(text, "Record-Route: {route}\r\n");
    }
    let Response { from, to, call_id, cseq, method, .. } = response;
    let _ = write!(text, "From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n");
    finish(
        text,
        response.contact.as_deref(),
        &response.headers,
        response.content_type.as_deref(),
        &response.body,
    )
}

fn finish(
    mut text: String,
    contact: Option<&str>,
    headers: &[(String, String)],
    content_type: Option<&str>,
    body: &[u8],
) -> Vec<u8> {
    if let Some(contact) = contact {
        let _ = write!(text, "Contact: {contact}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if let Some(content_type) = content_type {
        let _ = write!(text, "Content-Type: {content_type}\r\n");
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n", body.len());
    let mut octets = text.into_bytes();
    octets.extend_from_slice(body);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:1000@10.0.0.5 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa, SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKb\r\nMax-Forwards: 70\r\nf: \"A, B\" <sip:a@b>;tag=1\r\nTo: <sip:1000@10.0.0.5>\r\ni: x@y\r\nCSeq: 7 INVITE\r\nm: <sip:a@10.0.0.1>\r\nRecord-Route: <sip:p1;lr>, <sip:p2;lr>\r\nX-Data: one\r\nContent-Type: application/sdp\r\nContent-Length: 4\r\n\r\nv=0\n";

    #[test]
    fn a_request_is_read_in_all_its_parts() {
        let Some(Incoming::Request(request, vias, record_route)) = parse(INVITE.as_bytes()) else {
            panic!("no request")
        };
        assert_eq!((request.method.as_str(), request.cseq, request.call_id.as_str()), ("INVITE", 7, "x@y"));
        assert_eq!(
            (request.from.as_str(), request.body.as_slice()),
            ("\"A, B\" <sip:a@b>;tag=1", &b"v=0\n"[..])
        );
        assert_eq!((vias.len(), record_route.len()), (2, 2));
        assert_eq!(parameter(&vias[0], "branch"), Some("z9hG4bKa"));
        assert_eq!(request.header("X-Data").collect::<Vec<_>>(), ["one"]);
        assert_eq!(request.contact.as_deref(), Some("<sip:a@10.0.0.1>"));
    }

    #[test]
    fn what_is_written_reads_back() {
        let Some(Incoming::Request(request, ..)) = parse(INVITE.as_bytes()) else { panic!("no request") };
        let mut answer = Response::to_request(&request, 488, "Not Acceptable Here");
        answer.headers.push(("Warning".into(), "304 x \"no codec\"".into()));
        let octets = response(&answer, &["SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa".into()], &[]);
        let Some(Incoming::Response(read, via)) = parse(&octets) else { panic!("no response") };
        assert_eq!((read.status, read.method.as_str(), read.cseq), (488, "INVITE", 7));
        assert_eq!(parameter(&via, "branch"), Some("z9hG4bKa"));
    }

    #[test]
    fn lists_part_at_commas_that_part() {
        assert_eq!(
            split_list("\"a, b\" <sip:x;y=1,2>;q=1, <sip:z>"),
            ["\"a, b\" <sip:x;y=1,2>;q=1", "<sip:z>"]
        );
        assert_eq!(parameter("<sip:x;branch=no>;branch=yes", "branch"), Some("yes"));
    }
}
