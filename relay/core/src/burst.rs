//! The way of packets through the translator, a burst at a time.
//!
//! ```text
//!   Arrived ── open ──► Open ── rewrite ──► Rewritten ── seal ──► Cleared
//! ```
//!
//! Each packet meets what it would meet alone, in the order of the burst; the crypto of all is done side by side. Only one
//! that was opened, rewritten and sealed (or that is of a leg that agreed to be plain) leaves: nothing outside this module
//! moves a packet on or makes a [`Cleared`].

use arrayvec::ArrayVec;
use sallyport_plan::FlowKey;
use sallyport_srtp::{Kind, OpenJob, SealJob, open_burst, seal_burst};
use sallyport_wire::PacketBuf;
use sallyport_wire::{demux, stun};

use crate::Now;
use crate::consent::Met;
use crate::direction::Lost;
use crate::limit::FLOW;
use crate::packet::{Payload, Sealing, Verdict, open_reason, seal_reason};
use crate::reason::Reason;
use crate::table::Tag;
use crate::translator::Translator;

/// Packets that are taken at once.
const BURST: usize = 64;
/// How many packets ahead of the one at work state is fetched into the cache.
const AHEAD: usize = 8;

/// Proof that the bytes in the buffer may leave, and where to. Only the translator makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Cleared {
    egress: FlowKey,
    payload: Payload,
}

impl Cleared {
    /// Where the packet goes: from `local` to `remote`, by `zone`.
    pub const fn egress(&self) -> &FlowKey {
        &self.egress
    }

    /// What it carries.
    pub const fn payload(&self) -> Payload {
        self.payload
    }
}

/// A packet to be judged and rewritten in place.
pub struct Inbound<'p, 'b> {
    /// Where it really came from: a tag alone proves nothing.
    pub from: FlowKey,
    /// The tag of its flow; `None` where no flow claims it.
    pub tag: Option<Tag>,
    /// Where it lies.
    pub buf: &'p mut PacketBuf<'b>,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl<'p, 'b> Inbound<'p, 'b> {
    /// A packet that is not judged yet.
    pub fn new(from: FlowKey, tag: Option<Tag>, buf: &'p mut PacketBuf<'b>) -> Self {
        Self { from, tag, buf, verdict: Verdict::Drop(Reason::UnknownFlow) }
    }
}

/// How far a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// As the peer sent it, of an SRTP leg.
    Arrived,
    /// Verified and decrypted, or of a plain leg.
    Open,
    /// In the words of the other leg.
    Rewritten,
    /// Its verdict is set.
    Judged,
}

/// A packet on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    step: Step,
    pub payload: Payload,
    /// Slot of its direction; `u32::MAX` where it has none.
    pub slot: u32,
    /// Octets of its RTP payload.
    octets: u32,
}

impl Way {
    const NONE: Self = Self { step: Step::Judged, payload: Payload::Rtp, slot: u32::MAX, octets: 0 };

    pub const fn kind(&self) -> Kind {
        match self.payload {
            Payload::Rtp => Kind::Rtp,
            Payload::Rtcp => Kind::Rtcp,
        }
    }

    /// Goes on to `next`, or ends here.
    fn follow(&mut self, packet: &mut Inbound<'_, '_>, outcome: Result<Step, Reason>) {
        self.step = outcome.unwrap_or_else(|reason| {
            packet.verdict = Verdict::Drop(reason);
            Step::Judged
        });
    }
}

impl Translator {
    /// Judges and rewrites packets in place, each as if it came alone, in their order. Allocates nothing.
    pub fn translate_burst(&mut self, packets: &mut [Inbound<'_, '_>], now: Now) {
        for packets in packets.chunks_mut(BURST) {
            let mut ways = [Way::NONE; BURST];
            let ways = &mut ways[..packets.len()];
            self.arrive(packets, ways, now);
            if !self.changes_due.is_empty() {
                self.open_with_two(packets, ways, now);
            }
            self.open(packets, ways);
            self.rewrite_and_seal(packets, ways, now);
            self.count(packets, ways);
        }
    }

