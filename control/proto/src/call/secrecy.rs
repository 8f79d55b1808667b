//! Keys of the inside's leg by `a=crypto` (RFC 4568), required or where both sides have them (RFC 8643).

use std::time::Instant;

use sallyport_plan::{Direction as DirectionPlan, Plan, Protection};

use super::Call;
use super::plan::{INWARD, Keys, OUTWARD};
use crate::api::EndCause;
use crate::random::Random;
use crate::sdp::{Crypto, InsideAnswer, InsideProfile};
use crate::settings::Srtp;

/// Ours and theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    ours: Crypto,
    theirs: Crypto,
}

/// What was said of keys in the dialog.
#[derive(Debug, Default)]
pub(super) struct Sdes {
    /// Ours that an answer may choose from.
    offered: Vec<Crypto>,
    /// What holds; `None`: media is plain.
    pair: Option<Pair>,
    /// Ours that is sealed with until the far end is known to have that of the pair.
    still: Option<Crypto>,
    /// Whether offer and answer came to that.
    settled: bool,
}

impl Sdes {
    /// Keys for the plan; `None`: media is plain.
    pub fn keys(&self) -> Option<Keys> {
        let Pair { ours, theirs } = self.pair.as_ref()?;
        let send = self.still.as_ref().unwrap_or(ours);
        Some(Keys { receive: theirs.key.clone(), send: send.key.clone() })
    }

    /// What offer and answer came to.
    pub fn settle(&mut self, pair: Option<Pair>) {
        (self.pair, self.still, self.settled) = (pair, None, true);
    }

    /// What we seal with.
    pub fn sealing(&self) -> Option<Crypto> {
        self.still.clone().or_else(|| self.pair.as_ref().map(|pair| pair.ours.clone()))
    }

    /// Seals with `former` until [`Sdes::has_key`]: the far end can open what is sealed with the new key only once it has read our
    /// answer. Whether that is so.
    pub fn seal_still(&mut self, former: Option<Crypto>) -> bool {
        let other = |former: &Crypto| self.pair.as_ref().is_some_and(|pair| pair.ours != *former);
        self.still = former.filter(other);
        self.still.is_some()
    }

    /// The far end has our new key; whether it is a new one.
    pub fn has_key(&mut self) -> bool {
        self.still.take().is_some()
    }

    /// Tag of ours, for the record.
    pub fn tags(&self) -> Option<(u32, u32)> {
        self.pair.as_ref().map(|pair| (pair.ours.tag, pair.theirs.tag))
    }

    /// Those of a former control: keys from the plan, tags from the record.
    pub fn restored(plan: &Plan, tags: Option<(u32, u32)>) -> Self {
        let direction = |index| plan.directions.iter().find(|direction| direction.index == index);
        let key = |side: fn(&DirectionPlan) -> Option<&Protection>, index| match side(direction(index)?) {
            Some(Protection::Srtp(key)) => Some(key.clone()),
            Some(Protection::Plain) | None => None,
        };
        let ours = key(|direction| direction.seal.as_ref(), INWARD);
        let theirs = key(|direction| direction.open.as_ref(), OUTWARD);
        let pair = match (ours, theirs, tags) {
            (Some(ours), Some(theirs), Some((our, their))) => Some(Pair {
                ours: Crypto { tag: our, key: ours },
                theirs: Crypto { tag: their, key: theirs },
            }),
            _ => None,
        };
        Self {
            offered: pair.iter().map(|pair| pair.ours.clone()).collect(),
            pair,
            still: None,
            settled: true,
        }
    }
}

/// Profile and keys of an offer that begins a session.
pub(super) fn first_lines(policy: Srtp, offered: &mut Vec<Crypto>, random: &mut Random) -> InsideProfile {
    if offered.is_empty() && policy != Srtp::Off {
        *offered = Crypto::offer(|_| true, random);
    }
    match policy {
        Srtp::Off | Srtp::Optional => InsideProfile::Avp,
        Srtp::Required => InsideProfile::Savp,
    }
}

/// Why an offer cannot be answered by this policy.
pub(super) fn objection(policy: Srtp, offer: &InsideAnswer) -> Option<&'static str> {
    match policy {
        Srtp::Off if offer.profile.is_secure() => Some("RTP/SAVP is not served here"),
        Srtp::Off => None,
        Srtp::Optional | Srtp::Required if !offer.crypto.is_empty() => None,
        Srtp::Optional if !offer.profile.is_secure() => None,
        Srtp::Optional | Srtp::Required => {
            Some(offer.flaw.map_or("media has to be encrypted: there is no a=crypto", |flaw| flaw.text()))
        }
    }
}

