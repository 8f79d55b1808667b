//! A call that comes from the inside: it rings until a browser takes it, nobody does, or the caller gives up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_plan::{CallId, Zone};

use super::Call;
use super::peer::{ACK_PATIENCE, OK, UNKNOWN, Unacked, answer, objection, unacceptable};
use super::rules::{Carrier, Exchange, Verdict, judge};
use super::secrecy;
use super::video::Saying;
use crate::api::{CallEvent, Command, EndCause};
use crate::error::AcceptError;
use crate::random::{Random, Seed};
use crate::sdp::{BrowserOffer, InsideAnswer, InsideOffer};
use crate::settings::Settings;
use crate::sip::header::tag_of;
use crate::sip::{ALLOW, Dialog, Request, Response, SUPPORTED, TransactionId};

/// An INVITE of the inside.
#[derive(Debug)]
pub struct Invited {
    transaction: TransactionId,
    request: Request,
    /// `None`: it has no offer, so that our answer has one (RFC 3261 section 13.3.1).
    pub(super) offer: Option<InsideAnswer>,
    /// Whether a browser took the call.
    pub(super) taken: bool,
    pub(super) done: bool,
    /// The 180 that waits for its PRACK.
    reliable: Option<Reliable>,
}

/// A provisional answer that the caller wants to acknowledge (RFC 3262 section 3).
#[derive(Debug)]
struct Reliable {
    rseq: u32,
    response: Response,
    interval: Duration,
    resend: Instant,
    until: Instant,
}

/// First time after which a reliable provisional answer is sent again; it doubles, 64 times this is the end.
const T1: Duration = Duration::from_millis(500);

impl Invited {
    /// Whether it has its final answer.
    pub fn is_final(&self) -> bool {
        self.done
    }
}

impl Call {
    /// Begins a call with an INVITE of the inside, that has no tag in To. It rings at once; [`Self::accept`] or
    /// [`crate::Input::Decline`] say what becomes of it.
    ///
    /// # Errors
    /// The answer to an INVITE that cannot become a call.
    pub fn incoming(
        (id, seed, created): (CallId, Seed, u64),
        settings: Arc<Settings>,
        to: String,
        transaction: TransactionId,
        request: Request,
        now: Instant,
    ) -> Result<Self, Box<Response>> {
        let refuse = |status, reason: &str| Box::new(Response::to_request(&request, status, reason));
        if tag_of(&request.from).is_none() {
            return Err(refuse(400, "Missing From Tag"));
        }
        if let Some(refusal) = objection(&request).or_else(|| Self::too_brief(&request)) {
            return Err(Box::new(refusal));
        }
        let unusable = |text: &str| Box::new(unacceptable(&request, text));
        let offer = match request.body.is_empty() {
            true => None,
            false => {
                let mut offer = InsideAnswer::parse(&request.body).map_err(|text| unusable(&text))?;
                offer.reach(settings.toward).map_err(unusable)?;
                let policy = settings.sip.policy.srtp;
                offer.video.take_if(|video| secrecy::objection(policy, &video.keying).is_some());
                Some(offer)
            }
        };
        let secrecy =
            offer.as_ref().and_then(|offer| secrecy::objection(settings.sip.policy.srtp, &offer.keying));
        if let Some(text) = secrecy {
            return Err(Box::new(unacceptable(&request, text)));
        }
        if offer.as_ref().is_some_and(|offer| !offer.has_address()) {
            return Err(unusable("the inside names no usable address"));
        }
        if offer.as_ref().is_some_and(|offer| !settings.sip.policy.has_sound(&offer.codecs)) {
            return Err(unusable(&EndCause::NoCodec.text()));
        }
        let mut random = Random::new(seed);
        let contact = format!("<{}>", settings.sip.contact);
        let dialog = Dialog::invited(&request, &random.hex(8), contact, settings.sip.user_agent.clone());
        let party = super::identity::caller(&request, &settings.sip);
        let mut call = Self::bare(id, (to, party), created, settings, random, dialog);
        call.incoming = true;
        call.passed = super::identity::passed(&request.headers, &call.settings.sip);
        call.inside.invited =
            Some(Invited { transaction, request, offer, taken: false, done: false, reliable: None });
        call.ring(now);
        let offered = call.inside.invited.as_ref().and_then(|invited| invited.offer.as_ref());
        let video = offered.is_none_or(|offer| offer.video.is_some());
        let (toward, pairs) = (call.settings.toward, call.pairs(video));
        call.commands.push_back(Command::Reserve { toward, pairs });
        call.deadlines.relay = Some(now + call.settings.timeouts.relay);
        call.deadlines.ring = Some(now + call.settings.timeouts.ring);
        Ok(call)
    }

