//! The browser offers anew in the middle of a call: it holds, resumes, or starts ICE over.

use std::time::Instant;

use super::Call;
use super::ice::{Ice, lines};
use super::proposing::Proposal;
use crate::api::Command;
use crate::error::{AcceptError, OfferError};
use crate::sdp::{AnswerParts, AnswerVideo, BrowserOffer, Chosen, Direction, Setup, browser_answer};

impl Call {
    /// The browser offers anew. It is answered as soon as the relay obeys, unless it adds a picture; what the inside has to know
    /// of it follows as a re-INVITE.
    ///
    /// # Errors
    /// [`AcceptError`]: nothing has changed then.
    pub fn renegotiate(&mut self, offer: &str, now: Instant) -> Result<(), AcceptError> {
        if self.cause.is_some() || !self.replied || self.inside.answer.is_none() {
            return Err(AcceptError::Gone);
        }
        let mut offer = BrowserOffer::parse(offer)?;
        // A browser's connection keeps the certificates that it was made with: this one is another.
        if self.outside.fingerprint != Some(offer.fingerprint) {
            return self.start_over(offer, now);
        }
        if self.adding.is_some() || self.outside.answer.is_some() {
            return Err(OfferError::Pending.into());
        }
        // Both at once: who offers here has refused ours.
        self.outside.proposal = Proposal::None;
        self.keep_role(&mut offer)?;
        let chosen = self.still_offered(&offer)?;
        // It is the former connection that speaks.
        self.drop_successor();
        self.await_life(now);
        let adds = self.adds_picture(&offer);
        self.follow(&offer, chosen);
        self.meet_again(&offer, now);
        self.outside.version += 1;
        let answer = (!adds).then(|| self.answer_again(&offer));
        if adds {
            self.begin_adding(&offer, now);
        }
        self.outside.offer = Some(offer);
        self.drain_ice(now);
        self.replan(now);
        self.outside.answer = answer.map(|text| (self.relayed.next(), text));
        self.tell_renegotiated();
        self.settle_direction(now);
        Ok(())
    }

    /// What the call has of an offer.
    pub(super) fn follow(&mut self, offer: &BrowserOffer, chosen: Vec<Chosen>) {
        self.outside.codecs.retain_mut(|codec| {
            let same = offer.payload_type(codec.kind);
            codec.payload_type = same.unwrap_or(codec.payload_type);
            same.is_some()
        });
        self.inside.chosen = chosen;
        self.video.offered_again(offer);
        self.video.agree(offer);
        self.agree(offer);
        self.outside.direction = offer.direction;
    }

    /// The answer leaves once the relay does what it says: a browser that has it sends at once. One that is away will do so when
    /// it is back.
    pub(super) fn tell_renegotiated(&mut self) {
        let (away, installed) = (self.relayed.away, self.relayed.installed);
        if let Some((_, text)) = self.outside.answer.take_if(|(version, _)| away || *version <= installed) {
            self.commands.push_back(Command::Renegotiated(text));
        }
    }

