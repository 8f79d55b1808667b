//! A picture that the inside wants to show, offered by us: SIP libraries hear no events, but answer an offer.

use std::time::Instant;

use super::Call;
use super::ice::lines;
use crate::error::{AcceptError, OfferError};
use crate::sdp::{BrowserOffer, Setup, browser_reoffer, renumbered};

/// What becomes of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Proposal {
    /// There is none, or nothing has come of it.
    #[default]
    None,
    /// The browser has not answered.
    Open,
    /// It has, and does not wait for what the inside says.
    Taken,
}

impl Call {
    /// Our offer to the browser of the call, an SDP: the session as it is, and the picture that the inside wants to show, in its
    /// formats. The answer goes to [`Self::picture_taken`]; a browser that refuses it, or offers itself, leaves all as it is.
    ///
    /// # Errors
    /// [`AcceptError::Gone`] where the inside does not want to show one, or something else is under way.
    pub fn offer_picture(&mut self) -> Result<String, AcceptError> {
        let busy = self.adding.is_some() || self.outside.answer.is_some() || self.video.is_wanted();
        let busy = busy || self.successor.is_some();
        let runs = self.cause.is_none() && self.outside.keys.is_some() && !self.relayed.away;
        let theirs = self.inside.answer.as_ref().and_then(|answer| answer.video.as_ref());
        let theirs = theirs.filter(|_| runs && !busy && self.pairs(true) > 1).ok_or(AcceptError::Gone)?;
        let current = self.outside.offer.as_ref().ok_or(AcceptError::Gone)?;
        let formats = renumbered(&theirs.formats, current.numbers());
        // Who sent the ClientHello stays who did (RFC 8842 section 5.2).
        let active = self.outside.setup == Setup::Passive;
        self.outside.version += 1;
        let current = self.outside.offer.as_ref().ok_or(AcceptError::Gone)?;
        let own = lines(&self.settings, self.outside.zone);
        let ours = self.speaks_to(&self.outside.ufrags.1, &own);
        let (identity, video) = (&self.outside.identity, self.video.offers(&formats));
        let text = self.described(ours, identity, video, |parts| browser_reoffer(current, active, parts));
        self.outside.proposal = if text.is_some() { Proposal::Open } else { Proposal::None };
        text.ok_or(AcceptError::Gone)
    }

    /// The browser's answer to [`Self::offer_picture`]: where it takes the picture the inside is offered it.
    ///
    /// # Errors
    /// [`AcceptError`]: all stays as it was.
    pub fn picture_taken(&mut self, answer: &str, now: Instant) -> Result<(), AcceptError> {
        let proposed = std::mem::take(&mut self.outside.proposal);
        if proposed != Proposal::Open || self.cause.is_some() || self.adding.is_some() {
            return Err(AcceptError::Gone);
        }
        let mut offer = BrowserOffer::parse(answer)?;
        if self.outside.fingerprint != Some(offer.fingerprint) || self.outside.ufrags.1 != offer.ufrag {
            return Err(OfferError::ChangedFingerprint.into());
        }
        let chosen = self.still_offered(&offer)?;
        offer.setup = self.outside.setup;
        self.inside.chosen = chosen;
        self.outside.direction = offer.direction;
        if self.adds_picture(&offer) {
            self.outside.proposal = Proposal::Taken;
            self.begin_adding(&offer, now);
        }
        self.outside.offer = Some(offer);
        self.replan(now);
        self.settle_direction(now);
        Ok(())
    }
}