/// What an answer takes of our offer.
///
/// # Errors
/// [`EndCause::Protocol`]: it takes what was not offered, or nothing where something is required.
pub(super) fn taken(
    policy: Srtp,
    offered: &[Crypto],
    answer: &InsideAnswer,
) -> Result<Option<Pair>, EndCause> {
    let fault = |text: &str| Err(EndCause::Protocol(text.into()));
    let pair = answer.crypto.iter().find_map(|theirs| {
        let same = |ours: &&Crypto| ours.tag == theirs.tag && ours.key.profile() == theirs.key.profile();
        offered.iter().find(same).map(|ours| Pair { ours: ours.clone(), theirs: theirs.clone() })
    });
    match pair {
        Some(pair) if is_ours(offered, &pair.theirs) => fault("the inside sends our own key back"),
        Some(pair) => Ok(Some(pair)),
        None if answer.profile.is_secure() || (!offered.is_empty() && !answer.crypto.is_empty()) => {
            fault("the inside answers with another a=crypto than those offered")
        }
        None if policy == Srtp::Required => fault("the inside does not encrypt its media, which is required"),
        None => Ok(None),
    }
}

/// Whether a key of theirs is one of ours: both directions under one key would be two streams under one keystream.
fn is_ours(ours: &[Crypto], theirs: &Crypto) -> bool {
    ours.iter().any(|ours| ours.key == theirs.key)
}

impl Call {
    /// The far end can open what is sealed under our new key.
    pub(super) fn far_end_has_key(&mut self, now: Instant) {
        self.deadlines.rekeyed = None;
        if self.inside.sdes.has_key() {
            self.replan(now);
        }
    }

    /// What was encrypted before the configuration changed may stay so.
    fn srtp(&self) -> Srtp {
        match self.settings.sip.policy.srtp {
            Srtp::Off if self.inside.sdes.pair.is_some() => Srtp::Optional,
            policy => policy,
        }
    }

    /// Profile and keys of the first offer of the dialog.
    pub(super) fn first_lines(&mut self) -> (InsideProfile, Vec<Crypto>) {
        let policy = self.srtp();
        let profile = first_lines(policy, &mut self.inside.sdes.offered, &mut self.random);
        (profile, self.inside.sdes.offered.clone())
    }

    /// Profile and keys of our next description: what holds, so that it stays as it is where nobody wants it otherwise.
    pub(super) fn lines(&mut self) -> (InsideProfile, Vec<Crypto>) {
        if !self.inside.sdes.settled {
            return self.first_lines();
        }
        let profile = self.inside.answer.as_ref().map(|answer| answer.profile).unwrap_or_default();
        let lines: Vec<Crypto> = self.inside.sdes.pair.iter().map(|pair| pair.ours.clone()).collect();
        let sdes = &mut self.inside.sdes;
        // While our INVITE rings another fork may still choose from its offer.
        sdes.offered.retain(|line| !self.inside.answered && !lines.contains(line));
        sdes.offered.extend(lines.iter().cloned());
        (profile, lines)
    }

    /// What an answer to our offer takes of it.
    pub(super) fn taken_keys(&self, answer: &InsideAnswer) -> Result<Option<Pair>, EndCause> {
        taken(self.srtp(), &self.inside.sdes.offered, answer)
    }

    /// What becomes of an offer of theirs: the first line that we know wins. A key that stays keeps ours; another one
    /// gets another of ours, since most who change theirs begin to count anew in both directions.
    pub(super) fn answered_keys(&mut self, offer: &InsideAnswer) -> Result<Option<Pair>, EndCause> {
        if let Some(text) = objection(self.srtp(), offer) {
            return Err(EndCause::Protocol(text.into()));
        }
        let Some(theirs) = offer.crypto.first().filter(|_| self.srtp() != Srtp::Off) else { return Ok(None) };
        let sdes = &self.inside.sdes;
        let held = sdes.pair.iter().map(|pair| pair.ours.clone()).collect::<Vec<_>>();
        if is_ours(&sdes.offered, theirs) || is_ours(&held, theirs) {
            return Err(EndCause::Protocol("the inside offers our own key".into()));
        }
        if let Some(pair) = sdes.pair.as_ref().filter(|pair| pair.theirs == *theirs) {
            return Ok(Some(pair.clone()));
        }
        let ours = Crypto::fresh(theirs.tag, theirs.key.profile(), &mut self.random);
        let ours = ours.ok_or_else(|| EndCause::Protocol("no key for this suite".into()))?;
        Ok(Some(Pair { ours, theirs: theirs.clone() }))
    }
}
