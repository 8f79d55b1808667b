//! Requests of the called side within the dialog: holds, moves, refreshes, the end.

use std::time::{Duration, Instant};

use super::Call;
use crate::api::{Command, EndCause};
use crate::sdp::{Codec, Direction, InsideAnswer};
use crate::sip::header::tag_of;
use crate::sip::{Method, Request, Response, TransactionId};

/// How long the ACK to a 2xx of ours may take (RFC 3261 section 13.3.1.4: 64 times T1).
pub(super) const ACK_PATIENCE: Duration = Duration::from_secs(32);

type Status = (u16, &'static str);

const OK: Status = (200, "OK");
const UNKNOWN: Status = (481, "Call/Transaction Does Not Exist");
const NOT_ACCEPTABLE: Status = (488, "Not Acceptable Here");
const PENDING: Status = (491, "Request Pending");
const OUT_OF_ORDER: Status = (500, "Server Internal Error");
const NOT_ALLOWED: Status = (405, "Method Not Allowed");

impl Call {
    pub(super) fn sip_request(&mut self, transaction: TransactionId, request: &Request, now: Instant) {
        let tag = tag_of(&request.from);
        let known = self.inside.answered && self.inside.dialog.remote_tag.as_deref() == tag;
        if request.method == Method::Ack {
            if known {
                self.acknowledged(request, now);
            }
            return;
        }
        let status = if known { self.within(transaction, request, now) } else { Some(self.early(request)) };
        // `None`: it has its answer.
        let Some((status, reason)) = status else { return };
        let mut response = Response::to_request(request, status, reason);
        if request.method == Method::Update && status == OK.0 {
            response.contact = Some(self.inside.dialog.contact.clone());
        }
        self.reply(transaction, response);
        if request.method == Method::Bye && known && status == OK.0 {
            self.end(EndCause::RemoteHangUp, now);
        }
    }

    fn within(&mut self, transaction: TransactionId, request: &Request, now: Instant) -> Option<Status> {
        if !self.inside.dialog.admit(request) {
            return Some(OUT_OF_ORDER);
        }
        Some(match &request.method {
            Method::Bye | Method::Info | Method::Options | Method::Notify => OK,
            Method::Invite | Method::Update => return self.reinvited(transaction, request, now),
            Method::Cancel => UNKNOWN,
            Method::Ack
            | Method::Register
            | Method::Prack
            | Method::Refer
            | Method::Subscribe
            | Method::Other(_) => NOT_ALLOWED,
        })
    }

    /// A request in a dialog that only rings yet. Our offer has no answer there before the 2xx, so another offer has to
    /// wait (RFC 3311 section 5.2); a BYE must not come at all (RFC 3261 section 15).
    fn early(&mut self, request: &Request) -> Status {
        let tag = tag_of(&request.from);
        let ends = self.inside.answered || self.cause.is_some();
        let mut dialogs = self.inside.early.iter_mut().filter(|_| !ends);
        let Some(dialog) = dialogs.find(|dialog| tag.is_some() && dialog.remote_tag.as_deref() == tag) else {
            return UNKNOWN;
        };
        if !dialog.admit(request) {
            return OUT_OF_ORDER;
        }
        match &request.method {
            Method::Invite => PENDING,
            Method::Update if !request.body.is_empty() => PENDING,
            Method::Update => {
                dialog.refresh(request.contact.as_deref());
                OK
            }
            Method::Info | Method::Options | Method::Notify => OK,
            Method::Bye | Method::Cancel => UNKNOWN,
            Method::Ack
            | Method::Register
            | Method::Prack
            | Method::Refer
            | Method::Subscribe
            | Method::Other(_) => NOT_ALLOWED,
        }
    }

    fn reply(&mut self, transaction: TransactionId, response: Response) {
        self.commands.push_back(Command::SipReply { transaction, response });
    }

    /// The inside moves its media, holds or refreshes the session: absorbed, the browser sees nothing of it.
    fn reinvited(&mut self, transaction: TransactionId, request: &Request, now: Instant) -> Option<Status> {
        if self.cause.is_some() {
            return Some(UNKNOWN);
        }
        let waits = self.inside.offering.is_some_and(|(_, until)| now < until);
        if waits && (request.method == Method::Invite || !request.body.is_empty()) {
            return Some(PENDING);
        }
        if request.body.is_empty() {
            self.inside.dialog.refresh(request.contact.as_deref());
            if request.method == Method::Update {
                self.replan(now);
                return Some(OK);
            }
            self.inside.offering = Some((request.cseq, now + ACK_PATIENCE));
            self.inside.version += 1;
            let text = self.description(&self.offered(), Direction::SendRecv);
            self.agree(transaction, request, text);
            self.replan(now);
            return None;
        }
        let Ok(offer) = InsideAnswer::parse(&request.body) else { return Some(NOT_ACCEPTABLE) };
        let direction = offer.direction.answer(Direction::SendRecv);
        let Ok(fit) = self.fit(offer) else { return Some(NOT_ACCEPTABLE) };
        let before = self.inside.answer.clone();
        self.adopt(fit);
        if self.inside.answer != before {
            self.inside.version += 1;
        }
        self.inside.dialog.refresh(request.contact.as_deref());
        let text = self.description(&self.spoken(), direction);
        self.agree(transaction, request, text);
        self.replan(now);
        None
    }

    fn agree(&mut self, transaction: TransactionId, request: &Request, text: String) {
        let mut response = Response::to_request(request, OK.0, OK.1);
        response.contact = Some(self.inside.dialog.contact.clone());
        response.content_type = Some("application/sdp".into());
        response.body = text.into_bytes();
        self.reply(transaction, response);
    }

    /// What we can offer in the middle of a call: all that the browser was told, the running codec first.
    pub(super) fn offered(&self) -> Vec<Codec> {
        let told = |codec: &&Codec| self.outside.codecs.iter().any(|told| told.kind == codec.kind);
        let own = self.inside.offer.iter().flat_map(|offer| &offer.codecs);
        let mut codecs: Vec<Codec> = own.filter(told).copied().collect();
        let running = self.inside.chosen.first().map(|codec| codec.kind);
        codecs.sort_by_key(|codec| Some(codec.kind) != running);
        codecs
    }

    pub(super) fn description(&self, codecs: &[Codec], direction: Direction) -> String {
        let layout = self.inside.answer.as_ref().map_or(&[][..], |answer| &answer.layout);
        let own = self.inside.offer.as_ref();
        own.map(|own| own.text(self.inside.version, codecs, direction, layout)).unwrap_or_default()
    }

    /// The ACK to a 2xx of ours that had an offer brings the answer (RFC 3261 section 13.2.2.4); what we cannot follow
    /// there cannot be refused any more but by a BYE.
    fn acknowledged(&mut self, request: &Request, now: Instant) {
        let Some((cseq, _)) = self.inside.offering.take_if(|(cseq, _)| *cseq == request.cseq) else { return };
        if self.cause.is_some() || cseq != request.cseq || request.body.is_empty() {
            return;
        }
        match InsideAnswer::parse(&request.body)
            .map_err(EndCause::Protocol)
            .and_then(|answer| self.fit(answer))
        {
            Ok(fit) => {
                self.adopt(fit);
                // The one who took a call without an offer waits for this.
                self.answer_browser(now);
                self.replan(now);
                self.tell_connected();
            }
            Err(cause) => self.end(cause, now),
        }
    }
}
