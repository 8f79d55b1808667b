//! Telephony that sends from another port than it signals, and may be behind one that it does not know of: where a plan lets a
//! direction learn, what comes from the signalled address but another port is heard once it has shown to be the peer's.
//!
//! An encrypted packet shows that by its tag. A plain stream has to be the only one: packets in sequence of one source, of
//! payload types of the call, for a tenth of a second in which nothing comes by the direction's flows; and RTCP has to be of the
//! source that is heard. Who has just been signalled anew is waited for.
//! The address is never learned: what another one sends meets no flow.

use arrayvec::ArrayVec;
use sallyport_plan::{FlowKey, Mute, Passage};
use sallyport_srtp::{OpenJob, open_burst};
use sallyport_wire::demux;
use sallyport_wire::rtp::Header;

use crate::Now;
use crate::burst::{Inbound, Step, Way};
use crate::direction::Direction;
use crate::limit::FLOW;
use crate::packet::{Payload, Sealing, open_reason};
use crate::reason::Reason;
use crate::rtcp;
use crate::translator::{CoreEvent, EVENTS, Translator};

/// Packets in sequence by which a source shows to be one (RFC 3550 appendix A.1 has two).
const SHOWN: u8 = 3;
/// Microseconds for which nothing may come by the direction's flows meanwhile: longer than a packet of any sound.
const ALONE: u64 = 100_000;
/// Microseconds for which a direction whose flows have changed waits for what comes by them.
const GRACE: u64 = 1_000_000;
/// Numbers that may be missing between two of them.
const GAP: u16 = 16;
/// Packets of a source that was told of, until it is told of again: one that is heard, and one that waits for that.
const AGAIN: [u8; 2] = [64, 8];

/// What a direction knows of sources that are not in its plan. Ports are ours and the peer's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latch {
    /// Whose trial runs: ports, SSRC, the last sequence number, and what the direction had let pass when it began.
    on_trial: Option<((u16, u16), u32, u16, u32)>,
    /// When it began.
    began: Now,
    /// Before that nobody is heard; begins with the first packet after the flows have changed.
    not_before: Now,
    moved: bool,
    /// Packets in sequence so far.
    shown: u8,
    /// Who is heard by now: of RTP and of RTCP.
    heard: [Option<(u16, u16)>; 2],
    /// Packets of theirs since control was told.
    since: u8,
}

impl Latch {
    /// Of a direction whose flows have just changed.
    pub fn moved() -> Self {
        Self { moved: true, ..Self::default() }
    }

    fn hears(&self, ports: (u16, u16)) -> bool {
        self.heard.contains(&Some(ports))
    }

    fn hear(&mut self, payload: Payload, ports: (u16, u16)) {
        if let Some(heard) = self.heard.get_mut(usize::from(payload == Payload::Rtcp)) {
            *heard = Some(ports);
        }
        (self.on_trial, self.shown, self.since) = (None, 0, 0);
    }

    /// Whether an RTP packet is the last one that its source needed. `passed`: what the direction has let pass, which must not
    /// change meanwhile.
    fn shows(&mut self, header: &Header<'_>, ports: (u16, u16), passed: u32, now: Now) -> bool {
        if std::mem::take(&mut self.moved) {
            self.not_before = now.plus(GRACE);
        }
        if now < self.not_before {
            return false;
        }
        let (ssrc, sequence) = (header.ssrc(), header.sequence());
        let goes_on = self.on_trial.is_some_and(|(of, source, last, before)| {
            let step = sequence.wrapping_sub(last);
            (of, source, before) == (ports, ssrc, passed) && (1..=GAP).contains(&step)
        });
        self.shown = if goes_on { self.shown.saturating_add(1) } else { 1 };
        if !goes_on {
            self.began = now;
        }
        self.on_trial = Some((ports, ssrc, sequence, passed));
        self.shown >= SHOWN && now.since(self.began) >= ALONE
    }
}

impl Direction {
    /// Whether a packet by none of its flows may be its peer's all the same.
    fn may_learn(&self, from: &FlowKey) -> bool {
        let plan = &self.cold.plan;
        plan.learns && plan.ingress.iter().any(|flow| flow.of_any_port() == from.of_any_port())
    }