    /// A browser takes the call with its offer, and gets an answer as one that calls does.
    ///
    /// # Errors
    /// [`AcceptError`]: the call rings on for others, or is over.
    pub fn accept(&mut self, offer: &str, zone: Zone, now: Instant) -> Result<(), AcceptError> {
        let rings = self.inside.invited.as_ref().is_some_and(|invited| !invited.taken && !invited.done);
        if !rings || self.cause.is_some() {
            return Err(AcceptError::Gone);
        }
        let offer = BrowserOffer::parse(offer)?;
        if let Some(invited) = &mut self.inside.invited {
            invited.taken = true;
        }
        self.browser_offers(offer, zone);
        self.take_up(now);
        Ok(())
    }

    /// A browser has taken the call and there are ports: it is answered.
    pub(super) fn take_up(&mut self, now: Instant) {
        let Some(invited) = self.inside.invited.as_ref().filter(|invited| invited.taken && !invited.done)
        else {
            return;
        };
        let (events, extensions) = (self.offers_events(), self.first_extensions());
        let Some(own) = &mut self.inside.offer else { return };
        let pair = sallyport_plan::PortPair { rtp: own.rtp, rtcp: own.rtcp };
        let cseq = invited.request.cseq;
        let mut offer = InsideOffer::new(
            self.session,
            pair,
            &self.outside.codecs,
            &self.settings.sip.policy.codecs,
            events,
        );
        let theirs = invited.offer.clone();
        offer.extensions = extensions;
        if let Some(theirs) = &theirs {
            offer.speak_as(&theirs.codecs);
        }
        self.video.speak_as(theirs.as_ref().and_then(|theirs| theirs.video.as_ref()));
        *own = offer;
        self.inside.told = self.outside.direction;
        let late = theirs.is_none();
        let text = match theirs {
            Some(theirs) => {
                match self.fit_offer(theirs) {
                    Ok(fit) => self.adopt(fit),
                    Err(cause) => return self.end(cause, now),
                }
                self.describe(&self.spoken(), Saying::Answer)
            }
            None => self.describe(&self.offered(), Saying::Offer),
        };
        let (until, offering) = (now + ACK_PATIENCE, late.then_some(self.outside.direction));
        self.inside.unacked = Some(Unacked { cseq, until, offering, first: true });
        self.inside.answered = true;
        self.deadlines.ring = None;
        self.take_invite(text, now);
        self.notify(CallEvent::Answered);
        self.note_hold();
        if self.inside.answer.is_some() {
            self.answer_browser(now);
        }
        self.replan(now);
    }

    /// 180, reliably where the caller asks for that.
    fn ring(&mut self, now: Instant) {
        let rseq = 1 + self.random.u32() % (1 << 30);
        let (contact, to) = (self.inside.dialog.contact.clone(), self.inside.dialog.from.clone());
        let Some(invited) = self.inside.invited.as_mut() else { return };
        let mut response = Response::to_request(&invited.request, 180, "Ringing");
        (response.to, response.contact) = (to, Some(contact));
        if invited.request.lists("Require", "100rel") {
            response.headers.push(("Require".into(), "100rel".into()));
            response.headers.push(("RSeq".into(), rseq.to_string()));
            let (resend, until) = (now + T1, now + T1 * 64);
            let reliable = Reliable { rseq, response: response.clone(), interval: T1, resend, until };
            invited.reliable = Some(reliable);
        }
        let transaction = invited.transaction;
        self.reply(transaction, response);
    }

    /// When a reliable provisional answer is due again.
    pub(super) fn reliable_due(&self) -> Option<Instant> {
        let invited = self.inside.invited.as_ref().filter(|invited| !invited.done)?;
        invited.reliable.as_ref().map(|reliable| reliable.resend.min(reliable.until))
    }

    /// The PRACK has not come yet: once more, or never (RFC 3262 section 3).
    pub(super) fn repeat_reliable(&mut self, now: Instant) {
        let Some(invited) = self.inside.invited.as_mut().filter(|invited| !invited.done) else { return };
        let Some(reliable) = &mut invited.reliable else { return };
        if reliable.until <= now {
            self.answer_invite(504, "Server Time-out");
            self.end(EndCause::Protocol("the caller did not acknowledge that it rings".into()), now);
            return;
        }
        reliable.interval *= 2;
        reliable.resend = now + reliable.interval;
        let (transaction, response) = (invited.transaction, reliable.response.clone());
        self.reply(transaction, response);
    }

    /// Whether a request is in the dialog of an INVITE that rings here.
    pub(super) fn rings_for(&self, request: &Request) -> bool {
        let rings = self.inside.invited.as_ref().is_some_and(|invited| !invited.done);
        rings && self.inside.dialog.is(&request.call_id, tag_of(&request.from))
    }

