//! A call that comes from the inside: it rings until a browser takes it, nobody does, or the caller gives up.

use std::sync::Arc;
use std::time::Instant;

use sallyport_plan::{CallId, Zone};

use super::Call;
use crate::api::{CallEvent, Command, EndCause, Party};
use crate::error::AcceptError;
use crate::random::{Random, Seed};
use crate::sdp::{BrowserOffer, Codec, Direction, InsideAnswer, InsideOffer};
use crate::settings::Settings;
use crate::sip::header::{display_name_of, tag_of, uri_of, user_of};
use crate::sip::{Dialog, Request, Response, TransactionId};

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
}

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
        let offer = match request.body.is_empty() {
            true => None,
            false => {
                Some(InsideAnswer::parse(&request.body).map_err(|_| refuse(488, "Not Acceptable Here"))?)
            }
        };
        if offer
            .as_ref()
            .is_some_and(|offer| !offer.has_address() || !offer.codecs.iter().any(|c| c.kind.is_sound()))
        {
            return Err(refuse(488, "Not Acceptable Here"));
        }
        let mut random = Random::new(seed);
        let contact = format!("<{}>", settings.sip.contact);
        let dialog = Dialog::invited(&request, &random.hex(8), contact, settings.sip.user_agent.clone());
        let party = Party {
            user: user_of(uri_of(&request.from)).to_owned(),
            display_name: display_name_of(&request.from),
            password: String::new(),
        };
        let mut call = Self::bare(id, (to, party), created, settings, random, dialog);
        call.incoming = true;
        call.inside.invited = Some(Invited { transaction, request, offer, taken: false, done: false });
        call.answer_invite(180, "Ringing", None);
        let toward = call.settings.toward;
        call.commands.push_back(Command::Reserve { toward, pairs: 1 });
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
        let Some(own) = &mut self.inside.offer else { return };
        let pair = sallyport_plan::PortPair { rtp: own.rtp, rtcp: own.rtcp };
        let cseq = invited.request.cseq;
        let mut offer = InsideOffer::new(self.session, pair, &self.outside.codecs);
        let theirs = invited.offer.clone();
        if let Some(theirs) = &theirs {
            offer.speak_as(&theirs.codecs);
        }
        *own = offer;
        self.inside.version = 1;
        let text = match theirs {
            Some(theirs) => {
                let direction = theirs.direction.answer(Direction::SendRecv);
                match self.fit(theirs) {
                    Ok(fit) => self.adopt(fit),
                    Err(cause) => return self.end(cause, now),
                }
                self.description(&self.spoken(), direction)
            }
            None => {
                self.inside.offering = Some((cseq, now + super::peer::ACK_PATIENCE));
                self.description(&self.offered(), Direction::SendRecv)
            }
        };
        self.inside.answered = true;
        self.deadlines.ring = None;
        self.answer_invite(200, "OK", Some(text));
        self.notify(CallEvent::Answered);
        if self.inside.answer.is_some() {
            self.answer_browser(now);
        }
        self.replan(now);
    }

    /// The codecs of the call as the inside sends them to us.
    pub(super) fn spoken(&self) -> Vec<Codec> {
        let own = |chosen: &crate::sdp::Chosen| Codec { kind: chosen.kind, payload_type: chosen.from_inside };
        self.inside.chosen.iter().map(own).collect()
    }

    /// Answers the INVITE; a description makes it one with an SDP.
    fn answer_invite(&mut self, status: u16, reason: &str, description: Option<String>) {
        let contact = self.inside.dialog.contact.clone();
        let to = self.inside.dialog.from.clone();
        let Some(invited) = self.inside.invited.as_mut().filter(|invited| !invited.done) else { return };
        invited.done = status >= 200;
        let mut response = Response::to_request(&invited.request, status, reason);
        response.to = to;
        if status < 300 {
            response.contact = Some(contact);
        }
        if let Some(text) = description {
            response.content_type = Some("application/sdp".into());
            response.headers.push(("Allow".into(), crate::sip::ALLOW.into()));
            response.body = text.into_bytes();
        }
        let transaction = invited.transaction;
        self.commands.push_back(Command::SipReply { transaction, response });
    }

    /// No browser takes it.
    pub(super) fn decline(&mut self, status: u16, now: Instant) {
        if self.inside.invited.as_ref().is_none_or(|invited| invited.done || invited.taken) {
            return;
        }
        self.answer_invite(status.clamp(400, 699), reason(status), None);
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
        self.answer_invite(487, "Request Terminated", None);
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
        self.answer_invite(status, reason(status), None);
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
