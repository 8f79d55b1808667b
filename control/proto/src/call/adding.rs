//! A browser that adds a picture in the middle of the call. Which formats it is to use the inside has to say first, so that its
//! offer is answered when a re-INVITE has been; should nothing come of that, the call stays one of sound.

use std::time::{Duration, Instant};

use sallyport_plan::PortPair;

use super::Call;
use super::proposing::Proposal;
use crate::api::Command;
use crate::sdp::BrowserOffer;

/// How long the inside may think about it: somebody may have to agree.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adding {
    /// The relay is to give ports.
    Ports,
    /// The inside is to be told.
    Telling,
    /// It has been.
    Told,
}

impl Call {
    /// Port pairs inside that a call with or without a picture needs.
    pub(super) fn pairs(&self, video: bool) -> u8 {
        if video && self.settings.video { 2 } else { 1 }
    }

    /// Whether an offer in the middle of the call adds a picture that can be had.
    pub(super) fn adds_picture(&self, offer: &BrowserOffer) -> bool {
        let shown =
            offer.video.as_ref().is_some_and(|video| video.direction.sends() || video.direction.receives());
        let runs = self.inside.answered && self.outside.keys.is_some() && !self.relayed.away;
        shown && !self.video.is_wanted() && self.pairs(true) > 1 && runs
    }

    /// The answer to the offer waits.
    pub(super) fn begin_adding(&mut self, offer: &BrowserOffer, now: Instant) {
        self.video.offered(offer);
        self.deadlines.adding = Some(now + PATIENCE);
        if self.video.has_ports() {
            self.video.reserved_again();
            self.adding = Some(Adding::Telling);
            return;
        }
        self.adding = Some(Adding::Ports);
        let toward = self.inside.offer.as_ref().map_or(self.settings.toward, |own| own.rtp.ip());
        self.commands.push_back(Command::Reserve { toward, pairs: 1 });
    }

    /// Ports that came in the middle of the call.
    pub(super) fn reserved_for_picture(&mut self, pair: Option<&PortPair>, now: Instant) {
        if self.adding == Some(Adding::Ports) {
            self.video.reserved(pair);
            self.adding = Some(Adding::Telling);
            self.settle_direction(now);
        }
    }

    /// The re-INVITE that offers the picture leaves, or was refused for now.
    pub(super) fn picture_told(&mut self, told: bool) {
        match (self.adding, told) {
            (Some(Adding::Telling), true) => self.adding = Some(Adding::Told),
            (Some(Adding::Told), false) => self.adding = Some(Adding::Telling),
            _ => {}
        }
    }

    /// The inside has said what it thinks of the session: a browser that waits for that is answered.
    pub(super) fn picture_answered(&mut self, now: Instant) {
        if self.adding == Some(Adding::Told) {
            self.video.keep_to_the_call();
            self.end_adding(now);
        } else {
            self.replan(now);
        }
    }

    /// The re-INVITE that offered it was refused.
    pub(super) fn picture_declined(&mut self, now: Instant) {
        if self.adding == Some(Adding::Told) {
            self.picture_refused(now);
        }
    }

    /// Nothing comes of it.
    pub(super) fn picture_refused(&mut self, now: Instant) {
        if self.adding.is_some() {
            self.video.forget();
            self.end_adding(now);
        }
    }

    /// Who has offered it is gone. An inside that takes it yet is told that there is none after all.
    pub(super) fn abandon_adding(&mut self, now: Instant) {
        if self.adding.take().is_some() {
            self.deadlines.adding = None;
            self.video.forget();
            self.replan(now);
        }
    }

    fn end_adding(&mut self, now: Instant) {
        (self.adding, self.deadlines.adding) = (None, None);
        let Some(offer) = self.outside.offer.take() else { return };
        self.video.agree(&offer);
        self.agree(&offer);
        let text = self.answer_again(&offer);
        self.outside.offer = Some(offer);
        self.replan(now);
        if std::mem::take(&mut self.outside.proposal) != Proposal::Taken {
            self.outside.answer = Some((self.relayed.next(), text));
            self.tell_renegotiated();
        }
    }
}
