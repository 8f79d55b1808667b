//! Requests of the far end: within the dialog, in one that only rings yet, in one that was replaced.

use std::time::{Duration, Instant};

use super::Call;
use super::inside::Early;
use super::rules::{Carrier, Exchange, Verdict, judge};
use super::video::Saying;
use crate::api::{CallEvent, Command, EndCause};
use crate::sdp::{Codec, Direction, InsideAnswer};
use crate::sip::header::tag_of;
use crate::sip::{ALLOW, Method, Request, Response, SUPPORTED, TransactionId};

/// How long the ACK to a 2xx of ours may take (RFC 3261 section 13.3.1.4: 64 times T1).
pub(super) const ACK_PATIENCE: Duration = Duration::from_secs(32);
/// How long the answer to an UPDATE is under way at the most, unless it is lost (RFC 3261 section 17.1.1.1).
const T1: Duration = Duration::from_millis(500);
/// Seconds after which an offer that came too early may be made again (RFC 3311 section 5.2: 0 to 10).
const RETRY_AFTER: u32 = 10;

pub(super) type Status = (u16, &'static str);

pub(super) const OK: Status = (200, "OK");
pub(super) const UNKNOWN: Status = (481, "Call/Transaction Does Not Exist");
pub(super) const NOT_ACCEPTABLE: Status = (488, "Not Acceptable Here");
pub(super) const PENDING: Status = (491, "Request Pending");
pub(super) const OUT_OF_ORDER: Status = (500, "Server Internal Error");
pub(super) const NOT_ALLOWED: Status = (405, "Method Not Allowed");

/// A 2xx of ours to an INVITE, whose ACK is to come.
#[derive(Debug)]
pub(super) struct Unacked {
    pub cseq: u32,
    pub until: Instant,
    /// The direction that an offer of ours in it has; `None` without one.
    pub offering: Option<Direction>,
    /// Whether it began the dialog.
    pub first: bool,
}

/// A short answer.
pub(super) fn answer(request: &Request, (status, reason): Status) -> Response {
    let mut response = Response::to_request(request, status, reason);
    if status == NOT_ALLOWED.0 {
        response.headers.push(("Allow".into(), ALLOW.into()));
    }
    response
}

/// 488 that says why (RFC 3261 section 20.43).
pub(super) fn unacceptable(request: &Request, text: &str) -> Response {
    let mut response = answer(request, NOT_ACCEPTABLE);
    response.headers.push(("Warning".into(), format!("399 sallyport \"{text}\"")));
    response
}

/// The refusal of a request that wants an extension of us that we do not know (RFC 3261 section 8.2.2.3), or whose body
/// is no description (section 8.2.3).
pub(super) fn objection(request: &Request) -> Option<Response> {
    let wanted = request.header("Require").flat_map(|value| value.split(',')).map(str::trim);
    let known = |option: &&str| {
        option.is_empty() || SUPPORTED.split(", ").any(|one| one.eq_ignore_ascii_case(option))
    };
    let unknown: Vec<&str> = wanted.filter(|option| !known(option)).collect();
    if !unknown.is_empty() {
        let mut response = Response::to_request(request, 420, "Bad Extension");
        response.headers.push(("Unsupported".into(), unknown.join(", ")));
        return Some(response);
    }
    let described = matches!(request.method, Method::Invite | Method::Update) && !request.body.is_empty();
    let kind = request.content_type.as_deref().unwrap_or("application/sdp");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if described && !kind.eq_ignore_ascii_case("application/sdp") {
        let mut response = Response::to_request(request, 415, "Unsupported Media Type");
        response.headers.push(("Accept".into(), "application/sdp".into()));
        return Some(response);
    }
    None
}

impl Call {
    pub(super) fn sip_request(&mut self, transaction: TransactionId, request: &Request, now: Instant) {
        if self.recorder_asks(transaction, request, now) {
            return self.finish_if_quiet();
        }
        let tag = tag_of(&request.from);
        let known = self.inside.answered && !self.inside.gone && self.inside.dialog.is(&request.call_id, tag);
        if request.method == Method::Ack {
            if known {
                self.acknowledged(request, now);
            }
            return;
        }
        let former = self.inside.former.as_ref().is_some_and(|one| one.is(&request.call_id, tag));
        let response = if let Some(refusal) = objection(request) {
            Some(refusal)
        } else if known {
            self.within(transaction, request, now)
        } else if former {
            Some(answer(request, self.of_former(request)))
        } else if self.rings_for(request) {
            self.while_it_rings(transaction, request, now)
        } else {
            Some(self.early(request, now))
        };
        let bye = request.method == Method::Bye && known;
        let left = bye && response.as_ref().is_some_and(|response| response.status == OK.0);
        // `None`: it has its answer.
        if let Some(response) = response {
            self.reply(transaction, response);
        }
        if left {
            self.left(now);
        }
        // Who was transferred talks to somebody else: our part of it is over (RFC 5589 section 6.1).
        if std::mem::take(&mut self.inside.transferred) {
            self.end(EndCause::Transferred, now);
        }
        self.finish_if_quiet();
    }

    /// The far end says BYE: it is over, unless somebody else is just being called in its place.
    fn left(&mut self, now: Instant) {
        self.inside.bye_waits = false;
        if self.inside.referral.is_some() && self.cause.is_none() {
            self.inside.gone = true;
            self.inside.unacked = None;
        } else {
            self.end(EndCause::RemoteHangUp, now);
        }
    }

    fn of_former(&mut self, request: &Request) -> Status {
        if request.method != Method::Bye {
            return UNKNOWN;
        }
        self.inside.former = None;
        self.deadlines.former = None;
        OK
    }

    fn within(&mut self, transaction: TransactionId, request: &Request, now: Instant) -> Option<Response> {
        if !self.inside.dialog.admit(request) {
            return Some(answer(request, OUT_OF_ORDER));
        }
        Some(match request.method.as_str() {
            "INVITE" | "UPDATE" => return self.reinvited(transaction, request, now),
            "INFO" => self.informed(request, now),
            "NOTIFY" => self.notified(request),
            "REFER" => return self.referred(transaction, request, now),
            "OPTIONS" => {
                let mut response = answer(request, OK);
                let tells = [("Allow", ALLOW), ("Supported", SUPPORTED), ("Accept", "application/sdp")];
                response.headers.extend(tells.map(|(name, value)| (name.to_owned(), value.to_owned())));
                response
            }
            "BYE" => answer(request, OK),
            "CANCEL" | "PRACK" => answer(request, UNKNOWN),
            _ => answer(request, NOT_ALLOWED),
        })
    }

    /// A request in a dialog of our INVITE that only rings yet; a BYE must not come there (RFC 3261 section 15).
    fn early(&mut self, request: &Request, now: Instant) -> Response {
        let tag = tag_of(&request.from);
        let ends = self.inside.answered || self.cause.is_some();
        let calling = self.inside.invite.as_mut().filter(|_| !ends);
        let referred = self.inside.referral.as_mut().map(|referral| &mut referral.calling);
        let all = calling.into_iter().chain(referred).flat_map(|calling| &mut calling.early);
        let Some(early) = all.into_iter().find(|early| early.dialog.is(&request.call_id, tag)) else {
            return answer(request, UNKNOWN);
        };
        if !early.dialog.admit(request) {
            return answer(request, OUT_OF_ORDER);
        }
        let exchange = if early.settled { Exchange::Settled } else { Exchange::Ours };
        match request.method.as_str() {
            "INVITE" => answer(request, PENDING),
            "UPDATE" => match judge(exchange, Carrier::Update, !request.body.is_empty(), true) {
                Verdict::Nothing => self.updated(request, None),
                Verdict::Answer => self.early_offer(request, now),
                _ => answer(request, PENDING),
            },
            "INFO" => self.informed(request, now),
            "OPTIONS" => answer(request, OK),
            "NOTIFY" => self.notified(request),
            "BYE" | "CANCEL" | "PRACK" => answer(request, UNKNOWN),
            _ => answer(request, NOT_ALLOWED),
        }
    }

    /// An UPDATE of an early dialog whose offer was answered reliably moves its media (RFC 3311 section 5.2).
    fn early_offer(&mut self, request: &Request, now: Instant) -> Response {
        let own =
            self.inside.invite.as_ref().is_some_and(|calling| calling.dialog.call_id == request.call_id);
        let offer = InsideAnswer::parse(&request.body).ok().filter(|_| own);
        let fit = offer.and_then(|offer| self.fit_offer(offer).ok());
        let Some(fit) = fit else { return answer(request, NOT_ACCEPTABLE) };
        let tag = tag_of(&request.from);
        let call_id = &request.call_id;
        let mut early = self.inside.invite.iter_mut().flat_map(|calling| &mut calling.early);
        if let Some(early) = early.find(|early: &&mut Early| early.dialog.is(call_id, tag)) {
            early.answer = Some(fit.answer.clone());
        }
        self.adopt(fit);
        let text = self.describe(&self.spoken(), Saying::Answer);
        self.replan(now);
        self.updated(request, Some(text))
    }

    /// 200 to an UPDATE in an early dialog, with our answer where it had an offer.
    fn updated(&mut self, request: &Request, text: Option<String>) -> Response {
        let tag = tag_of(&request.from);
        let inside = &mut self.inside;
        let calling = inside.invite.iter_mut().chain(inside.referral.iter_mut().map(|one| &mut one.calling));
        let mut early = calling.flat_map(|calling| &mut calling.early);
        if let Some(early) = early.find(|early| early.dialog.is(&request.call_id, tag)) {
            early.dialog.refresh(request.contact.as_deref());
        }
        self.agreement(request, text)
    }

    pub(super) fn reply(&mut self, transaction: TransactionId, response: Response) {
        self.commands.push_back(Command::SipReply { transaction, response });
    }

    /// How far offer and answer of the dialog are: theirs is answered at once, so that only ours can be open.
    fn exchange(&self) -> Exchange {
        let open = self.inside.reinvite.is_some()
            || self.inside.unacked.as_ref().is_some_and(|one| one.offering.is_some());
        if open { Exchange::Ours } else { Exchange::Settled }
    }

    /// The inside moves its media, holds or refreshes the session: absorbed, the browser sees nothing of it.
    fn reinvited(&mut self, transaction: TransactionId, request: &Request, now: Instant) -> Option<Response> {
        if self.cause.is_some() {
            return Some(answer(request, UNKNOWN));
        }
        if let Some(refusal) = Self::too_brief(request) {
            return Some(refusal);
        }
        let carrier = if request.method == Method::Invite { Carrier::Invite } else { Carrier::Update };
        let text = match judge(self.exchange(), carrier, !request.body.is_empty(), false) {
            Verdict::Pending => return Some(answer(request, PENDING)),
            Verdict::Later => return Some(self.later(request)),
            Verdict::Offer => Some(self.describe(&self.offered(), Saying::Offer)),
            Verdict::Answer => match self.answer_to(request, now) {
                Ok(text) => Some(text),
                Err(cause) => return Some(unacceptable(request, &cause.text())),
            },
            Verdict::Nothing | Verdict::Take => None,
        };
        self.inside.dialog.refresh(request.contact.as_deref());
        let mut response = self.agreement(request, text);
        self.timer_answered(request, &mut response, now);
        self.reply(transaction, response);
        if carrier == Carrier::Invite {
            let (cseq, until) = (request.cseq, now + ACK_PATIENCE);
            let offering = request.body.is_empty().then_some(self.outside.direction);
            self.inside.unacked = Some(Unacked { cseq, until, offering, first: false });
        }
        self.replan(now);
        self.settle_direction(now);
        None
    }

    /// 500 with a time to come again (RFC 3311 section 5.2).
    pub(super) fn later(&mut self, request: &Request) -> Response {
        let mut response = answer(request, OUT_OF_ORDER);
        let seconds = self.random.u32() % (RETRY_AFTER + 1);
        response.headers.push(("Retry-After".into(), seconds.to_string()));
        response
    }

    /// Our answer to an offer in the middle of the call.
    ///
    /// # Errors
    /// Why it cannot be used; all stays as it was.
    fn answer_to(&mut self, request: &Request, now: Instant) -> Result<String, EndCause> {
        // An UPDATE has no ACK: its answer has arrived by then, or is sent once more (RFC 3261 section 17.1.2.1).
        let rekeyed = if request.method == Method::Invite { ACK_PATIENCE } else { T1 };
        let fit = self.fit_offer(InsideAnswer::parse(&request.body).map_err(EndCause::Protocol)?)?;
        self.inside.told = self.outside.direction;
        let former = self.inside.sdes.sealing();
        let shown = fit.answer.video.as_ref().is_some_and(|video| video.direction != Direction::Inactive);
        self.adopt(fit);
        if self.inside.sdes.seal_still(former) {
            self.deadlines.rekeyed = Some(now + rekeyed);
        }
        let text = self.describe(&self.spoken(), Saying::Answer);
        // It is refused here and now; a browser that wants one adds it, and the inside is offered that.
        if self.video.is_missed(shown && self.pairs(true) > 1) {
            self.notify(CallEvent::VideoOffered);
        }
        Ok(text)
    }

    /// The codecs of the call as the inside sends them to us.
    pub(super) fn spoken(&self) -> Vec<Codec> {
        let inside = self.inside.chosen.iter().filter_map(|chosen| chosen.inside);
        inside.map(|inside| Codec { kind: inside.kind, payload_type: inside.from }).collect()
    }

    /// 200 to an INVITE or UPDATE.
    pub(super) fn agreement(&self, request: &Request, text: Option<String>) -> Response {
        let mut response = answer(request, OK);
        response.contact = Some(self.inside.dialog.contact.clone());
        response.headers.push(("Allow".into(), ALLOW.into()));
        response.headers.push(("Supported".into(), SUPPORTED.into()));
        if let Some(text) = text {
            response.content_type = Some("application/sdp".into());
            response.body = text.into_bytes();
        }
        response
    }

    /// Whether the 2xx that began the dialog waits for its ACK.
    pub(super) fn waits_for_first_ack(&self) -> bool {
        self.inside.unacked.as_ref().is_some_and(|unacked| unacked.first)
    }

    /// The ACK to a 2xx of ours. Where that had an offer it brings the answer (RFC 3261 section 13.2.2.4); what we cannot
    /// follow there cannot be refused any more but by a BYE.
    fn acknowledged(&mut self, request: &Request, now: Instant) {
        let Some(unacked) = self.inside.unacked.take_if(|unacked| unacked.cseq == request.cseq) else {
            return;
        };
        self.bye_if_waited(now);
        if self.cause.is_some() {
            return;
        }
        self.far_end_has_key(now);
        if let Some(offered) = unacked.offering {
            if let Err(cause) = self.take_acknowledged(offered, request) {
                return self.end(cause, now);
            }
            // The one who took a call without an offer waits for this.
            self.answer_browser(now);
            self.replan(now);
            self.tell_connected();
        }
        self.settle_direction(now);
    }

    /// The answer to our offer of this direction; without one, against RFC 3264, the session stays as it was.
    fn take_acknowledged(&mut self, offered: Direction, request: &Request) -> Result<(), EndCause> {
        if judge(Exchange::Ours, Carrier::Ack, !request.body.is_empty(), false) == Verdict::Take {
            self.inside.told = offered;
            let answer = InsideAnswer::parse(&request.body).map_err(EndCause::Protocol)?;
            let fit = self.fit_answer(answer)?;
            self.adopt(fit);
        }
        let missing = "the calling side acknowledged without a session description";
        self.inside.answer.as_ref().map(|_| ()).ok_or_else(|| EndCause::Protocol(missing.into()))
    }
}
