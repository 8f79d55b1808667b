//! Session timers (RFC 4028): refreshed and answered here, the browser sees nothing of them.

use std::time::{Duration, Instant};

use super::Call;
use super::requests::Purpose;
use crate::api::EndCause;
use crate::sip::header::{parameter_of, token_of};
use crate::sip::{Method, Request, Response, SUPPORTED};

/// What we ask for, in seconds, and the least that we take (section 5 recommends it).
const INTERVAL: u32 = 1800;
const LEAST: u32 = 90;
/// The most that we let ourselves be raised to.
const MOST: u32 = 86_400;
/// A refresh that was refused is tried again so much later.
const AGAIN: Duration = Duration::from_secs(5);

/// The session timer of the dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timer {
    /// Seconds that a session lives without a refresh; 0: for ever.
    pub interval: u32,
    /// Whether we refresh it.
    pub ours: bool,
    /// What we ask for.
    asks: u32,
    /// The least that somebody on the way takes.
    least: u32,
}

impl Default for Timer {
    fn default() -> Self {
        Self { interval: 0, ours: false, asks: INTERVAL, least: LEAST }
    }
}

/// Seconds and refresher of `Session-Expires`.
fn asked<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<(u32, Option<&'a str>)> {
    let value = values.next()?;
    Some((token_of(value).parse().ok()?, parameter_of(value, "refresher")))
}

fn asked_by(request: &Request) -> Option<(u32, Option<&str>)> {
    asked(request.header("Session-Expires").chain(request.header("x")))
}

impl Call {
    /// Headers of an INVITE or UPDATE of ours; `within` a dialog its refresher stays.
    pub(super) fn timer_headers(&self, within: bool) -> Vec<(String, String)> {
        let Timer { interval, ours, asks, least } = self.inside.timer;
        let role = if ours { ";refresher=uac" } else { ";refresher=uas" };
        let role = if within && interval > 0 { role } else { "" };
        let mut headers = vec![("Session-Expires".to_owned(), format!("{asks}{role}"))];
        if least > LEAST {
            headers.push(("Min-SE".to_owned(), least.to_string()));
        }
        headers
    }

    /// Takes in a 422; whether the request is worth another attempt (section 7.3).
    pub(super) fn raise_interval(&mut self, response: &Response) -> bool {
        let least = response.header("Min-SE").next().and_then(|value| token_of(value).parse().ok());
        let Some(least) = least.filter(|least| (self.inside.timer.asks + 1..=MOST).contains(least)) else {
            return false;
        };
        (self.inside.timer.asks, self.inside.timer.least) = (least, least);
        true
    }

    /// A 2xx to a request of ours says what holds (section 7.2).
    pub(super) fn timer_agreed(&mut self, response: &Response, now: Instant) {
        match asked(response.header("Session-Expires").chain(response.header("x"))) {
            Some((interval, refresher)) => self.run_timer(interval, refresher != Some("uas"), now),
            None => self.run_timer(0, false, now),
        }
    }

    fn run_timer(&mut self, interval: u32, ours: bool, now: Instant) {
        let interval = if interval == 0 { 0 } else { interval.clamp(LEAST / 3, MOST) };
        (self.inside.timer.interval, self.inside.timer.ours) = (interval, ours);
        let seconds = |seconds: u32| Some(now + Duration::from_secs(seconds.into()));
        self.deadlines.refresh = if interval > 0 && ours { seconds(interval / 2) } else { None };
        // Section 10: a little before the far end would.
        self.deadlines.expiry = if interval > 0 { seconds(interval - (interval / 3).min(32)) } else { None };
    }

    /// A call of a former control: nobody knows when its session was refreshed last.
    pub(super) fn resume_timer(&mut self, (interval, ours): (u32, bool), now: Instant) {
        self.run_timer(interval, ours, now);
        if self.deadlines.refresh.is_some() {
            let part = self.random.u32() % (interval / 4).max(1);
            self.deadlines.refresh = Some(now + Duration::from_secs(part.into()));
        }
    }

    /// The refusal of a request whose interval is too small (section 9).
    pub(super) fn too_brief(request: &Request) -> Option<Response> {
        let brief = asked_by(request).is_some_and(|(interval, _)| interval < LEAST);
        if !brief || !request.lists("Supported", "timer") {
            return None;
        }
        let mut response = Response::to_request(request, 422, "Session Interval Too Small");
        response.headers.push(("Min-SE".into(), LEAST.to_string()));
        Some(response)
    }

    /// Adds to a 2xx of ours what holds from now on (section 9, table 2).
    pub(super) fn timer_answered(&mut self, request: &Request, response: &mut Response, now: Instant) {
        let supports = request.lists("Supported", "timer") || request.lists("Require", "timer");
        let (interval, ours) = match asked_by(request) {
            Some((interval, Some("uas"))) => (interval, true),
            Some((interval, _)) => (interval.max(LEAST), !supports),
            None if supports => (INTERVAL, true),
            None => return self.run_timer(0, false, now),
        };
        let role = if ours { "uas" } else { "uac" };
        response.headers.push(("Session-Expires".into(), format!("{interval};refresher={role}")));
        if !ours {
            response.headers.push(("Require".into(), "timer".into()));
        }
        self.run_timer(interval, ours, now);
    }

    /// Refreshes the session: by UPDATE without a body, or by a re-INVITE with the session as it is.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.deadlines.refresh = None;
        if !self.inside.dialog.updates {
            if self.can_offer() {
                self.send_reinvite();
            } else {
                self.deadlines.refresh = Some(now + AGAIN);
            }
            return;
        }
        let mut request = self.inside.dialog.next(Method::Update);
        request.contact = Some(self.inside.dialog.contact.clone());
        request.headers.push(("Supported".into(), SUPPORTED.into()));
        request.headers.extend(self.timer_headers(true));
        if !self.ask(Purpose::Refresh, request) {
            self.deadlines.refresh = Some(now + AGAIN);
        }
    }

    /// What came of an UPDATE that refreshes.
    pub(super) fn refresh_settled(&mut self, response: Option<&Response>, now: Instant) {
        let Some(response) = response else { return };
        match response.status {
            200..=299 => {
                self.inside.dialog.refresh(response.contact.as_deref());
                self.timer_agreed(response, now);
            }
            422 if self.raise_interval(response) => self.refresh(now),
            405 | 501 => {
                self.inside.dialog.updates = false;
                self.refresh(now);
            }
            _ => self.refresh_later(now),
        }
    }

    /// A refresh failed: there is time for another until the session expires.
    pub(super) fn refresh_later(&mut self, now: Instant) {
        let timer = self.inside.timer;
        self.deadlines.refresh = (timer.interval > 0 && timer.ours).then(|| now + AGAIN);
    }

    /// Nobody refreshed the session.
    pub(super) fn expired(&mut self, now: Instant) {
        self.end(EndCause::Protocol("the session was not refreshed in time".into()), now);
    }
}
