//! A dialog from either side (RFC 3261 section 12).

use serde::{Deserialize, Serialize};

use super::header::{name_addr, tag_of, uri_of};
use super::message::{Method, Request, Response};

/// Methods that we take in a dialog.
pub const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE, NOTIFY, PRACK, REFER";
/// Extensions that we know (RFC 3262, RFC 4028, RFC 3891).
pub const SUPPORTED: &str = "100rel, timer, replaces";

/// One dialog, from the first INVITE on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialog {
    /// From, with our tag.
    pub from: String,
    /// To without a tag.
    pub to: String,
    /// Call-ID.
    pub call_id: String,
    /// Our CSeq: the last one used.
    pub cseq: u32,
    /// The last CSeq of the other side.
    pub remote_cseq: Option<u32>,
    /// Contact of ours, in brackets.
    pub contact: String,
    /// Value of User-Agent.
    pub agent: String,
    /// Tag of the other side, once there is a dialog.
    pub remote_tag: Option<String>,
    /// Where requests go: the other side's Contact, or the URI that was called.
    pub target: String,
    /// Route set, first hop first.
    pub route: Vec<String>,
    /// Whether the other side takes UPDATE (RFC 3311 section 5.1).
    pub updates: bool,
}

impl Dialog {
    fn request(&self, method: Method, cseq: u32) -> Request {
        let to = match &self.remote_tag {
            Some(tag) => format!("{};tag={tag}", self.to),
            None => self.to.clone(),
        };
        Request {
            method,
            uri: self.target.clone(),
            from: self.from.clone(),
            to,
            call_id: self.call_id.clone(),
            cseq,
            route: self.route.clone(),
            record_route: Vec::new(),
            contact: None,
            content_type: None,
            headers: vec![("Max-Forwards".into(), "70".into()), ("User-Agent".into(), self.agent.clone())],
            body: Vec::new(),
        }
    }

    /// The called side's, of an INVITE that came in (section 12.1.1). `tag` is ours, `contact` in brackets.
    pub fn invited(request: &Request, tag: &str, contact: String, agent: String) -> Self {
        Self {
            from: format!("{};tag={tag}", name_addr(&request.to)),
            to: name_addr(&request.from),
            call_id: request.call_id.clone(),
            cseq: 0,
            remote_cseq: Some(request.cseq),
            contact,
            agent,
            remote_tag: tag_of(&request.from).map(str::to_owned),
            target: uri_of(request.contact.as_deref().unwrap_or(&request.from)).to_owned(),
            route: request.record_route.clone(),
            updates: allows_update(request.header("Allow")),
        }
    }

    /// The tag of the other side in a To or From is this dialog's, and so is the Call-ID.
    pub fn is(&self, call_id: &str, tag: Option<&str>) -> bool {
        self.call_id == call_id && tag.is_some() && self.remote_tag.as_deref() == tag
    }

    /// Our tag.
    pub fn local_tag(&self) -> &str {
        tag_of(&self.from).unwrap_or_default()
    }

    /// The next INVITE, with header fields that answer challenges.
    pub fn invite(&mut self, offer: &str, credentials: Vec<(String, String)>) -> Request {
        self.cseq += 1;
        let mut request = self.request(Method::Invite, self.cseq);
        request.contact = Some(self.contact.clone());
        request.headers.push(("Allow".into(), ALLOW.into()));
        request.headers.push(("Supported".into(), SUPPORTED.into()));
        request.headers.extend(credentials);
        request.content_type = Some("application/sdp".into());
        request.body = offer.as_bytes().to_vec();
        request
    }

    /// CANCEL of the last INVITE (section 9.1).
    pub fn cancel(&self) -> Request {
        self.request(Method::Cancel, self.cseq)
    }

    /// The dialog that a response to INVITE opens; the same one again for the same tag.
    #[must_use]
    pub fn opened_by(&self, response: &Response) -> Self {
        let mut dialog = self.clone();
        dialog.remote_tag = tag_of(&response.to).map(str::to_owned);
        if let Some(contact) = &response.contact {
            uri_of(contact).clone_into(&mut dialog.target);
        }
        // The route set is the reverse of what was recorded on the way (section 12.1.2).
        dialog.route = response.record_route.iter().rev().cloned().collect();
        dialog.updates |= allows_update(response.header("Allow"));
        dialog
    }

    /// ACK to the 2xx of an INVITE with this CSeq, and with its credentials (section 13.2.2.4).
    pub fn ack(&self, cseq: u32, credentials: &[(String, String)]) -> Request {
        let mut request = self.request(Method::Ack, cseq);
        request.headers.extend_from_slice(credentials);
        request
    }

    /// The next CSeq.
    pub fn count(&mut self) -> u32 {
        self.cseq += 1;
        self.cseq
    }

    /// The next request with this method.
    pub fn next(&mut self, method: Method) -> Request {
        let cseq = self.count();
        self.request(method, cseq)
    }

    /// The next BYE, with header fields that answer challenges.
    pub fn bye(&mut self, credentials: Vec<(String, String)>) -> Request {
        let mut request = self.next(Method::Bye);
        request.headers.extend(credentials);
        request
    }

    /// Whether a request of the other side comes in order; a repeated or older CSeq does not (section 12.2.2).
    pub fn admit(&mut self, request: &Request) -> bool {
        let fresh = request.method == Method::Ack || self.remote_cseq.is_none_or(|last| request.cseq > last);
        if fresh && request.method != Method::Ack {
            self.remote_cseq = Some(request.cseq);
        }
        fresh
    }

    /// A target refresh (section 12.2.2).
    pub fn refresh(&mut self, contact: Option<&str>) {
        if let Some(contact) = contact {
            uri_of(contact).clone_into(&mut self.target);
        }
    }
}

/// Whether one of these Allow headers names UPDATE.
fn allows_update<'a>(mut values: impl Iterator<Item = &'a str>) -> bool {
    values.any(|value| value.split(',').any(|method| method.trim() == Method::Update.as_str()))
}
