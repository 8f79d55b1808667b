//! The state of one direction, and the way of one packet through it.

mod again;
mod compound;
mod fork;
mod own;
mod path;
mod rules;

use sallyport_plan::{CallId, Digits, Direction as Plan, FlowKey, Mute, Passage, Quality};
use sallyport_srtp::RTCP_OVERHEAD;
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::{self, Header};
use sha1::{Digest, Sha1};

use crate::Now;
use crate::arrivals::{Arrivals, FEEDBACK_MAX};
use crate::checkpoint::Kept;
use crate::continuity::Continuity;
use crate::dial::Dial;
use crate::event::{self, Digit, Hearing};
use crate::extensions::{self, Extensions};
use crate::latch::Latch;
use crate::limit::Bucket;
use crate::missing::Missing;
use crate::packet::{Opening, Payload, Sealing};
use crate::quality::{Arrival, Quality as Statistics};
use crate::reason::Reason;
use crate::rekey::Retired;
use crate::reports::{REPORT_MAX, Reports};
use crate::resend::Ring;
use crate::stats::DirectionDrops;
use crate::stream::{Numbers, START, STARTS, Stream};
pub use again::NACK_ROOM;
pub use compound::Lost;
use path::Path;
use rules::{Leaves, Rules};

/// Octets of a report of ours, sealed.
pub const REPORT_ROOM: usize = REPORT_MAX + RTCP_OVERHEAD;
/// The same of feedback.
pub const FEEDBACK_ROOM: usize = FEEDBACK_MAX + RTCP_OVERHEAD;

/// One direction as it runs. What every packet touches lies here, the rest behind `cold`.
pub struct Direction {
    pub open: Opening,
    pub seal: Sealing,
    pub stream: Stream,
    rules: Rules,
    continuity: Continuity,
    /// Slot of the direction that runs the other way.
    pub reverse: usize,
    /// Slot of the next direction of its bundle; `usize::MAX` behind the last.
    pub next: usize,
    /// Consent of a pair that it receives from or sends to has lapsed.
    pub lapsed: bool,
    /// What it may have to send again.
    pub ring: Option<Box<Ring>>,
    /// A digit of ours is being sent: media is held meanwhile.
    sounding: bool,
    /// A digit is being heard whose end has not come.
    hearing: bool,
    /// Whether its receiver is still to learn what section it is of.
    names: bool,
    pub packets: u64,
    pub octets: u64,
    pub cold: Box<Cold>,
    pub quality: Statistics,
}

/// What most packets do not touch.
pub struct Cold {
    pub call: CallId,
    pub plan: Plan,
    pub drops: DirectionDrops,
    /// What its peer may still send to control.
    pub punts: Bucket,
    /// Pictures that may still be asked for of its sender, and the number of the last request.
    pictures: (Bucket, u8),
    pub reports: Reports,
    /// Whether a timer runs for its reports.
    reporting: bool,
    /// The same for feedback.
    feeding: bool,
    /// What arrived of its bundle, where its sender is told of that.
    arrivals: Option<Box<Arrivals>>,
    /// The digit that it hears, where control is told of digits.
    pub hearing: Hearing,
    /// The sequence number of its last retransmission, extended; before the first one, the one in front of it.
    pub again: u32,
    /// What of its indices is kept, beside those of the stream.
    pub kept: Kept,
    /// Whether its receiver is to be told how far retransmissions have stepped, once they may leave.
    pub announces: bool,
    /// Retransmissions that may still leave.
    pace: Bucket,
    /// What is missing of what it receives, where that may come by retransmission or be asked for.
    missing: Option<Box<Missing>>,
    /// Answers to TMMBR that may still be given.
    bounds: Bucket,
    /// Whether a timer runs for questions about it.
    asking: bool,
    /// The same for a former key.
    pub rekeying: bool,
    /// What was opened under keys that are wiped.
    pub retired: Retired,
    /// Digits that it is to send.
    pub dial: Option<Box<Dial>>,
    /// What it knows of sources that its plan does not name.
    pub latch: Latch,
}

impl Cold {
    fn new(call: CallId, plan: Plan) -> Self {
        let (drops, punts, reports, hearing) = Default::default();
        let again = first_again(call, &plan);
        Self {
            call,
            plan,
            drops,
            punts,
            pictures: (Bucket::default(), 0),
            reports,
            reporting: false,
            feeding: false,
            arrivals: None,
            hearing,
            again,
            kept: Kept::default(),
            announces: false,
            pace: Bucket::default(),
            missing: None,
            asking: false,
            bounds: Bucket::default(),
            rekeying: false,
            retired: Retired::default(),
            dial: None,
            latch: Latch::default(),
        }
    }
}

