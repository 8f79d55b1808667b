//! A browser that starts over in the middle of a call: its page was loaded anew, or has made another connection. That one gets
//! an association of its own (RFC 8842 section 5.5), beside the connection that runs and takes its place when the handshake has
//! ended, in one plan.
//!
//! ```text
//!   offer, other certificate ── answer ──► checks ──► pair: plan with both flows ──► DTLS ──► plan with the new one alone
//!                                            └── fails, takes too long, or the former one offers: it goes on ──┘
//! ```

use std::time::{Duration, Instant};

use sallyport_plan::{FlowKey, Profile};

use super::Call;
use super::ice::Ice;
use super::media::dtls_start;
use super::plan::Keys;
use super::proposing::Proposal;
use crate::api::{CallEvent, Command, EndCause, StepState};
use crate::error::{AcceptError, OfferError};
use crate::sdp::{BrowserOffer, Chosen};

/// How long a page may take to be loaded anew.
const RETURN: Duration = Duration::from_secs(10);

/// The other connection.
#[derive(Debug)]
pub(super) struct Successor {
    offer: BrowserOffer,
    pub ice: Ice,
    /// Its nominated pair. The handshake has begun there.
    pub flow: Option<FlowKey>,
}

#[cfg(test)]
impl Successor {
    pub fn fingerprint(&self) -> [u8; 32] {
        self.offer.fingerprint
    }
}

impl Call {
    /// All agents of ICE that the call has.
    pub(super) fn agents(&mut self) -> impl Iterator<Item = &mut Ice> {
        let successor = self.successor.as_mut().map(|successor| &mut successor.ice);
        self.outside.ice.iter_mut().chain(&mut self.outside.next).chain(successor)
    }

    /// An offer of another connection. It is answered at once, as it changes nothing yet.
    ///
    /// # Errors
    /// [`OfferError`]: nothing has changed then.
    pub(super) fn start_over(&mut self, offer: BrowserOffer, now: Instant) -> Result<(), AcceptError> {
        if offer.ufrag == self.outside.ufrags.1 {
            return Err(OfferError::ChangedFingerprint.into());
        }
        let former = self.successor.as_ref().map(|successor| successor.offer.fingerprint);
        if former == Some(offer.fingerprint) {
            return Err(OfferError::Pending.into());
        }
        let chosen = self.still_offered(&offer)?;
        let had_flow = self.successor.as_ref().is_some_and(|successor| successor.flow.is_some());
        self.drop_successor();
        // Whoever waits for an answer to the former connection's offer does so no more, and has not taken ours.
        (self.outside.answer, self.outside.proposal) = (None, Proposal::None);
        self.abandon_adding(now);
        (self.outside.next, self.deadlines.restart, self.deadlines.gone) = (None, None, None);
        if self.outside.keys.is_none() {
            // There is nothing to go back to.
            (self.deadlines.ice, self.deadlines.dtls) = (None, None);
            self.outside.gone = Some(EndCause::IceTimeout);
        }
        let mut ice = Ice::new(&self.settings, self.outside.zone, &offer, &mut self.random);
        self.outside.version += 1;
        let text = self.answer_ahead(&offer, chosen, &ice);
        ice.begin(now);
        self.successor = Some(Box::new(Successor { offer, ice, flow: None }));
        self.deadlines.successor = Some(now + self.settings.timeouts.ice);
        self.commands.push_back(Command::Renegotiated(text));
        if had_flow {
            self.replan(now);
        }
        self.drain_ice(now);
        Ok(())
    }

    /// The answer to an offer that is followed later only.
    fn answer_ahead(&mut self, offer: &BrowserOffer, chosen: Vec<Chosen>, ice: &Ice) -> String {
        let outside = &self.outside;
        let former = (outside.codecs.clone(), outside.agreed.clone(), outside.direction);
        let (video, running) = (self.video.clone(), self.inside.chosen.clone());
        self.follow(offer, chosen);
        let credentials = (ice.ufrag(), ice.password());
        let text = self.answer_as(offer, credentials, ice.lines(), &self.settings.fingerprint);
        let outside = &mut self.outside;
        (outside.codecs, outside.agreed, outside.direction) = former;
        (self.video, self.inside.chosen) = (video, running);
        text
    }

