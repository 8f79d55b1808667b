//! The state of one direction, and the way of one packet through it.

use sallyport_plan::{CallId, Direction as Plan, FlowKey, Medium, Mute, Passage};
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::{self, Header};
use sha1::{Digest, Sha1};

use crate::Now;
use crate::limit::Bucket;
use crate::packet::{Opening, Payload, Sealing};
use crate::quality::{Arrival, Quality};
use crate::reason::Reason;
use crate::rtcp::{self, Names};
use crate::stats::Drops;
use crate::stream::Stream;

/// No such payload type on this leg.
const UNMAPPED: u8 = 0xff;

/// One direction as it runs. What every packet touches lies here, the rest behind `cold`.
pub struct Direction {
    pub open: Opening,
    pub seal: Sealing,
    pub stream: Stream,
    rules: Rules,
    /// Slot of the direction that runs the other way.
    pub reverse: usize,
    /// Consent of a pair that it receives from or sends to has lapsed.
    pub lapsed: bool,
    pub packets: u64,
    pub octets: u64,
    pub cold: Box<Cold>,
    pub quality: Quality,
}

/// What most packets do not touch.
pub struct Cold {
    pub call: CallId,
    pub plan: Plan,
    pub drops: Drops,
    /// What its peer may still send to control.
    pub punts: Bucket,
}

/// The plan, as the packet path reads it.
struct Rules {
    ingress: [Option<FlowKey>; 2],
    rtp: FlowKey,
    rtcp: FlowKey,
    ssrc: u32,
    medium: Medium,
    mute: Mute,
    passage: Passage,
    payload_types: [u8; 128],
}

impl Rules {
    fn new(plan: &Plan) -> Self {
        let mut payload_types = [UNMAPPED; 128];
        for map in &plan.payload_types {
            if let Some(entry) = payload_types.get_mut(usize::from(map.from.0)) {
                *entry = map.to.0 & 0x7f;
            }
        }
        Self {
            ingress: [plan.ingress.first().copied(), plan.ingress.get(1).copied()],
            rtp: plan.rtp,
            rtcp: plan.rtcp,
            ssrc: plan.ssrc.0,
            medium: plan.medium,
            mute: plan.mute,
            passage: plan.passage,
            payload_types,
        }
    }

    /// Whether a packet of this type may leave as it came.
    fn lets_pass(&self, payload_type: u8) -> Result<(), Reason> {
        let mapped = self.payload_types.get(usize::from(payload_type)).is_some_and(|to| *to != UNMAPPED);
        match self.mute {
            _ if !mapped => Err(Reason::PayloadType),
            Mute::Held => Err(Reason::Held),
            Mute::Open => Ok(()),
        }
    }

    /// Clock rate in Hz: the static types' own (RFC 3551 section 6), 90 kHz for other video, 48 kHz for other audio. It
    /// only sets the timestamp step over a re-basing.
    fn clock(&self, payload_type: u8) -> u32 {
        match (self.medium, payload_type) {
            (Medium::Audio, 0..=9 | 12..=18) => 8000,
            (Medium::Audio, 10 | 11) => 44_100,
            (Medium::Audio, _) => 48_000,
            (Medium::Video, _) => 90_000,
        }
    }
}

impl Direction {
    /// A direction that nothing has passed yet.
    pub fn new(call: CallId, plan: Plan, open: Opening, seal: Sealing) -> Self {
        Self {
            open,
            seal,
            stream: Stream::new(name(call, &plan)),
            rules: Rules::new(&plan),
            reverse: usize::MAX,
            lapsed: false,
            packets: 0,
            octets: 0,
            cold: Box::new(Cold { call, plan, drops: Drops::default(), punts: Bucket::default() }),
            quality: Quality::default(),
        }
    }

    /// Takes over a newer plan; state and counters stay.
    pub fn swap(&mut self, plan: Plan) {
        if self.rules.passage == Passage::Transparent && plan.passage == Passage::Translated {
            // What passed meanwhile was not of the stream that leaves from now on.
            self.stream.resume();
        }
        self.rules = Rules::new(&plan);
        self.cold.plan = plan;
    }

    /// Whether packets of the flow feed it.
    pub fn is_fed_by(&self, flow: &FlowKey) -> bool {
        self.rules.ingress.iter().flatten().any(|own| own == flow)
    }

    /// Whether it receives from or sends to the pair.
    pub fn touches(&self, pair: &FlowKey) -> bool {
        self.is_fed_by(pair) || self.rules.rtp == *pair || self.rules.rtcp == *pair
    }

