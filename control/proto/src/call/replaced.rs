//! An INVITE that takes the place of the call's dialog inside (RFC 3891): the browser stays where it is.

use std::time::Instant;

use super::Call;
use super::peer::{ACK_PATIENCE, NOT_ACCEPTABLE, UNKNOWN, Unacked, answer, objection};
use super::video::Saying;
use crate::sdp::InsideAnswer;
use crate::sip::header::{parameter_of, tag_of, token_of};
use crate::sip::{Dialog, Request, Response, TransactionId};

/// The dialog that an INVITE wants to replace, as we see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    remote_tag: String,
    early_only: bool,
}

/// What an INVITE wants to replace; `None` without a Replaces header.
///
/// # Errors
/// The answer to one that makes no sense: several, or without its parts (RFC 3891 section 3).
pub fn wanted(request: &Request) -> Result<Option<Wanted>, Box<Response>> {
    let mut all = request.header("Replaces");
    let Some(value) = all.next() else { return Ok(None) };
    let refuse = || Box::new(answer(request, (400, "Bad Request")));
    let parts = (parameter_of(value, "to-tag"), parameter_of(value, "from-tag"));
    let ((Some(local_tag), Some(remote_tag)), None) = (parts, all.next()) else { return Err(refuse()) };
    Ok(Some(Wanted {
        call_id: token_of(value).to_owned(),
        local_tag: local_tag.to_owned(),
        remote_tag: remote_tag.to_owned(),
        early_only: parameter_of(value, "early-only").is_some(),
    }))
}

impl Call {
    /// An INVITE with Replaces for this call: it is answered at once, and the former dialog left.
    ///
    /// # Errors
    /// The answer to one that cannot take its place; the call goes on as it was.
    pub fn replace(
        &mut self,
        wanted: &Wanted,
        transaction: TransactionId,
        request: &Request,
        now: Instant,
    ) -> Result<(), Box<Response>> {
        let refuse = |status| Err(Box::new(answer(request, status)));
        let dialog = &self.inside.dialog;
        let same =
            dialog.is(&wanted.call_id, Some(&wanted.remote_tag)) && dialog.local_tag() == wanted.local_tag;
        // One that rings only may be replaced where we called (RFC 3891 section 3); we do not.
        if !same || !self.inside.answered {
            return refuse(UNKNOWN);
        }
        if self.cause.is_some() || self.inside.gone {
            return refuse((603, "Decline"));
        }
        if wanted.early_only {
            return refuse((486, "Busy Here"));
        }
        if tag_of(&request.from).is_none() {
            return refuse((400, "Missing From Tag"));
        }
        if let Some(refusal) = objection(request).or_else(|| Self::too_brief(request)) {
            return Err(Box::new(refusal));
        }
        let offer = InsideAnswer::parse(&request.body).ok().filter(InsideAnswer::has_address);
        let (contact, agent) = (dialog.contact.clone(), dialog.agent.clone());
        let fit = offer.and_then(|offer| self.fit_offer(offer).ok());
        if fit.is_none() && !request.body.is_empty() {
            return refuse(NOT_ACCEPTABLE);
        }
        let dialog = Dialog::invited(request, &self.next_tag(), contact, agent);
        let to = dialog.from.clone();
        if let Some(referral) = &mut self.inside.referral {
            referral.silent = true;
            self.cancel(super::inside::Line::Referred);
        }
        let session = self.random.u64() >> 2;
        self.switch_to(dialog, session, now);
        self.inside.owner = false;
        let (codecs, saying, offering) = match fit {
            Some(fit) => {
                self.adopt(fit);
                (self.spoken(), Saying::Answer, None)
            }
            None => (self.offered(), Saying::Offer, Some(self.outside.direction)),
        };
        let text = self.describe(&codecs, saying);
        let mut response = self.agreement(request, Some(text));
        response.to = to;
        self.timer_answered(request, &mut response, now);
        self.reply(transaction, response);
        let (cseq, until) = (request.cseq, now + ACK_PATIENCE);
        self.inside.unacked = Some(Unacked { cseq, until, offering, first: true });
        self.leave_former();
        self.replan(now);
        Ok(())
    }
}