    /// Sends what the other connection's agent wants sent, and begins its handshake.
    pub(super) fn drain_successor(&mut self, now: Instant) {
        let Some(successor) = &mut self.successor else { return };
        while let Some(command) = successor.ice.poll_transmit() {
            self.commands.push_back(command);
        }
        let Some(flow) = successor.ice.poll_nominated(successor.flow, now) else { return };
        if successor.flow.replace(flow).is_some() {
            self.commands.push_back(Command::NextDtlsPath(flow));
        } else {
            self.deadlines.successor = Some(now + self.settings.timeouts.dtls);
            self.commands.push_back(Command::NextDtls(dtls_start(successor.offer.setup, flow)));
        }
        self.replan(now);
    }

    /// The handshake of the other connection has ended: it is the call's from now on.
    pub(super) fn succeed(&mut self, (profile, keys): (Profile, Keys), fingerprint: &[u8; 32], now: Instant) {
        let begun = self.successor.as_ref().filter(|successor| successor.flow.is_some());
        let Some(successor) = begun.filter(|_| self.cause.is_none()) else { return };
        if successor.offer.fingerprint != *fingerprint {
            return self.successor_failed("the certificate is not the one of the offer", now);
        }
        // What runs inside may have changed meanwhile.
        let Ok(chosen) = self.still_offered(&successor.offer) else {
            return self.successor_failed("the offer does not have the codec that runs", now);
        };
        let Some(Successor { offer, ice, flow }) = self.successor.take().map(|successor| *successor) else {
            return;
        };
        let deadlines = &mut self.deadlines;
        (deadlines.successor, deadlines.restart, deadlines.ice, deadlines.dtls) = (None, None, None, None);
        self.follow(&offer, chosen);
        let outside = &mut self.outside;
        outside.ufrags = (ice.ufrag().to_owned(), ice.remote_ufrag().to_owned());
        (outside.fingerprint, outside.identity) = (Some(*fingerprint), self.settings.fingerprint);
        (outside.setup, outside.dtls, outside.dtls_begun) = (offer.setup, StepState::Connected, true);
        (outside.profile, outside.keys) = (Some(profile), Some(keys));
        (outside.consent, outside.nominated) = (flow.map(|flow| ice.consent(flow)), flow);
        (outside.next, outside.gone) = (None, None);
        (outside.offer, outside.ice) = (Some(offer), Some(ice));
        self.commands.push_back(Command::NextDtlsSucceeds);
        self.replan(now);
        self.notify(CallEvent::Renewed);
        self.settle_direction(now);
    }

    /// Nothing comes of the other connection: the one that runs goes on, if it does.
    pub(super) fn successor_failed(&mut self, detail: &str, now: Instant) {
        if self.successor.is_none() || self.cause.is_some() {
            return;
        }
        self.drop_successor();
        self.notify(CallEvent::NotRenewed { detail: detail.to_owned() });
        match self.outside.gone.take() {
            Some(cause) => self.end(cause, now),
            None => self.replan(now),
        }
    }

    /// Forgets another connection, if there is one.
    pub(super) fn drop_successor(&mut self) {
        self.deadlines.successor = None;
        if self.successor.take().is_some_and(|successor| successor.flow.is_some()) {
            self.commands.push_back(Command::NextDtlsClose);
        }
    }

    /// The connection that runs does what it should: nothing has to come back.
    pub(super) fn connection_lives(&mut self) {
        (self.outside.gone, self.deadlines.gone) = (None, None);
    }

    /// What would have taken the place of a connection that is over is not to come any more: it has so long to live again.
    pub(super) fn await_life(&mut self, now: Instant) {
        if self.outside.gone.is_some() {
            self.deadlines.gone.get_or_insert(now + self.settings.timeouts.ice);
        }
    }

    /// The connection that runs is over, and with it the call, unless another one is under way, or may come (`returns`).
    pub(super) fn connection_over(&mut self, cause: EndCause, returns: bool, now: Instant) {
        if self.cause.is_some() {
            return;
        }
        if self.successor.is_some() {
            self.outside.gone.get_or_insert(cause);
        } else if returns && self.connected {
            self.outside.gone.get_or_insert(cause);
            self.deadlines.gone.get_or_insert(now + RETURN);
        } else {
            self.end(cause, now);
        }
    }
}
