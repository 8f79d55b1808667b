//! ICE, DTLS, and the plan that follows from what both sides said.

use std::net::SocketAddr;
use std::time::Instant;

use sallyport_plan::{
    self as plan, Clock, Digits, Direction, DirectionIndex, Extensions, FlowKey, Medium, Mute, Passage, Plan,
    Profile, Pt, PtMap, Refusal, Resend, Ssrc, Zone,
};

use super::super::flags::Flags;
use super::super::peer::{Format, Said};
use super::record::Record;
use super::section::Section;
use super::side::Keys;
use super::{Bridge, Waiting};
use crate::api::{CallEvent, Command, DtlsStart, EndCause, StepState};
use crate::sdp::{self, Agreed};

/// Named events (RFC 4733 section 2.6.1).
const EVENT: &str = "telephone-event/";
/// Payload types that a direction may have.
const MAPS_MAX: usize = 32;

impl Bridge {
    /// The browser is about to have all it needs: checks may go out.
    pub(super) fn begin_ice(&mut self, now: Instant) {
        for side in &mut self.sides {
            if let Some(outside) = &mut side.outside
                && let Some(ice) = outside.ice.as_mut().filter(|_| !outside.begun)
            {
                outside.begun = true;
                ice.begin(now);
            }
        }
        self.drain_ice(now);
    }

    pub(super) fn stun(&mut self, path: &FlowKey, payload: &[u8], now: Instant) {
        for side in &mut self.sides {
            if let Some(outside) = side.outside.as_mut().filter(|outside| outside.begun)
                && let Some(ice) = &mut outside.ice
            {
                ice.receive(path, payload, now);
            }
        }
        self.drain_ice(now);
    }

    pub(super) fn trickle(&mut self, candidates: &[String], now: Instant) {
        for ice in self.sides.iter_mut().filter_map(|side| side.outside.as_mut()?.ice.as_mut()) {
            candidates.iter().for_each(|candidate| ice.add(candidate));
        }
        self.drain_ice(now);
    }

    /// The TCP connection of a pair has ended.
    pub(super) fn disconnected(&mut self, flow: FlowKey, now: Instant) {
        for ice in self.sides.iter_mut().filter_map(|side| side.outside.as_mut()?.ice.as_mut()) {
            ice.disconnected(flow);
        }
        self.drain_ice(now);
    }

    pub(super) fn ice_time(&mut self, now: Instant) {
        for ice in self.sides.iter_mut().filter_map(|side| side.outside.as_mut()?.ice.as_mut()) {
            ice.handle_timeout(now);
        }
        self.drain_ice(now);
    }

    /// Sends what the agent wants sent and follows its nominations.
    fn drain_ice(&mut self, now: Instant) {
        let Some(at) = self.sides.iter().position(|side| side.zone == Zone::Outside) else { return };
        let Some(outside) = self.sides[at].outside.as_mut().filter(|outside| outside.begun) else { return };
        // Another generation begins without a pair, whatever is in use.
        let current = outside.nominated.filter(|_| outside.is_settled());
        let Some(ice) = &mut outside.ice else { return };
        while let Some(command) = ice.poll_transmit() {
            self.commands.push_back(command);
        }
        if let Some(flow) = ice.poll_nominated(current, now) {
            outside.consent = Some(ice.consent(flow));
            outside.nominated = Some(flow);
            if outside.dtls_begun {
                self.commands.push_back(Command::DtlsPath(flow));
            }
            self.replan(now);
        }
        self.begin_dtls(now);
    }

    /// An association begins on the pair in use, as soon as the certificate to be shown is known.
    fn begin_dtls(&mut self, now: Instant) {
        let Some(outside) = self.sides.iter_mut().find_map(|side| side.outside.as_deref_mut()) else {
            return;
        };
        let Some(path) = outside.nominated.filter(|_| outside.is_settled() && !outside.dtls_begun) else {
            return;
        };
        if outside.fingerprint.is_some() && self.cause.is_none() {
            outside.dtls_begun = true;
            outside.dtls = StepState::Checking;
            self.deadlines.dtls = Some(now + self.settings.timeouts.dtls);
            self.commands.push_back(Command::Dtls(DtlsStart { role: outside.role, path }));
        }
    }

    pub(super) fn dtls_done(&mut self, profile: Profile, keys: Keys, fingerprint: &[u8; 32], now: Instant) {
        let Some(outside) = self.sides.iter_mut().find_map(|side| side.outside.as_deref_mut()) else {
            return;
        };
        self.deadlines.dtls = None;
        if outside.fingerprint != Some(*fingerprint) {
            outside.dtls = StepState::Failed;
            self.end(EndCause::FingerprintMismatch);
            return;
        }
        outside.dtls = StepState::Connected;
        outside.profile = Some(profile);
        outside.keys = Some(keys);
        self.replan(now);
    }