impl Direction {
    /// A direction that nothing has passed yet.
    pub fn new(call: CallId, plan: Plan, open: Opening, seal: Sealing) -> Self {
        let rules = Rules::new(&plan);
        let mut cold = Box::new(Cold::new(call, plan));
        cold.missing = rules.watches().then(Box::default);
        let plan = &cold.plan;
        Self {
            open,
            seal,
            stream: Stream::new(name(call, plan)),
            names: rules.extensions.as_ref().is_some_and(|extensions| extensions.begins_to_name(None)),
            rules,
            continuity: Continuity::default(),
            reverse: usize::MAX,
            next: usize::MAX,
            lapsed: false,
            ring: Ring::new(&plan.resend).map(Box::new),
            sounding: false,
            hearing: false,
            packets: 0,
            octets: 0,
            cold,
            quality: Statistics::default(),
        }
    }

    /// Takes over a newer plan; state and counters stay.
    pub fn swap(&mut self, plan: Plan) {
        if self.rules.passage == Passage::Transparent && plan.passage == Passage::Translated {
            // What passed meanwhile was not of the stream that leaves from now on.
            self.stream.resume();
        }
        if self.rules.mute == Mute::Held && plan.mute == Mute::Open {
            self.stream.reopen();
        }
        if !self.ring.as_mut().is_some_and(|ring| ring.follow(&plan.resend)) {
            self.ring = Ring::new(&plan.resend).map(Box::new);
        }
        self.take_up_retransmissions(&plan);
        if self.cold.plan.ssrc != plan.ssrc {
            self.cold.kept.begin(None);
        }
        let rules = Rules::new(&plan);
        if let Some(extensions) = &rules.extensions {
            self.names |= extensions.begins_to_name(self.rules.extensions.as_deref());
        }
        self.cold.missing = match self.cold.missing.take() {
            // What a hold has kept back is missed by nobody.
            Some(missing) if rules.watches() && rules.mute == self.rules.mute => Some(missing),
            _ => rules.watches().then(Box::default),
        };
        self.rules = rules;
        if self.cold.plan.ingress != plan.ingress {
            self.cold.latch = Latch::moved();
        }
        self.cold.plan = plan;
    }

    /// Seals with another key from now on: what was sealed with the former one is of no use to anybody, and retransmissions
    /// begin as a restart would have them begin that knows nothing of the key.
    pub fn reseal(&mut self, seal: Sealing) {
        self.seal = seal;
        self.cold.again = first_again(self.cold.call, &self.cold.plan);
        self.cold.kept.begin(Some(self.cold.again));
        if let Some(ring) = &mut self.ring {
            ring.clear();
        }
    }

    /// Whether packets of the flow feed it.
    pub fn is_fed_by(&self, flow: &FlowKey) -> bool {
        // Most packets come by the first.
        let first = self.rules.ingress.is_some() && self.rules.ingress == Path::of(flow);
        first || self.cold.plan.ingress.contains(flow)
    }

