//! What a recorder asks of us within its session.

use std::time::Instant;

use super::description::{Heard, sections, spoken};
use super::session::{Session, Unacked};
use crate::call::Call;
use crate::call::peer::{
    ACK_PATIENCE, NOT_ALLOWED, OK, OUT_OF_ORDER, PENDING, answer, objection, unacceptable,
};
use crate::call::rules::{Carrier, Exchange, Verdict, judge};
use crate::sip::header::tag_of;
use crate::sip::{Method, Request, Response, TransactionId};

impl Session {
    /// How far offer and answer are: its own are answered at once, so that only ours can be open.
    fn exchange(&self) -> Exchange {
        let open = self.is_open() || self.unacked.as_ref().is_some_and(|unacked| unacked.offers.is_some());
        if open { Exchange::Ours } else { Exchange::Settled }
    }
}

/// An INVITE or UPDATE that asks for a snapshot (RFC 7866 section 8.2).
fn asks_for_metadata(request: &Request) -> bool {
    let kind = request.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
    let asks = kind.trim().eq_ignore_ascii_case("application/rs-metadata-request");
    asks && matches!(request.method, Method::Invite | Method::Update)
}

impl Call {
    /// Answers a request of the recorder within the session; whether it is the recorder's.
    pub(in crate::call) fn recorder_asks(
        &mut self,
        transaction: TransactionId,
        request: &Request,
        now: Instant,
    ) -> bool {
        let tag = tag_of(&request.from);
        let own = |session: &&mut Session| session.dialog.is(&request.call_id, tag);
        let Some(session) = self.recording.session.as_mut().filter(own) else { return false };
        if request.method == Method::Ack {
            self.recorder_acknowledges(request, now);
            return true;
        }
        // All that there is goes out in an INVITE of ours, which follows: this one is as if it had no body.
        let curious = asks_for_metadata(request);
        let bare = Request { content_type: None, body: Vec::new(), ..request.clone() };
        let request = if curious { &bare } else { request };
        let refusal = objection(request);
        let in_order = refusal.is_some() || session.dialog.admit(request);
        self.recorder_lives(now);
        let response = match (refusal, request.method.as_str()) {
            (Some(refusal), _) => refusal,
            _ if !in_order => answer(request, OUT_OF_ORDER),
            (None, "INVITE" | "UPDATE") => self.recorder_changes(request, now),
            (None, "BYE" | "OPTIONS" | "INFO" | "NOTIFY") => answer(request, OK),
            (None, _) => answer(request, NOT_ALLOWED),
        };
        if let Some(session) = self.recording.session.as_mut().filter(|_| response.status == OK.0) {
            session.curious |= curious;
        }
        let left = request.method == Method::Bye && response.status == OK.0;
        self.reply(transaction, response);
        if left {
            self.recorder_leaves();
            self.recording_over(false, now);
        }
        true
    }

    /// The recorder wants the copies elsewhere, or not for a while (RFC 7866 section 7.2), asks what we have, or refreshes the
    /// session.
    fn recorder_changes(&mut self, request: &Request, now: Instant) -> Response {
        let Some(ports) = self.recording.ports else { return answer(request, OUT_OF_ORDER) };
        let spoken = spoken(&self.inside.chosen);
        let Some(session) = &mut self.recording.session else { return answer(request, OUT_OF_ORDER) };
        let carrier = if request.method == Method::Invite { Carrier::Invite } else { Carrier::Update };
        let verdict = judge(session.exchange(), carrier, !request.body.is_empty(), false);
        let (said, offers) = match verdict {
            Verdict::Pending | Verdict::Later => return answer(request, PENDING),
            Verdict::Offer => (Some(sections(&spoken, &ports, &session.refused)), Some(spoken)),
            Verdict::Answer => match self.recorder_offers(&request.body) {
                Ok(said) => (Some(said), None),
                Err(text) => return unacceptable(request, text),
            },
            Verdict::Nothing | Verdict::Take => (None, None),
        };
        let Some(session) = &mut self.recording.session else { return answer(request, OUT_OF_ORDER) };
        session.dialog.refresh(request.contact.as_deref());
        let mut response = answer(request, OK);
        response.contact = Some(session.dialog.contact.clone());
        if let Some(said) = said {
            response.content_type = Some("application/sdp".into());
            response.body = session.say(&ports, said).into_bytes();
        }
        if carrier == Carrier::Invite {
            session.unacked = Some(Unacked { cseq: request.cseq, offers });
            self.deadlines.recorder_ack = Some(now + ACK_PATIENCE);
        }
        self.recording.unsaved = true;
        response
    }

    /// An offer of the recorder; the sections of our answer.
    ///
    /// # Errors
    /// Why it cannot be used; all stays as it was.
    fn recorder_offers(&mut self, body: &[u8]) -> Result<String, &'static str> {
        let Heard { forks, answer, refused, sections } = self.recorder_wants(body)?;
        let spoken = spoken(&self.inside.chosen);
        let Some(session) = &mut self.recording.session else { return Ok(answer) };
        if sections < forks.len() + session.refused.len() {
            return Err("the recorder's session description has fewer sections than before");
        }
        (session.told, session.refused) = (Some(spoken), refused);
        if forks != self.recording.forks {
            self.copy_to(forks);
        }
        Ok(answer)
    }

    /// The ACK to our 2xx. Where that had an offer it brings the answer (RFC 3261 section 13.2.2.4); what we cannot follow there
    /// cannot be refused any more but by a BYE.
    fn recorder_acknowledges(&mut self, request: &Request, now: Instant) {
        let Some(session) = &mut self.recording.session else { return };
        let Some(unacked) = session.unacked.take_if(|unacked| unacked.cseq == request.cseq) else { return };
        self.deadlines.recorder_ack = None;
        if unacked.offers.is_some() && !request.body.is_empty() {
            session.told = unacked.offers;
            self.recording.unsaved = true;
            self.recorder_takes(&request.body, now);
        }
    }
}