    /// Something that the plan says has changed: the next version goes out, or waits for the one in flight.
    pub(super) fn replan(&mut self, now: Instant) {
        if !self.relayed.takes_next() {
            return;
        }
        let version = self.relayed.sent + 1;
        let signalled = self.ends_inside();
        self.sources.keep(&signalled);
        match self.plan(version) {
            None => {}
            Some(Ok(plan)) => {
                let complete = |direction: &Direction| direction.open.is_some() && direction.seal.is_some();
                self.relayed.sends(version, plan.directions.iter().all(complete));
                self.deadlines.relay = Some(now + self.settings.timeouts.relay);
                self.commands.push_back(Command::Install(plan));
            }
            Some(Err(refusal)) => self.end(EndCause::Refused(refusal)),
        }
    }

    /// The plan, as soon as both sides have a path.
    fn plan(&self, version: u32) -> Option<Result<Plan, Refusal>> {
        if self.cause.is_some() {
            return None;
        }
        let directions: Vec<Direction> = self.directions();
        if directions.is_empty() {
            return None;
        }
        let consents = self.sides.iter().filter_map(|side| side.outside.as_ref()?.consent.clone()).collect();
        let record = Record::of(self).encode();
        let mut plan = Plan { call: self.id, version, directions, consents, record };
        self.sources.settle(&mut plan, !self.asymmetric);
        Some(plan.validate().map(|()| plan))
    }

    /// What a request says of sources holds for the rest of the call.
    pub(super) fn note_sources(&mut self, flags: &Flags) {
        self.strict |= flags.strict_source;
        self.asymmetric |= flags.asymmetric;
    }

    /// The relay hears telephony from another port than was signalled.
    pub(super) fn source(&mut self, flow: &FlowKey, now: Instant) {
        let signalled = self.ends_inside();
        if self.cause.is_none() && !self.strict && self.sources.hear(flow, &signalled) {
            self.replan(now);
        }
    }

    /// Ports of ours inside, and what was signalled of the other ends.
    pub(super) fn ends_inside(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let ends = self.sections.iter().flat_map(|section| [0, 1].map(|at| section.flows(at, &self.sides)));
        let flows = ends.flatten().flat_map(|(rtp, rtcp)| [rtp, rtcp]);
        let inside = flows.filter(|flow| flow.zone == Zone::Inside);
        inside.map(|flow| (flow.local, flow.remote)).collect()
    }

    pub(super) fn installed(&mut self, version: u32, now: Instant) {
        if version != self.relayed.sent {
            return;
        }
        self.deadlines.relay = None;
        self.relayed.has(version);
        match self.waiting.take() {
            Some(Waiting::Plan(wanted, text)) if wanted <= version => {
                self.commands.push_back(Command::Answer(text))
            }
            other => self.waiting = other,
        }
        if self.relayed.stale {
            self.replan(now);
        }
        self.tell_connected();
    }

    /// Media passes: said once.
    pub(super) fn tell_connected(&mut self) {
        if self.relayed.complete && !self.relayed.in_flight && !self.connected {
            self.connected = true;
            self.deadlines.quiet = None;
            self.notify(CallEvent::Connected);
        }
    }
}

impl Bridge {
    fn directions(&self) -> Vec<Direction> {
        let mut directions = Vec::with_capacity(2 * self.sections.len());
        for (index, section) in (0..).zip(&self.sections) {
            let both = [self.direction(2 * index, section, 0), self.direction(2 * index + 1, section, 1)];
            let [Some(mut there), Some(mut back)] = both else { continue };
            // Between plain peers nothing has to change: their reports stay true, and the kernel can do it.
            if there.may_be_transparent() && back.may_be_transparent() {
                (there.passage, back.passage) = (Passage::Transparent, Passage::Transparent);
            }
            directions.extend([there, back]);
        }
        directions
    }