    /// Whether it receives from or sends to the pair.
    pub fn touches(&self, pair: &FlowKey) -> bool {
        self.is_fed_by(pair) || self.cold.plan.rtp == *pair || self.cold.plan.rtcp == *pair
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
            Opening::Srtp(_) | Opening::Changing(_) => Ok(true),
        }
    }

    /// Whether control is told of its digits.
    pub fn tells_digits(&self) -> bool {
        self.rules.digits != Digits::Pass
    }

    /// Hears an open RTP packet: digits that have ended now, and whether the packet ends here. The stream goes on behind it
    /// without a gap.
    pub fn hear(&mut self, packet: &[u8], now: Now) -> ([Option<Digit>; 2], bool) {
        // The type alone tells most packets apart: whether their header is sound is looked at once, when they are rewritten.
        let payload_type = packet.get(1).map_or(0, |octet| octet & 0x7f);
        let Some(leaves) = self.rules.leaves(payload_type).filter(|leaves| leaves.is_event()) else {
            // Most packets touch nothing that is cold.
            let ended = if self.hearing { self.cold.hearing.hear_media(now) } else { None };
            self.hearing &= ended.is_none();
            return ([ended, None], false);
        };
        let Ok(header) = Header::parse(packet) else { return ([None; 2], false) };
        let digits = self.cold.hearing.hear_event(packet, leaves.clocks().0, now);
        self.hearing = self.cold.hearing.is_waiting();
        let ends = self.rules.digits == Digits::Tell;
        let (ssrc, sequence) = (header.ssrc(), header.sequence());
        if ends && self.stream.hold(ssrc, sequence) {
            let (timestamp, payload_type) = (header.timestamp(), header.payload_type());
            let (clock, begins) = (self.rules.clock.hz(), self.stream.has_begun());
            let arrival = Arrival { ssrc, sequence, timestamp, payload_type, clock, begins };
            self.quality.arrive_untimed(arrival, now);
        }
        (digits, ends)
    }

    /// Puts one open RTP packet into the outgoing stream.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn rewrite_rtp(&mut self, buf: &mut PacketBuf<'_>, now: Now) -> Result<Rewritten, Reason> {
        let holds = match self.seal {
            Sealing::Waiting => Some(Reason::Early),
            _ if self.rules.mute == Mute::Held || self.sounding => Some(Reason::Held),
            _ => None,
        };
        let recovered = self.rules.repeats && self.recover(buf)?;
        let missing = if self.rules.watches() { self.cold.missing.as_deref_mut() } else { None };
        let ears = Ears { quality: &mut self.quality, missing };
        let state = (&mut self.stream, &mut self.continuity, ears);
        let mut rewritten = rewrite(buf, state, (&self.rules, self.names), (holds, recovered), now)?;
        rewritten.asks = self.rules.nack && self.begins_to_ask();
        if self.ring.is_some() {
            self.keep(buf.packet(), false, now);
        }
        Ok(rewritten)
    }

    /// Statistics so far.
    pub fn quality(&self) -> Quality {
        let reports = &self.cold.reports;
        let told = reports.told(self.quality.clock());
        Quality { round_trip_us: reports.round_trip(), told, ..self.quality.report() }
    }

    /// Whether this leg has such a payload type.
    pub fn has_payload_type(&self, payload_type: u8) -> bool {
        self.rules.leaves(payload_type).is_some()
    }

    /// Whether packets of this SSRC leave on it.
    pub fn seals(&self, ssrc: u32) -> bool {
        self.rules.ssrc == ssrc || self.cold.plan.sealed().any(|own| own.0 == ssrc)
    }

    /// Where it sends to.
    pub fn egress(&self, payload: Payload) -> FlowKey {
        match (payload, &self.rules.rtp) {
            (Payload::Rtp, Some(path)) => path.flow(),
            (Payload::Rtp, None) => self.cold.plan.rtp,
            (Payload::Rtcp, _) => self.cold.plan.rtcp,
        }
    }
}

/// A packet in the words of the other leg.
#[derive(Debug, Clone, Copy)]
pub struct Rewritten {
    /// Octets of its payload.
    pub octets: u64,
    /// Whether it goes on with what has left before it; anything else is a fault of ours.
    pub follows: bool,
    /// Whether its header extensions made sense.
    pub sound: bool,
    /// Whether it came by retransmission.
    pub recovered: bool,
    /// Whether a timer is to be started, since something is missing that can be asked for.
    pub asks: bool,
}

/// What takes note of packets that come.
struct Ears<'a> {
    quality: &'a mut Statistics,
    missing: Option<&'a mut Missing>,
}

impl Ears<'_> {
    /// `timed`: its timestamp says when it was sent.
    #[inline]
    fn note(&mut self, packet: Arrival, timed: bool, now: Now) {
        if let Some(missing) = &mut self.missing {
            missing.arrive(packet.ssrc, packet.sequence, packet.begins, now);
        }
        if timed {
            self.quality.arrive(packet, now);
        } else {
            self.quality.arrive_untimed(packet, now);
        }
    }
}

