//! Requests and responses as plain data. The daemon turns them into octets and back; Via, Max-Forwards and
//! Content-Length are its own.

use std::fmt;

/// Method of a request (RFC 3261 section 7.1 and the extensions named).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 3261 section 13.
    Invite,
    /// RFC 3261 section 13.2.2.4.
    Ack,
    /// RFC 3261 section 15.
    Bye,
    /// RFC 3261 section 9.
    Cancel,
    /// RFC 3261 section 11.
    Options,
    /// RFC 6086.
    Info,
    /// RFC 3311.
    Update,
    /// RFC 6665.
    Notify,
    /// RFC 3261 section 10.
    Register,
    /// RFC 3262.
    Prack,
    /// RFC 3515.
    Refer,
    /// RFC 6665.
    Subscribe,
    /// Any other, as written.
    Other(String),
}

impl Method {
    /// As written in a request line.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Info => "INFO",
            Self::Update => "UPDATE",
            Self::Notify => "NOTIFY",
            Self::Register => "REGISTER",
            Self::Prack => "PRACK",
            Self::Refer => "REFER",
            Self::Subscribe => "SUBSCRIBE",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Method {
    /// Methods are case-sensitive (RFC 3261 section 7.1).
    fn from(name: &str) -> Self {
        match name {
            "INVITE" => Self::Invite,
            "ACK" => Self::Ack,
            "BYE" => Self::Bye,
            "CANCEL" => Self::Cancel,
            "OPTIONS" => Self::Options,
            "INFO" => Self::Info,
            "UPDATE" => Self::Update,
            "NOTIFY" => Self::Notify,
            "REGISTER" => Self::Register,
            "PRACK" => Self::Prack,
            "REFER" => Self::Refer,
            "SUBSCRIBE" => Self::Subscribe,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a transaction within one call. Client transactions are numbered by the call ([`crate::Command::Sip`]), server
/// transactions by the daemon ([`crate::Input::SipRequest`]): two separate number spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub u64);

/// A request. Header values are as on the wire, without the name. `Debug` shows neither headers nor body: they may hold
/// keys and credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Request-URI.
    pub uri: String,
    /// From, with tag.
    pub from: String,
    /// To; with tag inside a dialog.
    pub to: String,
    /// Call-ID.
    pub call_id: String,
    /// Number of CSeq; its method is `method`.
    pub cseq: u32,
    /// Route headers, first hop first; one URI each, in brackets.
    pub route: Vec<String>,
    /// Record-Route headers of a request that came in, top first; one URI each, in brackets. Never sent.
    pub record_route: Vec<String>,
    /// Contact.
    pub contact: Option<String>,
    /// Content-Type; `None` without a body.
    pub content_type: Option<String>,
    /// All other headers in order: name and value.
    pub headers: Vec<(String, String)>,
    /// Body, empty for none.
    pub body: Vec<u8>,
}

/// A response. Header values are as on the wire, without the name. `Debug` shows neither headers nor body.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// 100..=699.
    pub status: u16,
    /// Reason phrase.
    pub reason: String,
    /// From, as in the request.
    pub from: String,
    /// To, with the answering side's tag.
    pub to: String,
    /// Call-ID.
    pub call_id: String,
    /// Number of CSeq.
    pub cseq: u32,
    /// Method of CSeq.
    pub method: Method,
    /// Record-Route headers, top first; one URI each, in brackets.
    pub record_route: Vec<String>,
    /// Contact.
    pub contact: Option<String>,
    /// Content-Type; `None` without a body.
    pub content_type: Option<String>,
    /// All other headers in order: name and value.
    pub headers: Vec<(String, String)>,
    /// Body, empty for none.
    pub body: Vec<u8>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, call_id, cseq, body, .. } = self;
        let mut shown = f.debug_struct("Request");
        shown.field("method", method).field("call_id", call_id).field("cseq", cseq);
        shown.field("body", &body.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, method, call_id, cseq, body, .. } = self;
        let mut shown = f.debug_struct("Response");
        shown.field("status", status).field("method", method).field("call_id", call_id).field("cseq", cseq);
        shown.field("body", &body.len()).finish_non_exhaustive()
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn lists<'a>(mut values: impl Iterator<Item = &'a str>, option: &str) -> bool {
    values.any(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(option)))
}

impl Request {
    /// Values of another header, in order; names are compared without regard to case.
    pub fn header<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        find(&self.headers, name)
    }

    /// Whether a header that lists options names this one.
    pub fn lists(&self, name: &str, option: &str) -> bool {
        lists(self.header(name), option)
    }

    /// The URI that decides where the request is sent: the first Route, else the Request-URI
    /// (RFC 3261 section 8.1.2). A request outside a dialog goes to the configured server instead.
    pub fn next_hop(&self) -> &str {
        self.route.first().map_or(&self.uri, |route| super::header::uri_of(route))
    }
}

impl Response {
    /// Values of another header, in order; names are compared without regard to case.
    pub fn header<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        find(&self.headers, name)
    }

    /// Whether a header that lists options names this one.
    pub fn lists(&self, name: &str, option: &str) -> bool {
        lists(self.header(name), option)
    }

    /// An answer to `request` with its From, To, Call-ID and CSeq (RFC 3261 section 8.2.6.2). In a dialog To has its
    /// tag already; outside one the caller adds it.
    pub fn to_request(request: &Request, status: u16, reason: &str) -> Self {
        Self {
            status,
            reason: reason.to_owned(),
            from: request.from.clone(),
            to: request.to.clone(),
            call_id: request.call_id.clone(),
            cseq: request.cseq,
            method: request.method.clone(),
            record_route: Vec::new(),
            contact: None,
            content_type: None,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}
