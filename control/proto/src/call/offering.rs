//! A call that rings, offered by us: SIP libraries of browsers answer an INVITE's offer, and some make none of their own.

use std::time::Instant;

use sallyport_plan::Zone;

use super::Call;
use super::ice::Ice;
use crate::error::AcceptError;
use crate::sdp::{
    Agreed, AnswerParts, BrowserOffer, Chosen, ChosenVideo, Codec, Direction, Kind, browser_offer, renumbered,
};
use crate::settings::Dtmf;

impl Call {
    /// Our offer to browsers at that side that the call rings at, an SDP. All of them get the same one: whoever takes the
    /// call by [`Self::take`] is the only one that is answered there.
    ///
    /// # Errors
    /// [`AcceptError::Gone`] where it does not ring any more.
    pub fn offer(&mut self, zone: Zone) -> Result<String, AcceptError> {
        if !self.rings() {
            return Err(AcceptError::Gone);
        }
        let chosen = self.offered_outside();
        let film = self.offered_film(&chosen);
        if !self.outside.offered.iter().any(|(have, _)| *have == zone) {
            // Who offers controls, unless it is lite (RFC 8445 section 6.1.1).
            let ice = Ice::open(&self.settings, zone, !self.settings.ice_lite, &mut self.random);
            self.outside.offered.push((zone, ice));
        }
        let agent = self.outside.offered.iter().find(|(have, _)| *have == zone);
        let (_, ice) = agent.ok_or(AcceptError::Gone)?;
        let cname = format!("{:08x}", self.ssrc.0);
        Ok(browser_offer(&AnswerParts {
            session: (self.session, self.outside.version),
            ufrag: ice.ufrag(),
            password: ice.password(),
            candidates: ice.lines(),
            lite: self.settings.ice_lite,
            fingerprint: &self.settings.fingerprint,
            ssrc: self.ssrc.0,
            cname: &cname,
            chosen: &chosen,
            direction: Direction::SendRecv,
            agreed: &Agreed::default(),
            video: self.video.offers(&film),
        }))
    }

    /// A browser takes the call with its answer to [`Self::offer`]; what [`crate::Command::Answer`] then says is for
    /// nobody.
    ///
    /// # Errors
    /// [`AcceptError`]: the call rings on for others, or is over.
    pub fn take(&mut self, answer: &str, zone: Zone, now: Instant) -> Result<(), AcceptError> {
        if !self.rings() {
            return Err(AcceptError::Gone);
        }
        let answer = BrowserOffer::parse(answer)?;
        let at = self.outside.offered.iter().position(|(have, _)| *have == zone).ok_or(AcceptError::Gone)?;
        let (_, mut ice) = self.outside.offered.swap_remove(at);
        self.outside.offered.clear();
        ice.meet(&answer.ufrag, &answer.password, &answer.candidates);
        if let Some(invited) = &mut self.inside.invited {
            invited.taken = true;
        }
        self.browser_is(answer, ice, zone);
        self.take_up(now);
        Ok(())
    }

    fn rings(&self) -> bool {
        self.cause.is_none()
            && self.inside.invited.as_ref().is_some_and(|invited| !invited.taken && !invited.done)
    }

    /// The picture that the inside offers, under numbers that the sound beside it does not have; none where none may pass.
    fn offered_film(&self, sound: &[Chosen]) -> Vec<ChosenVideo> {
        let theirs = self.inside.invited.as_ref().and_then(|invited| invited.offer.as_ref()?.video.as_ref());
        let taken = sound.iter().map(|codec| codec.outside).collect();
        theirs
            .filter(|_| self.pairs(true) > 1)
            .map_or_else(Vec::new, |theirs| renumbered(&theirs.formats, taken))
    }

    /// What the inside offers, in its order, under its payload types where it offers anything. Named events are offered on the
    /// clock of the first codec, and at 8 kHz, the only one that some browsers know.
    fn offered_outside(&self) -> Vec<Chosen> {
        let theirs = self.inside.invited.as_ref().and_then(|invited| invited.offer.as_ref());
        let policy = &self.settings.sip.policy;
        let own = |kind: &Kind| Codec { kind: *kind, payload_type: kind.inside_type() };
        let events = [Kind::Event8000, Kind::Event48000];
        let all = || policy.codecs.iter().chain(&events).map(own).collect();
        let codecs: Vec<Codec> = theirs.map_or_else(all, |offer| offer.codecs.clone());
        let mut offered: Vec<Codec> =
            codecs.iter().filter(|codec| policy.codecs.contains(&codec.kind)).copied().collect();
        let fastest = offered
            .iter()
            .find(|codec| codec.kind.is_sound())
            .map_or(Kind::Event8000, |codec| codec.kind.events()[0]);
        let wanted = policy.dtmf != Dtmf::Rfc4733 || codecs.iter().any(|codec| codec.kind.is_event());
        for kind in [fastest, Kind::Event8000].into_iter().filter(|_| wanted) {
            let taken = |number: u8| offered.iter().chain(&codecs).any(|codec| codec.payload_type == number);
            let own = codecs.iter().find(|codec| codec.kind == kind).map(|codec| codec.payload_type);
            let free = || std::iter::once(kind.inside_type()).chain(96..=127).find(|number| !taken(*number));
            if let Some(payload_type) = own.or_else(free)
                && offered.iter().all(|codec| codec.kind != kind)
            {
                offered.push(Codec { kind, payload_type });
            }
        }
        let chosen =
            |Codec { kind, payload_type }: Codec| Chosen { kind, outside: payload_type, inside: None };
        offered.into_iter().map(chosen).collect()
    }
}