    /// One way of a section, from one side to the other.
    fn direction(&self, index: u8, section: &Section, from: usize) -> Option<Direction> {
        let to = 1 - from;
        let ((rtp, rtcp), (to_rtp, to_rtcp)) =
            (section.flows(from, &self.sides)?, section.flows(to, &self.sides)?);
        let (sender, receiver) = (section.ends[from].said.as_ref()?, section.ends[to].said.as_ref()?);
        let open = section.live && sender.direction.sends() && receiver.direction.receives();
        let (payload_types, resend) = self.passes(section, from, (sender, receiver));
        Some(Direction {
            index: DirectionIndex(index),
            medium: section.medium,
            ingress: if rtp == rtcp { vec![rtp] } else { vec![rtp, rtcp] },
            open: section.protections(from, &self.sides).0,
            seal: section.protections(to, &self.sides).1,
            rtp: to_rtp,
            rtcp: to_rtcp,
            passage: Passage::Translated,
            ssrc: Ssrc(section.ends[to].ssrc),
            payload_types,
            extensions: self.extensions(section, from),
            digits: Digits::Pass,
            resend,
            fork: None,
            learns: self.sides[from].zone == Zone::Inside && !self.strict,
            reverse: DirectionIndex(index ^ 1),
            mute: if open { Mute::Open } else { Mute::Held },
        })
    }

    /// Payload types that pass, and what leaves again.
    fn passes(
        &self,
        section: &Section,
        from: usize,
        (sender, receiver): (&Said, &Said),
    ) -> (Vec<PtMap>, Resend) {
        if section.chosen.is_empty() {
            let inward = self.sides[from].zone == Zone::Outside;
            let pictures = self.sections.iter().filter(|_| inward).flat_map(|section| &section.chosen);
            let taken = pictures.flat_map(|one| [Some(one.outside.payload_type), one.outside.rtx]).flatten();
            return (payload_types(sender, receiver, &taken.collect::<Vec<u8>>()), Resend::Never);
        }
        let (inward, mut outward, resend) = sdp::payload_types(&section.chosen, section.rtx);
        if self.sides[from].zone == Zone::Outside {
            return (inward, Resend::Never);
        }
        // As with sound, who sends under its own number is helped.
        for one in &section.chosen {
            let [from, to] = [one.to_inside, one.outside.payload_type].map(Pt);
            if outward.iter().all(|map| map.from != from) {
                outward.push(PtMap { from, to, format: plan::Format::Media(Clock::Hz90000) });
            }
        }
        (outward, resend)
    }

    /// Numbers are those of the bundle, so that its first section hears them all.
    fn extensions(&self, section: &Section, from: usize) -> Extensions {
        let film = section.medium == Medium::Video;
        match [self.sides[from].zone, self.sides[1 - from].zone] {
            [Zone::Outside, _] => {
                let mut agreed = self.sections.iter().map(|section| &section.ends[from].agreed);
                let nack = film && section.ends[from].agreed.knows_nack();
                let transport_wide = agreed.find_map(Agreed::transport_wide);
                Extensions { transport_wide, nack, ..Extensions::default() }
            }
            [_, Zone::Outside] => {
                let agreed = &section.ends[1 - from].agreed;
                let remb = film && agreed.knows_remb();
                Extensions { mid: agreed.name(), remb, ..Extensions::default() }
            }
            _ => Extensions::default(),
        }
    }
}

/// Payload types pass as they are: each side was shown those of the other. A side that sends under its own type for a
/// codec, where the two differ, is helped. `taken`: types that the sender has for another section of its bundle.
fn payload_types(sender: &Said, receiver: &Said, taken: &[u8]) -> Vec<PtMap> {
    let map = |from: &Format, to: &Format| PtMap {
        from: Pt(from.payload_type),
        to: Pt(to.payload_type),
        format: format(from, to),
    };
    let free = |format: &&Format| !taken.contains(&format.payload_type);
    let mut maps: Vec<PtMap> =
        receiver.formats.iter().filter(free).map(|format| map(format, format)).collect();
    for own in sender.formats.iter().filter(free) {
        let mapped = maps.iter().any(|map| map.from.0 == own.payload_type);
        let theirs = receiver.formats.iter().find(|format| !own.name.is_empty() && format.is_alike(own));
        if let Some(theirs) = theirs.filter(|_| !mapped) {
            maps.push(map(own, theirs));
        }
    }
    maps.truncate(MAPS_MAX);
    maps
}

/// What a format carries, by its name, or by its number where that is a static one (RFC 3551 section 6).
fn format(from: &Format, to: &Format) -> plan::Format {
    let clock = |format: &Format| {
        let rate = format.name.split('/').nth(1).and_then(|rate| rate.trim().parse().ok());
        rate.and_then(Clock::of).unwrap_or(match format.payload_type {
            10 | 11 => Clock::Hz44100,
            25..=34 => Clock::Hz90000,
            0..=95 => Clock::Hz8000,
            _ => Clock::Hz48000,
        })
    };
    let events =
        |format: &Format| format.name.get(..EVENT.len()).is_some_and(|name| name.eq_ignore_ascii_case(EVENT));
    if events(from) {
        plan::Format::Event { from: clock(from), to: clock(to) }
    } else {
        plan::Format::Media(clock(from))
    }
}