/// Rewrites an open packet in place.
fn rewrite(
    buf: &mut PacketBuf<'_>,
    (stream, continuity, mut ears): (&mut Stream, &mut Continuity, Ears<'_>),
    (rules, names): (&Rules, bool),
    (holds, recovered): (Option<Reason>, bool),
    now: Now,
) -> Result<Rewritten, Reason> {
    let header = Header::parse(buf.packet()).map_err(|_| Reason::Malformed)?;
    let padding = header.padding_len().map_err(|_| Reason::Malformed)?;
    let octets = (header.payload_len() - padding) as u64;
    let (ssrc, sequence, payload_type) = (header.ssrc(), header.sequence(), header.payload_type());
    let extended = header.has_extension();
    let done = Rewritten { octets, follows: true, sound: true, recovered, asks: false };
    if rules.passage == Passage::Transparent {
        return rules.lets_pass(payload_type).map(|()| done);
    }
    let leaves = rules.leaves(payload_type);
    let (from, to) = leaves.map_or((rules.clock.hz(), 0), Leaves::clocks);
    let timestamp = header.timestamp();
    let arrival = |begins| Arrival { ssrc, sequence, timestamp, payload_type, clock: from, begins };
    let Some(leaves) = leaves else {
        if stream.skip(ssrc, sequence) {
            ears.note(arrival(stream.has_begun()), false, now);
        }
        return Err(Reason::PayloadType);
    };
    let event = leaves.is_event();
    if let Some(reason) = holds {
        if !recovered && stream.hold(ssrc, sequence) {
            ears.note(arrival(stream.has_begun()), !event, now);
        }
        return Err(reason);
    }
    let clock = if event { rules.clock.hz() } else { from };
    if ears.missing.is_some() && !recovered && ears.quality.has(ssrc, sequence) {
        // It was overtaken by its own repetition.
        return Err(Reason::Repeated);
    }
    let numbers = Numbers { ssrc, sequence, timestamp, clock, event };
    let place = if recovered { stream.fill(&numbers) } else { stream.place(&numbers, now) };
    if !recovered && place != Err(Reason::OutOfSequence) {
        ears.note(arrival(stream.has_begun()), !event, now);
    }
    let place = place?;
    if event && from != to {
        event::scale(buf.packet_mut(), from, to);
    }
    // Most packets have none.
    let extensions = (extended || names).then_some(&rules.extensions);
    let sound = extensions.map_or(Ok(true), |extensions| translate(buf, extensions.as_deref(), names))?;
    let packet = buf.packet_mut();
    rtp::set_payload_type(packet, leaves.payload_type());
    rtp::set_sequence(packet, place.sequence);
    rtp::set_timestamp(packet, place.timestamp);
    rtp::set_ssrc(packet, rules.ssrc);
    let follows = if recovered {
        continuity.has_place(packet)
    } else {
        continuity.follows(packet, (!event).then_some(clock))
    };
    Ok(Rewritten { follows, sound, ..done })
}

/// Puts the header extensions of the other leg in the place of a packet's own; whether those made sense.
fn translate(buf: &mut PacketBuf<'_>, wanted: Option<&Extensions>, names: bool) -> Result<bool, Reason> {
    let sound = match wanted {
        Some(extensions) => extensions.apply(buf, names),
        None => extensions::strip(buf),
    };
    sound.map_err(|_| Reason::Malformed)
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn low_half(value: u32) -> u16 {
    (value & 0xffff) as u16
}

/// The number in front of that of a direction's first retransmission: it follows from the direction, so that a restarted relay
/// knows it too.
pub fn first_again(call: CallId, plan: &Plan) -> u32 {
    let [high, low] = name(call, plan);
    u32::from(START + u16::from_be_bytes([low, high]) % STARTS)
}

/// The number in front of that of a direction's first packet, for the same reason.
pub fn first_kept(call: CallId, plan: &Plan) -> u32 {
    Stream::new(name(call, plan)).checkpoint().sequence
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

    const ROOM: usize = 4096;

    /// What a packet touches besides keys.
    #[test]
    fn hot_state_is_small() {
        let hot = size_of::<Direction>() - size_of::<Statistics>();
        assert!(hot <= 6 * 64, "{hot} octets beside the statistics");
    }

    /// What a direction has from its installation to its end, encrypted on both sides, but for a ring and the plan's lists, which
    /// `tests/room.rs` counts too.
    #[test]
    fn a_direction_has_its_room() {
        let keys = [size_of::<sallyport_srtp::Opener>(), size_of::<sallyport_srtp::Sealer>()];
        let own = size_of::<Direction>() + size_of::<Cold>() + crate::quality::SELDOM;
        eprintln!("{own} octets of its own, {keys:?} of keys and indices, {} of a ring", crate::resend::RING);
        assert!(own + keys.iter().sum::<usize>() <= ROOM, "{own} and {keys:?} octets");
    }
}