    /// A sender report counts what left before it, so all in front of it is sealed first.
    fn rewrite_and_seal(&mut self, mut packets: &mut [Inbound<'_, '_>], ways: &mut [Way], now: Now) {
        let goes_along = |_: &Way, next: &Way| next.step != Step::Open || next.payload == Payload::Rtp;
        for ways in ways.chunk_by_mut(goes_along) {
            let (some, rest) = packets.split_at_mut(ways.len());
            self.rewrite(some, ways, now);
            self.seal(some, ways, now);
            packets = rest;
        }
    }

    /// Judges and rewrites one packet of a known flow, in place. `from` is where it really came from: a tag alone proves
    /// nothing.
    pub fn translate(&mut self, tag: Tag, from: &FlowKey, buf: &mut PacketBuf<'_>, now: Now) -> Verdict {
        self.translate_one(Inbound::new(*from, Some(tag), buf), now)
    }

    /// Judges a packet that no flow claims: STUN to the browsers' port goes to control, as much as its source may send.
    pub fn unknown(&mut self, from: &FlowKey, buf: &mut PacketBuf<'_>, now: Now) -> Verdict {
        self.translate_one(Inbound::new(*from, None, buf), now)
    }

    fn translate_one(&mut self, packet: Inbound<'_, '_>, now: Now) -> Verdict {
        let mut burst = [packet];
        self.translate_burst(&mut burst, now);
        let [packet] = burst;
        packet.verdict
    }

    fn arrive(&mut self, packets: &mut [Inbound<'_, '_>], ways: &mut [Way], now: Now) {
        for at in 0..packets.len() {
            if let Some(tag) = packets.get(at + AHEAD).and_then(|next| next.tag) {
                self.table.prefetch(tag);
            }
            let (Some(packet), Some(way)) = (packets.get_mut(at), ways.get_mut(at)) else { return };
            let Some(tag) = packet.tag else {
                packet.verdict = self.stranger(packet, now);
                continue;
            };
            let Some(slot) = self.table.owned(tag) else {
                packet.verdict = Verdict::Drop(Reason::StaleFlow);
                continue;
            };
            let step = if self.table.at(slot).is_some_and(|owner| owner.is_fed_by(&packet.from)) {
                way.slot = u32::try_from(slot).unwrap_or(u32::MAX);
                self.judge(slot, way, packet, now)
            } else {
                self.stray(slot, way, packet, now)
            };
            way.follow(packet, step);
        }
    }

    fn stranger(&mut self, packet: &Inbound<'_, '_>, now: Now) -> Verdict {
        if !self.is_browsers(&packet.from) || !stun::is_stun(packet.buf.packet()) {
            Verdict::Drop(Reason::UnknownFlow)
        } else if self.sources.admit(packet.from.remote.ip(), now) {
            Verdict::Punt(None)
        } else {
            Verdict::Drop(Reason::RateLimited)
        }
    }

    /// Tells media from the rest, and judges the rest.
    fn judge(
        &mut self,
        slot: usize,
        way: &mut Way,
        packet: &mut Inbound<'_, '_>,
        now: Now,
    ) -> Result<Step, Reason> {
        let browsers = self.is_browsers(&packet.from);
        match demux::classify(packet.buf.packet()) {
            demux::Kind::Rtp => way.payload = Payload::Rtp,
            demux::Kind::Rtcp => way.payload = Payload::Rtcp,
            demux::Kind::Stun if browsers => {
                packet.verdict = self.stun(slot, &packet.from, packet.buf, now)?;
                return Ok(Step::Judged);
            }
            demux::Kind::Dtls if browsers => {
                packet.verdict = self.punt(slot, now)?;
                return Ok(Step::Judged);
            }
            demux::Kind::Stun | demux::Kind::Dtls | demux::Kind::Unknown => return Err(Reason::Unexpected),
        }
        let protected = self.table.at(slot).ok_or(Reason::StaleFlow)?.arrive()?;
        Ok(if protected { Step::Arrived } else { Step::Open })
    }

