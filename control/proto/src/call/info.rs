//! Digits and user data both ways: INFO (RFC 6086; `application/dtmf-relay` and `application/dtmf` as they are used).

use super::Call;
use super::peer::{OK, answer};
use super::requests::Purpose;
use crate::api::CallEvent;
use crate::settings::Dtmf;
use crate::sip::{Method, Request, Response};

/// Octets of user data in one INFO.
pub const INFO_MAX: usize = 8 * 1024;
/// Digits that wait for those before them.
const DIGITS: usize = 64;
const DTMF_RELAY: &str = "application/dtmf-relay";
const DTMF: &str = "application/dtmf";
/// Length of a digit that does not say it, in milliseconds.
const DURATION: u16 = 160;

/// Digits by their codes as named events (RFC 4733 section 3.2).
const DIGIT_CODES: &[u8] = b"0123456789*#ABCD";
/// Length of a digit of which only the beginning was heard, in milliseconds: the shortest that ITU-T Q.24 has recognized.
const SHORTEST: u16 = 40;

/// A digit that telephones have.
fn is_digit(digit: char) -> bool {
    "0123456789ABCD*#".contains(digit)
}

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
    pub(super) fn informed(&mut self, request: &Request) -> Response {
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
        if self.cause.is_none() {
            self.notify(event);
        }
        answer(request, OK)
    }

    fn passes_type(&self, kind: &str) -> bool {
        self.settings.sip.policy.info_types.iter().any(|known| known.eq_ignore_ascii_case(kind))
    }

    /// Whether the inside is to hear of named events.
    pub(super) fn offers_events(&self) -> bool {
        self.settings.sip.policy.dtmf != Dtmf::Info
    }

    fn can_inform(&self) -> bool {
        self.inside.answered && !self.inside.gone && self.cause.is_none()
    }

    /// A digit that the browser sent as a named event goes on by INFO.
    pub(super) fn heard(&mut self, event: u8, duration: u16) {
        let digit = DIGIT_CODES.get(usize::from(event)..).and_then(|rest| rest.first());
        if let Some(digit) = digit {
            self.dtmf(&char::from(*digit).to_string(), duration.max(SHORTEST));
        }
    }

    /// Digits go one behind the other: each waits until the one before was taken.
    pub(super) fn dtmf(&mut self, digits: &str, duration: u16) {
        if !self.can_inform() {
            return;
        }
        let room = DIGITS.saturating_sub(self.inside.digits.len());
        let fresh = digits.chars().map(|digit| digit.to_ascii_uppercase()).filter(|digit| is_digit(*digit));
        self.inside.digits.extend(fresh.take(room).map(|digit| (digit, duration)));
        if !self.is_asking(Purpose::Digit) {
            self.next_digit();
        }
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

    fn send_info(&mut self, purpose: Purpose, content_type: &str, body: Vec<u8>) {
        let mut request = self.inside.dialog.next(Method::Info);
        request.content_type = Some(content_type.to_owned());
        request.body = body;
        self.ask(purpose, request);
    }
}