    /// Whether packets that come in have to be opened.
    ///
    /// # Errors
    /// Why none is taken.
    pub fn arrive(&self) -> Result<bool, Reason> {
        if self.lapsed {
            return Err(Reason::ConsentLost);
        }
        match self.open {
            Opening::Waiting => Err(Reason::Early),
            Opening::Plain => Ok(false),
            Opening::Srtp(_) => Ok(true),
        }
    }

    /// Puts one open RTP packet into the outgoing stream; octets of its payload.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn rewrite_rtp(&mut self, buf: &mut PacketBuf<'_>, now: Now) -> Result<u64, Reason> {
        let waits = matches!(self.seal, Sealing::Waiting);
        rewrite(buf, (&mut self.stream, &mut self.quality), &self.rules, waits, now)
    }

    /// Puts one open RTCP compound into the other leg's words; `reverse` is the direction that runs the other way.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn rewrite_rtcp(&self, buf: &mut PacketBuf<'_>, reverse: Option<&Self>) -> Result<(), Reason> {
        if matches!(self.seal, Sealing::Waiting) {
            return Err(Reason::Early);
        }
        if self.rules.passage == Passage::Transparent {
            return rtcp::pass(buf.packet());
        }
        rtcp::rewrite(buf, &self.names(reverse))
    }

    /// Where it sends to.
    pub const fn egress(&self, payload: Payload) -> FlowKey {
        match payload {
            Payload::Rtp => self.rules.rtp,
            Payload::Rtcp => self.rules.rtcp,
        }
    }

    fn names(&self, reverse: Option<&Self>) -> Names {
        Names {
            own_ssrc: self.rules.ssrc,
            source: self.stream.source(),
            timestamp_offset: self.stream.timestamp_offset(),
            reverse: reverse.and_then(|reverse| Some((reverse.rules.ssrc, reverse.stream.origin()?))),
        }
    }
}

/// Rewrites an open packet in place; octets of its payload.
fn rewrite(
    buf: &mut PacketBuf<'_>,
    (stream, quality): (&mut Stream, &mut Quality),
    rules: &Rules,
    waits: bool,
    now: Now,
) -> Result<u64, Reason> {
    let header = Header::parse(buf.packet()).map_err(|_| Reason::Malformed)?;
    let padding = header.padding_len().map_err(|_| Reason::Malformed)?;
    let octets = (header.payload_len() - padding) as u64;
    let (ssrc, sequence, payload_type) = (header.ssrc(), header.sequence(), header.payload_type());
    if rules.passage == Passage::Transparent {
        return rules.lets_pass(payload_type).map(|()| octets);
    }
    let leaves_as = rules.payload_types.get(usize::from(payload_type)).copied().unwrap_or(UNMAPPED);
    let clock = rules.clock(payload_type);
    let arrival = Arrival { ssrc, sequence, timestamp: header.timestamp(), payload_type, clock };
    if leaves_as == UNMAPPED {
        quality.skip(&arrival, now);
        stream.skip(ssrc, sequence);
        return Err(Reason::PayloadType);
    }
    quality.arrive(&arrival, now);
    if rules.mute == Mute::Held || waits {
        stream.hold(ssrc, sequence);
        return Err(if waits { Reason::Early } else { Reason::Held });
    }
    let place = stream.place(ssrc, sequence, arrival.timestamp, clock, now)?;
    // Extensions were agreed with one leg only.
    rtp::strip_extension(buf).map_err(|_| Reason::Malformed)?;
    let packet = buf.packet_mut();
    rtp::set_payload_type(packet, leaves_as);
    rtp::set_sequence(packet, place.sequence);
    rtp::set_timestamp(packet, place.timestamp);
    rtp::set_ssrc(packet, rules.ssrc);
    Ok(octets)
}

/// Two octets that look random and are the same after a restart.
fn name(call: CallId, plan: &Plan) -> [u8; 2] {
    let digest = Sha1::new().chain_update(call.0.to_be_bytes()).chain_update([plan.index.0]);
    let [high, low, ..]: [u8; 20] = digest.finalize().into();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a packet touches besides keys; the payload types alone are two cache lines, addresses four.
    #[test]
    fn hot_state_is_small() {
        let hot = size_of::<Direction>() - size_of::<Quality>();
        assert!(hot <= 10 * 64, "{hot} octets beside the statistics");
    }
}
