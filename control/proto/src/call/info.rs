//! User data both ways, and digits that go or come by INFO: INFO (RFC 6086; `application/dtmf-relay` and `application/dtmf` as they are used).

use std::time::Instant;

use super::Call;
use super::digits::{Way, is_digit};
use super::peer::{OK, answer};
use super::picture::is_wish;
use super::requests::Purpose;
use crate::api::CallEvent;
use crate::sip::{Method, Request, Response};

/// Octets of user data in one INFO.
pub const INFO_MAX: usize = 8 * 1024;
const DTMF_RELAY: &str = "application/dtmf-relay";
const DTMF: &str = "application/dtmf";
/// Length of a digit that does not say it, in milliseconds.
const DURATION: u16 = 160;

/// Digit and milliseconds of `application/dtmf-relay`: lines `Signal=5` and `Duration=160`.
fn relay(body: &str) -> Option<(char, u16)> {
    let value = |name: &str| {
        body.lines().filter_map(|line| line.split_once('=')).find_map(|(key, value)| {
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_uppercase())
        })
    };
    let duration = value("Duration").map_or(Some(DURATION), |text| text.parse().ok())?;
    Some((digit(&value("Signal")?)?, duration))
}

/// One digit; 10 and 11 are how some write star and hash.
fn digit(text: &str) -> Option<char> {
    match text.trim() {
        "10" => Some('*'),
        "11" => Some('#'),
        one => {
            let mut all = one.chars();
            let first = all.next().map(|digit| digit.to_ascii_uppercase()).filter(|digit| is_digit(*digit));
            first.filter(|_| all.next().is_none())
        }
    }
}

/// The type without its parameters.
fn bare(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

impl Call {
    /// An INFO of the far end: a digit, user data, or a mere sign of life.
    pub(super) fn informed(&mut self, request: &Request, now: Instant) -> Response {
        if request.header("Info-Package").next().is_some() {
            let mut response = answer(request, (469, "Bad Info Package"));
            response.headers.push(("Recv-Info".into(), String::new()));
            return response;
        }
        if request.body.is_empty() {
            return answer(request, OK);
        }
        let content_type = request.content_type.as_deref().unwrap_or_default();
        let kind = bare(content_type);
        if is_wish(request, kind) {
            self.wished();
            return answer(request, OK);
        }
        let text = std::str::from_utf8(&request.body).unwrap_or_default();
        let told = if kind.eq_ignore_ascii_case(DTMF_RELAY) {
            relay(text).map(|(digit, duration)| CallEvent::Dtmf { digit, duration })
        } else if kind.eq_ignore_ascii_case(DTMF) {
            digit(text).map(|digit| CallEvent::Dtmf { digit, duration: DURATION })
        } else if !self.passes_type(kind) {
            let mut response = answer(request, (415, "Unsupported Media Type"));
            let known = [DTMF_RELAY, DTMF].into_iter().map(str::to_owned);
            let accept: Vec<String> =
                known.chain(self.settings.sip.policy.info_types.iter().cloned()).collect();
            response.headers.push(("Accept".into(), accept.join(", ")));
            return response;
        } else if request.body.len() > INFO_MAX {
            return answer(request, (413, "Request Entity Too Large"));
        } else {
            let (content_type, body) = (content_type.to_owned(), request.body.clone());
            Some(CallEvent::Info { content_type, body })
        };
        let Some(event) = told else { return answer(request, (400, "Bad Request")) };
        match event {
            CallEvent::Dtmf { digit, duration } => self.hear(Way::Info, digit, duration, now),
            event if self.cause.is_none() => self.notify(event),
            _ => {}
        }
        answer(request, OK)
    }

    fn passes_type(&self, kind: &str) -> bool {
        self.settings.sip.policy.info_types.iter().any(|known| known.eq_ignore_ascii_case(kind))
    }

    pub(super) fn can_inform(&self) -> bool {
        self.inside.answered && !self.inside.gone && self.cause.is_none()
    }

    pub(super) fn next_digit(&mut self) {
        let Some((digit, duration)) = self.inside.digits.pop_front() else { return };
        let body = format!("Signal={digit}\r\nDuration={duration}\r\n");
        self.send_info(Purpose::Digit, DTMF_RELAY, body.into_bytes());
    }

    /// User data of the browser, of the types that may pass; others are dropped.
    pub(super) fn info(&mut self, content_type: &str, body: Vec<u8>) {
        let fits = body.len() <= INFO_MAX && !content_type.contains(['\r', '\n']);
        if fits && self.can_inform() && self.passes_type(bare(content_type)) {
            self.send_info(Purpose::Info, content_type, body);
        }
    }

    pub(super) fn send_info(&mut self, purpose: Purpose, content_type: &str, body: Vec<u8>) {
        let mut request = self.inside.dialog.next(Method::Info);
        request.content_type = Some(content_type.to_owned());
        request.body = body;
        self.ask(purpose, request);
    }
}
