//! Session timers of the browser's dialogs (RFC 4028): what it asks for is agreed to, a session that nobody refreshes ends.

use std::time::{Duration, Instant};

use sallyport_plan::CallId;

use super::{Phone, PhoneCommand, Purpose, Refusal, State};
use crate::sip::header::{parameter_of, token_of};
use crate::sip::{Method, Request, Response};

/// Seconds: the least that we take (section 5), the most that is waited for.
pub const LEAST: u32 = 90;
const MOST: u32 = 86_400;

/// The timer of one dialog.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    /// Seconds that the session lives without a refresh.
    interval: u32,
    /// When we refresh it; `None`: the browser does.
    refresh: Option<Instant>,
    /// When it is over.
    expiry: Instant,
}

impl Timer {
    fn new(interval: u32, ours: bool, now: Instant) -> Self {
        let after = |seconds: u32| now + Duration::from_secs(seconds.into());
        // Section 10: a little before the browser would.
        let expiry = after(interval - (interval / 3).min(32));
        Self { interval, refresh: ours.then(|| after(interval / 2)), expiry }
    }

    /// The next deadline.
    pub fn due(&self) -> Instant {
        self.refresh.map_or(self.expiry, |refresh| refresh.min(self.expiry))
    }
}

/// Seconds that a request asks for, and whether we are to refresh (section 9, table 2): if it does not say, the browser does,
/// where it can.
fn asked(request: &Request) -> Option<(u32, bool)> {
    let value = request.header("Session-Expires").chain(request.header("x")).next()?;
    let seconds: u32 = token_of(value).parse().ok()?;
    let ours = match parameter_of(value, "refresher") {
        Some(role) => role.eq_ignore_ascii_case("uas"),
        None => !(request.lists("Supported", "timer") || request.lists("Require", "timer")),
    };
    Some((seconds, ours))
}

/// Whether a session may be as short as a request wants it.
///
/// # Errors
/// 422 (section 9).
pub fn long_enough(request: &Request) -> Result<(), Refusal> {
    let brief = asked(request).is_some_and(|(seconds, _)| seconds < LEAST);
    if brief && request.lists("Supported", "timer") { Err(Refusal::plain(422)) } else { Ok(()) }
}

impl Phone {
    /// What a 2xx to an INVITE or UPDATE says of the session, whose timer runs from now on.
    pub(super) fn agree(&mut self, call: CallId, request: &Request, response: &mut Response) {
        let now = self.now;
        let Some(leg) = self.legs.get_mut(&call) else { return };
        leg.timer = asked(request).map(|(seconds, ours)| {
            let interval = seconds.clamp(LEAST, MOST);
            let role = if ours { "uas" } else { "uac" };
            response.headers.push(("Session-Expires".into(), format!("{interval};refresher={role}")));
            if !ours {
                response.headers.push(("Require".into(), "timer".into()));
            }
            Timer::new(interval, ours, now)
        });
    }

    /// When the next dialog is to be refreshed, or is over.
    pub(super) fn timers(&self) -> Option<Instant> {
        self.legs.values().filter_map(|leg| leg.timer.map(|timer| timer.due())).min()
    }

    /// Refreshes what is ours to refresh, and ends what nobody has refreshed. A browser whose connection is gone has its own
    /// time to come back.
    pub(super) fn keep_time(&mut self) {
        let now = self.now;
        let due: Vec<CallId> = self
            .legs
            .iter()
            .filter(|(_, leg)| leg.timer.is_some_and(|timer| timer.due() <= now))
            .map(|(call, _)| *call)
            .collect();
        for call in due {
            let Some(leg) = self.legs.get_mut(&call) else { continue };
            let Some(timer) = &mut leg.timer else { continue };
            if timer.expiry <= now {
                if self.lost.is_some() {
                    leg.timer = None;
                    continue;
                }
                self.commands.push_back(PhoneCommand::HangUp(call));
                self.part(call, Some("SIP;cause=408;text=\"Session Expired\""));
                continue;
            }
            timer.refresh = None;
            if matches!(leg.state, State::Up) {
                let interval = timer.interval;
                let mut request = leg.dialog.next(Method::Update);
                request.headers.push(("Supported".into(), "timer".into()));
                request.headers.push(("Session-Expires".into(), format!("{interval};refresher=uac")));
                self.send(Purpose::Refresh(call), request);
            }
        }
    }

    /// The browser has answered a refresh of ours.
    pub(super) fn refreshed(&mut self, call: CallId, status: u16) {
        let now = self.now;
        let Some(timer) = self.legs.get_mut(&call).and_then(|leg| leg.timer.as_mut()) else { return };
        if (200..300).contains(&status) {
            *timer = Timer::new(timer.interval, true, now);
        } else if timer.refresh.is_none() {
            // Refused for now (section 7.4): once more, while there is time.
            timer.refresh = Some(now + Duration::from_secs(5));
        }
    }
}