    fn stun(
        &mut self,
        slot: usize,
        from: &FlowKey,
        buf: &mut PacketBuf<'_>,
        now: Now,
    ) -> Result<Verdict, Reason> {
        let call = self.table.at(slot).ok_or(Reason::StaleFlow)?.cold.call;
        let consents = self.calls.get_mut(&call).map(|call| call.consents.as_mut_slice()).unwrap_or_default();
        let Some(consent) = consents.iter_mut().find(|consent| consent.plan().flow == *from) else {
            return self.punt(slot, now);
        };
        match consent.meet(buf, now) {
            Met::Answered => Ok(Verdict::Reply(*from)),
            Met::Confirmed => Ok(Verdict::Consumed),
            Met::Foreign => self.punt(slot, now),
            Met::Bad(reason) => Err(reason),
        }
    }

    fn punt(&mut self, slot: usize, now: Now) -> Result<Verdict, Reason> {
        let cold = &mut self.table.at_mut(slot).ok_or(Reason::StaleFlow)?.cold;
        if cold.punts.take(FLOW, now) { Ok(Verdict::Punt(Some(cold.call))) } else { Err(Reason::RateLimited) }
    }

    /// Verifies and decrypts what comes on directions that have just got another key.
    #[cold]
    fn open_with_two(&mut self, packets: &mut [Inbound<'_, '_>], ways: &mut [Way], now: Now) {
        for (packet, way) in packets.iter_mut().zip(ways).filter(|(_, way)| way.step == Step::Arrived) {
            if let Some(outcome) = self.open_changing(way, packet.buf, now) {
                way.follow(packet, outcome);
            }
        }
    }

    /// Verifies and decrypts.
    fn open(&mut self, packets: &mut [Inbound<'_, '_>], ways: &mut [Way]) {
        let due = |(_, way): &(_, &Way)| way.step == Step::Arrived;
        let mut jobs: ArrayVec<OpenJob<'_, '_>, BURST> = packets
            .iter_mut()
            .zip(&*ways)
            .filter(due)
            .map(|(packet, way)| OpenJob::new(way.slot, way.kind(), packet.buf))
            .collect();
        open_burst(&mut self.table, &mut jobs);
        let outcomes: ArrayVec<_, BURST> = jobs.into_iter().map(|job| job.outcome).collect();
        let due = packets.iter_mut().zip(ways).filter(|(_, way)| way.step == Step::Arrived);
        for ((packet, way), outcome) in due.zip(outcomes) {
            way.follow(packet, outcome.map(|_| Step::Open).map_err(open_reason));
        }
    }

    /// Turns what is open into the other leg's words.
    fn rewrite(&mut self, packets: &mut [Inbound<'_, '_>], ways: &mut [Way], now: Now) {
        for (packet, way) in packets.iter_mut().zip(ways) {
            if way.step == Step::Open {
                if way.payload == Payload::Rtp
                    && let Some(first) = self.table.at_mut(way.slot as usize)
                {
                    first.note_arrival(packet.buf.packet(), now);
                }
                let carrier = self.table.carrier(way.slot as usize, way.payload, packet.buf.packet());
                way.slot = u32::try_from(carrier).unwrap_or(u32::MAX);
                let outcome = self.rewrite_one(packet, way, now);
                way.follow(packet, outcome);
            }
        }
    }