    /// Who sent the ClientHello stays who did (RFC 8842 section 5.2), as the association goes on.
    fn keep_role(&self, offer: &mut BrowserOffer) -> Result<(), OfferError> {
        match (self.outside.setup, offer.setup) {
            (Setup::Passive, Setup::Active) => Err(OfferError::Setup("active".into())),
            (Setup::ActPass | Setup::Active, Setup::Passive) => Err(OfferError::Setup("passive".into())),
            (Setup::Passive, _) => {
                offer.setup = Setup::Passive;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The codecs of the call under the payload types of this offer: the running one has to be among them, under a number that
    /// its picture does not have.
    pub(super) fn still_offered(&self, offer: &BrowserOffer) -> Result<Vec<Chosen>, OfferError> {
        let again =
            |chosen: &Chosen| offer.payload_type(chosen.kind).map(|outside| Chosen { outside, ..*chosen });
        let chosen: Vec<Chosen> = self.inside.chosen.iter().filter_map(again).collect();
        let running = self.inside.chosen.first().map(|chosen| chosen.kind);
        if chosen.first().map(|chosen| chosen.kind) != running {
            return Err(OfferError::NoCodec);
        }
        if self.video.shares_a_number(offer, &chosen) {
            return Err(OfferError::Malformed("sound and picture have one payload type".into()));
        }
        Ok(chosen)
    }

    /// More candidates of the agent that there is, or other credentials: ICE starts over beside the pair that runs
    /// (RFC 8445 section 9), and takes its place when it has found another.
    fn meet_again(&mut self, offer: &BrowserOffer, now: Instant) {
        let outside = &mut self.outside;
        let next = outside.next.as_ref().is_some_and(|next| next.remote_ufrag() == offer.ufrag);
        if next || outside.ufrags.1 == offer.ufrag {
            let agent = if next { outside.next.as_mut() } else { outside.ice.as_mut() };
            if let Some(agent) = agent {
                offer.candidates.iter().for_each(|candidate| agent.add(candidate));
                agent.handle_timeout(now);
            }
            return;
        }
        let mut agent = Ice::new(&self.settings, self.outside.zone, offer, &mut self.random);
        agent.begin(now);
        self.outside.next = Some(agent);
        self.deadlines.restart = Some(now + self.settings.timeouts.ice);
    }

    pub(super) fn answer_again(&self, offer: &BrowserOffer) -> String {
        let own = lines(&self.settings, self.outside.zone);
        let (credentials, candidates) = self.speaks_to(&offer.ufrag, &own);
        self.answer_as(offer, credentials, candidates, &self.outside.identity)
    }

    /// Our user fragment, password and candidates toward the browser with this user fragment; `own` where no agent of this
    /// control has any.
    pub(super) fn speaks_to<'a>(
        &'a self,
        remote_ufrag: &str,
        own: &'a [String],
    ) -> ((&'a str, &'a str), &'a [String]) {
        let next = self.outside.next.as_ref().filter(|next| next.remote_ufrag() == remote_ufrag);
        let agent = next.or(self.outside.ice.as_ref());
        let consent = self.outside.consent.as_ref();
        let credentials = match (agent, consent) {
            (Some(agent), _) => (agent.ufrag(), agent.password()),
            (None, Some(consent)) => (consent.local_ufrag.as_str(), consent.local_pwd.as_str()),
            (None, None) => ("", ""),
        };
        (credentials, agent.map_or(own, Ice::lines))
    }

    /// The answer with these credentials, candidates and certificate of ours.
    pub(super) fn answer_as(
        &self,
        offer: &BrowserOffer,
        credentials: (&str, &str),
        candidates: &[String],
        fingerprint: &[u8; 32],
    ) -> String {
        let video = self.video.answers_again(offer);
        self.described((credentials, candidates), fingerprint, video, |parts| browser_answer(offer, parts))
    }

    /// What we say to a browser, written in some way.
    pub(super) fn described<T>(
        &self,
        ((ufrag, password), candidates): ((&str, &str), &[String]),
        fingerprint: &[u8; 32],
        video: Option<AnswerVideo<'_>>,
        write: impl FnOnce(&AnswerParts<'_>) -> T,
    ) -> T {
        let cname = format!("{:08x}", self.ssrc.0);
        write(&AnswerParts {
            session: (self.session, self.outside.version),
            ufrag,
            password,
            candidates,
            lite: self.settings.ice_lite,
            fingerprint,
            ssrc: self.ssrc.0,
            cname: &cname,
            chosen: &self.inside.chosen,
            // What the inside holds is none of the browser's business: nobody could ask it to resume.
            direction: Direction::SendRecv,
            agreed: &self.outside.agreed,
            video,
        })
    }

    /// Another agent found a pair: it is the call's from now on.
    pub(super) fn drain_next(&mut self, now: Instant) {
        let Some(next) = &mut self.outside.next else { return };
        while let Some(command) = next.poll_transmit() {
            self.commands.push_back(command);
        }
        let Some(flow) = next.poll_nominated(None, now) else { return };
        self.deadlines.restart = None;
        self.outside.ufrags = (next.ufrag().to_owned(), next.remote_ufrag().to_owned());
        self.outside.ice = self.outside.next.take();
        self.connection_lives();
        self.nominated(flow, now);
    }

    /// Our user fragment of an ICE restart under way, or of another connection of the browser.
    pub fn next_ufrag(&self) -> Option<&str> {
        let successor = self.successor.as_ref().map(|successor| &successor.ice);
        successor.or(self.outside.next.as_ref()).map(Ice::ufrag)
    }
}