    /// Whether a plain packet shows that its source is the peer.
    fn is_shown(
        &mut self,
        payload: Payload,
        packet: &[u8],
        ports: (u16, u16),
        now: Now,
    ) -> Result<bool, Reason> {
        if payload == Payload::Rtcp {
            let (sender, _) = rtcp::speakers(packet);
            return Ok(sender.is_some() && sender == self.stream.source());
        }
        let header = Header::parse(packet).map_err(|_| Reason::Malformed)?;
        if !self.has_payload_type(header.payload_type()) {
            return Err(Reason::PayloadType);
        }
        let passed = (self.packets & 0xffff_ffff) as u32;
        Ok(self.cold.latch.shows(&header, ports, passed, now))
    }
}

impl Translator {
    /// A packet that came by none of its direction's flows: one that was changed just now, or any other port of the peer's.
    ///
    /// # Errors
    /// Why it ends here, as [`Reason::Unlatched`] does where it may still turn out to be the peer's.
    #[cold]
    pub(crate) fn stray(
        &mut self,
        slot: usize,
        way: &mut Way,
        packet: &mut Inbound<'_, '_>,
        now: Now,
    ) -> Result<Step, Reason> {
        let direction = self.table.at_mut(slot).filter(|direction| direction.may_learn(&packet.from));
        let direction = direction.ok_or(Reason::StaleFlow)?;
        way.slot = u32::try_from(slot).unwrap_or(u32::MAX);
        way.payload = match demux::classify(packet.buf.packet()) {
            demux::Kind::Rtp => Payload::Rtp,
            demux::Kind::Rtcp => Payload::Rtcp,
            demux::Kind::Stun | demux::Kind::Dtls | demux::Kind::Unknown => return Err(Reason::Unexpected),
        };
        if direction.cold.plan.mute == Mute::Held {
            return Err(Reason::Held);
        }
        let protected = direction.arrive()?;
        if matches!(direction.seal, Sealing::Waiting) {
            return Err(Reason::Early);
        }
        let ports = (packet.from.local.port(), packet.from.remote.port());
        let (hears, translated) =
            (direction.cold.latch.hears(ports), direction.cold.plan.passage == Passage::Translated);
        let shown =
            hears || (!protected && direction.is_shown(way.payload, packet.buf.packet(), ports, now)?);
        if protected {
            self.open_alone(way, packet, now)?;
        }
        if !shown && !protected {
            return Err(Reason::Unlatched);
        }
        self.tell_source(slot, way.payload, &packet.from, now);
        // Control is asked. What the kernel forwards past us may still come by the direction's flows.
        if translated { Ok(Step::Open) } else { Err(Reason::Unlatched) }
    }

    /// Verifies and decrypts what is not to wait for the rest of its burst.
    fn open_alone(&mut self, way: &Way, packet: &mut Inbound<'_, '_>, now: Now) -> Result<(), Reason> {
        if let Some(outcome) = self.open_changing(way, packet.buf, now) {
            return outcome.map(|_| ());
        }
        let mut jobs = ArrayVec::<_, 1>::new();
        jobs.push(OpenJob::new(way.slot, way.kind(), packet.buf));
        open_burst(&mut self.table, &mut jobs);
        let outcome = jobs.pop().map(|job| job.outcome);
        outcome.ok_or(Reason::StaleFlow)?.map(|_| ()).map_err(open_reason)
    }

    /// A source is heard. Control is told, and again while its plans do not say so.
    fn tell_source(&mut self, slot: usize, payload: Payload, from: &FlowKey, now: Now) {
        let ports = (from.local.port(), from.remote.port());
        let Some(cold) = self.table.at_mut(slot).map(|direction| &mut direction.cold) else { return };
        cold.latch.since = cold.latch.since.saturating_add(1);
        let known = cold.latch.hears(ports);
        let [heard, waiting] = AGAIN;
        let again = if cold.plan.passage == Passage::Translated { heard } else { waiting };
        if known && cold.latch.since < again {
            return;
        }
        if self.events.len() < EVENTS && cold.punts.take(FLOW, now) {
            cold.latch.hear(payload, ports);
            self.stats.latched += u64::from(!known);
            self.events.push_back(CoreEvent::Source { call: cold.call, flow: *from });
        }
    }
}
