//! Calls that the browser makes: its INVITE becomes a call of ours, whose progress is its answers.

use sallyport_plan::CallId;

use super::text::{called, host_of, is_type};
use super::timers::long_enough;
use super::{LEGS, Leg, Phone, PhoneCommand, Refusal, Secret, State};
use crate::api::EndCause;
use crate::sip::header::uri_of;
use crate::sip::{Dialog, Method, Request, TransactionId};

/// Octets of one header that goes on, and how many do.
const HEADER_MAX: usize = 2048;
const HEADERS_MAX: usize = 16;

/// A browser's INVITE under way.
#[derive(Debug)]
pub struct Calling {
    pub transaction: TransactionId,
    request: Request,
    to: String,
    token: Option<Secret>,
    begun: bool,
    rings: bool,
    /// Our answer, that 183 and 200 have alike.
    answer: Option<String>,
    answered: bool,
}

impl Phone {
    pub(super) fn invited(&mut self, transaction: TransactionId, request: Request) {
        match self.calls(transaction, &request) {
            Ok(()) => self.begin_calls(),
            Err(refusal) => self.refuse(transaction, &request, refusal),
        }
    }

    fn calls(&mut self, transaction: TransactionId, request: &Request) -> Result<(), Refusal> {
        if request.contact.is_none() {
            return Err(Refusal::because(400, "an INVITE needs a Contact"));
        }
        if request.header("Replaces").next().is_some() {
            return Err(Refusal::plain(481));
        }
        offered(request)?;
        long_enough(request)?;
        let own = if self.host.is_empty() { host_of(uri_of(&request.from)) } else { self.host.as_str() };
        let to = called(&request.uri, own).ok_or(Refusal::because(484, "the Request-URI names nobody"))?;
        if self.legs.len() >= LEGS {
            return Err(Refusal::because(486, "this browser has as many calls as it may have"));
        }
        let token = self.shown(request)?;
        if self.host.is_empty() {
            host_of(uri_of(&request.from)).clone_into(&mut self.host);
        }
        let dialog =
            Dialog::invited(request, &self.random.hex(8), self.contact(), self.settings.agent.clone());
        let calling = Calling {
            transaction,
            request: request.clone(),
            to,
            token: token.clone(),
            begun: false,
            rings: false,
            answer: None,
            answered: false,
        };
        let call = CallId(u128::from(self.random.u64()) << 64 | u128::from(self.random.u64()));
        let leg = Leg {
            dialog,
            state: State::Calling(Box::new(calling)),
            offering: None,
            picture: super::offering::Picture::None,
            subscription: None,
            timer: None,
        };
        self.legs.insert(call, leg);
        let trying = self.answer(request, 100);
        self.reply(transaction, trying);
        // What was shown since may open more.
        let more = self.registration.is_none() && token.is_some() && token != self.entered;
        if (!self.signed_in || more) && self.asked.is_empty() {
            self.entered.clone_from(&token);
            self.asked.push_back(None);
            let instance = String::new();
            self.commands.push_back(PhoneCommand::SignIn { number: None, instance, token });
        }
        Ok(())
    }

    /// Calls begin once somebody is told of them.
    pub(super) fn begin_calls(&mut self) {
        if !self.signed_in || !self.asked.is_empty() {
            return;
        }
        for (call, leg) in &mut self.legs {
            if let State::Calling(calling) = &mut leg.state
                && !std::mem::replace(&mut calling.begun, true)
            {
                self.commands.push_back(PhoneCommand::Create {
                    call: *call,
                    to: calling.to.clone(),
                    offer: String::from_utf8_lossy(&calling.request.body).into_owned(),
                    headers: passed(&calling.request),
                    token: calling.token.clone(),
                });
            }
        }
    }

    /// Nobody can be told of them.
    pub(super) fn refuse_calls(&mut self, refusal: &Refusal) {
        let waiting = |(call, leg): (&CallId, &Leg)| {
            matches!(&leg.state, State::Calling(calling) if !calling.begun).then_some(*call)
        };
        let waiting: Vec<CallId> = self.legs.iter().filter_map(waiting).collect();
        for call in waiting {
            self.fail(call, refusal.clone());
        }
    }

    pub(super) fn created(&mut self, call: CallId, outcome: Result<(String, bool), Refusal>) {
        match outcome {
            Ok((answer, answered)) => {
                let Some(calling) = self.calling(call) else {
                    // Given up meanwhile.
                    self.commands.push_back(PhoneCommand::HangUp(call));
                    return;
                };
                calling.answer = Some(answer);
                calling.answered |= answered;
                if calling.answered { self.establish(call) } else { self.progress(call, 183) }
            }
            Err(refusal) => {
                if refusal.status == 401 {
                    self.token = None;
                }
                self.fail(call, refusal);
            }
        }
    }