    fn rewrite_one(&mut self, packet: &mut Inbound<'_, '_>, way: &mut Way, now: Now) -> Result<Step, Reason> {
        let slot = way.slot as usize;
        match way.payload {
            Payload::Rtp => {
                let direction = self.table.at_mut(slot).ok_or(Reason::StaleFlow)?;
                if direction.tells_digits() {
                    let (digits, ends) = direction.hear(packet.buf.packet(), now);
                    self.tell_digits(slot, digits, now);
                    if ends {
                        packet.verdict = Verdict::Heard;
                        return Ok(Step::Judged);
                    }
                }
                let direction = self.table.at_mut(slot).ok_or(Reason::StaleFlow)?;
                let rewritten = direction.rewrite_rtp(packet.buf, now)?;
                // No packet is longer than 2^16 octets.
                way.octets = u32::try_from(rewritten.octets).unwrap_or(u32::MAX);
                self.stats.continue_or_break(rewritten.follows);
                self.stats.note_extensions(rewritten.sound);
                self.stats.recovered += u64::from(rewritten.recovered);
                if rewritten.asks {
                    self.ask_later(slot, now);
                }
                Ok(Step::Rewritten)
            }
            Payload::Rtcp => {
                let mut lost = Lost::default();
                let (direction, reverse) = self.table.pair(slot).ok_or(Reason::StaleFlow)?;
                let rewritten = direction.rewrite_rtcp(packet.buf, reverse, &mut lost, now);
                self.resend_later(slot, &lost);
                if rewritten == Err(Reason::RtcpEmpty) && lost.is_answered() {
                    packet.verdict = Verdict::Answered;
                    return Ok(Step::Judged);
                }
                if rewritten? {
                    self.tell_picture(slot);
                }
                Ok(Step::Rewritten)
            }
        }
    }

    /// Encrypts and signs, or leaves plain what is of a leg that agreed to that.
    fn seal(&mut self, packets: &mut [Inbound<'_, '_>], ways: &mut [Way], now: Now) {
        for (packet, way) in packets.iter_mut().zip(&mut *ways) {
            if way.step == Step::Rewritten {
                let direction = self.table.at(way.slot as usize);
                if let Some(to) = direction.and_then(|direction| direction.fork(way.payload)) {
                    self.stats.fork(self.copies.push(to, packet.buf.packet()));
                }
                match direction.map(|direction| &direction.seal) {
                    Some(Sealing::Srtp(_)) => {}
                    Some(Sealing::Plain) => self.clear(packet, way, now),
                    Some(Sealing::Waiting) => way.follow(packet, Err(Reason::Early)),
                    None => way.follow(packet, Err(Reason::StaleFlow)),
                }
            }
        }
        let due = |(_, way): &(_, &Way)| way.step == Step::Rewritten;
        let mut jobs: ArrayVec<SealJob<'_, '_>, BURST> = packets
            .iter_mut()
            .zip(&*ways)
            .filter(due)
            .map(|(packet, way)| SealJob::new(way.slot, way.kind(), packet.buf))
            .collect();
        seal_burst(&mut self.table, &mut jobs);
        let outcomes: ArrayVec<_, BURST> = jobs.into_iter().map(|job| job.outcome).collect();
        let due = packets.iter_mut().zip(ways).filter(|(_, way)| way.step == Step::Rewritten);
        for ((packet, way), outcome) in due.zip(outcomes) {
            match outcome {
                Ok(()) => self.clear(packet, way, now),
                Err(error) => way.follow(packet, Err(seal_reason(error))),
            }
        }
    }

    /// Lets a packet leave.
    fn clear(&mut self, packet: &mut Inbound<'_, '_>, way: &mut Way, now: Now) {
        let Some(direction) = self.table.at_mut(way.slot as usize) else {
            return way.follow(packet, Err(Reason::StaleFlow));
        };
        if way.payload == Payload::Rtp {
            direction.packets += 1;
            direction.octets += u64::from(way.octets);
            direction.keep_sealed(packet.buf.packet(), now);
            // A turn that forwards more is not counted in full.
            let _ = self.leaving.try_push(way.slot);
        }
        let egress = direction.egress(way.payload);
        packet.verdict = Verdict::Forward(Cleared { egress, payload: way.payload });
        way.step = Step::Judged;
    }

    fn count(&mut self, packets: &[Inbound<'_, '_>], ways: &[Way]) {
        for (packet, way) in packets.iter().zip(ways) {
            self.stats.count(&packet.verdict);
            if let Verdict::Drop(reason) = packet.verdict
                && let Some(direction) = self.table.at_mut(way.slot as usize)
            {
                direction.cold.drops.count(reason);
            }
        }
    }
}
