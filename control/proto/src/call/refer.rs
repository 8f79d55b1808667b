//! A transfer that the browser asks for (RFC 5589): REFER, and what the far end tells of it.

use std::time::{Duration, Instant};

use super::Call;
use super::peer::{OK, UNKNOWN, answer};
use super::requests::Purpose;
use crate::api::{CallEvent, Replaces, Transfer};
use crate::sip::header::{name_addr, parameter_of, token_of};
use crate::sip::{Method, Request, Response};

/// How long a transfer may take: as long as the far end's subscription would (RFC 3515 section 2.4.4).
const PATIENCE: Duration = Duration::from_secs(180);
/// Event packages whose NOTIFY we take.
const EVENTS: &str = "refer, talk, hold";

/// A value within a URI header (RFC 3261 section 25.1): all that has a meaning there is escaped.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}

/// Status of a `message/sipfrag` (RFC 3515 section 2.4.5).
fn fragment(body: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(body);
    let mut words = text.lines().next()?.split_whitespace();
    words.next().filter(|version| version.starts_with("SIP/"))?;
    words.next()?.parse().ok().filter(|status| (100..700).contains(status))
}

impl Call {
    /// Names the dialog inside for a transfer onto it; `None` while there is none.
    pub fn replaces(&self) -> Option<Replaces> {
        let inside = &self.inside;
        let dialog =
            Some(&inside.dialog).filter(|_| inside.answered && !inside.gone && self.cause.is_none())?;
        Some(Replaces {
            uri: dialog.target.clone(),
            call_id: dialog.call_id.clone(),
            to_tag: dialog.remote_tag.clone()?,
            from_tag: dialog.local_tag().to_owned(),
        })
    }

    /// Asks the far end to call somebody else (RFC 3515). One at a time.
    pub(super) fn transfer(&mut self, transfer: Transfer, now: Instant) {
        let talks = self.inside.answered && !self.inside.gone && self.cause.is_none();
        if !talks || self.inside.transferring {
            return;
        }
        let target = match transfer {
            Transfer::To(to) => super::inside::destination(&to, &self.settings.sip.domain),
            Transfer::Onto(Replaces { uri, call_id, to_tag, from_tag }) => {
                let value = escaped(&format!("{call_id};to-tag={to_tag};from-tag={from_tag}"));
                Some(format!("{uri}?Replaces={value}"))
            }
        };
        let Some(target) = target else {
            self.notify(CallEvent::Transfer { status: 404 });
            return;
        };
        let mut request = self.inside.dialog.next(Method::Refer);
        request.headers.push(("Refer-To".into(), format!("<{target}>")));
        request.headers.push(("Referred-By".into(), name_addr(&self.inside.dialog.from)));
        request.contact = Some(self.inside.dialog.contact.clone());
        self.inside.transferring = self.ask(Purpose::Refer, request);
        self.deadlines.transfer = Some(now + PATIENCE);
    }

    /// The far end tells nothing of a transfer any more.
    pub(super) fn transfer_forgotten(&mut self) {
        if std::mem::take(&mut self.inside.transferring) {
            self.notify(CallEvent::Transfer { status: 408 });
        }
    }

    /// The far end took the REFER, or did not; what becomes of it is told by NOTIFY.
    pub(super) fn refer_settled(&mut self, status: u16) {
        if status >= 300 {
            self.inside.transferring = false;
            self.notify(CallEvent::Transfer { status });
        }
    }

    /// A NOTIFY: of our transfer, or of what the SIP server wants of the browser.
    pub(super) fn notified(&mut self, request: &Request) -> Response {
        let event =
            request.header("Event").chain(request.header("o")).next().map(token_of).unwrap_or_default();
        match event.to_ascii_lowercase().as_str() {
            "refer" => self.transfer_notified(request),
            event @ ("talk" | "hold") => {
                if self.cause.is_none() {
                    self.notify(CallEvent::Asked { talk: event == "talk" });
                }
                answer(request, OK)
            }
            _ => {
                let mut response = answer(request, (489, "Bad Event"));
                response.headers.push(("Allow-Events".into(), EVENTS.into()));
                response
            }
        }
    }

    fn transfer_notified(&mut self, request: &Request) -> Response {
        // The first NOTIFY may come before the answer to the REFER (RFC 3515 section 2.4.4).
        if !self.inside.transferring {
            return answer(request, UNKNOWN);
        }
        let state = request.header("Subscription-State").next().unwrap_or_default();
        let over = token_of(state).eq_ignore_ascii_case("terminated");
        let rejected = parameter_of(state, "reason").is_some_and(|reason| reason == "rejected");
        match fragment(&request.body) {
            Some(status) => {
                self.inside.transferring = !over && status < 200;
                if self.cause.is_none() {
                    self.notify(CallEvent::Transfer { status });
                    self.inside.transferred = (200..300).contains(&status);
                }
            }
            None if over => {
                self.inside.transferring = false;
                if self.cause.is_none() {
                    self.notify(CallEvent::Transfer { status: if rejected { 603 } else { 500 } });
                }
            }
            None if request.body.is_empty() => {}
            None => return answer(request, (400, "Bad Request")),
        }
        answer(request, OK)
    }
}