    fn calling(&mut self, call: CallId) -> Option<&mut Calling> {
        match self.legs.get_mut(&call).map(|leg| &mut leg.state) {
            Some(State::Calling(calling)) => Some(calling),
            _ => None,
        }
    }

    /// The called side rings.
    pub(super) fn rings(&mut self, call: CallId) {
        if self.calling(call).is_some_and(|calling| !std::mem::replace(&mut calling.rings, true)) {
            self.progress(call, 180);
        }
    }

    fn progress(&mut self, call: CallId, status: u16) {
        self.respond(call, status);
    }

    /// The called side has answered: 200, once our answer is there too.
    pub(super) fn answered(&mut self, call: CallId) {
        let Some(calling) = self.calling(call) else { return };
        calling.answered = true;
        if calling.answer.is_some() {
            self.establish(call);
        }
    }

    fn establish(&mut self, call: CallId) {
        self.respond(call, 200);
        if let Some(leg) = self.legs.get_mut(&call) {
            leg.state = State::Up;
        }
    }

    fn respond(&mut self, call: CallId, status: u16) {
        let Some(leg) = self.legs.get(&call) else { return };
        let State::Calling(calling) = &leg.state else { return };
        let mut response = self.answer(&calling.request, status);
        response.to.clone_from(&leg.dialog.from);
        response.contact = Some(leg.dialog.contact.clone());
        if let Some(answer) = calling.answer.as_ref().filter(|_| status != 180) {
            response.content_type = Some("application/sdp".into());
            response.body = answer.clone().into_bytes();
        }
        let transaction = calling.transaction;
        if status == 200 {
            let request = calling.request.clone();
            self.agree(call, &request, &mut response);
        }
        self.reply(transaction, response);
    }

    /// The INVITE gets its final answer, and the call is forgotten.
    pub(super) fn fail(&mut self, call: CallId, refusal: Refusal) {
        if self.calling(call).is_none() {
            return;
        }
        if let Some(Leg { dialog, state: State::Calling(calling), .. }) = self.legs.remove(&call) {
            let request = Request { to: dialog.from, ..calling.request };
            self.refuse(calling.transaction, &request, refusal);
        }
    }

    /// The call ended before it was answered.
    pub(super) fn unanswered(&mut self, call: CallId, cause: &EndCause) {
        // Without our answer there is a better word to come.
        if self.calling(call).is_some_and(|calling| calling.answer.is_some()) {
            self.fail(call, Refusal::because(super::status_of(cause), cause.text()));
        }
    }

    pub(super) fn cancelled(&mut self, transaction: TransactionId) {
        let same =
            |leg: &Leg| matches!(&leg.state, State::Calling(calling) if calling.transaction == transaction);
        let found = self.legs.iter().find(|(_, leg)| same(leg)).map(|(call, _)| *call);
        if let Some(call) = found {
            self.give_up(call);
        }
        let offering = |leg: &&mut Leg| leg.offering.as_ref().is_some_and(|(have, _)| *have == transaction);
        if let Some((transaction, request)) =
            self.legs.values_mut().find(offering).and_then(|leg| leg.offering.take())
        {
            self.refuse(transaction, &request, Refusal::plain(487));
        }
    }

    /// The browser does not wait for the answer any more.
    pub(super) fn give_up(&mut self, call: CallId) {
        let begun = self.calling(call).is_some_and(|calling| calling.begun);
        self.fail(call, Refusal::plain(487));
        if begun {
            self.commands.push_back(PhoneCommand::Abandon(call));
        }
    }
}

/// Whether a request offers media.
///
/// # Errors
/// Why not, as its answer.
pub fn offered(request: &Request) -> Result<(), Refusal> {
    if request.body.is_empty() {
        return Err(Refusal::because(488, "an offer is needed in the INVITE itself"));
    }
    if !is_type(request.content_type.as_deref(), "application/sdp") {
        return Err(Refusal::plain(415));
    }
    Ok(())
}

/// Headers that may be user data; what the configuration lets pass is the daemon's to say.
fn passed(request: &Request) -> Vec<(String, String)> {
    debug_assert!(request.method == Method::Invite);
    let short = |(name, value): &&(String, String)| name.len() + value.len() <= HEADER_MAX;
    let own = |(name, _): &&(String, String)| {
        name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("X-"))
            || name.eq_ignore_ascii_case("User-to-User")
    };
    request.headers.iter().filter(short).filter(own).take(HEADERS_MAX).cloned().collect()
}