    /// A request of a caller whose call rings here.
    pub(super) fn while_it_rings(
        &mut self,
        transaction: TransactionId,
        request: &Request,
        now: Instant,
    ) -> Option<Response> {
        if !self.inside.dialog.admit(request) {
            return Some(answer(request, (500, "Server Internal Error")));
        }
        let described = !request.body.is_empty();
        Some(match request.method.as_str() {
            "PRACK" => match judge(Exchange::Theirs, Carrier::Prack, described, true) {
                Verdict::Nothing => self.acknowledged_ringing(request),
                _ => self.later(request),
            },
            "BYE" => {
                // A caller may leave that way, too (RFC 3261 section 15).
                self.reply(transaction, answer(request, OK));
                self.answer_invite(487, "Request Terminated");
                self.end(EndCause::Cancelled, now);
                return None;
            }
            "INVITE" => self.later(request),
            "UPDATE" => match judge(Exchange::Theirs, Carrier::Update, described, true) {
                Verdict::Nothing => {
                    self.inside.dialog.refresh(request.contact.as_deref());
                    self.agreement(request, None)
                }
                _ => self.later(request),
            },
            "INFO" => self.informed(request, now),
            "NOTIFY" => self.notified(request),
            "OPTIONS" => answer(request, OK),
            "CANCEL" => answer(request, UNKNOWN),
            "REFER" => answer(request, (603, "Decline")),
            _ => answer(request, (405, "Method Not Allowed")),
        })
    }

    fn acknowledged_ringing(&mut self, request: &Request) -> Response {
        let Some(invited) = &mut self.inside.invited else { return answer(request, UNKNOWN) };
        let named = request.header("RAck").next().unwrap_or_default();
        let cseq = invited.request.cseq;
        let expected = |reliable: &Reliable| format!("{} {cseq} INVITE", reliable.rseq);
        let words: Vec<&str> = named.split_whitespace().collect();
        match invited.reliable.take_if(|reliable| expected(reliable) == words.join(" ")) {
            Some(_) => answer(request, OK),
            None => answer(request, UNKNOWN),
        }
    }

    /// 200 to the INVITE.
    fn take_invite(&mut self, text: String, now: Instant) {
        let to = self.inside.dialog.from.clone();
        let Some(invited) = self.inside.invited.as_mut().filter(|invited| !invited.done) else { return };
        invited.done = true;
        let (transaction, request) = (invited.transaction, invited.request.clone());
        let mut response = self.agreement(&request, Some(text));
        response.to = to;
        self.timer_answered(&request, &mut response, now);
        self.reply(transaction, response);
    }

    /// A final answer to the INVITE that is none to be glad of.
    fn answer_invite(&mut self, status: u16, reason: &str) {
        let to = self.inside.dialog.from.clone();
        let Some(invited) = self.inside.invited.as_mut().filter(|invited| !invited.done) else { return };
        invited.done = true;
        let mut response = Response::to_request(&invited.request, status, reason);
        response.to = to;
        if [405, 488].contains(&status) {
            response.headers.push(("Allow".into(), ALLOW.into()));
            response.headers.push(("Supported".into(), SUPPORTED.into()));
        }
        let transaction = invited.transaction;
        self.reply(transaction, response);
    }

    /// Headers of the INVITE that the configuration lets pass to browsers.
    pub fn passed(&self) -> &[(String, String)] {
        &self.passed
    }

    /// No browser takes it.
    pub(super) fn decline(&mut self, status: u16, now: Instant) {
        if self.inside.invited.as_ref().is_none_or(|invited| invited.done || invited.taken) {
            return;
        }
        self.answer_invite(status.clamp(400, 699), reason(status));
        self.end(EndCause::Declined, now);
    }

    /// The caller gave up.
    pub(super) fn cancelled(&mut self, transaction: TransactionId, now: Instant) {
        if self
            .inside
            .invited
            .as_ref()
            .is_none_or(|invited| invited.done || invited.transaction != transaction)
        {
            return;
        }
        self.answer_invite(487, "Request Terminated");
        self.end(EndCause::Cancelled, now);
    }

    /// The INVITE gets its final answer, as the call ends before a browser took it.
    pub(super) fn refuse(&mut self) {
        let status = match &self.cause {
            Some(EndCause::NoCodec) => 488,
            Some(EndCause::HangUp | EndCause::Declined) => 603,
            Some(EndCause::RelayLost | EndCause::Refused(_)) => 503,
            _ => 480,
        };
        self.answer_invite(status, reason(status));
    }
}

/// The words of RFC 3261 section 21 for the statuses that end a call which rings.
const fn reason(status: u16) -> &'static str {
    match status {
        404 => "Not Found",
        480 => "Temporarily Unavailable",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        503 => "Service Unavailable",
        600 => "Busy Everywhere",
        603 => "Decline",
        _ => "Refused",
    }
}
